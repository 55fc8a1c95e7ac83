"""Discord and the clients of a bot over whole days, on the virtual clock."""

import asyncio
import contextlib
import datetime
import random
import time
from collections import defaultdict
from collections.abc import Callable

import discord
import redis
from discord.gateway import DiscordWebSocket, ReconnectWebSocket

from sessions import GatewayBotInfo, PayloadError, SessionStartLimit
from turns import Turns

HOUR = 3600.0
DAY = 24 * HOUR
FOREVER = 1e9


class Token(str):
    """A token, and the stand-in that knows it."""

    discord: "Discord"


class Discord:
    """Discord enforces the rule, counts sessions, loses them, and answers requests."""

    def __init__(self, shards, max_concurrency, total=1000):
        self.shards, self.max_concurrency, self.total = shards, max_concurrency, total
        self.remaining = self.lowest_remaining = total
        self.reset_time = time.monotonic() + DAY
        self.identifies = 0
        self.early_identifies = 0
        """How many IDENTIFYs came too early for their key."""
        self.get_lifetime: Callable[[int], float] = lambda shard_id: FOREVER
        """Returns for how many seconds a new session of a shard lasts."""
        self.get_error: Callable[[], Exception | None] = lambda: None
        """Returns the error that answers a request."""
        self.request_times: list[float] = []
        self.delay = 0.3
        """After how many seconds a request is answered. The numbers are those of half of it."""
        self.token = Token("token")
        self.token.discord = self
        self._last_identifies: dict[int, float] = defaultdict(lambda: -FOREVER)

    def __repr__(self):
        return (
            f"<Discord at {time.monotonic():.1f} s for {self.shards} shards at "
            f"{self.max_concurrency}: {self.identifies} IDENTIFYs, {self.early_identifies} too "
            f"early, {self.remaining} of {self.total} left, lowest {self.lowest_remaining}>"
        )

    def get_info(self):
        seconds = max(0, self.reset_time - time.monotonic())
        limit = SessionStartLimit(
            total=self.total,
            remaining=max(0, self.remaining) if seconds else self.total,
            reset_after=datetime.timedelta(seconds=seconds),
            max_concurrency=self.max_concurrency,
        )
        return GatewayBotInfo(url="ws://h", shard_count=self.shards, session_start_limit=limit)

    def answer(self):
        """Answer a request, in a thread."""
        self.request_times.append(time.monotonic())
        time.sleep(self.delay / 2)
        answer = self.get_error() or self.get_info()
        time.sleep(self.delay / 2)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def identify(self, shard_id):
        """Start a session and return for how many seconds it lasts."""
        now, key = time.monotonic(), shard_id % self.max_concurrency
        if now >= self.reset_time:
            self.remaining, self.reset_time = self.total, now + DAY
        is_early = now < self._last_identifies[key] + 5.49  # half a second may be lost on the way
        self._last_identifies[key] = now
        self.identifies += 1
        self.early_identifies += is_early
        self.remaining -= 1
        self.lowest_remaining = min(self.lowest_remaining, self.remaining)
        return 0.1 if is_early else self.get_lifetime(shard_id)

    def set_remaining(self, remaining):
        """Let other programs use all other sessions."""
        self.remaining = self.lowest_remaining = remaining

    def lose_sessions(self, seconds=0.5):
        """Let each new session end after some *seconds*."""
        self.get_lifetime = lambda shard_id: seconds

    def keep_sessions(self):
        self.get_lifetime = lambda shard_id: FOREVER

    def rate_limit(self, seconds):
        """Answer each request with a 429 that asks to wait for some *seconds*."""
        error = PayloadError("You are being rate limited.", datetime.timedelta(seconds=seconds))
        self.get_error = lambda: error

    def limit_requests(self):
        """Answer a third request within 5 seconds with a 429."""
        answered: list[float] = []

        def get_error():
            answered[:] = [each for each in answered if each > time.monotonic() - 5]
            if len(answered) == 2:
                wait = datetime.timedelta(seconds=answered[0] + 5 - time.monotonic())
                return PayloadError("You are being rate limited.", wait)
            answered.append(time.monotonic())
            return None

        self.get_error = get_error


def fetch(token):
    """Stand in for `look.fetch`."""
    return token.discord.answer()


class Client:
    """The shards of a process."""

    socket_seconds = FOREVER
    """For how many seconds a socket stays open if nothing is read before the IDENTIFY."""

    def __init__(self, world, turns, shard_ids):
        self.discord, self.turns, self.shard_ids = world, turns, list(shard_ids)
        self.take = turns.take
        self.ready: set[int] = set()
        self.lost = {shard_id: asyncio.Event() for shard_id in self.shard_ids}
        self.errors: list[str] = []
        """The messages of ConnectionErrors."""
        self.tasks = [asyncio.ensure_future(each) for each in self.start()]

    def start(self):
        """Return the coroutines that run the client."""
        raise NotImplementedError

    async def identify(self, shard_id):
        """Connect and IDENTIFY, in turn, and return for how many seconds the session lasts."""
        await asyncio.sleep(0.1)
        begin = time.monotonic()
        try:
            await self.take(shard_id)
        except ConnectionError as error:
            self.errors.append(str(error))
            raise
        if time.monotonic() > begin + self.socket_seconds:
            raise ConnectionResetError("Cannot write to closing transport")
        seconds = self.discord.identify(shard_id)
        self.ready.add(shard_id)
        return seconds

    async def read(self, shard_id, seconds):
        """Read until the session is lost."""
        self.lost[shard_id].clear()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.lost[shard_id].wait(), seconds)
        self.ready.remove(shard_id)


