# test_sessions.py 1.5.0: the specification of sessions.py; it needs pytest alone
# SPDX-FileCopyrightText: 2026 the sessions authors
# SPDX-License-Identifier: MIT-0
"""What sessions.py promises, in the order in which its users need it."""

import collections
import copy
import dataclasses
import datetime
import doctest
import enum
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

import pytest

import sessions
from sessions import GatewayBotInfo, PayloadError, SessionStartLimit

UTC = datetime.timezone.utc
HOUR = datetime.timedelta(hours=1)
MICROSECOND = datetime.timedelta.resolution
NEW_YORK = datetime.timezone(-5 * HOUR)
READ_AT = datetime.datetime(2026, 11, 22, 18, 47, 11, 250_001, tzinfo=UTC)
NAIVE = READ_AT.replace(tzinfo=None)
INT32_MAX = 2**31 - 1
LONGEST = datetime.timedelta(milliseconds=INT32_MAX)
FILE = pathlib.Path(sessions.__file__)

LIMIT = {"total": 1000, "remaining": 999, "reset_after": 14_400_000, "max_concurrency": 1}
ANSWER = {"url": "wss://gateway.discord.gg/", "shards": 9, "session_start_limit": LIMIT}

entities = pytest.mark.parametrize(
    ("entity", "payload"),
    [(SessionStartLimit, LIMIT), (GatewayBotInfo, ANSWER)],
    ids=["limit", "info"],
)


def make_answer(**limit_changes):
    return {**ANSWER, "session_start_limit": {**LIMIT, **limit_changes}}


def without(key, mapping):
    return {name: value for name, value in mapping.items() if name != key}


def make_limit(**changes):
    fields = dict(total=1000, remaining=999, reset_after=4 * HOUR, max_concurrency=1)
    return SessionStartLimit(**{**fields, "created_at": READ_AT, **changes})


def make_info(**changes):
    fields = dict(url="wss://gateway.discord.gg/", shard_count=9, session_start_limit=make_limit())
    return GatewayBotInfo(**{**fields, **changes})


def get_limit(limit_or_info):
    return getattr(limit_or_info, "session_start_limit", limit_or_info)


def invalid(name, value, expected=".+"):
    """Return a pattern for the message about an invalid value."""
    return f"^{re.escape(name)}: expected {expected}, got {re.escape(repr(value))}$"


def integer(minimum, maximum=INT32_MAX):
    """Return what is expected of a count."""
    return f"an integer from {minimum} to {maximum}"


def missing(path, more=""):
    """Return a pattern for the message about a missing key."""
    return f"^{re.escape(path)}: missing{re.escape(more)}$"


def payload_error(payload, entity=GatewayBotInfo):
    """Return the PayloadError that reading *payload* raises."""
    with pytest.raises(PayloadError) as caught:
        entity.from_payload(payload)
    return caught.value


class StoppedClock(datetime.datetime):
    """The current time is READ_AT, in a local time zone that is not UTC."""

    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(READ_AT.timestamp(), tz or NEW_YORK).replace(tzinfo=tz)

    def astimezone(self, tz=None):
        return super().astimezone(tz or NEW_YORK)


class ForgetfulDatetime(datetime.datetime):
    """A datetime like pendulum's: it stays one in UTC, and its sums lose the time zone."""

    def astimezone(self, tz=None):
        return type(self).combine(*split(super().astimezone(tz)))

    def __add__(self, other):
        return super().__add__(other).replace(tzinfo=None)


def split(moment):
    return moment.date(), moment.timetz()


class FloatingTime(datetime.tzinfo):
    """A time zone without an offset."""

    def utcoffset(self, moment):
        return None

    def __repr__(self):
        return "FloatingTime()"


class TestReading:
    def test_answer_is_read_into_every_field(self):
        counts = dict(total=2000, remaining=5, max_concurrency=16)
        limit = make_limit(**counts, reset_after=HOUR)
        answer = {**make_answer(**counts, reset_after=3_600_000), "url": "ws://host", "shards": 48}
        info = make_info(url="ws://host", shard_count=48, session_start_limit=limit)
        assert GatewayBotInfo.from_payload(answer) == info

    @pytest.mark.parametrize(
        ("milliseconds", "expected"),
        [(0, "0:00:00"), (14_400_001, "4:00:00.001000"), (INT32_MAX, "24 days, 20:31:23.647000")],
    )
    def test_reset_after_keeps_milliseconds(self, milliseconds, expected):
        limit = SessionStartLimit.from_payload({**LIMIT, "reset_after": milliseconds})
        assert str(limit.reset_after) == expected

    @pytest.mark.parametrize(
        "payload",
        [{**LIMIT, "max_concurrency": 0}, without("max_concurrency", LIMIT)],
        ids=["zero", "absent"],
    )
    def test_zero_or_absent_max_concurrency_is_one(self, payload):
        assert SessionStartLimit.from_payload(payload).max_concurrency == 1

    def test_unknown_keys_are_ignored(self):
        answer = {**make_answer(new=[1]), "new": {"deep": 1}, "message": "no", "retry_after": 1}
        assert GatewayBotInfo.from_payload(answer) == make_info()

    def test_any_mapping_is_read(self):
        answer = {**ANSWER, "session_start_limit": types.MappingProxyType(LIMIT)}
        assert GatewayBotInfo.from_payload(types.MappingProxyType(answer)) == make_info()

    @entities
    def test_created_at_is_now_by_default(self, entity, payload, monkeypatch):
        monkeypatch.setattr(datetime, "datetime", StoppedClock)
        created_at = get_limit(entity.from_payload(payload)).created_at
        assert (created_at, created_at.tzinfo) == (READ_AT, UTC)

    @entities
    def test_created_at_is_kept_if_given(self, entity, payload):
        instance = entity.from_payload(payload, created_at=READ_AT.astimezone(NEW_YORK))
        assert get_limit(instance).created_at == READ_AT

    @entities
    @pytest.mark.parametrize(
        ("value", "error"), [(0, TypeError), (NAIVE, ValueError)], ids=["int", "naive"]
    )
    def test_invalid_created_at_is_not_a_payload_error(self, entity, payload, value, error):
        with pytest.raises(error, match=invalid("created_at", value)) as caught:
            entity.from_payload(payload, created_at=value)
        assert caught.type is error


