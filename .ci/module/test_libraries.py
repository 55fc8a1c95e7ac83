"""sessions.py with the libraries that its users have."""

import dataclasses
import datetime
import sqlite3
from unittest import mock

import cattrs
import freezegun
import msgspec
import pendulum
import pydantic
import pydantic_core
import pytest
import time_machine
from hikari.impl.entity_factory import EntityFactoryImpl

from sessions import GatewayBotInfo, PayloadError, SessionStartLimit
from test_sessions import ANSWER, LIMIT, READ_AT, make_info, make_limit

FIELDS = dataclasses.asdict(make_info())

converter = cattrs.Converter()  # without hooks, it cannot convert times
converter.register_structure_hook(
    datetime.timedelta, lambda value, _: datetime.timedelta(seconds=value)
)
converter.register_structure_hook(
    datetime.datetime, lambda value, _: datetime.datetime.fromisoformat(value)
)
converter.register_unstructure_hook(datetime.timedelta, datetime.timedelta.total_seconds)
converter.register_unstructure_hook(datetime.datetime, datetime.datetime.isoformat)

adapter = pydantic.TypeAdapter(GatewayBotInfo)

READERS = {
    "pydantic": (adapter.validate_python, pydantic.ValidationError),
    "pydantic, JSON": (
        lambda fields: adapter.validate_json(pydantic_core.to_json(fields)),
        pydantic.ValidationError,
    ),
    "msgspec": (lambda fields: msgspec.convert(fields, GatewayBotInfo), msgspec.ValidationError),
    "msgspec, lax": (
        lambda fields: msgspec.convert(fields, GatewayBotInfo, strict=False),
        msgspec.ValidationError,
    ),
    "cattrs": (
        lambda fields: converter.structure(converter.unstructure(fields), GatewayBotInfo),
        cattrs.ClassValidationError,
    ),
}
readers = pytest.mark.parametrize(("read", "error"), READERS.values(), ids=READERS)


def changed(**changes):
    """Return the fields with *changes* to those of the limit."""
    return {**FIELDS, "session_start_limit": {**FIELDS["session_start_limit"], **changes}}


@readers
def test_fields_are_read(read, error):
    info = read(FIELDS)
    assert info == make_info()
    assert info.session_start_limit.created_at == READ_AT


@readers
@pytest.mark.parametrize(
    "fields",
    [
        {**FIELDS, "url": "https://discord.com/"},
        {**FIELDS, "url": "wss://ho st/"},
        {**FIELDS, "shard_count": 0},
        {**FIELDS, "shard_count": 2**31},
        {**FIELDS, "shard_count": "many"},
        {**FIELDS, "shard_count": None},
        {**FIELDS, "session_start_limit": 5},
        {"url": "wss://gateway.discord.gg/"},
        changed(total=-1),
        changed(remaining=2**31),
        changed(max_concurrency=0),
        changed(reset_after=datetime.timedelta(seconds=-1)),
        changed(created_at=READ_AT.replace(tzinfo=None)),
    ],
    ids=str,
)
def test_invalid_field_raises_the_error_of_the_library(read, error, fields):
    with pytest.raises(error):
        read(fields)


@pytest.mark.parametrize("name", ["pydantic", "msgspec"])
def test_validation_error_contains_the_message(name):
    read, error = READERS[name]
    with pytest.raises(error, match=r"remaining: .+, got -1"):
        read(changed(remaining=-1))


@pytest.mark.parametrize("name", ["pydantic", "msgspec, lax"])
def test_milliseconds_as_seconds_fail_above_36_minutes(name):
    read, error = READERS[name]
    taken = read(changed(reset_after=2_147_483)).session_start_limit
    assert taken.reset_after == datetime.timedelta(seconds=2_147_483)
    with pytest.raises(error, match="reset_after: "):
        read(changed(reset_after=2_147_484))


@pytest.mark.parametrize(
    ("read", "write"),
    [
        (adapter.validate_json, adapter.dump_json),
        (lambda written: msgspec.json.decode(written, type=GatewayBotInfo), msgspec.json.encode),
        (lambda written: converter.structure(written, GatewayBotInfo), converter.unstructure),
    ],
    ids=["pydantic", "msgspec", "cattrs"],
)
def test_written_fields_are_read_back(read, write):
    assert read(write(make_info())) == make_info()


@pytest.mark.parametrize(
    "freeze",
    [freezegun.freeze_time, lambda moment: time_machine.travel(moment, tick=False)],
    ids=["freezegun", "time-machine"],
)
class TestFrozenClock:
    """The clock in the tests of a bot."""

    def test_created_at_is_the_frozen_time(self, freeze):
        with freeze(READ_AT):
            limit = SessionStartLimit(
                total=1, remaining=1, reset_after=datetime.timedelta(hours=1), max_concurrency=1
            )
            read = GatewayBotInfo.from_payload(ANSWER)
        assert (limit.created_at, read.session_start_limit.created_at) == (READ_AT, READ_AT)


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_reset_at_is_aware_if_pendulum_was_given(zone):
    moment = pendulum.now(zone)
    limit = SessionStartLimit.from_payload(LIMIT, created_at=moment)
    assert type(limit.created_at) is datetime.datetime
    assert limit.created_at == moment
    assert limit.reset_at > datetime.datetime.now(datetime.timezone.utc)


def test_row_of_sqlite_is_read_as_a_dict():
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    row = connection.execute("SELECT 5 AS total, 4 AS remaining, 0 AS reset_after").fetchone()
    connection.close()
    with pytest.raises(PayloadError, match=r"session_start_limit: .+, got <sqlite3"):
        SessionStartLimit.from_payload(row)
    assert SessionStartLimit.from_payload(dict(row)).remaining == 4


def test_attributes_of_hikari_have_the_same_types():
    def get_types(instance):
        names = [name for name in dir(instance) if not name.startswith("_")]
        return {name: type(getattr(instance, name)) for name in names}

    theirs = EntityFactoryImpl(mock.Mock()).deserialize_gateway_bot_info(ANSWER)
    expected = {**get_types(theirs), "session_start_limit": SessionStartLimit}
    assert expected.items() <= get_types(make_info()).items()
    assert get_types(theirs.session_start_limit).items() <= get_types(make_limit()).items()
