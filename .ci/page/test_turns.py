"""`turns.py` and `redis_turns.py` of the page over the whole day of a bot, on a virtual clock."""

import asyncio
import contextlib
import importlib
import random
import time
from types import SimpleNamespace
from unittest import mock

import pytest
from blocks import save
from clock import FOR_EVER, HOUR, Client, Clock, Discord, Library, OwnClient

RESERVE = 100

BOTS = [(1, 1, 1000), (8, 1, 1000), (48, 16, 1000), (160, 16, 2000)]
bots = pytest.mark.parametrize("bot", BOTS, ids=lambda bot: "{} at {}".format(*bot))
clients = pytest.mark.parametrize("client_of", [OwnClient, Library])

turns = redis_turns = None


@pytest.fixture(autouse=True, scope="module")
def _programs(tmp_path_factory):
    """Import the programs of the page."""
    global turns, redis_turns
    directory = tmp_path_factory.mktemp("bot")
    save(directory)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(str(directory))
        turns, redis_turns = map(importlib.import_module, ["turns", "redis_turns"])
        yield


@pytest.fixture(autouse=True)
def _same_time(monkeypatch):
    """Let every test begin at the same time."""
    monkeypatch.setattr(Clock, "now", 50_000.0)


class Redis:
    """Redis, as far as turns need it."""

    def __init__(self, failure=""):
        self.failure, self.expires = failure, dict[str, float]()
        self.random = random.Random(1)

    async def set(self, name, value, *, nx, px):
        await asyncio.sleep(FOR_EVER if self.failure == "silence" else 0.001)
        if self.failure == "error":
            raise redis_turns.redis.ConnectionError("no")
        free = time.monotonic() >= self.expires.get(name, 0)
        if free:
            self.expires[name] = time.monotonic() + px / 1000
        delays = [0.001] * 8 + [0.45, 2] if self.failure == "delay" else [0.001]
        await asyncio.sleep(self.random.choice(delays))
        return free

    async def pttl(self, name):
        await asyncio.sleep(0.002)
        return round(1000 * (self.expires[name] - time.monotonic()))


def make(discord, shard_ids=None, cls=None, reserve=RESERVE):
    """Return turns whose looks go to *discord*."""
    turns.fetch = discord.fetch
    turns.threading = SimpleNamespace(Thread=discord.thread)
    return (cls or turns.Turns)("token", discord.info(), reserve, shard_ids)


class Fleet:
    """The processes of a bot, or of several copies of it."""

    def __init__(self, client_of, bot, processes=1, copies=1):
        self.discord, self.client_of, self.shards = Discord(*bot), client_of, bot[0]
        self.cls = turns.Turns if processes == 1 else redis_turns.RedisTurns
        share = self.shards // processes
        self.clients: list[Client] = []
        for first in range(0, self.shards, share):
            for _ in range(copies):
                self.start_process(range(first, first + share))

    def start_process(self, shard_ids):
        made = make(self.discord, list(shard_ids), self.cls)
        self.clients.append(self.client_of(self.discord, made, shard_ids))
        return self.clients[-1]

    def stop(self, client):
        self.clients.remove(client)
        for task in client.tasks:
            task.cancel()

    def lose(self, *shard_ids):
        for client in self.clients:
            for shard_id in shard_ids or client.shard_ids:
                if shard_id in client.lost:
                    client.lost[shard_id].set()

    async def recover(self, *shard_ids):
        """Lose sessions once, and return how long it takes until all are back."""
        self.lose(*shard_ids)
        await asyncio.sleep(0.1)
        return await self.seconds_until(self.is_ready)

    async def suffer(self, hours, seconds=0.5):
        """Lose all sessions, and from now on each new one after some *seconds*."""
        self.discord.lives = lambda shard_id: seconds
        self.lose()
        await asyncio.sleep(hours * HOUR)

    def heal(self):
        self.discord.lives = lambda shard_id: FOR_EVER

    def is_ready(self):
        return all(len(client.ready) == len(client.shard_ids) for client in self.clients)

    async def seconds_until(self, condition):
        begin = time.monotonic()
        while not condition():
            assert time.monotonic() < begin + 2 * HOUR + 60 * self.shards
            await asyncio.sleep(1)
        return time.monotonic() - begin

    async def start(self, hours=2):
        """Return after how many seconds all shards are ready, then let them run for some hours."""
        seconds = await self.seconds_until(self.is_ready)
        await asyncio.sleep(hours * HOUR)
        return seconds

    async def incident(self, hours, seconds=0.5):
        """Lose every session after some *seconds*; return how long it takes until all are back."""
        await self.suffer(hours, seconds)
        self.heal()
        await asyncio.sleep(seconds)
        return seconds + await self.seconds_until(self.is_ready)


