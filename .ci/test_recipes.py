"""The recipes of the README as they stand there, against a stand-in for Discord."""

import asyncio
import multiprocessing
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import types
import urllib.error
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import hikari
import pytest
from aiohttp import web
from gateway import Gateway
from readme import INTERVAL, block, make_turns, replaced, start_lines

from sessions import GatewayBotInfo, SessionStartLimit
from test_sessions import FILE


class TestStartScript:
    SOURCE = block("sh", "exec ./start-bot")

    @pytest.fixture
    def start(self, tmp_path: pathlib.Path) -> Any:
        """Return a function that starts the script; `files` tells what it has run."""
        commands = tmp_path / "bin"
        commands.mkdir()
        (commands / "python3").symlink_to(sys.executable)
        for command in (commands / "sleep", tmp_path / "start-bot"):
            command.write_text(f'#!/bin/sh\necho > "{tmp_path}/$(basename "$0") $1.run"\n')
            command.chmod(0o755)

        def start(
            gateway: Gateway, *pairs: tuple[str, str], token: str = "secret", shell: str = "sh"
        ) -> "subprocess.Popen[str]":
            there = ("https://discord.com/api/v10", gateway.api)
            file = ("/path/to/sessions.py", str(FILE))
            (tmp_path / "start").write_text(replaced(self.SOURCE, there, file, *pairs))
            path = f"{commands}:{os.environ['PATH']}"
            with (
                (tmp_path / "report").open("w") as report,
                (tmp_path / "errors").open("w") as errors,
            ):
                return subprocess.Popen(
                    [*shell.split(), "start"],
                    cwd=tmp_path,
                    env={"PATH": path, "DISCORD_TOKEN": token},
                    stdout=report,
                    stderr=errors,
                )

        return start

    def files(self, path: pathlib.Path) -> set[str]:
        return {file.name[:-4].strip() for file in path.glob("*.run")}

    def test_bot_is_started_where_the_reserve_is_left(
        self, start: Any, tmp_path: pathlib.Path
    ) -> None:
        with Gateway(shards=9, max_concurrency=1, remaining=109).running() as gateway:
            process = start(gateway)
            process.wait(timeout=60)
        assert process.returncode == 0
        assert (tmp_path / "errors").read_text() == ""
        assert self.files(tmp_path) == {"sleep 6", "start-bot"}

    def test_bot_is_not_started_where_it_is_not(self, start: Any, tmp_path: pathlib.Path) -> None:
        with Gateway(shards=9, max_concurrency=1, remaining=108).running() as gateway:
            process = start(gateway)
            process.wait(timeout=60)
        assert process.returncode == 1
        assert self.files(tmp_path) == {"sleep 60"}
        assert "109 are needed: 9 to start and 100 in reserve." in (tmp_path / "report").read_text()

    def test_wrong_token_is_told_and_waited_for(self, start: Any, tmp_path: pathlib.Path) -> None:
        with Gateway(shards=9, max_concurrency=1).running() as gateway:
            process = start(gateway, token="wrong")
            process.wait(timeout=60)
        assert process.returncode == 1
        assert self.files(tmp_path) == {"sleep 60"}
        assert (
            (tmp_path / "errors")
            .read_text()
            .endswith(": missing; the answer says '401: Unauthorized'\n")
        )

    def test_request_that_hangs_is_given_up(self, start: Any, tmp_path: pathlib.Path) -> None:
        with Gateway(shards=9, max_concurrency=1, hangs=True).running() as gateway:
            process = start(gateway, ("--max-time 30", "--max-time 1"))
            process.wait(timeout=60)
        assert process.returncode == 1
        assert self.files(tmp_path) == {"sleep 60"}
        assert "cannot read b'' as JSON" in (tmp_path / "errors").read_text()

    @pytest.mark.parametrize("shell", ["dash", "bash"])
    @pytest.mark.parametrize("first", [False, True], ids=["", "process 1"])
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda each: each.name)
    @pytest.mark.parametrize(
        ("phase", "remaining"), [("curl", 0), ("sleep 6", 1000), ("sleep 60", 0)]
    )
    def test_stop_is_obeyed_at_once_in_every_phase(
        self,
        start: Any,
        tmp_path: pathlib.Path,
        shell: str,
        first: bool,
        number: signal.Signals,
        phase: str,
        remaining: int,
    ) -> None:
        if shutil.which(shell) is None:
            pytest.skip(f"there is no {shell}")
        unshare = ["unshare", "--pid", "--fork", "--kill-child"]
        if first:
            if subprocess.run([*unshare, "true"], stderr=subprocess.DEVNULL).returncode != 0:
                pytest.skip("unshare is not allowed to make a process 1")
            shell = " ".join([*unshare, shell])
        sleep = tmp_path / "bin" / "sleep"
        sleep.write_text(sleep.read_text() + "exec /bin/sleep 20\n")
        hangs = phase == "curl"
        with Gateway(
            shards=1, max_concurrency=1, remaining=remaining, hangs=hangs
        ).running() as gateway:
            process = start(gateway, shell=shell)
            gateway.wait_until(
                lambda: gateway.waiting > 0 if hangs else phase in self.files(tmp_path)
            )
            shell_id = process.pid
            if first:
                children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
                shell_id = int(children.read_text())
            begin = time.monotonic()
            os.kill(shell_id, number)
            assert process.wait(timeout=10) == 0
            assert time.monotonic() - begin < 2
        assert "start-bot" not in self.files(tmp_path)


