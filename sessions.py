# SPDX-License-Identifier: MIT
"""Discord's session start limit as two immutable objects.

Discord answers `GET /gateway/bot` with where to connect, how many shards to run and how many session starts (IDENTIFYs)
are left. A bot that goes over that number loses its token. So read the answer and look before you connect:

    info = GatewayBotInfo.from_payload(answer)  # the answer's JSON, decoded
    if info.session_start_limit.can_start(info.shard_count):
        for bucket in info.buckets():
            ...  # IDENTIFY every shard of the bucket, then wait for IDENTIFY_INTERVAL

`python3 sessions.py --help` tells how to look from a shell. The rules are Discord's:
https://discord.com/developers/docs/events/gateway#get-gateway-bot
"""

import copy
import dataclasses
import datetime
import re
from collections.abc import Iterable, Mapping

TYPE_CHECKING = False  # typing would slow the import down, and only type checkers read what comes from it
if TYPE_CHECKING:
    from typing import Any, ClassVar, NoReturn, TypeVar

    # The class that a method is called on, like typing.Self, which Python 3.10 does not have.
    _EntityT = TypeVar("_EntityT", bound="_Entity")
    _LimitT = TypeVar("_LimitT", bound="SessionStartLimit")
    _InfoT = TypeVar("_InfoT", bound="GatewayBotInfo")
else:
    Any = NoReturn = _EntityT = _LimitT = _InfoT = object  # all that annotations say of them at run time

__all__ = ["IDENTIFY_INTERVAL", "GatewayBotInfo", "PayloadError", "SessionStartLimit"]
__version__ = "1.0.0"

IDENTIFY_INTERVAL = datetime.timedelta(seconds=5)
"""How long to wait between the IDENTIFYs of one bucket of shards and those of the next.

https://discord.com/developers/docs/events/gateway#sharding-max-concurrency
"""

_INT32_MAX = 2**31 - 1
_MILLISECOND = datetime.timedelta(milliseconds=1)
_NO_TIME = datetime.timedelta(0)
_LONGEST_RESET = _INT32_MAX * _MILLISECOND
_UTC = datetime.timezone.utc
_RESET_AFTER_EXPECTED = f"a timedelta from {_NO_TIME} to {_LONGEST_RESET}"
_URL = re.compile(
    r"""
    wss?://
    (?:|[^/?#@ ]*@)                       # user information: rare, so the empty alternative comes first
    (?:[^/?#@:\[\] ]+|\[[^/?#@\[\] ]+\])  # host: a name or an address, that of IPv6 in brackets
    (?::[0-9]*|)                          # port
    (?:[/?#][^ ]*|)                       # path, query and fragment
    """,
    re.VERBOSE,
)

_MISSING = object()  # stands for a key that a payload does not have

# By field of an object: its path in the payload, for messages.
_LIMIT_PATHS = {field: field for field in ("total", "remaining", "reset_after", "max_concurrency")}
_INFO_PATHS = {
    "url": "url",
    "shard_count": "shards",
    "session_start_limit": "session_start_limit",
    **{field: f"session_start_limit.{path}" for field, path in _LIMIT_PATHS.items()},
}


class PayloadError(ValueError):
    """A payload is not what Discord answers. The message starts with the path of what is wrong in it."""


def _utc_now() -> datetime.datetime:
    return datetime.datetime.now(_UTC)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _shown(value: object) -> str:
    """Return the repr of *value*, printable and in at most 80 characters."""
    shown = _printable(repr(value)[:81])
    return shown if len(shown) <= 80 else shown[:77] + "..."


def _wrong(field: str, value: object, expected: str, error: type[Exception]) -> Exception:
    """Return an *error* that tells why *field* refuses *value*."""
    if value is _MISSING:
        shown = "nothing"
    elif type(value) is int and value.bit_length() > 64:
        shown = f"an integer of {value.bit_length()} bits"  # repr() raises ValueError for one of thousands of digits
    elif type(value) in (bool, int, float, str, type(None), datetime.datetime, datetime.timedelta):
        shown = _shown(value)
    else:
        shown = f"an object of type {_shown(type(value).__name__)}"
    return error(f"{field}: expected {expected}, got {shown}")


