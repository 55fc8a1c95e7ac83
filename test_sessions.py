# SPDX-FileCopyrightText: 2026 the sessions authors
# SPDX-License-Identifier: MIT
"""What sessions.py promises, in the order in which its user meets it."""

import collections
import copy
import dataclasses
import datetime
import http
import itertools
import json
import os
import pathlib
import pickle
import re
import runpy
import select
import signal
import subprocess
import sys
import traceback
import types
import typing

import pytest

import sessions
from sessions import IDENTIFY_INTERVAL, GatewayBotInfo, PayloadError, SessionStartLimit

UTC = datetime.timezone.utc
HOUR = datetime.timedelta(hours=1)
GMT = datetime.timezone(0 * HOUR, "GMT")
FAR = datetime.timezone(-5 * HOUR)
READ_AT = datetime.datetime(2026, 11, 22, 18, 47, 11, 250_001, tzinfo=UTC)
NAIVE = READ_AT.replace(tzinfo=None)
INT32_MAX = 2**31 - 1
FILE = pathlib.Path(sessions.__file__)
LIMIT = {"total": 1000, "remaining": 999, "reset_after": 14_400_000, "max_concurrency": 1}

COUNT = "expected an integer from 0 to 2147483647, got"
POSITIVE = "expected an integer from 1 to 2147483647, got"
URL = "expected a printable ws:// or wss:// URL with a host and without spaces, got"
SPAN = "expected a timedelta of zero or more, got"
MOMENT = "expected an aware datetime, got"
A_LIMIT = "expected a SessionStartLimit, got"

entities = pytest.mark.parametrize("entity", [SessionStartLimit, GatewayBotInfo])


def payload(**changes):
    """Return Discord's answer with *changes*, each where its key stands: in the limit or not."""
    limit = {key: changes.get(key, value) for key, value in LIMIT.items()}
    around = {key: value for key, value in changes.items() if key not in LIMIT}
    answer = {"url": "wss://gateway.discord.gg/", "shards": 9, "session_start_limit": limit}
    return {**answer, **around}


def without(key, mapping):
    return {name: value for name, value in mapping.items() if name != key}


def make_limit(**changes):
    fields = dict(total=1000, remaining=999, reset_after=4 * HOUR, max_concurrency=1)
    return SessionStartLimit(**{**fields, "created_at": READ_AT, **changes})


def make_info(**changes):
    fields = dict(url="wss://gateway.discord.gg/", shard_count=9, session_start_limit=make_limit())
    return GatewayBotInfo(**{**fields, **changes})


def read(entity, **options):
    """Read the part of the answer that is for *entity*."""
    return entity.from_payload(
        payload() if issubclass(entity, GatewayBotInfo) else LIMIT, **options
    )


def limit_of(made):
    return getattr(made, "session_start_limit", made)


class StoppedClock(datetime.datetime):
    """It is always READ_AT, and local time is far from UTC."""

    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(READ_AT.timestamp(), tz or FAR).replace(tzinfo=tz)

    def astimezone(self, tz=None):
        return super().astimezone(tz or FAR)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TaggedLimit(SessionStartLimit):
    """A subclass with something in it that can change."""

    tags: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaggedInfo(GatewayBotInfo):
    """A subclass without slots."""

    tags: list[str] = dataclasses.field(default_factory=list)


class TestReading:
    def test_every_field_is_read(self):
        counts = dict(total=2000, remaining=5, max_concurrency=16)
        limit = make_limit(**counts, reset_after=HOUR)
        info = make_info(url="ws://host", shard_count=48, session_start_limit=limit)
        answer = payload(url="ws://host", shards=48, **counts, reset_after=3_600_000)
        assert GatewayBotInfo.from_payload(answer) == info

    @pytest.mark.parametrize(
        ("milliseconds", "expected"),
        [(0, "0:00:00"), (14_400_001, "4:00:00.001000"), (INT32_MAX, "24 days, 20:31:23.647000")],
    )
    def test_milliseconds_of_reset_after_are_kept(self, milliseconds, expected):
        limit = SessionStartLimit.from_payload({**LIMIT, "reset_after": milliseconds})
        assert str(limit.reset_after) == expected

    @pytest.mark.parametrize(
        "limit", [{**LIMIT, "max_concurrency": 0}, without("max_concurrency", LIMIT)], ids=repr
    )
    def test_zero_or_absent_max_concurrency_is_one(self, limit):
        assert SessionStartLimit.from_payload(limit).max_concurrency == 1

    def test_unknown_keys_are_ignored(self):
        limit = {**LIMIT, "new": [1]}
        answer = payload(session_start_limit=limit, new={"deep": None}, message="no error")
        assert GatewayBotInfo.from_payload(answer) == make_info()

    def test_any_mapping_will_do(self):
        answer = payload(session_start_limit=types.MappingProxyType(LIMIT))
        assert GatewayBotInfo.from_payload(types.MappingProxyType(answer)) == make_info()

    def test_answer_is_left_as_it_is(self):
        answer = payload(session_start_limit=without("max_concurrency", LIMIT))
        GatewayBotInfo.from_payload(answer)
        assert answer == payload(session_start_limit=without("max_concurrency", LIMIT))

    @entities
    def test_created_at_is_now_in_utc_if_not_given(self, entity, monkeypatch):
        monkeypatch.setattr(datetime, "datetime", StoppedClock)
        created_at = limit_of(read(entity)).created_at
        assert created_at == READ_AT
        assert created_at.tzinfo is UTC

    @entities
    @pytest.mark.parametrize("years", [-20, 0, 1000])
    def test_created_at_may_be_given(self, entity, years):
        given = READ_AT.replace(year=READ_AT.year + years)
        created_at = limit_of(read(entity, created_at=given.astimezone(FAR))).created_at
        assert created_at == given
        assert created_at.tzinfo is UTC

    @pytest.mark.parametrize("cls", [TaggedLimit, TaggedInfo])
    @pytest.mark.parametrize("options", [{}, {"created_at": READ_AT}], ids=["now", "given"])
    def test_a_subclass_reads_itself(self, cls, options):
        assert type(read(cls, **options)) is cls


