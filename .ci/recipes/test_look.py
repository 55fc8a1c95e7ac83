"""look.py and start, against a stand-in for Discord."""

import http.client
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from unittest import mock

import pytest
from aiohttp import web

import look as program
from conftest import make_environment, report_sessions, save
from gateway import Gateway
from look import RESERVE, SETTLE, fetch, look
from pages import RECIPES, ROOT
from sessions import PayloadError
from test_sessions import BLOCKED, RATE_LIMITED

LIMITED = json.dumps(RATE_LIMITED)

# A response, the seconds until the next request, and what is printed.
RESPONSES = {
    "429": (429, LIMITED, {"Retry-After": "82721"}, 82721, "ask again in 22:58:41"),
    "429 body": (429, LIMITED, {}, 82721, "rate limited.'; ask again in 22:58:41"),
    "429 header": (429, "error code: 1015", {"Retry-After": "99999.5"}, 99_999.5, "HTTP Error 429"),
    "null": (429, '{"retry_after": null}', {"Retry-After": "80"}, 80, "0:01:20"),
    "date": (429, LIMITED, {"Retry-After": "Fri, 27 Nov 2026 13:12:00 GMT"}, 82721, "22:58:41"),
    "half a body": (429, LIMITED[:-9], {"Retry-After": "80"}, 80, "HTTP Error 429"),
    "no time": (429, json.dumps({"message": BLOCKED}), {}, 60, BLOCKED),
    "short time": (429, '{"retry_after": 0.3}', {}, 5, "HTTP Error 429"),
    "long time": (429, '{"retry_after": 999999999}', {}, 7 * 86_400, "HTTP Error 429"),
    "401": (401, '{"message": "401: Unauthorized"}', {}, 60, "'401: Unauthorized'"),
    "403": (403, "error code: 1010", {}, 60, "HTTP Error 403"),
    "502": (502, "<html>502</html>", {}, 60, "HTTP Error 502"),
    "no answer": (200, '{"url": "wss://host", "shards": 9}', {}, 60, "limit: missing"),
    "HTML": (200, "<html>", {}, 60, "JSONDecodeError"),
}


@pytest.fixture
def use(monkeypatch):
    """Return a function that lets requests go to a stand-in."""
    return lambda gateway: monkeypatch.setattr(
        program, "URL", program.URL.replace("https://discord.com", gateway.host)
    )


class Time:
    """Two clocks, which move while a program sleeps and at no other time."""

    def __init__(self):
        self.time_of_day, self.steady_time = 1.7e9, 50_000.0
        self.sleeps: list[float] = []
        self.jump, self.suspended = 0.0, 0.0
        """What is added to the time of day in the second sleep, and in each sleep."""

    def sleep(self, seconds):
        self.sleeps.append(seconds)
        self.steady_time += seconds
        self.time_of_day += seconds + self.suspended
        if len(self.sleeps) == 2:
            self.time_of_day += self.jump
        assert sum(self.sleeps) < 1e6, "look sleeps for ever"


@pytest.fixture
def passing(monkeypatch):
    """Return the time, which passes at once."""
    passing = Time()
    monkeypatch.setattr(time, "sleep", passing.sleep)
    monkeypatch.setattr(time, "time", lambda: passing.time_of_day)
    monkeypatch.setattr(program.time, "monotonic", lambda: passing.steady_time)
    return passing


def queue(gateway, **changes):
    """Let the next answer have other numbers."""
    answer = gateway.answer
    answer["session_start_limit"] |= changes
    gateway.responses.append((200, json.dumps(answer), {}))