class Row:
    """A row like sqlite3.Row, which is not a mapping."""

    def keys(self):
        return list(LIMIT)

    def __getitem__(self, key):
        return LIMIT[key]

    def __repr__(self):
        return "Row()"


class ClosedRow(Row):
    """A row whose database is closed."""

    def __getitem__(self, key):
        raise RuntimeError(f"cannot read {key}")


class TestInvalidPayloads:
    @pytest.mark.parametrize(
        "value", [None, [], "{}", 5, Row(), ClosedRow()], ids=lambda value: type(value).__name__
    )
    def test_non_mapping_is_reported(self, value):
        answers = {
            "payload": value,
            "session_start_limit": {**ANSWER, "session_start_limit": value},
        }
        for path, answer in answers.items():
            assert re.match(invalid(path, value, "a mapping"), str(payload_error(answer)))

    @pytest.mark.parametrize("shards", [9, 0])
    @pytest.mark.parametrize("key", ANSWER)
    def test_missing_key_is_reported_before_invalid_values(self, key, shards):
        answer = without(key, {**ANSWER, "shards": shards})
        assert re.match(missing(f"payload.{key}"), str(payload_error(answer)))

    @pytest.mark.parametrize("remaining", [999, -1])
    @pytest.mark.parametrize("key", ["total", "remaining", "reset_after"])
    def test_missing_key_of_the_limit_is_reported(self, key, remaining):
        answer = {**ANSWER, "session_start_limit": without(key, {**LIMIT, "remaining": remaining})}
        assert re.match(missing(f"session_start_limit.{key}"), str(payload_error(answer)))

    @pytest.mark.parametrize("raised", [KeyError(), KeyError(b"shards")], ids=["bare", "bytes"])
    def test_missing_key_is_reported_for_any_key_error(self, raised):
        class Shelf(collections.UserDict):
            def __missing__(self, key):
                raise raised

        error = payload_error(Shelf(without("shards", ANSWER)))
        assert re.match(missing("payload.shards"), str(error))

    @pytest.mark.parametrize("key", LIMIT)
    @pytest.mark.parametrize("value", [-1, 2**31, True, None, 5.0, "5"], ids=repr)
    def test_invalid_count_is_reported_with_its_path(self, key, value):
        error = payload_error(make_answer(**{key: value}))
        assert re.match(invalid(f"session_start_limit.{key}", value, integer(0)), str(error))

    @pytest.mark.parametrize("value", [0, None], ids=repr)
    def test_invalid_number_of_shards_is_reported(self, value):
        error = payload_error({**ANSWER, "shards": value, "message": "no", "retry_after": 5})
        assert re.match(invalid("payload.shards", value, integer(1)), str(error))
        assert error.retry_after is None

    @pytest.mark.parametrize("value", ["https://h", None], ids=repr)
    def test_invalid_url_is_reported(self, value):
        expected = "a printable ws:// or wss:// URL with a host and without spaces"
        error = payload_error({**ANSWER, "url": value})
        assert re.match(invalid("payload.url", value, expected), str(error))

    @pytest.mark.parametrize("limit", [[], {}, {**LIMIT, "total": -1}], ids=["list", "empty", "-1"])
    def test_limit_alone_raises_the_same_error(self, limit):
        error = payload_error({**ANSWER, "session_start_limit": limit})
        assert str(payload_error(limit, SessionStartLimit)) == str(error)

    def test_value_of_80_characters_is_shown_whole(self):
        assert str(payload_error("x" * 78)).endswith(f" got {'x' * 78!r}")

    @pytest.mark.parametrize("value", ["x" * 79, [["x" * 99] * 9] * 9], ids=["text", "nested"])
    def test_longer_value_is_cut_to_80_characters(self, value):
        _, shown = str(payload_error(value)).split(" got ")
        assert shown == f"{repr(value)[:77]}..."

    @pytest.mark.parametrize("value", ["\x1b\n\u202e\ud800", [{"\x1b": ["\x9b\n"]}]], ids=ascii)
    def test_message_is_printable(self, value):
        for answer in (value, {**ANSWER, "url": value}, make_answer(total=value)):
            assert str(payload_error(answer)).isprintable()

    @entities
    @pytest.mark.parametrize("payload_value", [[], {}, {"message": "no"}], ids=repr)
    def test_error_has_a_single_traceback(self, entity, payload, payload_value):
        lines = traceback.format_exception(payload_error(payload_value, entity))
        assert "".join(lines).count("Traceback") == 1


RATE_LIMITED = {"message": "You are being rate limited.", "retry_after": 82721, "global": False}

# The longest message of Discord that has been reported, in discord-api-docs issue 5810.
BLOCKED = (
    "You are being blocked from accessing our API temporarily due to exceeding our rate limits "
    "frequently. Please read our docs at https://discord.com/developers/docs/topics/rate-limits "
    "to prevent this moving forward."
)


