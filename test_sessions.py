# SPDX-FileCopyrightText: 2026 the sessions authors
# SPDX-License-Identifier: MIT-0
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
import reprlib
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
FAR = datetime.timezone(-5 * HOUR)
READ_AT = datetime.datetime(2026, 11, 22, 18, 47, 11, 250_001, tzinfo=UTC)
NAIVE = READ_AT.replace(tzinfo=None)
INT32_MAX = 2**31 - 1
LONGEST = datetime.timedelta(milliseconds=INT32_MAX)
MICROSECOND = datetime.timedelta(microseconds=1)
FILE = pathlib.Path(sessions.__file__)

LIMIT = {"total": 1000, "remaining": 999, "reset_after": 14_400_000, "max_concurrency": 1}
ANSWER = {"url": "wss://gateway.discord.gg/", "shards": 9, "session_start_limit": LIMIT}

ENTITIES = {"limit": (SessionStartLimit, LIMIT), "info": (GatewayBotInfo, ANSWER)}
entities = pytest.mark.parametrize(("entity", "payload"), ENTITIES.values(), ids=ENTITIES)


def with_limit(**changes):
    """Return Discord's answer with *changes* to its limit."""
    return {**ANSWER, "session_start_limit": {**LIMIT, **changes}}


def without(key, mapping):
    return {name: value for name, value in mapping.items() if name != key}


def make_limit(**changes):
    fields = dict(total=1000, remaining=999, reset_after=4 * HOUR, max_concurrency=1)
    return SessionStartLimit(**{**fields, "created_at": READ_AT, **changes})


def make_info(**changes):
    fields = dict(url="wss://gateway.discord.gg/", shard_count=9, session_start_limit=make_limit())
    return GatewayBotInfo(**{**fields, **changes})


def limit_of(made):
    return getattr(made, "session_start_limit", made)


