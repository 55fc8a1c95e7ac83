# SPDX-License-Identifier: MIT
"""Discord's session start limit as two immutable objects.

Discord answers `GET /gateway/bot` with where to connect, how many shards to run and how many session starts (IDENTIFYs)
are left. A bot that goes over that number has its token reset. So read the answer and look before you connect:

    info = GatewayBotInfo.from_payload(answer)  # the answer's JSON, decoded
    if info.session_start_limit.can_start(info.shard_count):
        for bucket in info.buckets():
            ...  # IDENTIFY every shard of the bucket, then wait for IDENTIFY_INTERVAL

Run as a module, with `python3 -m sessions --help`, it tells how to look from a shell. The rules are Discord's:
https://discord.com/developers/docs/events/gateway#get-gateway-bot
"""

import copy
import datetime
import reprlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace

TYPE_CHECKING = False  # typing would slow the import down, and only type checkers read what comes from it
if TYPE_CHECKING:
    from typing import Any, TypeVar

    _EntityT = TypeVar("_EntityT", bound="_Entity")
    _LimitT = TypeVar("_LimitT", bound="SessionStartLimit")
    _InfoT = TypeVar("_InfoT", bound="GatewayBotInfo")

__all__ = ["IDENTIFY_INTERVAL", "GatewayBotInfo", "PayloadError", "SessionStartLimit"]
__version__ = "1.1.0"

IDENTIFY_INTERVAL = datetime.timedelta(seconds=5)
"""How long to wait between two IDENTIFYs of shards with the same `rate_limit_key`.

https://discord.com/developers/docs/events/gateway#sharding-max-concurrency
"""

_MILLISECOND = datetime.timedelta(milliseconds=1)
_UTC = datetime.timezone.utc
_ZERO = datetime.timedelta(0)


class PayloadError(ValueError):
    """A payload is not what Discord answers. The message starts with the path of what is wrong in the answer."""