FIRST_MISSING = {
    SessionStartLimit: "session_start_limit.total: missing",
    GatewayBotInfo: "session_start_limit: missing",
}


def refusal(answer, entity=GatewayBotInfo):
    """Return the message of the PayloadError that reading *answer* raises."""
    with pytest.raises(PayloadError) as caught:
        entity.from_payload(answer)
    return str(caught.value)


class TestRefusingAnAnswer:
    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            (None, "payload: expected a mapping, got None"),
            ([], "payload: expected a mapping, got []"),
            ("{}", "payload: expected a mapping, got '{}'"),
            (payload(url=None), f"url: {URL} None"),
            (payload(url=["wss://h"]), f"url: {URL} ['wss://h']"),
            (payload(url="https://h"), f"url: {URL} 'https://h'"),
            (payload(shards=0, message="no error"), f"shards: {POSITIVE} 0"),
            (payload(shards="9"), f"shards: {POSITIVE} '9'"),
            (types.MappingProxyType(payload(shards=9.0)), f"shards: {POSITIVE} 9.0"),
            (payload(session_start_limit=5), "session_start_limit: expected a mapping, got 5"),
            (without("url", payload()), "url: missing"),
            (without("shards", payload()), "shards: missing"),
            (without("session_start_limit", payload()), "session_start_limit: missing"),
            (without("shards", payload(message=["no"])), "shards: missing"),
            (without("shards", payload(message="no")), "shards: missing; the answer says 'no'"),
            (payload(total=True), f"session_start_limit.total: {COUNT} True"),
            (payload(total="1000"), f"session_start_limit.total: {COUNT} '1000'"),
            (payload(remaining=None), f"session_start_limit.remaining: {COUNT} None"),
            (payload(reset_after=-1), f"session_start_limit.reset_after: {COUNT} -1"),
            (payload(reset_after=5.0), f"session_start_limit.reset_after: {COUNT} 5.0"),
            (payload(reset_after=2**31), f"session_start_limit.reset_after: {COUNT} 2147483648"),
            (payload(max_concurrency=-1), f"session_start_limit.max_concurrency: {COUNT} -1"),
            (payload(max_concurrency=None), f"session_start_limit.max_concurrency: {COUNT} None"),
            (payload(max_concurrency=False), f"session_start_limit.max_concurrency: {COUNT} False"),
            (payload(max_concurrency={}), f"session_start_limit.max_concurrency: {COUNT} {{}}"),
        ]
        + [
            (
                payload(session_start_limit=without(key, LIMIT)),
                f"session_start_limit.{key}: missing",
            )
            for key in ("total", "remaining", "reset_after")
        ],
    )
    def test_message_says_where_and_what(self, answer, message):
        assert refusal(answer) == message

    @pytest.mark.parametrize(
        "limit", [[], without("total", LIMIT), {**LIMIT, "total": -1}], ids=str
    )
    def test_a_limit_on_its_own_is_refused_in_the_same_words(self, limit):
        assert refusal(limit, SessionStartLimit) == refusal(payload(session_start_limit=limit))

    @entities
    @pytest.mark.parametrize(
        "text", ["401: Unauthorized", "See https://discord.com/developers/docs/rate-limits."]
    )
    def test_message_of_an_error_is_passed_on(self, entity, text):
        message = refusal({"message": text, "code": 0}, entity)
        assert message == f"{FIRST_MISSING[entity]}; the answer says {text!r}"

    @entities
    @pytest.mark.parametrize("more", [{}, {"new": 1}], ids=repr)
    def test_answer_to_get_gateway_is_recognised(self, entity, more):
        message = refusal({"url": "wss://gateway.discord.gg/", **more}, entity)
        hint = "this is the answer to GET /gateway, not to GET /gateway/bot"
        assert message == f"{FIRST_MISSING[entity]}; {hint}"

    @pytest.mark.parametrize(
        "value",
        [
            "x" * 10**6,
            "\x1b[31m\n\u202e\ud800" * 100,
            10**4000,
            [{"\x1b" * 99: ["\x9b" * 99] * 9}] * 9,
        ],
        ids=["long", "unprintable", "large", "nested"],
    )
    def test_message_is_short_and_printable_whatever_json_holds(self, value):
        error = {"message": str(value)[:400]}
        for answer in (value, payload(url=value), payload(total=value), error):
            message = refusal(answer)
            assert len(message) < 300
            assert message.isprintable()

    @pytest.mark.parametrize(
        ("value", "shown"),
        [("a" * 99 + "b" * 99, r"'a{37}\.\.\.b{38}'"), ([["a" * 99] * 9] * 9, ".{80}")],
        ids=["text", "nested"],
    )
    def test_long_value_is_shown_in_80_characters(self, value, shown):
        assert re.fullmatch(f"payload: expected a mapping, got {shown}", refusal(value))

    @pytest.mark.parametrize(
        ("entity", "answer"),
        [(SessionStartLimit, answer) for answer in ([], {}, {**LIMIT, "total": -1})]
        + [(GatewayBotInfo, answer) for answer in ([], {}, payload(shards=0), payload(total=-1))],
    )
    def test_error_is_one_traceback_without_a_chain(self, entity, answer):
        with pytest.raises(PayloadError) as caught:
            entity.from_payload(answer)
        assert "".join(traceback.format_exception(caught.value)).count("Traceback") == 1

    def test_error_is_a_value_error_that_can_be_pickled_as_process_pools_do(self):
        with pytest.raises(ValueError, match="total: missing") as caught:
            SessionStartLimit.from_payload({"message": "no"})
        error = pickle.loads(pickle.dumps(caught.value))
        assert type(error) is PayloadError
        assert str(error) == "session_start_limit.total: missing; the answer says 'no'"

    @entities
    @pytest.mark.parametrize(("created_at", "error"), [(0, TypeError), (NAIVE, ValueError)])
    def test_wrong_created_at_is_not_blamed_on_the_answer(self, entity, created_at, error):
        with pytest.raises(error, match=f"^created_at: {MOMENT} ") as caught:
            read(entity, created_at=created_at)
        assert caught.type is error


