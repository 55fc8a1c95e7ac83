"""The turns of the README over the whole day of a bot, on a virtual clock."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from clock import FOR_EVER, HOUR, Client, Clock, Discord, Item, Library, OwnClient, run
from readme import block

RESERVE = 100

names: dict[str, Any] = {"RESERVE": RESERVE, "time": time}
for lines in (block("python", "class Turns:"), block("python", "class RedisTurns(")):
    exec(lines.split("\nturns = ")[0], names)

BOTS = [(1, 1, 1000), (8, 1, 1000), (16, 16, 1000), (48, 16, 1000), (160, 16, 2000)]
bots = pytest.mark.parametrize("bot", BOTS, ids=lambda bot: "{} at {}".format(*bot))
clients = pytest.mark.parametrize("client_of", [OwnClient, Library])


@pytest.fixture(autouse=True)
def clock(monkeypatch: Any) -> None:
    """Let every test begin at the same time."""
    monkeypatch.setattr(Clock, "now", 50_000.0)


class Redis:
    """Redis, as far as turns need it."""

    def __init__(self, failure: str = "") -> None:
        """Hold no key."""
        self.failure, self.expires = failure, dict[str, float]()
        self.random = random.Random(1)

    async def set(self, name: str, value: int, *, nx: bool, px: int) -> bool:
        """Set a key that is not there."""
        await asyncio.sleep(FOR_EVER if self.failure == "silence" else 0.001)
        if self.failure == "error":
            raise names["redis"].ConnectionError("Error connecting")
        free = time.monotonic() >= self.expires.get(name, 0)
        if free:
            self.expires[name] = time.monotonic() + px / 1000
        late = self.failure == "delay" and self.random.random() < 0.1
        await asyncio.sleep(2 if late else 0.001)
        return free

    async def pttl(self, name: str) -> int:
        """Return for how long a key is there."""
        await asyncio.sleep(0.002)
        return round(1000 * (self.expires[name] - time.monotonic()))


class Fleet:
    """The processes of a bot."""

    def __init__(self, client_of: Any, bot: Any, processes: int = 1, turns: str = "Turns") -> None:
        """Start all shards."""
        self.discord = Discord(*bot)
        self.shards = bot[0]
        share = self.shards // processes
        self.clients: list[Client] = []
        for first in range(0, self.shards, share):
            shard_ids = range(first, first + share)
            made = names[turns](self.discord.info(), RESERVE, shard_ids)
            self.clients.append(client_of(self.discord, made, shard_ids))

    def lose(self, shard_id: int) -> None:
        """Lose the session of a shard."""
        for client in self.clients:
            if shard_id in client.shard_ids:
                client.lost[shard_id].set()

    def is_ready(self) -> bool:
        """Return whether all shards are."""
        return sum(len(client.ready) for client in self.clients) == self.shards

    async def seconds_until(self, condition: Callable[[], bool]) -> float:
        """Wait and return how long it took."""
        begin = time.monotonic()
        while not condition():
            assert time.monotonic() < begin + 50 * HOUR
            await asyncio.sleep(1)
        return time.monotonic() - begin

    async def start(self) -> float:
        """Return after how many seconds all shards are ready, then let them run for two hours."""
        seconds = await self.seconds_until(self.is_ready)
        await asyncio.sleep(2 * HOUR)
        return seconds

    async def incident(self, hours: float, seconds: float) -> float:
        """Lose every session after some *seconds*; return how long it takes until all are back."""
        self.discord.lives = lambda shard_id: seconds
        for shard_id in range(self.shards):
            self.lose(shard_id)
        await asyncio.sleep(hours * HOUR)
        self.discord.lives = Discord(*BOTS[0]).lives
        await asyncio.sleep(seconds)
        return seconds + await self.seconds_until(self.is_ready)


class TestIncident:
    @bots
    @clients
    @pytest.mark.parametrize("hours", [1 / 6, 1, 8])
    @pytest.mark.parametrize("seconds", [0.5, 55])
    def test_it_costs_little_and_all_are_back_soon(
        self, client_of: Any, bot: Any, hours: float, seconds: float
    ) -> None:
        async def day() -> None:
            fleet = Fleet(client_of, bot)
            await fleet.start()
            spent = fleet.discord.spent
            assert await fleet.incident(hours, seconds) <= 240 + 50 * fleet.shards
            assert fleet.discord.spent - spent <= 80 * hours + 8 * fleet.shards
            assert fleet.discord.broken == 0
            assert fleet.discord.least >= RESERVE

        run(day())

    @bots
    @clients
    def test_sessions_lost_once_are_back_at_once(self, client_of: Any, bot: Any) -> None:
        async def day() -> None:
            fleet = Fleet(client_of, bot)
            first = await fleet.start()
            assert first <= 1 + 5.5 * (bot[0] / bot[1])
            for shard_id in range(fleet.shards):
                fleet.lose(shard_id)
            await asyncio.sleep(0.1)
            assert await fleet.seconds_until(fleet.is_ready) <= 2 * first + 1
            assert (fleet.discord.broken, fleet.discord.spent) == (0, 2 * fleet.shards)

        run(day())

    @pytest.mark.parametrize("bot", BOTS[1:], ids=str)
    @clients
    def test_sick_shard_keeps_nobody_away_for_long(self, client_of: Any, bot: Any) -> None:
        async def day() -> None:
            fleet = Fleet(client_of, bot)
            await fleet.start()
            fleet.discord.lives = lambda shard_id: 0.5 if shard_id == 0 else 1e9
            fleet.lose(0)
            for shard_id in range(1, 8):
                await asyncio.sleep(1200)
                fleet.lose(shard_id)
                await asyncio.sleep(0.1)
                back = lambda: shard_id in fleet.clients[0].ready  # noqa: B023, E731
                assert await fleet.seconds_until(back) < 110

        run(day())

    def test_resume_waits_no_longer_than_the_pace(self) -> None:
        async def day() -> None:
            fleet = Fleet(Library, (48, 16))
            await fleet.start()
            (library,) = fleet.clients
            assert isinstance(library, Library)
            fleet.discord.lives = lambda shard_id: 0.5
            for shard_id in range(47):
                fleet.lose(shard_id)
            for _ in range(100):
                await asyncio.sleep(97)
                library.queue.put_nowait(Item(library.RESUME, 47))
            await asyncio.sleep(60)
            assert len(library.resumed_after) == 100
            assert max(library.resumed_after) <= 50

        run(day())


class TestReserve:
    @bots
    @clients
    def test_it_is_left_for_as_long_as_sessions_are_lost(self, client_of: Any, bot: Any) -> None:
        async def day() -> None:
            fleet = Fleet(client_of, bot)
            fleet.discord.lives = lambda shard_id: 0.5
            await asyncio.sleep(23.9 * HOUR)
            assert fleet.discord.least == RESERVE
            (client,) = fleet.clients
            assert client.refusals[-1].startswith("too few sessions are left until ")
            fleet.discord.lives = Discord(*BOTS[0]).lives
            assert await fleet.seconds_until(fleet.is_ready) <= HOUR + 60 * fleet.shards
            assert fleet.discord.broken == 0

        run(day())

    def test_what_was_spent_before_the_start_is_missing_until_the_reset(self) -> None:
        async def day() -> None:
            discord = Discord(2, 1)
            discord.remaining, discord.resets = 150, round(time.monotonic()) + 2 * HOUR + 0.5
            until = time.ctime(time.time() + discord.resets - time.monotonic())
            turns = names["Turns"](discord.info(), RESERVE, [0])  # of two processes
            for _ in range(25):
                await turns.take(0)
            with pytest.raises(ConnectionError) as caught:
                await turns.take(0)
            assert str(caught.value).endswith(f"left until {until}")
            await asyncio.sleep(2 * HOUR)
            for _ in range(425):
                await turns.take(0)
            with pytest.raises(ConnectionError):
                await turns.take(0)

        run(day())

    def test_day_after_the_reset_has_a_reserve_as_well(self) -> None:
        async def days() -> None:
            fleet = Fleet(OwnClient, (8, 1))
            fleet.discord.lives = lambda shard_id: 0.5
            await asyncio.sleep(6 * 24 * HOUR)
            assert fleet.discord.least == RESERVE
            assert fleet.discord.spent > 5 * 900

        run(days())


class TestSeveralProcesses:
    @clients
    @pytest.mark.parametrize("hours", [1 / 6, 1, 8])
    @pytest.mark.parametrize("processes", [2, 8])
    def test_they_cost_no_more_than_one(self, client_of: Any, hours: float, processes: int) -> None:
        async def day() -> None:
            names["client"] = Redis()
            fleet = Fleet(client_of, (64, 16), processes, "RedisTurns")
            assert await fleet.start() <= 60
            spent = fleet.discord.spent
            assert await fleet.incident(hours, 0.5) <= 600 + 50 * fleet.shards
            assert fleet.discord.spent - spent <= 80 * hours + 8 * fleet.shards
            assert fleet.discord.broken == 0

        run(day())

    @clients
    @pytest.mark.parametrize(
        ("failure", "told"),
        [("", ""), ("error", "'Error connecting'\n"), ("silence", "'TimeoutError()'\n")],
        ids=["with", "without", "mute"],
    )
    def test_reserve_is_left_with_redis_and_without(
        self, client_of: Any, failure: str, told: str, capsys: Any
    ) -> None:
        async def day() -> None:
            names["client"] = Redis(failure)
            fleet = Fleet(client_of, (64, 16), 8, "RedisTurns")
            fleet.discord.lives = lambda shard_id: 0.5
            await asyncio.sleep(23.9 * HOUR)
            assert RESERVE <= fleet.discord.least < RESERVE + 8
            assert fleet.discord.broken == 0

        run(day())
        output = capsys.readouterr().out
        assert f"no turns from Redis: {told}" in output if failure else output == ""

    @clients
    def test_answer_that_is_late_is_no_turn(self, client_of: Any) -> None:
        async def day() -> None:
            names["client"] = Redis("delay")
            fleet = Fleet(client_of, (64, 16), 8, "RedisTurns")
            await fleet.start()
            assert fleet.discord.broken == 0

        run(day())

    def test_reserve_is_left_whenever_their_days_begin(self) -> None:
        async def days() -> None:
            names["client"] = Redis()
            fleet = Fleet(OwnClient, (64, 16), 8, "RedisTurns")
            await asyncio.sleep(25 * HOUR)
            fleet.lose(0)  # a day begins for Discord and for one process, 12 hours before others
            await asyncio.sleep(12 * HOUR)
            for shard_id in range(fleet.shards):
                fleet.lose(shard_id)
            await asyncio.sleep(12 * HOUR)
            await fleet.incident(24, 0.5)
            assert fleet.discord.least >= RESERVE

        run(days())


class TestTaking:
    def test_cancelled_waits_cost_nothing(self) -> None:
        async def take() -> None:
            turns = names["Turns"](Discord(4, 1, total=102).info(), RESERVE)
            await turns.take(0)
            for _ in range(100):
                tasks = [asyncio.ensure_future(turns.take(shard_id)) for shard_id in range(4)]
                await asyncio.sleep(0.01)
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
            begin = time.monotonic()
            await turns.take(0)
            assert time.monotonic() - begin < 5

        run(take())

    def test_second_loop_goes_on_where_the_first_was_left(self) -> None:
        async def make() -> Any:
            return names["Turns"](Discord(1, 1).info(), RESERVE)

        async def take() -> float:
            begin = time.monotonic()
            await turns.take(0)
            return time.monotonic() - begin

        async def leave() -> None:
            waiting = asyncio.ensure_future(turns.take(0))
            await asyncio.sleep(1)
            assert not waiting.done()

        turns = run(make())
        assert run(take()) == 0
        run(leave())
        assert run(take()) == pytest.approx(4.5)

    def test_key_that_expires_between_two_questions_is_no_turn(self) -> None:
        async def take() -> None:
            answers = {"set.return_value": None, "pttl.return_value": -2}  # there is no such key
            names["client"] = mock.AsyncMock(**answers)
            turns = names["RedisTurns"](Discord(1, 1).info(), RESERVE)
            assert await turns.turn(0) > 0

        run(take())

    def test_process_that_runs_what_it_does_not_have_is_told(self) -> None:
        async def make() -> None:
            names["Turns"](Discord(4, 1).info(), RESERVE, [3, 4])

        with pytest.raises(ValueError, match="shard_id: expected an integer from 0 to 3, got 4"):
            run(make())
