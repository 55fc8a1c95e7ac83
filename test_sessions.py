# SPDX-License-Identifier: MIT
"""What sessions.py promises, in the order in which its user meets it."""

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
import subprocess
import sys
import traceback
import types
import typing
from typing import Any

import pytest

import sessions
from sessions import IDENTIFY_INTERVAL, GatewayBotInfo, PayloadError, SessionStartLimit

UTC = datetime.timezone.utc
HOUR = datetime.timedelta(hours=1)
GMT = datetime.timezone(0 * HOUR, "GMT")
FAR = datetime.timezone(-5 * HOUR)
NOWHERE = type("Nowhere", (datetime.tzinfo,), {"utcoffset": lambda zone, moment: None})()
READ_AT = datetime.datetime(2026, 11, 22, 18, 47, 11, 250_000, tzinfo=UTC)
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

FIRST_MISSING: dict[Any, str] = {SessionStartLimit: "session_start_limit.total", GatewayBotInfo: "session_start_limit"}
entities = pytest.mark.parametrize("entity", [SessionStartLimit, GatewayBotInfo])


def payload(**changes: Any) -> dict[str, Any]:
    """Return Discord's answer with *changes*, each made where its key stands: in the limit or around it."""
    limit = {key: changes.pop(key, value) for key, value in LIMIT.items()}
    return {"url": "wss://gateway.discord.gg/", "shards": 9, "session_start_limit": limit, **changes}


def without(key: str, mapping: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != key}


def make_limit(**changes: Any) -> SessionStartLimit:
    fields = {"total": 1000, "remaining": 999, "reset_after": 4 * HOUR, "max_concurrency": 1, "created_at": READ_AT}
    return SessionStartLimit(**{**fields, **changes})


def make_info(**changes: Any) -> GatewayBotInfo:
    fields = {"url": "wss://gateway.discord.gg/", "shard_count": 9, "session_start_limit": make_limit()}
    return GatewayBotInfo(**{**fields, **changes})


def read(entity: Any, **options: Any) -> Any:
    """Read the part of the answer that is for *entity*."""
    return entity.from_payload(payload() if issubclass(entity, GatewayBotInfo) else LIMIT, **options)


def limit_of(made: Any) -> Any:
    return getattr(made, "session_start_limit", made)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TaggedLimit(SessionStartLimit):
    """A subclass with something in it that can change."""

    tags: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaggedInfo(GatewayBotInfo):
    """A subclass without slots, and with a field that the constructor does not take."""

    tags: list[str] = dataclasses.field(default_factory=list)
    kind: str = dataclasses.field(default="tagged", init=False)


class Duration(datetime.timedelta):
    """Like those of other libraries, which need not divide as a timedelta does."""


