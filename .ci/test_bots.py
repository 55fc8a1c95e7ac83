"""The recipe of the README for discord.py and its forks, with the one of them that is installed."""

import contextlib
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from gateway import Gateway
from readme import block, replaced
from recipes import INTERVAL, redis_lines, start_lines, turn_lines

from test_sessions import FILE

LIBRARY = next(filter(importlib.util.find_spec, ["disnake", "nextcord", "discord"]))
LOOKS = 2 if LIBRARY == "disnake" else 1  # it looks at the numbers itself, once
BASES = ["commands.Bot", f"{LIBRARY}.Client", "commands.AutoShardedBot"]
BASES.append(f"{LIBRARY}.AutoShardedClient")

# Only the address of Discord and the interval differ from a bot's own process.
DRIVER = textwrap.dedent("""
    import datetime, importlib, logging, runpy, sys
    import yarl
    import sessions
    logging.basicConfig()
    library, file, api, url, interval = sys.argv[1:]
    sessions.IDENTIFY_INTERVAL = datetime.timedelta(seconds=float(interval))
    http = importlib.import_module(library + ".http")
    http.Route.BASE = http.Route.API_BASE_URL = api
    gateway = importlib.import_module(library + ".gateway")
    gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(url)
    runpy.run_path(file, run_name="__main__")
""")


def bot_lines(base: str, arguments: str = "", names: str = "") -> str:
    """Return a bot that takes turns."""
    source = re.sub(r"\bdiscord\b", LIBRARY, block("python", "class Bot("))
    prefix = "" if base.endswith("Client") else '"!", '
    return f"""\
import {LIBRARY}
from {LIBRARY}.ext import commands
from look import info, {names}token, turns


{replaced(source, ("(commands.Bot)", f"({base})"))}

bot = Bot({prefix}{arguments}intents={LIBRARY}.Intents.default())
bot.run(token)
"""


ONE = bot_lines("commands.Bot")
SHARDED = bot_lines("commands.AutoShardedBot", "shard_count=info.shard_count, ")
OF_SEVERAL = bot_lines(
    "commands.AutoShardedBot",
    "shard_count=info.shard_count, shard_ids=shard_ids, ",
    names="shard_ids, ",
)


@pytest.fixture
def start(tmp_path: pathlib.Path) -> Iterator[Any]:
    """Return a function that starts a process with a bot."""
    with contextlib.ExitStack() as processes:

        def start(
            gateway: Gateway, bot: str, more: str = "", reserve: int = 100
        ) -> "subprocess.Popen[str]":
            directory = tmp_path / f"bot{len(list(tmp_path.glob('bot*')))}"
            directory.mkdir()
            (directory / "look.py").write_text(start_lines(gateway.api) + turn_lines() + more)
            file = directory / "bot.py"
            file.write_text(bot)
            log = processes.enter_context((directory / "log").open("w+"))
            arguments = [LIBRARY, file, gateway.api, gateway.url, str(INTERVAL)]
            process = subprocess.Popen(
                [sys.executable, "-c", DRIVER, *arguments],
                env={
                    **os.environ,
                    "DISCORD_TOKEN": "secret",
                    "RESERVE": str(reserve),
                    "PYTHONPATH": f"{FILE.parent}:{directory}",
                },
                stdout=log,
                stderr=log,
            )
            processes.enter_context(process)
            processes.callback(process.kill)
            return process

        yield start


@pytest.mark.parametrize("base", BASES[:2])
def test_bot_with_one_shard_starts(start: Any, base: str) -> None:
    gateway = Gateway(shards=9, max_concurrency=1, interval=INTERVAL)
    with gateway.running():
        start(gateway, bot_lines(base))
        gateway.wait_until(lambda: gateway.ready == {0})
    assert gateway.identifies == [0]


@pytest.mark.parametrize("base", BASES[2:])
def test_bot_with_many_shards_starts_them_by_key(start: Any, base: str) -> None:
    gateway = Gateway(shards=8, max_concurrency=4, interval=INTERVAL)
    with gateway.running():
        start(gateway, bot_lines(base, "shard_count=info.shard_count, "))
        gateway.wait_until_ready(seconds=15)  # where discord.py would take 37
    assert (gateway.broken, sorted(gateway.identifies)) == ([], list(range(8)))
    assert len(gateway.looked) == LOOKS  # shard_count spares another


def test_lost_sessions_and_closed_connections_keep_the_rule(start: Any) -> None:
    gateway = Gateway(shards=8, max_concurrency=4, interval=INTERVAL)
    gateway.fails, gateway.loses = Counter({2: 1}), Counter([0, 1, 5, 5])
    with gateway.running():
        start(gateway, SHARDED)
        gateway.wait_until_ready(seconds=60)
    assert (gateway.broken, len(gateway.identifies)) == ([], 8 + 1 + 4)


def test_process_that_is_restarted_at_once_keeps_the_rule(start: Any) -> None:
    gateway = Gateway(shards=4, max_concurrency=2, interval=INTERVAL * 2)
    with gateway.running():
        process = start(gateway, SHARDED)
        gateway.wait_until(lambda: len(gateway.identifies) >= 3)
        process.kill()
        gateway.ready.clear()
        start(gateway, SHARDED)
        gateway.wait_until_ready()
    assert gateway.broken == []