class TestPythonBot:
    def fetch(self, api: str, token: str = "secret") -> GatewayBotInfo:
        """Call the `fetch` of the README."""
        source = start_lines(types.SimpleNamespace(api=api))  # type: ignore[arg-type]
        names: dict[str, Any] = {}
        exec(source[: source.index("RESERVE = ")], names)
        info: GatewayBotInfo = names["fetch"](token)
        return info

    def test_fetch_returns_the_answer(self) -> None:
        with Gateway(shards=9, max_concurrency=16).running() as gateway:
            answer = self.fetch(gateway.api).to_payload()
            assert answer["shards"] == 9
            assert answer["session_start_limit"]["max_concurrency"] == 16

    def test_fetch_raises_what_discord_refuses(self) -> None:
        with Gateway(shards=9, max_concurrency=1).running() as gateway:
            with pytest.raises(urllib.error.HTTPError, match="401") as caught:
                self.fetch(gateway.api, "wrong")
            caught.value.close()

    def test_fetch_raises_that_there_is_no_network(self) -> None:
        with pytest.raises(urllib.error.URLError):
            self.fetch("http://127.0.0.1:9")

    def test_token_with_a_line_break_works(self) -> None:
        with Gateway(shards=9, max_concurrency=1).running() as gateway:
            assert self.fetch(gateway.api, "sec\r\nret\n").shard_count == 9

    def test_token_is_sent_to_no_other_host(self) -> None:
        seen = []

        async def other(request: web.Request) -> web.Response:
            seen.append(request.headers.get("Authorization"))
            return web.json_response({"url": "wss://other", "shards": 1})

        with Gateway(shards=9, max_concurrency=1).running(web.get("/other", other)) as gateway:
            gateway.redirects_to = f"http://localhost:{gateway.port}/other"
            with pytest.raises(ValueError, match="session_start_limit: missing"):
                self.fetch(gateway.api)
        assert seen == [None]

    @pytest.mark.parametrize(
        ("remaining", "status", "ran"), [(101, 0, "the bot runs\n"), (100, 1, "")]
    )
    def test_bot_runs_only_where_the_reserve_is_left(
        self, remaining: int, status: int, ran: str
    ) -> None:
        run = "bot = type('Bot', (), {'run': lambda self, token: print('the bot runs')})()\n"
        with Gateway(shards=9, max_concurrency=1, remaining=remaining).running() as gateway:
            done = subprocess.run(
                [sys.executable, "-c", run + start_lines(gateway)],
                env={"PYTHONPATH": str(FILE.parent), "DISCORD_TOKEN": "secret"},
                capture_output=True,
                text=True,
            )
        assert (done.returncode, done.stdout) == (status, ran)
        assert ("only 100 sessions are left until " in done.stderr) is (status == 1)


