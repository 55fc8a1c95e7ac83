"""The recipes of the README as they stand there, with the libraries they are for, against a stand-in for Discord."""

import asyncio
import concurrent.futures
import contextlib
import datetime
import multiprocessing
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
import time
import types
import urllib.error
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import aiohttp
import hikari
import pytest
import redis
import redis.asyncio
from gateway import Gateway
from redis.backoff import ConstantBackoff
from redis.retry import Retry

import sessions
from sessions import GatewayBotInfo, SessionStartLimit
from test_sessions import FILE, make_info, make_limit

README = FILE.with_name("README.md").read_text(encoding="utf-8")
INTERVAL = 0.4


def block(language: str, part: str) -> str:
    """Return the code block of the README that has *part* in it."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    (source,) = (source for source in blocks if part in source)
    return str(source)


def replaced(source: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert source.count(old) == 1
        source = source.replace(old, new)
    return source


def function(name: str) -> Any:
    """Return the function *name* of the README."""
    namespace: dict[str, Any] = {}
    exec(block("python", f"def {name}("), namespace)
    return namespace[name]


@pytest.fixture
def short_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "IDENTIFY_INTERVAL", datetime.timedelta(seconds=INTERVAL))


@pytest.fixture
def redis_port(tmp_path: pathlib.Path) -> Iterator[int]:
    """Start a Redis server and return where it listens."""
    unpacked = FILE.parent / ".tox" / "redis" / "usr"
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
            stdout=subprocess.DEVNULL,
        ) as process,
        redis.Redis(port=port, retry=Retry(ConstantBackoff(0.1), 100)) as client,
    ):
        client.ping()
        yield port
        process.terminate()


class TestStartScript:
    SOURCE = block("sh", "exec ./start-bot")

    def run(
        self, path: pathlib.Path, gateway: Gateway, token: str = "secret", **replacements: str
    ) -> "tuple[subprocess.CompletedProcess[str], set[str]]":
        """Run it in *path* and return how it ended and what it ran: the bot, or a long sleep."""
        commands = path / "bin"
        commands.mkdir()
        (commands / "python3").symlink_to(sys.executable)
        for command in (commands / "sleep", path / "start-bot"):
            command.write_text(f'#!/bin/sh\necho > "{path}/$(basename "$0") $1.run"\n')
            command.chmod(0o755)
        script = path / "start"
        script.write_text(replaced(self.SOURCE, ("https://discord.com/api/v10", gateway.api), *replacements.items()))
        done = subprocess.run(
            ["sh", script],
            cwd=path,
            env={
                "PATH": f"{commands}:{os.environ['PATH']}",
                "PYTHONPATH": str(FILE.parent),
                "DISCORD_TOKEN": token,
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done, {file.name[:-4].strip() for file in path.glob("*.run")}

    def test_bot_is_started_where_the_reserve_is_left(self, tmp_path: pathlib.Path) -> None:
        with Gateway(shards=9, max_concurrency=1, remaining=200).running() as gateway:
            done, ran = self.run(tmp_path, gateway)
        assert (done.returncode, done.stderr, ran) == (0, "", {"sleep 6", "start-bot"})

    def test_bot_is_not_started_where_it_is_not(self, tmp_path: pathlib.Path) -> None:
        with Gateway(shards=9, max_concurrency=1, remaining=199).running() as gateway:
            done, ran = self.run(tmp_path, gateway)
        assert (done.returncode, ran) == (1, {"sleep 60"})
        assert "Too few sessions are left: 199, and 200 are needed." in done.stdout

    def test_wrong_token_is_told_and_waited_for(self, tmp_path: pathlib.Path) -> None:
        with Gateway(shards=9, max_concurrency=1).running() as gateway:
            done, ran = self.run(tmp_path, gateway, token="wrong")
        assert (done.returncode, ran) == (1, {"sleep 60"})
        assert done.stderr.endswith(": missing; the answer says '401: Unauthorized'\n")

    def test_request_that_hangs_is_given_up(self, tmp_path: pathlib.Path) -> None:
        with Gateway(shards=9, max_concurrency=1, hangs=True).running() as gateway:
            done, ran = self.run(tmp_path, gateway, **{"--max-time 30": "--max-time 1"})
        assert (done.returncode, ran) == (1, {"sleep 60"})
        assert "cannot read b'' as JSON" in done.stderr


class TestFetch:
    def test_it_returns_the_answer(self) -> None:
        with Gateway(shards=9, max_concurrency=16).running() as gateway:
            assert function("fetch")("secret\n", f"{gateway.api}/gateway/bot").to_payload() == gateway.answer

    def test_it_raises_what_discord_refuses(self) -> None:
        with Gateway(shards=9, max_concurrency=1).running() as gateway:
            with pytest.raises(urllib.error.HTTPError, match="401") as caught:
                function("fetch")("wrong", f"{gateway.api}/gateway/bot")
            caught.value.close()


BOT = block("python", "class Bot(")
HOOK = BOT[BOT.index("        lock = self.locks") : BOT.index("\n\nBot(")]
STALL = (
    "class Bot(",
    """
