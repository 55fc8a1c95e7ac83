"""Fixtures of the recipes' tests."""

import inspect
import pathlib
import signal
import subprocess
import sys

import pytest

from clock import Clock
from look import SETTLE
from pages import RECIPES, ROOT

# A shell lets its jobs in the background ignore the signal.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def clock(monkeypatch):
    """Let the test go by a virtual clock."""
    clock = Clock()
    clock.install(monkeypatch)
    yield clock
    clock.end_threads()


def pytest_collection_modifyitems(items):
    """Let each test that is a coroutine function use the virtual clock."""
    for item in items:
        if inspect.iscoroutinefunction(item.obj):
            item.fixturenames.insert(0, "clock")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run a test that is a coroutine function on the virtual clock."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    pyfuncitem.funcargs["clock"].run(pyfuncitem.obj(**arguments))
    return True


@pytest.fixture
def redis_url():
    """Start a server that speaks Redis, and return its URL."""
    program = (
        "import fakeredis; server = fakeredis.TcpFakeServer(('127.0.0.1', 0));"
        "print(server.server_address[1], flush=True); server.serve_forever()"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield f"redis://127.0.0.1:{process.stdout.readline().strip()}"
        process.kill()


SHORTER = {
    "look.py": [(f"SETTLE = {SETTLE}", "SETTLE = 0.9")],
    "sessions.py": [("datetime.timedelta(seconds=5)", "datetime.timedelta(seconds=0.4)")],
}
"""What is replaced in the files of a bot, so that a test takes seconds."""


def save(directory, gateway):
    """Save the files next to a bot in *directory*, with *gateway* in place of Discord."""
    for path in [*RECIPES.glob("*.py"), RECIPES / "start", ROOT / "sessions.py"]:
        text = path.read_text(encoding="utf-8")
        replacements = SHORTER.get(path.name, [])
        if path.name == "look.py":
            replacements = [*replacements, ("https://discord.com", gateway.host)]
        for old, new in replacements:
            assert text.count(old) == 1, f"{path.name} does not have {old} once"
            text = text.replace(old, new)
        (directory / path.name).write_text(text, encoding="utf-8")


TOO_FEW = "too few sessions are left until "
"""How the error of `Turns.take` begins."""


MANY_LOST = "many sessions were lost"
"""How the message begins that starts wait for the pace."""


def report_sessions(left, needed):
    """Return what `look` prints after an answer."""
    return f"{left} sessions are left, {needed} are needed"


def make_environment(**variables):
    """Return the environment of a bot."""
    path = f"{pathlib.Path(sys.executable).parent}:/usr/bin:/bin"
    return {"PATH": path, "DISCORD_TOKEN": "secret", **variables}
