# SPDX-License-Identifier: MIT
"""What sessions.py promises, in the order in which its user meets it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import dataclasses
import datetime
import decimal
import errno
import http.server
import inspect
import itertools
import json
import multiprocessing
import os
import pathlib
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
import types
import typing
import urllib.error
import weakref
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

import sessions
from sessions import IDENTIFY_INTERVAL, GatewayBotInfo, PayloadError, SessionStartLimit

UTC = datetime.timezone.utc
READ_AT = datetime.datetime(2026, 11, 22, 18, 47, 11, 250_000, tzinfo=UTC)
HOUR = datetime.timedelta(hours=1)
INT32_MAX = 2**31 - 1

needs_system = pytest.mark.skipif(sys.platform == "emscripten", reason="needs processes, sockets or an event loop")

NOT_COUNTS = [1000.0, "1000", True, None, float("nan"), decimal.Decimal(5), http.HTTPStatus.OK, [5], {}, b"5", 5j]
"""Values of wrong types for a count. An HTTPStatus is an int of another kind, as a bool is."""


def limit_payload(**changes: Any) -> dict[str, Any]:
    return {"total": 1000, "remaining": 999, "reset_after": 14_400_000, "max_concurrency": 1, **changes}


def payload(**changes: Any) -> dict[str, Any]:
    return {"url": "wss://gateway.discord.gg/", "shards": 9, "session_start_limit": limit_payload(), **changes}


def make_limit(**changes: Any) -> SessionStartLimit:
    fields = {"total": 1000, "remaining": 999, "reset_after": 4 * HOUR, "max_concurrency": 1, "created_at": READ_AT}
    return SessionStartLimit(**{**fields, **changes})


def make_info(**changes: Any) -> GatewayBotInfo:
    fields = {"url": "wss://gateway.discord.gg/", "shard_count": 9, "session_start_limit": make_limit()}
    return GatewayBotInfo(**{**fields, **changes})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TaggedLimit(SessionStartLimit):
    """A subclass with fields that can change, one of them unknown to the constructor."""

    tags: list[str] = dataclasses.field(default_factory=list)
    seen: list[str] = dataclasses.field(default_factory=list, init=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaggedInfo(GatewayBotInfo):
    """A subclass without slots."""

    tags: list[str] = dataclasses.field(default_factory=list)


class AutumnZone(datetime.tzinfo):
    """Summer time, two hours ahead of UTC, ends on 25 October 2026 at 3:00; from then on it is one hour."""

    def utcoffset(self, moment: datetime.datetime | None) -> datetime.timedelta:
        assert moment
        return (2 if moment.replace(tzinfo=None) < datetime.datetime(2026, 10, 25, 3) else 1) * HOUR

    def dst(self, moment: datetime.datetime | None) -> datetime.timedelta:
        return self.utcoffset(moment) - HOUR

    def tzname(self, moment: datetime.datetime | None) -> str:
        return "AutumnZone"


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

    @pytest.mark.parametrize("entity", [SessionStartLimit, GatewayBotInfo])
    def test_positional_arguments_are_refused(self, entity: Any) -> None:
        with pytest.raises(TypeError, match="takes 1 positional argument but 4 were given"):
            entity(1, 2, 3)

    @pytest.mark.parametrize("field", ["total", "remaining", "max_concurrency"])
    @pytest.mark.parametrize("value", [1, INT32_MAX])
    def test_limit_takes_counts_up_to_int32(self, field: str, value: int) -> None:
        assert getattr(make_limit(**{field: value}), field) == value

    @pytest.mark.parametrize("field", ["total", "remaining"])
    def test_total_and_remaining_may_be_zero(self, field: str) -> None:
        assert getattr(make_limit(**{field: 0}), field) == 0

    def test_remaining_may_be_above_total(self) -> None:
        assert make_limit(total=1, remaining=2).remaining == 2

    @pytest.mark.parametrize(
        ("field", "minimum"), [("total", 0), ("remaining", 0), ("max_concurrency", 1)], ids=lambda value: str(value)
    )
    @pytest.mark.parametrize("beyond", ["below", "above"])
    def test_limit_refuses_counts_out_of_range(self, field: str, minimum: int, beyond: str) -> None:
        value = minimum - 1 if beyond == "below" else INT32_MAX + 1
        with pytest.raises(
            ValueError, match=f"^{field}: expected an integer from {minimum} to 2147483647, got {value}$"
        ):
            make_limit(**{field: value})

    @pytest.mark.parametrize("field", ["total", "remaining", "max_concurrency"])
    @pytest.mark.parametrize("value", NOT_COUNTS, ids=repr)
    def test_limit_refuses_what_is_not_a_count(self, field: str, value: object) -> None:
        with pytest.raises(TypeError, match=f"^{field}: expected an integer from . to 2147483647, got "):
            make_limit(**{field: value})

    @pytest.mark.parametrize("value", [datetime.timedelta(0), datetime.timedelta(milliseconds=INT32_MAX)], ids=str)
    def test_reset_after_reaches_from_zero_to_int32_milliseconds(self, value: datetime.timedelta) -> None:
        assert make_limit(reset_after=value).reset_after == value

    @pytest.mark.parametrize(
        "value",
        [-datetime.timedelta.resolution, datetime.timedelta(milliseconds=INT32_MAX) + datetime.timedelta.resolution],
        ids=str,
    )
    def test_reset_after_out_of_range_is_refused(self, value: datetime.timedelta) -> None:
        message = f"reset_after: expected a timedelta from 0:00:00 to 24 days, 20:31:23.647000, got {value!r}"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            make_limit(reset_after=value)

    @pytest.mark.parametrize("value", [14_400_000, 1.5, None, "4:00:00"], ids=repr)
    def test_reset_after_has_to_be_a_timedelta(self, value: object) -> None:
        with pytest.raises(TypeError, match=f"^reset_after: expected a timedelta from .*, got {value!r}$"):
            make_limit(reset_after=value)

    def test_subclasses_of_timedelta_and_datetime_are_accepted(self) -> None:
        class Span(datetime.timedelta):
            pass

        class Moment(datetime.datetime):
            pass

        limit = make_limit(reset_after=Span(hours=1), created_at=Moment(2026, 11, 22, tzinfo=UTC))
        assert limit.reset_at == datetime.datetime(2026, 11, 22, 1, tzinfo=UTC)

    def test_created_at_is_now_in_utc_where_not_given(self) -> None:
        before = datetime.datetime.now(UTC)
        created_at = SessionStartLimit(total=1, remaining=1, reset_after=HOUR, max_concurrency=1).created_at
        assert before <= created_at <= datetime.datetime.now(UTC)
        assert created_at.tzinfo is UTC

    def test_created_at_is_kept_in_utc(self) -> None:
        elsewhere = READ_AT.astimezone(datetime.timezone(-5 * HOUR))
        created_at = make_limit(created_at=elsewhere).created_at
        assert created_at == READ_AT
        assert created_at.tzinfo is UTC

    def test_created_at_has_to_be_a_datetime(self) -> None:
        with pytest.raises(TypeError, match=r"^created_at: expected an aware datetime, got '2026-11-22'$"):
            make_limit(created_at="2026-11-22")

    def test_naive_created_at_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"^created_at: expected an aware datetime, got datetime\.datetime\(2026,"):
            make_limit(created_at=READ_AT.replace(tzinfo=None))

    def test_created_at_in_a_zone_without_an_offset_is_refused(self) -> None:
        class Nowhere(AutumnZone):
            def utcoffset(self, moment: datetime.datetime | None) -> None:  # type: ignore[override]
                return None

        with pytest.raises(ValueError, match=r"^created_at: expected an aware datetime, got datetime\.datetime\(2026,"):
            make_limit(created_at=READ_AT.replace(tzinfo=Nowhere()))

    @pytest.mark.parametrize(
        "created_at",
        [
            datetime.datetime.max.replace(tzinfo=UTC),
            datetime.datetime.max.replace(tzinfo=datetime.timezone(-HOUR)),
            datetime.datetime.min.replace(tzinfo=datetime.timezone(HOUR)),
        ],
        ids=str,
    )
    def test_created_at_whose_reset_no_datetime_can_hold_is_refused(self, created_at: datetime.datetime) -> None:
        with pytest.raises(
            ValueError, match=r"^created_at: expected an aware datetime with the reset in the years 1 to 9999, got "
        ):
            make_limit(created_at=created_at)

    def test_error_about_a_reset_that_no_datetime_can_hold_is_not_a_chain(self) -> None:
        with pytest.raises(ValueError, match="9999") as caught:
            make_limit(created_at=datetime.datetime.max.replace(tzinfo=UTC))
        assert caught.value.__suppress_context__

    def test_latest_reset_that_a_datetime_can_hold_is_accepted(self) -> None:
        latest = datetime.datetime.max.replace(tzinfo=UTC)
        assert make_limit(reset_after=HOUR, created_at=latest - HOUR).reset_at == latest

    @pytest.mark.parametrize(
        "url",
        [
            "wss://gateway.discord.gg/",
            "ws://localhost",
            "ws://localhost:8080/?v=10&encoding=json",
            "ws://127.0.0.1:/#fragment",
            "wss://[::1]:8080/",
            "wss://[2001:DB8::1]",
            "wss://host:65535",
            "wss://host#fragment",
            "wss://user:password@proxy.example?a@b",
            "wss://пример.example/",
        ],
    )
    def test_url_is_a_websocket_url_with_a_host(self, url: str) -> None:
        assert make_info(url=url).url == url

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "gateway.discord.gg",
            "https://gateway.discord.gg/",
            "wss:/gateway.discord.gg/",
            "WSS://gateway.discord.gg/",
            "xwss://gateway.discord.gg/",
            "wss://",
            "wss:///path",
            "wss://?query",
            "wss://#fragment",
            "wss://:443/",
            "wss://user@/",
            "wss://[]/",
            "wss://[::1/",
            "wss://host:port/",
            "wss://host:80a",
            "wss://host:1:2",
            "wss://host:٣",
            "w://host",
            "wss://a@b@host",
            "wss://a b@host",
            "wss:///a@host",
            "wss://?a@host",
            "wss://#a@host",
            "wss://a[b",
            "wss://a]b",
            "wss://[/]",
            "wss://[?]",
            "wss://[#]",
            "wss://[@]",
            "wss://[[]",
            "wss://[]]",
            "wss://[ ]",
            " wss://host",
            "wss://ho st",
            "wss://host/a b",
            "wss://host\n",
            "wss://host/\x1b[31m",
            "wss://host/\u202e",
            "wss://host/\ud800",
        ],
        ids=ascii,
    )
    def test_other_urls_are_refused(self, url: str) -> None:
        expected = "a printable ws:// or wss:// URL with a host and without spaces"
        with pytest.raises(ValueError, match=f"^{re.escape(f'url: expected {expected}, got {url!r}')}$"):
            make_info(url=url)

    @pytest.mark.parametrize("url", [None, b"wss://gateway.discord.gg/", 5], ids=repr)
    def test_url_has_to_be_a_str(self, url: object) -> None:
        with pytest.raises(TypeError, match=r"^url: expected a printable ws:// or wss:// URL"):
            make_info(url=url)

    @pytest.mark.parametrize("value", [0, -1, INT32_MAX + 1])
    def test_shard_count_out_of_range_is_refused(self, value: int) -> None:
        with pytest.raises(ValueError, match=f"^shard_count: expected an integer from 1 to 2147483647, got {value}$"):
            make_info(shard_count=value)

    @pytest.mark.parametrize("value", NOT_COUNTS, ids=repr)
    def test_shard_count_has_to_be_a_count(self, value: object) -> None:
        with pytest.raises(TypeError, match=r"^shard_count: expected an integer from 1 to 2147483647, got "):
            make_info(shard_count=value)

    def test_session_start_limit_has_to_be_a_session_start_limit(self) -> None:
        with pytest.raises(
            TypeError, match=r"^session_start_limit: expected a SessionStartLimit, got an object of type 'dict'$"
        ):
            make_info(session_start_limit=limit_payload())


class TestAsking:
    def test_used_is_what_is_gone_of_total(self) -> None:
        assert make_limit(total=1000, remaining=990).used == 10

    def test_used_is_negative_where_more_than_total_are_left(self) -> None:
        assert make_limit(total=1, remaining=3).used == -2

    def test_reset_at_is_reset_after_later_than_created_at(self) -> None:
        assert make_limit(reset_after=HOUR, created_at=READ_AT).reset_at == READ_AT + HOUR

    def test_reset_at_is_right_when_summer_time_ends_before_it(self) -> None:
        created_at = datetime.datetime(2026, 10, 25, 1, tzinfo=AutumnZone())
        reset_at = make_limit(reset_after=4 * HOUR, created_at=created_at).reset_at
        assert reset_at == datetime.datetime(2026, 10, 25, 3, tzinfo=UTC)

    @pytest.mark.parametrize(("sessions_needed", "answer"), [(0, True), (4, True), (5, True), (6, False)])
    def test_can_start_up_to_remaining(self, sessions_needed: int, answer: bool) -> None:
        assert make_limit(remaining=5).can_start(sessions_needed) is answer

    @pytest.mark.parametrize(("shard_id", "key"), [(0, 0), (15, 15), (16, 0), (35, 3), (INT32_MAX, 15)])
    def test_rate_limit_key_is_the_shard_id_modulo_max_concurrency(self, shard_id: int, key: int) -> None:
        assert make_limit(max_concurrency=16).rate_limit_key(shard_id) == key

    @pytest.mark.parametrize(("question", "name"), [("can_start", "sessions"), ("rate_limit_key", "shard_id")])
    @pytest.mark.parametrize("value", NOT_COUNTS, ids=repr)
    def test_question_about_what_is_not_a_count_is_refused(self, question: str, name: str, value: object) -> None:
        with pytest.raises(TypeError, match=f"^{name}: expected an integer from 0 to 2147483647, got "):
            getattr(make_limit(), question)(value)

    @pytest.mark.parametrize(("question", "name"), [("can_start", "sessions"), ("rate_limit_key", "shard_id")])
    @pytest.mark.parametrize("value", [-1, INT32_MAX + 1])
    def test_question_about_a_count_out_of_range_is_refused(self, question: str, name: str, value: int) -> None:
        with pytest.raises(ValueError, match=f"^{name}: expected an integer from 0 to 2147483647, got {value}$"):
            getattr(make_limit(), question)(value)


class TestReading:
    def test_every_field_is_read(self) -> None:
        answer = payload(session_start_limit=limit_payload(max_concurrency=16))
        limit = make_limit(reset_after=datetime.timedelta(seconds=14_400), max_concurrency=16)
        assert GatewayBotInfo.from_payload(answer) == make_info(session_start_limit=limit)

    def test_a_limit_is_read_on_its_own(self) -> None:
        assert SessionStartLimit.from_payload(limit_payload()) == make_limit()

    def test_milliseconds_of_reset_after_are_kept(self) -> None:
        limit = SessionStartLimit.from_payload(limit_payload(reset_after=INT32_MAX))
        assert limit.reset_after == datetime.timedelta(days=24, hours=20, minutes=31, seconds=23, milliseconds=647)

    @pytest.mark.parametrize("key", ["total", "remaining", "reset_after"])
    def test_zero_is_read(self, key: str) -> None:
        assert SessionStartLimit.from_payload(limit_payload(**{key: 0})).to_payload()[key] == 0

    @pytest.mark.parametrize("key", limit_payload())
    def test_largest_int32_is_read(self, key: str) -> None:
        assert SessionStartLimit.from_payload(limit_payload(**{key: INT32_MAX})).to_payload()[key] == INT32_MAX

    def test_zero_max_concurrency_is_read_as_one(self) -> None:
        assert SessionStartLimit.from_payload(limit_payload(max_concurrency=0)).max_concurrency == 1

    def test_absent_max_concurrency_is_read_as_one(self) -> None:
        answer = limit_payload()
        del answer["max_concurrency"]
        assert SessionStartLimit.from_payload(answer).max_concurrency == 1

    def test_unknown_keys_are_ignored(self) -> None:
        answer = payload(session_start_limit=limit_payload(new=[1]), new={"deep": None}, message="no error")
        assert GatewayBotInfo.from_payload(answer) == make_info()

    def test_any_mapping_is_read(self) -> None:
        answer = payload(session_start_limit=types.MappingProxyType(limit_payload()))
        assert GatewayBotInfo.from_payload(types.MappingProxyType(answer)) == make_info()

    def test_any_mapping_is_read_as_a_limit(self) -> None:
        assert SessionStartLimit.from_payload(types.MappingProxyType(limit_payload())) == make_limit()

    def test_payload_is_left_untouched(self) -> None:
        limit: defaultdict[str, Any] = defaultdict(int, total=1, remaining=1, reset_after=0)
        answer = defaultdict(int, payload(session_start_limit=limit))
        before = copy.deepcopy(answer)
        GatewayBotInfo.from_payload(answer)
        assert answer == before

    @pytest.mark.parametrize("entity", [SessionStartLimit, GatewayBotInfo])
    def test_created_at_is_now_where_not_given(self, entity: Any) -> None:
        before = datetime.datetime.now(UTC)
        made = entity.from_payload(payload() | limit_payload())
        assert before <= getattr(made, "session_start_limit", made).created_at <= datetime.datetime.now(UTC)

    @pytest.mark.parametrize("entity", [SessionStartLimit, GatewayBotInfo])
    def test_created_at_may_be_given(self, entity: Any) -> None:
        made = entity.from_payload(payload() | limit_payload(), created_at=READ_AT)
        assert getattr(made, "session_start_limit", made).created_at == READ_AT

    @pytest.mark.parametrize("entity", [SessionStartLimit, GatewayBotInfo])
    @pytest.mark.parametrize(("created_at", "error"), [(0, TypeError), (READ_AT.replace(tzinfo=None), ValueError)])
    def test_wrong_created_at_is_not_blamed_on_the_payload(
        self, entity: Any, created_at: Any, error: type[Exception]
    ) -> None:
        with pytest.raises(error, match=r"^created_at: expected an aware datetime, got ") as caught:
            entity.from_payload(payload() | limit_payload(), created_at=created_at)
        assert caught.type is error

    @pytest.mark.parametrize("cls", [TaggedLimit, TaggedInfo])
    def test_a_subclass_reads_itself(self, cls: Any) -> None:
        assert type(cls.from_payload(payload() | limit_payload())) is cls

    @pytest.mark.parametrize("entity", [SessionStartLimit, GatewayBotInfo])
    def test_what_a_subclass_refuses_is_its_own_error(self, entity: Any) -> None:
        class Picky(entity):  # type: ignore[misc]
            def __post_init__(self) -> None:
                raise ValueError("not today") from OSError("rain")

        with pytest.raises(ValueError, match=r"^not today$") as caught:
            Picky.from_payload(payload() | limit_payload())
        assert (caught.type, type(caught.value.__cause__)) == (ValueError, OSError)


def read_error(answer: Any, entity: type[GatewayBotInfo] | type[SessionStartLimit] = GatewayBotInfo) -> str:
    """Return the message of the PayloadError that reading *answer* raises."""
    with pytest.raises(PayloadError) as caught:
        entity.from_payload(answer)
    return str(caught.value)


class Unspeakable:
    """Whatever is asked of it, it raises."""

    def __repr__(self) -> str:
        raise AssertionError("asked for its repr")

    __eq__ = __hash__ = __bool__ = __int__ = __index__ = __float__ = __len__ = __str__ = __repr__  # type: ignore[assignment]


HUGE = [
    "x" * 10**6,
    "\x1b[31m\n\u202e\ud800" * 100,
    10**5000,
    -(10**5000),
    1e308,
    list(range(10**5)),
    Unspeakable(),
    type("\x1b[31m" * 100, (), {})(),
    datetime.datetime(2026, 11, 22, tzinfo=datetime.timezone(HOUR, "\x1b" * 1000)),
    datetime.datetime.now,
]
"""Values that make a message long or unprintable where they get into it as they are, or raise when asked for a repr."""


class TestRefusingPayloads:
    def test_payload_error_is_a_value_error(self) -> None:
        assert PayloadError.__bases__ == (ValueError,)

    @pytest.mark.parametrize("entity", [SessionStartLimit, GatewayBotInfo])
    @pytest.mark.parametrize("answer", [None, [], "{}", b"{}", 5], ids=repr)
    def test_payload_that_is_not_a_mapping(self, entity: Any, answer: object) -> None:
        assert read_error(answer, entity).startswith("payload: expected a mapping, got ")

    @pytest.mark.parametrize("value", [None, [], "{}", 5], ids=repr)
    def test_limit_that_is_not_a_mapping(self, value: object) -> None:
        message = read_error(payload(session_start_limit=value))
        assert message.startswith("session_start_limit: expected a mapping, got ")

    @pytest.mark.parametrize("value", [*NOT_COUNTS, -1, INT32_MAX + 1, 10**20], ids=repr)
    @pytest.mark.parametrize("key", ["total", "remaining", "reset_after", "max_concurrency"])
    def test_limit_with_what_is_not_a_count(self, key: str, value: object) -> None:
        message = read_error(payload(session_start_limit=limit_payload(**{key: value})))
        assert message.startswith(f"session_start_limit.{key}: expected an integer from 0 to 2147483647, got ")

    def test_path_in_a_limit_on_its_own(self) -> None:
        message = read_error(limit_payload(remaining="999"), SessionStartLimit)
        assert message == "remaining: expected an integer from 0 to 2147483647, got '999'"

    @pytest.mark.parametrize("value", [*NOT_COUNTS, 0, INT32_MAX + 1], ids=repr)
    def test_shards_that_are_not_a_count(self, value: object) -> None:
        message = read_error(payload(shards=value))
        assert message.startswith("shards: expected an integer from 1 to 2147483647, got ")

    @pytest.mark.parametrize("value", [None, 5, "https://gateway.discord.gg/", "a: b"], ids=repr)
    def test_url_that_is_not_a_websocket_url(self, value: object) -> None:
        expected = "a printable ws:// or wss:// URL with a host and without spaces"
        assert read_error(payload(url=value)) == f"url: expected {expected}, got {value!r}"

    @pytest.mark.parametrize("key", ["url", "shards", "session_start_limit"])
    def test_missing_key(self, key: str) -> None:
        answer = payload()
        del answer[key]
        assert re.fullmatch(f"{key}: expected .*, got nothing", read_error(answer))

    @pytest.mark.parametrize("key", ["total", "remaining", "reset_after"])
    def test_missing_key_of_the_limit(self, key: str) -> None:
        answer = payload()
        del answer["session_start_limit"][key]
        assert re.fullmatch(f"session_start_limit.{key}: expected .*, got nothing", read_error(answer))

    @pytest.mark.parametrize("entity", [SessionStartLimit, GatewayBotInfo])
    @pytest.mark.parametrize(
        "answer",
        [
            {"message": "401: Unauthorized", "code": 0},
            {"message": "401: Unauthorized", "url": 5, "session_start_limit": limit_payload(), "total": "?"},
        ],
        ids=["alone", "beside wrong values"],
    )
    def test_message_of_an_error_body_is_passed_on(self, entity: Any, answer: dict[str, Any]) -> None:
        assert read_error(answer, entity).endswith("; the answer says '401: Unauthorized'")

    @pytest.mark.parametrize(
        ("entity", "key"),
        [
            *itertools.product([SessionStartLimit], ["total", "remaining", "reset_after"]),
            *itertools.product([GatewayBotInfo], payload()),
        ],
    )
    def test_one_missing_key_is_enough_to_pass_it_on(self, entity: Any, key: str) -> None:
        answer = payload() | limit_payload(message="401: Unauthorized")
        del answer[key]
        assert read_error(answer, entity).endswith("got nothing; the answer says '401: Unauthorized'")

    def test_max_concurrency_is_not_missed(self) -> None:
        answer = limit_payload(total=-1, message="hello")
        del answer["max_concurrency"]
        assert read_error(answer, SessionStartLimit).endswith("got -1")

    def test_message_that_is_not_text_is_not_passed_on(self) -> None:
        assert read_error({"message": ["401"]}).endswith("got nothing")

    @pytest.mark.parametrize("entity", [SessionStartLimit, GatewayBotInfo])
    def test_message_is_not_passed_on_where_no_key_is_missing(self, entity: Any) -> None:
        answer = payload(shards=-1) | limit_payload(remaining=-1, message="hello")
        assert read_error(answer, entity).endswith("got -1")

    @pytest.mark.parametrize("entity", [SessionStartLimit, GatewayBotInfo])
    @pytest.mark.parametrize("more", [{}, {"new": 1}], ids=repr)
    def test_answer_of_get_gateway_is_recognised(self, entity: Any, more: dict[str, Any]) -> None:
        message = read_error({"url": "wss://gateway.discord.gg/", **more}, entity)
        assert message.endswith("got nothing; this is the answer to GET /gateway, not to GET /gateway/bot")

    def test_answer_with_a_message_is_not_taken_for_the_one_of_get_gateway(self) -> None:
        assert read_error({"url": "wss://gateway.discord.gg/", "message": "no"}).endswith("; the answer says 'no'")

    def test_half_an_answer_is_not_taken_for_the_one_of_get_gateway(self) -> None:
        assert read_error({"url": "wss://gateway.discord.gg/", "shards": 9}).endswith("got nothing")

    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            ("a" * 78, "'" + "a" * 78 + "'"),
            ("a" * 79, "'" + "a" * 76 + "..."),
            ("\x1b[31m", r"'\x1b[31m'"),
            (2**64 - 1, "18446744073709551615"),
            (2**64, "an integer of 65 bits"),
            (0.5, "0.5"),
            (True, "True"),
            (None, "None"),
            ([1], "an object of type 'list'"),
        ],
    )
    def test_message_says_what_came(self, value: object, shown: str) -> None:
        assert read_error(payload(shards=value)).endswith(f", got {shown}")

    @pytest.mark.parametrize("hint", ["", "\x1b\U0010ffff" * 10**5])
    @pytest.mark.parametrize("place", [*payload(), *limit_payload()])
    @pytest.mark.parametrize("value", HUGE, ids=lambda value: type(value).__name__[:8])
    def test_message_is_short_and_printable_whatever_came(self, value: object, place: str, hint: str) -> None:
        answer: Any = {"message": hint} if hint else payload()
        if place in limit_payload():
            answer["session_start_limit"] = limit_payload(**{place: value})
        else:
            answer[place] = value
        message = read_error(answer)
        assert (len(message) < 300, message.isprintable()) == (True, True)

    @pytest.mark.parametrize("value", HUGE, ids=lambda value: type(value).__name__[:8])
    def test_message_is_short_and_printable_for_what_is_not_a_mapping(self, value: object) -> None:
        message = read_error(value)
        assert (len(message) < 300, message.isprintable()) == (True, True)

    def test_message_is_short_where_both_answer_and_limit_have_a_message(self) -> None:
        limit = {"total": 1, "reset_after": 1, "max_concurrency": "y" * 80, "message": "z" * 80}
        assert len(read_error({"message": "z" * 80, "session_start_limit": limit})) < 300

    def test_keys_of_a_mapping_need_not_be_a_set(self) -> None:
        assert read_error(weakref.WeakValueDictionary()).endswith("got nothing")

    @pytest.mark.parametrize("entity", [SessionStartLimit, GatewayBotInfo])
    @pytest.mark.parametrize("answer", [[], {}, payload(session_start_limit={})], ids=repr)
    def test_error_is_one_traceback_without_a_chain(self, entity: Any, answer: Any) -> None:
        with pytest.raises(PayloadError) as caught:
            entity.from_payload(answer)
        assert "".join(traceback.format_exception(caught.value)).count("Traceback") == 1


class TestWriting:
    def test_answer_is_given_back(self) -> None:
        assert GatewayBotInfo.from_payload(payload()).to_payload() == payload()

    def test_limit_is_given_back(self) -> None:
        assert SessionStartLimit.from_payload(limit_payload()).to_payload() == limit_payload()

    def test_unknown_keys_are_dropped(self) -> None:
        answer = payload(new=1, session_start_limit=limit_payload(new=1))
        assert GatewayBotInfo.from_payload(answer).to_payload() == payload()

    def test_json_takes_it(self) -> None:
        text = json.dumps(payload())
        assert json.dumps(GatewayBotInfo.from_payload(json.loads(text)).to_payload()) == text

    def test_reset_after_is_rounded_up_to_a_millisecond(self) -> None:
        assert make_limit(reset_after=datetime.timedelta(microseconds=1001)).to_payload()["reset_after"] == 2

    def test_stored_answer_is_restored_with_its_reset(self) -> None:
        info = make_info()
        restored = GatewayBotInfo.from_payload(info.to_payload(), created_at=info.session_start_limit.created_at)
        assert restored.session_start_limit.reset_at == info.session_start_limit.reset_at


class TestComparing:
    def test_two_reads_of_one_answer_are_equal(self) -> None:
        first, second = (GatewayBotInfo.from_payload(payload(), created_at=READ_AT + n * HOUR) for n in range(2))
        assert first == second

    def test_two_reads_of_one_answer_have_one_hash(self) -> None:
        first, second = (GatewayBotInfo.from_payload(payload(), created_at=READ_AT + n * HOUR) for n in range(2))
        assert len({first, second}) == 1

    @pytest.mark.parametrize("field", ["total", "remaining", "max_concurrency"])
    def test_limits_of_different_numbers_differ(self, field: str) -> None:
        assert make_limit() != make_limit(**{field: 500})

    def test_limits_of_different_resets_differ(self) -> None:
        assert make_limit() != make_limit(reset_after=HOUR)

    @pytest.mark.parametrize(
        "change",
        [{"url": "ws://localhost"}, {"shard_count": 1}, {"session_start_limit": make_limit(remaining=5)}],
        ids=lambda change: next(iter(change)),
    )
    def test_infos_of_different_values_differ(self, change: dict[str, Any]) -> None:
        assert make_info() != make_info(**change)

    @pytest.mark.parametrize("entity", [make_limit(), make_info()], ids=lambda entity: type(entity).__name__)
    def test_repr_shows_every_field(self, entity: Any) -> None:
        for field in dataclasses.fields(entity):
            assert f"{field.name}={getattr(entity, field.name)!r}" in repr(entity)

    @pytest.mark.parametrize("created_at", [READ_AT, datetime.datetime(2026, 10, 25, 1, tzinfo=AutumnZone())], ids=str)
    def test_repr_reads_back_with_eval(self, created_at: datetime.datetime) -> None:
        info = make_info(session_start_limit=make_limit(created_at=created_at))
        read = eval(repr(info))
        assert (read, read.session_start_limit.created_at) == (info, created_at.astimezone(UTC))


def vars_of(entity: Any) -> dict[str, Any]:
    """Return the fields of *entity*, for a subclass to be made with."""
    return {field.name: getattr(entity, field.name) for field in dataclasses.fields(entity)}


def pickled(entity: Any) -> Any:
    return pickle.loads(pickle.dumps(entity))


COPIERS = [copy.copy, copy.deepcopy, dataclasses.replace, pickled, lambda entity: entity.copy()]
CHANGERS = [dataclasses.replace, lambda entity, **changes: entity.copy(**changes)]
if sys.version_info >= (3, 13):
    COPIERS.append(copy.replace)
    CHANGERS.append(copy.replace)
copiers = pytest.mark.parametrize("copied", COPIERS)
changers = pytest.mark.parametrize("changed", CHANGERS)


class TestCopying:
    @copiers
    @pytest.mark.parametrize("entity", [make_limit(), make_info(), TaggedLimit.from_payload(limit_payload())], ids=repr)
    def test_copy_is_equal_and_of_the_same_class(self, copied: Any, entity: Any) -> None:
        made = copied(entity)
        assert (made, type(made)) == (entity, type(entity))

    @copiers
    @pytest.mark.parametrize("cls", [SessionStartLimit, TaggedLimit])
    def test_copy_of_a_limit_keeps_created_at(self, copied: Any, cls: Any) -> None:
        limit = cls.from_payload(limit_payload(), created_at=READ_AT)
        assert copied(limit).created_at == READ_AT

    @copiers
    @pytest.mark.parametrize("cls", [GatewayBotInfo, TaggedInfo])
    def test_copy_of_an_info_keeps_created_at_of_its_limit(self, copied: Any, cls: Any) -> None:
        info = cls.from_payload(payload(), created_at=READ_AT)
        assert copied(info).session_start_limit.created_at == READ_AT

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_every_pickle_protocol_keeps_all(self, protocol: int) -> None:
        info = pickle.loads(pickle.dumps(make_info(), protocol))
        assert (info, info.session_start_limit.created_at) == (make_info(), READ_AT)

    @changers
    def test_change_of_a_limit(self, changed: Any) -> None:
        assert changed(make_limit(), remaining=5, total=6) == make_limit(remaining=5, total=6)

    @changers
    def test_change_of_a_limit_keeps_reset_at(self, changed: Any) -> None:
        assert changed(make_limit(), remaining=5).reset_at == make_limit().reset_at

    @changers
    def test_created_at_can_be_changed(self, changed: Any) -> None:
        assert changed(make_limit(), created_at=READ_AT + HOUR).created_at == READ_AT + HOUR

    @changers
    def test_change_of_an_info(self, changed: Any) -> None:
        assert changed(make_info(), shard_count=5) == make_info(shard_count=5)

    @changers
    def test_change_of_a_subclass_keeps_what_it_adds(self, changed: Any) -> None:
        assert changed(TaggedInfo(**vars_of(make_info()), tags=["a"]), shard_count=5).tags == ["a"]

    @changers
    @pytest.mark.parametrize(("value", "error"), [(-1, ValueError), (True, TypeError)])
    def test_change_is_checked(self, changed: Any, value: object, error: type[Exception]) -> None:
        with pytest.raises(error, match=r"^remaining: expected an integer from 0 to 2147483647, got "):
            changed(make_limit(), remaining=value)

    @changers
    @pytest.mark.parametrize("entity", [make_limit(), make_info()], ids=lambda entity: type(entity).__name__)
    def test_change_of_an_unknown_field_is_a_type_error(self, changed: Any, entity: Any) -> None:
        with pytest.raises(TypeError, match="shards"):
            changed(entity, shards=5)

    def test_unpickling_checks(self) -> None:
        data = pickle.dumps(make_limit(remaining=77), 0)
        with pytest.raises(ValueError, match=r"^remaining: expected an integer from 0 to 2147483647, got -7$"):
            pickle.loads(data.replace(b"I77\n", b"I-7\n"))

    @pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
    @pytest.mark.parametrize("entity", [make_limit(), make_info()], ids=lambda entity: type(entity).__name__)
    def test_what_cannot_change_is_its_own_copy(self, copied: Any, entity: Any) -> None:
        assert copied(entity) is entity

    @pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
    def test_deep_copy_of_a_subclass_copies_what_can_change(self, copied: Any) -> None:
        limit = TaggedLimit(**vars_of(make_limit()), tags=["a"])
        info = TaggedInfo(**vars_of(make_info(session_start_limit=limit)), tags=["b"])
        made = copied(info)
        info.tags.append("more")
        limit.tags.append("more")
        assert (made.tags, made.session_start_limit.tags) == (["b"], ["a"])

    @pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
    def test_deep_copy_of_an_info_copies_a_limit_that_can_change(self, copied: Any) -> None:
        limit = TaggedLimit(**vars_of(make_limit()))
        assert copied(make_info(session_start_limit=limit)).session_start_limit.tags is not limit.tags

    def test_shallow_copy_of_a_subclass_is_another_object_with_the_same_parts(self) -> None:
        limit = TaggedLimit(**vars_of(make_limit()), tags=["a"])
        made = copy.copy(limit)
        assert made is not limit
        assert made.tags is limit.tags

    @pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
    def test_copy_of_a_subclass_keeps_fields_that_the_constructor_does_not_take(self, copied: Any) -> None:
        limit = TaggedLimit(**vars_of(make_limit()))
        limit.seen.append("a")
        assert copied(limit).seen == ["a"]

    def test_deep_copy_keeps_what_two_places_share_shared(self) -> None:
        tags = ["a"]
        limits = [TaggedLimit(**vars_of(make_limit()), tags=tags) for _ in range(2)]
        first, second = copy.deepcopy(limits)
        assert first.tags is second.tags


def keeps_the_rule(buckets: list[tuple[int, ...]], max_concurrency: int) -> bool:
    """Return whether no bucket has two shards of one key, and ids ascend within each bucket and each key."""
    by_key: dict[int, list[int]] = defaultdict(list)
    for bucket in buckets:
        if len({shard_id % max_concurrency for shard_id in bucket}) != len(bucket) or list(bucket) != sorted(bucket):
            return False
        for shard_id in bucket:
            by_key[shard_id % max_concurrency].append(shard_id)
    return all(ids == sorted(ids) for ids in by_key.values())


def buckets(shard_count: int, max_concurrency: int, shard_ids: Any = None) -> list[tuple[int, ...]]:
    limit = make_limit(max_concurrency=max_concurrency)
    return make_info(shard_count=shard_count, session_start_limit=limit).buckets(shard_ids)


class TestStarting:
    def test_interval_is_five_seconds(self) -> None:
        assert datetime.timedelta(seconds=5) == IDENTIFY_INTERVAL

    def test_one_shard_at_a_time_without_concurrency(self) -> None:
        assert buckets(3, 1) == [(0,), (1,), (2,)]

    def test_all_shards_go_in_buckets_of_neighbours(self) -> None:
        assert buckets(32, 16) == [tuple(range(16)), tuple(range(16, 32))]

    def test_last_bucket_takes_the_rest(self) -> None:
        assert buckets(5, 2) == [(0, 1), (2, 3), (4,)]

    def test_fewer_shards_than_concurrency_start_at_once(self) -> None:
        assert buckets(3, 16) == [(0, 1, 2)]

    def test_shards_of_one_key_wait_for_each_other(self) -> None:
        assert buckets(48, 16, [0, 16, 32]) == [(0,), (16,), (32,)]

    def test_shards_of_different_keys_start_at_once(self) -> None:
        assert buckets(48, 16, [3, 8, 9, 20]) == [(3, 8, 9, 20)]

    def test_ids_come_in_any_order(self) -> None:
        assert buckets(48, 16, [35, 20, 4, 3]) == [(3, 4), (20, 35)]

    def test_ids_come_from_any_iterable(self) -> None:
        assert buckets(4, 2, (shard_id for shard_id in (3, 1))) == [(1,), (3,)]

    def test_repeated_id_counts_once(self) -> None:
        assert buckets(4, 2, [1, 1, 1]) == [(1,)]

    def test_no_ids_need_no_bucket(self) -> None:
        assert buckets(4, 2, []) == []

    def test_rule_is_kept_in_as_few_buckets_as_possible_for_every_share(self) -> None:
        for size, max_concurrency in itertools.product(range(8), range(1, 5)):
            for share in itertools.combinations(range(7), size):
                made = buckets(7, max_concurrency, share)
                keys = [shard_id % max_concurrency for shard_id in share]
                assert keeps_the_rule(made, max_concurrency)
                assert sorted(itertools.chain(*made)) == list(share)
                assert len(made) == max(map(keys.count, keys), default=0)

    @pytest.mark.parametrize("value", [-1, 9, INT32_MAX + 1])
    def test_id_that_is_not_a_shard_is_refused(self, value: int) -> None:
        with pytest.raises(ValueError, match=f"^shard_id: expected an integer from 0 to 8, got {value}$"):
            buckets(9, 1, [0, value])

    @pytest.mark.parametrize("value", NOT_COUNTS, ids=repr)
    def test_id_that_is_not_an_integer_is_refused(self, value: object) -> None:
        with pytest.raises(TypeError, match=r"^shard_id: expected an integer from 0 to 8, got "):
            buckets(9, 1, [0, value])

    def test_endless_ids_are_refused_at_the_first_that_is_not_a_shard(self) -> None:
        with pytest.raises(ValueError, match=r"got 9$"):
            buckets(9, 1, itertools.count())

    @pytest.mark.parametrize("max_concurrency", [1, 16, 100_000])
    def test_time_grows_in_proportion_to_the_shards(self, max_concurrency: int) -> None:
        def seconds(shard_count: int) -> float:
            start = time.perf_counter()
            buckets(shard_count, max_concurrency, range(shard_count))
            return time.perf_counter() - start

        few, many = (min(seconds(shard_count) for _ in range(3)) for shard_count in (5_000, 100_000))
        assert many < 100 * few  # 20 times as many shards; in quadratic time it would be 400


def run(*arguments: str, answer: Any = b"", **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command with *answer*, bytes or something for JSON, on standard input."""
    data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    done = subprocess.run(
        [sys.executable, sessions.__file__, *arguments], input=data, **{"capture_output": True, "timeout": 60} | options
    )
    streams = [
        None if stream is None else stream.decode().replace("\r\n", "\n") for stream in (done.stdout, done.stderr)
    ]
    return subprocess.CompletedProcess(done.args, done.returncode, *streams)


