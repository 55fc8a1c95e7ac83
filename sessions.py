# SPDX-FileCopyrightText: 2026 the sessions authors
# SPDX-License-Identifier: MIT-0
"""Discord's session start limit as two immutable objects.

Discord answers `GET /gateway/bot` with where to connect, how many shards to run and how many
session starts (IDENTIFYs) are left. A bot that uses them up loses all its sessions and its token.
So read the answer and look before you connect:

    info = GatewayBotInfo.from_payload(answer)  # the answer's JSON, decoded
    if info.session_start_limit.can_start(info.shard_count + 100):  # 100 in reserve
        for bucket in info.buckets():  # which shards start together, at a first start
            ...  # IDENTIFY them, then sleep for IDENTIFY_INTERVAL.total_seconds() + 0.5

Run as a script, it reads an answer and tells whether enough sessions are left; it does not fetch
one. `python3 sessions.py --help` says how. It needs Python 3.10 or newer. The rules are Discord's:
https://docs.discord.com/developers/events/gateway#identifying
"""

import datetime
import itertools
import re
import reprlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

__all__ = ["IDENTIFY_INTERVAL", "GatewayBotInfo", "PayloadError", "SessionStartLimit"]
__version__ = "1.4.0"

IDENTIFY_INTERVAL = datetime.timedelta(seconds=5)
"""The least time between two IDENTIFYs with the same `rate_limit_key`, measured at Discord.

One message may travel faster than another: wait half a second longer.

https://docs.discord.com/developers/events/gateway#sharding-max-concurrency
"""

_INT32_MAX = 2**31 - 1
_MILLISECOND = datetime.timedelta(milliseconds=1)
_SECOND = datetime.timedelta(seconds=1)
_ZERO = datetime.timedelta(0)
_LONGEST = _INT32_MAX * _MILLISECOND
_UTC = datetime.timezone.utc
_URL = re.compile(r"wss?://[^/?#: ][^ ]*")

# Python 3.10 has no typing.Self.
_LimitT = TypeVar("_LimitT", bound="SessionStartLimit")
_InfoT = TypeVar("_InfoT", bound="GatewayBotInfo")


