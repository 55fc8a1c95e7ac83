"""The bots of the guide, with the library that is installed, against a stand-in for Discord."""

import contextlib
import importlib.util
import json
import pathlib
import re
import signal
import subprocess
import sys
from collections import Counter
from importlib import metadata

import pytest

from conftest import TOO_FEW, make_environment, report_sessions, save
from gateway import Gateway
from look import RESERVE
from pages import GUIDE, get_block

LIBRARY = next(filter(importlib.util.find_spec, ["disnake", "nextcord", "discord"]))
RUN_BOT = pathlib.Path(__file__).with_name("run_bot.py")

BASES = ["commands.Bot", f"{LIBRARY}.Client", "commands.AutoShardedBot"]
BASES.append(f"{LIBRARY}.AutoShardedClient")
bases = pytest.mark.parametrize("base", BASES)
ONE, SHARDED = "commands.Bot", "commands.AutoShardedBot"

LOOK = "bot = make_bot()\n" + get_block(GUIDE, "python", "look(TOKEN)  # right above")
LOOK_ASYNC = "async def main():\n    await make_bot().start(TOKEN)\n\n\n"
LOOK_ASYNC += get_block(GUIDE, "python", "which awaits")
RUN = "bot = make_bot()\n" + get_block(GUIDE, "python", "guard(bot)  # right above")
LOOP = get_block(GUIDE, "python", "while True:")
ASYNC = get_block(GUIDE, "python", "async def main")
POD = get_block(GUIDE, "python", "socket.gethostname()")


def make_program(base, lines, body="pass"):
    """Return a bot with a base class, the *body* of its class, and the lines that start it."""
    prefix = "" if base.endswith("Client") else '"!", '
    return f"""\
import asyncio
import traceback
from typing import Any

import {LIBRARY}
from {LIBRARY}.ext import commands

from look import look
from turns import Turns

TOKEN = "secret"


class MyBot({base}):
    {body}


def make_bot(**options: Any) -> MyBot:
    return MyBot({prefix}intents={LIBRARY}.Intents.default(), **options)


{lines}
"""


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a process with a bot. Its output is in the file `log`."""
    with contextlib.ExitStack() as processes:

        def start(gateway, program, hostname="", pace=1, **variables):
            directory = tmp_path / f"bot{len(list(tmp_path.glob('bot*')))}"
            directory.mkdir()
            save(directory, gateway)
            (directory / "bot.py").write_text(program)
            log = processes.enter_context((directory / "log").open("w+"))
            process = subprocess.Popen(
                [sys.executable, RUN_BOT, LIBRARY, gateway.host, str(pace), hostname],
                cwd=directory,
                env=make_environment(**variables),
                stdout=log,
                stderr=log,
            )
            processes.enter_context(process)
            processes.callback(process.kill)
            return process

        yield start


@pytest.fixture
def read_log(tmp_path):
    """Return a function that reads the output of the first bot."""
    return (tmp_path / "bot0" / "log").read_text


def test_guide_names_the_installed_version():
    (name,) = set(metadata.packages_distributions()[LIBRARY])
    versions = re.findall(rf"\[{re.escape(name)}\]\(\S+\)\s([\d.]+\d)", GUIDE)
    assert versions == [metadata.version(name)]


@bases
def test_shards_start_by_key(start, base):
    shards = [*range(8)] if "AutoSharded" in base else [0]
    gateway = Gateway(shards=8, max_concurrency=4)
    with gateway.running():
        start(gateway, make_program(base, RUN))
        gateway.wait_until(lambda: gateway.ready == {*shards}, 15)  # discord.py alone takes 37 s
    assert (gateway.early, sorted(gateway.identifies)) == ([], shards)


def test_lost_sessions_keep_the_rule(start):
    gateway = Gateway(shards=8, max_concurrency=4)
    gateway.closes, gateway.losses = Counter({2: 1}), Counter([0, 1, 5, 5])
    with gateway.running():
        start(gateway, make_program(SHARDED, RUN))
        gateway.wait_until_ready(seconds=60)
    assert (gateway.early, len(gateway.identifies)) == ([], 8 + 1 + 4)


def test_restarted_process_keeps_the_rule(start):
    gateway = Gateway(shards=4, max_concurrency=2, interval=0.8)
    with gateway.running():
        process = start(gateway, make_program(SHARDED, RUN))
        gateway.wait_until(lambda: len(gateway.identifies) >= 3)
        process.kill()
        gateway.ready.clear()
        start(gateway, make_program(SHARDED, RUN))
        gateway.wait_until_ready()
    assert gateway.early == []


@pytest.mark.parametrize("base", [ONE, SHARDED])
def test_reserve_is_left_if_sessions_are_lost(start, base, read_log):
    gateway = Gateway(shards=8, max_concurrency=4, remaining=20)
    gateway.losses = Counter(dict.fromkeys(range(8), 10**6))
    with gateway.running():
        start(gateway, make_program(base, RUN), RESERVE="5")
        message = f"ConnectionError: {TOO_FEW}"
        gateway.wait_until(lambda: message in read_log(), seconds=60)
    assert (gateway.early, gateway.remaining) == ([], 5)


HOOK = """\
async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:
        print("own hook", shard_id, initial, flush=True)
        await super().before_identify_hook(shard_id, initial=initial)