class Duration(datetime.timedelta):
    """Like those of other libraries, which need not divide as a timedelta does."""

    def __repr__(self):
        return "Duration"


class Nowhere(datetime.tzinfo):
    """A zone that does not know its offset."""

    def utcoffset(self, moment):
        return None


class TestConstructing:
    @pytest.mark.parametrize("make", [make_limit, make_info])
    def test_fields_cannot_be_set(self, make):
        entity = make()
        for field in dataclasses.fields(entity):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(entity, field.name, getattr(entity, field.name))

    def test_created_at_is_now_in_utc_if_not_given(self, monkeypatch):
        monkeypatch.setattr(datetime, "datetime", StoppedClock)
        limit = SessionStartLimit(total=1, remaining=1, reset_after=HOUR, max_concurrency=1)
        assert limit.created_at == READ_AT

    @pytest.mark.parametrize("make", [make_limit, make_info])
    def test_there_is_no_dict_for_other_attributes(self, make):
        assert not hasattr(make(), "__dict__")

    @pytest.mark.parametrize("made", [make_limit(), make_info()], ids=["limit", "info"])
    def test_arguments_are_keywords(self, made):
        values = [getattr(made, field.name) for field in dataclasses.fields(made)]
        with pytest.raises(TypeError, match="positional"):
            type(made)(*values)

    @pytest.mark.parametrize(
        "changes",
        [
            {"total": 0, "remaining": 0, "reset_after": 0 * HOUR, "max_concurrency": 1},
            {"total": INT32_MAX, "remaining": INT32_MAX, "max_concurrency": INT32_MAX},
            {"total": 1, "remaining": 2, "reset_after": datetime.timedelta(microseconds=1)},
        ],
        ids=["least", "most", "more left than total"],
    )
    def test_counts_that_a_limit_takes(self, changes):
        limit = make_limit(**changes)
        assert {name: getattr(limit, name) for name in changes} == changes

    @pytest.mark.parametrize(
        "value", [1000.0, "1000", True, None, float("nan"), http.HTTPStatus.OK, [5]], ids=repr
    )
    def test_count_of_a_wrong_type_is_refused(self, value):
        with pytest.raises(TypeError, match=f"^{re.escape(f'total: {COUNT} {value!r}')}$"):
            make_limit(total=value)

    @pytest.mark.parametrize("value", [-1, INT32_MAX + 1])
    def test_count_out_of_range_is_refused(self, value):
        with pytest.raises(ValueError, match=f"^total: {COUNT} {value}$"):
            make_limit(total=value)

    @pytest.mark.parametrize(
        ("make", "changes", "error", "message"),
        [
            (make_limit, {"remaining": -1}, ValueError, f"remaining: {COUNT} -1"),
            (make_limit, {"remaining": True}, TypeError, f"remaining: {COUNT} True"),
            (make_limit, {"max_concurrency": 0}, ValueError, f"max_concurrency: {POSITIVE} 0"),
            (make_limit, {"max_concurrency": None}, TypeError, f"max_concurrency: {POSITIVE} None"),
            (make_limit, {"max_concurrency": 1.0}, TypeError, f"max_concurrency: {POSITIVE} 1.0"),
            (make_limit, {"max_concurrency": 2**31}, ValueError, f"max_concurrency: {POSITIVE} "),
            (make_limit, {"reset_after": 5.0}, TypeError, f"reset_after: {SPAN} 5.0"),
            (make_limit, {"reset_after": -HOUR}, ValueError, f"reset_after: {SPAN} {-HOUR!r}"),
            (make_limit, {"reset_after": Duration(1)}, TypeError, f"reset_after: {SPAN} Duration"),
            (make_limit, {"created_at": None}, TypeError, f"created_at: {MOMENT} None"),
            (make_limit, {"created_at": "2026-11-22"}, TypeError, f"created_at: {MOMENT} '2026"),
            (make_limit, {"created_at": READ_AT.date()}, TypeError, f"created_at: {MOMENT} "),
            (make_limit, {"created_at": NAIVE}, ValueError, f"created_at: {MOMENT} {NAIVE!r}"),
            (make_info, {"shard_count": 0}, ValueError, f"shard_count: {POSITIVE} 0"),
            (make_info, {"shard_count": True}, TypeError, f"shard_count: {POSITIVE} True"),
            (make_info, {"shard_count": 2**31}, ValueError, f"shard_count: {POSITIVE} 2147483648"),
            (make_info, {"url": b"wss://h"}, TypeError, f"url: {URL} b'wss://h'"),
            (make_info, {"session_start_limit": {}}, TypeError, f"session_start_limit: {A_LIMIT} "),
        ],
    )
    def test_every_field_is_checked(self, make, changes, error, message):
        with pytest.raises(error, match=f"^{re.escape(message)}"):
            make(**changes)

    @pytest.mark.parametrize(
        "url",
        ["wss://h", "wss://h?v=10", "ws://host:80/?v=10", "wss://[::1]/", "wss://пример.рф"],
        ids=ascii,
    )
    def test_url_is_a_websocket_url_with_a_host(self, url):
        assert make_info(url=url).url == url

    @pytest.mark.parametrize(
        "url",
        ["", "host", " wss://h", "wss:/h", "wss://h\n", "wss://h/\x1b[31m", "wss://h/\u202e"]
        + [f"{scheme}://host" for scheme in ("http", "https", "wsx", "WSS")]
        + [
            f"wss://{rest}"
            for rest in ("", " ", "/path", "?query", "#fragment", ":443/", "host/a b")
        ],
        ids=ascii,
    )
    def test_other_urls_are_refused(self, url):
        with pytest.raises(ValueError, match=f"^{re.escape(f'url: {URL} {url!r}')}$"):
            make_info(url=url)

    @pytest.mark.parametrize(
        "moment",
        [READ_AT.replace(tzinfo=Nowhere()), StoppedClock(2026, 11, 22)],
        ids=["a zone that does not know it", "a subclass of datetime, naive"],
    )
    def test_created_at_without_an_offset_is_refused(self, moment):
        with pytest.raises(ValueError, match=f"^created_at: {MOMENT} "):
            make_limit(created_at=moment)

    @pytest.mark.parametrize(
        "moment",
        [READ_AT.astimezone(FAR), READ_AT.astimezone(GMT), StoppedClock.now(FAR)],
        ids=repr,
    )
    def test_created_at_is_converted_to_utc(self, moment):
        created_at = make_limit(created_at=moment).created_at
        assert created_at == READ_AT
        assert created_at.tzinfo is UTC