class Client:
    """A gateway client of one's own, as the README tells its reader to write it."""

    def __init__(self, url: str, turns: Any) -> None:
        self.url, self.turns = url, turns
        self.refused = 0

    async def connect(self, http: aiohttp.ClientSession, shard_id: int) -> None:
        """Connect and read, until the session is lost."""
        async with http.ws_connect(self.url) as socket:
            assert (await socket.receive_json())["op"] == 10
            await self.turns.take(shard_id)
            await socket.send_json({"op": 2, "d": {"shard": [shard_id, 12]}})
            async for message in socket:
                if message.json()["op"] == 9:
                    return

    async def run_shard(self, http: aiohttp.ClientSession, shard_id: int) -> None:
        while True:
            try:
                await self.connect(http, shard_id)
            except OSError:
                self.refused += 1
                await asyncio.sleep(0.5)

    async def run(self, shard_ids: Any, until: Callable[[], bool], seconds: float = 60) -> None:
        """Run the shards until a condition holds, for some *seconds* at most."""
        async with aiohttp.ClientSession() as http:
            tasks = [asyncio.ensure_future(self.run_shard(http, each)) for each in shard_ids]
            end = time.monotonic() + seconds
            while not until() and time.monotonic() < end:
                await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(result, asyncio.CancelledError) for result in results), results


class TestOwnClient:
    def run(self, gateway: Gateway, monkeypatch: Any, reserve: int = 100) -> None:
        """Run a client until all shards are ready."""
        with gateway.running():
            client = Client(gateway.url, make_turns(gateway, monkeypatch, reserve))
            asyncio.run(client.run(range(gateway.shards), gateway.all_are_ready))
        assert gateway.all_are_ready()

    def test_all_shards_start_by_key(self, monkeypatch: Any) -> None:
        gateway = Gateway(shards=12, max_concurrency=4, interval=INTERVAL)
        self.run(gateway, monkeypatch)
        assert (gateway.broken, sorted(gateway.identifies)) == ([], list(range(12)))

    def test_retries_and_lost_sessions_keep_the_rule(self, monkeypatch: Any) -> None:
        gateway = Gateway(shards=12, max_concurrency=4, interval=INTERVAL)
        gateway.fails, gateway.loses = Counter([3, 3, 7]), Counter([0, 1, 1, 6])
        self.run(gateway, monkeypatch)
        assert (gateway.broken, len(gateway.identifies)) == ([], 12 + 3 + 4)

    def test_clients_that_are_restarted_at_once_keep_the_rule(self, monkeypatch: Any) -> None:
        gateway = Gateway(shards=12, max_concurrency=4, interval=INTERVAL * 2)
        with gateway.running():
            for seconds in (0.1, 0.9, 2, 60):
                gateway.ready.clear()
                client = Client(gateway.url, make_turns(gateway, monkeypatch))
                asyncio.run(client.run(range(12), gateway.all_are_ready, seconds))
        assert gateway.broken == []
        assert len(gateway.identifies) > 12

    def test_reserve_is_left_however_many_sessions_are_lost(self, monkeypatch: Any) -> None:
        gateway = Gateway(shards=12, max_concurrency=4, interval=INTERVAL, remaining=30, looks=2)
        gateway.loses = Counter(dict.fromkeys(range(12), 10**6))
        with gateway.running():
            client = Client(gateway.url, make_turns(gateway, monkeypatch, reserve=5))
            asyncio.run(client.run(range(12), lambda: client.refused > 60))
        assert (gateway.broken, gateway.remaining) == ([], 5)
        assert gateway.refused == 0

    def test_all_shards_come_back_after_the_reset(self, monkeypatch: Any) -> None:
        numbers = {"remaining": 20, "total": 90, "resets_in": 12}
        gateway = Gateway(shards=12, max_concurrency=4, interval=INTERVAL, **numbers)
        gateway.loses = Counter(dict.fromkeys(range(12), 1))
        self.run(gateway, monkeypatch, reserve=5)
        assert (gateway.broken, gateway.least) == ([], 5)

    def test_wrong_token_is_told_from_what_another_try_helps(self, monkeypatch: Any) -> None:
        async def page(request: web.Request) -> web.Response:
            return web.Response(text="<html>502</html>")

        gateway = Gateway(shards=1, max_concurrency=1, interval=INTERVAL)
        with gateway.running(web.get("/page", page)):
            turns = make_turns(gateway, monkeypatch)
            time.sleep(INTERVAL + 0.6)
            gateway.redirects_to = f"http://127.0.0.1:{gateway.port}/page"
            with pytest.raises(ConnectionError):
                asyncio.run(turns.take_session())
            asyncio.run(turns.take_session())  # by the last numbers: a failure is not repeated
            gateway.redirects_to, gateway.token = "", "another"
            time.sleep(INTERVAL + 0.6)
            with pytest.raises(RuntimeError, match="the token is not valid"):
                asyncio.run(turns.take_session())


