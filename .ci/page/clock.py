"""Days on a virtual clock: an event loop moves the time on instead of waiting for it.

On it run the classes of the page, in a client of one's own and in discord.py as it is, all but
its socket.
"""

import asyncio
import contextlib
import datetime
import selectors
import time
import types
from collections import defaultdict
from collections.abc import Callable
from unittest import mock

import discord
from blocks import CLASS
from discord.gateway import DiscordWebSocket, ReconnectWebSocket

from sessions import GatewayBotInfo, PayloadError, SessionStartLimit

HOUR = 3600.0
FOR_EVER = 1e9


class Clock(selectors.SelectSelector):
    """The clock, and the selector of a loop that goes by it."""

    now = 50_000.0

    def select(self, timeout=None):
        """Let the time that the loop wants to wait for pass at once."""
        if timeout is None:
            raise RuntimeError("nothing will ever happen again")
        Clock.now += timeout
        return super().select(0)


def run(main):
    """Run *main* as `asyncio.run` does, on the virtual clock, which goes on between two runs."""
    day = 1.7e9
    with mock.patch.multiple("time", monotonic=lambda: Clock.now, time=lambda: day + Clock.now):
        loop = asyncio.SelectorEventLoop(Clock())
        try:
            return loop.run_until_complete(main)
        finally:
            while tasks := asyncio.all_tasks(loop):  # wait_for may overlook that it is cancelled
                for task in tasks:
                    task.cancel()
                loop.run_until_complete(asyncio.sleep(0))
            loop.close()


class Discord:
    """It keeps the rule and the count, loses sessions, and answers looks or refuses them."""

    def __init__(self, shards, max_concurrency, total=1000):
        self.shards, self.max_concurrency, self.total = shards, max_concurrency, total
        self.remaining = self.least = total
        self.resets = time.monotonic() + 24 * HOUR
        self.spent = 0
        self.broken = 0
        """How many IDENTIFYs came too early for their key."""
        self.lives: Callable[[int], float] = lambda shard_id: FOR_EVER
        """For how many seconds a new session of a shard lives."""
        self.looked: list[float] = []
        """When the looks came."""
        self.refuses: Callable[[], Exception | None] = lambda: None
        """What a look is refused with."""
        self.delay = 0.3
        """After how many seconds a look is answered, as of half of them."""
        self._last: dict[int, float] = defaultdict(lambda: -FOR_EVER)

    def info(self):
        limit = SessionStartLimit(
            total=self.total,
            remaining=max(0, self.remaining),
            reset_after=datetime.timedelta(seconds=max(0, self.resets - time.monotonic())),
            max_concurrency=self.max_concurrency,
        )
        return GatewayBotInfo(url="ws://h", shard_count=self.shards, session_start_limit=limit)

    def identify(self, shard_id):
        """Start a session and return for how many seconds it lives."""
        now, key = time.monotonic(), shard_id % self.max_concurrency
        if now >= self.resets:
            self.remaining, self.resets = self.total, now + 24 * HOUR
        early = now < self._last[key] + 5.49  # half a second may be lost on the way
        self._last[key] = now
        self.spent += 1
        self.remaining -= 1
        self.least = min(self.least, self.remaining)
        self.broken += early
        return 0.1 if early else self.lives(shard_id)

    def leave(self, remaining):
        """Let other programs spend all but some."""
        self.remaining = self.least = remaining

    def refuse(self, seconds):
        """Refuse each look, and tell for how long not to look again."""
        wait = datetime.timedelta(seconds=seconds)
        self.refuses = lambda: PayloadError("You are being rate limited.", wait)

    def limit_looks(self):
        """Refuse a third look within 5 seconds."""
        answered: list[float] = []

        def refuses():
            answered[:] = [each for each in answered if each > time.monotonic() - 5]
            if len(answered) == 2:
                wait = datetime.timedelta(seconds=answered[0] + 5 - time.monotonic())
                return PayloadError("You are being rate limited.", wait)
            answered.append(time.monotonic())
            return None

        self.refuses = refuses

    def fetch(self, token):
        """Stand in for the function of the page, in a thread."""
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def thread(self, target, daemon):
        """Stand in for `threading.Thread`, with a look in it."""
        assert daemon

        def start():
            self.looked.append(time.monotonic())
            call_later(self.delay / 2, reach)

        def reach():
            call_later(self.delay / 2, end, self.refuses() or self.info())

        def end(answer):
            self.answer = answer
            target()

        call_later = asyncio.get_running_loop().call_later
        return types.SimpleNamespace(start=start)