def error_of(function, *arguments, **options):
    """Return the type and the message of what a call raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        function(*arguments, **options)
    return f"{caught.typename}: {caught.value}"


class StoppedClock(datetime.datetime):
    """It is always READ_AT, and local time is far from UTC."""

    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(READ_AT.timestamp(), tz or FAR).replace(tzinfo=tz)

    def astimezone(self, tz=None):
        return super().astimezone(tz or FAR)


class TestReading:
    def test_every_field_is_read(self):
        counts = dict(total=2000, remaining=5, max_concurrency=16)
        limit = make_limit(**counts, reset_after=HOUR)
        info = make_info(url="ws://host", shard_count=48, session_start_limit=limit)
        answer = with_limit(**counts, reset_after=3_600_000)
        assert GatewayBotInfo.from_payload({**answer, "url": "ws://host", "shards": 48}) == info

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
        answer = {**with_limit(new=[1]), "new": {"deep": None}, "message": "no", "retry_after": 1}
        assert GatewayBotInfo.from_payload(answer) == make_info()

    def test_any_mapping_will_do(self):
        answer = {**ANSWER, "session_start_limit": types.MappingProxyType(LIMIT)}
        assert GatewayBotInfo.from_payload(types.MappingProxyType(answer)) == make_info()

    @entities
    def test_created_at_is_now_in_utc_if_not_given(self, entity, payload, monkeypatch):
        monkeypatch.setattr(datetime, "datetime", StoppedClock)
        created_at = limit_of(entity.from_payload(payload)).created_at
        assert created_at == READ_AT
        assert created_at.tzinfo is UTC

    @entities
    def test_created_at_may_be_given(self, entity, payload):
        made = entity.from_payload(payload, created_at=READ_AT.astimezone(FAR))
        assert limit_of(made).created_at == READ_AT


def refusal(answer, entity=GatewayBotInfo):
    """Return the PayloadError that reading *answer* raises."""
    with pytest.raises(PayloadError) as caught:
        entity.from_payload(answer)
    return caught.value


NO_COUNTS = [-1, 2**31, True, False, None, 5.0, float("nan"), "5", [], {}]


class TestRefusingAnAnswer:
    @pytest.mark.parametrize("value", [None, [], "{}", 5], ids=repr)
    def test_what_is_no_mapping_is_told(self, value):
        expected = f"expected a mapping, got {value!r}"
        assert str(refusal(value)) == f"payload: {expected}"
        answer = {**ANSWER, "session_start_limit": value}
        assert str(refusal(answer)) == f"session_start_limit: {expected}"

    @pytest.mark.parametrize("key", ["url", "shards", "session_start_limit"])
    def test_missing_key_is_told_first(self, key):
        assert str(refusal(without(key, {**ANSWER, "shards": 0}))) == f"{key}: missing"

    @pytest.mark.parametrize("key", ["total", "remaining", "reset_after"])
    def test_missing_key_of_the_limit_is_told_with_its_path(self, key):
        answer = {**ANSWER, "session_start_limit": without(key, {**LIMIT, "remaining": -1})}
        assert str(refusal(answer)) == f"session_start_limit.{key}: missing"

    @pytest.mark.parametrize("key", ["total", "remaining", "reset_after", "max_concurrency"])
    @pytest.mark.parametrize("value", NO_COUNTS, ids=repr)
    def test_what_is_no_count_is_told_with_its_path(self, key, value):
        expected = f"expected an integer from 0 to 2147483647, got {value!r}"
        message = f"session_start_limit.{key}: {expected}"
        assert str(refusal(with_limit(**{key: value}))) == message

    @pytest.mark.parametrize("value", [0, *NO_COUNTS], ids=repr)
    def test_what_is_no_number_of_shards_is_told(self, value):
        message = f"shards: expected an integer from 1 to 2147483647, got {value!r}"
        assert str(refusal({**ANSWER, "shards": value, "message": "no"})) == message

    def test_any_mapping_is_refused_for_what_it_holds(self):
        answer = types.MappingProxyType({**ANSWER, "shards": 0})
        assert str(refusal(answer)).startswith("shards: ")

    @pytest.mark.parametrize("raised", [KeyError(), KeyError(b"shards")], ids=repr)
    def test_missing_key_is_told_whatever_the_mapping_raises(self, raised):
        class Shelf(collections.UserDict):
            def __missing__(self, key):
                raise raised

        assert str(refusal(Shelf(without("shards", ANSWER)))) == "shards: missing"

    @pytest.mark.parametrize("value", ["https://h", None, ["wss://h"]], ids=repr)
    def test_what_is_no_url_is_told(self, value):
        expected = "expected a printable ws:// or wss:// URL with a host and without spaces"
        assert str(refusal({**ANSWER, "url": value})) == f"url: {expected}, got {value!r}"

    @pytest.mark.parametrize("limit", [[], {}, {"message": "no"}, {**LIMIT, "total": -1}])
    def test_a_limit_on_its_own_is_refused_in_the_same_words(self, limit):
        whole = {**ANSWER, "session_start_limit": limit}
        assert str(refusal(limit, SessionStartLimit)) == str(refusal(whole))

    def test_whole_answer_given_for_a_limit_is_recognised(self):
        assert str(refusal(ANSWER, SessionStartLimit)) == (
            "session_start_limit.total: missing; "
            "this is the whole answer, which GatewayBotInfo.from_payload reads"
        )

    def test_only_an_answer_is_taken_for_a_whole_answer(self):
        assert str(refusal({"": 1})) == "session_start_limit: missing"

    @pytest.mark.parametrize("more", [{}, {"new": 1}], ids=repr)
    def test_answer_to_get_gateway_is_recognised(self, more):
        assert str(refusal({"url": "wss://gateway.discord.gg/", **more})) == (
            "session_start_limit: missing; "
            "this is the answer to GET /gateway, not to GET /gateway/bot"
        )

    @pytest.mark.parametrize(
        ("value", "shown"),
        [("a" * 99 + "b" * 99, r"'a{37}\.\.\.b{38}'"), ([["a" * 99] * 9] * 9, ".{80}")],
        ids=["text", "nested"],
    )
    def test_long_value_is_shown_in_80_characters(self, value, shown):
        assert re.fullmatch(f"payload: expected a mapping, got {shown}", str(refusal(value)))

    @pytest.mark.parametrize(
        "value",
        ["x" * 10**6, "\x1b\n\u202e\ud800" * 100, 10**4000, [{"\x1b" * 99: ["\x9b" * 99] * 9}] * 9],
        ids=["long", "unprintable", "large", "nested"],
    )
    def test_message_is_bounded_and_printable_whatever_json_holds(self, value):
        for answer in (value, {**ANSWER, "url": value}, with_limit(total=value)):
            assert len(str(refusal(answer))) < 200
            assert str(refusal(answer)).isprintable()

    def test_long_value_is_shortened_for_this_error_alone(self):
        refusal("x" * 99)
        assert vars(reprlib.aRepr) == vars(reprlib.Repr())

    @entities
    @pytest.mark.parametrize("broken", [[], {}, {"message": "no", "retry_after": 5}], ids=repr)
    def test_error_is_one_traceback_without_a_chain(self, entity, payload, broken):
        lines = traceback.format_exception(refusal(broken, entity))
        assert "".join(lines).count("Traceback") == 1

    @entities
    @pytest.mark.parametrize(("value", "error"), [(0, "TypeError"), (NAIVE, "ValueError")])
    def test_wrong_created_at_is_not_blamed_on_the_answer(self, entity, payload, value, error):
        message = f"{error}: created_at: expected an aware datetime, got {value!r}"
        assert error_of(entity.from_payload, payload, created_at=value) == message


RATE_LIMITED = {"message": "You are being rate limited.", "retry_after": 82721, "global": False}

# As a bot met it in discord-api-docs issue 5810: with the reason in the middle and a link after it.
BLOCKED = (
    "You are being blocked from accessing our API temporarily due to exceeding our rate limits "
    "frequently. Please read our docs at https://discord.com/developers/docs/topics/rate-limits "
    "to prevent this moving forward."
)


class TestBeingRefused:
    @pytest.mark.parametrize("message", ["401: Unauthorized", BLOCKED], ids=["short", "long"])
    def test_message_of_discord_is_told_whole(self, message):
        expected = f"session_start_limit: missing; the answer says {message!r}"
        assert str(refusal({"message": message, "code": 0})) == expected

    @pytest.mark.parametrize(
        "message", ["x" * 301, "\x1b\n\u202e\ud800" * 200], ids=["long", "unprintable"]
    )
    def test_message_is_told_in_300_printable_characters(self, message):
        _, shown = str(refusal({"message": message})).split("; the answer says ")
        assert len(shown) == 300
        assert shown.isprintable()

    @pytest.mark.parametrize("message", [["no"], None, 5], ids=repr)
    def test_message_that_is_no_text_is_left_out(self, message):
        assert str(refusal({"message": message})) == "session_start_limit: missing"

    @pytest.mark.parametrize("seconds", [0, 64.57, 82721, 10**13])
    @pytest.mark.parametrize("message", [{}, {"message": "no"}], ids=repr)
    @entities
    def test_retry_after_is_handed_on(self, entity, payload, message, seconds):
        error = refusal({**message, "retry_after": seconds}, entity)
        assert error.retry_after == datetime.timedelta(seconds=seconds)

    nonsense = [-1, -0.5, True, False, None, "5", [5], float("nan"), float("inf"), 8.64e13, 1e300]

    @pytest.mark.parametrize("seconds", nonsense, ids=repr)
    def test_retry_after_that_makes_no_sense_is_left_out(self, seconds):
        error = refusal({"message": "no", "retry_after": seconds})
        assert error.retry_after is None
        assert str(error) == "session_start_limit: missing; the answer says 'no'"

    @pytest.mark.parametrize("answer", [[], {}, {**RATE_LIMITED, **ANSWER, "url": 5}], ids=repr)
    def test_retry_after_is_none_where_discord_did_not_refuse(self, answer):
        assert refusal(RATE_LIMITED).retry_after  # and this must not stay for the next
        assert refusal(answer).retry_after is None

    @pytest.mark.parametrize(
        ("seconds", "told"),
        [(82721, "22:58:41"), (64.57, "0:01:05"), (0.001, "0:00:01"), (90_000, "1 day, 1:00:00")],
    )
    def test_retry_after_is_told_in_whole_seconds(self, seconds, told):
        error = refusal({"retry_after": seconds})
        assert str(error) == f"session_start_limit: missing; ask again in {told}"

    @pytest.mark.parametrize("copied", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
    def test_error_can_be_copied_and_pickled_as_process_pools_do(self, copied):
        error = copied(refusal(RATE_LIMITED))
        assert (type(error), isinstance(error, ValueError)) == (PayloadError, True)
        assert str(error) == str(refusal(RATE_LIMITED))
        assert error.retry_after == datetime.timedelta(seconds=82721)


class Days(datetime.timedelta):
    """Like those of other libraries, which need not divide as a timedelta does."""


class TestConstructing:
    def test_created_at_is_now_in_utc_if_not_given(self, monkeypatch):
        monkeypatch.setattr(datetime, "datetime", StoppedClock)
        limit = SessionStartLimit(total=1, remaining=1, reset_after=HOUR, max_concurrency=1)
        assert limit.created_at == READ_AT

    @pytest.mark.parametrize("made", [make_limit(), make_info()], ids=["limit", "info"])
    def test_arguments_are_keywords(self, made):
        values = [getattr(made, field.name) for field in dataclasses.fields(made)]
        assert "positional argument" in error_of(type(made), *values)

    @pytest.mark.parametrize(
        "changes",
        [
            {"total": 0, "remaining": 0, "reset_after": 0 * HOUR, "max_concurrency": 1},
            dict.fromkeys(["total", "remaining", "max_concurrency"], INT32_MAX),
            {"reset_after": LONGEST},
            {"total": 1, "remaining": 2},
        ],
        ids=["least", "most", "longest", "more left than total"],
    )
    def test_numbers_that_a_limit_takes(self, changes):
        limit = make_limit(**changes)
        assert {name: getattr(limit, name) for name in changes} == changes

    counts = pytest.mark.parametrize(
        ("make", "name", "least"),
        [
            (make_limit, "total", 0),
            (make_limit, "remaining", 0),
            (make_limit, "max_concurrency", 1),
            (make_info, "shard_count", 1),
        ],
    )

    @counts
    def test_count_out_of_range_is_refused(self, make, name, least):
        for value in (least - 1, 2**31):
            expected = f"expected an integer from {least} to 2147483647, got {value}"
            assert error_of(make, **{name: value}) == f"ValueError: {name}: {expected}"

    @counts
    @pytest.mark.parametrize("value", [1.0, "1", True, False, None, http.HTTPStatus.OK, [1]])
    def test_count_of_a_wrong_type_is_refused(self, make, name, least, value):
        expected = f"expected an integer from {least} to 2147483647, got {value!r}"
        assert error_of(make, **{name: value}) == f"TypeError: {name}: {expected}"

    @pytest.mark.parametrize(
        ("value", "error"),
        [
            (-MICROSECOND, "ValueError"),
            (LONGEST + MICROSECOND, "ValueError"),
            (datetime.timedelta(seconds=LIMIT["reset_after"]), "ValueError"),
            (14_400_000, "TypeError"),
            (Days(1), "TypeError"),
        ],
        ids=repr,
    )
    def test_reset_after_is_a_timedelta_that_discord_can_write(self, value, error):
        expected = "expected a timedelta from 0:00:00 to 24 days, 20:31:23.647000"
        message = f"{error}: reset_after: {expected}, got {value!r}"
        assert error_of(make_limit, reset_after=value) == message

    @pytest.mark.parametrize(
        ("value", "error"),
        [
            ("2026-11-22", "TypeError"),
            (READ_AT.date(), "TypeError"),
            (NAIVE, "ValueError"),
            (StoppedClock(2026, 11, 22), "ValueError"),
        ],
        ids=["text", "date", "naive", "naive subclass"],
    )
    def test_created_at_is_an_aware_datetime(self, value, error):
        message = f"{error}: created_at: expected an aware datetime, got "
        assert error_of(make_limit, created_at=value).startswith(message)

    @pytest.mark.parametrize("zone", [UTC, FAR, datetime.timezone(0 * HOUR, "GMT")], ids=repr)
    @pytest.mark.parametrize("cls", [datetime.datetime, StoppedClock])
    def test_created_at_is_converted_to_utc(self, cls, zone):
        created_at = make_limit(created_at=cls.fromtimestamp(READ_AT.timestamp(), zone)).created_at
        assert created_at == READ_AT
        assert created_at.tzinfo is UTC

    @pytest.mark.parametrize(
        "url",
        ["wss://h", "wss://h?v=10", "ws://host:80/?v=10", "wss://[::1]/", "wss://пример.рф"],
        ids=ascii,
    )
    def test_url_is_a_websocket_url_with_a_host(self, url):
        assert make_info(url=url).url == url

    @pytest.mark.parametrize(
        "url",
        ["", "h", "http://h", "https://h", "wsx://h", "WSS://h", "wss:/h", " wss://h", "wss://h\n"]
        + [
            f"wss://{rest}"
            for rest in ("", " ", "/", "?q", "#f", ":443/", "h/ b", "h\x1b", "h\u202e")
        ],
        ids=ascii,
    )
    def test_other_urls_are_refused(self, url):
        expected = "expected a printable ws:// or wss:// URL with a host and without spaces"
        assert error_of(make_info, url=url) == f"ValueError: url: {expected}, got {url!r}"

    @pytest.mark.parametrize("url", [b"wss://h", None, 5], ids=repr)
    def test_url_is_text(self, url):
        assert error_of(make_info, url=url).startswith("TypeError: url: expected a printable ")

    @pytest.mark.parametrize("value", [LIMIT, None, "limit"], ids=["dict", "None", "text"])
    def test_session_start_limit_is_one(self, value):
        message = "TypeError: session_start_limit: expected a SessionStartLimit, got "
        assert error_of(make_info, session_start_limit=value).startswith(message)


class NamedInfo(GatewayBotInfo):
    """A plain subclass, with a constructor and an attribute of its own."""

    def __init__(self, name):
        super().__init__(url=f"wss://{name}", shard_count=1, session_start_limit=make_limit())
        self.name = name


NAMES = [
    (make_limit(), "total"),
    (make_limit(), "created_at"),
    (make_limit(), "remainig"),
    (make_limit(), "used"),
    (make_info(), "url"),
    (make_info(), "_created_at"),
    (make_info(), "buckets"),
    (NamedInfo("host"), "shard_count"),
]
names = pytest.mark.parametrize(("made", "name"), NAMES, ids=[name for _, name in NAMES])


class TestChangingNothing:
    @names
    def test_no_attribute_can_be_set(self, made, name):
        message = f"FrozenInstanceError: cannot assign to field {name!r}"
        assert error_of(setattr, made, name, 5) == message

    @names
    def test_no_attribute_can_be_deleted(self, made, name):
        message = f"FrozenInstanceError: cannot delete field {name!r}"
        assert error_of(delattr, made, name) == message

    def test_plain_subclass_may_have_attributes_of_its_own(self):
        info = NamedInfo("host")
        info.name += "s"
        assert (info.name, info.url) == ("hosts", "wss://host")


class TestAsking:
    @pytest.mark.parametrize(("total", "remaining", "used"), [(1000, 990, 10), (1, 3, -2)])
    def test_used_is_total_without_what_remains(self, total, remaining, used):
        assert make_limit(total=total, remaining=remaining).used == used

    @pytest.mark.parametrize("reset_after", [0 * HOUR, HOUR], ids=str)
    def test_reset_at_is_reset_after_later_than_created_at(self, reset_after):
        reset_at = make_limit(reset_after=reset_after).reset_at
        assert reset_at == READ_AT + reset_after
        assert reset_at.tzinfo is UTC

    @pytest.mark.parametrize("reset_after", [0 * HOUR, HOUR], ids=str)
    @pytest.mark.parametrize("total", [0, 1000])
    @pytest.mark.parametrize(("needed", "answer"), [(0, True), (4, True), (5, True), (6, False)])
    def test_can_start_as_many_as_remain(self, needed, answer, total, reset_after):
        limit = make_limit(remaining=5, total=total, reset_after=reset_after)
        assert limit.can_start(needed) is answer

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
        [(-1, "ValueError"), (2**31, "ValueError"), ("5", "TypeError"), (True, "TypeError")],
    )
    def test_question_about_what_is_no_count_is_refused(self, question, name, value, error):
        expected = f"expected an integer from 0 to 2147483647, got {value!r}"
        message = error_of(getattr(make_limit(), question), value)
        assert message == f"{error}: {name}: {expected}"


def method(entity, **changes):
    return entity.copy(**changes)


def pickled(entity):
    return pickle.loads(pickle.dumps(entity))


CHANGERS = [method, dataclasses.replace]
if sys.version_info >= (3, 13):
    CHANGERS.append(copy.replace)
changers = pytest.mark.parametrize("changed", CHANGERS, ids=lambda changer: changer.__name__)


class TestCopying:
    @pytest.mark.parametrize(
        "copied", [*CHANGERS, copy.copy, copy.deepcopy, pickled], ids=lambda each: each.__name__
    )
    @pytest.mark.parametrize("made", [make_limit(), make_info()], ids=["limit", "info"])
    def test_copy_keeps_everything(self, copied, made):
        assert repr(copied(made)) == repr(made)

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
    def test_limit_of_an_info_is_kept_as_it_is(self, changed):
        info = make_info()
        assert changed(info, shard_count=5).session_start_limit is info.session_start_limit

    @changers
    def test_created_at_can_be_changed(self, changed):
        assert changed(make_limit(), created_at=READ_AT + HOUR).created_at == READ_AT + HOUR

    @changers
    @pytest.mark.parametrize(
        ("made", "name", "value", "error"),
        [
            (make_limit(), "remaining", -1, "ValueError"),
            (make_limit(), "remaining", True, "TypeError"),
            (make_limit(), "created_at", NAIVE, "ValueError"),
            (make_info(), "shard_count", 0, "ValueError"),
            (make_info(), "url", None, "TypeError"),
        ],
    )
    def test_change_is_checked(self, changed, made, name, value, error):
        message = f"{error}: {name}: expected "
        assert error_of(changed, made, **{name: value}).startswith(message)

    @pytest.mark.parametrize(
        ("made", "name"), [(make_limit(), "remainig"), (make_info(), "shards")]
    )
    def test_change_of_an_unknown_field_is_a_type_error(self, made, name):
        message = f"got an unexpected keyword argument {name!r}"
        assert re.fullmatch(f"TypeError: .*{message}.*", error_of(made.copy, **{name: 5}))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaggedLimit(SessionStartLimit):
    """A subclass that cannot be hashed."""

    tags: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TaggedInfo(GatewayBotInfo):
    """A subclass with slots."""

    tags: list[str] = dataclasses.field(default_factory=list)


def broken():
    raise KeyError("oops")


class TestSubclassing:
    tagged = pytest.mark.parametrize(
        ("cls", "payload"), [(TaggedLimit, LIMIT), (TaggedInfo, ANSWER)]
    )

    @tagged
    @pytest.mark.parametrize("created_at", [None, READ_AT])
    def test_a_subclass_reads_itself(self, cls, payload, created_at):
        assert type(cls.from_payload(payload, created_at=created_at)) is cls

    @tagged
    def test_what_a_subclass_adds_is_not_written(self, cls, payload):
        assert cls.from_payload(payload).to_payload() == payload

    @tagged
    @changers
    def test_what_a_subclass_adds_can_be_changed(self, changed, cls, payload):
        made = changed(cls.from_payload(payload), tags=["a"])
        assert (type(made), made.tags) == (cls, ["a"])
        assert changed(made).tags is made.tags

    def test_an_info_takes_a_limit_of_a_subclass(self):
        limit = TaggedLimit.from_payload(LIMIT)
        assert make_info(session_start_limit=limit).session_start_limit is limit

    @entities
    def test_field_without_a_default_is_not_blamed_on_the_answer(self, entity, payload):
        cls = dataclasses.make_dataclass("Sub", ["tag"], bases=(entity,), frozen=True, kw_only=True)
        message = "missing 1 required keyword-only argument: 'tag'"
        assert re.fullmatch(f"TypeError: .*{message}", error_of(cls.from_payload, payload))

    @entities
    def test_error_of_a_subclass_is_not_blamed_on_the_answer(self, entity, payload):
        fields = [("tag", str, dataclasses.field(default_factory=broken))]
        cls = dataclasses.make_dataclass("Sub", fields, bases=(entity,), frozen=True, kw_only=True)
        assert error_of(cls.from_payload, payload) == "KeyError: 'oops'"

    def test_subclass_of_an_info_reads_a_plain_limit_whatever_it_declares(self):
        fields = [("session_start_limit", TaggedLimit)]
        bases = (GatewayBotInfo,)
        cls = dataclasses.make_dataclass("Sub", fields, bases=bases, frozen=True, kw_only=True)
        assert type(cls.from_payload(ANSWER).session_start_limit) is SessionStartLimit


class TestComparing:
    @entities
    def test_two_reads_of_one_answer_are_equal_and_have_one_hash(self, entity, payload):
        first = entity.from_payload(payload, created_at=READ_AT)
        second = entity.from_payload(payload, created_at=READ_AT + HOUR)
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


class TestWriting:
    @pytest.mark.parametrize("milliseconds", [0, 16_100, INT32_MAX])
    def test_answer_is_given_back(self, milliseconds):
        numbers = dict(total=1, remaining=2, reset_after=milliseconds, max_concurrency=16)
        answer = {**with_limit(**numbers), "url": "ws://h", "shards": 5}
        written = GatewayBotInfo.from_payload(answer).to_payload()
        assert json.dumps(written) == json.dumps(answer)

    def test_reset_after_is_rounded_up_to_a_millisecond(self):
        limit = make_limit(reset_after=datetime.timedelta(microseconds=1001))
        assert limit.to_payload()["reset_after"] == 2

    @pytest.mark.parametrize(
        "reset_after", [0 * HOUR, HOUR, LONGEST - MICROSECOND, LONGEST], ids=str
    )
    def test_whatever_can_be_made_is_written_so_that_it_can_be_read(self, reset_after):
        read = SessionStartLimit.from_payload(make_limit(reset_after=reset_after).to_payload())
        assert 0 * HOUR <= read.reset_after - reset_after <= MICROSECOND

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
            ([0, -1], -1, "ValueError"),
            (range(8, 10), 9, "ValueError"),
            ([1, True], True, "TypeError"),
            ([0, 4.0, 8], 4.0, "TypeError"),
        ],
    )
    def test_id_that_is_not_a_shard_is_refused(self, shard_ids, wrong, error):
        message = f"{error}: shard_id: expected an integer from 0 to 8, got {wrong}"
        assert error_of(buckets, 9, 1, shard_ids) == message


class TestCommand:
    """The file run as a script, in the process of the tests."""

    @pytest.fixture
    def run(self, monkeypatch, capsys):
        """Return a function that runs it and returns its status, output and errors."""

        def run(*arguments):
            monkeypatch.setattr(sys, "argv", ["sessions.py", *arguments])
            monkeypatch.setenv("COLUMNS", "120")
            monkeypatch.setenv("NO_COLOR", "1")
            with pytest.raises(SystemExit) as caught:
                runpy.run_path(str(FILE), run_name="__main__")
            return caught.value.code, *capsys.readouterr()

        return run

    @pytest.fixture
    def read(self, run, tmp_path):
        """Return a function that runs it with an answer: bytes, or something for JSON."""

        def read(answer, *options):
            file = tmp_path / "answer.json"
            file.write_bytes(answer if isinstance(answer, bytes) else json.dumps(answer).encode())
            return run(*options, str(file))

        return read

    def test_it_reports_all_that_a_start_depends_on(self, read, monkeypatch):
        monkeypatch.setattr(datetime, "datetime", StoppedClock)
        numbers = dict(total=2000, remaining=5000, reset_after=3_600_100, max_concurrency=16)
        status, report, _ = read({**with_limit(**numbers), "shards": 40})
        assert status == 0
        assert report == (
            "URL             wss://gateway.discord.gg/\n"
            "Shards          40\n"
            "Concurrency     16\n"
            "Buckets         3\n"
            "Full start      0:00:10\n"
            "Sessions left   5000\n"
            "Sessions total  2000\n"
            "Sessions used   -3000\n"
            "Reset           2026-11-22 19:47:11 UTC, in 1:00:01\n"
        )

    @pytest.mark.parametrize(
        ("options", "needed"),
        [
            ([], "9 are needed: 9 to start and 0 in reserve."),
            (["--sessions=7", "--reserve=993"], "1000 are needed: 7 to start and 993 in reserve."),
        ],
    )
    def test_it_says_what_is_needed_and_until_when(self, read, monkeypatch, options, needed):
        monkeypatch.setattr(datetime, "datetime", StoppedClock)
        status, output, _ = read(with_limit(remaining=7), *options)
        assert status == 1
        assert output.split("\n\n")[1] == (
            "Too few sessions are left: 7.\n"
            f"{needed}\n"
            "The reset at 2026-11-22 22:47:11 UTC brings 1000.\n"
        )

    @pytest.mark.parametrize("option", ["--sessions=1001", "--reserve=992"])
    def test_it_says_if_no_reset_will_bring_enough(self, read, option):
        _, output, _ = read(ANSWER, option)
        assert output.endswith(" in reserve.\nNo reset will bring enough: it brings 1000.\n")

    @pytest.mark.parametrize(
        ("remaining", "options", "status"),
        [
            (16, [], 0),
            (15, [], 1),
            (16, ["--sessions=17"], 1),
            (0, ["--sessions=0"], 0),
            (26, ["--reserve=10"], 0),
            (25, ["--reserve=10"], 1),
            (15, ["--reserve=10", "--sessions=5"], 0),
            (14, ["--reserve=10", "--sessions=5"], 1),
            (1000, [f"--reserve={INT32_MAX}"], 1),
        ],
    )
    @pytest.mark.parametrize("numbers", [{"reset_after": 0}, {"max_concurrency": 16}], ids=repr)
    def test_status_tells_whether_enough_are_left(self, read, remaining, options, status, numbers):
        answer = {**with_limit(remaining=remaining, **numbers), "shards": 16}
        code, output, errors = read(answer, *options)
        assert (code, "Too few" in output, errors) == (status, status == 1, "")

    @pytest.mark.parametrize(
        ("shards", "row"),
        [(1, "Full start      0:00:00"), (INT32_MAX, "Buckets         2147483647")],
    )
    def test_report_for_the_least_and_the_most_shards(self, read, shards, row):
        _, report, _ = read({**ANSWER, "shards": shards})
        assert row in report.splitlines()

    @pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["without mark", "with byte order mark"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
    def test_answer_in_the_encodings_of_shells(self, read, encoding, mark):
        status, _, _ = read((mark + json.dumps(ANSWER)).encode(encoding))
        assert status == 0

    @pytest.mark.parametrize("option", ["--sessions", "--reserve"])
    @pytest.mark.parametrize("value", ["-1", "1.5", "many", "", str(INT32_MAX + 1)])
    def test_what_is_no_count_of_sessions_is_wrong_usage(self, read, option, value):
        status, output, errors = read(ANSWER, f"{option}={value}")
        assert (status, output) == (2, "")
        assert f"argument {option}: invalid count value: {value!r}" in errors

    UNUSABLE = {
        "empty": (b"", r"cannot read b'' as JSON: Expecting value: line 1 column 1 \(char 0\)"),
        "HTML": (b"<html>502</html>", "cannot read b'<html>502</html>' as JSON: Expecting .+"),
        "half": (json.dumps(ANSWER).encode()[:-20], 'cannot read b\'{"url": .+ as JSON: .+'),
        "bytes": (b"\x1b\xff", r"cannot read b'\\x1b\\xff' as JSON: .+"),
        "digits": (b"[" + b"1" * 5000 + b"]", "cannot read .+ as JSON: .+"),
        "refusal": (RATE_LIMITED, ".+; the answer says '.+'; ask again in 22:58:41"),
        "block": ({"message": BLOCKED}, f".*'{re.escape(BLOCKED)}'"),
        "control": ({**ANSWER, "url": "wss://\x1b[31m"}, r"url: expected .+, got 'wss://\\x1b\[.+"),
    }

    @pytest.mark.parametrize(("answer", "problem"), UNUSABLE.values(), ids=UNUSABLE)
    def test_unusable_answer_is_one_line_and_status_2(self, read, answer, problem):
        status, output, errors = read(answer)
        assert (status, output) == (2, "")
        assert re.fullmatch(f"sessions.py: {problem}\n", errors), errors
        assert errors[:-1].isprintable()
        assert len(errors) < 400

    @pytest.mark.parametrize("name", ["no.json", "", "\x1b[31m\n", str(FILE.parent)], ids=ascii)
    def test_file_that_cannot_be_read_is_one_line_and_status_2(self, run, name):
        status, output, errors = run(name)
        assert (status, output) == (2, "")
        assert re.fullmatch(r"sessions.py: \[Errno \d+\] .+\n", errors), errors
        assert errors[:-1].isprintable()

    def test_help_tells_the_options_and_the_statuses(self, run):
        status, output, _ = run("--help")
        assert status == 0
        for told in ("[FILE]", "--sessions N", "--reserve N", "0 if", "1 if", "2 if"):
            assert f" {told} " in " ".join(output.split())

    def test_version(self, run):
        assert run("--version")[:2] == (0, f"sessions.py {sessions.__version__}\n")


PYTHON = [sys.executable, "-E"]
COMMAND = [*PYTHON, str(FILE)]
TEXT = json.dumps(ANSWER)


def run(*command, stdin=TEXT, **options):
    """Run a command and catch what it prints."""
    options.update(input=stdin, capture_output=True, text=True, timeout=60)
    return subprocess.run(command, **options)


needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX system")


@pytest.mark.skipif(sys.platform == "emscripten", reason="needs processes")
class TestProcess:
    @pytest.mark.parametrize("name", [[], ["-"]], ids=repr)
    def test_answer_comes_from_standard_input(self, name):
        assert "Shards          9\n" in run(*COMMAND, *name).stdout

    def test_nesting_that_is_too_deep_for_python_is_one_line_and_status_2(self):
        done = run(*COMMAND, stdin="[" * 200_000)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)

    @needs_posix
    @pytest.mark.parametrize("redirection", ["</dev/null", "<&-"])
    def test_standard_input_that_holds_no_answer_is_status_2(self, redirection):
        assert run("sh", "-c", f'"$@" {redirection}', "sh", *COMMAND).returncode == 2

    @needs_posix
    @pytest.mark.parametrize("device", ["/dev/full", "&-"])
    def test_report_that_cannot_be_written_is_never_status_0(self, device):
        assert run("sh", "-c", f'"$@" >{device}', "sh", *COMMAND).returncode != 0

    def test_report_that_nobody_can_read_is_never_status_0(self):
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run(COMMAND, input=TEXT.encode(), stdout=write, stderr=subprocess.DEVNULL)
        os.close(write)
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
        os.write(keyboard, TEXT.encode() + b"\n\x04")
        done = subprocess.run([*COMMAND, *arguments], stdin=screen, capture_output=True, timeout=60)
        message = b"waiting for the answer to GET /gateway/bot on standard input\n"
        assert (done.returncode, done.stderr.count(message)) == (status, times)

    def test_interrupt_at_a_terminal_is_never_status_0(self, terminal):
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen(COMMAND, stdin=terminal[1], stderr=subprocess.PIPE)
        signal.signal(signal.SIGINT, handler)  # which ignores it in a job in the background
        assert select.select([process.stderr], [], [], 60)[0]  # it says that it waits
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode != 0

    def test_import_loads_nothing_that_dataclasses_datetime_and_typing_do_not(self):
        code = "import dataclasses, datetime, typing, sys; old = {*sys.modules}; import sessions; "
        done = run(*PYTHON, "-c", code + "print({*sys.modules} - old)", cwd=FILE.parent)
        assert done.stdout == "{'sessions'}\n"

    def test_copy_under_another_name_works_and_pickles(self, tmp_path):
        package = tmp_path / "mybot" / "_vendor"
        package.mkdir(parents=True)
        (package / "discord_limits.py").write_bytes(FILE.read_bytes())
        code = (
            "import pickle; from mybot._vendor.discord_limits import GatewayBotInfo as Info;"
            f"print(pickle.loads(pickle.dumps(Info.from_payload({ANSWER}))).to_payload())"
        )
        assert run(*PYTHON, "-c", code, cwd=tmp_path).stdout == f"{ANSWER}\n"


class TestVendoring:
    def test_public_names(self):
        public = [
            name
            for name, value in vars(sessions).items()
            if getattr(value, "__module__", "") == "sessions" and not name.startswith("_")
        ]
        assert sorted([*public, "IDENTIFY_INTERVAL"]) == sorted(sessions.__all__)

    @entities
    def test_libraries_can_read_the_types_of_the_fields(self, entity, payload):
        types_of_fields = {field.name: field.type for field in dataclasses.fields(entity)}
        assert typing.get_type_hints(entity) == types_of_fields

    @entities
    def test_libraries_can_read_the_types_of_every_method(self, entity, payload):
        for member in vars(entity).values():
            function = getattr(member, "fget", getattr(member, "__func__", member))
            if isinstance(function, types.FunctionType):
                typing.get_type_hints(function)