class TestLook:
    @pytest.mark.parametrize("name", ["look", "turns", "redis_turns"])
    def test_import_does_nothing(self, name):
        command = [sys.executable, "-c", f"import {name}"]
        environment = make_environment(PYTHONPATH=f"{RECIPES}:{ROOT}")
        assert subprocess.check_output(command, env=environment, timeout=5) == b""

    @pytest.mark.parametrize(("variable", "reserve"), [("", 100), ("10", 10), ("0", 1)])
    def test_reserve_comes_from_the_environment(self, variable, reserve):
        command = [sys.executable, "-c", "import look; print(look.RESERVE)"]
        environment = make_environment(PYTHONPATH=f"{RECIPES}:{ROOT}", RESERVE=variable)
        assert subprocess.check_output(command, env=environment) == f"{reserve}\n".encode()

    def test_answer_is_returned_if_the_reserve_is_left(self, use, passing, capsys):
        with Gateway(shards=9, remaining=9 + RESERVE).running() as gateway:
            use(gateway)
            info = look("\ufeffsec\u200bret\r\n")  # as a file may contain it
        assert info.to_payload() == gateway.answer
        assert passing.sleeps == [SETTLE]
        needed = 9 + RESERVE
        assert capsys.readouterr().out == report_sessions(needed, needed) + "\n"

    @pytest.mark.parametrize(("milliseconds", "seconds"), [(14_400_000, 14_400), (0, 60)])
    def test_bot_waits_for_the_reset(self, use, passing, milliseconds, seconds, capsys):
        gateway = Gateway(shards=9)
        with gateway.running():
            queue(gateway, remaining=8 + RESERVE, reset_after=milliseconds)
            use(gateway)
            look("secret")
        assert sum(passing.sleeps) == SETTLE + seconds
        assert capsys.readouterr().out.splitlines() == [
            report_sessions(8 + RESERVE, 9 + RESERVE),
            f"the next request is due on {time.ctime(1.7e9 + SETTLE + seconds)}",
            report_sessions(1000, 9 + RESERVE),
        ]

    @pytest.mark.parametrize(
        ("status", "text", "headers", "seconds", "shown"), RESPONSES.values(), ids=RESPONSES
    )
    def test_error_is_printed_and_waited_for(
        self, use, passing, status, text, headers, seconds, shown, capsys
    ):
        gateway = Gateway(shards=9, responses=[(status, text, headers)])
        with gateway.running():
            use(gateway)
            look("secret")
        assert (sum(passing.sleeps), len(gateway.request_times)) == (SETTLE + seconds, 2)
        output = capsys.readouterr().out
        assert output.isascii()
        error, when, _ = output.splitlines()
        assert shown in error
        assert when.startswith("the next request is due on ")

    def test_other_error_is_printed_in_500_characters(self, use, passing, monkeypatch, capsys):
        with Gateway(shards=9).running() as gateway:
            use(gateway)
            errors = [OSError("unerwünscht"), http.client.BadStatusLine("?" * 1000)]
            results = [*errors, fetch("secret")]
            monkeypatch.setattr(program, "fetch", mock.Mock(side_effect=results))
            look("secret")
        assert passing.sleeps == [SETTLE, 60, 60]
        output = capsys.readouterr().out
        assert output.isascii()
        assert max(map(len, output.splitlines())) == 500

    @pytest.mark.parametrize(
        ("suspended", "jump", "sleeps"),
        [(7 * 3600, 0, [SETTLE, 60, 60]), (0, -8 * 3600, [SETTLE] + [60] * 480)],
        ids=["suspended machine", "clock set back"],
    )
    def test_clocks_may_change_while_look_waits(self, use, passing, suspended, jump, sleeps):
        gateway = Gateway(shards=1)
        with gateway.running():
            queue(gateway, remaining=0, reset_after=8 * 3_600_000)
            use(gateway)
            passing.suspended, passing.jump = suspended, jump
            look("secret")
        assert passing.sleeps == sleeps

    def test_silent_request_is_an_error(self, use, monkeypatch):
        urlopen = urllib.request.urlopen
        monkeypatch.setattr(
            urllib.request, "urlopen", lambda request, timeout: urlopen(request, timeout=0.1)
        )
        with Gateway(shards=9, is_silent=True).running() as gateway:
            use(gateway)
            with pytest.raises(TimeoutError):
                fetch("secret")

    @pytest.mark.parametrize(("shard_ids", "shards"), [(None, 20), ([4, 5, 6, 7], 4)], ids=repr)
    def test_own_shards_are_counted(self, use, passing, shard_ids, shards, capsys):
        with Gateway(shards=9, max_concurrency=4).running() as gateway:
            use(gateway)
            assert look("secret", 20, shard_ids).shard_count == 20
        assert report_sessions(1000, shards + RESERVE) in capsys.readouterr().out

    def test_unknown_shard_is_reported_at_once(self, use, passing):
        with Gateway(shards=9).running() as gateway:
            use(gateway)
            with pytest.raises(ValueError, match=r"shard_id: .+, got 9"):
                look("secret", shard_ids=[8, 9])

    @pytest.mark.parametrize("token", [None, ""], ids=repr)
    def test_missing_token_error_names_the_variable(self, token):
        with pytest.raises(ValueError, match="DISCORD_TOKEN"):
            look(token)

    def test_token_is_not_sent_to_another_host(self, use):
        tokens = []

        async def other(request):
            tokens.append(request.headers.get("Authorization"))
            return web.json_response({"url": "wss://other", "shards": 1})

        with Gateway(shards=9).running(web.get("/other", other)) as gateway:
            use(gateway)
            url = f"http://localhost:{gateway.port}/other"
            gateway.responses = [(302, "", {"Location": url})]
            with pytest.raises(PayloadError, match="session_start_limit: missing"):
                fetch("secret")
        assert tokens == [None]

    def test_proxy_of_the_environment_is_used(self, use, monkeypatch):
        with Gateway(shards=9).running() as proxy:
            monkeypatch.setattr(program, "URL", "http://discord.invalid/api/v10/gateway/bot")
            monkeypatch.setenv("http_proxy", proxy.host)
            monkeypatch.setattr(urllib.request, "_opener", None)  # made at the first request
            assert fetch("secret").shard_count == 9