class SummerTime(datetime.tzinfo):
    """Two hours ahead of UTC until 25 October 2026 at 3:00, when clocks go back by one."""

    def utcoffset(self, moment):
        return (2 if moment.replace(tzinfo=None) < datetime.datetime(2026, 10, 25, 3) else 1) * HOUR


class TestAsking:
    def test_used_is_what_is_gone_of_total(self):
        assert make_limit(total=1000, remaining=990).used == 10

    def test_used_is_negative_where_more_than_total_are_left(self):
        assert make_limit(total=1, remaining=3).used == -2

    def test_reset_at_is_reset_after_later_than_created_at(self):
        reset_at = make_limit(reset_after=HOUR).reset_at
        assert reset_at == READ_AT + HOUR
        assert reset_at.tzinfo is UTC

    def test_reset_at_is_right_where_summer_time_ends_before_it(self):
        created_at = datetime.datetime(2026, 10, 25, 1, tzinfo=SummerTime())
        reset_at = make_limit(reset_after=4 * HOUR, created_at=created_at).reset_at
        assert reset_at == datetime.datetime(2026, 10, 25, 3, tzinfo=UTC)

    @pytest.mark.parametrize(("needed", "answer"), [(0, True), (4, True), (5, True), (6, False)])
    def test_can_start_as_many_as_remain_whatever_the_total(self, needed, answer):
        assert make_limit(remaining=5, total=0).can_start(needed) is answer

    @pytest.mark.parametrize(("needed", "answer"), [(5, True), (6, False)])
    def test_can_start_as_many_as_remain_where_no_window_is_running(self, needed, answer):
        assert make_limit(remaining=5, reset_after=0 * HOUR).can_start(needed) is answer

    def test_reset_at_is_created_at_where_no_window_is_running(self):
        assert make_limit(reset_after=0 * HOUR).reset_at == READ_AT

    def test_numbers_of_a_window_that_has_ended_stay_as_they_were_read(self):
        long_ago = datetime.datetime(2020, 1, 1, tzinfo=UTC)
        limit = make_limit(remaining=5, created_at=long_ago)
        assert limit.can_start(6) is False
        assert limit.used == 995
        assert limit.reset_at == long_ago + 4 * HOUR

    @pytest.mark.parametrize(("shard_id", "key"), [(0, 0), (15, 15), (16, 0), (35, 3)])
    def test_rate_limit_key_is_the_shard_id_modulo_max_concurrency(self, shard_id, key):
        assert make_limit(max_concurrency=16).rate_limit_key(shard_id) == key

    @pytest.mark.parametrize(
        ("question", "name"), [("can_start", "sessions"), ("rate_limit_key", "shard_id")]
    )
    @pytest.mark.parametrize(
        ("value", "error"),
        [
            (-1, ValueError),
            (2**31, ValueError),
            ("5", TypeError),
            (True, TypeError),
            (5.0, TypeError),
        ],
    )
    def test_question_about_what_is_not_a_count_is_refused(self, question, name, value, error):
        with pytest.raises(error, match=f"^{name}: {COUNT} {value!r}$"):
            getattr(make_limit(), question)(value)


def pickled(entity):
    return pickle.loads(pickle.dumps(entity))


def method(entity, **changes):
    return entity.copy(**changes)


CHANGERS = [method, dataclasses.replace]
if sys.version_info >= (3, 13):
    CHANGERS.append(copy.replace)
COPIERS = [copy.copy, copy.deepcopy, pickled]
changers = pytest.mark.parametrize("changed", CHANGERS, ids=lambda changer: changer.__name__)
copiers = pytest.mark.parametrize("copied", COPIERS, ids=lambda copier: copier.__name__)


class TestCopying:
    @pytest.mark.parametrize("copied", COPIERS + CHANGERS, ids=lambda copier: copier.__name__)
    @pytest.mark.parametrize("cls", [SessionStartLimit, GatewayBotInfo, TaggedLimit, TaggedInfo])
    def test_copy_keeps_everything(self, copied, cls):
        entity = read(cls, created_at=READ_AT)
        getattr(entity, "tags", []).append("a")
        made = copied(entity)
        assert made == entity
        assert type(made) is cls
        assert limit_of(made).created_at == READ_AT

    @changers
    @pytest.mark.parametrize(
        ("make", "changes"), [(make_limit, {"total": 6}), (make_info, {"url": "ws://h"})]
    )
    def test_change_is_made(self, changed, make, changes):
        assert changed(make(), **changes) == make(**changes)

    @changers
    @pytest.mark.parametrize(
        "changes", [{"total": 5}, {"remaining": 5}, {"reset_after": HOUR}], ids=repr
    )
    def test_change_does_not_make_the_numbers_newer(self, changed, changes):
        assert changed(make_limit(), **changes).created_at == READ_AT

    @changers
    def test_created_at_can_be_changed(self, changed):
        assert changed(make_limit(), created_at=READ_AT + HOUR).created_at == READ_AT + HOUR

    @changers
    @pytest.mark.parametrize(
        ("value", "error"), [(-1, ValueError), (True, TypeError), (None, TypeError)]
    )
    def test_change_is_checked(self, changed, value, error):
        with pytest.raises(error, match=f"^remaining: {COUNT} {value}$"):
            changed(make_limit(), remaining=value)
        with pytest.raises(error, match=f"^shard_count: {POSITIVE} {value}$"):
            changed(make_info(), shard_count=value)
        with pytest.raises(ValueError, match=f"^created_at: {MOMENT}"):
            changed(make_limit(), created_at=NAIVE)

    @pytest.mark.parametrize(("make", "name"), [(make_limit, "shards"), (make_info, "remaining")])
    def test_change_of_an_unknown_field_is_a_type_error(self, make, name):
        with pytest.raises(TypeError, match=name):
            make().copy(**{name: 5})


