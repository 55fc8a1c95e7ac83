"""`look.py` and the start script of the page, as they are, against a stand-in for Discord."""

import http.client
import importlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from unittest import mock

import pytest
from aiohttp import web
from conftest import environment
from gateway import Gateway

from sessions import PayloadError
from test_sessions import BLOCKED, RATE_LIMITED

TELLING = json.dumps(RATE_LIMITED)

# What refuses a look, for how many seconds no other is made, and what is told.
REFUSALS = {
    "429": (429, TELLING, {"Retry-After": "82721"}, 82721, "ask again in 22:58:41"),
    "body alone": (429, TELLING, {}, 82721, "rate limited.'; ask again in 22:58:41"),
    "header alone": (429, "error code: 1015", {"Retry-After": "100000"}, 100_000, "HTTP Error 429"),
    "no time in the body": (429, '{"retry_after": null}', {"Retry-After": "80"}, 80, "0:01:20"),
    "date": (429, TELLING, {"Retry-After": "Fri, 27 Nov 2026 13:12:00 GMT"}, 82721, "22:58:41"),
    "half a body": (429, TELLING[:-9], {"Retry-After": "80"}, 80, "HTTP Error 429"),
    "null": (429, "null", {"Retry-After": "80"}, 80, "HTTP Error 429"),
    "no time": (429, json.dumps({"message": BLOCKED}), {}, 60, BLOCKED),
    "at once": (429, '{"retry_after": 0.3}', {}, 1, "HTTP Error 429"),
    "for ever": (429, '{"retry_after": 1e12}', {}, 7 * 86_400, "HTTP Error 429"),
    "401": (401, '{"message": "401: Unauthorized"}', {}, 60, "'401: Unauthorized'"),
    "403": (403, "error code: 1010", {}, 60, "HTTP Error 403"),
    "502": (502, "<html>502</html>", {}, 60, "HTTP Error 502"),
    "no answer": (200, '{"url": "wss://host", "shards": 9}', {}, 60, "limit: missing"),
    "HTML": (200, "<html>", {}, 60, "JSONDecodeError"),
}


class Time:
    """A time of day that passes while the look waits, and at no other time."""

    def __init__(self):
        self.now, self.waits, self.sleeps_of_the_machine = 1.7e9, list[float](), 0.0

    def sleep(self, seconds):
        self.waits.append(seconds)
        self.now += seconds + self.sleeps_of_the_machine
        if sum(self.waits) > 1e6:
            pytest.fail("it waits for ever")


@pytest.fixture
def passing(monkeypatch):
    """Return the time that passes."""
    passing = Time()
    monkeypatch.setattr(time, "sleep", passing.sleep)
    monkeypatch.setattr(time, "time", lambda: passing.now)
    return passing


@pytest.fixture
def load(bot_directory, monkeypatch):
    """Return a function that imports `look.py`, which takes a gateway for Discord."""
    monkeypatch.syspath_prepend(str(bot_directory))
    request = urllib.request.Request

    def load(gateway):
        def make(url, **options):
            return request(url.replace("https://discord.com", gateway.host), **options)

        monkeypatch.setattr(urllib.request, "Request", make)
        return importlib.import_module("look")

    yield load
    sys.modules.pop("look", None)