class Client:
    """The shards of a process."""

    listens = FOR_EVER
    """For how many seconds a socket stays open on which nothing is read before an IDENTIFY."""

    def __init__(self, world, turns, shard_ids):
        self.discord, self.turns, self.shard_ids = world, turns, list(shard_ids)
        self.take = turns.take
        self.ready: set[int] = set()
        self.lost = {shard_id: asyncio.Event() for shard_id in self.shard_ids}
        self.refusals: list[str] = []
        """What is said where no session may be started."""
        self.tasks = [asyncio.ensure_future(each) for each in self.start()]

    async def identify(self, shard_id):
        """Connect and IDENTIFY, in turn, and return for how many seconds the session lives."""
        await asyncio.sleep(0.1)
        begin = time.monotonic()
        try:
            await self.take(shard_id)
        except ConnectionError as error:
            self.refusals.append(str(error))
            raise
        if time.monotonic() > begin + self.listens:
            raise ConnectionResetError("Cannot write to closing transport")
        lives = self.discord.identify(shard_id)
        self.ready.add(shard_id)
        return lives

    async def live(self, shard_id, seconds):
        """Read until the session is lost."""
        self.lost[shard_id].clear()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.lost[shard_id].wait(), seconds)
        self.ready.remove(shard_id)


class OwnClient(Client):
    """Each shard in a task of its own."""

    def start(self):
        return map(self.run_shard, self.shard_ids)

    async def run_shard(self, shard_id):
        while True:
            with contextlib.suppress(ConnectionError):
                await self.live(shard_id, await self.identify(shard_id))


class Socket:
    """What discord.py takes for a connection: nothing comes but the loss of the session."""

    gateway = session_id = sequence = None

    def __init__(self, client, shard_id, lives):
        self.client, self.shard_id, self.lives = client, shard_id, lives

    @staticmethod
    async def connect(bot, *, shard_id, resume=False, **_):
        """Connect, as DiscordWebSocket.from_client does."""
        if resume:
            bot.client.resumed.append(time.monotonic())
            bot.client.ready.add(shard_id)
            return Socket(bot.client, shard_id, FOR_EVER)
        return Socket(bot.client, shard_id, await bot.client.identify(shard_id))

    async def poll_event(self):
        await self.client.live(self.shard_id, self.lives)
        resume = self.shard_id in self.client.resumable
        raise ReconnectWebSocket(self.shard_id, resume=resume)


DiscordWebSocket.from_client = Socket.connect


class Library(Client):
    """The AutoShardedClient of discord.py, with the method of the page."""

    listens = 82.0

    def start(self):
        """Return what `bot.start` does after the login."""
        self.resumed: list[float] = []
        """When sessions were resumed."""
        self.resumable: set[int] = set()
        """The shards whose sessions can be resumed."""
        commands = types.SimpleNamespace(Bot=discord.AutoShardedClient)
        names = {"asyncio": asyncio, "commands": commands, "turns": self.turns}
        exec(CLASS, names)
        bot = names["Bot"](
            intents=discord.Intents.none(),
            shard_count=self.discord.shards,
            shard_ids=self.shard_ids,
        )
        bot.client, self.take = self, bot.before_identify_hook
        yield bot._async_setup_hook()
        yield bot.connect()
