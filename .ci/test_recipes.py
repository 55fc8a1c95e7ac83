"""The recipes of the README as they stand there, against a stand-in for Discord."""

import asyncio
import json
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
from readme import block, replaced
from recipes import INTERVAL, make_turns, redis_lines, start_lines

from sessions import GatewayBotInfo, PayloadError, SessionStartLimit
from test_sessions import BLOCKED, FILE, RATE_LIMITED

CLOUDFLARE = "<html>error code: 1015</html>"

# What refuses a look, and for how many seconds no other is made.
REFUSALS = {
    "rate limit": (429, json.dumps(RATE_LIMITED), {"Retry-After": "82721"}, 82721),
    "header alone": (429, CLOUDFLARE, {"Retry-After": "46263"}, 46263),
    "block without a time": (429, json.dumps({"message": BLOCKED}), {}, 60),
    "wrong token": (401, '{"message": "401: Unauthorized", "code": 0}', {}, 60),
    "failure": (502, "<html>502</html>", {}, 60),
    "no JSON": (200, "<html>", {}, 60),
}


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
            gateway: Gateway, *pairs: tuple[str, str], shell: str = "sh"
        ) -> "subprocess.Popen[str]":
            there = ("https://discord.com/api/v10", gateway.api)
            file = ("/path/to/sessions.py", str(FILE))
            (tmp_path / "start").write_text(replaced(self.SOURCE, there, file, *pairs))
            path = f"{commands}:{os.environ['PATH']}"
            temporary = tmp_path / "tmp"
            temporary.mkdir()
            with (
                (tmp_path / "report").open("w") as report,
                (tmp_path / "errors").open("w") as errors,
            ):
                return subprocess.Popen(
                    [*shell.split(), "start"],
                    cwd=tmp_path,
                    env={"PATH": path, "DISCORD_TOKEN": "secret", "TMPDIR": str(temporary)},
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
        assert list((tmp_path / "tmp").iterdir()) == []

    def test_bot_is_not_started_where_it_is_not(self, start: Any, tmp_path: pathlib.Path) -> None:
        with Gateway(shards=9, max_concurrency=1, remaining=108).running() as gateway:
            process = start(gateway)
            process.wait(timeout=60)
        assert process.returncode == 1
        assert self.files(tmp_path) == {"sleep 60"}
        assert "109 are needed: 9 to start and 100 in reserve." in (tmp_path / "report").read_text()
        assert list((tmp_path / "tmp").iterdir()) == []

    @pytest.mark.parametrize(
        ("status", "text", "headers", "seconds"), REFUSALS.values(), ids=REFUSALS
    )
    def test_refusal_is_told_and_waited_for(
        self,
        start: Any,
        tmp_path: pathlib.Path,
        status: int,
        text: str,
        headers: dict[str, str],
        seconds: int,
    ) -> None:
        gateway = Gateway(shards=9, max_concurrency=1, refusals=[(status, text, headers)])
        with gateway.running():
            process = start(gateway)
            process.wait(timeout=60)
        assert process.returncode == 1
        assert self.files(tmp_path) == {f"sleep {seconds}"}
        errors = (tmp_path / "errors").read_text()
        assert f"The next look is in {seconds} s.\n" in errors
        if text.startswith("{"):
            assert repr(json.loads(text)["message"]) in errors

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


class Started(Exception):  # noqa: N818
    """The bot would run now."""


class TestPythonBot:
    @pytest.fixture
    def waits(self, monkeypatch: Any) -> list[float]:
        """Return for how many seconds the lines have waited, which takes no time here."""
        waits: list[float] = []
        monkeypatch.setattr(time, "sleep", waits.append)
        return waits

    def start(self, gateway: Gateway, **options: Any) -> GatewayBotInfo:
        """Run the start lines until the bot would run."""

        def run(token: str) -> None:
            raise Started

        names: dict[str, Any] = {"bot": types.SimpleNamespace(run=run)}
        lines = start_lines(gateway, **options)
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setenv("DISCORD_TOKEN", "sec\r\nret\n")  # as a file may hold it
            with pytest.raises(Started):
                exec(lines, names)
        info: GatewayBotInfo = names["info"]
        return info

    def fetch(self, api: str) -> GatewayBotInfo:
        """Call the `fetch` of the README."""
        lines = start_lines(types.SimpleNamespace(api=api))  # type: ignore[arg-type]
        names: dict[str, Any] = {}
        exec(lines.split("def look(")[0], names)
        info: GatewayBotInfo = names["fetch"]("secret")
        return info

    @pytest.mark.parametrize(("sharded", "needed"), [(False, 101), (True, 109)])
    def test_bot_is_started_where_the_reserve_is_left(
        self, waits: list[float], sharded: bool, needed: int
    ) -> None:
        with Gateway(shards=9, max_concurrency=16, remaining=needed).running() as gateway:
            info = self.start(gateway, sharded=sharded)
            assert info.to_payload() == gateway.answer
        assert waits == [INTERVAL + 0.5]

    @pytest.mark.parametrize(("sharded", "needed"), [(False, 101), (True, 109)])
    def test_bot_is_not_started_before_the_reset_where_it_is_not(
        self, waits: list[float], sharded: bool, needed: int, capsys: Any
    ) -> None:
        gateway = Gateway(shards=9, max_concurrency=1, remaining=needed - 1)
        gateway.refusals = [(200, json.dumps(gateway.answer), {})]
        gateway.remaining = 1000  # the reset comes before the second look
        with gateway.running():
            self.start(gateway, sharded=sharded)
        assert waits == [INTERVAL + 0.5, 14_400]
        message = f"only {needed - 1} sessions are left: the next look is in 4:00:00\n"
        assert capsys.readouterr().out == message

    @pytest.mark.parametrize(
        ("status", "text", "headers", "seconds"),
        [*REFUSALS.values(), (429, json.dumps(RATE_LIMITED), {}, 82721)],
        ids=[*REFUSALS, "body alone"],
    )
    def test_refusal_is_told_and_waited_for(
        self,
        waits: list[float],
        status: int,
        text: str,
        headers: dict[str, str],
        seconds: int,
        capsys: Any,
    ) -> None:
        gateway = Gateway(shards=9, max_concurrency=1, refusals=[(status, text, headers)])
        with gateway.running():
            self.start(gateway)
        assert waits == [INTERVAL + 0.5, seconds]
        output = capsys.readouterr().out
        assert output.isascii()
        assert output.count("\n") == 1
        if text.startswith("{"):
            assert json.loads(text)["message"] in output

    def test_failure_is_waited_for(self, waits: list[float], monkeypatch: Any) -> None:
        gateway = Gateway(shards=9, max_concurrency=1, redirects_to="http://127.0.0.1:9")

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            gateway.redirects_to = "" if seconds == 60 else gateway.redirects_to

        monkeypatch.setattr(time, "sleep", sleep)
        with gateway.running():
            self.start(gateway)
        assert waits == [INTERVAL + 0.5, 60]

    def test_fetch_tells_a_refusal_from_a_failure(self) -> None:
        refusal = (429, json.dumps(RATE_LIMITED), {"Retry-After": "82721"})
        gateway = Gateway(shards=9, max_concurrency=1, refusals=[refusal])
        with gateway.running(), pytest.raises(PayloadError, match="being rate limited"):
            self.fetch(gateway.api)
        with pytest.raises(urllib.error.URLError):
            self.fetch("http://127.0.0.1:9")

    def test_token_is_sent_to_no_other_host(self) -> None:
        seen = []

        async def other(request: web.Request) -> web.Response:
            seen.append(request.headers.get("Authorization"))
            return web.json_response({"url": "wss://other", "shards": 1})

        with Gateway(shards=9, max_concurrency=1).running(web.get("/other", other)) as gateway:
            gateway.redirects_to = f"http://localhost:{gateway.port}/other"
            with pytest.raises(PayloadError, match="session_start_limit: missing"):
                self.fetch(gateway.api)
        assert seen == [None]

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda each: each.name)
    def test_stop_is_obeyed_while_it_waits(self, number: signal.Signals) -> None:
        with Gateway(shards=1, max_concurrency=1, remaining=0).running() as gateway:
            process = subprocess.Popen(
                [sys.executable, "-c", start_lines(gateway)],
                env={"PYTHONPATH": str(FILE.parent), "DISCORD_TOKEN": "secret"},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            assert process.stdout is not None
            assert process.stdout.readline().startswith("only 0 sessions are left: ")
            process.send_signal(number)
            process.communicate(timeout=10)
        assert process.returncode != 0
        assert len(gateway.looked) == 1


class Client:
    """A gateway client of one's own, as the README tells its reader to write it."""

    def __init__(self, url: str, turns: Any) -> None:
        self.url, self.turns = url, turns

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
    def test_retries_and_lost_sessions_keep_the_rule(self, monkeypatch: Any) -> None:
        gateway = Gateway(shards=12, max_concurrency=4, interval=INTERVAL)
        gateway.fails, gateway.loses = Counter([3, 3, 7]), Counter([0, 1, 1, 6])
        with gateway.running():
            client = Client(gateway.url, make_turns(gateway, monkeypatch))
            asyncio.run(client.run(range(12), gateway.all_are_ready))
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
        gateway = Gateway(shards=12, max_concurrency=4, interval=INTERVAL, remaining=30)
        gateway.loses = Counter(dict.fromkeys(range(12), 10**6))
        with gateway.running():
            client = Client(gateway.url, make_turns(gateway, monkeypatch, reserve=5))
            asyncio.run(client.run(range(12), lambda: gateway.remaining <= 5))
            asyncio.run(client.run(range(12), lambda: False, seconds=5))
        assert (gateway.broken, gateway.remaining, len(gateway.looked)) == ([], 5, 1)


def run_process(url: str, api: str, redis_port: int, shard_ids: list[int]) -> None:
    """Run some of twelve shards, with turns in Redis."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        gateway = types.SimpleNamespace(api=api)
        turns = make_turns(gateway, monkeypatch, redis_lines(shard_ids, redis_port))  # type: ignore[arg-type]
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
            processes[1].join()
            time.sleep(0.2)
            gateway.ready -= set(shares[1])
            start(gateway, redis_server.port, shares[1])
            gateway.wait_until_ready(seconds=60)
        assert gateway.broken == []
        assert len(gateway.identifies) > 14

    def test_they_go_on_without_redis(self, start: Any, redis_server: Any, capfd: Any) -> None:
        gateway = Gateway(shards=8, max_concurrency=2, interval=INTERVAL)
        gateway.loses = Counter(dict.fromkeys(range(8), 2))
        with gateway.running():
            for share in ([0, 1, 2, 3], [4, 5, 6, 7]):
                start(gateway, redis_server.port, share)
            gateway.wait_until(lambda: len(gateway.identifies) > 4)
            redis_server.stop()
            gateway.wait_until_ready(seconds=100)
        assert "turns without Redis: " in capfd.readouterr().out


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