def _not_a_count(field: str, value: object, minimum: int, maximum: int = _INT32_MAX) -> Exception:
    """Return the error for a *value* that is not an int (a bool is not one here) from *minimum* to *maximum*."""
    error = ValueError if type(value) is int else TypeError
    return _wrong(field, value, f"an integer from {minimum} to {maximum}", error)


def _check_type(field: str, value: object, kind: type, expected: str, error: type[Exception] = TypeError) -> None:
    """Raise *error* if *value* is not of *kind*. Where time matters, callers look for the usual type first."""
    if not isinstance(value, kind):
        raise _wrong(field, value, expected, error)


def _blame(payload: Mapping[str, Any], paths: Mapping[str, str], required: set[str], error: Exception) -> None:
    """Raise *error* as a PayloadError, or return if it is not about one of the fields that were read from *payload*."""
    field, _, problem = str(error).partition(": ")  # as _wrong() writes it
    if field not in paths:  # created_at, or something that a subclass checks
        return
    if any(key not in payload for key in required):
        message = payload.get("message")
        if type(message) is str:
            problem += f"; the answer says {_shown(message)}"
        elif [key for key in ("url", "shards", "session_start_limit") if key in payload] == ["url"]:
            problem += "; this is the answer to GET /gateway, not to GET /gateway/bot"
    raise PayloadError(f"{paths[field]}: {problem}") from None