@dataclasses.dataclass(frozen=True, kw_only=True)
class CountedLimit(SessionStartLimit):
    """A subclass with fields that its constructor does not take, or does not keep."""

    starts: list[object] = dataclasses.field(default_factory=list, init=False)
    first: dataclasses.InitVar[int] = 0

    def __post_init__(self, first):
        SessionStartLimit.__post_init__(self)
        self.starts.append(first)


class NamedInfo(GatewayBotInfo):
    """A subclass with a constructor of its own."""

    def __init__(self, name):
        super().__init__(url=f"wss://{name}", shard_count=1, session_start_limit=make_limit())


def broken():
    raise KeyError("oops")


class TestSubclassing:
    @entities
    def test_field_without_a_default_is_not_blamed_on_the_answer(self, entity):
        cls = dataclasses.make_dataclass("Sub", ["tag"], bases=(entity,), frozen=True, kw_only=True)
        with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'tag'"):
            read(cls)

    @entities
    def test_error_of_a_subclass_is_not_blamed_on_the_answer(self, entity):
        fields = [("tag", str, dataclasses.field(default_factory=broken))]
        cls = dataclasses.make_dataclass("Sub", fields, bases=(entity,), frozen=True, kw_only=True)
        with pytest.raises(KeyError, match="oops"):
            read(cls)

    def test_subclass_of_an_info_reads_a_plain_limit_whatever_it_declares(self):
        fields = [("session_start_limit", TaggedLimit)]
        bases = (GatewayBotInfo,)
        cls = dataclasses.make_dataclass("Sub", fields, bases=bases, frozen=True, kw_only=True)
        assert type(read(cls).session_start_limit) is SessionStartLimit

    def test_subclass_that_cannot_be_hashed_answers_as_well(self):
        limit = read(TaggedLimit)
        assert limit.can_start(limit.used) is True
        assert limit.rate_limit_key(5) == 0

    @copiers
    def test_copy_keeps_fields_that_the_constructor_does_not_take(self, copied):
        limit = read(CountedLimit)
        limit.starts.append(7)
        made = copied(limit)
        assert made.starts == [0, 7]

    @copiers
    def test_copy_does_not_need_the_constructor(self, copied):
        made = copied(NamedInfo("host"))
        assert type(made) is NamedInfo
        assert made.url == "wss://host"

    @changers
    @pytest.mark.parametrize("cls", [TaggedLimit, TaggedInfo])
    def test_what_a_subclass_adds_can_be_changed(self, changed, cls):
        assert changed(read(cls), tags=["a"]).tags == ["a"]

    @pytest.mark.parametrize("cls", [TaggedLimit, TaggedInfo])
    def test_shallow_copy_of_a_subclass_shares_what_can_change(self, cls):
        entity = read(cls)
        made = copy.copy(entity)
        assert made is not entity
        assert made.tags is entity.tags

    @pytest.mark.parametrize("cls", [TaggedLimit, TaggedInfo])
    def test_deep_copy_of_a_subclass_copies_what_can_change(self, cls):
        entity = read(cls)
        assert copy.deepcopy(entity).tags is not entity.tags

    @pytest.mark.parametrize("cls", [GatewayBotInfo, TaggedInfo])
    def test_deep_copy_of_an_info_copies_a_limit_that_can_change(self, cls):
        info = read(cls).copy(session_start_limit=read(TaggedLimit))
        made = copy.deepcopy(info)
        assert made.session_start_limit.tags is not info.session_start_limit.tags

    def test_deep_copy_keeps_what_two_places_share_shared(self):
        limit = read(TaggedLimit)
        first, second = copy.deepcopy([limit, limit.copy(remaining=5)])
        assert first.tags is second.tags

    def test_deep_copy_of_a_cycle_is_a_cycle(self):
        limit = read(CountedLimit)
        limit.starts[:] = [limit]
        made = copy.deepcopy(limit)
        assert made.starts[0] is made


class TestComparing:
    @entities
    def test_two_reads_of_one_answer_are_equal_and_have_one_hash(self, entity):
        first = read(entity, created_at=READ_AT)
        second = read(entity, created_at=READ_AT + HOUR)
        assert first == second
        assert hash(first) == hash(second)

    @pytest.mark.parametrize(
        "change", [{"total": 5}, {"remaining": 5}, {"reset_after": HOUR}, {"max_concurrency": 5}]
    )
    def test_limits_of_different_numbers_differ(self, change):
        assert make_limit() != make_limit(**change)

    @pytest.mark.parametrize(
        "change",
        [{"url": "ws://h"}, {"shard_count": 1}, {"session_start_limit": make_limit(remaining=5)}],
        ids=lambda change: next(iter(change)),
    )
    def test_infos_of_different_values_differ(self, change):
        assert make_info() != make_info(**change)

    @pytest.mark.parametrize("made", [make_limit(), make_info()], ids=["limit", "info"])
    def test_nothing_equals_what_is_of_another_type(self, made):
        assert made != LIMIT

    def test_repr_reads_back_with_eval(self):
        names = {type(READ_AT).__name__: type(READ_AT), **globals()}  # freezegun has its own
        made = eval(repr(make_info()), names)
        assert made == make_info()
        assert made.session_start_limit.created_at == READ_AT


