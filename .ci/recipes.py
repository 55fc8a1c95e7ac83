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


def start_lines(api: str) -> str:
    """Return the lines that look before the start, at the URL *api*."""
    return replaced(
        block("python", "def fetch("),
        ("https://discord.com/api/v10", api),
        ("time.sleep(6)", f"time.sleep({INTERVAL + 0.5})"),
    )


def turn_lines() -> str:
    """Return the lines that take turns, with a short pace."""
    return replaced(block("python", "class Turns:"), ("PACE = 50.0", f"PACE = {PACE}"))


def redis_lines(shard_ids: list[int], port: int) -> str:
    """Return the lines for one of several processes."""
    lines = block("python", "class RedisTurns(").replace("6 * turn", f"{INTERVAL + 0.2} * turn")
    return replaced(
        lines,
        ('host="localhost"', f"port={port}"),
        ("px=6000", f"px={round(1000 * INTERVAL) + 600}"),
        ("shard_ids = [0, 1, 2, 3]", f"shard_ids = {shard_ids}"),
    )


def make_turns(gateway: Gateway, monkeypatch: Any) -> Any:
    """Return the `turns` of the README, with a short interval."""
    interval = datetime.timedelta(seconds=INTERVAL)
    monkeypatch.setattr(sessions, "IDENTIFY_INTERVAL", interval)
    monkeypatch.setenv("DISCORD_TOKEN", "secret")
    names: dict[str, Any] = {}
    exec(start_lines(gateway.api) + turn_lines(), names)
    return names["turns"]
