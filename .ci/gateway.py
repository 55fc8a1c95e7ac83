"""A stand-in for Discord on the loopback interface.

It enforces the rule for IDENTIFYs, counts sessions down, and can lose them and refuse looks.
"""

import asyncio
import contextlib
import dataclasses
import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from aiohttp import web

USER = {"id": "1", "username": "bot", "discriminator": "0", "avatar": None}
APPLICATION = {
    "id": "1",
    "name": "bot",
    "icon": None,
    "description": "",
    "verify_key": "",
    "flags": 0,
    "owner": USER,
}
APPLICATION |= {"bot_public": True, "bot_require_code_grant": False}
HELLO = {"op": 10, "d": {"heartbeat_interval": 45_000}, "s": None, "t": None}
ACKNOWLEDGED = {"op": 11, "d": None, "s": None, "t": None}
INVALID_SESSION = {"op": 9, "d": False, "s": None, "t": None}


def answered(body: object, status: int = 200, **headers: str) -> web.Response:
    """Return *body* as JSON. discord.py wants the content type to the letter."""
    data = json.dumps(body).encode()
    return web.Response(
        body=data, content_type="application/json", status=status, headers={"Via": "1.1", **headers}
    )


@dataclasses.dataclass(kw_only=True)
class Gateway:
    """What it answers to, and what it has seen."""

    shards: int
    max_concurrency: int
    total: int = 1000
    remaining: int = 1000
    reset_after: int = 14_400_000
    interval: float = 0.4
    """The seconds between two IDENTIFYs of one key: 5 at Discord."""
    token: str = "secret"
    hangs: bool = False
    """Whether requests are never answered."""
    redirects_to: str = ""
    """Where requests are sent instead of being answered."""
    refusals: list[tuple[int, str, dict[str, str]]] = dataclasses.field(default_factory=list)
    """Statuses, texts and headers, with which the next looks are refused."""
    fails: Counter[int] = dataclasses.field(default_factory=Counter)
    """By shard: how many of its IDENTIFYs are answered by closing the connection."""
    loses: Counter[int] = dataclasses.field(default_factory=Counter)
    """By shard: how many of its sessions are invalidated after READY."""

    port: int = 0
    waiting: int = 0
    """How many requests are not answered."""
    identifies: list[int] = dataclasses.field(default_factory=list)
    """The shards that sent IDENTIFY."""
    broken: list[int] = dataclasses.field(default_factory=list)
    """Those of them that did so too early."""
    looked: list[float] = dataclasses.field(default_factory=list)
    """When the looks came."""
    ready: set[int] = dataclasses.field(default_factory=set)
    """The shards whose sessions are kept."""
    _last: dict[int, float] = dataclasses.field(default_factory=lambda: defaultdict(lambda: -1e9))

    @property
    def url(self) -> str:
        """Return the WebSocket URL."""
        return f"ws://127.0.0.1:{self.port}/"

    @property
    def api(self) -> str:
        """Return the URL of the REST API."""
        return f"http://127.0.0.1:{self.port}/api/v10"

    @property
    def answer(self) -> dict[str, Any]:
        """Return the answer to GET /gateway/bot."""
        limit = {
            "total": self.total,
            "remaining": self.remaining,
            "reset_after": self.reset_after,
            "max_concurrency": self.max_concurrency,
        }
        return {"url": self.url, "shards": self.shards, "session_start_limit": limit}

    async def rest(self, request: web.Request) -> web.Response:
        """Answer a request to the API."""
        if self.hangs:
            self.waiting += 1
            await asyncio.sleep(600)
        if self.redirects_to:
            raise web.HTTPFound(self.redirects_to)
        path = request.match_info["path"]
        if path == "gateway":
            return answered({"url": self.url})
        if not request.headers["User-Agent"].startswith("DiscordBot ("):
            return web.Response(status=403, text="error code: 1010")
        if request.headers.get("Authorization") != f"Bot {self.token}":
            return answered({"message": "401: Unauthorized", "code": 0}, status=401)
        if path == "gateway/bot":
            self.looked.append(time.monotonic())
            if self.refusals:
                status, text, headers = self.refusals.pop(0)
                return web.Response(status=status, text=text, headers=headers)
        answers = {
            "gateway/bot": self.answer,
            "users/@me": USER,
            "applications/1/commands": [],
            "applications/@me": APPLICATION,
            "oauth2/applications/@me": APPLICATION,
        }
        return answered(answers.get(path, []))

    async def socket(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one shard."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json(HELLO)
        async for message in socket:
            payload = message.json()
            if payload["op"] == 1:
                await socket.send_json(ACKNOWLEDGED)
            elif payload["op"] == 6:  # no session can be resumed
                await socket.send_json(INVALID_SESSION)
            elif payload["op"] == 2:
                await self.identified(socket, *payload["d"].get("shard", (0, 1)))
        return socket

    async def identified(
        self, socket: web.WebSocketResponse, shard_id: int, shard_count: int
    ) -> None:
        """Answer an IDENTIFY."""
        key, now = shard_id % self.max_concurrency, time.monotonic()
        early = now < self._last[key] + self.interval
        self._last[key] = now
        self.identifies.append(shard_id)
        self.remaining -= 1
        if early:
            self.broken.append(shard_id)
            await socket.send_json(INVALID_SESSION)
        elif self.fails[shard_id] > 0:
            self.fails[shard_id] -= 1
            await socket.close(code=4000)
        else:
            session = {"session_id": str(shard_id), "resume_gateway_url": self.url}
            data = {"v": 10, "user": USER, "guilds": [], "application": APPLICATION, **session}
            data["shard"] = [shard_id, shard_count]
            await socket.send_json({"op": 0, "t": "READY", "s": 1, "d": data})
            if self.loses[shard_id] > 0:
                self.loses[shard_id] -= 1
                await asyncio.sleep(self.interval / 2)
                await socket.send_json(INVALID_SESSION)
            else:
                self.ready.add(shard_id)

    def all_are_ready(self) -> bool:
        """Return whether the sessions of all shards are kept."""
        return len(self.ready) == self.shards

    def wait_until(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        """Wait until *condition* holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self
            time.sleep(0.01)

    def wait_until_ready(self, seconds: float = 30) -> None:
        """Wait until all shards are."""
        self.wait_until(self.all_are_ready, seconds)

    @contextlib.contextmanager
    def running(self, *routes: web.RouteDef) -> Iterator["Gateway"]:
        """Serve from a thread, and *routes* as well."""
        loop = asyncio.new_event_loop()
        app = web.Application()
        app.add_routes(
            [web.get("/", self.socket), web.get("/api/v10/{path:.*}", self.rest), *routes]
        )
        runner = web.AppRunner(app, shutdown_timeout=0.1)

        async def start() -> None:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.port = runner.addresses[0][1]

        async def stop() -> None:
            await runner.cleanup()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        loop.run_until_complete(start())
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(stop(), loop).result(timeout=10)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
