"""The recipes of the README that need more than the standard library, against what they are meant for."""

import asyncio
import functools
import http.server
import itertools
import json
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
import urllib.error
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import discord
import pytest
import redis
import redis.asyncio
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from test_sessions import FILE, make_info, make_limit, payload

README = FILE.with_name("README.md")


def recipe(name: str) -> Any:
    """Return the function *name* of the README."""
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    (source,) = (block for block in blocks if f"def {name}(" in block)
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    return namespace[name]


class Discord(http.server.BaseHTTPRequestHandler):
    """Answers as Discord does."""

    answers: typing.ClassVar = {"/api/v10/gateway/bot": payload()}

    def do_GET(self) -> None:
        if not self.headers["User-Agent"].startswith("DiscordBot ("):
            self.answer(403, "error code: 1010", "text/plain")
        elif self.headers["Authorization"] != "Bot secret":
            self.answer(401, {"message": "401: Unauthorized", "code": 0})
        elif self.path not in self.answers:
            self.answer(404, {"message": "404: Not Found", "code": 0})
        else:
            self.answer(200, self.answers[self.path])

    def answer(self, status: int, body: object, content_type: str = "application/json") -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def discord_url() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Discord) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/api/v10/gateway/bot"
        server.shutdown()
        thread.join()


class TestRecipes:
    def test_fetch_returns_the_answer(self, discord_url: str) -> None:
        assert recipe("fetch")("secret", discord_url).to_payload() == payload()

    def test_fetch_takes_a_token_with_its_line_end(self, discord_url: str) -> None:
        assert recipe("fetch")("secret\n", discord_url).to_payload() == payload()

    def test_fetch_passes_on_why_discord_refuses(self, discord_url: str) -> None:
        with pytest.raises(ValueError, match=r"; the answer says '401: Unauthorized'$"):
            recipe("fetch")("wrong", discord_url)

    def test_fetch_raises_what_a_proxy_refuses(self, discord_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Discord, "do_GET", lambda handler: handler.answer(502, "Bad Gateway", "text/html"))
        with pytest.raises(urllib.error.HTTPError, match="502") as caught:
            recipe("fetch")("secret", discord_url)
        caught.value.close()

    def started(self, monkeypatch: pytest.MonkeyPatch, shard_ids: Any = None, fails: int = -1) -> tuple[Any, list[Any]]:
        """Return what start() returns, and the ids in the order in which it starts them with the seconds it waits."""
        info = make_info(shard_count=5, session_start_limit=make_limit(max_concurrency=2))
        events: list[Any] = []

        async def log(event: Any) -> None:
            events.append(event)
            if event == fails:
                raise OSError

        monkeypatch.setattr(asyncio, "sleep", log)
        return asyncio.run(recipe("start")(info, log, shard_ids)), events

    def test_start_waits_before_each_bucket(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.started(monkeypatch) == ([], [5.0, 0, 1, 5.0, 2, 3, 5.0, 4])

    def test_start_takes_a_share(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.started(monkeypatch, [4, 3, 0]) == ([], [5.0, 0, 3, 5.0, 4])

    def test_start_goes_on_after_a_failure_and_returns_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.started(monkeypatch, fails=2) == ([2], [5.0, 0, 1, 5.0, 2, 3, 5.0, 4])

    @pytest.mark.parametrize("processes", [1, 2, 3, 16])
    def test_shares_are_all_shards_and_have_no_key_in_common(self, processes: int) -> None:
        info = make_info(shard_count=48, session_start_limit=make_limit(max_concurrency=16))
        shares = [recipe("share")(info, process, processes) for process in range(processes)]
        keys = [{shard_id % 16 for shard_id in share} for share in shares]
        assert sorted(itertools.chain(*shares)) == list(range(48))
        assert sorted(itertools.chain(*keys)) == list(range(16))


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

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), DiscordWithLogin) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(discord.http.Route, "BASE", f"http://127.0.0.1:{server.server_port}/api/v10")
        assert asyncio.run(log_in()).to_payload() == payload()
        server.shutdown()