def rows(report: str) -> dict[str, str]:
    """Return the aligned lines of *report* as labels and values."""
    return {line[:16].rstrip(): line[16:] for line in report.partition("\n\n")[0].splitlines()}


def assert_refused(done: subprocess.CompletedProcess[str], problem: str) -> None:
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"sessions\.py: {problem}\n", done.stderr), done.stderr


def limited(total: int, remaining: int, **changes: int) -> dict[str, Any]:
    return payload(session_start_limit=limit_payload(total=total, remaining=remaining, **changes))


@needs_system
class TestCommandLine:
    def test_report(self) -> None:
        done = run(answer=payload(shards=40, session_start_limit=limit_payload(remaining=990, max_concurrency=16)))
        assert re.fullmatch(
            "URL             wss://gateway.discord.gg/\n"
            "Shards          40\n"
            "Concurrency     16\n"
            "Buckets         3\n"
            "Full start      0:00:10\n"
            "Sessions left   990\n"
            "Sessions total  1000\n"
            "Sessions used   10\n"
            r"Reset           \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, in 4:00:00\n",
            done.stdout,
        )
        assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.parametrize(("shards", "max_concurrency"), [(1, 1), (9, 1), (16, 16), (17, 16), (32, 16), (1, 16)])
    def test_number_of_buckets_is_that_of_the_method(self, shards: int, max_concurrency: int) -> None:
        answer = payload(shards=shards, session_start_limit=limit_payload(max_concurrency=max_concurrency))
        assert rows(run(answer=answer).stdout)["Buckets"] == str(len(buckets(shards, max_concurrency)))

    def test_reset_is_rounded_up_to_a_second(self) -> None:
        before = datetime.datetime.now(UTC)
        reset = rows(run(answer=limited(1000, 999, reset_after=90_001)).stdout)["Reset"]
        after = datetime.datetime.now(UTC)
        at, _, span = reset.partition(" UTC, in ")
        assert span == "0:01:31"
        moment = datetime.datetime.fromisoformat(at).replace(tzinfo=UTC) - datetime.timedelta(seconds=90.001)
        assert before <= moment < after + datetime.timedelta(seconds=1)

    @pytest.mark.parametrize(("remaining", "status"), [(9, 0), (8, 1), (0, 1)])
    def test_exit_status_tells_whether_all_shards_can_be_started(self, remaining: int, status: int) -> None:
        assert run(answer=limited(1000, remaining)).returncode == status

    def test_too_few_sessions_are_told_in_words(self) -> None:
        done = run(answer=limited(1000, 5))
        reset_at = rows(done.stdout)["Reset"].partition(",")[0]
        assert done.stdout.endswith(
            f"\n\nToo few sessions are left: 5, and a full start takes 9.\nA full start is possible from {reset_at}.\n"
        )

    def test_a_total_that_is_too_small_is_told_in_words(self) -> None:
        done = run(answer=limited(8, 5))
        reset_at = rows(done.stdout)["Reset"].partition(",")[0]
        assert done.stdout.endswith(f"\nThe reset at {reset_at} will not help: it brings 8.\n")

    def test_a_total_that_just_suffices_will_do(self) -> None:
        assert "A full start is possible from" in run(answer=limited(9, 5)).stdout

    @pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["without mark", "with byte order mark"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
    def test_answer_in_the_encodings_of_shells(self, encoding: str, mark: str) -> None:
        assert run(answer=(mark + json.dumps(payload())).encode(encoding)).returncode == 0

    def test_answer_from_a_file(self, tmp_path: pathlib.Path) -> None:
        file = tmp_path / "answer.json"
        file.write_text(json.dumps(payload()))
        assert rows(run(str(file)).stdout)["Shards"] == "9"

    def test_answer_from_standard_input_by_name(self) -> None:
        assert rows(run("-", answer=payload()).stdout)["Shards"] == "9"

    @pytest.mark.parametrize("option", ["--help", "-h"])
    def test_help(self, option: str) -> None:
        done = run(option, env={**os.environ, "COLUMNS": "80"})
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == (
            "usage: sessions.py [-h] [--version] [FILE]\n"
            "\n"
            "Read Discord's answer to GET /gateway/bot and tell whether all recommended shards can be started.\n"
            "\n"
            "positional arguments:\n"
            "  FILE        JSON in UTF-8 or UTF-16; standard input if - or absent\n"
            "\n"
            "options:\n"
            "  -h, --help  show this and exit\n"
            "  --version   show the version and exit\n"
            "\n"
            "exit status:\n"
            "  0  they can all be started\n"
            "  1  too few sessions are left for that\n"
            "  2  no usable answer (unreadable, not JSON, not such an answer), bad usage or no room for the output\n"
            "\n"
            "before a deploy:\n"
            f"  curl ... | python3 {sessions.__file__} && ./start-bot\n"
        )

    def test_version(self) -> None:
        assert run("--version").stdout == f"sessions.py {sessions.__version__}\n"

    def test_unknown_option_is_bad_usage(self) -> None:
        assert_refused(run("--vers"), r"unrecognized arguments: --vers \(see --help\)")

    def test_second_file_is_bad_usage(self) -> None:
        assert_refused(run("a", "b"), r"unrecognized arguments: b \(see --help\)")

    def test_missing_file(self, tmp_path: pathlib.Path) -> None:
        assert_refused(run(str(tmp_path / "no.json")), f".*no.json: {os.strerror(errno.ENOENT)}")

    def test_empty_name_of_a_file_is_not_standard_input(self) -> None:
        assert_refused(run("", answer=payload()), f": {os.strerror(errno.ENOENT)}")

    def test_directory(self, tmp_path: pathlib.Path) -> None:
        assert_refused(run(str(tmp_path)), f"{re.escape(str(tmp_path))}: .+")

    def test_name_of_a_file_is_shown_without_control_characters(self) -> None:
        assert_refused(run("\x1b[31m\n"), r"\\x1b\[31m\\n: .+")

    @pytest.mark.parametrize(
        ("answer", "problem"),
        [
            (b"", r"cannot read '' as JSON: Expecting value: line 1 column 1 \(char 0\)"),
            (
                b"<html>502 Bad Gateway</html>",
                "cannot read '<html>502 Bad Gateway</html>' as JSON: Expecting value: .+",
            ),
            (json.dumps(payload()).encode()[:-20], 'cannot read \'{"url": .+ as JSON: .+'),
            (b"\x1b\xff", r"cannot read '\\x1b\ufffd' as JSON: .+"),
            (b"9" * 5000, r"cannot read '9{76}\.\.\. as JSON: .+"),
            (b"[" * 200_000, "nested too deeply, so not the answer to GET /gateway/bot"),
            (b" " * 2**18 + b"{}", "more than 262144 bytes, so not the answer to GET /gateway/bot"),
            ([], "payload: expected a mapping, got an object of type 'list'"),
            (
                {"message": "401: Unauthorized", "code": 0},
                "session_start_limit: .+; the answer says '401: Unauthorized'",
            ),
            (payload(shards=0), "shards: expected an integer from 1 to 2147483647, got 0"),
            (payload(url="wss://\x1b[31m"), r"url: expected .+, got 'wss://\\x1b\[31m'"),
        ],
        ids=lambda value: repr(value)[:30],
    )
    def test_unusable_answer(self, answer: Any, problem: str) -> None:
        assert_refused(run(answer=answer), f"standard input: {problem}")

    def test_answer_of_just_the_greatest_length_is_read(self) -> None:
        assert run(answer=json.dumps(payload()).encode().ljust(2**18)).returncode == 0

    def test_url_that_the_terminal_cannot_show_is_escaped(self) -> None:
        done = run(
            answer=payload(url="wss://пример.example/"),
            env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert rows(done.stdout)["URL"] == r"wss://\u043f\u0440\u0438\u043c\u0435\u0440.example/"

    def test_largest_answer_is_quick(self) -> None:
        numbers = dict.fromkeys(limit_payload(), INT32_MAX)
        done = run(answer=payload(shards=INT32_MAX, session_start_limit=numbers | {"max_concurrency": 1}), timeout=10)
        assert rows(done.stdout)["Buckets"] == str(INT32_MAX)

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
    @pytest.mark.parametrize("arguments", [(), ("--help",), ("--version",)], ids=str)
    def test_full_disk(self, arguments: tuple[str, ...]) -> None:
        with open("/dev/full", "w") as full:
            done = run(*arguments, answer=payload(), capture_output=False, stdout=full, stderr=subprocess.PIPE)
        assert done.returncode == 2
        assert done.stderr == f"sessions.py: standard output: {os.strerror(errno.ENOSPC)}\n"

    @pytest.mark.skipif(sys.platform == "win32", reason="needs a pipe that does not block")
    def test_input_that_does_not_wait(self) -> None:
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        done = subprocess.run([sys.executable, sessions.__file__], stdin=reader, capture_output=True, timeout=60)
        os.close(reader)
        os.close(writer)
        assert done.returncode == 2
        assert done.stderr.startswith(b"sessions.py: standard input: cannot read '' as JSON: ")

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
    def test_error_that_cannot_be_told_still_sets_the_exit_status(self) -> None:
        with open("/dev/full", "w") as full:
            done = run(capture_output=False, stdout=subprocess.PIPE, stderr=full)
        assert (done.returncode, done.stdout) == (2, "")

    def test_closed_pipe(self) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        done = run(answer=payload(), capture_output=False, stdout=writer, stderr=subprocess.PIPE)
        os.close(writer)
        assert done.returncode == 2
        assert re.fullmatch("sessions.py: standard output: .+\n", done.stderr)


@needs_system
@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
class TestTerminal:
    WAITING = b"sessions.py: waiting for the answer to GET /gateway/bot on standard input\n"

    @pytest.fixture
    def terminal(self) -> Iterator[tuple[int, int]]:
        """Return a keyboard to write to and the standard input at its other end."""
        descriptors = os.openpty()
        yield descriptors
        for descriptor in descriptors:
            os.close(descriptor)

    def test_it_is_told_what_is_waited_for(self, terminal: tuple[int, int]) -> None:
        keyboard, stdin = terminal
        os.write(keyboard, json.dumps(payload()).encode() + b"\n\x04")
        done = subprocess.run([sys.executable, sessions.__file__], stdin=stdin, capture_output=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, self.WAITING)

    def test_error_is_told_after_the_wait(self, terminal: tuple[int, int]) -> None:
        keyboard, stdin = terminal
        os.write(keyboard, b"{\n\x04")
        done = subprocess.run([sys.executable, sessions.__file__], stdin=stdin, capture_output=True, timeout=60)
        assert done.stderr.startswith(self.WAITING + b"sessions.py: standard input: cannot read ")

    def test_nothing_is_waited_for_where_a_file_is_given(self, terminal: tuple[int, int]) -> None:
        done = subprocess.run(
            [sys.executable, sessions.__file__, os.devnull], stdin=terminal[1], capture_output=True, timeout=60
        )
        assert done.stderr.startswith(f"sessions.py: {os.devnull}: cannot read ".encode())

    def interrupted(self, terminal: tuple[int, int], inherited: Any) -> int:
        """Return the exit status of a command that gets Ctrl-C and then an answer, with SIGINT as it is *inherited*."""
        keyboard, stdin = terminal
        before = signal.signal(signal.SIGINT, inherited)
        try:
            process = subprocess.Popen(
                [sys.executable, sessions.__file__], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        finally:
            signal.signal(signal.SIGINT, before)
        with process:
            assert process.stderr
            process.stderr.readline()  # it waits from here on
            process.send_signal(signal.SIGINT)
            os.write(keyboard, json.dumps(payload()).encode() + b"\n\x04")
            assert b"Traceback" not in process.communicate(timeout=60)[1]
        return process.returncode

    def test_ctrl_c_ends_the_wait(self, terminal: tuple[int, int]) -> None:
        assert self.interrupted(terminal, signal.default_int_handler) == -signal.SIGINT

    def test_ctrl_c_is_not_for_a_background_job(self, terminal: tuple[int, int]) -> None:
        assert self.interrupted(terminal, signal.SIG_IGN) == 0


class TestModule:
    def test_public_names(self) -> None:
        public = {name for name, value in vars(sessions).items() if getattr(value, "__module__", "") == "sessions"}
        assert {name for name in public if name[0] != "_"} | {"IDENTIFY_INTERVAL"} == set(sessions.__all__)

    def test_first_line_is_the_licence(self) -> None:
        lines = pathlib.Path(sessions.__file__).read_text(encoding="utf-8").splitlines()
        assert lines[0] == "# SPDX-License-Identifier: MIT"

    def test_version_has_three_numbers(self) -> None:
        assert re.fullmatch(r"\d+\.\d+\.\d+", sessions.__version__)

    @pytest.mark.parametrize("entity", [SessionStartLimit, GatewayBotInfo])
    def test_annotations_of_methods_can_be_evaluated(self, entity: Any) -> None:
        for name, method in inspect.getmembers(entity, inspect.isroutine):
            assert name.startswith("_") or "return" in typing.get_type_hints(method)

    def test_libraries_can_read_the_types_of_a_limit(self) -> None:
        assert typing.get_type_hints(SessionStartLimit) == {
            "total": int,
            "remaining": int,
            "reset_after": datetime.timedelta,
            "max_concurrency": int,
            "created_at": datetime.datetime,
        }

    def test_libraries_can_read_the_types_of_an_info(self) -> None:
        hints = {"url": str, "shard_count": int, "session_start_limit": SessionStartLimit}
        assert typing.get_type_hints(GatewayBotInfo) == hints

    def test_asdict_takes_both_levels_apart(self) -> None:
        assert dataclasses.asdict(make_info()) == {**vars_of(make_info()), "session_start_limit": vars_of(make_limit())}

    def test_objects_match_by_keyword(self) -> None:
        match make_info():
            case GatewayBotInfo(shard_count=9, session_start_limit=SessionStartLimit(used=1, remaining=remaining)):
                assert remaining == 999
            case other:
                pytest.fail(f"{other} does not match")


@needs_system
class TestPlaces:
    ROOT = pathlib.Path(sessions.__file__).parent

    @pytest.fixture
    def vendored(self, tmp_path: pathlib.Path) -> pathlib.Path:
        """Return the directory of a package that has the module under another name."""
        package = tmp_path / "mybot" / "_vendor"
        package.mkdir(parents=True)
        (package / "discord_limits.py").write_bytes(pathlib.Path(sessions.__file__).read_bytes())
        return tmp_path

    def test_import_loads_only_what_dataclasses_and_datetime_load(self) -> None:
        code = (
            "import dataclasses, datetime, sys; before = set(sys.modules); import sessions;"
            "print(set(sys.modules) - before)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=self.ROOT, capture_output=True, check=True, timeout=60, text=True
        )
        assert done.stdout.strip() == "{'sessions'}"

    def test_vendored_copy_runs_as_a_module(self, vendored: pathlib.Path) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "mybot._vendor.discord_limits", "--version"],
            cwd=vendored,
            capture_output=True,
            check=True,
            timeout=60,
            text=True,
        )
        assert done.stdout.split() == ["discord_limits.py", sessions.__version__]

    def test_objects_of_a_vendored_copy_can_be_pickled(self, vendored: pathlib.Path) -> None:
        code = (
            "import pickle; from mybot._vendor.discord_limits import GatewayBotInfo;"
            f"info = GatewayBotInfo.from_payload({payload()}); print(pickle.loads(pickle.dumps(info)) == info)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=vendored, capture_output=True, check=True, timeout=60, text=True
        )
        assert done.stdout.strip() == "True"

    @pytest.mark.parametrize(
        "options", [["-OO"], ["-I"], ["-W", "error"], ["-X", "warn_default_encoding", "-W", "error"]], ids=" ".join
    )
    def test_command_runs_under_the_options_of_the_interpreter(self, options: list[str]) -> None:
        command = [sys.executable, *options, sessions.__file__]
        done = subprocess.run(command, input=json.dumps(payload()).encode(), capture_output=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, b"")

    def test_checks_stay_where_assertions_are_stripped(self) -> None:
        code = "import sessions; sessions.SessionStartLimit.from_payload({'total': -1})"
        done = subprocess.run([sys.executable, "-OO", "-c", code], cwd=self.ROOT, capture_output=True, timeout=60)
        assert b"PayloadError: " in done.stderr

    def test_spawned_worker_gets_and_returns_all(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as workers:
            info = workers.submit(dataclasses.replace, make_info(), shard_count=5).result(timeout=60)
        assert (info, info.session_start_limit.created_at) == (make_info(shard_count=5), READ_AT)


README = pathlib.Path(sessions.__file__).with_name("README.md")


def recipe(name: str) -> Any:
    """Return the function *name* of the README."""
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    (source,) = (block for block in blocks if f"def {name}(" in block)
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    return namespace[name]


class Discord(http.server.BaseHTTPRequestHandler):
    """Answers as Discord does."""

    answers: typing.ClassVar = {"/api/v10/gateway/bot": payload()}

    def do_GET(self) -> None:
        if not self.headers["User-Agent"].startswith("DiscordBot ("):
            self.answer(403, "error code: 1010", "text/plain")
        elif self.headers["Authorization"] != "Bot secret":
            self.answer(401, {"message": "401: Unauthorized", "code": 0})
        elif self.path not in self.answers:
            self.answer(404, {"message": "404: Not Found", "code": 0})
        else:
            self.answer(200, self.answers[self.path])

    def answer(self, status: int, body: object, content_type: str = "application/json") -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def discord_url() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Discord) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/api/v10/gateway/bot"
        server.shutdown()
        thread.join()


@needs_system
@pytest.mark.skipif(not README.exists(), reason="needs the README beside the module")
class TestRecipes:
    def test_fetch_returns_the_answer(self, discord_url: str) -> None:
        assert recipe("fetch")("secret", discord_url).to_payload() == payload()

    def test_fetch_takes_a_token_with_its_line_end(self, discord_url: str) -> None:
        assert recipe("fetch")("secret\n", discord_url).to_payload() == payload()

    def test_fetch_passes_on_why_discord_refuses(self, discord_url: str) -> None:
        with pytest.raises(ValueError, match=r"; the answer says '401: Unauthorized'$"):
            recipe("fetch")("wrong", discord_url)

    def test_fetch_raises_what_a_proxy_refuses(self, discord_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Discord, "do_GET", lambda handler: handler.answer(502, "Bad Gateway", "text/html"))
        with pytest.raises(urllib.error.HTTPError, match="502") as caught:
            recipe("fetch")("secret", discord_url)
        caught.value.close()

    def started(self, monkeypatch: pytest.MonkeyPatch, shard_ids: Any = None, fails: int = -1) -> tuple[Any, list[Any]]:
        """Return what start() returns, and the ids in the order in which it starts them with the seconds it waits."""
        info = make_info(shard_count=5, session_start_limit=make_limit(max_concurrency=2))
        events: list[Any] = []

        async def log(event: Any) -> None:
            events.append(event)
            if event == fails:
                raise OSError

        monkeypatch.setattr(asyncio, "sleep", log)
        return asyncio.run(recipe("start")(info, log, shard_ids)), events

    def test_start_waits_before_each_bucket(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.started(monkeypatch) == ([], [5.0, 0, 1, 5.0, 2, 3, 5.0, 4])

    def test_start_takes_a_share(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.started(monkeypatch, [4, 3, 0]) == ([], [5.0, 0, 3, 5.0, 4])

    def test_start_goes_on_after_a_failure_and_returns_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.started(monkeypatch, fails=2) == ([2], [5.0, 0, 1, 5.0, 2, 3, 5.0, 4])

    @pytest.mark.parametrize("processes", [1, 2, 3, 16])
    def test_shares_are_all_shards_and_have_no_key_in_common(self, processes: int) -> None:
        info = make_info(shard_count=48, session_start_limit=make_limit(max_concurrency=16))
        shares = [recipe("share")(info, process, processes) for process in range(processes)]
        keys = [{shard_id % 16 for shard_id in share} for share in shares]
        assert sorted(itertools.chain(*shares)) == list(range(48))
        assert sorted(itertools.chain(*keys)) == list(range(16))