def test_bot_is_refused_and_starts_once_it_is_time(start: Any, tmp_path: pathlib.Path) -> None:
    gateway = Gateway(shards=1, max_concurrency=1, interval=INTERVAL)
    gateway.refusals = [(429, '{"message": "You are being rate limited."}', {"Retry-After": "2"})]
    with gateway.running():
        start(gateway, ONE)
        gateway.wait_until(lambda: gateway.ready == {0})
    refused, answered, *_ = gateway.looked
    assert answered - refused >= 2
    assert "You are being rate limited." in (tmp_path / "bot0" / "log").read_text()


@pytest.mark.parametrize("shards", [1, 8])
def test_reserve_is_left_however_many_sessions_are_lost(
    start: Any, shards: int, tmp_path: pathlib.Path
) -> None:
    gateway = Gateway(shards=shards, max_concurrency=4, interval=INTERVAL, remaining=20)
    gateway.loses = Counter(dict.fromkeys(range(8), 10**6))
    log = tmp_path / "bot0" / "log"
    with gateway.running():
        start(gateway, SHARDED if shards > 1 else ONE, reserve=5)
        text = "too few sessions are left until "
        gateway.wait_until(lambda: gateway.remaining == 5, seconds=60)
        gateway.wait_until(lambda: text in log.read_text(), seconds=60)
        time.sleep(3)
    assert (gateway.broken, gateway.remaining, len(gateway.looked)) == ([], 5, LOOKS)


def test_log_of_a_bot_that_starts_at_the_reserve_stays_small(
    start: Any, tmp_path: pathlib.Path
) -> None:
    gateway = Gateway(shards=2, max_concurrency=2, interval=INTERVAL)
    log = tmp_path / "bot0" / "log"
    with gateway.running():
        start(gateway, SHARDED, NOTHING_LEFT)
        gateway.wait_until(lambda: log.read_text().count("TRY") >= 4, seconds=60)
    assert gateway.identifies == []
    assert log.stat().st_size < 4 * 10_000  # 1 MB in 100 tries


NOTHING_LEFT = """
turns.starts[0] = time.monotonic() + 3600
take = turns.take


async def tell(shard_id: int) -> None:
    print("TRY", flush=True)
    await take(shard_id)


turns.take = tell
"""


class TestSeveralProcesses:
    SHARES = ([0, 1, 2, 3], [4, 5, 6, 7])

    def start(self, start: Any, gateway: Gateway, server: Any, shard_ids: list[int]) -> Any:
        return start(gateway, OF_SEVERAL, redis_lines(shard_ids, server.port))

    def test_they_take_turns_even_if_one_is_killed(self, start: Any, redis_server: Any) -> None:
        gateway = Gateway(shards=8, max_concurrency=2, interval=INTERVAL, loses=Counter([1, 4]))
        with gateway.running():
            _, process = [self.start(start, gateway, redis_server, each) for each in self.SHARES]
            gateway.wait_until(lambda: not gateway.ready.isdisjoint(self.SHARES[1]))
            process.kill()
            process.wait()
            time.sleep(INTERVAL)
            gateway.ready -= {*self.SHARES[1]}
            self.start(start, gateway, redis_server, self.SHARES[1])
            gateway.wait_until_ready(seconds=60)
        assert gateway.broken == []
        assert len(gateway.identifies) > 10

    def test_they_go_on_without_redis(
        self, start: Any, redis_server: Any, tmp_path: pathlib.Path
    ) -> None:
        gateway = Gateway(shards=8, max_concurrency=2, interval=INTERVAL)
        gateway.loses = Counter(dict.fromkeys(range(8), 2))
        with gateway.running():
            for each in self.SHARES:
                self.start(start, gateway, redis_server, each)
            gateway.wait_until(lambda: len(gateway.identifies) > 10, seconds=60)
            redis_server.stop()
            gateway.wait_until_ready(seconds=120)
        assert gateway.broken == []
        logs = "".join(log.read_text() for log in tmp_path.glob("bot*/log"))
        assert "no turns from Redis: " in logs


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_recipe_satisfies_type_checkers(tmp_path: pathlib.Path, base: str, checker: str) -> None:
    lines = start_lines("https://host") + turn_lines() + redis_lines([0], 6379)
    (tmp_path / "look.py").write_text(lines)
    (tmp_path / "bot.py").write_text(bot_lines(base, names="shard_ids, "))
    settings = {
        "typeCheckingMode": "strict",
        "include": ["bot.py", "look.py"],
        "extraPaths": [str(FILE.parent)],
    }
    settings["reportUnusedImport"] = False  # not every base needs all that is imported
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    options = {
        "mypy": ["--strict", "--config-file=", "bot.py"],
        "pyright": ["--pythonpath", sys.executable],
    }
    done = subprocess.run(
        [sys.executable, "-m", checker, *options[checker]],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(FILE.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