class TestIncident:
    @bots
    @clients
    @pytest.mark.parametrize(("hours", "seconds"), [(1 / 6, 0.5), (1, 55), (8, 0.5)], ids=str)
    async def test_it_costs_little_and_all_are_back_soon(self, client_of, bot, hours, seconds):
        fleet = Fleet(client_of, bot)
        await fleet.start()
        spent = fleet.discord.spent
        assert await fleet.incident(hours, seconds) <= 240 + 50 * fleet.shards
        assert fleet.discord.spent - spent <= 80 * hours + 8 * fleet.shards
        assert fleet.discord.broken == 0
        assert fleet.discord.least >= RESERVE

    @bots
    @clients
    async def test_sessions_lost_once_are_back_at_once(self, client_of, bot):
        fleet = Fleet(client_of, bot)
        first = await fleet.start()
        assert first <= 1 + 5.5 * (bot[0] / bot[1])
        assert await fleet.recover() <= 2 * first + 2
        assert (fleet.discord.broken, fleet.discord.spent) == (0, 2 * fleet.shards)

    @pytest.mark.parametrize("bot", BOTS[1:3], ids=str)
    @clients
    async def test_sick_shard_keeps_nobody_away_for_long(self, client_of, bot):
        fleet = Fleet(client_of, bot)
        await fleet.start()
        fleet.discord.lives = lambda shard_id: 0.5 if shard_id == 0 else FOR_EVER
        ready = fleet.clients[0].ready
        fleet.lose(0)
        for shard_id in range(1, 8):
            await asyncio.sleep(1200)
            fleet.lose(shard_id)
            await asyncio.sleep(0.1)
            assert await fleet.seconds_until(lambda each=shard_id: each in ready) < 110

    async def test_resume_waits_no_longer_than_the_pace(self):
        fleet = Fleet(Library, (48, 16))
        await fleet.start()
        (library,) = fleet.clients
        library.resumable.add(47)
        fleet.discord.lives = lambda shard_id: 0.5
        fleet.lose(*range(47))
        for _ in range(100):
            await asyncio.sleep(97)
            lost = time.monotonic()
            fleet.lose(47)
            await fleet.seconds_until(lambda lost=lost: library.resumed[-1:] >= [lost])
            assert library.resumed[-1] - lost <= 51