class PayloadError(ValueError):
    """The payload is not a valid answer. The message starts with the path of what is wrong."""

    retry_after: datetime.timedelta | None
    """How long Discord wants you to wait before you ask again; None if it does not say.

    https://docs.discord.com/developers/topics/rate-limits#exceeding-a-rate-limit
    """

    def __init__(self, message: str, retry_after: datetime.timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def _utc_now() -> datetime.datetime:
    return datetime.datetime.now(_UTC)


@dataclass(frozen=True, kw_only=True)
class SessionStartLimit:
    """How many sessions a bot may still start, and when that number is reset.

    The constructor raises TypeError for a value of a wrong type and ValueError for one out of
    range. Counts go up to 2**31 - 1, as in Discord's API. An instance of a subclass of int (a
    bool) or of timedelta is of a wrong type.

    Setting or deleting any attribute raises `dataclasses.FrozenInstanceError`. A subclass that is
    no dataclass protects only the fields. A subclass with a `__post_init__` has to call that of
    `super()`, which makes the checks.

    https://docs.discord.com/developers/events/gateway#session-start-limit-object
    """

    total: int
    """How many sessions may be started per window, 0 or more; 1000 for most bots."""

    remaining: int
    """How many of them are left in the window, 0 or more. It is not checked against `total`."""

    reset_after: datetime.timedelta
    """The time from `created_at` to the reset: from zero to 2**31 - 1 milliseconds, 24.9 days.

    Zero is normal: a bot that has started nothing yet has no window running.
    """

    max_concurrency: int
    """How many shards of different keys may IDENTIFY in 5 seconds: 1 or more; 1 for most bots."""

    created_at: datetime.datetime = field(default_factory=_utc_now, compare=False)
    """When the numbers were read: an aware datetime, converted to UTC; now if not given.

    Copies keep it. Equality and hash leave it out: the same numbers are equal whenever read.
    """

    def __post_init__(self) -> None:
        _check_count("total", self.total)
        _check_count("remaining", self.remaining)
        _check_reset_after(self.reset_after)
        _check_count("max_concurrency", self.max_concurrency, 1)
        object.__setattr__(self, "created_at", _created_at_in_utc(self.created_at))

    @classmethod
    def from_payload(
        cls: type[_LimitT],
        payload: Mapping[str, Any],
        *,
        created_at: datetime.datetime | None = None,
    ) -> _LimitT:
        """Make one from the `session_start_limit` of an answer.

        *created_at* is when the answer was read, now if not given. Unknown keys are ignored; an
        absent or zero `max_concurrency` is read as 1. Raises PayloadError for whatever is wrong
        with the payload, TypeError or ValueError for a wrong *created_at*.
        """
        # Checked here as well: what a subclass's constructor raises is not the payload's fault.
        try:
            total = _check_count("total", payload["total"])
            remaining = _check_count("remaining", payload["remaining"])
            reset_after = _check_count("reset_after", payload["reset_after"])
            max_concurrency = _check_count("max_concurrency", payload.get("max_concurrency", 0))
        except (KeyError, TypeError, ValueError) as error:
            keys = "total", "remaining", "reset_after"
            raise _payload_error(payload, "session_start_limit", keys, error) from None
        return cls(
            total=total,
            remaining=remaining,
            reset_after=reset_after * _MILLISECOND,
            max_concurrency=max_concurrency or 1,
            created_at=_utc_now() if created_at is None else created_at,
        )

    def to_payload(self) -> dict[str, int]:
        """Return the numbers as Discord writes them: `reset_after` in milliseconds, rounded up.

        Store `created_at` as well, and hand it to `from_payload`: without it, the reset moves.
        """
        return {
            "total": self.total,
            "remaining": self.remaining,
            "reset_after": -(-self.reset_after // _MILLISECOND),
            "max_concurrency": self.max_concurrency,
        }

    def copy(self: _LimitT, **changes: Any) -> _LimitT:
        """Return a copy with *changes* to its fields, as `dataclasses.replace` does.

        It is checked like a new object. All other fields keep their values, `created_at` too.
        Raises what the constructor raises, and TypeError for an unknown field. Type checkers do
        not look at *changes*; mypy looks at those of `dataclasses.replace`.
        """
        return replace(self, **changes)

    @property
    def used(self) -> int:
        """How many were started: `total - remaining`, negative if more than `total` remain."""
        return self.total - self.remaining

    @property
    def reset_at(self) -> datetime.datetime:
        """When `remaining` becomes `total` again, in UTC; `created_at` if no window is running."""
        return self.created_at + self.reset_after

    def can_start(self, sessions: int) -> bool:
        """Return whether that many sessions were left at `created_at`.

        Ask for more than you start: the token may be reset as soon as none is left. Raises
        TypeError or ValueError for what is not a count.
        """
        return _check_count("sessions", sessions) <= self.remaining

    def rate_limit_key(self, shard_id: int) -> int:
        """Return `shard_id % max_concurrency`.

        Of all shards with the same key, one may IDENTIFY per 5 seconds. Raises TypeError or
        ValueError for what is not a count.

        https://docs.discord.com/developers/events/gateway#sharding-max-concurrency
        """
        return _check_count("shard_id", shard_id) % self.max_concurrency


@dataclass(frozen=True, kw_only=True)
class GatewayBotInfo:
    """What Discord answers to `GET /gateway/bot`.

    The constructor raises TypeError for a value of a wrong type and ValueError for a wrong value.
    What a SessionStartLimit says of attributes and of subclasses is true here as well.

    https://docs.discord.com/developers/events/gateway#get-gateway-bot
    """

    url: str
    """Where to connect: a printable `wss://` or `ws://` URL without spaces, not parsed further."""

    shard_count: int
    """The recommended number of shards, 1 to 2**31 - 1. To run another number, `copy` with it."""

    session_start_limit: SessionStartLimit
    """How many sessions the bot may still start."""

    def __post_init__(self) -> None:
        _check_url(self.url)
        _check_count("shard_count", self.shard_count, 1)
        _check_limit(self.session_start_limit)

    @classmethod
    def from_payload(
        cls: type[_InfoT],
        payload: Mapping[str, Any],
        *,
        created_at: datetime.datetime | None = None,
    ) -> _InfoT:
        """Make one from the answer, decoded.

        *created_at* is when it was read, now if not given. Unknown keys are ignored. Raises
        PayloadError for whatever is wrong with the payload, with Discord's message if it is a
        refusal, and TypeError or ValueError for a wrong *created_at*.
        """
        try:
            limit_payload = payload["session_start_limit"]
            shard_count = _check_count("shards", payload["shards"], 1)
            url = _check_url(payload["url"])
        except (KeyError, TypeError, ValueError) as error:
            keys = "session_start_limit", "shards", "url"
            raise _payload_error(payload, "", keys, error) from None
        limit = SessionStartLimit.from_payload(limit_payload, created_at=created_at)
        return cls(url=url, shard_count=shard_count, session_start_limit=limit)

    def to_payload(self) -> dict[str, Any]:
        """Return the answer as Discord writes it, without the limit's `created_at`."""
        return {
            "url": self.url,
            "shards": self.shard_count,
            "session_start_limit": self.session_start_limit.to_payload(),
        }

    def copy(self: _InfoT, **changes: Any) -> _InfoT:
        """Return a copy with *changes* to its fields, as `SessionStartLimit.copy` does."""
        return replace(self, **changes)

    def buckets(self, shard_ids: Iterable[int] | None = None) -> list[tuple[int, ...]]:
        """Return the shards in the order to start them.

        The shards of one bucket may IDENTIFY at once. IDENTIFY_INTERVAL has to pass between two
        buckets. *shard_ids* are the shards to start, in any order, all of `range(shard_count)` if
        not given; an id that comes twice counts once. No two shards of a bucket have the same
        `rate_limit_key`, ids ascend within a bucket and within a key, and there are as few buckets
        as possible. Raises TypeError for an id that is not an int and ValueError for one that is
        not in `range(shard_count)`.

        This is for a first start. A shard that loses its session later IDENTIFYs on its own.

        https://docs.discord.com/developers/events/gateway#sharding-max-concurrency
        """
        ids = range(self.shard_count) if shard_ids is None else shard_ids
        checked = {_check_count("shard_id", each, 0, self.shard_count - 1) for each in ids}
        by_key: defaultdict[int, list[int]] = defaultdict(list)
        for shard_id in sorted(checked):
            by_key[self.session_start_limit.rate_limit_key(shard_id)].append(shard_id)
        buckets = itertools.zip_longest(*by_key.values())  # None where a key has no more shards
        return [tuple(sorted(each for each in bucket if each is not None)) for bucket in buckets]


def _shown(value: object, length: int = 80) -> str:
    """Return a printable repr of *value*, of at most *length* characters."""
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = length
    return shortener.repr(value)[:length]  # Repr bounds each level of a value, but not the whole


def _rounded(duration: datetime.timedelta) -> str:
    """Return *duration* as text, rounded up to whole seconds."""
    return str(-(-duration // _SECOND) * _SECOND)


def _message(name: str, expected: str, value: object) -> str:
    return f"{name}: expected {expected}, got {_shown(value)}"


def _check_count(name: str, value: object, minimum: int = 0, maximum: int = _INT32_MAX) -> int:
    if type(value) is int and minimum <= value <= maximum:
        return value
    message = _message(name, f"an integer from {minimum} to {maximum}", value)
    raise ValueError(message) if type(value) is int else TypeError(message)


def _check_reset_after(value: object) -> None:
    # Another type need not divide as a timedelta does.
    if type(value) is datetime.timedelta and _ZERO <= value <= _LONGEST:
        return
    message = _message("reset_after", f"a timedelta from {_ZERO} to {_LONGEST}", value)
    raise ValueError(message) if type(value) is datetime.timedelta else TypeError(message)


def _created_at_in_utc(value: object) -> datetime.datetime:
    """Return *value* in UTC: a sum in local time is wrong where clocks change in between."""
    if isinstance(value, datetime.datetime) and value.utcoffset() is not None:
        return value.astimezone(_UTC)
    message = _message("created_at", "an aware datetime", value)
    raise ValueError(message) if isinstance(value, datetime.datetime) else TypeError(message)


def _check_url(value: object) -> str:
    if isinstance(value, str) and _URL.fullmatch(value) and value.isprintable():
        return value
    expected = "a printable ws:// or wss:// URL with a host and without spaces"
    message = _message("url", expected, value)
    raise ValueError(message) if isinstance(value, str) else TypeError(message)


def _check_limit(value: object) -> None:
    if not isinstance(value, SessionStartLimit):
        raise TypeError(_message("session_start_limit", "a SessionStartLimit", value))


def _payload_error(
    payload: Mapping[str, Any] | None, path: str, keys: Iterable[str], error: Exception
) -> PayloadError:
    """Return the error for *payload*, found at *path*: a missing key, or else *error*."""
    if not isinstance(payload, Mapping):
        return PayloadError(_message(path or "payload", "a mapping", payload))
    prefix = f"{path}." if path else ""
    missing = [key for key in keys if key not in payload]
    if not missing:
        return PayloadError(f"{prefix}{error}")
    problem = f"{prefix}{missing[0]}: missing"
    if isinstance(payload.get("message"), str):
        problem += f"; the answer says {_shown(payload['message'], 300)}"
    elif path and path in payload:
        problem += "; this is the whole answer, which GatewayBotInfo.from_payload reads"
    elif "url" in payload and payload.keys().isdisjoint({"shards", "session_start_limit"}):
        problem += "; this is the answer to GET /gateway, not to GET /gateway/bot"
    retry_after = None
    seconds: Any = payload.get("retry_after")
    # JSON may hold what is no duration: true, NaN, 1e300.
    if type(seconds) in (int, float) and 0 <= seconds <= datetime.timedelta.max.days * 86_400:
        retry_after = datetime.timedelta(seconds=seconds)
        problem += f"; ask again in {_rounded(retry_after)}"
    return PayloadError(problem, retry_after)


def _report(info: GatewayBotInfo) -> str:
    """Return what an operator wants to know before a start."""
    limit = info.session_start_limit
    last_bucket = (info.shard_count - 1) // limit.max_concurrency  # numbered from 0
    return f"""\
URL             {info.url}
Shards          {info.shard_count}
Concurrency     {limit.max_concurrency}
Buckets         {last_bucket + 1}
Full start      {last_bucket * IDENTIFY_INTERVAL}
Sessions left   {limit.remaining}
Sessions total  {limit.total}
Sessions used   {limit.used}
Reset           {limit.reset_at:%Y-%m-%d %H:%M:%S} UTC, in {_rounded(limit.reset_after)}
"""


def _shortage(limit: SessionStartLimit, sessions: int, reserve: int) -> str:
    """Return what an operator wants to know if too few sessions are left."""
    needed = sessions + reserve
    if needed <= limit.total:
        hope = f"The reset at {limit.reset_at:%Y-%m-%d %H:%M:%S} UTC brings {limit.total}."
    else:
        hope = f"No reset will bring enough: it brings {limit.total}."
    return f"""
Too few sessions are left: {limit.remaining}.
{needed} are needed: {sessions} to start and {reserve} in reserve.
{hope}
"""


def _main() -> int:
    import argparse
    import json
    import sys

    def count(text: str) -> int:  # argparse prints this name: "invalid count value"
        return _check_count("N", int(text))

    parser = argparse.ArgumentParser(
        description="Read Discord's answer to GET /gateway/bot and tell whether enough sessions "
        "are left for a start. It does not fetch the answer: curl can.",
        epilog="The exit status is 0 if enough are left, 1 if too few are, 2 if the answer or the "
        "usage is wrong.",
    )
    parser.add_argument("FILE", nargs="?", default="-", help="JSON; standard input if - or absent")
    parser.add_argument(
        "--sessions", metavar="N", type=count, help="to start, if not one per shard"
    )
    parser.add_argument("--reserve", metavar="N", type=count, default=0, help="to be left after it")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    arguments = parser.parse_args()

    try:
        # In bytes, for json.loads to find out their encoding: PowerShell writes UTF-16.
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
    except (RecursionError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: cannot read {_shown(answer)} as JSON: {error}\n")
    limit = info.session_start_limit
    sessions = info.shard_count if arguments.sessions is None else arguments.sessions
    enough = sessions + arguments.reserve <= limit.remaining
    sentences = "" if enough else _shortage(limit, sessions, arguments.reserve)
    sys.stdout.write(_report(info) + sentences)  # print() does nothing where stdout is closed
    return 0 if enough else 1


if __name__ == "__main__":
    raise SystemExit(_main())