class TestLook:
    def test_import_does_nothing(self, bot_directory):
        code = "import look, turns; print(look.RESERVE)"
        command = [sys.executable, "-c", code]
        reserve = subprocess.check_output(
            command, cwd=bot_directory, env={"RESERVE": ""}, timeout=5
        )
        assert reserve == b"100\n"

    @pytest.mark.parametrize(
        ("variable", "reserve"), [(None, 100), ("", 100), ("10", 10), ("0", 1)], ids=str
    )
    def test_answer_is_returned_where_the_reserve_is_left(
        self, load, passing, variable, reserve, monkeypatch, capsys
    ):
        if variable is not None:
            monkeypatch.setenv("RESERVE", variable)
        with Gateway(shards=9, max_concurrency=16, remaining=9 + reserve).running() as gateway:
            info = load(gateway).look("\ufeffsec\u200bret\r\n")  # as a file may hold it
        assert info.to_payload() == gateway.answer
        assert passing.waits == [6]
        assert capsys.readouterr().out.endswith(f" {9 + reserve} are needed\n")

    @pytest.mark.parametrize(("milliseconds", "seconds"), [(14_400_000, 14_400), (0, 60)])
    def test_bot_is_not_started_before_the_reset_where_it_is_not(
        self, load, passing, milliseconds, seconds, capsys
    ):
        gateway = Gateway(shards=9, max_concurrency=1, remaining=108, reset_after=milliseconds)
        gateway.refusals = [(200, json.dumps(gateway.answer), {})]
        gateway.remaining = 1000  # the reset comes before the second look
        with gateway.running():
            load(gateway).look("secret")
        assert sum(passing.waits) == 6 + seconds
        first, second, third = capsys.readouterr().out.splitlines()
        assert first == "108 sessions are left, 109 are needed"
        assert second == f"the next look is on {time.ctime(1.7e9 + 6 + seconds)}"
        assert third == "1000 sessions are left, 109 are needed"

    @pytest.mark.parametrize(
        ("status", "text", "headers", "seconds", "told"), REFUSALS.values(), ids=REFUSALS
    )
    def test_refusal_is_told_and_waited_for(
        self, load, passing, status, text, headers, seconds, told, capsys
    ):
        gateway = Gateway(shards=9, max_concurrency=1, refusals=[(status, text, headers)])
        with gateway.running():
            load(gateway).look("secret")
        assert (sum(passing.waits), len(gateway.looked)) == (6 + seconds, 2)
        output = capsys.readouterr().out
        assert output.isascii()
        refusal, when, _ = output.splitlines()
        assert told in refusal
        assert when.startswith("the next look is on ")

    def test_failure_is_told_in_a_short_line_and_waited_for(
        self, load, passing, monkeypatch, capsys
    ):
        with Gateway(shards=9, max_concurrency=1).running() as gateway:
            program = load(gateway)
            failures = [OSError("unerwünscht"), http.client.BadStatusLine("?" * 1000)]
            results = [*failures, program.fetch("secret")]
            monkeypatch.setattr(program, "fetch", mock.Mock(side_effect=results))
            program.look("secret")
        assert passing.waits == [6, 60, 60]
        output = capsys.readouterr().out
        assert output.isascii()
        assert max(map(len, output.splitlines())) == 500

    def test_machine_that_was_suspended_looks_when_it_is_time(self, load, passing):
        gateway = Gateway(shards=1, max_concurrency=1, reset_after=8 * 3_600_000, remaining=0)
        gateway.refusals = [(200, json.dumps(gateway.answer), {})]
        gateway.remaining = 1000
        passing.sleeps_of_the_machine = 7 * 3600.0
        with gateway.running():
            load(gateway).look("secret")
        assert passing.waits == [6, 60, 60]

    def test_answer_that_never_comes_is_a_failure(self, load, monkeypatch):
        gateway = Gateway(shards=9, max_concurrency=1, hangs=True)
        urlopen = urllib.request.urlopen
        monkeypatch.setattr(
            urllib.request, "urlopen", lambda request, timeout: urlopen(request, timeout=0.1)
        )
        with gateway.running(), pytest.raises(TimeoutError):
            load(gateway).fetch("secret")

    @pytest.mark.parametrize(
        ("shard_ids", "needed"), [(None, 120), ([], 120), ([4, 5, 6, 7], 104)], ids=repr
    )
    def test_shards_that_are_started_are_counted(self, load, passing, shard_ids, needed, capsys):
        with Gateway(shards=9, max_concurrency=1).running() as gateway:
            assert load(gateway).look("secret", 20, shard_ids).shard_count == 20
        assert f"1000 sessions are left, {needed} are needed" in capsys.readouterr().out

    def test_shard_that_the_bot_does_not_have_is_told_at_once(self, load, passing):
        gateway = Gateway(shards=9, max_concurrency=1)
        with gateway.running(), pytest.raises(ValueError, match=r"shard_id: .+, got 9"):
            load(gateway).look("secret", shard_ids=[8, 9])

    def test_bot_that_the_program_starts_in_a_loop_leaves_the_reserve(self, load, passing):
        with Gateway(shards=1, max_concurrency=1, remaining=105).running() as gateway:
            look = load(gateway).look
            while sum(passing.waits) < 14_400:
                look("secret")
                gateway.remaining -= 1
                if gateway.remaining == 100:
                    gateway.refusals = [(200, json.dumps(gateway.answer), {})]
                    gateway.remaining = 1000
        assert 999 <= gateway.remaining <= 1000

    def test_token_is_sent_to_no_other_host(self, load):
        seen = []

        async def other(request):
            seen.append(request.headers.get("Authorization"))
            return web.json_response({"url": "wss://other", "shards": 1})

        with Gateway(shards=9, max_concurrency=1).running(web.get("/other", other)) as gateway:
            gateway.refusals = [(302, "", {"Location": f"http://localhost:{gateway.port}/other"})]
            with pytest.raises(PayloadError, match="session_start_limit: missing"):
                load(gateway).fetch("secret")
        assert seen == [None]

    def test_worker_processes_of_a_bot_do_not_look(self, bot_directory):
        (bot_directory / "bot.py").write_text("""
import multiprocessing
from look import RESERVE, look
from turns import Turns

if __name__ == "__main__":
    turns = Turns("secret", look("secret"), RESERVE)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        print(pool.map(abs, [-1, -2]))
""")
        with Gateway(shards=1, max_concurrency=1).running() as gateway:
            command = [sys.executable, "bot.py"]
            options = {"cwd": bot_directory, "env": environment(gateway), "timeout": 60}
            output = subprocess.check_output(command, text=True, **options)
        assert output.splitlines()[-1] == "[1, 2]"
        assert len(gateway.looked) == 1