class TestReserve:
    @bots
    @clients
    async def test_it_is_left_for_as_long_as_sessions_are_lost(self, client_of, bot):
        fleet = Fleet(client_of, bot)
        await fleet.suffer(23.9)
        assert fleet.discord.least == RESERVE
        (client,) = fleet.clients
        assert client.refusals[-1].startswith("too few sessions are left until ")
        fleet.heal()
        assert await fleet.seconds_until(fleet.is_ready) <= HOUR + 60 * fleet.shards
        assert fleet.discord.broken == 0

    @pytest.mark.parametrize(("failure", "least"), [(None, 900), (OSError(), 450)], ids=repr)
    async def test_day_after_the_reset_has_a_reserve_as_well(self, failure, least):
        fleet = Fleet(OwnClient, (8, 1))
        fleet.discord.refuses = lambda: failure
        await fleet.suffer(6 * 24)
        assert fleet.discord.least >= RESERVE
        assert fleet.discord.spent > 5 * least

    async def test_two_long_incidents_in_a_day_are_two_where_a_reset_was_between(self):
        fleet = Fleet(Library, (8, 1))
        await fleet.start()
        for _ in range(2):
            assert await fleet.incident(8) <= 600
            await asyncio.sleep(8 * HOUR)

    @bots
    @clients
    async def test_restart_that_just_leaves_it_starts_all(self, client_of, bot):
        fleet = Fleet(client_of, bot)
        fleet.stop(fleet.clients[0])
        fleet.discord.leave(RESERVE + fleet.shards)
        client = fleet.start_process(range(fleet.shards))
        assert await fleet.seconds_until(fleet.is_ready) <= 600
        assert (client.refusals, fleet.discord.least) == ([], RESERVE)

    async def test_error_that_says_so_hides_what_came_before_it(self):
        made = make(Discord(1, 1), [], reserve=1000)
        with pytest.raises(ConnectionError) as caught:
            await made.take(0)
        assert caught.value.__suppress_context__  # libraries log it, while they handle another

    @pytest.mark.parametrize("reserve", [0, 1, 2000])
    async def test_it_is_one_at_least_and_may_be_more_than_all(self, reserve):
        discord = Discord(1, 1, total=20)
        made = make(discord, reserve=reserve)
        with contextlib.suppress(ConnectionError):
            while True:
                await made.take(0)
                discord.identify(0)
        assert discord.least == min(max(reserve, 1), 20)


class TestOthersSpend:
    @bots
    @clients
    async def test_copies_of_the_bot_leave_half_of_the_reserve(self, client_of, bot):
        fleet = Fleet(client_of, bot, copies=3)
        await fleet.suffer(30)
        assert fleet.discord.least >= RESERVE / 2

    @bots
    @clients
    @pytest.mark.parametrize("left", [200, 120])
    async def test_two_copies_that_lose_all_at_once_leave_half_of_the_reserve(
        self, client_of, bot, left
    ):
        fleet = Fleet(client_of, bot, copies=2)
        await fleet.seconds_until(lambda: len(fleet.clients[1].ready) > fleet.shards / 2)
        await asyncio.sleep(2 * HOUR)
        fleet.discord.leave(left)
        await fleet.suffer(1)
        assert fleet.discord.least >= RESERVE / 2

    @clients
    async def test_job_that_logs_in_each_minute_is_noticed(self, client_of):
        fleet = Fleet(client_of, (8, 1))
        await fleet.suffer(0)
        while fleet.discord.remaining > RESERVE + 20:
            await asyncio.sleep(60)
            fleet.discord.identify(0)
        await asyncio.sleep(4 * HOUR)
        assert fleet.discord.least >= RESERVE

    @clients
    @pytest.mark.parametrize(
        ("bot", "processes"), [*((bot, 1) for bot in BOTS), ((64, 16, 1000), 8)], ids=str
    )
    @pytest.mark.parametrize("left", [300, 100])
    async def test_other_program_that_spent_in_a_quiet_night_is_noticed(
        self, client_of, bot, processes, left
    ):
        redis_turns.client = Redis()
        fleet = Fleet(client_of, bot, processes)
        await fleet.start(8)
        fleet.discord.leave(left)
        await fleet.suffer(4)
        assert fleet.discord.least >= RESERVE - processes

    @clients
    @pytest.mark.parametrize("processes", [2, 8])
    @pytest.mark.parametrize("limited", [False, True], ids=["", "looks are limited"])
    async def test_process_that_crashes_again_and_again_is_noticed(
        self, client_of, processes, limited
    ):
        redis_turns.client = Redis()
        fleet = Fleet(client_of, (64, 16), processes)
        await fleet.start()
        sick = fleet.clients[0]
        fleet.stop(sick)
        while fleet.discord.remaining >= RESERVE + len(sick.shard_ids):  # as its look wants
            await asyncio.sleep(7)
            for shard_id in sick.shard_ids:
                fleet.discord.identify(shard_id)
        if limited:
            fleet.discord.limit_looks()
        await fleet.suffer(4)
        assert fleet.discord.least >= RESERVE - processes