@dataclass(frozen=True, slots=True)
class _Entity:
    """Copying, alike in both classes; pickling and `copy.replace` are left to `dataclasses`."""

    def copy(self: "_EntityT", **changes: object) -> "_EntityT":
        """Return a copy with *changes* to its fields, checked like a new object.

        All other fields keep their values, `created_at` too. Raises TypeError for an unknown field, and what the
        constructor raises.
        """
        return replace(self, **changes)

    def _is_immutable(self) -> bool:
        """Return whether it is its own copy: nothing in it can change, as it may in what a subclass adds."""
        limit = self.session_start_limit if type(self) is GatewayBotInfo else self
        return type(limit) is SessionStartLimit

    def __copy__(self: "_EntityT") -> "_EntityT":
        return self if self._is_immutable() else self.copy()

    def __deepcopy__(self: "_EntityT", memo: dict[int, object]) -> "_EntityT":
        if self._is_immutable():
            return self
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.init}
        return self.copy(**copy.deepcopy(values, memo))


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStartLimit(_Entity):
    """How many sessions a bot may still start, and when that number is reset.

    The constructor raises TypeError for a value of a wrong type (a bool is not a count) and ValueError for one out of
    range. Counts go up to 2**31 - 1. Limits of the same numbers are equal, whenever they were read.

    https://discord.com/developers/docs/events/gateway#session-start-limit-object
    """

    total: int
    """How many sessions may be started per window, from 0; 1000 for most bots."""

    remaining: int
    """How many of them are left in the window, from 0. It may be more than `total`: that is up to Discord."""

    reset_after: datetime.timedelta
    """The time from `created_at` to the reset, from 0.

    Zero is normal: a bot that has started nothing yet has no window running.
    """

    max_concurrency: int
    """How many shards, each with another `rate_limit_key`, may IDENTIFY per 5 seconds, from 1; 1 for most bots."""

    created_at: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(_UTC), compare=False)
    """When the numbers were read: an aware datetime, converted to UTC; now if not given.

    Copies keep it. It takes no part in equality and hash.
    """

    def __post_init__(self: "Any") -> None:  # Any: nothing is known of the values yet
        _check_count("total", self.total)
        _check_count("remaining", self.remaining)
        if type(self.reset_after) is not datetime.timedelta or self.reset_after < _ZERO:
            raise _refusal("reset_after", self.reset_after, datetime.timedelta, "a timedelta of zero or more")
        _check_count("max_concurrency", self.max_concurrency, 1)
        moment = self.created_at
        if not isinstance(moment, datetime.datetime) or (moment.tzinfo is not _UTC and moment.utcoffset() is None):
            raise _refusal("created_at", moment, datetime.datetime, "an aware datetime")
        # In a local zone, adding reset_after would take no notice of clocks that are changed in between.
        if moment.tzinfo is not _UTC:
            object.__setattr__(self, "created_at", moment.astimezone(_UTC))

    @classmethod
    def from_payload(
        cls: "type[_LimitT]", payload: "Mapping[str, Any]", *, created_at: datetime.datetime | None = None
    ) -> "_LimitT":
        """Make one from the `session_start_limit` of an answer that was read at *created_at*, now if not given.

        Unknown keys are ignored; an absent or zero `max_concurrency` is read as 1. Raises PayloadError for whatever is
        wrong with the payload, TypeError or ValueError for a wrong *created_at*.
        """
        try:
            limit = cls(
                total=payload["total"],
                remaining=payload["remaining"],
                reset_after=_check_count("reset_after", payload["reset_after"]) * _MILLISECOND,
                max_concurrency=_check_count("max_concurrency", payload.get("max_concurrency", 1)) or 1,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _payload_error(error, payload, "session_start_limit") from None
        return limit if created_at is None else limit.copy(created_at=created_at)

    def to_payload(self) -> dict[str, int]:
        """Return the numbers as Discord writes them: `reset_after` in milliseconds, rounded up."""
        return {
            "total": self.total,
            "remaining": self.remaining,
            "reset_after": -(-self.reset_after // _MILLISECOND),
            "max_concurrency": self.max_concurrency,
        }

    @property
    def used(self) -> int:
        """How many sessions were started in the window: `total - remaining`; negative if more than `total` are left."""
        return self.total - self.remaining

    @property
    def reset_at(self) -> datetime.datetime:
        """When `remaining` becomes `total` again, in UTC; `created_at` where no window is running."""
        return self.created_at + self.reset_after

    def can_start(self, sessions: int) -> bool:
        """Return whether that many sessions were left at `created_at`.

        Raises TypeError or ValueError for what is not a count.
        """
        return _check_count("sessions", sessions) <= self.remaining

    def rate_limit_key(self, shard_id: int) -> int:
        """Return `shard_id % max_concurrency`: of all shards with the same key, one may IDENTIFY per 5 seconds.

        Raises TypeError or ValueError for what is not a count.

        https://discord.com/developers/docs/events/gateway#sharding-max-concurrency
        """
        return _check_count("shard_id", shard_id) % self.max_concurrency


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayBotInfo(_Entity):
    """What Discord answers to `GET /gateway/bot`: where to connect, with how many shards and within which limit.

    The constructor raises TypeError for a value of a wrong type and ValueError for a wrong value.

    https://discord.com/developers/docs/events/gateway#get-gateway-bot
    """

    url: str
    """Where to connect: a printable `wss://` URL (`ws://` on some other servers) with a host and without spaces."""

    shard_count: int
    """The recommended number of shards (`shards` in the answer), from 1 to 2**31 - 1."""

    session_start_limit: SessionStartLimit
    """How many sessions the bot may still start."""

    def __post_init__(self: "Any") -> None:  # Any: nothing is known of the values yet
        scheme, _, rest = self.url.partition("://") if type(self.url) is str else ("", "", "")
        if scheme not in ("ws", "wss") or not rest or rest[0] in "/?#:" or " " in rest or not rest.isprintable():
            raise _refusal("url", self.url, str, "a printable ws:// or wss:// URL with a host and without spaces")
        _check_count("shard_count", self.shard_count, 1)
        if not isinstance(self.session_start_limit, SessionStartLimit):
            raise _refusal("session_start_limit", self.session_start_limit, SessionStartLimit, "a SessionStartLimit")

    @classmethod
    def from_payload(
        cls: "type[_InfoT]", payload: "Mapping[str, Any]", *, created_at: datetime.datetime | None = None
    ) -> "_InfoT":
        """Make one from the answer, decoded, that was read at *created_at*, now if not given.

        Unknown keys are ignored. Raises PayloadError for whatever is wrong with the payload (where it is an error of
        Discord's, with its message), TypeError or ValueError for a wrong *created_at*.
        """
        try:
            limit = SessionStartLimit.from_payload(payload["session_start_limit"])
            shard_count = _check_count("shards", payload["shards"], 1)  # here, for errors with its name in the answer
            info = cls(url=payload["url"], shard_count=shard_count, session_start_limit=limit)
        except (KeyError, TypeError, ValueError) as error:
            raise _payload_error(error, payload) from None
        return info if created_at is None else info.copy(session_start_limit=limit.copy(created_at=created_at))

    def to_payload(self) -> "dict[str, Any]":
        """Return the answer as Discord writes it. `created_at` has no place in it: store that beside it."""
        return {
            "url": self.url,
            "shards": self.shard_count,
            "session_start_limit": self.session_start_limit.to_payload(),
        }

    def buckets(self, shard_ids: Iterable[int] | None = None) -> list[tuple[int, ...]]:
        """Return the shards in the order to start them: the shards of one bucket may IDENTIFY at once.

        IDENTIFY_INTERVAL has to pass between two buckets. *shard_ids* are the shards to start, in any order, all of
        `range(shard_count)` if not given; an id that comes twice counts once. No two shards of a bucket have the same
        `rate_limit_key`, ids ascend within a bucket and within a key, and there are as few buckets as possible. Raises
        TypeError for an id that is not an int and ValueError for one that is not in `range(shard_count)`.

        The order is that of a first start in one process. Several processes, and later IDENTIFYs, have to take turns.

        https://discord.com/developers/docs/events/gateway#sharding-max-concurrency
        """
        ids = range(self.shard_count) if shard_ids is None else shard_ids
        buckets: defaultdict[int, list[int]] = defaultdict(list)
        turns: Counter[int] = Counter()  # by key: the number of its shards that have a bucket
        for shard_id in sorted({_check_count("shard_id", each, 0, self.shard_count - 1) for each in ids}):
            key = self.session_start_limit.rate_limit_key(shard_id)
            buckets[turns[key]].append(shard_id)
            turns[key] += 1
        return [tuple(bucket) for bucket in buckets.values()]


def _shown(value: object) -> str:
    """Return the repr of *value* in at most 80 characters."""
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = 80
    return shortener.repr(value)[:80]  # Repr bounds each level of a value, but not the whole


def _refusal(name: str, value: object, kind: type, expected: str) -> Exception:
    """Return the error for a *value* that is not what is *expected*: a TypeError where it is not even of *kind*."""
    error = ValueError if type(value) is kind else TypeError
    return error(f"{name}: expected {expected}, got {_shown(value)}")


def _check_count(name: str, value: object, minimum: int = 0, maximum: int = 2**31 - 1) -> int:
    """Return *value*, which has to be an int, and not a bool, from *minimum* to *maximum*."""
    if type(value) is int and minimum <= value <= maximum:
        return value
    raise _refusal(name, value, int, f"an integer from {minimum} to {maximum}")


def _payload_error(error: Exception, payload: "Any", path: str = "") -> PayloadError:
    """Return what is wrong with *payload*, which stands at *path* in the answer, where reading it raised *error*."""
    problem = f"{error.args[0]}: missing" if isinstance(error, KeyError) else str(error)
    match error, payload:
        case KeyError(), {"message": str(message)}:
            problem += f"; the answer says {_shown(message)}"
        case KeyError(), {"url": _} if payload.keys().isdisjoint({"shards", "session_start_limit"}):
            problem += "; this is the answer to GET /gateway, not to GET /gateway/bot"
        case _, Mapping():
            pass
        case _:
            return PayloadError(f"{path or 'payload'}: expected a mapping, got {_shown(payload)}")
    return PayloadError(f"{path}.{problem}" if path else problem)


def _report(info: GatewayBotInfo, sessions: int) -> str:
    """Return what an operator wants to know before a start that takes that many *sessions*."""
    limit = info.session_start_limit
    buckets = -(-info.shard_count // limit.max_concurrency)  # len(info.buckets()) would build up to 2**31 - 1
    reset_at = f"{limit.reset_at:%Y-%m-%d %H:%M:%S} UTC"
    report = f"""\
URL             {info.url}
Shards          {info.shard_count}
Concurrency     {limit.max_concurrency}
Buckets         {buckets}
Full start      {(buckets - 1) * IDENTIFY_INTERVAL}
Sessions left   {limit.remaining}
Sessions total  {limit.total}
Sessions used   {limit.used}
Reset           {reset_at}, in {limit.reset_after}
"""
    if not limit.can_start(sessions):
        report += f"\nToo few sessions are left: {limit.remaining}, and {sessions} are needed.\n"
        report += f"The reset at {reset_at} brings {limit.total}.\n"
    return report


def _main() -> int:
    import argparse
    import json
    import sys

    def count(text: str) -> int:
        return _check_count("N", int(text))

    parser = argparse.ArgumentParser(
        description="Read Discord's answer to GET /gateway/bot and tell whether enough sessions are left for a start.",
        epilog="The exit status is 0 if enough are left, 1 if too few are, 2 if the answer or the usage is wrong.",
    )
    parser.add_argument("file", metavar="FILE", nargs="?", default="-", help="JSON; standard input if - or absent")
    parser.add_argument("--sessions", metavar="N", type=count, help="how many are needed, if not one for each shard")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    arguments = parser.parse_args()

    answer = b""
    try:
        with open(0 if arguments.file == "-" else arguments.file, "rb") as stream:
            if stream.isatty():
                print("waiting for the answer to GET /gateway/bot on standard input", file=sys.stderr)
            answer = stream.read()
        info = GatewayBotInfo.from_payload(json.loads(answer))
    except (OSError, PayloadError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    except (RecursionError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: cannot read {_shown(answer)} as JSON: {error}\n")
    sessions = info.shard_count if arguments.sessions is None else arguments.sessions
    sys.stdout.write(_report(info, sessions))  # unlike print(), this fails where there is no standard output
    return 0 if info.session_start_limit.can_start(sessions) else 1


if __name__ == "__main__":
    raise SystemExit(_main())