class TestWriting:
    def test_answer_is_given_back(self):
        answer = payload(url="ws://h", shards=5, total=1, remaining=2, max_concurrency=16)
        assert GatewayBotInfo.from_payload(answer).to_payload() == answer

    @pytest.mark.parametrize(("cls", "expected"), [(TaggedLimit, LIMIT), (TaggedInfo, payload())])
    def test_what_a_subclass_adds_is_left_out(self, cls, expected):
        assert read(cls).to_payload() == expected

    @pytest.mark.parametrize("milliseconds", [0, 16_100, INT32_MAX])
    def test_reset_after_is_given_back_to_the_millisecond(self, milliseconds):
        limit = SessionStartLimit.from_payload({**LIMIT, "reset_after": milliseconds})
        written = limit.to_payload()["reset_after"]
        assert written == milliseconds
        assert type(written) is int

    def test_reset_after_is_rounded_up_to_a_millisecond(self):
        limit = make_limit(reset_after=datetime.timedelta(microseconds=1001))
        assert limit.to_payload()["reset_after"] == 2

    def test_what_is_done_to_the_payload_does_not_reach_the_object(self):
        info = make_info()
        info.to_payload()["session_start_limit"]["total"] = 5
        assert info.to_payload() == payload()

    def test_stored_answer_is_restored_with_its_reset(self):
        text = json.dumps(make_info().to_payload())
        restored = GatewayBotInfo.from_payload(json.loads(text), created_at=READ_AT)
        assert restored.session_start_limit.reset_at == READ_AT + 4 * HOUR


def buckets(shard_count, max_concurrency, *shard_ids):
    # No session is left and no window is running: the order goes by the key alone.
    limit = make_limit(max_concurrency=max_concurrency, remaining=0, reset_after=0 * HOUR)
    return make_info(shard_count=shard_count, session_start_limit=limit).buckets(*shard_ids)


class TestStarting:
    def test_interval_is_five_seconds(self):
        assert datetime.timedelta(seconds=5) == IDENTIFY_INTERVAL

    @pytest.mark.parametrize(
        ("shards", "concurrency", "expected"),
        [
            (3, 1, [(0,), (1,), (2,)]),
            (3, 16, [(0, 1, 2)]),
            (5, 2, [(0, 1), (2, 3), (4,)]),
            (32, 16, [tuple(range(16)), tuple(range(16, 32))]),
        ],
    )
    def test_all_shards_start_in_buckets_of_neighbours(self, shards, concurrency, expected):
        assert buckets(shards, concurrency) == expected

    def test_shards_of_one_key_wait_for_each_other(self):
        assert buckets(48, 16, [0, 16, 32]) == [(0,), (16,), (32,)]

    def test_shards_of_different_keys_start_at_once(self):
        assert buckets(48, 16, [3, 8, 9, 20]) == [(3, 8, 9, 20)]

    def test_ids_come_from_any_iterable_in_any_order(self):
        assert buckets(48, 16, iter([35, 20, 4, 3])) == [(3, 4), (20, 35)]

    def test_repeated_id_counts_once(self):
        assert buckets(4, 2, [1, 1, 1]) == [(1,)]

    def test_no_ids_need_no_bucket(self):
        assert buckets(4, 2, []) == []

    def test_what_is_done_to_the_buckets_does_not_reach_the_next_caller(self):
        info = make_info(shard_count=2)
        info.buckets().pop()
        assert info.buckets() == [(0,), (1,)]

    @pytest.mark.parametrize("max_concurrency", range(1, 6))
    def test_every_share_keeps_the_rule_in_as_few_buckets_as_possible(self, max_concurrency):
        for size in range(8):
            for share in itertools.combinations(range(7), size):
                made = buckets(7, max_concurrency, share)
                by_key = collections.defaultdict(list)
                for turn, bucket in enumerate(made):
                    assert list(bucket) == sorted(bucket)
                    for shard_id in bucket:
                        by_key[shard_id % max_concurrency].append((turn, shard_id))
                assert sorted(itertools.chain(*made)) == list(share)
                for started in by_key.values():
                    assert started == sorted(started)
                    assert [turn for turn, _ in started] == list(range(len(started)))
                assert len(made) == max(map(len, by_key.values()), default=0)

    @pytest.mark.parametrize(
        ("shard_ids", "wrong", "error"),
        [
            ([0, -1], -1, ValueError),
            ({0, 9}, 9, ValueError),
            ([1, True], True, TypeError),
            ([0, 4.0, 8], 4.0, TypeError),
            ([0, None], None, TypeError),
            (range(8, 10), 9, ValueError),
            (range(-1, 3), -1, ValueError),
            (range(1, -2, -1), -1, ValueError),
        ],
    )
    def test_id_that_is_not_a_shard_is_refused(self, shard_ids, wrong, error):
        message = f"shard_id: expected an integer from 0 to 8, got {wrong}"
        with pytest.raises(error, match=f"^{message}$"):
            buckets(9, 1, shard_ids)


COMMAND = [sys.executable, "-E", str(FILE)]


def run(*arguments, stdin=b"", command=COMMAND, cwd=FILE.parent):
    """Run the command with *stdin*, bytes or something for JSON of several lines."""
    done = subprocess.run(
        [*command, *arguments],
        input=stdin if isinstance(stdin, bytes) else json.dumps(stdin, indent=1).encode(),
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "120"},
        cwd=cwd,
        capture_output=True,
        timeout=60,
    )
    done.stdout = done.stdout.decode().replace("\r\n", "\n")
    done.stderr = done.stderr.decode().replace("\r\n", "\n")
    return done


needs_processes = pytest.mark.skipif(sys.platform == "emscripten", reason="needs processes")
needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX system")


