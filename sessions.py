# sessions.py 1.5.0: Discord's session start limit as two immutable objects
# SPDX-FileCopyrightText: 2026 the sessions authors
# SPDX-License-Identifier: MIT-0
"""Discord's session start limit as two immutable objects.

A bot starts a session for each of its shards with an IDENTIFY. Most bots may start 1000 sessions a
day. A bot that uses them up loses all its connections and its token.

Discord answers `GET /gateway/bot` with the URL to connect to, the recommended number of shards and
the number of sessions that are left. Read the answer before you connect:

    >>> limit = {"total": 1000, "remaining": 999, "reset_after": 14400000, "max_concurrency": 1}
    >>> answer = {"url": "wss://gateway.discord.gg/", "shards": 3, "session_start_limit": limit}
    >>> info = GatewayBotInfo.from_payload(answer)
    >>> info.session_start_limit.can_start(info.shard_count + 100)  # keep 100 in reserve
    True
    >>> info.buckets()  # start the shards of a bucket together, and the next one 5.5 seconds later
    [(0,), (1,), (2,)]

As a script, the file reads an answer and reports whether enough sessions are left; see
`python3 sessions.py --help`. It needs Python 3.10 or newer and nothing else.

https://docs.discord.com/developers/events/gateway#identifying
"""

import datetime
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

__all__ = ["IDENTIFY_INTERVAL", "GatewayBotInfo", "PayloadError", "SessionStartLimit"]
__version__ = "1.5.0"

IDENTIFY_INTERVAL = datetime.timedelta(seconds=5)
"""The shortest time between two IDENTIFYs with the same `rate_limit_key`, as Discord measures it.

Wait half a second longer, because one message may travel faster than another.

https://docs.discord.com/developers/events/gateway#sharding-max-concurrency
"""

_INT32_MAX = 2**31 - 1
_MILLISECOND = datetime.timedelta(milliseconds=1)
_SECOND = datetime.timedelta(seconds=1)
_ZERO = datetime.timedelta(0)
_MAX_RESET_AFTER = _INT32_MAX * _MILLISECOND
_UTC = datetime.timezone.utc
_URL = re.compile(r"wss?://[^/?#: ][^ ]*")

# Python 3.10 does not have typing.Self.
_Limit = TypeVar("_Limit", bound="SessionStartLimit")
_Info = TypeVar("_Info", bound="GatewayBotInfo")


