"""The classes in the hands of the libraries around them, as they are."""

import dataclasses
import datetime
from unittest import mock

import cattrs
import freezegun
import msgspec
import pydantic
import pydantic_core
import pytest
import time_machine
from hikari.impl.entity_factory import EntityFactoryImpl

from sessions import GatewayBotInfo, SessionStartLimit
from test_sessions import ANSWER, READ_AT, make_info, make_limit

FIELDS = dataclasses.asdict(make_info())

converter = cattrs.Converter()  # which knows no times
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
def test_refusal_is_the_validation_error_of_the_library(read, error, fields):
    with pytest.raises(error):
        read(fields)


@pytest.mark.parametrize("name", ["pydantic", "msgspec"])
def test_validation_error_says_what_the_class_says(name):
    read, error = READERS[name]
    with pytest.raises(error, match="remaining: expected an integer from 0 to 2147483647, got -1"):
        read(changed(remaining=-1))


@pytest.mark.parametrize("name", ["pydantic", "msgspec, lax"])
def test_milliseconds_taken_for_seconds_are_refused_from_36_minutes_on(name):
    read, error = READERS[name]
    taken = read(changed(reset_after=2_147_483)).session_start_limit
    assert taken.reset_after == datetime.timedelta(seconds=2_147_483)
    with pytest.raises(error, match="reset_after: expected a timedelta from 0:00:00 to 24 days"):
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
def test_what_they_write_is_read(read, write):
    assert read(write(make_info())) == make_info()


@pytest.mark.parametrize(
    "hold",
    [freezegun.freeze_time, lambda moment: time_machine.travel(moment, tick=False)],
    ids=["freezegun", "time-machine"],
)
class TestHeldClock:
    """What tests of a bot do."""

    def test_created_at_is_the_time_it_is_held_at(self, hold):
        with hold(READ_AT):
            limit = SessionStartLimit(
                total=1, remaining=1, reset_after=datetime.timedelta(hours=1), max_concurrency=1
            )
            read = GatewayBotInfo.from_payload(ANSWER)
        assert (limit.created_at, read.session_start_limit.created_at) == (READ_AT, READ_AT)

    def test_real_times_are_taken_and_kept(self, hold):
        with hold("2030-01-01"):
            assert make_limit().copy(remaining=5).created_at == READ_AT


def test_public_attributes_of_hikari_are_here_with_the_same_types():
    def types_of(made):
        names = [name for name in dir(made) if not name.startswith("_")]
        return {name: type(getattr(made, name)) for name in names}

    theirs = EntityFactoryImpl(mock.Mock()).deserialize_gateway_bot_info(ANSWER)
    expected = {**types_of(theirs), "session_start_limit": SessionStartLimit}
    assert expected.items() <= types_of(make_info()).items()
    assert types_of(theirs.session_start_limit).items() <= types_of(make_limit()).items()
