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


def start_lines(gateway: Gateway) -> str:
    """Return the lines that look before the start."""
    return replaced(
        block("python", "def fetch("),
        ("https://discord.com/api/v10", gateway.api),
        ("time.sleep(6)", f"time.sleep({INTERVAL + 0.5})"),
    )


def bot_source(gateway: Gateway, bot: str) -> str:
    """Return a program that takes turns, with *bot* at its end."""
    turns = replaced(block("python", "class Turns:"), ("PACE = 50.0", f"PACE = {PACE}"))
    return start_lines(gateway) + turns + bot


def redis_lines(shard_ids: list[int], port: int) -> str:
    """Return the lines for one of several processes."""
    return replaced(
        block("python", "class RedisTurns("),
        ('host="localhost"', f"port={port}"),
        ("px=6000", f"px={round(1000 * INTERVAL) + 600}"),
        ("shard_ids=[0, 1, 2, 3]", f"shard_ids={shard_ids}"),
    )


def make_turns(gateway: Gateway, monkeypatch: Any) -> Any:
    """Return the `turns` of the README, with a short interval."""
    interval = datetime.timedelta(seconds=INTERVAL)
    monkeypatch.setattr(sessions, "IDENTIFY_INTERVAL", interval)
    monkeypatch.setenv("DISCORD_TOKEN", "secret")
    names: dict[str, Any] = {}
    exec(bot_source(gateway, ""), names)
    return names["turns"]