async def stalling(self, acquire=redis.asyncio.lock.Lock.acquire):  # as a loop does that has much else to do
    await acquire(self)
    time.sleep(0.8)


redis.asyncio.lock.Lock.acquire = stalling


class Bot(""",
)


def with_redis(port: int) -> list[tuple[str, str]]:
    """Return what the README changes in the bot for several processes."""
    return [
        (HOOK, textwrap.indent(block("python", "self.redis.lock("), "        ")),
        ("import discord\n", "import discord\nimport redis.asyncio\nimport time\n"),
        ("        self.limit =", f"        self.redis = redis.asyncio.Redis(port={port})\n        self.limit ="),
    ]


class TestDiscordPy:
    # What else than the address of Discord and the interval differs from a bot's own process is in its arguments.
    DRIVER = textwrap.dedent("""
        import datetime, runpy, sys
        import discord, yarl
        import sessions
        file, api, url, interval = sys.argv[1:]
        sessions.IDENTIFY_INTERVAL = datetime.timedelta(seconds=float(interval))
        discord.http.Route.BASE = api
        discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(url)
        runpy.run_path(file, run_name="__main__")
    """)

    @pytest.fixture
    def start(self, tmp_path: pathlib.Path) -> Iterator[Any]:
        """Return a function that starts a process with the bot, its source changed by *pairs*."""
        with contextlib.ExitStack() as processes:

            def start(gateway: Gateway, *pairs: tuple[str, str]) -> "subprocess.Popen[str]":
                file = tmp_path / f"bot{len(list(tmp_path.iterdir()))}.py"
                file.write_text(replaced(BOT, *pairs))
                process = subprocess.Popen(
                    [sys.executable, "-c", self.DRIVER, file, gateway.api, gateway.url, str(INTERVAL)],
                    env={**os.environ, "DISCORD_TOKEN": "secret", "PYTHONPATH": str(FILE.parent)},
                    stderr=subprocess.PIPE,
                    text=True,
                )
                processes.enter_context(process)
                processes.callback(process.kill)
                return process

            yield start

    def test_all_shards_start_by_key(self, start: Any) -> None:
        with Gateway(shards=8, max_concurrency=4, interval=INTERVAL).running() as gateway:
            start(gateway)
            gateway.wait_until_ready(seconds=15)  # where discord.py would take 37
        assert (gateway.broken, sorted(gateway.identifies)) == ([], list(range(8)))

    def test_lost_sessions_and_closed_connections_keep_the_rule(self, start: Any) -> None:
        lost = {"fails": Counter({2: 1}), "loses": Counter([0, 1, 5, 5])}
        with Gateway(shards=8, max_concurrency=4, interval=INTERVAL, **lost).running() as gateway:  # type: ignore[arg-type]
            start(gateway)
            gateway.wait_until_ready()
        assert (gateway.broken, len(gateway.identifies)) == ([], 8 + 1 + 4)

    def test_process_that_is_restarted_at_once_keeps_the_rule(self, start: Any) -> None:
        with Gateway(shards=4, max_concurrency=2, interval=INTERVAL * 2).running() as gateway:
            process = start(gateway)
            gateway.wait_until(lambda: len(gateway.identifies) >= 3)
            process.kill()
            gateway.ready.clear()
            start(gateway)
            gateway.wait_until_ready()
        assert gateway.broken == []

    @pytest.mark.parametrize(
        ("arguments", "remaining", "message"),
        [
            ("", 7, "8 sessions needed, 7 left until "),
            ("shard_count=16, ", 15, "16 sessions needed, 15 left until "),
        ],
    )
    def test_it_refuses_to_start_with_too_few_sessions(
        self, start: Any, arguments: str, remaining: int, message: str
    ) -> None:
        with Gateway(shards=8, max_concurrency=4, remaining=remaining).running() as gateway:
            process = start(gateway, ("Bot(intents", f"Bot({arguments}intents"))
            assert process.wait(timeout=60) == 1
        assert message in process.stderr.read()
        assert gateway.identifies == []

    def test_processes_take_turns_with_redis(self, start: Any, redis_port: int) -> None:
        with Gateway(shards=8, max_concurrency=2, interval=INTERVAL, loses=Counter([1, 4])).running() as gateway:
            for shard_ids, changes in (([0, 1, 2, 3], [STALL]), ([4, 5, 6, 7], [])):
                arguments = ("Bot(intents", f"Bot(shard_count=8, shard_ids={shard_ids}, intents")
                start(gateway, arguments, *with_redis(redis_port), *changes)
            gateway.wait_until_ready()
        assert (gateway.broken, sorted(gateway.identifies)) == ([], [0, 1, 1, 2, 3, 4, 4, 5, 6, 7])


class Client:
    """A gateway client of one's own: what the README leaves to its reader."""

    def __init__(self, gateway_url: str, limit: SessionStartLimit, lock: Any) -> None:
        self.gateway_url, self.limit, self.lock = gateway_url, limit, lock
        self.sockets: dict[int, aiohttp.ClientWebSocketResponse] = {}
        self.errors = 0

    async def identify(self, shard_id: int) -> None:
        self.sockets[shard_id] = connected = await self.http.ws_connect(self.gateway_url)
        assert (await connected.receive_json())["op"] == 10
        await connected.send_json({"op": 2, "d": {"shard": [shard_id, 12]}})
        if (await connected.receive_json())["op"] != 0:
            raise ConnectionError

    async def run_shard(self, shard_id: int) -> None:
        identify_in_turn = function("identify_in_turn")
        while True:
            try:
                await identify_in_turn(self.lock(self.limit.rate_limit_key(shard_id)), self.identify, shard_id)
            except (ConnectionError, TypeError, ValueError):  # what aiohttp raises where the other side closes
                self.errors += 1
                continue
            if (await self.sockets[shard_id].receive()).type is not aiohttp.WSMsgType.TEXT:
                return

    async def run(self, shard_ids: Any, seconds: float = 60) -> None:
        """Run the shards for some *seconds* at most."""
        async with aiohttp.ClientSession() as self.http:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.gather(*map(self.run_shard, shard_ids)), seconds)


