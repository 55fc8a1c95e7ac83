"""The recipes of the README as they stand there, against a stand-in for Discord."""

import asyncio
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
from collections import Counter
from collections.abc import Callable
from typing import Any

import aiohttp
import hikari
import pytest
from aiohttp import web
from gateway import Gateway
from readme import block, replaced
from recipes import INTERVAL, make_turns, start_lines

from sessions import GatewayBotInfo, PayloadError, SessionStartLimit
from test_sessions import BLOCKED, FILE, RATE_LIMITED

# What refuses a look, for how many seconds no other is made, and what is told.
REFUSALS = {
    "429": (429, json.dumps(RATE_LIMITED), {"Retry-After": "82721"}, 82721, "rate limited.'"),
    "body alone": (429, json.dumps(RATE_LIMITED), {}, 82721, "ask again in 22:58:41"),
    "header alone": (429, "error code: 1015", {"Retry-After": "100000"}, 100_000, "HTTP Error 429"),
    "no time": (429, json.dumps({"message": BLOCKED}), {}, 60, BLOCKED),
    "401": (401, '{"message": "401: Unauthorized"}', {}, 60, "Unauthorized'; ask again in 0:01:00"),
    "403": (403, "error code: 1010", {}, 60, "HTTP Error 403"),
    "502": (502, "<html>502</html>", {}, 60, "HTTP Error 502"),
    "half": (200, '{"url": "wss://host", "shards": 9}', {}, 60, "session_start_limit: missing"),
    "no JSON": (200, "<html>", {}, 60, "JSONDecodeError"),
}


class TestStartScript:
    @pytest.fixture
    def start(self, tmp_path: pathlib.Path) -> Any:
        """Return a function that starts the script. The bot leaves a file."""
        (tmp_path / "python3").symlink_to(sys.executable)
        (tmp_path / "sessions.py").write_bytes(FILE.read_bytes())
        (tmp_path / "start").write_text(block("sh", "exec ./start-bot"))
        (tmp_path / "start-bot").write_text("#!/bin/sh\ntouch started\n")
        (tmp_path / "start-bot").chmod(0o755)

        def start(gateway: Gateway, *shell: str) -> "subprocess.Popen[str]":
            (tmp_path / "look.py").write_text(start_lines(gateway.api))
            return subprocess.Popen(
                [*(shell or ["sh"]), "start"],
                cwd=tmp_path,
                env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "DISCORD_TOKEN": "secret"},
                stdout=subprocess.PIPE,
                text=True,
            )

        return start

    def test_bot_is_started_after_the_look(self, start: Any, tmp_path: pathlib.Path) -> None:
        with Gateway(shards=9, max_concurrency=1, remaining=109).running() as gateway:
            process = start(gateway)
            process.communicate(timeout=60)
        assert process.returncode == 0
        assert (tmp_path / "started").exists()

    def test_bot_is_not_started_if_the_look_fails(
        self, start: Any, tmp_path: pathlib.Path, monkeypatch: Any
    ) -> None:
        (tmp_path / "sessions.py").unlink()
        with Gateway(shards=9, max_concurrency=1).running() as gateway:
            process = start(gateway)
            process.communicate(timeout=60)
        assert process.returncode == 1
        assert not (tmp_path / "started").exists()

    @pytest.mark.parametrize("shell", ["dash", "bash"])
    @pytest.mark.parametrize("first", [False, True], ids=["", "process 1"])
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda each: each.name)
    @pytest.mark.parametrize("phase", ["the request", "the wait"])
    def test_stop_is_obeyed_at_once(
        self,
        start: Any,
        tmp_path: pathlib.Path,
        shell: str,
        first: bool,
        number: signal.Signals,
        phase: str,
    ) -> None:
        if shutil.which(shell) is None:
            pytest.skip(f"there is no {shell}")
        unshare = ["unshare", "--pid", "--fork", "--kill-child"] if first else []
        if first and subprocess.run([*unshare, "true"], stderr=subprocess.DEVNULL).returncode != 0:
            pytest.skip("unshare is not allowed to make a process 1")
        gateway = Gateway(shards=1, max_concurrency=1, remaining=0, hangs=phase == "the request")
        with gateway.running():
            process = start(gateway, *unshare, shell)
            if gateway.hangs:
                gateway.wait_until(lambda: gateway.waiting > 0)
            else:
                assert process.stdout.readline().startswith("0 sessions are left, ")
            shell_id = process.pid
            if first:
                children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
                shell_id = int(children.read_text())
            begin = time.monotonic()
            os.kill(shell_id, number)
            process.communicate(timeout=10)  # which waits for the look as well
            assert time.monotonic() - begin < 2
        assert process.returncode == 0
        assert not (tmp_path / "started").exists()


