"""The programs that the README puts together, to be run against the stand-in for Discord."""

import datetime
from typing import Any

from gateway import Gateway
from readme import block, replaced

import sessions

INTERVAL = 0.4
"""The seconds of IDENTIFY_INTERVAL in the trials."""
PACE = 1.0
"""The seconds of PACE in the trials."""


def start_lines(gateway: Gateway, *, reserve: int = 100, sharded: bool = False) -> str:
    """Return the lines that look before the start."""
    return replaced(
        block("python", "def fetch("),
        ("https://discord.com/api/v10", gateway.api),
        ("RESERVE = 100", f"RESERVE = {reserve}"),
        ("time.sleep(6)", f"time.sleep({INTERVAL + 0.5})"),
        ("look(token, shards=1)", "look(token)" if sharded else "look(token, shards=1)"),
    )


def bot_source(gateway: Gateway, bot: str, *changes: tuple[str, str], **options: Any) -> str:
    """Return a program that takes turns, with *bot* at its end."""
    lines = replaced(start_lines(gateway, **options), ("bot.run(token)\n", ""))
    turns = replaced(block("python", "class Turns:"), ("PACE = 50.0", f"PACE = {PACE}"))
    return replaced(lines + turns + bot, *changes)


def redis_lines(shard_ids: list[int], port: int) -> str:
    """Return the lines for one of several processes."""
    return replaced(
        block("python", "class RedisTurns("),
        ('host="localhost"', f"port={port}"),
        ("px=6000", f"px={round(1000 * INTERVAL) + 600}"),
        ("shard_ids = [0, 1, 2, 3]", f"shard_ids = {shard_ids}"),
    )


def make_turns(gateway: Gateway, monkeypatch: Any, bot: str = "", **options: Any) -> Any:
    """Return the `turns` of the README, with a short interval."""
    interval = datetime.timedelta(seconds=INTERVAL)
    monkeypatch.setattr(sessions, "IDENTIFY_INTERVAL", interval)
    monkeypatch.setenv("DISCORD_TOKEN", "secret")
    names: dict[str, Any] = {}
    exec(bot_source(gateway, bot, sharded=True, **options), names)
    return names["turns"]