"""


def test_own_hook_is_called_first(start, read_log):
    gateway = Gateway(shards=4, max_concurrency=4)
    with gateway.running():
        start(gateway, make_program(SHARDED, RUN, HOOK))
        gateway.wait_until_ready(4)  # the library's own hook would take 15 s
    assert [line for line in read_log().splitlines() if line.startswith("own hook")] == [
        f"own hook {shard_id} True" for shard_id in range(4)
    ]


@pytest.mark.parametrize("lines", [LOOK, LOOK_ASYNC], ids=["run", "asyncio"])
def test_bot_starts_after_look(start, lines, read_log):
    gateway = Gateway(shards=1)
    with gateway.running():
        start(gateway, make_program(ONE, lines))
        gateway.wait_until_ready()
    assert report_sessions(1000, 1 + RESERVE) in read_log()


GUARDED_LOOP = LOOP.replace("look(TOKEN)", "Turns(TOKEN, look(TOKEN)).guard(bot)")


@pytest.mark.parametrize("loop", [LOOP, GUARDED_LOOP], ids=["look", "turns"])
def test_loop_of_the_guide_leaves_the_reserve(start, loop, read_log):
    gateway = Gateway(shards=1, remaining=8, closes=Counter({0: 100}), close_code=4014)
    with gateway.running():
        start(gateway, make_program(ONE, loop), RESERVE="5")
        message = report_sessions(5, 6)
        gateway.wait_until(lambda: message in read_log(), seconds=60)
    assert (gateway.early, gateway.remaining) == ([], 5)


def test_ctrl_c_ends_the_loop_of_the_guide(start):
    gateway = Gateway(shards=1)
    with gateway.running():
        process = start(gateway, make_program(ONE, GUARDED_LOOP))
        gateway.wait_until_ready()
        process.send_signal(signal.SIGINT)
        process.wait(timeout=5)
    assert gateway.identifies == [0]


def test_program_with_asyncio_takes_turns(start):
    gateway = Gateway(shards=8, max_concurrency=4, losses=Counter([1, 5, 5]))
    with gateway.running():
        start(gateway, make_program(SHARDED, ASYNC))
        gateway.wait_until_ready()
    assert (gateway.early, len(gateway.identifies)) == ([], 8 + 3)


@pytest.mark.parametrize("base", [ONE, SHARDED])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
def test_signal_ends_the_bot_while_a_request_hangs(start, base, number):
    gateway = Gateway(shards=1, losses=Counter({0: 1}), lifetime=3)
    with gateway.running():
        process = start(gateway, make_program(base, RUN))
        gateway.wait_until(lambda: gateway.identifies)
        gateway.is_silent = True
        gateway.wait_until_ready()  # after the loss, with a request that is not answered
        assert gateway.silent_requests == 1
        process.send_signal(number)
        process.wait(timeout=5)


def test_pods_take_turns_if_one_is_killed(start, redis_url):
    def start_pod(number):
        program = make_program(SHARDED, POD)
        return start(gateway, program, f"mybot-{number}", 0.3, REDIS_URL=redis_url)

    gateway = Gateway(shards=24, max_concurrency=8, losses=Counter([1, 14]))
    with gateway.running():
        _, _, process = map(start_pod, range(3))
        gateway.wait_until(lambda: not gateway.ready.isdisjoint(range(16, 24)))
        process.kill()
        process.wait()
        gateway.ready -= {*range(16, 24)}
        start_pod(2)
        gateway.wait_until_ready(seconds=90)
    assert gateway.early == []
    assert len(gateway.identifies) > 26


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_programs_of_the_guide_satisfy_type_checkers(tmp_path, checker):
    save(tmp_path, Gateway(shards=1))
    for number, base in enumerate(BASES):
        (tmp_path / f"bot{number}.py").write_text(make_program(base, RUN))
    (tmp_path / "pod.py").write_text(make_program(SHARDED, POD))
    settings = {"typeCheckingMode": "strict", "reportUnusedImport": False}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    options = {
        "mypy": ["--strict", "--config-file=", "."],
        "pyright": ["--pythonpath", sys.executable],
    }
    command = [sys.executable, "-m", checker, *options[checker]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
