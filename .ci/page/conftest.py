"""What several trials need."""

import inspect
import pathlib
import signal
import subprocess
import sys

import pytest
from blocks import ROOT, save

SHRUNK = pathlib.Path(__file__).parent / "shrunk"
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run a test that is a coroutine function on the virtual clock."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    from clock import run

    names = inspect.signature(pyfuncitem.obj).parameters
    run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.fixture
def bot_directory(tmp_path):
    """Return a folder with the files of the page."""
    save(tmp_path)
    return tmp_path


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


def environment(gateway, **more):
    """Return an environment in which programs take *gateway* for Discord and have little time."""
    return {
        "PATH": f"{pathlib.Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHONPATH": f"{SHRUNK}:{ROOT}",
        "DISCORD": gateway.host,
        "DISCORD_TOKEN": "secret",
        **more,
    }
