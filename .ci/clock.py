"""Days on a virtual clock: an event loop moves the time on instead of waiting for it."""

import asyncio
import contextlib
import dataclasses
import random
import selectors
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar
from unittest import mock

from sessions import GatewayBotInfo

T = TypeVar("T")
HOUR = 3600.0
FOR_EVER = 1e9


class Clock(selectors.SelectSelector):
    """The clock, and the selector of a loop that goes by it."""

    now = 50_000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Let the time that the loop wants to wait for pass at once."""
        if timeout is None:
            raise RuntimeError("nothing will ever happen again")
        Clock.now += timeout
        return super().select(0)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run *main* as `asyncio.run` does, on the virtual clock, which goes on between two runs."""
    monotonic = mock.Mock(side_effect=lambda: Clock.now)
    today = mock.Mock(side_effect=lambda: Clock.now + 1.7e9)
    with mock.patch.multiple("time", monotonic=monotonic, time=today):
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
    """It keeps the rule and the count, and loses the sessions that it is told to lose."""

    def __init__(self, shards: int, max_concurrency: int, total: int = 1000) -> None:
        """Start with a full count and a window that ends in a day."""
        self.shards, self.max_concurrency, self.total = shards, max_concurrency, total
        self.remaining = self.least = total
        self.resets = time.monotonic() + 24 * HOUR
        self.spent = 0
        self.broken = 0
        """How many IDENTIFYs came too early for their key."""
        self.lives: Callable[[int], float] = lambda shard_id: FOR_EVER
        """For how many seconds a new session of a shard lives."""
        self._last: dict[int, float] = defaultdict(lambda: -FOR_EVER)

    def info(self) -> GatewayBotInfo:
        """Answer a look."""
        limit = {
            "total": self.total,
            "remaining": self.remaining,
            "reset_after": max(0, round(1000 * (self.resets - time.monotonic()))),
            "max_concurrency": self.max_concurrency,
        }
        return GatewayBotInfo.from_payload(
            {"url": "wss://host", "shards": self.shards, "session_start_limit": limit}
        )

    def identify(self, shard_id: int) -> float:
        """Start a session and return for how many seconds it lives."""
        now, key = time.monotonic(), shard_id % self.max_concurrency
        if now >= self.resets:
            self.remaining, self.resets = self.total, now + 24 * HOUR
        early = now < self._last[key] + 5
        self._last[key] = now
        self.spent += 1
        self.remaining -= 1
        self.least = min(self.least, self.remaining)
        self.broken += early
        return 0.1 if early else self.lives(shard_id)


class Client:
    """The shards of a process."""

    def __init__(self, discord: Discord, turns: Any, shard_ids: Iterable[int]) -> None:
        """Start in tasks of the running loop."""
        self.discord, self.turns, self.shard_ids = discord, turns, list(shard_ids)
        self.ready: set[int] = set()
        self.lost = {shard_id: asyncio.Event() for shard_id in self.shard_ids}
        self.refusals: list[str] = []
        """What is said where no session may be started."""
        self.tasks = self.start()

    def start(self) -> list["asyncio.Task[None]"]:
        """Start to run the shards."""
        raise NotImplementedError

    async def identify(self, shard_id: int) -> float:
        """Connect and IDENTIFY, in turn, and return for how many seconds the session lives."""
        await asyncio.sleep(0.1)
        await self.turns.take(shard_id)
        lives = self.discord.identify(shard_id)
        self.ready.add(shard_id)
        return lives

    async def live(self, shard_id: int, seconds: float) -> None:
        """Read until the session is lost."""
        self.lost[shard_id].clear()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.lost[shard_id].wait(), seconds)
        self.ready.remove(shard_id)


class OwnClient(Client):
    """Each shard in a task of its own."""

    def start(self) -> list["asyncio.Task[None]"]:
        """Start a task for each shard."""
        return [asyncio.ensure_future(self.run_shard(each)) for each in self.shard_ids]

    async def run_shard(self, shard_id: int) -> None:
        """Keep a shard running."""
        while True:
            try:
                await self.live(shard_id, await self.identify(shard_id))
            except ConnectionError as error:
                self.refusals.append(str(error))


@dataclasses.dataclass(order=True)
class Item:
    """What waits in the queue of a library."""

    event: int
    shard_id: int = dataclasses.field(compare=False)
    at: float = dataclasses.field(compare=False, default_factory=lambda: time.monotonic())


class Library(Client):
    """The AutoShardedClient of discord.py 2.7 and its forks: one queue, one shard at a time."""

    RECONNECT, RESUME, IDENTIFY = range(3)
    """Events: the least goes first, and equal ones go in the order of a heap."""

    def start(self) -> list["asyncio.Task[None]"]:
        """Start the task that handles the queue."""
        self.queue: asyncio.PriorityQueue[Item] = asyncio.PriorityQueue()
        self.resumed_after: list[float] = []
        self.failures = dict.fromkeys(self.shard_ids, (0, -FOR_EVER))
        self.random = random.Random(1)
        return [asyncio.ensure_future(self.handle())]

    async def connect(self, shard_id: int) -> None:
        """IDENTIFY, and tell the loss of the session when it comes."""
        lives = await self.identify(shard_id)

        async def worker() -> None:
            await self.live(shard_id, lives)
            self.queue.put_nowait(Item(self.IDENTIFY, shard_id))

        self.tasks.append(asyncio.ensure_future(worker()))

    async def launch(self, shard_id: int) -> None:
        """Start a shard for the first time."""
        while True:
            try:
                return await asyncio.wait_for(self.connect(shard_id), 180)
            except (ConnectionError, asyncio.TimeoutError) as error:
                self.refusals.append(str(error))
                await asyncio.sleep(5)

    async def handle(self) -> None:
        """Launch the shards, then handle what happens to them."""
        for shard_id in self.shard_ids:
            await self.launch(shard_id)
        while True:
            item = await self.queue.get()
            if item.event == self.RESUME:
                self.resumed_after.append(time.monotonic() - item.at)
                continue
            try:
                await asyncio.wait_for(self.connect(item.shard_id), 60)
            except (ConnectionError, asyncio.TimeoutError) as error:
                self.refusals.append(str(error))
                await self.back_off(item.shard_id)
                self.queue.put_nowait(Item(self.RECONNECT, item.shard_id))

    async def back_off(self, shard_id: int) -> None:
        """Wait before the next try, and let all others wait as well."""
        failures, last = self.failures[shard_id]
        now = time.monotonic()
        failures = 1 if now - last > 2048 else min(failures + 1, 10)
        self.failures[shard_id] = failures, now
        await asyncio.sleep(self.random.uniform(0, 2**failures))