def run_process(url: str, api: str, redis_port: int, shard_ids: list[int]) -> None:
    """Run some of twelve shards, with turns in Redis."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        here = ("redis.asyncio.Redis()", f"redis.asyncio.Redis(port={redis_port})")
        bot = replaced(block("python", "class RedisTurns("), here)
        turns = make_turns(types.SimpleNamespace(api=api), monkeypatch, bot=bot)  # type: ignore[arg-type]
        asyncio.run(Client(url, turns).run(shard_ids, lambda: False, 60))


class TestSeveralProcesses:
    @pytest.fixture
    def start(self) -> Iterator[Any]:
        """Return a function that starts a process with some shards."""
        spawn = multiprocessing.get_context("spawn")
        processes = []

        def start(gateway: Gateway, redis_port: int, shard_ids: list[int]) -> Any:
            arguments = (gateway.url, gateway.api, redis_port, shard_ids)
            process = spawn.Process(target=run_process, args=arguments)
            process.start()
            processes.append(process)
            return process

        yield start
        for process in processes:
            process.kill()
            process.join()

    def test_they_take_turns_even_if_one_is_killed(self, start: Any, redis_server: Any) -> None:
        shares = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
        gateway = Gateway(shards=12, max_concurrency=2, interval=INTERVAL, loses=Counter([1, 5]))
        with gateway.running():
            processes = [start(gateway, redis_server.port, share) for share in shares]
            gateway.wait_until(lambda: not gateway.ready.isdisjoint(shares[1]))
            processes[1].kill()
            gateway.ready -= set(shares[1])
            start(gateway, redis_server.port, shares[1])
            gateway.wait_until_ready(seconds=100)  # the lock of a killed process is kept for 60
        assert gateway.broken == []
        assert len(gateway.identifies) > 14

    def test_they_go_on_if_redis_goes_away_and_comes_back(
        self, start: Any, redis_server: Any
    ) -> None:
        gateway = Gateway(shards=8, max_concurrency=2, interval=INTERVAL)
        gateway.loses = Counter(dict.fromkeys(range(8), 3))
        with gateway.running():
            for share in ([0, 1, 2, 3], [4, 5, 6, 7]):
                start(gateway, redis_server.port, share)
            gateway.wait_until(lambda: len(gateway.identifies) > 4)
            redis_server.stop()
            time.sleep(3)
            redis_server.start()
            gateway.wait_until_ready(seconds=100)
        assert gateway.broken == []


def test_public_attributes_of_hikari_are_here_with_the_same_types() -> None:
    async def read(gateway: Gateway) -> hikari.GatewayBotInfo:
        app = hikari.RESTApp(url=gateway.api)
        await app.start()
        async with app.acquire("secret", hikari.TokenType.BOT) as rest:
            info = await rest.fetch_gateway_bot_info()
        await app.close()
        return info

    def types_of(made: object) -> dict[str, type]:
        names = [name for name in dir(made) if not name.startswith("_")]
        return {name: type(getattr(made, name)) for name in names}

    with Gateway(shards=9, max_concurrency=16).running() as gateway:
        theirs = asyncio.run(read(gateway))
        ours = GatewayBotInfo.from_payload(gateway.answer)
    expected = {**types_of(theirs), "session_start_limit": SessionStartLimit}
    assert expected.items() <= types_of(ours).items()
    limit = ours.session_start_limit
    assert types_of(theirs.session_start_limit).items() <= types_of(limit).items()
