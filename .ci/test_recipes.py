"""The recipes of the README that need more than the standard library, against what they are meant for."""

import asyncio
import functools
import multiprocessing
import os
import pathlib
import re
import shutil
import socket
import subprocess
import threading
import time
import typing
from collections import defaultdict
from collections.abc import Iterator
from http.server import ThreadingHTTPServer

import discord
import pytest
import redis
import redis.asyncio
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from test_sessions import README, Discord, make_info, make_limit, payload, recipe

SHARES = [[0, 4], [1, 5], [2, 3]]
"""The shards of three processes. At a concurrency of 2, those of the last one have different keys."""


@pytest.fixture
def redis_port(tmp_path: pathlib.Path) -> Iterator[int]:
    """Start a Redis server and return where it listens."""
    unpacked = pathlib.Path(__file__).parents[1] / ".tox" / "redis" / "usr"
    server = shutil.which("redis-server") or shutil.which("redis-server", path=unpacked / "bin")
    if server is None:
        pytest.skip("needs redis-server")
    libraries = os.pathsep.join(map(str, unpacked.glob("lib/*")))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        subprocess.Popen(
            [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)],
            env={**os.environ, "LD_LIBRARY_PATH": libraries},
        ) as process,
        redis.Redis(port=port, retry=Retry(ConstantBackoff(0.1), 100)) as client,
    ):
        client.ping()
        yield port
        process.terminate()


def run_process(port: int, shard_ids: list[int], identified: typing.Any) -> None:
    """Start *shard_ids* by the recipes and put when each sent its IDENTIFY to *identified*."""

    async def identify(shard_id: int) -> None:
        await asyncio.sleep(shard_id % 3 / 10)  # connecting takes some time, and so does READY
        identified.put((shard_id, time.monotonic()))
        await asyncio.sleep(shard_id % 2 / 10)

    async def main() -> None:
        async with redis.asyncio.Redis(port=port) as client:
            info = make_info(shard_count=6, session_start_limit=make_limit(max_concurrency=2))
            in_turn = functools.partial(recipe("identify_in_turn"), client, info.session_start_limit, identify)
            await recipe("start")(info, in_turn, shard_ids)

    asyncio.run(main())


def test_processes_take_turns_with_a_lock_in_redis(redis_port: int) -> None:
    spawn = multiprocessing.get_context("spawn")
    identified = spawn.SimpleQueue()
    processes = [spawn.Process(target=run_process, args=(redis_port, share, identified)) for share in SHARES]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    times = defaultdict(list)
    shard_ids = []
    while not identified.empty():
        shard_id, moment = identified.get()
        shard_ids.append(shard_id)
        times[shard_id % 2].append(moment)
    assert sorted(shard_ids) == [0, 1, 2, 3, 4, 5]
    for moments in times.values():
        first, second, third = sorted(moments)
        assert (second - first >= 5, third - second >= 5) == (True, True)


USER = {"id": "1", "username": "bot", "discriminator": "0", "avatar": None}
APPLICATION = {"id": "1", "name": "bot", "icon": None, "description": "", "bot_public": True, "owner": USER}


class DiscordWithLogin(Discord):
    """Lets a client log in as well."""

    answers: typing.ClassVar = {
        **Discord.answers,
        "/api/v10/users/@me": USER,
        "/api/v10/oauth2/applications/@me": {
            **APPLICATION,
            "bot_require_code_grant": False,
            "verify_key": "",
            "flags": 0,
        },
    }


def test_discord_py_fetches_the_answer_in_its_setup_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    (line,) = (block for block in blocks if "self.http" in block)
    namespace: dict[str, typing.Any] = {}
    exec(
        "import discord\nfrom sessions import GatewayBotInfo\n"
        f"class Bot(discord.Client):\n  async def setup_hook(self):\n    {line}    self.info = info\n",
        namespace,
    )

    async def log_in() -> typing.Any:
        async with namespace["Bot"](intents=discord.Intents.none()) as bot:
            await bot.login("secret")
            return bot.info

    with ThreadingHTTPServer(("127.0.0.1", 0), DiscordWithLogin) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(discord.http.Route, "BASE", f"http://127.0.0.1:{server.server_port}/api/v10")
        assert asyncio.run(log_in()).to_payload() == payload()
        server.shutdown()
