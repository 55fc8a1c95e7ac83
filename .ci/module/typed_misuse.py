"""A mistake in every line with an ignore comment: checkers report a comment that hides nothing."""

import datetime

from bot._vendor.sessions import GatewayBotInfo, PayloadError, SessionStartLimit


def assign(info: GatewayBotInfo, limit: SessionStartLimit) -> None:
    """Assign to fields and properties."""
    info.url = "wss://gateway.discord.gg/"  # type: ignore
    info.shard_count = 1  # type: ignore
    info.session_start_limit = limit  # type: ignore
    limit.total = 1  # type: ignore
    limit.remaining = 1  # type: ignore
    limit.reset_after = datetime.timedelta()  # type: ignore
    limit.max_concurrency = 1  # type: ignore
    limit.created_at = datetime.datetime.now(datetime.timezone.utc)  # type: ignore
    limit.used = 1  # type: ignore
    limit.reset_at = limit.created_at  # type: ignore


def pass_wrong_types(info: GatewayBotInfo, limit: SessionStartLimit) -> None:
    """Pass arguments of wrong types."""
    zero = datetime.timedelta()
    SessionStartLimit(total="1", remaining=1, reset_after=zero, max_concurrency=1)  # type: ignore
    SessionStartLimit(total=1, remaining=1, reset_after=1000, max_concurrency=1)  # type: ignore
    SessionStartLimit(total=1, remaining=1, reset_after=zero, max_concurrency=1, created_at=None)  # type: ignore
    GatewayBotInfo(url=b"wss://host", shard_count=1, session_start_limit=limit)  # type: ignore
    GatewayBotInfo(url="wss://host", shard_count=1, session_start_limit={})  # type: ignore
    SessionStartLimit.from_payload("{}")  # type: ignore
    SessionStartLimit.from_payload({}, created_at="2026-11-22")  # type: ignore
    GatewayBotInfo.from_payload([])  # type: ignore
    GatewayBotInfo.from_payload({}, created_at=0)  # type: ignore
    limit.can_start("9")  # type: ignore
    limit.rate_limit_key(None)  # type: ignore
    info.buckets(9)  # type: ignore
    info.buckets(["9"])  # type: ignore
    PayloadError("no", 5)  # type: ignore


def leave_out(limit: SessionStartLimit) -> None:
    """Leave arguments out, or pass them by position."""
    SessionStartLimit()  # type: ignore
    SessionStartLimit(remaining=1, reset_after=datetime.timedelta(), max_concurrency=1)  # type: ignore
    SessionStartLimit(1, 1, datetime.timedelta(), 1)  # type: ignore
    GatewayBotInfo(url="wss://host", session_start_limit=limit)  # type: ignore
    GatewayBotInfo.from_payload()  # type: ignore
    SessionStartLimit.from_payload({}, datetime.datetime.now(datetime.timezone.utc))  # type: ignore
    limit.copy(1)  # type: ignore
    limit.can_start()  # type: ignore
    limit.rate_limit_key()  # type: ignore
