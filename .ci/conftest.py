"""What several trials need."""

import os
import pathlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).parent.parent


class RedisServer:
    """A server that keeps its keys over a restart."""

    def __init__(self, command: str, directory: pathlib.Path, **environment: str) -> None:
        """Find a port for it."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.command = [command, "--port", str(self.port), "--bind", "127.0.0.1"]
        self.command += ["--appendonly", "yes", "--dir", str(directory)]
        self.environment = {**os.environ, **environment}

    def start(self) -> None:
        """Start it and wait until it answers."""
        import redis
        from redis.backoff import ConstantBackoff
        from redis.retry import Retry

        self.process = subprocess.Popen(
            self.command, env=self.environment, stdout=subprocess.DEVNULL
        )
        with redis.Redis(port=self.port, retry=Retry(ConstantBackoff(0.1), 100)) as client:
            client.ping()

    def stop(self) -> None:
        """Stop it and wait until it has ended."""
        self.process.terminate()
        self.process.wait()


@pytest.fixture
def redis_server(tmp_path: pathlib.Path) -> Iterator[Any]:
    """Start a Redis server."""
    unpacked = ROOT / ".tox" / "redis" / "usr"
    command = shutil.which("redis-server") or shutil.which("redis-server", path=unpacked / "bin")
    if command is None:
        pytest.skip("needs redis-server")
    libraries = os.pathsep.join(map(str, unpacked.glob("lib/*")))
    server = RedisServer(command, tmp_path, LD_LIBRARY_PATH=libraries)
    server.start()
    yield server
    server.stop()