class OwnClient(Client):
    """A client whose shards run in tasks of their own."""

    def start(self):
        return map(self.run_shard, self.shard_ids)

    async def run_shard(self, shard_id):
        while True:
            try:
                await self.read(shard_id, await self.identify(shard_id))
            except ConnectionError:
                await asyncio.sleep(300)  # as the docstring of take says


class Library(Client):
    """The AutoShardedClient of discord.py, with a socket on which sessions are only lost."""

    socket_seconds = 82.0

    def start(self):
        bot = discord.AutoShardedClient(
            intents=discord.Intents.none(),
            shard_count=self.discord.shards,
            shard_ids=self.shard_ids,
        )
        self.turns.guard(bot)
        bot.client, self.take = self, bot.before_identify_hook
        return [bot._async_setup_hook(), bot.connect()]  # as bot.start does after the login


class Socket:
    """A connection of discord.py."""

    gateway = session_id = sequence = None

    def __init__(self, client, shard_id, seconds):
        self.client, self.shard_id, self.seconds = client, shard_id, seconds

    @staticmethod
    def install(monkeypatch):
        monkeypatch.setattr(DiscordWebSocket, "from_client", Socket.connect)

    @staticmethod
    async def connect(bot, *, shard_id, **_):
        """Stand in for `DiscordWebSocket.from_client`."""
        return Socket(bot.client, shard_id, await bot.client.identify(shard_id))

    async def poll_event(self):
        await self.client.read(self.shard_id, self.seconds)
        raise ReconnectWebSocket(self.shard_id, resume=False)


class Redis:
    """A Redis server, as far as turns need it. A client fails as the host of its URL says."""

    def __init__(self):
        self.expiries: dict[str, float] = {}
        self.random = random.Random(1)

    def from_url(self, url):
        """Stand in for `redis.asyncio.from_url`."""
        return RedisClient(self, url.removeprefix("redis://"))


class RedisClient:
    """A connection to the server, which is "good", "late", "slow", "silent" or "bad"."""

    def __init__(self, server, host):
        self.server, self.host = server, host

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await asyncio.sleep(0)

    async def pttl(self, name):
        await asyncio.sleep(FOREVER if self.host == "silent" else 0.002)
        if self.host == "bad":
            raise redis.ConnectionError("connection refused")
        return round(1000 * (self.server.expiries.get(name, 0) - time.monotonic()))

    async def set(self, name, value, *, nx, px):
        await asyncio.sleep(0.001)
        now, expiries = time.monotonic(), self.server.expiries
        is_free = now >= expiries.get(name, 0)
        if is_free:
            expiries[name] = now + px / 1000
        delays = {"late": [0.001] * 8 + [0.45, 2], "slow": [0.7, 0.9]}.get(self.host, [0.001])
        await asyncio.sleep(self.server.random.choice(delays))
        return is_free


class Fleet:
    """The processes of a bot, or of several copies of the bot."""

    def __init__(self, make_client, bot, processes=1, copies=1, make_turns=Turns):
        self.discord, self.make_client, self.make_turns = Discord(*bot), make_client, make_turns
        self.shards, _, *_ = bot
        share = self.shards // processes
        self.clients: list[Client] = []
        for first in range(0, self.shards, share):
            for _ in range(copies):
                self.start_process(range(first, first + share))

    def __repr__(self):
        ready = sum(len(client.ready) for client in self.clients)
        return f"<{len(self.clients)} processes, {ready} shards ready, {self.discord!r}>"

    def start_process(self, shard_ids):
        turns = self.make_turns(
            self.discord.token, self.discord.get_info(), shard_ids=list(shard_ids)
        )
        self.clients.append(self.make_client(self.discord, turns, shard_ids))
        return self.clients[-1]

    def stop(self, client):
        self.clients.remove(client)
        for task in client.tasks:
            task.cancel()

    def lose(self, *shard_ids):
        """Lose the sessions of some shards, by default of all, once."""
        for client in self.clients:
            for shard_id in shard_ids or client.shard_ids:
                if shard_id in client.lost:
                    client.lost[shard_id].set()

    def is_ready(self):
        return all(len(client.ready) == len(client.shard_ids) for client in self.clients)

    async def wait_until(self, condition, limit):
        """Wait until a condition is true, for at most *limit* seconds, and return how long."""
        begin = time.monotonic()
        while not condition():
            seconds = time.monotonic() - begin
            assert seconds < limit, f"{condition.__name__} is not true after {seconds} s: {self}"
            await asyncio.sleep(1)
        return time.monotonic() - begin

    async def wait_until_ready(self, limit):
        return await self.wait_until(self.is_ready, limit)

    async def start(self, hours=2):
        """Wait until all shards are ready and have run for some hours; return the first wait."""
        seconds = await self.wait_until_ready(30 + 7 * self.shards)
        await asyncio.sleep(hours * HOUR)
        return seconds

    async def lose_once(self, *shard_ids, limit):
        """Lose sessions once, and return how long it takes until all are ready again."""
        self.lose(*shard_ids)
        await asyncio.sleep(0.1)
        return await self.wait_until_ready(limit)

    async def lose_all_for(self, hours, seconds=0.5):
        """Lose all sessions now, and for some hours each new session after some *seconds*."""
        self.discord.lose_sessions(seconds)
        self.lose()
        await asyncio.sleep(hours * HOUR)

    async def incident(self, hours, seconds=0.5, *, limit):
        """Lose all sessions for some hours; return how long it takes until all are ready again."""
        await self.lose_all_for(hours, seconds)
        self.discord.keep_sessions()
        await asyncio.sleep(seconds)
        return seconds + await self.wait_until_ready(limit)