class TestErrorsOfDiscord:
    @pytest.mark.parametrize("message", ["401: Unauthorized", BLOCKED], ids=["short", "long"])
    def test_message_is_reported_whole(self, message):
        error = payload_error({"message": message, "code": 0, "url": "wss://host"})
        more = f"; the answer says {message!r}"
        assert re.match(missing("payload.session_start_limit", more), str(error))

    def test_longer_message_is_cut_to_300_characters(self):
        _, shown = str(payload_error({"message": "\x1b" * 301})).split("; the answer says ")
        assert (len(shown), shown.isprintable()) == (300, True)

    def test_message_that_is_not_text_is_ignored(self):
        error = payload_error({"message": ["no"]})
        assert re.match(missing("payload.session_start_limit"), str(error))

    @entities
    @pytest.mark.parametrize("seconds", [0, 64.57, 82721], ids=repr)
    def test_retry_after_is_a_timedelta(self, entity, payload, seconds):
        error = payload_error({"retry_after": seconds}, entity)
        assert error.retry_after == datetime.timedelta(seconds=seconds)

    @pytest.mark.parametrize("seconds", [-1, None, "5", float("nan"), 1e9], ids=repr)
    def test_invalid_retry_after_is_ignored(self, seconds):
        error = payload_error({"retry_after": seconds})
        assert error.retry_after is None
        assert re.match(missing("payload.session_start_limit"), str(error))

    @pytest.mark.parametrize(
        ("seconds", "shown"),
        [
            (82721, "22:58:41"),
            (64.57, "0:01:05"),
            (0.001, "0:00:01"),
            (999_999_999, "11574 days, 1:46:39"),
        ],
    )
    def test_message_rounds_retry_after_up_to_seconds(self, seconds, shown):
        error = payload_error({"message": "no", "retry_after": seconds})
        more = f"; the answer says 'no'; ask again in {shown}"
        assert re.match(missing("payload.session_start_limit", more), str(error))

    def test_retry_after_belongs_to_one_error(self):
        first, second = payload_error(RATE_LIMITED), payload_error({})
        assert first.retry_after == datetime.timedelta(seconds=82721)
        assert second.retry_after is None
        assert PayloadError("no").retry_after is None

    @pytest.mark.parametrize(
        "duplicate",
        [copy.copy, lambda error: pickle.loads(pickle.dumps(error))],
        ids=["copy", "pickle"],
    )
    def test_copied_error_keeps_message_and_retry_after(self, duplicate):
        error = payload_error(RATE_LIMITED)
        duplicated = duplicate(error)
        assert type(duplicated) is PayloadError
        assert (str(duplicated), duplicated.retry_after) == (str(error), error.retry_after)

    def test_payload_error_is_a_value_error(self):
        assert isinstance(payload_error({}), ValueError)


class Urls(str, enum.Enum):
    DISCORD = "wss://gateway.discord.gg/"


class OtherTimedelta(datetime.timedelta):
    """A subclass, which may divide in its own way."""


COUNTS = {
    "total": (make_limit, 0),
    "remaining": (make_limit, 0),
    "max_concurrency": (make_limit, 1),
    "shard_count": (make_info, 1),
}
counts = pytest.mark.parametrize(
    ("name", "make", "minimum"), [(name, *rest) for name, rest in COUNTS.items()], ids=COUNTS
)


class TestConstruction:
    @entities
    def test_arguments_are_keyword_only(self, entity, payload):
        fields = dataclasses.astuple(make_limit())[: len(dataclasses.fields(entity))]
        with pytest.raises(TypeError, match="positional argument"):
            entity(*fields)

    @entities
    def test_every_field_but_created_at_is_required(self, entity, payload):
        with pytest.raises(TypeError, match=f"missing {len(payload)} required"):
            entity()

    @counts
    def test_lowest_and_highest_counts_are_accepted(self, name, make, minimum):
        for value in (minimum, INT32_MAX):
            assert getattr(make(**{name: value}), name) == value

    @counts
    def test_count_out_of_range_raises_value_error(self, name, make, minimum):
        for value in (minimum - 1, 2**31):
            with pytest.raises(ValueError, match=invalid(name, value, integer(minimum))):
                make(**{name: value})

    @counts
    @pytest.mark.parametrize("value", [1.0, "1", True, None, http.HTTPStatus.OK], ids=repr)
    def test_count_of_a_wrong_type_raises_type_error(self, name, make, minimum, value):
        with pytest.raises(TypeError, match=invalid(name, value)):
            make(**{name: value})

    @pytest.mark.parametrize("value", [0 * HOUR, LONGEST], ids=str)
    def test_shortest_and_longest_reset_after_are_accepted(self, value):
        assert make_limit(reset_after=value).reset_after == value

    @pytest.mark.parametrize(
        ("value", "error"),
        [
            (-MICROSECOND, ValueError),
            (LONGEST + MICROSECOND, ValueError),
            (datetime.timedelta(seconds=LIMIT["reset_after"]), ValueError),
            (14_400_000, TypeError),
            (OtherTimedelta(1), TypeError),
        ],
        ids=["negative", "too long", "milliseconds as seconds", "int", "subclass"],
    )
    def test_invalid_reset_after_is_rejected(self, value, error):
        expected = "a timedelta from 0:00:00 to 24 days, 20:31:23.647000"
        with pytest.raises(error, match=invalid("reset_after", value, expected)):
            make_limit(reset_after=value)

    def test_created_at_is_now_by_default(self, monkeypatch):
        monkeypatch.setattr(datetime, "datetime", StoppedClock)
        limit = SessionStartLimit(total=1, remaining=1, reset_after=HOUR, max_concurrency=1)
        assert (limit.created_at, limit.created_at.tzinfo) == (READ_AT, UTC)

    @pytest.mark.parametrize(
        ("value", "error"),
        [
            (None, TypeError),
            ("2026-11-22", TypeError),
            (READ_AT.date(), TypeError),
            (NAIVE, ValueError),
            (READ_AT.replace(tzinfo=FloatingTime()), ValueError),
        ],
        ids=["None", "text", "date", "naive", "no offset"],
    )
    def test_invalid_created_at_is_rejected(self, value, error):
        with pytest.raises(error, match=invalid("created_at", value, "an aware datetime")):
            make_limit(created_at=value)

    @pytest.mark.parametrize("zone", [UTC, NEW_YORK, datetime.timezone(0 * HOUR, "GMT")], ids=str)
    @pytest.mark.parametrize("cls", [datetime.datetime, ForgetfulDatetime])
    def test_created_at_becomes_a_plain_datetime_in_utc(self, cls, zone):
        limit = make_limit(created_at=cls.combine(*split(READ_AT.astimezone(zone))))
        for moment in (limit.created_at, limit.reset_at - 4 * HOUR):
            assert type(moment) is datetime.datetime
            assert moment == READ_AT
            assert moment.tzinfo is UTC

    @pytest.mark.parametrize("year", [1, 9999])
    def test_created_at_may_be_past_or_future(self, year):
        moment = READ_AT.replace(year=year)
        assert make_limit(created_at=moment).created_at == moment

    @pytest.mark.parametrize(
        "url",
        [
            "wss://h",
            "wss://h?v=10",
            "ws://host:80/?v=10",
            "wss://[::1]/",
            "wss://бот.рф",
            Urls.DISCORD,
        ],
        ids=ascii,
    )
    def test_websocket_url_is_accepted(self, url):
        assert make_info(url=url).url == url

    @pytest.mark.parametrize(
        "url",
        [
            *("", "h", "http://h", "https://h", "wsx://h", "WSS://h", "wss:/h", " wss://h"),
            *("wss://", "wss:// ", "wss:///", "wss://?q", "wss://#f", "wss://:443/"),
            *("wss://h\n", "wss://h/ b", "wss://h\x1b", "wss://h\u202e"),
        ],
        ids=ascii,
    )
    def test_other_url_raises_value_error(self, url):
        with pytest.raises(ValueError, match=invalid("url", url)):
            make_info(url=url)

    @pytest.mark.parametrize("url", [b"wss://h", None], ids=repr)
    def test_url_of_a_wrong_type_raises_type_error(self, url):
        with pytest.raises(TypeError, match=invalid("url", url)):
            make_info(url=url)

    @pytest.mark.parametrize("value", [{}, None], ids=repr)
    def test_limit_of_a_wrong_type_raises_type_error(self, value):
        expected = "a SessionStartLimit"
        with pytest.raises(TypeError, match=invalid("session_start_limit", value, expected)):
            make_info(session_start_limit=value)