class TestStart:
    @pytest.fixture
    def start(self, tmp_path):
        """Return a function that starts the script. Its bot leaves a file."""
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "python3").symlink_to(sys.executable)
        (tmp_path / "start-bot").write_text("#!/bin/sh\necho $$ > started\n")
        (tmp_path / "start-bot").chmod(0o755)

        def start(gateway, *shell, **variables):
            save(tmp_path, gateway)
            path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
            return subprocess.Popen(
                [*(shell or ["sh"]), "start"],
                cwd=tmp_path,
                env=make_environment(PATH=path, **variables),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )

        return start

    def test_file_is_executable(self):
        assert os.access(RECIPES / "start", os.X_OK)

    def test_bot_is_started_if_look_succeeds(self, start, tmp_path):
        with Gateway(shards=9, remaining=9 + RESERVE).running() as gateway:
            process = start(gateway)
            process.communicate(timeout=60)
        assert process.returncode == 0
        assert int((tmp_path / "started").read_text()) == process.pid  # signals reach the bot

    @pytest.mark.parametrize("variable", ["RESERVE", "DISCORD_TOKEN"])
    def test_bot_is_not_started_if_look_fails(self, start, tmp_path, variable):
        with Gateway(shards=9).running() as gateway:
            process = start(gateway, **{variable: "many" if variable == "RESERVE" else ""})
            output, _ = process.communicate(timeout=60)
        assert process.returncode == 1
        assert variable in output
        assert not (tmp_path / "started").exists()

    @pytest.mark.parametrize("shell", ["dash", "bash"])
    @pytest.mark.parametrize("is_first", [False, True], ids=["", "process 1"])
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda each: each.name)
    @pytest.mark.parametrize("phase", ["request", "wait"])
    def test_signal_ends_the_script_at_once(self, start, tmp_path, shell, is_first, number, phase):
        if shutil.which(shell) is None:
            pytest.skip(f"there is no {shell}")
        unshare = ["unshare", "--pid", "--fork", "--kill-child"] if is_first else []
        if is_first and subprocess.run([*unshare, "true"], stderr=subprocess.DEVNULL).returncode:
            pytest.skip("unshare may not start a process 1")
        gateway = Gateway(shards=1, remaining=0, is_silent=phase == "request")
        with gateway.running():
            process = start(gateway, *unshare, shell)
            if gateway.is_silent:
                gateway.wait_until(lambda: gateway.silent_requests > 0)
            else:
                assert process.stdout.readline() == report_sessions(0, 1 + RESERVE) + "\n"
            shell_id = process.pid
            if is_first:
                children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
                shell_id = int(children.read_text())
            os.kill(shell_id, number)
            process.communicate(timeout=10)  # which waits for look.py as well
        assert process.returncode == 0
        assert not (tmp_path / "started").exists()