class TestLooks:
    @clients
    async def test_there_is_one_a_minute_while_sessions_are_started_and_else_none(self, client_of):
        fleet = Fleet(client_of, (8, 1))
        await fleet.start(8)
        assert fleet.discord.looked == []
        await fleet.incident(8)
        looked = fleet.discord.looked
        assert 200 < len(looked) <= 8 * 60
        assert min(map(float.__sub__, looked[1:], looked)) >= 60
        await asyncio.sleep(HOUR)
        assert len(fleet.discord.looked) == len(looked)

    @pytest.mark.parametrize("seconds", [30, 3600, 82_721])
    async def test_refused_one_is_made_again_after_its_time(self, seconds):
        fleet = Fleet(Library, (8, 1))
        await fleet.start()
        fleet.discord.refuse(seconds)
        await fleet.suffer(0.03)
        (refused,) = fleet.discord.looked[:1]
        fleet.discord.refuses = lambda: None
        await asyncio.sleep(seconds + 1000)
        assert refused + seconds <= fleet.discord.looked[1] <= refused + seconds + 600

    @pytest.mark.parametrize("bot", BOTS[1:3], ids=str)
    @clients
    @pytest.mark.parametrize("how", ["refused", "failing", "hanging", "impossible"])
    async def test_bot_is_back_after_the_reset_without_one(self, client_of, bot, how, monkeypatch):
        fleet = Fleet(client_of, bot)
        await fleet.start(20)
        fleet.discord.leave(RESERVE + 1)
        await fleet.suffer(1)
        assert fleet.discord.least == RESERVE
        if how == "refused":
            fleet.discord.refuse(23 * HOUR)
        elif how == "failing":
            fleet.discord.refuses = lambda: TimeoutError("timed out")
        elif how == "hanging":
            fleet.discord.delay = FOR_EVER
        else:
            start = mock.Mock(side_effect=RuntimeError("can't start new thread"))
            turns.threading = SimpleNamespace(
                Thread=lambda target, daemon: SimpleNamespace(start=start)
            )
        fleet.heal()
        await asyncio.sleep(fleet.discord.resets - time.monotonic())
        assert (fleet.is_ready(), fleet.discord.least) == (False, RESERVE)
        assert await fleet.seconds_until(fleet.is_ready) <= HOUR + 60 * fleet.shards

    @pytest.mark.parametrize("seconds", [15, 30])
    async def test_slow_one_forgets_nothing(self, seconds):
        fleet = Fleet(OwnClient, (48, 16))
        await fleet.start()
        fleet.discord.delay = seconds
        fleet.discord.leave(180)
        await fleet.suffer(1)
        assert fleet.discord.least >= RESERVE

    async def test_slow_one_knows_the_reset_no_sooner(self):
        fleet = Fleet(OwnClient, (48, 16))
        await fleet.start()
        fleet.discord.delay = 16
        fleet.discord.leave(RESERVE)
        await asyncio.sleep(fleet.discord.resets - time.monotonic() - 25)
        await fleet.suffer(0.1)
        assert fleet.discord.least == RESERVE

    @pytest.mark.parametrize("seconds", [11, 19])
    async def test_slow_one_is_there_when_the_start_is_due(self, seconds):
        fleet = Fleet(Library, (1, 1))
        fleet.discord.delay = seconds
        assert await fleet.incident(3) <= 120

    async def test_one_that_hangs_holds_up_no_start_for_long(self):
        fleet = Fleet(Library, (8, 1))
        await fleet.start()
        fleet.discord.delay = FOR_EVER
        assert await fleet.recover() <= 20 + 2 * 44
        await asyncio.sleep(HOUR)
        assert await fleet.recover(0) <= 2
        assert len(fleet.discord.looked) == 1

    async def test_one_that_is_refused_each_second_holds_up_no_start_for_long(self):
        fleet = Fleet(Library, (8, 1))
        fleet.discord.refuse(1)
        await fleet.start()
        assert await fleet.recover() <= 8 * 26

    async def test_start_that_cannot_wait_for_the_next_one_fails(self):
        discord = Discord(1, 1, total=RESERVE + 20)
        discord.refuse(23 * HOUR)
        made = make(discord)
        begin = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while True:
                await made.take(0)
        assert time.monotonic() - begin < HOUR

    async def test_thread_that_cannot_be_started_is_tried_again(self):
        fleet = Fleet(Library, (8, 1))
        await fleet.start()
        with mock.patch.object(turns.threading, "Thread", side_effect=RuntimeError):
            await fleet.suffer(0.1)
        await fleet.suffer(1)
        assert len(fleet.discord.looked) > 10