def own_locks() -> Any:
    return defaultdict(asyncio.Lock).__getitem__


@pytest.mark.usefixtures("short_interval")
class TestOwnClient:
    def started(self, gateway: Gateway, *runs: float) -> Client:
        """Let clients run one after the other for so many seconds each, and the last one until all is ready."""
        limit = GatewayBotInfo.from_payload(gateway.answer).session_start_limit
        for seconds in runs:
            asyncio.run(Client(gateway.url, limit, own_locks()).run(range(gateway.shards), seconds))
            gateway.ready.clear()
        client = Client(gateway.url, limit, own_locks())

        async def run() -> None:
            task = asyncio.ensure_future(client.run(range(gateway.shards)))
            await asyncio.to_thread(gateway.wait_until_ready)
            task.cancel()

        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(run())
        return client

    def test_all_shards_start_by_key(self) -> None:
        with Gateway(shards=12, max_concurrency=4, interval=INTERVAL).running() as gateway:
            self.started(gateway)
        assert (gateway.broken, sorted(gateway.identifies)) == ([], list(range(12)))

    def test_retries_and_lost_sessions_keep_the_rule(self) -> None:
        lost = {"fails": Counter([3, 3, 7]), "loses": Counter([0, 1, 1, 6])}
        with Gateway(shards=12, max_concurrency=4, interval=INTERVAL, **lost).running() as gateway:  # type: ignore[arg-type]
            client = self.started(gateway)
        assert (gateway.broken, len(gateway.identifies), client.errors) == ([], 12 + 3 + 4, 3)

    def test_cancellations_and_restarts_keep_the_rule(self) -> None:
        with Gateway(shards=12, max_concurrency=4, interval=INTERVAL).running() as gateway:
            self.started(gateway, INTERVAL * 1.5, INTERVAL * 0.5, INTERVAL * 2.05)
        assert gateway.broken == []
        assert len(gateway.identifies) > 12

    def test_errors_get_through(self) -> None:
        async def identify(shard_id: int) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            asyncio.run(function("identify_in_turn")(asyncio.Lock(), identify, 0))

    def test_identify_that_hangs_is_given_up(self) -> None:
        async def hang(lock: asyncio.Lock) -> None:
            namespace: dict[str, Any] = {}
            exec(replaced(block("python", "def identify_in_turn("), ("timeout=30", "timeout=0.1")), namespace)
            with pytest.raises(asyncio.TimeoutError):
                await namespace["identify_in_turn"](lock, lambda shard_id: asyncio.sleep(60), 0)
            assert not lock.locked()

        asyncio.run(hang(asyncio.Lock()))


