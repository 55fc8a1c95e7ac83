"""The code of the README, to be run against the stand-in for Discord."""

import datetime
import re
from typing import Any

from gateway import Gateway

import sessions
from test_sessions import FILE

README = FILE.with_name("README.md").read_text(encoding="utf-8")
INTERVAL = 0.4
"""The seconds of IDENTIFY_INTERVAL in the trials."""


def block(language: str, part: str) -> str:
    """Return the code block of the README that has *part* in it."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    (source,) = (source for source in blocks if part in source)
    return str(source)


def replaced(source: str, *pairs: tuple[str, str]) -> str:
    """Return *source* with the first of each pair, which comes once, replaced by the second."""
    for old, new in pairs:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    return source


def start_lines(gateway: Gateway, *, reserve: int = 100, shards: str = "1") -> str:
    """Return the lines that look before the start, for a bot with so many *shards*."""
    return replaced(
        block("python", "def fetch("),
        ("https://discord.com/api/v10", gateway.api),
        ("RESERVE = 100", f"RESERVE = {reserve}"),
        ("time.sleep(6)", f"time.sleep({INTERVAL + 0.5})"),
        ("can_start(1 + RESERVE)", f"can_start({shards} + RESERVE)"),
    )


def bot_source(gateway: Gateway, bot: str, *changes: tuple[str, str], **options: Any) -> str:
    """Return the program that the README puts together, with *bot* at its end."""
    lines = replaced(start_lines(gateway, **options), ("bot.run(token)\n", ""))
    source = lines + block("python", "class Turns:") + bot
    return replaced(source, *changes)


def make_turns(gateway: Gateway, monkeypatch: Any, reserve: int = 100, bot: str = "") -> Any:
    """Return the `turns` of the README, with a short interval."""
    interval = datetime.timedelta(seconds=INTERVAL)
    monkeypatch.setattr(sessions, "IDENTIFY_INTERVAL", interval)
    monkeypatch.setenv("DISCORD_TOKEN", "secret")
    names: dict[str, Any] = {}
    exec(bot_source(gateway, bot, reserve=reserve), names)
    return names["turns"]