class _Entity:
    """Copying and pickling, alike in both classes: a new object is made by the constructor, which checks."""

    __slots__ = ()
    if TYPE_CHECKING:
        __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]  # both classes are dataclasses

    def copy(self: _EntityT, **changes: Any) -> _EntityT:
        """Return a copy with *changes* to its fields, checked like a new object.

        All other fields of the constructor keep their values, `created_at` too. Raises TypeError for an unknown field
        and what the constructor raises.
        """
        return dataclasses.replace(self, **changes)

    def __reduce__(self) -> tuple[Any, tuple[dict[str, Any], dict[str, Any]]]:
        fields = dataclasses.fields(self)
        given = {field.name: getattr(self, field.name) for field in fields if field.init}
        derived = {field.name: getattr(self, field.name) for field in fields if not field.init}
        return self._restore, (given, derived)

    @classmethod
    def _restore(cls: type[_EntityT], given: dict[str, Any], derived: dict[str, Any]) -> _EntityT:
        """Call the constructor, then set the fields that it does not take: `init=False`, in a subclass."""
        entity = cls(**given)
        for field, value in derived.items():
            object.__setattr__(entity, field, value)
        return entity

    def _is_immutable(self) -> bool:
        """Return whether the object can be its own copy. A subclass may have added something that can change."""
        return type(self) is SessionStartLimit or (
            type(self) is GatewayBotInfo and type(self.session_start_limit) is SessionStartLimit
        )

    def __copy__(self: _EntityT) -> _EntityT:
        return self if self._is_immutable() else self._restore(*self.__reduce__()[1])

    def __deepcopy__(self: _EntityT, memo: dict[int, Any]) -> _EntityT:
        return self if self._is_immutable() else self._restore(*copy.deepcopy(self.__reduce__()[1], memo))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
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
    """The time from `created_at` to the reset, from 0 to 2**31 - 1 milliseconds.

    Zero is normal: a bot that has started nothing yet has no window running.
    """

    max_concurrency: int
    """How many shards may IDENTIFY per 5 seconds, from 1; 1 for most bots."""

    created_at: datetime.datetime = dataclasses.field(default_factory=_utc_now, compare=False)
    """When the numbers were read: an aware datetime, converted to UTC; now if not given.

    Copies keep it. It takes no part in equality and hash.
    """

    def __post_init__(self) -> None:
        # Calls take longer than checks: so counts are checked in line, and only unusual types go to _check_type().
        if type(self.total) is not int or not 0 <= self.total <= _INT32_MAX:
            raise _not_a_count("total", self.total, 0)
        if type(self.remaining) is not int or not 0 <= self.remaining <= _INT32_MAX:
            raise _not_a_count("remaining", self.remaining, 0)
        if type(self.reset_after) is not datetime.timedelta:
            _check_type("reset_after", self.reset_after, datetime.timedelta, _RESET_AFTER_EXPECTED)
        if not _NO_TIME <= self.reset_after <= _LONGEST_RESET:
            raise _wrong("reset_after", self.reset_after, _RESET_AFTER_EXPECTED, ValueError)
        if type(self.max_concurrency) is not int or not 1 <= self.max_concurrency <= _INT32_MAX:
            raise _not_a_count("max_concurrency", self.max_concurrency, 1)
        try:
            if type(self.created_at) is not datetime.datetime or self.created_at.tzinfo is not _UTC:
                _check_type("created_at", self.created_at, datetime.datetime, "an aware datetime")
                if self.created_at.utcoffset() is None:
                    raise _wrong("created_at", self.created_at, "an aware datetime", ValueError)
                # Because adding to a local time takes no notice of the clock being changed in between.
                object.__setattr__(self, "created_at", self.created_at.astimezone(_UTC))
            _ = self.created_at + self.reset_after  # for reset_at not to raise it later
        except OverflowError:
            expected = "an aware datetime with the reset in the years 1 to 9999"
            raise _wrong("created_at", self.created_at, expected, ValueError) from None

    if TYPE_CHECKING:

        def copy(
            self: _LimitT,
            *,
            total: int = ...,
            remaining: int = ...,
            reset_after: datetime.timedelta = ...,
            max_concurrency: int = ...,
            created_at: datetime.datetime = ...,
            **more: Any,
        ) -> _LimitT:
            """Return a copy with changes to its fields. These are their types; *more* is what a subclass adds."""
            ...

    @classmethod
    def from_payload(
        cls: type[_LimitT], payload: Mapping[str, Any], *, created_at: datetime.datetime | None = None
    ) -> _LimitT:
        """Make one from the `session_start_limit` of an answer that was read at *created_at*, now if not given.

        Unknown keys are ignored; an absent or zero `max_concurrency` is read as 1. Raises PayloadError for whatever is
        wrong with the payload, TypeError or ValueError for a wrong *created_at*.
        """
        if not isinstance(payload, dict):
            _check_type("payload", payload, Mapping, "a mapping", PayloadError)
        try:
            return _read_limit(cls, payload, created_at)
        except (TypeError, ValueError) as error:
            _blame(payload, _LIMIT_PATHS, {"total", "remaining", "reset_after"}, error)
            raise

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
        if type(sessions) is not int or not 0 <= sessions <= _INT32_MAX:
            raise _not_a_count("sessions", sessions, 0)
        return sessions <= self.remaining

    def rate_limit_key(self, shard_id: int) -> int:
        """Return `shard_id % max_concurrency`: of all shards with the same key, one may IDENTIFY per 5 seconds.

        Raises TypeError or ValueError for what is not a count.

        https://discord.com/developers/docs/events/gateway#sharding-max-concurrency
        """
        if type(shard_id) is not int or not 0 <= shard_id <= _INT32_MAX:
            raise _not_a_count("shard_id", shard_id, 0)
        return shard_id % self.max_concurrency