class TestReport:
    @pytest.fixture
    def report(self, tmp_path, monkeypatch, capsys):
        """Return a function that runs the command at READ_AT and returns what it prints."""

        def report(answer, *options, status):
            file = tmp_path / "answer.json"
            file.write_bytes(json.dumps(answer).encode())
            monkeypatch.setattr(datetime, "datetime", StoppedClock)
            monkeypatch.setattr(sys, "argv", ["sessions.py", *options, str(file)])
            with pytest.raises(SystemExit, match=f"^{status}$"):
                runpy.run_path(str(FILE), run_name="__main__")
            return str(capsys.readouterr().out)

        return report

    def test_it_tells_all_that_a_start_depends_on(self, report):
        numbers = dict(total=2000, remaining=5000, reset_after=3_600_100, max_concurrency=16)
        assert report(payload(shards=40, **numbers), status=0) == (
            "URL             wss://gateway.discord.gg/\n"
            "Shards          40\n"
            "Concurrency     16\n"
            "Buckets         3\n"
            "Full start      0:00:10\n"
            "Sessions left   5000\n"
            "Sessions total  2000\n"
            "Sessions used   -3000\n"
            "Reset           2026-11-22 19:47:11 UTC, in 1:00:00.100000\n"
        )

    @pytest.mark.parametrize(
        ("options", "needed"),
        [
            ([], "9 are needed: 9 to start and 0 in reserve."),
            (["--reserve=100"], "109 are needed: 9 to start and 100 in reserve."),
            (["--sessions=7", "--reserve=1"], "8 are needed: 7 to start and 1 in reserve."),
            (["--sessions=1000"], "1000 are needed: 1000 to start and 0 in reserve."),
        ],
    )
    def test_it_says_what_is_needed_and_when_it_will_be_there(self, report, options, needed):
        sentences = report(payload(remaining=7), *options, status=1).split("\n\n")[1]
        assert sentences == (
            "Too few sessions are left: 7.\n"
            f"{needed}\n"
            "The reset at 2026-11-22 22:47:11 UTC brings 1000.\n"
        )

    @pytest.mark.parametrize("options", [["--sessions=1001"], ["--reserve=992"]])
    def test_it_says_if_no_reset_will_bring_enough(self, report, options):
        sentences = report(payload(), *options, status=1).split("\n\n")[1]
        assert sentences.endswith(" in reserve.\nNo reset will bring enough: it brings 1000.\n")