class TestSeveralProcesses:
    @clients
    @pytest.mark.parametrize("hours", [1 / 6, 8])
    @pytest.mark.parametrize("processes", [2, 8])
    async def test_they_cost_no_more_than_one(self, client_of, hours, processes):
        redis_turns.client = Redis()
        fleet = Fleet(client_of, (64, 16), processes)
        assert await fleet.start() <= 60
        spent = fleet.discord.spent
        assert await fleet.incident(hours) <= 600 + 50 * fleet.shards
        assert fleet.discord.spent - spent <= 80 * hours + 8 * fleet.shards
        assert fleet.discord.broken == 0

    @clients
    @pytest.mark.parametrize(
        ("failure", "told"),
        [("", ""), ("delay", ""), ("error", "'no'"), ("silence", "'TimeoutError()'")],
        ids=["with", "late", "without", "mute"],
    )
    async def test_reserve_is_left_with_redis_and_without(self, client_of, failure, told, capsys):
        redis_turns.client = Redis(failure)
        fleet = Fleet(client_of, (64, 16), 8)
        await fleet.suffer(23.9)
        assert RESERVE - 8 <= fleet.discord.least < RESERVE + 8
        assert fleet.discord.broken == 0
        assert (f"no turns from Redis: {told}" in capsys.readouterr().out) == bool(told)

    @clients
    async def test_pods_that_start_without_redis_are_soon_there(self, client_of):
        redis_turns.client = Redis("error")
        fleet = Fleet(client_of, (24, 1), 3)
        assert await fleet.seconds_until(fleet.is_ready) <= 600
        assert fleet.discord.broken == 0

    @clients
    @pytest.mark.parametrize(("left", "started"), [(140, 24), (130, 24), (124, 24), (110, 8)])
    async def test_rolling_restart_starts_whose_own_shards_leave_the_reserve(
        self, client_of, left, started
    ):
        redis_turns.client = Redis()
        fleet = Fleet(client_of, (24, 1), 3)
        await fleet.start()
        fleet.discord.leave(left)
        for client in fleet.clients[:]:
            fleet.stop(client)
            if fleet.discord.remaining >= RESERVE + 8:  # as its look wants
                fleet.start_process(client.shard_ids)
                assert await fleet.seconds_until(fleet.is_ready) <= 0.5 * HOUR
        assert sum(len(client.ready) for client in fleet.clients) == started
        assert fleet.discord.least >= RESERVE


class TestTaking:
    async def test_cancelled_waits_cost_nothing(self):
        made = make(Discord(4, 1, total=104))
        await made.take(0)
        for _ in range(100):
            tasks = [asyncio.ensure_future(made.take(shard_id)) for shard_id in range(4)]
            await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        begin = time.monotonic()
        await made.take(0)
        assert time.monotonic() - begin < 5.5

    async def test_key_that_expires_between_two_questions_is_no_turn(self):
        answers = {"set.return_value": None, "pttl.return_value": -2}  # there is no such key
        redis_turns.client = mock.AsyncMock(**answers)
        assert await make(Discord(1, 1), cls=redis_turns.RedisTurns).turn(0) > 0

    async def test_redis_that_was_restarted_gives_no_second_turn(self):
        redis_turns.client = mock.AsyncMock(**{"set.return_value": True})
        made = make(Discord(1, 1), cls=redis_turns.RedisTurns)
        assert await made.turn(0) <= 0 < await made.turn(0)