def _read_limit(cls: type[_LimitT], payload: Mapping[str, Any], created_at: datetime.datetime | None) -> _LimitT:
    """Make a *cls* of *payload*, with the errors of the constructor."""
    get = payload.get
    reset_after = get("reset_after", _MISSING)
    if type(reset_after) is not int or not 0 <= reset_after <= _INT32_MAX:
        raise _not_a_count("reset_after", reset_after, 0)
    max_concurrency = get("max_concurrency", 0)
    if type(max_concurrency) is not int or not 0 <= max_concurrency <= _INT32_MAX:
        raise _not_a_count("max_concurrency", max_concurrency, 0)
    return cls(
        total=get("total", _MISSING),
        remaining=get("remaining", _MISSING),
        reset_after=reset_after * _MILLISECOND,
        max_concurrency=max_concurrency or 1,
        created_at=_utc_now() if created_at is None else created_at,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GatewayBotInfo(_Entity):
    """What Discord answers to `GET /gateway/bot`: where to connect, with how many shards and within which limit.

    The constructor raises TypeError for a value of a wrong type and ValueError for a wrong value.

    https://discord.com/developers/docs/events/gateway#get-gateway-bot
    """

    url: str
    """The WebSocket URL to connect to: `wss://` on Discord, `ws://` on some other servers.

    It has a host, a port in digits if any, and neither spaces nor anything unprintable.
    """

    shard_count: int
    """The recommended number of shards (`shards` in the answer), from 1 to 2**31 - 1."""

    session_start_limit: SessionStartLimit
    """How many sessions the bot may still start."""

    def __post_init__(self) -> None:
        if type(self.url) is not str or not _URL.fullmatch(self.url) or not self.url.isprintable():
            error = ValueError if type(self.url) is str else TypeError
            raise _wrong("url", self.url, "a printable ws:// or wss:// URL with a host and without spaces", error)
        if type(self.shard_count) is not int or not 1 <= self.shard_count <= _INT32_MAX:
            raise _not_a_count("shard_count", self.shard_count, 1)
        if type(self.session_start_limit) is not SessionStartLimit:
            _check_type("session_start_limit", self.session_start_limit, SessionStartLimit, "a SessionStartLimit")

    if TYPE_CHECKING:

        def copy(
            self: _InfoT,
            *,
            url: str = ...,
            shard_count: int = ...,
            session_start_limit: SessionStartLimit = ...,
            **more: Any,
        ) -> _InfoT:
            """Return a copy with changes to its fields. These are their types; *more* is what a subclass adds."""
            ...

    @classmethod
    def from_payload(
        cls: type[_InfoT], payload: Mapping[str, Any], *, created_at: datetime.datetime | None = None
    ) -> _InfoT:
        """Make one from the answer, decoded, that was read at *created_at*, now if not given.

        Unknown keys are ignored. Raises PayloadError for whatever is wrong with the payload (where it is an error of
        Discord's, with its message), TypeError or ValueError for a wrong *created_at*.
        """
        if not isinstance(payload, dict):
            _check_type("payload", payload, Mapping, "a mapping", PayloadError)
        get = payload.get
        try:
            limit_payload: Mapping[str, Any] = get("session_start_limit", _MISSING)  # which is checked now
            if not isinstance(limit_payload, dict):
                _check_type("session_start_limit", limit_payload, Mapping, "a mapping")
            return cls(
                url=get("url", _MISSING),
                shard_count=get("shards", _MISSING),
                session_start_limit=_read_limit(SessionStartLimit, limit_payload, created_at),
            )
        except (TypeError, ValueError) as error:
            _blame(payload, _INFO_PATHS, {"url", "shards", "session_start_limit"}, error)
            raise

    def to_payload(self) -> dict[str, Any]:
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

        The order holds for one process. Several that start shards at the same time have to take turns.

        https://discord.com/developers/docs/events/gateway#sharding-max-concurrency
        """
        ids: Iterable[int] = range(self.shard_count)
        if shard_ids is not None:
            given: set[int] = set()
            for shard_id in shard_ids:
                if type(shard_id) is not int or not 0 <= shard_id < self.shard_count:
                    raise _not_a_count("shard_id", shard_id, 0, self.shard_count - 1)
                given.add(shard_id)
            ids = sorted(given)
        buckets: list[list[int]] = []
        turns: dict[int, int] = {}  # by key: the number of its shards that have a bucket
        for shard_id in ids:
            key = self.session_start_limit.rate_limit_key(shard_id)
            turn = turns.get(key, 0)
            turns[key] = turn + 1
            if turn == len(buckets):
                buckets.append([])
            buckets[turn].append(shard_id)
        return [tuple(bucket) for bucket in buckets]


def _report(info: GatewayBotInfo) -> str:
    """Return what an operator wants to know before a start."""
    limit = info.session_start_limit
    second = datetime.timedelta(seconds=1)
    buckets = -(-info.shard_count // limit.max_concurrency)  # not len(info.buckets()): it may be 2**31 - 1
    # Times are rounded up, so that nobody comes too early.
    reset_at = f"{limit.reset_at + second - datetime.timedelta.resolution:%Y-%m-%d %H:%M:%S} UTC"
    rows = {
        "URL": info.url,
        "Shards": info.shard_count,
        "Concurrency": limit.max_concurrency,
        "Buckets": buckets,
        "Full start": (buckets - 1) * IDENTIFY_INTERVAL,
        "Sessions left": limit.remaining,
        "Sessions total": limit.total,
        "Sessions used": limit.used,
        "Reset": f"{reset_at}, in {-(-limit.reset_after // second) * second}",
    }
    report = "".join(f"{label:16}{value}\n" for label, value in rows.items())
    if not limit.can_start(info.shard_count):
        report += f"\nToo few sessions are left: {limit.remaining}, and a full start takes {info.shard_count}.\n"
        if limit.total >= info.shard_count:
            report += f"A full start is possible from {reset_at}.\n"
        else:
            report += f"The reset at {reset_at} will not help: it brings {limit.total}.\n"
    return report


def _main() -> int:
    import argparse
    import contextlib
    import json
    import os
    import signal
    import sys

    # For Ctrl-C to end it without a traceback, and a shell's loop as well. Shells turn SIGINT off for background jobs.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    program = os.path.basename(__file__)
    longest = 2**18  # bytes: more than a thousand times what Discord answers

    def write(descriptor: int, text: str) -> None:
        # What print() leaves in the buffer of sys.stdout would fail only at exit, too late to say so in one line.
        with open(descriptor, "w", encoding="locale", errors="backslashreplace", closefd=False) as stream:
            stream.write(text)

    def tell(text: str) -> None:
        with contextlib.suppress(OSError):
            write(2, f"{program}: {_printable(text)}\n")

    def fail(problem: str) -> NoReturn:
        tell(problem)
        raise SystemExit(2)

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            fail(f"{message} (see --help)")

    parser = Parser(
        description="Read Discord's answer to GET /gateway/bot and tell whether all recommended shards can be started.",
        epilog="exit status:\n"
        "  0  they can all be started\n"
        "  1  too few sessions are left for that\n"
        "  2  no usable answer (unreadable, not JSON, not such an answer), bad usage or no room for the output\n\n"
        f"before a deploy:\n  curl ... | python3 {sys.argv[0]} && ./start-bot",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,  # as --help, too, has to go through write()
    )
    parser.add_argument(
        "file", metavar="FILE", nargs="?", default="-", help="JSON in UTF-8 or UTF-16; standard input if - or absent"
    )
    parser.add_argument("-h", "--help", action="store_true", help="show this and exit")
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    arguments = parser.parse_args()

    status = 0
    if arguments.help:
        text = parser.format_help()
    elif arguments.version:
        text = f"{program} {__version__}\n"
    else:
        piped = arguments.file == "-"
        source = "standard input" if piped else arguments.file
        if piped and os.isatty(0):
            tell("waiting for the answer to GET /gateway/bot on standard input")
        try:
            with open(0 if piped else source, "rb") as stream:
                answer = stream.read(longest + 1) or b""  # None where nothing has come and reading does not wait
        except OSError as error:
            fail(f"{source}: {error.strerror}")
        if len(answer) > longest:
            fail(f"{source}: more than {longest} bytes, so not the answer to GET /gateway/bot")
        try:
            info = GatewayBotInfo.from_payload(json.loads(answer))
        except PayloadError as error:
            fail(f"{source}: {error}")
        except ValueError as error:
            fail(f"{source}: cannot read {_shown(answer.decode(errors='replace'))} as JSON: {error}")
        except RecursionError:
            fail(f"{source}: nested too deeply, so not the answer to GET /gateway/bot")
        text = _report(info)
        status = 0 if info.session_start_limit.can_start(info.shard_count) else 1

    try:
        write(1, text)
    except OSError as error:
        fail(f"standard output: {error.strerror}")
    return status


if __name__ == "__main__":
    raise SystemExit(_main())