class NamedInfo(GatewayBotInfo):
    """A subclass that is not a dataclass."""

    def __init__(self, name):
        super().__init__(url=f"wss://{name}", shard_count=1, session_start_limit=make_limit())
        self.name = name


NAMES = {
    "total": make_limit(),
    "created_at": make_limit(),
    "remainig": make_limit(),
    "used": make_limit(),
    "url": make_info(),
    "_created_at": make_info(),
    "buckets": make_info(),
    "shard_count": NamedInfo("host"),
}
attributes = pytest.mark.parametrize(("name", "instance"), NAMES.items(), ids=NAMES)


class TestImmutability:
    @attributes
    def test_setting_an_attribute_raises(self, name, instance):
        with pytest.raises(dataclasses.FrozenInstanceError, match=f"assign to field '{name}'"):
            setattr(instance, name, 5)

    @attributes
    def test_deleting_an_attribute_raises(self, name, instance):
        with pytest.raises(dataclasses.FrozenInstanceError, match=f"delete field '{name}'"):
            delattr(instance, name)

    def test_plain_subclass_may_set_other_attributes(self):
        info = NamedInfo("host")
        info.name += "s"
        assert info.name == "hosts"


class TestQueries:
    @pytest.mark.parametrize(("total", "remaining", "used"), [(1000, 990, 10), (1, 3, -2)])
    def test_used_is_total_minus_remaining(self, total, remaining, used):
        assert make_limit(total=total, remaining=remaining).used == used

    @pytest.mark.parametrize("reset_after", [0 * HOUR, HOUR], ids=str)
    def test_reset_at_is_created_at_plus_reset_after(self, reset_after):
        reset_at = make_limit(reset_after=reset_after).reset_at
        assert (reset_at, reset_at.tzinfo) == (READ_AT + reset_after, UTC)

    @pytest.mark.parametrize(("sessions", "expected"), [(0, True), (5, True), (6, False)])
    @pytest.mark.parametrize("reset_after", [0 * HOUR, HOUR], ids=str)
    @pytest.mark.parametrize("total", [0, 1000])
    def test_can_start_compares_with_remaining(self, sessions, expected, reset_after, total):
        limit = make_limit(remaining=5, total=total, reset_after=reset_after)
        assert limit.can_start(sessions) is expected

    def test_past_reset_changes_nothing(self):
        created_at = datetime.datetime(2020, 1, 1, tzinfo=UTC)
        limit = make_limit(remaining=5, created_at=created_at)
        assert (limit.can_start(6), limit.used) == (False, 995)
        assert limit.reset_at == created_at + 4 * HOUR

    @pytest.mark.parametrize(("shard_id", "key"), [(0, 0), (15, 15), (16, 0), (35, 3)])
    def test_rate_limit_key_is_the_remainder(self, shard_id, key):
        assert make_limit(max_concurrency=16).rate_limit_key(shard_id) == key

    @pytest.mark.parametrize(
        ("method", "name"), [("can_start", "sessions"), ("rate_limit_key", "shard_id")]
    )
    @pytest.mark.parametrize(
        ("value", "error"), [(-1, ValueError), (True, TypeError), (None, TypeError)], ids=repr
    )
    def test_invalid_argument_is_rejected(self, method, name, value, error):
        with pytest.raises(error, match=invalid(name, value)):
            getattr(make_limit(), method)(**{name: value})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TaggedLimit(SessionStartLimit):
    """A subclass that cannot be hashed."""

    tags: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TaggedInfo(GatewayBotInfo):
    """A subclass with slots and a check of its own."""

    tags: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self):
        GatewayBotInfo.__post_init__(self)
        if not isinstance(self.tags, list):
            raise TypeError("tags: expected a list")