class TestPythonBot:
    @pytest.fixture
    def waits(self, monkeypatch: Any) -> list[float]:
        """Return for how many seconds the lines have waited, which takes no time here."""
        waits: list[float] = []

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) > 2:
                pytest.fail(f"they wait again and again: {waits}")

        monkeypatch.setattr(time, "sleep", sleep)
        return waits

    def look(self, lines: str) -> GatewayBotInfo:
        """Run the lines."""
        names: dict[str, Any] = {}
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setenv("DISCORD_TOKEN", "\ufeffsec\u200bret\r\n")  # as a file may hold it
            exec(lines, names)
        info: GatewayBotInfo = names["info"]
        return info

    def fetch(self, lines: str) -> GatewayBotInfo:
        """Call the `fetch` of the lines."""
        names: dict[str, Any] = {}
        exec(lines.split("def look(")[0], names)
        info: GatewayBotInfo = names["fetch"]("secret")
        return info

    @pytest.mark.parametrize("reserve", [None, 10])
    def test_bot_is_started_where_the_reserve_is_left(
        self, waits: list[float], reserve: int | None, monkeypatch: Any
    ) -> None:
        if reserve is not None:
            monkeypatch.setenv("RESERVE", str(reserve))
        needed = 9 + (100 if reserve is None else reserve)
        with Gateway(shards=9, max_concurrency=16, remaining=needed).running() as gateway:
            assert self.look(start_lines(gateway.api)).to_payload() == gateway.answer
        assert waits == [INTERVAL + 0.5]

    @pytest.mark.parametrize(("milliseconds", "seconds"), [(14_400_000, 14_400), (0, 60)])
    def test_bot_is_not_started_before_the_reset_where_it_is_not(
        self, waits: list[float], milliseconds: int, seconds: int, capsys: Any
    ) -> None:
        gateway = Gateway(shards=9, max_concurrency=1, remaining=108, reset_after=milliseconds)
        gateway.refusals = [(200, json.dumps(gateway.answer), {})]
        gateway.remaining = 1000  # the reset comes before the second look
        with gateway.running():
            self.look(start_lines(gateway.api))
        assert waits == [INTERVAL + 0.5, seconds]
        first, second, third = capsys.readouterr().out.splitlines()
        assert first == "108 sessions are left, 109 are needed"
        assert second.startswith("the next look is on ")
        assert third == "1000 sessions are left, 109 are needed"

    @pytest.mark.parametrize(
        ("status", "text", "headers", "seconds", "told"), REFUSALS.values(), ids=REFUSALS
    )
    def test_refusal_is_told_and_waited_for(
        self,
        waits: list[float],
        status: int,
        text: str,
        headers: dict[str, str],
        seconds: int,
        told: str,
        capsys: Any,
    ) -> None:
        gateway = Gateway(shards=9, max_concurrency=1, refusals=[(status, text, headers)])
        with gateway.running():
            self.look(start_lines(gateway.api))
        assert waits == [INTERVAL + 0.5, seconds]
        output = capsys.readouterr().out
        assert output.isascii()
        refusal, when, _ = output.splitlines()
        assert told in refusal
        assert when.startswith("the next look is on ")

    def test_failure_is_waited_for(self, waits: list[float], monkeypatch: Any) -> None:
        gateway = Gateway(shards=9, max_concurrency=1, redirects_to="http://127.0.0.1:9")

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            gateway.redirects_to = "" if seconds == 60 else gateway.redirects_to

        monkeypatch.setattr(time, "sleep", sleep)
        with gateway.running():
            self.look(start_lines(gateway.api))
        assert waits == [INTERVAL + 0.5, 60]

    def test_answer_that_never_comes_is_a_failure(self) -> None:
        with Gateway(shards=9, max_concurrency=1, hangs=True).running() as gateway:
            lines = replaced(start_lines(gateway.api), ("timeout=15", "timeout=0.1"))
            with pytest.raises(TimeoutError):
                self.fetch(lines)

    def test_other_number_of_shards_is_counted(self, waits: list[float], capsys: Any) -> None:
        with Gateway(shards=9, max_concurrency=1).running() as gateway:
            lines = replaced(
                start_lines(gateway.api), ("look(token)", "look(token, shard_count=20)")
            )
            assert self.look(lines).shard_count == 20
        assert "1000 sessions are left, 120 are needed" in capsys.readouterr().out

    def test_fetch_tells_a_refusal_from_a_failure(self) -> None:
        refusal = (429, json.dumps(RATE_LIMITED), {"Retry-After": "82721"})
        gateway = Gateway(shards=9, max_concurrency=1, refusals=[refusal])
        with gateway.running(), pytest.raises(PayloadError, match="being rate limited"):
            self.fetch(start_lines(gateway.api))
        with pytest.raises(urllib.error.URLError):
            self.fetch(start_lines("http://127.0.0.1:9"))

    def test_token_is_sent_to_no_other_host(self) -> None:
        seen = []

        async def other(request: web.Request) -> web.Response:
            seen.append(request.headers.get("Authorization"))
            return web.json_response({"url": "wss://other", "shards": 1})

        with Gateway(shards=9, max_concurrency=1).running(web.get("/other", other)) as gateway:
            gateway.redirects_to = f"http://localhost:{gateway.port}/other"
            with pytest.raises(PayloadError, match="session_start_limit: missing"):
                self.fetch(start_lines(gateway.api))
        assert seen == [None]

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda each: each.name)
    def test_stop_is_obeyed_while_it_waits(self, number: signal.Signals) -> None:
        with Gateway(shards=1, max_concurrency=1, remaining=0).running() as gateway:
            process = subprocess.Popen(
                [sys.executable, "-c", start_lines(gateway.api)],
                env={"PYTHONPATH": str(FILE.parent), "DISCORD_TOKEN": "secret"},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            assert process.stdout is not None
            assert process.stdout.readline().startswith("0 sessions are left, ")
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