class StoppedClock(datetime.datetime):
    """It is always READ_AT, and local time is far from UTC."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> "StoppedClock":
        return cls.fromtimestamp(READ_AT.timestamp(), tz or FAR).replace(tzinfo=tz)

    def astimezone(self, tz: datetime.tzinfo | None = None) -> "StoppedClock":
        return super().astimezone(tz or FAR)


class SummerTime(datetime.tzinfo):
    """Two hours ahead of UTC until 25 October 2026 at 3:00, when clocks go back by one."""

    def utcoffset(self, moment: Any) -> datetime.timedelta:
        return (2 if moment.replace(tzinfo=None) < datetime.datetime(2026, 10, 25, 3) else 1) * HOUR


class TestReading:
    def test_every_field_is_read(self) -> None:
        limit = make_limit(total=2000, remaining=5, reset_after=HOUR, max_concurrency=16)
        info = make_info(url="ws://host", shard_count=48, session_start_limit=limit)
        answer = payload(url="ws://host", shards=48, total=2000, remaining=5, reset_after=3_600_000, max_concurrency=16)
        assert GatewayBotInfo.from_payload(answer) == info

    def test_milliseconds_of_reset_after_are_kept(self) -> None:
        limit = SessionStartLimit.from_payload({**LIMIT, "reset_after": INT32_MAX})
        assert limit.reset_after == datetime.timedelta(days=24, hours=20, minutes=31, seconds=23, milliseconds=647)

    @pytest.mark.parametrize("limit", [{**LIMIT, "max_concurrency": 0}, without("max_concurrency", LIMIT)], ids=repr)
    def test_zero_or_absent_max_concurrency_is_one(self, limit: dict[str, int]) -> None:
        assert SessionStartLimit.from_payload(limit).max_concurrency == 1

    def test_unknown_keys_are_ignored(self) -> None:
        answer = payload(session_start_limit={**LIMIT, "new": [1]}, new={"deep": None}, message="no error")
        assert GatewayBotInfo.from_payload(answer) == make_info()

    def test_any_mapping_will_do_and_is_left_as_it_is(self) -> None:
        answer = payload(session_start_limit=types.MappingProxyType(LIMIT))
        assert GatewayBotInfo.from_payload(types.MappingProxyType(answer)) == make_info()

    @entities
    def test_created_at_is_now_in_utc_if_not_given(self, entity: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(datetime, "datetime", StoppedClock)
        created_at = limit_of(read(entity)).created_at
        assert (created_at, created_at.tzinfo is UTC) == (READ_AT, True)

    @entities
    def test_created_at_may_be_given(self, entity: Any) -> None:
        assert limit_of(read(entity, created_at=READ_AT)).created_at == READ_AT

    @pytest.mark.parametrize("cls", [TaggedLimit, TaggedInfo])
    @pytest.mark.parametrize("options", [{}, {"created_at": READ_AT}], ids=["now", "given"])
    def test_a_subclass_reads_itself(self, cls: Any, options: dict[str, Any]) -> None:
        assert type(read(cls, **options)) is cls


def refusal(answer: Any, entity: Any = GatewayBotInfo) -> str:
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
            (payload(shards=0, message="no error"), f"shards: {POSITIVE} 0"),
            (payload(shards="9"), f"shards: {POSITIVE} '9'"),
            (payload(session_start_limit=5), "session_start_limit: expected a mapping, got 5"),
            (without("url", payload()), "url: missing"),
            (without("shards", payload()), "shards: missing"),
            (without("session_start_limit", payload()), "session_start_limit: missing"),
            (without("shards", payload(message=["no"])), "shards: missing"),
            (without("shards", payload(message="no")), "shards: missing; the answer says 'no'"),
            (payload(session_start_limit=without("total", LIMIT)), "session_start_limit.total: missing"),
            (payload(session_start_limit=without("remaining", LIMIT)), "session_start_limit.remaining: missing"),
            (payload(session_start_limit=without("reset_after", LIMIT)), "session_start_limit.reset_after: missing"),
            (payload(total=True), f"session_start_limit.total: {COUNT} True"),
            (payload(remaining=None), f"session_start_limit.remaining: {COUNT} None"),
            (payload(reset_after=-1), f"session_start_limit.reset_after: {COUNT} -1"),
            (payload(reset_after=0.5), f"session_start_limit.reset_after: {COUNT} 0.5"),
            (payload(max_concurrency=-1), f"session_start_limit.max_concurrency: {COUNT} -1"),
            (payload(max_concurrency=None), f"session_start_limit.max_concurrency: {COUNT} None"),
            (payload(max_concurrency=False), f"session_start_limit.max_concurrency: {COUNT} False"),
            (payload(max_concurrency={}), f"session_start_limit.max_concurrency: {COUNT} {{}}"),
        ],
    )
    def test_message_says_where_and_what(self, answer: Any, message: str) -> None:
        assert refusal(answer) == message

    @pytest.mark.parametrize("limit", [[], without("total", LIMIT), {**LIMIT, "total": -1}], ids=str)
    def test_a_limit_on_its_own_is_refused_in_the_same_words(self, limit: Any) -> None:
        assert refusal(limit, SessionStartLimit) == refusal(payload(session_start_limit=limit))

    @entities
    @pytest.mark.parametrize("text", ["401: Unauthorized", "See https://discord.com/developers/docs/rate-limits."])
    def test_message_of_an_error_is_passed_on(self, entity: Any, text: str) -> None:
        message = refusal({"message": text, "code": 0}, entity)
        assert message == f"{FIRST_MISSING[entity]}: missing; the answer says {text!r}"

    @entities
    @pytest.mark.parametrize("more", [{}, {"new": 1}], ids=repr)
    def test_answer_to_get_gateway_is_recognised(self, entity: Any, more: dict[str, Any]) -> None:
        message = refusal({"url": "wss://gateway.discord.gg/", **more}, entity)
        hint = "this is the answer to GET /gateway, not to GET /gateway/bot"
        assert message == f"{FIRST_MISSING[entity]}: missing; {hint}"

    @pytest.mark.parametrize(
        "value",
        ["x" * 10**6, "\x1b[31m\n\u202e\ud800" * 100, 10**4000, {"\x1b" * 99: [["\x9b" * 99] * 9] * 9}],
        ids=["long", "unprintable", "large", "nested"],
    )
    def test_message_is_short_and_printable_whatever_json_holds(self, value: object) -> None:
        for answer in (value, payload(url=value), payload(total=value), {"message": str(value)[:400]}):
            message = refusal(answer)
            assert len(message) < 300
            assert message.isprintable()

    @pytest.mark.parametrize(
        ("value", "shown"),
        [("a" * 99 + "b" * 99, r"'a{37}\.\.\.b{38}'"), ([["a" * 99] * 9] * 9, ".{80}")],
        ids=["text", "nested"],
    )
    def test_long_value_is_shown_in_80_characters(self, value: object, shown: str) -> None:
        assert re.fullmatch(f"payload: expected a mapping, got {shown}", refusal(value))

    @entities
    @pytest.mark.parametrize("answer", [[], {}, payload(total=-1) | LIMIT | {"total": -1}], ids=repr)
    def test_error_is_one_traceback_without_a_chain(self, entity: Any, answer: Any) -> None:
        with pytest.raises(ValueError, match=": ") as caught:
            entity.from_payload(answer)
        assert "".join(traceback.format_exception(caught.value)).count("Traceback") == 1

    @entities
    @pytest.mark.parametrize(("created_at", "error"), [(0, TypeError), (NAIVE, ValueError)])
    def test_wrong_created_at_is_not_blamed_on_the_answer(self, entity: Any, created_at: Any, error: Any) -> None:
        with pytest.raises(error, match=f"^created_at: {MOMENT} ") as caught:
            read(entity, created_at=created_at)
        assert caught.type is error


class TestConstructing:
    @pytest.mark.parametrize("make", [make_limit, make_info])
    def test_fields_cannot_be_set(self, make: Any) -> None:
        entity = make()
        for field in dataclasses.fields(entity):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(entity, field.name, getattr(entity, field.name))

    @pytest.mark.parametrize("make", [make_limit, make_info])
    def test_there_is_no_dict_for_other_attributes(self, make: Any) -> None:
        assert not hasattr(make(), "__dict__")

    @pytest.mark.parametrize("made", [make_limit(), make_info()], ids=["limit", "info"])
    def test_arguments_are_keywords(self, made: Any) -> None:
        with pytest.raises(TypeError, match="positional"):
            type(made)(*(getattr(made, field.name) for field in dataclasses.fields(made)))

    @pytest.mark.parametrize(
        "changes",
        [
            {"total": 0, "remaining": 0, "reset_after": datetime.timedelta(0), "max_concurrency": 1},
            {"total": INT32_MAX, "remaining": INT32_MAX, "max_concurrency": INT32_MAX},
            {"total": 1, "remaining": 2},
        ],
        ids=["least", "most", "more left than total"],
    )
    def test_counts_that_a_limit_takes(self, changes: dict[str, Any]) -> None:
        limit = make_limit(**changes)
        assert {name: getattr(limit, name) for name in changes} == changes

    @pytest.mark.parametrize("value", [1000.0, "1000", True, None, float("nan"), http.HTTPStatus.OK, [5]], ids=repr)
    def test_count_of_a_wrong_type_is_refused(self, value: object) -> None:
        with pytest.raises(TypeError, match=f"^{re.escape(f'total: {COUNT} {value!r}')}$"):
            make_limit(total=value)

    @pytest.mark.parametrize("value", [-1, INT32_MAX + 1])
    def test_count_out_of_range_is_refused(self, value: int) -> None:
        with pytest.raises(ValueError, match=f"^total: {COUNT} {value}$"):
            make_limit(total=value)

    @pytest.mark.parametrize(
        ("make", "changes", "error", "message"),
        [
            (make_limit, {"remaining": -1}, ValueError, f"remaining: {COUNT} -1"),
            (make_limit, {"max_concurrency": 0}, ValueError, f"max_concurrency: {POSITIVE} 0"),
            (make_limit, {"reset_after": 5}, TypeError, f"reset_after: {SPAN} 5"),
            (make_limit, {"reset_after": Duration(1)}, TypeError, f"reset_after: {SPAN} {Duration(1)!r}"),
            (make_limit, {"reset_after": -HOUR}, ValueError, f"reset_after: {SPAN} {-HOUR!r}"),
            (make_limit, {"created_at": None}, TypeError, f"created_at: {MOMENT} None"),
            (make_limit, {"created_at": NAIVE}, ValueError, f"created_at: {MOMENT} {NAIVE!r}"),
            (make_info, {"shard_count": 0}, ValueError, f"shard_count: {POSITIVE} 0"),
            (make_info, {"url": b"wss://h"}, TypeError, f"url: {URL} b'wss://h'"),
            (make_info, {"session_start_limit": {}}, TypeError, f"session_start_limit: {A_LIMIT} {{}}"),
        ],
    )
    def test_every_field_is_checked(self, make: Any, changes: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=f"^{re.escape(message)}$"):
            make(**changes)

    @pytest.mark.parametrize("url", ["wss://h", "ws://host:80/?v=10", "wss://[::1]/", "wss://пример.рф"], ids=ascii)
    def test_url_is_a_websocket_url_with_a_host(self, url: str) -> None:
        assert make_info(url=url).url == url

    @pytest.mark.parametrize(
        "url",
        ["", "host", " wss://host", "wss:/host", "wss://host\n", "wss://host/\x1b[31m", "wss://host/\u202e"]
        + [f"{scheme}://host" for scheme in ("http", "https", "wsx", "WSS")]
        + [f"wss://{rest}" for rest in ("", "/path", "?query", "#fragment", ":443/", "host/a b")],
        ids=ascii,
    )
    def test_other_urls_are_refused(self, url: str) -> None:
        with pytest.raises(ValueError, match=f"^{re.escape(f'url: {URL} {url!r}')}$"):
            make_info(url=url)

    def test_created_at_without_an_offset_is_refused(self) -> None:
        with pytest.raises(ValueError, match=f"^created_at: {MOMENT} "):
            make_limit(created_at=READ_AT.replace(tzinfo=NOWHERE))

    @pytest.mark.parametrize("moment", [*map(READ_AT.astimezone, (FAR, GMT)), StoppedClock.now(FAR)], ids=repr)
    def test_created_at_is_converted_to_utc(self, moment: datetime.datetime) -> None:
        created_at = make_limit(created_at=moment).created_at
        assert (created_at, created_at.tzinfo is UTC) == (READ_AT, True)


class TestAsking:
    def test_used_is_what_is_gone_of_total(self) -> None:
        assert make_limit(total=1000, remaining=990).used == 10

    def test_used_is_negative_where_more_than_total_are_left(self) -> None:
        assert make_limit(total=1, remaining=3).used == -2

    def test_reset_at_is_reset_after_later_than_created_at(self) -> None:
        reset_at = make_limit(reset_after=HOUR).reset_at
        assert (reset_at, reset_at.tzinfo is UTC) == (READ_AT + HOUR, True)

    def test_reset_at_is_right_where_summer_time_ends_before_it(self) -> None:
        created_at = datetime.datetime(2026, 10, 25, 1, tzinfo=SummerTime())  # type: ignore[abstract]
        reset_at = make_limit(reset_after=4 * HOUR, created_at=created_at).reset_at
        assert reset_at == datetime.datetime(2026, 10, 25, 3, tzinfo=UTC)

    @pytest.mark.parametrize(("needed", "answer"), [(0, True), (4, True), (5, True), (6, False)])
    def test_can_start_as_many_as_remain_whatever_the_total(self, needed: int, answer: bool) -> None:
        assert make_limit(remaining=5, total=4, reset_after=0 * HOUR).can_start(needed) is answer

    @pytest.mark.parametrize(("shard_id", "key"), [(0, 0), (15, 15), (16, 0), (35, 3)])
    def test_rate_limit_key_is_the_shard_id_modulo_max_concurrency(self, shard_id: int, key: int) -> None:
        assert make_limit(max_concurrency=16).rate_limit_key(shard_id) == key

    @pytest.mark.parametrize(("question", "name"), [("can_start", "sessions"), ("rate_limit_key", "shard_id")])
    @pytest.mark.parametrize(("value", "error"), [(-1, ValueError), ("5", TypeError)])
    def test_question_about_what_is_not_a_count_is_refused(
        self, question: str, name: str, value: Any, error: Any
    ) -> None:
        with pytest.raises(error, match=f"^{name}: {COUNT} {value!r}$"):
            getattr(make_limit(), question)(value)


def pickled(entity: Any) -> Any:
    return pickle.loads(pickle.dumps(entity))


def method(entity: Any, **changes: Any) -> Any:
    return entity.copy(**changes)


CHANGERS: list[Any] = [method, dataclasses.replace]
if sys.version_info >= (3, 13):
    CHANGERS.append(copy.replace)
COPIERS = [*CHANGERS, copy.copy, copy.deepcopy, pickled]
changers = pytest.mark.parametrize("changed", CHANGERS, ids=lambda changer: changer.__name__)


class TestCopying:
    @pytest.mark.parametrize("copied", COPIERS, ids=lambda copier: copier.__name__)
    @pytest.mark.parametrize("cls", [SessionStartLimit, GatewayBotInfo, TaggedLimit, TaggedInfo])
    def test_copy_keeps_everything(self, copied: Any, cls: Any) -> None:
        entity = read(cls, created_at=READ_AT)
        getattr(entity, "tags", []).append("a")
        made = copied(entity)
        assert (made, type(made), limit_of(made).created_at) == (entity, cls, READ_AT)

    @changers
    @pytest.mark.parametrize(("make", "changes"), [(make_limit, {"total": 6}), (make_info, {"url": "ws://h"})])
    def test_change_is_made(self, changed: Any, make: Any, changes: dict[str, Any]) -> None:
        assert changed(make(), **changes) == make(**changes)

    @changers
    @pytest.mark.parametrize("changes", [{"remaining": 5}, {"reset_after": HOUR}], ids=repr)
    def test_change_does_not_make_the_numbers_newer(self, changed: Any, changes: dict[str, Any]) -> None:
        assert changed(make_limit(), **changes).created_at == READ_AT

    @changers
    def test_created_at_can_be_changed(self, changed: Any) -> None:
        assert changed(make_limit(), created_at=READ_AT + HOUR).created_at == READ_AT + HOUR

    @changers
    @pytest.mark.parametrize(("value", "error"), [(-1, ValueError), (True, TypeError)])
    def test_change_is_checked(self, changed: Any, value: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match=f"^remaining: {COUNT} {value}$"):
            changed(make_limit(), remaining=value)

    @pytest.mark.parametrize("make", [make_limit, make_info])
    def test_change_of_an_unknown_field_is_a_type_error(self, make: Any) -> None:
        with pytest.raises(TypeError, match="shards"):
            make().copy(shards=5)

    @pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
    @pytest.mark.parametrize("make", [make_limit, make_info])
    def test_what_cannot_change_is_its_own_copy(self, copied: Any, make: Any) -> None:
        entity = make()
        assert copied(entity) is entity

    @pytest.mark.parametrize("cls", [TaggedLimit, TaggedInfo])
    def test_shallow_copy_of_a_subclass_shares_what_can_change(self, cls: Any) -> None:
        entity = read(cls)
        made = copy.copy(entity)
        assert made is not entity
        assert made.tags is entity.tags

    @pytest.mark.parametrize("cls", [TaggedLimit, TaggedInfo])
    def test_deep_copy_of_a_subclass_copies_what_can_change(self, cls: Any) -> None:
        entity = read(cls)
        assert copy.deepcopy(entity).tags is not entity.tags

    @pytest.mark.parametrize("cls", [GatewayBotInfo, TaggedInfo])
    def test_deep_copy_of_an_info_copies_a_limit_that_can_change(self, cls: Any) -> None:
        info = read(cls).copy(session_start_limit=read(TaggedLimit))
        assert copy.deepcopy(info).session_start_limit.tags is not info.session_start_limit.tags

    def test_deep_copy_keeps_what_two_places_share_shared(self) -> None:
        limit = read(TaggedLimit)
        first, second = copy.deepcopy([limit, limit.copy(remaining=5)])
        assert first.tags is second.tags


class TestComparing:
    @entities
    def test_two_reads_of_one_answer_are_equal_and_have_one_hash(self, entity: Any) -> None:
        first, second = (read(entity, created_at=READ_AT + hours * HOUR) for hours in range(2))
        assert first == second
        assert hash(first) == hash(second)

    @pytest.mark.parametrize("change", [{"total": 5}, {"remaining": 5}, {"reset_after": HOUR}, {"max_concurrency": 5}])
    def test_limits_of_different_numbers_differ(self, change: dict[str, Any]) -> None:
        assert make_limit() != make_limit(**change)

    @pytest.mark.parametrize("field", ["url", "shard_count", "session_start_limit"])
    def test_infos_of_different_values_differ(self, field: str) -> None:
        other = make_info(url="ws://h", shard_count=1, session_start_limit=make_limit(remaining=5))
        assert make_info() != make_info(**{field: getattr(other, field)})

    def test_repr_reads_back_with_eval(self) -> None:
        made = eval(repr(make_info()))
        assert (made, made.session_start_limit.created_at) == (make_info(), READ_AT)


class TestWriting:
    def test_answer_is_given_back(self) -> None:
        answer = payload(url="ws://h", shards=5, total=1, remaining=2, max_concurrency=16)
        assert GatewayBotInfo.from_payload(answer).to_payload() == answer

    @pytest.mark.parametrize(("cls", "expected"), [(TaggedLimit, LIMIT), (TaggedInfo, payload())])
    def test_what_a_subclass_adds_is_left_out(self, cls: Any, expected: dict[str, Any]) -> None:
        assert read(cls).to_payload() == expected

    @pytest.mark.parametrize("milliseconds", [0, 16_100, INT32_MAX])
    def test_reset_after_is_given_back_to_the_millisecond(self, milliseconds: int) -> None:
        written = SessionStartLimit.from_payload({**LIMIT, "reset_after": milliseconds}).to_payload()["reset_after"]
        assert (written, type(written)) == (milliseconds, int)

    def test_reset_after_is_rounded_up_to_a_millisecond(self) -> None:
        assert make_limit(reset_after=datetime.timedelta(microseconds=1001)).to_payload()["reset_after"] == 2

    def test_stored_answer_is_restored_with_its_reset(self) -> None:
        text = json.dumps(make_info().to_payload())
        restored = GatewayBotInfo.from_payload(json.loads(text), created_at=READ_AT)
        assert restored.session_start_limit.reset_at == READ_AT + 4 * HOUR


def buckets(shard_count: int, max_concurrency: int, *shard_ids: Any) -> list[tuple[int, ...]]:
    limit = make_limit(max_concurrency=max_concurrency, remaining=0)  # the order does not go by what is left
    return make_info(shard_count=shard_count, session_start_limit=limit).buckets(*shard_ids)


class TestStarting:
    def test_interval_is_five_seconds(self) -> None:
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
    def test_all_shards_start_in_buckets_of_neighbours(self, shards: int, concurrency: int, expected: Any) -> None:
        assert buckets(shards, concurrency) == expected

    def test_shards_of_one_key_wait_for_each_other(self) -> None:
        assert buckets(48, 16, [0, 16, 32]) == [(0,), (16,), (32,)]

    def test_shards_of_different_keys_start_at_once(self) -> None:
        assert buckets(48, 16, [3, 8, 9, 20]) == [(3, 8, 9, 20)]

    def test_ids_come_from_any_iterable_in_any_order(self) -> None:
        assert buckets(48, 16, iter([35, 20, 4, 3])) == [(3, 4), (20, 35)]

    def test_repeated_id_counts_once(self) -> None:
        assert buckets(4, 2, [1, 1, 1]) == [(1,)]

    def test_no_ids_need_no_bucket(self) -> None:
        assert buckets(4, 2, []) == []

    @pytest.mark.parametrize("max_concurrency", range(1, 6))
    def test_every_share_keeps_the_rule_in_as_few_buckets_as_possible(self, max_concurrency: int) -> None:
        for share in itertools.chain.from_iterable(itertools.combinations(range(7), size) for size in range(8)):
            made = buckets(7, max_concurrency, share)
            by_key = [[shard_id for shard_id in share if shard_id % max_concurrency == key] for key in range(5)]
            started = [[shard_id for bucket in made for shard_id in bucket if shard_id in ids] for ids in by_key]
            assert started == by_key
            assert all(len({shard_id % max_concurrency for shard_id in bucket}) == len(bucket) for bucket in made)
            assert all(list(bucket) == sorted(bucket) for bucket in made)
            assert len(made) == max(map(len, by_key))

    @pytest.mark.parametrize(("value", "error"), [(-1, ValueError), (9, ValueError), (True, TypeError)])
    def test_id_that_is_not_a_shard_is_refused(self, value: object, error: type[Exception]) -> None:
        with pytest.raises(error, match=f"^shard_id: expected an integer from 0 to 8, got {value}$"):
            buckets(9, 1, [0, value])


COMMAND = [sys.executable, "-E", str(FILE)]


def run(*arguments: str, stdin: Any = b"", command: Any = COMMAND) -> Any:
    """Run the command with *stdin*, bytes or something for JSON of several lines."""
    done: Any = subprocess.run(
        [*command, *arguments],
        input=stdin if isinstance(stdin, bytes) else json.dumps(stdin, indent=1).encode(),
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "120"},
        capture_output=True,
        timeout=60,
    )
    done.stdout, done.stderr = (output.decode().replace("\r\n", "\n") for output in (done.stdout, done.stderr))
    return done


needs_processes = pytest.mark.skipif(sys.platform == "emscripten", reason="needs processes")
needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX system")


class TestReport:
    def test_it_tells_all_that_a_start_depends_on(
        self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
    ) -> None:
        file = tmp_path / "answer.json"
        answer = payload(shards=40, remaining=30, total=20, max_concurrency=16, reset_after=3_600_100)
        file.write_bytes(json.dumps(answer).encode())
        monkeypatch.setattr(datetime, "datetime", StoppedClock)
        monkeypatch.setattr(sys, "argv", ["sessions.py", "--sessions=200", str(file)])
        with pytest.raises(SystemExit, match=r"^1$"):
            runpy.run_path(str(FILE), run_name="__main__")
        assert capsys.readouterr().out == (
            "URL             wss://gateway.discord.gg/\n"
            "Shards          40\n"
            "Concurrency     16\n"
            "Buckets         3\n"
            "Full start      0:00:10\n"
            "Sessions left   30\n"
            "Sessions total  20\n"
            "Sessions used   -10\n"
            "Reset           2026-11-22 19:47:11 UTC, in 1:00:00.100000\n"
            "\n"
            "Too few sessions are left: 30, and 200 are needed.\n"
            "The reset at 2026-11-22 19:47:11 UTC brings 20.\n"
        )


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
        ],
    )
    def test_status_and_sentence_tell_whether_enough_are_left(self, remaining: int, options: Any, status: int) -> None:
        done = run(*options, stdin=payload(shards=16, max_concurrency=16, remaining=remaining))
        assert (done.returncode, done.stderr, "Too few" in done.stdout) == (status, "", status == 1)

    @pytest.mark.parametrize("value", ["-1", "1.5", "many", "", str(INT32_MAX + 1)])
    def test_sessions_needed_are_a_count(self, value: str) -> None:
        done = run("--sessions", value, stdin=payload())
        assert (done.returncode, done.stdout) == (2, "")
        assert f"argument --sessions: invalid count value: {value!r}" in done.stderr

    @pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["without mark", "with byte order mark"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
    def test_answer_in_the_encodings_of_shells(self, encoding: str, mark: str) -> None:
        assert run("-", stdin=(mark + json.dumps(payload())).encode(encoding)).returncode == 0

    @pytest.mark.parametrize(
        ("shards", "row"), [(1, "Full start      0:00:00"), (INT32_MAX, "Buckets         2147483647")]
    )
    def test_report_for_the_least_and_the_most_shards(self, shards: int, row: str) -> None:
        assert row in run(stdin=payload(shards=shards)).stdout.splitlines()

    @pytest.mark.parametrize(
        ("arguments", "stdin", "problem"),
        [
            (["no.json"], b"", ".*No such file.*"),
            (["\x1b[31m\n"], b"", ".+"),
            ([str(FILE.parent)], b"", ".+"),
            ([], b"", r"cannot read b'' as JSON: Expecting value: line 1 column 1 \(char 0\)"),
            ([], b"<html>502</html>", "cannot read b'<html>502</html>' as JSON: Expecting value: .+"),
            ([], json.dumps(payload()).encode()[:-20], 'cannot read b\'{"url": .+ as JSON: .+'),
            ([], b"\x1b\xff", r"cannot read b'\\x1b\\xff' as JSON: .+"),
            ([], b"[" * 200_000, "cannot read .+ as JSON: .+"),
            ([], [], r"payload: expected a mapping, got \[\]"),
            ([], {"message": "401: Unauthorized"}, "session_start_limit: missing; the answer says '401: Unauthorized'"),
            ([], payload(url="wss://\x1b[31m"), r"url: expected .+, got 'wss://\\x1b\[31m'"),
        ],
        ids=["file", "name", "directory", "empty", "HTML", "half", "bytes", "brackets", "list", "error", "control"],
    )
    def test_unusable_answer_is_one_line_and_status_2(self, arguments: list[str], stdin: Any, problem: str) -> None:
        done = run(*arguments, stdin=stdin)
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(f"sessions.py: {problem}\n", done.stderr), done.stderr
        assert done.stderr[:-1].isprintable()

    def test_bad_usage_is_status_2(self) -> None:
        assert run("--nonsense", stdin=payload()).returncode == 2

    def test_help_tells_the_options_and_the_statuses(self) -> None:
        assert " ".join(run("--help").stdout.split()) == (
            "usage: sessions.py [-h] [--sessions N] [--version] [FILE] "
            "Read Discord's answer to GET /gateway/bot and tell whether enough sessions are left for a start. "
            "positional arguments: FILE JSON; standard input if - or absent "
            "options: -h, --help show this help message and exit "
            "--sessions N how many are needed, if not one for each shard "
            "--version show program's version number and exit "
            "The exit status is 0 if enough are left, 1 if too few are, 2 if the answer or the usage is wrong."
        )

    def test_version(self) -> None:
        assert run("--version").stdout == f"sessions.py {sessions.__version__}\n"

    @needs_posix
    @pytest.mark.parametrize("device", ["/dev/full", "&-"] if os.path.exists("/dev/full") else ["&-"])
    def test_report_that_cannot_be_written_is_never_status_0(self, device: str) -> None:
        command = ["sh", "-c", f'"$@" >{device}', "sh", *COMMAND]
        assert run(stdin=payload(), command=command).returncode != 0

    @needs_posix
    @pytest.mark.parametrize(("arguments", "status", "times"), [([], 0, 1), ([os.devnull], 2, 0)])
    def test_at_a_terminal_it_says_what_it_waits_for(self, arguments: list[str], status: int, times: int) -> None:
        keyboard, terminal = os.openpty()
        os.write(keyboard, json.dumps(payload()).encode() + b"\n\x04")
        done = subprocess.run([*COMMAND, *arguments], stdin=terminal, capture_output=True, timeout=60)
        os.close(keyboard)
        os.close(terminal)
        message = b"waiting for the answer to GET /gateway/bot on standard input\n"
        assert (done.returncode, done.stderr.count(message)) == (status, times)


class TestVendoring:
    def test_public_names(self) -> None:
        public = {name for name, value in vars(sessions).items() if getattr(value, "__module__", "") == "sessions"}
        assert {name for name in public if name[0] != "_"} | {"IDENTIFY_INTERVAL"} == set(sessions.__all__)

    @entities
    def test_libraries_can_read_the_types_of_the_fields(self, entity: Any) -> None:
        assert typing.get_type_hints(entity) == {field.name: field.type for field in dataclasses.fields(entity)}

    @needs_processes
    def test_import_loads_only_what_dataclasses_and_datetime_load(self) -> None:
        code = "import dataclasses, datetime, sys; old = {*sys.modules}; import sessions; print({*sys.modules} - old)"
        done = subprocess.run([sys.executable, "-E", "-c", code], cwd=FILE.parent, capture_output=True, timeout=60)
        assert done.stdout.strip() == b"{'sessions'}"

    @needs_processes
    def test_copy_under_another_name_works_and_pickles(self, tmp_path: pathlib.Path) -> None:
        package = tmp_path / "mybot" / "_vendor"
        package.mkdir(parents=True)
        (package / "discord_limits.py").write_bytes(FILE.read_bytes())
        code = (
            "import pickle; from mybot._vendor.discord_limits import GatewayBotInfo as Info;"
            f"print(pickle.loads(pickle.dumps(Info.from_payload({payload()}))).to_payload() == {payload()})"
        )
        done = subprocess.run([sys.executable, "-E", "-c", code], cwd=tmp_path, capture_output=True, timeout=60)
        assert done.stdout.strip() == b"True"