def run_process(gateway_url: str, redis_port: int, shard_ids: list[int]) -> None:
    """Run some shards, with locks in Redis."""
    sessions.IDENTIFY_INTERVAL = datetime.timedelta(seconds=INTERVAL)

    async def main() -> None:
        async with redis.asyncio.Redis(port=redis_port) as client:

            def lock(key: int) -> Any:
                return client.lock(f"mybot:identify:{key}", timeout=3)  # 60 where the time limit is met

            await Client(gateway_url, make_limit(max_concurrency=2), lock).run(shard_ids)

    asyncio.run(main())


def test_processes_of_ones_own_take_turns_with_redis_even_if_one_is_killed(redis_port: int) -> None:
    spawn = multiprocessing.get_context("spawn")
    with Gateway(shards=12, max_concurrency=2, interval=INTERVAL).running() as gateway:
        shares = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
        processes = [spawn.Process(target=run_process, args=(gateway.url, redis_port, share)) for share in shares]
        for process in processes:
            process.start()
        gateway.wait_until(lambda: not gateway.ready.isdisjoint(shares[1]))
        processes[1].kill()
        gateway.ready -= {4, 5, 6, 7}
        processes.append(spawn.Process(target=run_process, args=(gateway.url, redis_port, shares[1])))
        processes[-1].start()
        gateway.wait_until_ready()
        for process in processes:
            process.kill()
            process.join()
    assert gateway.broken == []
    assert len(gateway.identifies) > 12


@pytest.mark.usefixtures("short_interval")
@pytest.mark.parametrize(("shard_ids", "order"), [(None, [{0, 1}, {2, 3}, {4}]), ([4, 3, 0], [{0, 3}, {4}])])
def test_threads_start_one_bucket_after_the_other(shard_ids: Any, order: list[set[int]]) -> None:
    started: list[tuple[float, int]] = []
    lock = threading.Lock()

    def start_shard(shard_id: int) -> None:
        with lock:
            started.append((time.monotonic(), shard_id))

    begin = time.monotonic()
    info = make_info(shard_count=5, session_start_limit=make_limit(max_concurrency=2))
    names = {"info": info, "shard_ids": shard_ids, "start_shard": start_shard}
    code = block("python", "info.buckets(shard_ids)")
    exec(code, {**names, "time": time, "concurrent": concurrent, "IDENTIFY_INTERVAL": sessions.IDENTIFY_INTERVAL})
    assert [shard_id for ids in order for shard_id in sorted(ids)] == sorted(
        (shard_id for _, shard_id in started), key=lambda shard_id: [shard_id in ids for ids in order].index(True)
    )
    for turn, ids in enumerate(order, start=1):
        assert all(moment >= begin + turn * INTERVAL for moment, shard_id in started if shard_id in ids)


def test_objects_of_hikari_become_ours() -> None:
    async def read(gateway: Gateway) -> Any:
        app = hikari.RESTApp(url=gateway.api)
        await app.start()
        namespace: dict[str, Any] = {"GatewayBotInfo": GatewayBotInfo, "SessionStartLimit": SessionStartLimit}
        source = block("python", "bot.rest.fetch_gateway_bot_info()")
        exec("async def convert(bot):\n" + textwrap.indent(source + "return info\n", "    "), namespace)
        async with app.acquire("secret", hikari.TokenType.BOT) as rest:
            info = await namespace["convert"](types.SimpleNamespace(rest=rest))
        await app.close()
        return info

    with Gateway(shards=9, max_concurrency=16).running() as gateway:
        assert asyncio.run(read(gateway)).to_payload() == gateway.answer


WRAPPED = {
    "bot.rest.fetch_gateway_bot_info()": "async def convert(bot: hikari.RESTAware) -> None:",
    "info.buckets(shard_ids)": (
        "def start(info: GatewayBotInfo, shard_ids: list[int], start_shard: Callable[[int], object]) -> None:"
    ),
}
"""The snippets of the README, with what is around them in a program."""


def test_recipes_satisfy_mypy_strict(tmp_path: pathlib.Path) -> None:
    imports = "import concurrent.futures\nimport time\nimport hikari\nfrom sessions import SessionStartLimit\n"
    whole = [block("python", part) for part in ("def fetch(", "def identify_in_turn(", "class Bot(")]
    parts = [f"{header}\n{textwrap.indent(block('python', part), '    ')}" for part, header in WRAPPED.items()]
    (tmp_path / "recipes.py").write_text("\n".join([imports, *whole, *parts]))
    (tmp_path / "with_redis.py").write_text(replaced(BOT, *with_redis(6379)))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", tmp_path / "cache", tmp_path],
        env={**os.environ, "MYPYPATH": str(FILE.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