class TestStartScript:
    @pytest.fixture
    def start(self, bot_directory):
        """Return a function that starts the script. The bot leaves a file."""
        (bot_directory / "python3").symlink_to(sys.executable)
        (bot_directory / "start-bot").write_text("#!/bin/sh\ntouch started\n")
        (bot_directory / "start-bot").chmod(0o755)

        def start(gateway, *shell, **variables):
            path = f"{bot_directory}:{os.environ['PATH']}"
            return subprocess.Popen(
                [*(shell or ["sh"]), "start"],
                cwd=bot_directory,
                env=environment(gateway, PATH=path, **variables),
                stdout=subprocess.PIPE,
                text=True,
            )

        return start

    def test_bot_is_started_after_the_look(self, start, bot_directory):
        with Gateway(shards=9, max_concurrency=1, remaining=109).running() as gateway:
            process = start(gateway)
            process.communicate(timeout=60)
        assert process.returncode == 0
        assert (bot_directory / "started").exists()

    def test_bot_is_not_started_if_the_look_fails(self, start, bot_directory):
        with Gateway(shards=9, max_concurrency=1).running() as gateway:
            process = start(gateway, RESERVE="many")
            process.communicate(timeout=60)
        assert process.returncode == 1
        assert not (bot_directory / "started").exists()

    @pytest.mark.parametrize("shell", ["dash", "bash"])
    @pytest.mark.parametrize("first", [False, True], ids=["", "process 1"])
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda each: each.name)
    @pytest.mark.parametrize("phase", ["the request", "the wait"])
    def test_stop_is_obeyed_at_once(self, start, bot_directory, shell, first, number, phase):
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
            os.kill(shell_id, number)
            process.communicate(timeout=10)  # which waits for the look as well
        assert process.returncode == 0
        assert not (bot_directory / "started").exists()
