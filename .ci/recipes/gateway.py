"""A stand-in for Discord on the loopback interface.

It enforces the rule for IDENTIFYs, counts sessions, and can lose them and reject requests.
"""

import asyncio
import contextlib
import dataclasses
import json
import threading
import time
from collections import Counter, defaultdict

from aiohttp import web

USER = {"id": "1", "username": "bot", "discriminator": "0", "avatar": None}
APPLICATION = {"id": "1", "name": "bot", "icon": None, "description": "", "verify_key": ""}
APPLICATION |= {"flags": 0, "owner": USER, "bot_public": True, "bot_require_code_grant": False}
HELLO = {"op": 10, "d": {"heartbeat_interval": 45_000}, "s": None, "t": None}
ACKNOWLEDGED = {"op": 11, "d": None, "s": None, "t": None}
INVALID_SESSION = {"op": 9, "d": False, "s": None, "t": None}


def make_response(body, status=200):
    """Return *body* as JSON. discord.py compares the content type with exactly this."""
    return web.Response(
        body=json.dumps(body).encode(), content_type="application/json", status=status
    )


@dataclasses.dataclass(kw_only=True)
class Gateway:
    """The settings of the stand-in, and what it has received."""

    shards: int
    max_concurrency: int = 1
    total: int = 1000
    remaining: int = 1000
    reset_after: int = 14_400_000
    interval: float = 0.4
    """The seconds between two IDENTIFYs of one key: 5 at Discord."""
    is_silent: bool = False
    """Whether requests to GET /gateway/bot are never answered."""
    responses: list[tuple[int, str, dict[str, str]]] = dataclasses.field(default_factory=list)
    """The statuses, bodies and headers that answer the next requests to GET /gateway/bot."""
    closes: Counter[int] = dataclasses.field(default_factory=Counter)
    """By shard: how many IDENTIFYs are answered by closing the connection."""
    close_code: int = 4000
    """The code with which it is closed. After 4014, a library ends."""
    losses: Counter[int] = dataclasses.field(default_factory=Counter)
    """By shard: how many sessions are invalidated after READY."""
    lifetime: float = 0.2
    """The seconds from READY until a session is invalidated."""

    port: int = 0
    silent_requests: int = 0
    identifies: list[int] = dataclasses.field(default_factory=list)
    """The shards that sent an IDENTIFY."""
    early: list[int] = dataclasses.field(default_factory=list)
    """The shards whose IDENTIFY came too early for their key."""
    request_times: list[float] = dataclasses.field(default_factory=list)
    ready: set[int] = dataclasses.field(default_factory=set)
    """The shards whose sessions are kept."""
    _last: dict[int, float] = dataclasses.field(default_factory=lambda: defaultdict(lambda: -1e9))

    @property
    def url(self):
        return f"ws://127.0.0.1:{self.port}/"

    @property
    def host(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def answer(self):
        names = ("total", "remaining", "reset_after", "max_concurrency")
        limit = {name: getattr(self, name) for name in names}
        return {"url": self.url, "shards": self.shards, "session_start_limit": limit}

    async def handle_request(self, request):
        if not request.headers["User-Agent"].startswith("DiscordBot ("):
            return web.Response(status=403, text="error code: 1010")
        if request.headers.get("Authorization") != "Bot secret":
            return make_response({"message": "401: Unauthorized", "code": 0}, status=401)
        path = request.match_info["path"]
        if path == "gateway/bot":
            if self.is_silent:
                self.silent_requests += 1
                await asyncio.sleep(600)
            self.request_times.append(time.monotonic())
            if self.responses:
                status, text, headers = self.responses.pop(0)
                return web.Response(status=status, text=text, headers=headers)
        answers = {"gateway": {"url": self.url}, "gateway/bot": self.answer, "users/@me": USER}
        answers |= dict.fromkeys(["applications/@me", "oauth2/applications/@me"], APPLICATION)
        return make_response(answers.get(path, []))

    async def handle_socket(self, request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json(HELLO)
        async for message in socket:
            payload = message.json()
            if payload["op"] == 1:
                await socket.send_json(ACKNOWLEDGED)
            elif payload["op"] == 6:  # sessions cannot be resumed
                await socket.send_json(INVALID_SESSION)
            elif payload["op"] == 2:
                await self.handle_identify(socket, *payload["d"].get("shard", (0, 1)))
        return socket

    async def handle_identify(self, socket, shard_id, count):
        key, now = shard_id % self.max_concurrency, time.monotonic()
        is_early = now < self._last[key] + self.interval
        self._last[key] = now
        self.identifies.append(shard_id)
        self.remaining -= 1
        if is_early:
            self.early.append(shard_id)
            await socket.send_json(INVALID_SESSION)
        elif self.closes[shard_id] > 0:
            self.closes[shard_id] -= 1
            await socket.close(code=self.close_code)
        else:
            data = {"v": 10, "user": USER, "guilds": [], "application": APPLICATION}
            data |= {"session_id": "1", "resume_gateway_url": self.url, "shard": [shard_id, count]}
            await socket.send_json({"op": 0, "t": "READY", "s": 1, "d": data})
            if self.losses[shard_id] > 0:
                self.losses[shard_id] -= 1
                await asyncio.sleep(self.lifetime)
                await socket.send_json(INVALID_SESSION)
            else:
                self.ready.add(shard_id)

    def wait_until(self, condition, seconds=30):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not true after {seconds} s: {self}"
            time.sleep(0.01)

    def wait_until_ready(self, seconds=30):
        """Wait until the sessions of all shards are kept."""
        self.wait_until(lambda: len(self.ready) == self.shards, seconds)

    @contextlib.contextmanager
    def running(self, *routes):
        """Serve from a thread, with additional *routes*."""
        loop = asyncio.new_event_loop()
        app = web.Application()
        app.add_routes([web.get("/", self.handle_socket)])
        app.add_routes([web.get("/api/v10/{path:.*}", self.handle_request), *routes])
        runner = web.AppRunner(app, shutdown_timeout=0.1)

        async def start():
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.port = runner.addresses[0][1]

        async def stop():
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
