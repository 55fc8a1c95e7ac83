"""Every public name as a bot uses it: mypy and pyright have nothing to report here."""

import copy
import dataclasses
import datetime
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from bot._vendor import sessions
from bot._vendor.sessions import IDENTIFY_INTERVAL, GatewayBotInfo, PayloadError, SessionStartLimit

if sys.version_info >= (3, 11):
    from typing import assert_type
else:

    def assert_type(value: object, kind: object) -> None:
        """Stand in for the one of Python 3.11."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MyLimit(SessionStartLimit):
    """A subclass that adds a field."""

    note: str = ""


class MyInfo(GatewayBotInfo):
    """A subclass that adds a method."""

    def first(self) -> tuple[int, ...]:
        """Return the first bucket."""
        return self.buckets()[0]


def read(answer: Mapping[str, object], read_at: datetime.datetime) -> GatewayBotInfo | None:
    """Read *answer* if it is one."""
    try:
        info = GatewayBotInfo.from_payload(answer, created_at=read_at)
    except PayloadError as error:
        assert_type(error.retry_after, datetime.timedelta | None)
        return None
    assert_type(info, GatewayBotInfo)
    return info


def use(info: GatewayBotInfo) -> None:
    """Use everything that an answer offers."""
    limit = info.session_start_limit
    assert_type(info.url, str)
    assert_type(info.shard_count, int)
    assert_type(limit, SessionStartLimit)
    assert_type(limit.total, int)
    assert_type(limit.remaining, int)
    assert_type(limit.reset_after, datetime.timedelta)
    assert_type(limit.max_concurrency, int)
    assert_type(limit.created_at, datetime.datetime)
    assert_type(limit.used, int)
    assert_type(limit.reset_at, datetime.datetime)
    assert_type(limit.can_start(info.shard_count), bool)
    assert_type(limit.rate_limit_key(0), int)
    assert_type(limit.to_payload(), dict[str, int])
    assert_type(limit.to_payload()["total"], int)
    assert_type(info.to_payload(), dict[str, Any])
    assert_type(info.buckets(), list[tuple[int, ...]])
    assert_type(info.buckets(shard_id for shard_id in (0, 1)), list[tuple[int, ...]])
    assert_type(IDENTIFY_INTERVAL, datetime.timedelta)
    assert_type(sessions.__version__, str)
    assert_type({limit: info}, dict[SessionStartLimit, GatewayBotInfo])
    names: Sequence[str] = sessions.__all__
    print(names, limit == limit.copy(), hash(info))


def make(payload: dict[str, object]) -> None:
    """Make objects in every way."""
    limit = SessionStartLimit(
        total=1, remaining=1, reset_after=datetime.timedelta(), max_concurrency=1
    )
    info = GatewayBotInfo(url="wss://gateway.discord.gg/", shard_count=1, session_start_limit=limit)
    assert_type(SessionStartLimit.from_payload(payload), SessionStartLimit)
    assert_type(limit.copy(), SessionStartLimit)
    assert_type(
        limit.copy(
            total=2,
            remaining=2,
            reset_after=datetime.timedelta(1),
            max_concurrency=2,
            created_at=datetime.datetime.now(datetime.timezone.utc),
        ),
        SessionStartLimit,
    )
    assert_type(
        info.copy(url="ws://localhost", shard_count=2, session_start_limit=limit), GatewayBotInfo
    )
    assert_type(dataclasses.replace(limit, remaining=0), SessionStartLimit)
    if sys.version_info >= (3, 13):
        assert_type(copy.replace(limit, remaining=0), SessionStartLimit)
    limit.copy(totl=5, remaining="5")  # passes, as its docstring says
    raise PayloadError("no", datetime.timedelta(hours=1))


def keep_the_subclass(payload: dict[str, object]) -> None:
    """Make objects of subclasses."""
    mine = MyLimit.from_payload(payload)
    assert_type(mine, MyLimit)
    assert_type(mine.copy(remaining=5, note="later"), MyLimit)
    assert_type(copy.copy(mine), MyLimit)
    assert_type(MyInfo.from_payload(payload), MyInfo)
    assert_type(
        MyInfo.from_payload(payload).copy(session_start_limit=mine).first(), tuple[int, ...]
    )