@needs_processes
class TestCommandLine:
    @pytest.mark.parametrize(
        ("remaining", "options", "status"),
        [
            (16, [], 0),
            (15, [], 1),
            (15, ["--sessions=15"], 0),
            (16, ["--sessions=17"], 1),
            (0, ["--sessions=0"], 0),
            (1000, ["--sessions=1001"], 1),
            (26, ["--reserve=10"], 0),
            (25, ["--reserve=10"], 1),
            (15, ["--reserve=10", "--sessions=5"], 0),
            (14, ["--reserve=10", "--sessions=5"], 1),
            (1000, [f"--reserve={INT32_MAX}"], 1),
        ],
    )
    @pytest.mark.parametrize("reset_after", [0, 14_400_000])
    def test_status_and_sentence_tell_whether_enough_are_left(
        self, remaining, options, status, reset_after
    ):
        answer = payload(shards=16, remaining=remaining, reset_after=reset_after)
        done = run(*options, stdin=answer)
        assert (done.returncode, done.stderr) == (status, "")
        assert ("Too few" in done.stdout) is (status == 1)

    @pytest.mark.parametrize("option", ["--sessions", "--reserve"])
    @pytest.mark.parametrize("value", ["-1", "1.5", "many", "", str(INT32_MAX + 1)])
    def test_sessions_needed_are_a_count(self, option, value):
        done = run(option, value, stdin=payload())
        assert (done.returncode, done.stdout) == (2, "")
        assert f"argument {option}: invalid count value: {value!r}" in done.stderr

    @pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["without mark", "with byte order mark"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
    def test_answer_in_the_encodings_of_shells(self, encoding, mark):
        assert run("-", stdin=(mark + json.dumps(payload())).encode(encoding)).returncode == 0

    def test_answer_that_is_more_than_a_pipe_holds_is_read_whole(self):
        assert run(stdin=payload(new="x" * 3_000_000)).returncode == 0

    @needs_posix
    def test_answer_that_comes_in_pieces_is_read_whole(self):
        fcntl, termios = map(pytest.importorskip, ("fcntl", "termios"))
        reader, writer = os.pipe()
        answer = json.dumps(payload()).encode()
        with subprocess.Popen(COMMAND, stdin=reader, stdout=subprocess.DEVNULL) as process:
            os.write(writer, answer[:20])
            while process.poll() is None and any(fcntl.ioctl(reader, termios.FIONREAD, bytes(4))):
                pass  # until the first piece is read
            os.write(writer, answer[20:])
            os.close(writer)
        os.close(reader)
        assert process.returncode == 0

    @pytest.mark.parametrize(
        ("shards", "row"),
        [(1, "Full start      0:00:00"), (INT32_MAX, "Buckets         2147483647")],
    )
    def test_report_for_the_least_and_the_most_shards(self, shards, row):
        assert row in run(stdin=payload(shards=shards)).stdout.splitlines()

    UNUSABLE = {
        "file": (["no.json"], b"", ".*No such file.*'no.json'"),
        "no name": ([""], payload(), ".*No such file.*"),
        "name": (["\x1b[31m\n"], b"", ".+"),
        "directory": ([str(FILE.parent)], b"", ".+"),
        "empty": ([], b"", r"cannot read b'' as JSON: Expecting value: line 1 column 1 \(char 0\)"),
        "HTML": ([], b"<html>502</html>", "cannot read b'<html>502</html>' as JSON: Expecting .+"),
        "half": ([], json.dumps(payload()).encode()[:-20], 'cannot read b\'{"url": .+ as JSON: .+'),
        "bytes": ([], b"\x1b\xff", r"cannot read b'\\x1b\\xff' as JSON: .+"),
        "brackets": ([], b"[" * 200_000, "cannot read .+ as JSON: .+"),
        "digits": ([], b"[" + b"1" * 5000 + b"]", "cannot read .+ as JSON: .+"),
        "list": ([], [], r"payload: expected a mapping, got \[\]"),
        "error": ([], {"message": "no"}, "session_start_limit: missing; the answer says 'no'"),
        "control": ([], payload(url="wss://\x1b[31m"), r"url: expected .+, got 'wss://\\x1b\[31m'"),
    }

    @pytest.mark.parametrize(("arguments", "stdin", "problem"), UNUSABLE.values(), ids=UNUSABLE)
    def test_unusable_answer_is_one_line_and_status_2(self, arguments, stdin, problem):
        done = run(*arguments, stdin=stdin)
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(f"sessions.py: {problem}\n", done.stderr), done.stderr
        assert done.stderr[:-1].isprintable()
        assert len(done.stderr) < 400

    def test_bad_usage_is_status_2(self):
        assert run("--nonsense", stdin=payload()).returncode == 2

    def test_python_without_assertions_checks_as_well(self):
        command = [sys.executable, "-E", "-O", str(FILE)]
        assert run(stdin=payload(total=-1), command=command).returncode == 2

    def test_help_tells_the_options_and_the_statuses(self):
        assert " ".join(run("--help").stdout.split()) == (
            "usage: sessions.py [-h] [--sessions N] [--reserve N] [--version] [FILE] "
            "Read Discord's answer to GET /gateway/bot and tell whether enough sessions are left "
            "for a start. It does not fetch the answer: curl can. "
            "positional arguments: FILE JSON; standard input if - or absent "
            "options: -h, --help show this help message and exit "
            "--sessions N how many the start takes, if not one per shard "
            "--reserve N how many have to be left after it "
            "--version show program's version number and exit "
            "The exit status is 0 if enough are left, 1 if too few are, "
            "2 if the answer or the usage is wrong."
        )

    def test_version(self):
        assert run("--version").stdout == f"sessions.py {sessions.__version__}\n"

    @needs_posix
    @pytest.mark.parametrize(
        "device", ["/dev/full", "&-"] if os.path.exists("/dev/full") else ["&-"]
    )
    def test_report_that_cannot_be_written_is_never_status_0(self, device):
        command = ["sh", "-c", f'"$@" >{device}', "sh", *COMMAND]
        assert run(stdin=payload(), command=command).returncode != 0

    @needs_posix
    def test_answer_may_be_in_a_file_that_is_none(self):
        assert run("/dev/stdin", stdin=payload()).returncode == 0

    @needs_posix
    def test_closed_standard_input_is_status_2(self):
        assert run(command=["sh", "-c", '"$@" <&-', "sh", *COMMAND]).returncode == 2

    def test_report_that_nobody_reads_is_never_status_0(self):
        reader, writer = os.pipe()
        os.close(reader)
        answer = json.dumps(payload()).encode()
        command = [sys.executable, "-E", "-u", str(FILE)]
        done = subprocess.run(command, input=answer, stdout=writer, stderr=subprocess.DEVNULL)
        os.close(writer)
        assert done.returncode != 0

    @pytest.fixture
    def terminal(self):
        """Open a terminal and return its keyboard and what programs see of it."""
        try:
            keyboard, screen = os.openpty()
        except (AttributeError, OSError) as error:
            pytest.skip(f"there is no terminal: {error}")
        yield keyboard, screen
        os.close(keyboard)
        os.close(screen)

    @pytest.mark.parametrize(("arguments", "status", "times"), [([], 0, 1), ([os.devnull], 2, 0)])
    def test_at_a_terminal_it_says_what_it_waits_for(self, terminal, arguments, status, times):
        keyboard, screen = terminal
        os.write(keyboard, json.dumps(payload()).encode() + b"\n\x04")
        done = subprocess.run([*COMMAND, *arguments], stdin=screen, capture_output=True, timeout=60)
        message = b"waiting for the answer to GET /gateway/bot on standard input\n"
        assert done.returncode == status
        assert done.stderr.count(message) == times

    def test_interrupt_at_a_terminal_is_never_status_0(self, terminal):
        process = subprocess.Popen(COMMAND, stdin=terminal[1], stderr=subprocess.PIPE)
        assert select.select([process.stderr], [], [], 60)[0]  # it says that it waits
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode != 0


class TestVendoring:
    def test_public_names(self):
        public = [
            name
            for name, value in vars(sessions).items()
            if getattr(value, "__module__", "") == "sessions" and not name.startswith("_")
        ]
        assert sorted([*public, "IDENTIFY_INTERVAL"]) == sorted(sessions.__all__)

    @entities
    def test_libraries_can_read_the_types_of_the_fields(self, entity):
        types_of_fields = {field.name: field.type for field in dataclasses.fields(entity)}
        assert typing.get_type_hints(entity) == types_of_fields

    @entities
    def test_libraries_can_read_the_types_of_every_method(self, entity):
        for member in vars(entity).values():
            function = getattr(member, "fget", getattr(member, "__func__", member))
            if isinstance(function, types.FunctionType):
                typing.get_type_hints(function)

    @needs_processes
    def test_import_loads_only_what_dataclasses_and_datetime_load(self):
        code = "import dataclasses, datetime, sys; old = {*sys.modules}; import sessions; "
        done = run("-c", code + "print({*sys.modules} - old)", command=[sys.executable, "-E"])
        assert done.stdout == "{'sessions'}\n"

    @needs_processes
    def test_copy_under_another_name_works_and_pickles(self, tmp_path):
        package = tmp_path / "mybot" / "_vendor"
        package.mkdir(parents=True)
        (package / "discord_limits.py").write_bytes(FILE.read_bytes())
        code = (
            "import pickle; from mybot._vendor.discord_limits import GatewayBotInfo as Info;"
            f"print(pickle.loads(pickle.dumps(Info.from_payload({payload()}))).to_payload())"
        )
        done = run("-c", code, command=[sys.executable, "-E"], cwd=tmp_path)
        assert done.stdout == f"{payload()}\n"