INSTANCES = {
    "limit": make_limit(),
    "info": make_info(),
    "tagged limit": TaggedLimit.from_payload(LIMIT, created_at=READ_AT).copy(tags=["a"]),
    "tagged info": TaggedInfo.from_payload(ANSWER, created_at=READ_AT).copy(tags=["a"]),
}
instances = pytest.mark.parametrize("instance", INSTANCES.values(), ids=INSTANCES)

REPLACE = {
    "method": lambda instance, **changes: instance.copy(**changes),
    "dataclasses.replace": dataclasses.replace,
}
if sys.version_info >= (3, 13):
    REPLACE["copy.replace"] = copy.replace
replacements = pytest.mark.parametrize("replace", REPLACE.values(), ids=REPLACE)
DUPLICATES = {
    **REPLACE,
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "pickle": lambda instance: pickle.loads(pickle.dumps(instance)),
}


class TestCopies:
    @instances
    @pytest.mark.parametrize("duplicate", DUPLICATES.values(), ids=DUPLICATES)
    def test_copy_is_another_object_with_the_same_fields(self, instance, duplicate):
        copied = duplicate(instance)
        assert copied is not instance
        assert repr(copied) == repr(instance)

    @replacements
    @pytest.mark.parametrize(
        ("make", "changes"),
        [
            (make_limit, {"total": 6}),
            (make_limit, {"remaining": 6}),
            (make_limit, {"reset_after": HOUR}),
            (make_info, {"url": "ws://h"}),
        ],
    )
    def test_change_replaces_one_field(self, replace, make, changes):
        assert repr(replace(make(), **changes)) == repr(make(**changes))

    @replacements
    def test_change_of_created_at_moves_the_reset(self, replace):
        limit = replace(make_limit(), created_at=READ_AT + HOUR)
        assert limit.reset_at == READ_AT + 5 * HOUR

    @replacements
    @instances
    def test_unchanged_fields_are_the_same_objects(self, replace, instance):
        copied = replace(instance)
        for field in dataclasses.fields(instance):
            assert getattr(copied, field.name) is getattr(instance, field.name)

    @replacements
    @pytest.mark.parametrize(
        ("instance", "name", "value", "error"),
        [
            (make_limit(), "remaining", -1, ValueError),
            (make_limit(), "remaining", True, TypeError),
            (make_limit(), "created_at", NAIVE, ValueError),
            (make_limit(), "created_at", None, TypeError),
            (make_info(), "shard_count", 0, ValueError),
            (INSTANCES["tagged info"], "url", None, TypeError),
        ],
    )
    def test_invalid_change_is_rejected(self, replace, instance, name, value, error):
        with pytest.raises(error, match=invalid(name, value)):
            replace(instance, **{name: value})

    @instances
    def test_unknown_field_raises_type_error(self, instance):
        with pytest.raises(TypeError, match="unexpected keyword argument 'remainig'"):
            instance.copy(remainig=5)


def fail():
    raise KeyError("tag")


class TestSubclasses:
    @pytest.mark.parametrize(("cls", "payload"), [(TaggedLimit, LIMIT), (TaggedInfo, ANSWER)])
    @pytest.mark.parametrize("created_at", [None, READ_AT], ids=["now", "given"])
    def test_from_payload_returns_the_subclass(self, cls, payload, created_at):
        instance = cls.from_payload(payload, created_at=created_at)
        assert type(instance) is cls
        assert instance.to_payload() == payload

    def test_post_init_of_a_subclass_checks_its_fields(self):
        with pytest.raises(TypeError, match="tags: expected a list"):
            INSTANCES["tagged info"].copy(tags=None)

    def test_info_keeps_the_subclass_of_its_limit(self):
        limit = INSTANCES["tagged limit"]
        assert make_info(session_start_limit=limit).session_start_limit is limit

    @entities
    @pytest.mark.parametrize(
        ("default", "error", "message"),
        [
            (dataclasses.MISSING, TypeError, "required keyword-only argument: 'tag'"),
            (fail, KeyError, "'tag'"),
        ],
        ids=["required", "failing"],
    )
    def test_error_of_a_subclass_is_not_a_payload_error(
        self, entity, payload, default, error, message
    ):
        fields = [("tag", str, dataclasses.field(default_factory=default))]
        cls = dataclasses.make_dataclass("Sub", fields, bases=(entity,), frozen=True, kw_only=True)
        with pytest.raises(error, match=message):
            cls.from_payload(payload)