class PayloadError(ValueError):
    """A payload is not a valid answer.

    The message begins with the path to the invalid value. If Discord sent an error in place of an
    answer, it includes Discord's message.
    """

    retry_after: datetime.timedelta | None
    """How long Discord asks you to wait before the next request; None if it does not.

    https://docs.discord.com/developers/topics/rate-limits#exceeding-a-rate-limit
    """

    def __init__(self, message: str, retry_after: datetime.timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def _utc_now() -> datetime.datetime:
    return datetime.datetime.now(_UTC)


@dataclass(frozen=True, kw_only=True)
class SessionStartLimit:
    """The number of sessions that a bot may still start, and when it is reset.

    The constructor raises TypeError for a value of the wrong type and ValueError for a value that
    is out of range. Counts go up to 2**31 - 1, as in Discord's API. Subclasses of int, such as
    bool, and of timedelta are wrong types.

    Setting or deleting an attribute raises `dataclasses.FrozenInstanceError`; in a subclass that is
    not a dataclass, only for the inherited fields. A subclass with its own `__post_init__` has to
    call `SessionStartLimit.__post_init__(self)`, which checks the values.

    https://docs.discord.com/developers/events/gateway#session-start-limit-object
    """

    total: int
    """The number of sessions that may be started per window, 0 or more; 1000 for most bots."""

    remaining: int
    """The number of sessions that are left in the window, 0 or more. It may exceed `total`."""

    reset_after: datetime.timedelta
    """The time from `created_at` to the reset, from 0 to 2**31 - 1 milliseconds (24.9 days).

    Zero is normal: no window is running before the bot starts its first session.
    """

    max_concurrency: int
    """The number of shards that may IDENTIFY per 5 seconds, 1 or more; 1 for most bots."""

    created_at: datetime.datetime = field(default_factory=_utc_now, compare=False)
    """When the answer was read: an aware datetime, converted to UTC; now by default.

    Copies keep it. Equality and hash ignore it.
    """

    def __post_init__(self) -> None:
        _check_count("total", self.total)
        _check_count("remaining", self.remaining)
        _check_count("max_concurrency", self.max_concurrency, 1)
        _check_reset_after(self.reset_after)
        object.__setattr__(self, "created_at", _convert_to_utc(self.created_at))

    @classmethod
    def from_payload(
        cls: type[_Limit],
        payload: Mapping[str, Any],
        *,
        created_at: datetime.datetime | None = None,
    ) -> _Limit:
        """Build an instance from the `session_start_limit` of a decoded answer.

        *created_at* is when the answer was read, now by default. Unknown keys are ignored. An
        absent or zero `max_concurrency` is read as 1. Raises PayloadError for an invalid payload,
        and TypeError or ValueError for an invalid *created_at*.
        """
        # Not left to the constructor: an error of a subclass is not an error of the payload.
        try:
            total = _check_count("total", payload["total"])
            remaining = _check_count("remaining", payload["remaining"])
            reset_after = _check_count("reset_after", payload["reset_after"])
            max_concurrency = _check_count("max_concurrency", payload.get("max_concurrency", 0))
        except Exception as error:  # a payload that is not a mapping may raise anything
            keys = "total", "remaining", "reset_after"
            raise _payload_error("session_start_limit", payload, keys, error) from None
        return cls(
            total=total,
            remaining=remaining,
            reset_after=reset_after * _MILLISECOND,
            max_concurrency=max_concurrency or 1,
            created_at=_utc_now() if created_at is None else created_at,
        )

    def to_payload(self) -> dict[str, int]:
        """Return the numbers in Discord's format, with `reset_after` rounded up to milliseconds.

        Store `created_at` as well and pass it to `from_payload`. Otherwise the reset moves.
        """
        return {
            "total": self.total,
            "remaining": self.remaining,
            "reset_after": -(-self.reset_after // _MILLISECOND),  # rounds up
            "max_concurrency": self.max_concurrency,
        }

    def copy(self: _Limit, **changes: Any) -> _Limit:
        """Return a copy with *changes* to its fields, as `dataclasses.replace` does.

        The copy is checked like a new instance. The other fields, `created_at` included, keep their
        values. Raises what the constructor raises, and TypeError for an unknown field. Type
        checkers do not check *changes*; mypy checks those of `dataclasses.replace`.
        """
        return replace(self, **changes)

    @property
    def used(self) -> int:
        """The number of started sessions, `total - remaining`; may be negative."""
        return self.total - self.remaining

    @property
    def reset_at(self) -> datetime.datetime:
        """When `remaining` becomes `total` again, in UTC; `created_at` if no window is running."""
        return self.created_at + self.reset_after

    def can_start(self, sessions: int) -> bool:
        """Return whether at least *sessions* sessions were left at `created_at`.

        Ask for more sessions than you start, because Discord resets the token of a bot that uses
        them up. Raises TypeError or ValueError for an invalid count.
        """
        return _check_count("sessions", sessions) <= self.remaining

    def rate_limit_key(self, shard_id: int) -> int:
        """Return the key that limits the IDENTIFYs of a shard: `shard_id % max_concurrency`.

        Only one shard of each key may IDENTIFY per IDENTIFY_INTERVAL. Raises TypeError or
        ValueError for an invalid id.
        """
        return _check_count("shard_id", shard_id) % self.max_concurrency


@dataclass(frozen=True, kw_only=True)
class GatewayBotInfo:
    """Discord's answer to `GET /gateway/bot`.

    The rules of SessionStartLimit for errors, attributes and subclasses apply here as well.

    https://docs.discord.com/developers/events/gateway#get-gateway-bot
    """

    url: str
    """The URL to connect to: `wss://` or `ws://`, printable, without spaces. It is not parsed."""

    shard_count: int
    """The recommended number of shards, 1 to 2**31 - 1. To run another number, use `copy`."""

    session_start_limit: SessionStartLimit
    """The number of sessions that the bot may still start."""

    def __post_init__(self) -> None:
        _check_url(self.url)
        _check_count("shard_count", self.shard_count, 1)
        _check_limit(self.session_start_limit)

    @classmethod
    def from_payload(
        cls: type[_Info], payload: Mapping[str, Any], *, created_at: datetime.datetime | None = None
    ) -> _Info:
        """Build an instance from the decoded answer.

        *created_at* is when the answer was read, now by default. Unknown keys are ignored. Raises
        PayloadError for an invalid payload or an error of Discord's, such as 401 or 429, and
        TypeError or ValueError for an invalid *created_at*.
        """
        try:
            limit_payload = payload["session_start_limit"]
            shard_count = _check_count("shards", payload["shards"], 1)
            url = _check_url(payload["url"])
        except Exception as error:  # a payload that is not a mapping may raise anything
            keys = "session_start_limit", "shards", "url"
            raise _payload_error("payload", payload, keys, error) from None
        limit = SessionStartLimit.from_payload(limit_payload, created_at=created_at)
        return cls(url=url, shard_count=shard_count, session_start_limit=limit)

    def to_payload(self) -> dict[str, Any]:
        """Return the answer in Discord's format, without the `created_at` of the limit."""
        return {
            "url": self.url,
            "shards": self.shard_count,
            "session_start_limit": self.session_start_limit.to_payload(),
        }

    def copy(self: _Info, **changes: Any) -> _Info:
        """Return a copy with *changes* to its fields, as `SessionStartLimit.copy` does."""
        return replace(self, **changes)

    def buckets(self, shard_ids: Iterable[int] | None = None) -> list[tuple[int, ...]]:
        """Return the shards in buckets, in the order to start them.

        The shards of a bucket may IDENTIFY together. Wait for IDENTIFY_INTERVAL and half a second
        between two buckets. *shard_ids* are the shards to start, in any order, by default all of
        `range(shard_count)`. A repeated id counts once. The shards of a bucket have different
        rate limit keys. Ids ascend within a bucket and, for each key, from bucket to bucket. There
        are as few buckets as possible. Raises TypeError for an id that is not an int and ValueError
        for an id that is not in `range(shard_count)`.

        The buckets are for the first start. A shard that loses its session later starts alone.
        """
        ids = range(self.shard_count) if shard_ids is None else shard_ids
        checked = {_check_count("shard_id", each, 0, self.shard_count - 1) for each in ids}
        by_number: defaultdict[int, list[int]] = defaultdict(list)
        next_number: defaultdict[int, int] = defaultdict(int)  # by rate limit key
        for shard_id in sorted(checked):
            key = self.session_start_limit.rate_limit_key(shard_id)
            by_number[next_number[key]].append(shard_id)
            next_number[key] += 1
        return [tuple(by_number[number]) for number in range(len(by_number))]


def _shorten(value: object, length: int = 80) -> str:
    """Return the repr of *value*, cut to *length* characters."""
    text = repr(value)
    return text if len(text) <= length else f"{text[: length - 3]}..."


def _round_up(duration: datetime.timedelta) -> datetime.timedelta:
    """Return *duration* rounded up to whole seconds."""
    return -(-duration // _SECOND) * _SECOND


def _invalid(name: str, expected: str, value: object, right_type: bool) -> Exception:
    """Return the error for an invalid value: ValueError if it has the right type."""
    message = f"{name}: expected {expected}, got {_shorten(value)}"
    return ValueError(message) if right_type else TypeError(message)


def _check_count(name: str, value: object, minimum: int = 0, maximum: int = _INT32_MAX) -> int:
    if type(value) is int and minimum <= value <= maximum:
        return value
    raise _invalid(name, f"an integer from {minimum} to {maximum}", value, type(value) is int)


def _check_reset_after(value: object) -> None:
    # A subclass of timedelta may override arithmetic.
    if type(value) is not datetime.timedelta or not _ZERO <= value <= _MAX_RESET_AFTER:
        expected = f"a timedelta from {_ZERO} to {_MAX_RESET_AFTER}"
        raise _invalid("reset_after", expected, value, type(value) is datetime.timedelta)


def _convert_to_utc(value: object) -> datetime.datetime:
    if not isinstance(value, datetime.datetime):
        raise _invalid("created_at", "an aware datetime", value, False)
    if value.utcoffset() is None:
        raise _invalid("created_at", "an aware datetime", value, True)
    value = value.astimezone(_UTC)  # local-time arithmetic ignores DST changes
    if type(value) is datetime.datetime:
        return value
    # Adding to a pendulum.DateTime loses the time zone.
    return datetime.datetime.combine(value.date(), value.time(), _UTC)


def _check_limit(value: object) -> None:
    if not isinstance(value, SessionStartLimit):
        raise _invalid("session_start_limit", "a SessionStartLimit", value, False)


def _check_url(value: object) -> str:
    if isinstance(value, str) and _URL.fullmatch(value) and value.isprintable():
        return value
    expected = "a printable ws:// or wss:// URL with a host and without spaces"
    raise _invalid("url", expected, value, isinstance(value, str))


def _payload_error(
    path: str, payload: Mapping[str, Any] | None, keys: Iterable[str], error: Exception
) -> PayloadError:
    """Return the error for *payload*: not a mapping, a missing key, or otherwise *error*."""
    if not isinstance(payload, Mapping):
        return PayloadError(str(_invalid(path, "a mapping", payload, False)))
    missing = [key for key in keys if key not in payload]
    if not missing:
        return PayloadError(f"{path}.{error}")
    message = f"{path}.{missing[0]}: missing"
    if isinstance(payload.get("message"), str):
        message += f"; the answer says {_shorten(payload['message'], 300)}"
    seconds = payload.get("retry_after")
    if not isinstance(seconds, (int, float)) or not 0 <= seconds < 1e9:  # rejects NaN as well
        return PayloadError(message)
    retry_after = datetime.timedelta(seconds=seconds)
    return PayloadError(f"{message}; ask again in {_round_up(retry_after)}", retry_after)


def _report(info: GatewayBotInfo) -> str:
    """Return what an operator wants to know before a start."""
    limit = info.session_start_limit
    last_bucket = (info.shard_count - 1) // limit.max_concurrency  # the first is number 0
    reset = "no window is running"
    if limit.reset_after:
        # Rounded up like the duration: strftime cuts the microseconds.
        reset_at = limit.reset_at + datetime.timedelta(microseconds=999_999)
        reset = f"{reset_at:%Y-%m-%d %H:%M:%S} UTC, in {_round_up(limit.reset_after)}"
    return f"""\
URL             {info.url}
Shards          {info.shard_count}
Concurrency     {limit.max_concurrency}
Buckets         {last_bucket + 1}
Full start      {_round_up(last_bucket * (IDENTIFY_INTERVAL + _SECOND / 2))}
Sessions left   {limit.remaining}
Sessions total  {limit.total}
Sessions used   {limit.used}
Reset           {reset}
"""


def _shortage(limit: SessionStartLimit, sessions: int, reserve: int) -> str:
    """Return what an operator wants to know if too few sessions are left; otherwise nothing."""
    needed = sessions + reserve  # can_start rejects a sum above 2**31 - 1
    if needed <= limit.remaining:
        return ""
    return f"""
Too few sessions are left: {limit.remaining}.
{needed} are needed: {sessions} to start and {reserve} in reserve.
A reset restores {limit.total}, which {"is" if needed <= limit.total else "is not"} enough.
"""


def _main() -> int:
    import argparse
    import json
    import sys

    def count(text: str) -> int:
        try:
            return _check_count("N", int(text) if text.isdecimal() else text)
        except (TypeError, ValueError) as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    parser = argparse.ArgumentParser(
        description="Report whether Discord's answer to GET /gateway/bot leaves enough sessions.",
        epilog="The exit status is 0 if enough sessions are left, 1 if too few are left, 2 if the "
        "answer or the usage is wrong, and 1 or 120 if Python fails.",
    )
    sessions_help = "sessions to start, by default one per shard; Shards and Full start ignore it"
    parser.add_argument("FILE", nargs="?", default="-", help="JSON; standard input by default")
    parser.add_argument("--sessions", metavar="N", type=count, help=sessions_help)
    parser.add_argument("--reserve", metavar="N", type=count, default=0, help="sessions to keep")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    arguments = parser.parse_args()

    try:
        # As bytes, because json.loads detects UTF-16, which PowerShell writes.
        with open(0 if arguments.FILE == "-" else arguments.FILE, "rb") as stream:
            if stream.isatty():
                sys.stderr.write("waiting for the answer to GET /gateway/bot on standard input\n")
            answer = stream.read()
    except OSError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    try:
        info = GatewayBotInfo.from_payload(json.loads(answer))
    except PayloadError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    except ValueError as error:
        parser.exit(2, f"{parser.prog}: cannot read {_shorten(answer)} as JSON: {error}\n")
    sessions = info.shard_count if arguments.sessions is None else arguments.sessions
    shortage = _shortage(info.session_start_limit, sessions, arguments.reserve)
    sys.stdout.write(_report(info) + shortage)  # print() would ignore a closed standard output
    return 1 if shortage else 0


if __name__ == "__main__":
    raise SystemExit(_main())
