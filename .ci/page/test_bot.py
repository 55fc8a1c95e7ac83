"""The bots of the page, with the library that is installed, against a stand-in for Discord."""

import contextlib
import importlib.util
import re
import subprocess
import sys
from collections import Counter
from importlib import metadata

import pytest
from blocks import CLASS, PAGE, block, save
from conftest import environment
from gateway import Gateway

LIBRARY = next(filter(importlib.util.find_spec, ["disnake", "nextcord", "discord"]))
BASES = ["commands.Bot", f"{LIBRARY}.Client", "commands.AutoShardedBot"]
BASES.append(f"{LIBRARY}.AutoShardedClient")

# Only the address of Discord, the pace and the times of a look are not those of a bot.
DRIVER = """
import importlib, logging, runpy, socket, sys
import yarl
logging.basicConfig()
library, api, url, pace, name = sys.argv[1:]
sys.path[0] = ""
import turns
turns.PACE, turns.FRESH, turns.PATIENCE = float(pace), 3.0, 1.0
http = importlib.import_module(library + ".http")
http.Route.BASE = http.Route.API_BASE_URL = api
gateway = importlib.import_module(library + ".gateway")
gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(url)
socket.gethostname = lambda: name
runpy.run_path("bot.py", run_name="__main__")
"""


def bot_lines(base):
    """Return a bot that takes turns."""
    prefix = "" if base.endswith("Client") else '"!", '
    return f"""\
import asyncio
import {LIBRARY}
from {LIBRARY}.ext import commands
from look import RESERVE, look
from turns import Turns

TOKEN = "secret"


{block("python", "class Bot(").replace("(commands.Bot)", f"({base})")}
bot = Bot({prefix}intents={LIBRARY}.Intents.default())
bot.run(TOKEN)
"""


ONE = bot_lines("commands.Bot")
SHARDED = bot_lines("commands.AutoShardedBot")
POD = f"""\
import asyncio
import {LIBRARY}
from {LIBRARY}.ext import commands
from look import RESERVE, look

TOKEN = "secret"
intents = {LIBRARY}.Intents.default()

{CLASS.replace("commands.Bot", "commands.AutoShardedBot")}
{block("python", "socket.gethostname()")}
bot.run(TOKEN)
"""


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a process with a bot."""
    with contextlib.ExitStack() as processes:

        def start(gateway, bot, name="", pace=1, **variables):
            directory = tmp_path / f"bot{len(list(tmp_path.glob('bot*')))}"
            directory.mkdir()
            save(directory)
            (directory / "bot.py").write_text(bot)
            log = processes.enter_context((directory / "log").open("w+"))
            arguments = [LIBRARY, f"{gateway.host}/api/v10", gateway.url, str(pace), name]
            process = subprocess.Popen(
                [sys.executable, "-c", DRIVER, *arguments],
                cwd=directory,
                env=environment(gateway, **variables),
                stdout=log,
                stderr=log,
            )
            processes.enter_context(process)
            processes.callback(process.kill)
            return process

        yield start


def test_version_that_the_page_names_is_the_one_that_is_tried():
    (name,) = set(metadata.packages_distributions()[LIBRARY])
    assert re.findall(rf"\[{re.escape(name)}\]\(\S+\) ([\d.]+\d)", PAGE) == [metadata.version(name)]


@pytest.mark.parametrize("base", BASES)
def test_bot_starts_its_shards_by_key(start, base):
    shards = [*range(8)] if "AutoSharded" in base else [0]
    gateway = Gateway(shards=8, max_concurrency=4)
    with gateway.running():
        start(gateway, bot_lines(base))
        gateway.wait_until(lambda: gateway.ready == {*shards}, 15)  # discord.py alone takes 37
    assert (gateway.broken, sorted(gateway.identifies)) == ([], shards)


def test_lost_sessions_and_closed_connections_keep_the_rule(start):
    gateway = Gateway(shards=8, max_concurrency=4)
    gateway.fails, gateway.loses = Counter({2: 1}), Counter([0, 1, 5, 5])
    with gateway.running():
        start(gateway, SHARDED)
        gateway.wait_until_ready(seconds=60)
    assert (gateway.broken, len(gateway.identifies)) == ([], 8 + 1 + 4)


def test_process_that_is_restarted_at_once_keeps_the_rule(start):
    gateway = Gateway(shards=4, max_concurrency=2, interval=0.8)
    with gateway.running():
        process = start(gateway, SHARDED)
        gateway.wait_until(lambda: len(gateway.identifies) >= 3)
        process.kill()
        gateway.ready.clear()
        start(gateway, SHARDED)
        gateway.wait_until_ready()
    assert gateway.broken == []


@pytest.mark.parametrize("bot", [ONE, SHARDED], ids=["one shard", "sharded"])
def test_reserve_is_left_however_many_sessions_are_lost(start, bot, tmp_path):
    gateway = Gateway(shards=8, max_concurrency=4, remaining=20)
    gateway.loses = Counter(dict.fromkeys(range(8), 10**6))
    log = tmp_path / "bot0" / "log"
    with gateway.running():
        start(gateway, bot, RESERVE="5")
        text = "too few sessions are left until "
        gateway.wait_until(lambda: text in log.read_text(), seconds=60)
    assert (gateway.broken, gateway.remaining) == ([], 5)


def test_pods_take_turns_even_if_one_is_killed(start, redis_url):
    def start_pod(number):
        return start(gateway, POD, f"mybot-{number}", 0.3, REDIS_URL=redis_url)

    gateway = Gateway(shards=24, max_concurrency=8, loses=Counter([1, 14]))
    with gateway.running():
        _, _, process = map(start_pod, range(3))
        gateway.wait_until(lambda: not gateway.ready.isdisjoint(range(16, 24)))
        process.kill()
        process.wait()
        gateway.ready -= {*range(16, 24)}
        start_pod(2)
        gateway.wait_until_ready(seconds=90)
    assert gateway.broken == []
    assert len(gateway.identifies) > 26


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_bot_satisfies_type_checkers(tmp_path, base, checker):
    save(tmp_path)
    (tmp_path / "bot.py").write_text(bot_lines(base))
    (tmp_path / "pod.py").write_text(POD)
    settings = '{"typeCheckingMode": "strict", "reportUnusedImport": false}'  # see bot_lines
    (tmp_path / "pyrightconfig.json").write_text(settings)
    options = {
        "mypy": ["--strict", "--config-file=", "bot.py", "pod.py"],
        "pyright": ["--pythonpath", sys.executable],
    }
    command = [sys.executable, "-m", checker, *options[checker]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