class TestEquality:
    @entities
    def test_created_at_does_not_change_equality_or_hash(self, entity, payload):
        first = entity.from_payload(payload, created_at=READ_AT)
        second = entity.from_payload(payload, created_at=READ_AT + HOUR)
        assert first == second
        assert hash(first) == hash(second)

    @pytest.mark.parametrize(
        ("make", "change"),
        [
            (make_limit, {"total": 5}),
            (make_limit, {"remaining": 5}),
            (make_limit, {"reset_after": HOUR}),
            (make_limit, {"max_concurrency": 5}),
            (make_info, {"url": "ws://h"}),
            (make_info, {"shard_count": 1}),
            (make_info, {"session_start_limit": make_limit(remaining=5)}),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_any_other_field_changes_equality(self, make, change):
        assert make() != make(**change)

    @instances
    def test_instances_cannot_be_ordered(self, instance):
        with pytest.raises(TypeError, match="not supported"):
            sorted([instance, instance])

    @instances
    def test_repr_shows_every_field(self, instance):
        for field in dataclasses.fields(instance):
            assert f"{field.name}={getattr(instance, field.name)!r}" in repr(instance)


class TestWriting:
    @pytest.mark.parametrize("milliseconds", [0, 16_100, INT32_MAX])
    def test_read_answer_is_written_back(self, milliseconds):
        limit = dict(total=1, remaining=2, reset_after=milliseconds, max_concurrency=16)
        answer = {"url": "ws://h", "shards": 5, "session_start_limit": limit}
        assert json.dumps(GatewayBotInfo.from_payload(answer).to_payload()) == json.dumps(answer)

    @pytest.mark.parametrize(
        ("reset_after", "milliseconds"),
        [(datetime.timedelta(microseconds=1001), 2), (LONGEST - MICROSECOND, INT32_MAX)],
        ids=str,
    )
    def test_reset_after_is_rounded_up_to_milliseconds(self, reset_after, milliseconds):
        assert make_limit(reset_after=reset_after).to_payload()["reset_after"] == milliseconds

    def test_url_of_an_enum_is_written_as_text(self):
        text = json.dumps(make_info(url=Urls.DISCORD).to_payload())
        assert text == json.dumps(make_info().to_payload())

    @pytest.mark.parametrize("instance", [make_limit(), make_info()], ids=["limit", "info"])
    def test_result_belongs_to_the_caller(self, instance):
        instance.to_payload().clear()
        assert instance.to_payload()

    def test_stored_answer_keeps_its_reset(self):
        text = json.dumps(make_info().to_payload())
        restored = GatewayBotInfo.from_payload(json.loads(text), created_at=READ_AT)
        assert restored.session_start_limit.reset_at == READ_AT + 4 * HOUR


def make_buckets(shard_count, max_concurrency, *shard_ids):
    # The order does not depend on the sessions that are left or on the window.
    limit = make_limit(max_concurrency=max_concurrency, remaining=0, reset_after=0 * HOUR)
    return make_info(shard_count=shard_count, session_start_limit=limit).buckets(*shard_ids)


class TestBuckets:
    @pytest.mark.parametrize(
        ("shards", "concurrency", "expected"),
        [
            (3, 1, [(0,), (1,), (2,)]),
            (3, 16, [(0, 1, 2)]),
            (5, 2, [(0, 1), (2, 3), (4,)]),
            (32, 16, [tuple(range(16)), tuple(range(16, 32))]),
        ],
    )
    def test_all_shards_start_with_their_neighbours(self, shards, concurrency, expected):
        assert make_buckets(shards, concurrency) == expected

    @pytest.mark.parametrize(
        ("shard_ids", "expected"),
        [
            ([0, 16, 32], [(0,), (16,), (32,)]),
            ([3, 8, 9, 20], [(3, 8, 9, 20)]),
            (iter([35, 20, 4, 3]), [(3, 4), (20, 35)]),
            ([1, 1, 1], [(1,)]),
            ([], []),
        ],
        ids=["one key", "different keys", "any order", "repeated", "none"],
    )
    def test_chosen_shards_start_by_key(self, shard_ids, expected):
        assert make_buckets(48, 16, shard_ids) == expected

    @pytest.mark.parametrize("max_concurrency", range(1, 6))
    def test_every_choice_needs_as_few_buckets_as_possible(self, max_concurrency):
        for size in range(8):
            for shard_ids in itertools.combinations(range(7), size):
                buckets = make_buckets(7, max_concurrency, shard_ids)
                by_key = collections.defaultdict(list)
                for number, bucket in enumerate(buckets):
                    assert list(bucket) == sorted(bucket)
                    for shard_id in bucket:
                        by_key[shard_id % max_concurrency].append((shard_id, number))
                assert sorted(itertools.chain(*buckets)) == list(shard_ids)
                for started in by_key.values():
                    ids, numbers = zip(*started, strict=True)
                    assert list(ids) == sorted(ids)
                    assert list(numbers) == list(range(len(numbers)))
                assert len(buckets) == max(map(len, by_key.values()), default=0)

    @pytest.mark.parametrize(
        ("shard_ids", "value", "error"),
        [
            ([0, -1], -1, ValueError),
            (range(8, 10), 9, ValueError),
            ([1, True], True, TypeError),
            ([0, "4", 8], "4", TypeError),
            ([0, [4]], [4], TypeError),
            ([0, None], None, TypeError),
        ],
        ids=["negative", "too high", "bool", "text", "list", "None"],
    )
    def test_invalid_id_is_rejected(self, shard_ids, value, error):
        with pytest.raises(error, match=invalid("shard_id", value, integer(0, 8))):
            make_buckets(9, 1, shard_ids)

    @pytest.mark.parametrize("shard_ids", [None, [1, 0]], ids=str)
    def test_result_belongs_to_the_caller(self, shard_ids):
        info = make_info(shard_count=2)
        info.buckets(shard_ids=shard_ids).clear()
        assert info.buckets(shard_ids=shard_ids) == [(0,), (1,)]
        assert shard_ids in (None, [1, 0])


class TestCommand:
    @pytest.fixture
    def run(self, monkeypatch, capsys):
        """Return a function that runs the file as a script: its status, output and errors."""

        def run(*arguments):
            monkeypatch.setattr(sys, "argv", ["sessions.py", *arguments])
            monkeypatch.setenv("COLUMNS", "200")
            monkeypatch.setenv("NO_COLOR", "1")
            with pytest.raises(SystemExit) as caught:
                runpy.run_path(str(FILE), run_name="__main__")
            return caught.value.code, *capsys.readouterr()

        return run

    @pytest.fixture
    def read(self, run, tmp_path):
        """Return a function that runs the script on an answer: bytes, or an object for JSON."""

        def read(answer, *options):
            file = tmp_path / "answer.json"
            file.write_bytes(answer if isinstance(answer, bytes) else json.dumps(answer).encode())
            return run(*options, str(file))

        return read

    def test_report_shows_what_a_start_depends_on(self, read, monkeypatch):
        monkeypatch.setattr(datetime, "datetime", StoppedClock)
        limit = dict(total=2000, remaining=5000, reset_after=3_600_750, max_concurrency=16)
        status, report, _ = read({**make_answer(**limit), "shards": 50}, "--sessions=1")
        assert status == 0
        assert report == (
            "URL             wss://gateway.discord.gg/\n"
            "Shards          50\n"
            "Concurrency     16\n"
            "Buckets         4\n"
            "Full start      0:00:17\n"
            "Sessions left   5000\n"
            "Sessions total  2000\n"
            "Sessions used   -3000\n"
            "Reset           2026-11-22 19:47:13 UTC, in 1:00:01\n"
        )

    @pytest.mark.parametrize(
        ("answer", "row"),
        [
            ({**ANSWER, "shards": 1}, "Full start      0:00:00"),
            ({**ANSWER, "shards": 150}, "Full start      0:13:40"),
            ({**ANSWER, "shards": INT32_MAX}, "Buckets         2147483647"),
            (make_answer(reset_after=0), "Reset           no window is running"),
        ],
        ids=["one shard", "150 shards", "most shards", "no window"],
    )
    def test_report_has_the_row(self, read, answer, row):
        _, report, _ = read(answer)
        assert row in report.splitlines()

    def test_full_second_is_not_rounded_up(self, read, monkeypatch):
        class FullSecond(StoppedClock):
            @classmethod
            def now(cls, tz=None):
                return super().now(tz).replace(microsecond=0)

        monkeypatch.setattr(datetime, "datetime", FullSecond)
        _, report, _ = read(ANSWER)
        assert report.endswith(" 2026-11-22 22:47:11 UTC, in 4:00:00\n")

    @pytest.mark.parametrize(
        ("options", "needed"),
        [
            ([], "9 are needed: 9 to start and 0 in reserve."),
            (["--sessions=7", "--reserve=993"], "1000 are needed: 7 to start and 993 in reserve."),
        ],
        ids=["default", "options"],
    )
    @pytest.mark.parametrize("reset_after", [0, 5])
    def test_shortage_shows_the_needed_sessions(self, read, options, needed, reset_after):
        status, output, _ = read(make_answer(remaining=7, reset_after=reset_after), *options)
        assert status == 1
        assert output.split("\n\n")[1] == (
            f"Too few sessions are left: 7.\n{needed}\nA reset restores 1000, which is enough.\n"
        )

    @pytest.mark.parametrize("option", ["--sessions=1001", "--reserve=992"])
    def test_shortage_shows_that_no_reset_will_help(self, read, option):
        _, output, _ = read(ANSWER, option)
        assert output.endswith(" in reserve.\nA reset restores 1000, which is not enough.\n")

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
    @pytest.mark.parametrize("changes", [{"reset_after": 0}, {"max_concurrency": 16}], ids=str)
    def test_status_depends_on_the_sessions_left(self, read, remaining, options, status, changes):
        answer = {**make_answer(remaining=remaining, **changes), "shards": 16}
        code, output, errors = read(answer, *options)
        assert (code, "Too few" in output, errors) == (status, status == 1, "")

    @pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte order mark"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
    def test_encoding_of_a_shell_is_detected(self, read, encoding, mark):
        status, _, _ = read((mark + json.dumps(ANSWER) + "\r\n").encode(encoding))
        assert status == 0

    @pytest.mark.parametrize("option", ["--sessions", "--reserve"])
    @pytest.mark.parametrize("value", ["-1", "1.5", "many", "", "3000000000"])
    def test_invalid_option_is_rejected_with_its_range(self, read, option, value):
        status, output, errors = read(ANSWER, f"{option}={value}")
        assert (status, output) == (2, "")
        shown = int(value) if value.isdecimal() else value
        _, message = errors.split(f"argument {option}: ")
        assert re.match(invalid("N", shown, integer(0)), message)

    UNREADABLE = {
        "empty": (b"", r"cannot read b'' as JSON: Expecting value: line 1 column 1 \(char 0\)"),
        "HTML": (b"<html>502</html>", "cannot read b'<html>502</html>' as JSON: Expecting .+"),
        "cut": (
            json.dumps(ANSWER).encode()[:-20],
            r'cannot read b\'{"url": .{67}\.\.\. as JSON: .+',
        ),
        "binary": (b"\x1b\xff", r"cannot read b'\\x1b\\xff' as JSON: .+"),
        "rate limit": (RATE_LIMITED, "payload.+; the answer says '.+'; ask again in 22:58:41"),
        "control": ({**ANSWER, "url": "wss://\x1b[31m"}, r"payload.+, got 'wss://\\x1b\[.+"),
    }

    @pytest.mark.parametrize(("answer", "problem"), UNREADABLE.values(), ids=UNREADABLE)
    def test_unreadable_answer_is_one_line_and_status_2(self, read, answer, problem):
        status, output, errors = read(answer)
        assert (status, output) == (2, "")
        assert re.fullmatch(f"sessions.py: {problem}\n", errors)
        assert errors[:-1].isprintable()

    @pytest.mark.parametrize("name", ["no.json", "", "\x1b[31m\n", str(FILE.parent)], ids=ascii)
    def test_unreadable_file_is_one_line_and_status_2(self, run, name):
        status, output, errors = run(name)
        assert (status, output) == (2, "")
        assert re.fullmatch(r"sessions.py: \[Errno \d+\] .+\n", errors)
        assert errors[:-1].isprintable()

    @pytest.mark.parametrize(
        "text",
        [
            *("[FILE]", "--sessions N", "--reserve N", "Shards and Full start ignore it"),
            *("standard input by default", "sessions to keep", "0 if enough sessions are left"),
            *("1 if too few are left", "2 if the answer", "1 or 120 if Python fails"),
        ],
    )
    def test_help_explains_options_and_statuses(self, run, text):
        status, output, _ = run("--help")
        assert status == 0
        assert text in " ".join(output.split())

    def test_version_is_printed(self, run):
        assert run("--version")[:2] == (0, f"sessions.py {sessions.__version__}\n")


PYTHON = [sys.executable, "-E"]
COMMAND = [*PYTHON, str(FILE)]
TEXT = json.dumps(ANSWER)


def run(*command, stdin=TEXT, **options):
    """Run a command and capture its output."""
    options.update(input=stdin, capture_output=True, text=True, timeout=60)
    return subprocess.run(command, **options)


needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")


class TestProcess:
    @pytest.mark.parametrize("arguments", [[], ["-"]], ids=["default", "dash"])
    def test_answer_is_read_from_standard_input(self, arguments):
        done = run(*COMMAND, *arguments)
        assert "Shards          9\n" in done.stdout
        assert done.stderr == ""

    def test_answer_that_arrives_in_parts_is_read_whole(self):
        padding = " \n" * 2**19  # more than a pipe holds
        assert run(*COMMAND, stdin=padding + TEXT + padding).returncode == 0

    @needs_posix
    @pytest.mark.parametrize("redirection", ["</dev/null", "<&-"], ids=["empty", "closed"])
    def test_missing_answer_is_status_2(self, redirection):
        assert run("sh", "-c", f'"$@" {redirection}', "sh", *COMMAND).returncode == 2

    @needs_posix
    @pytest.mark.parametrize("device", ["/dev/full", "&-"], ids=["full", "closed"])
    def test_unwritable_report_is_not_status_0(self, device):
        assert run("sh", "-c", f'"$@" >{device}', "sh", *COMMAND).returncode != 0

    @pytest.mark.parametrize("buffering", [[], ["-u"]], ids=["buffered", "unbuffered"])
    def test_unread_report_is_not_status_0(self, buffering):
        read, write = os.pipe()
        os.close(read)
        command = [*PYTHON, *buffering, str(FILE)]
        done = subprocess.run(command, input=TEXT.encode(), stdout=write, stderr=subprocess.DEVNULL)
        os.close(write)
        assert done.returncode != 0

    @pytest.fixture
    def terminal(self):
        """Open a terminal and return its keyboard and its screen."""
        try:
            keyboard, screen = os.openpty()
        except (AttributeError, OSError) as error:
            pytest.skip(f"there is no terminal: {error}")
        yield keyboard, screen
        os.close(keyboard)
        os.close(screen)

    @pytest.mark.parametrize(
        ("arguments", "status", "count"), [([], 0, 1), ([os.devnull], 2, 0)], ids=["input", "file"]
    )
    def test_terminal_shows_what_the_command_waits_for(self, terminal, arguments, status, count):
        keyboard, screen = terminal
        os.write(keyboard, TEXT.encode() + b"\n\x04")
        done = subprocess.run([*COMMAND, *arguments], stdin=screen, capture_output=True, timeout=60)
        message = b"waiting for the answer to GET /gateway/bot on standard input\n"
        assert (done.returncode, done.stderr.count(message)) == (status, count)

    def test_interrupt_at_a_terminal_is_not_status_0(self, terminal):
        # A shell may have made a job in the background ignore the signal.
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen(COMMAND, stdin=terminal[1], stderr=subprocess.PIPE)
        signal.signal(signal.SIGINT, handler)
        assert select.select([process.stderr], [], [], 60)[0]  # the command waits
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode != 0

    @pytest.mark.parametrize(
        "call",
        [
            "GatewayBotInfo.from_payload([])",
            "make_limit(total=-1)",
            "make_limit(reset_after=-HOUR)",
            "make_limit(created_at=NAIVE)",
            "make_info(url='')",
            "make_info(session_start_limit=None)",
        ],
    )
    def test_checks_do_not_depend_on_assert(self, call):
        code = f"from test_sessions import *; {call}"
        done = run(*PYTHON, "-O", "-c", code, cwd=FILE.parent)
        assert re.search(r"Error: [a-z_]+: expected ", done.stderr)

    def test_import_loads_no_further_modules(self):
        code = "import dataclasses, datetime, typing, sys; old = {*sys.modules}; import sessions; "
        done = run(*PYTHON, "-c", code + "print({*sys.modules} - old)", cwd=FILE.parent)
        assert done.stdout == "{'sessions'}\n"

    def test_renamed_copy_in_a_package_can_be_pickled(self, tmp_path):
        package = tmp_path / "mybot" / "_vendor"
        package.mkdir(parents=True)
        (package / "discord_limits.py").write_bytes(FILE.read_bytes())
        code = (
            "import pickle; from mybot._vendor.discord_limits import GatewayBotInfo as Info;"
            f"print(pickle.loads(pickle.dumps(Info.from_payload({ANSWER}))).to_payload())"
        )
        assert run(*PYTHON, "-c", code, cwd=tmp_path).stdout == f"{ANSWER}\n"


class TestVendoring:
    def test_header_names_the_version(self):
        assert FILE.read_text(encoding="utf-8").startswith(f"# sessions.py {sessions.__version__}:")

    def test_example_in_the_docstring_works(self):
        result = doctest.testmod(sessions)
        assert result.failed == 0
        assert result.attempted > 0

    def test_public_names_are_exported(self):
        public = [
            name
            for name, value in vars(sessions).items()
            if getattr(value, "__module__", "") == "sessions" and not name.startswith("_")
        ]
        assert sorted([*public, "IDENTIFY_INTERVAL"]) == sorted(sessions.__all__)
