"""turns.py and redis_turns.py over the whole day of a bot, on a virtual clock."""

import asyncio
import contextlib
import datetime
import math
import time
import types
from unittest import mock

import pytest
import redis

import turns
from conftest import MANY_LOST, TOO_FEW
from day import DAY, FOREVER, HOUR, Discord, Fleet, Library, OwnClient, Redis, Socket, fetch
from look import RESERVE
from redis_turns import SLOT, RedisTurns
from turns import EXTRA_STARTS, FRESH, HOOK_TIMEOUT, INTERVAL, PACE, PATIENCE, Turns

LONGEST_BACKOFF = 1024
"""The libraries try again after at most this number of seconds."""

# The shards of a bot, its max_concurrency, and its sessions a day.
ONE, EIGHT, MANY, MORE = (1, 1, 1000), (8, 1, 1000), (48, 16, 1000), (160, 16, 2000)
PODS = (64, 16, 1000)

bots = pytest.mark.parametrize("bot", [ONE, EIGHT, MANY, MORE], ids=lambda bot: f"{bot[0]} shards")
sharded_bots = pytest.mark.parametrize("bot", [EIGHT, MANY], ids=lambda bot: f"{bot[0]} shards")
clients = pytest.mark.parametrize("make_client", [OwnClient, Library])


# -W default would only show an error that ends a thread.
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.fixture(autouse=True)
def _discord(monkeypatch):
    """Let requests go to the stand-in."""
    monkeypatch.setattr(turns, "fetch", fetch)
    Socket.install(monkeypatch)


@pytest.fixture
def use_redis(monkeypatch):
    """Return a function that lets processes use a Redis server, which may fail."""
    server = Redis()
    monkeypatch.setattr("redis.asyncio.from_url", server.from_url)

    def use_redis(host="good"):
        monkeypatch.setenv("REDIS_URL", f"redis://{host}")

    use_redis.server = server
    use_redis()
    return use_redis


def get_recovery_limit(shards):
    """Return within how many seconds all shards are ready again after an incident."""
    return PACE * shards + 4 * HOOK_TIMEOUT


async def take_until_error(guard, limit, discord=None):
    """Start a shard until it is refused, which has to happen within *limit* starts."""
    for _ in range(limit + 1):
        try:
            await guard.take(0)
        except ConnectionError:
            return
        if discord:
            discord.identify(0)
    pytest.fail(f"more than {limit} sessions were started")


class TestIncidents:
    @bots
    @clients
    @pytest.mark.parametrize(("hours", "seconds"), [(1 / 6, 0.5), (1, 55), (8, 0.5)])
    async def test_incident_costs_the_burst_and_the_pace(self, make_client, bot, hours, seconds):
        fleet = Fleet(make_client, bot)
        await fleet.start()
        identifies = fleet.discord.identifies
        await fleet.incident(hours, seconds, limit=get_recovery_limit(fleet.shards))
        # The head start, the pace, and one IDENTIFY for each shard after the end.
        budget = 2 * fleet.shards + EXTRA_STARTS + hours * HOUR / PACE + fleet.shards
        assert fleet.discord.identifies - identifies <= budget
        assert fleet.discord.early_identifies == 0
        assert fleet.discord.lowest_remaining >= RESERVE

    @bots
    @clients
    async def test_sessions_lost_once_return_at_once(self, make_client, bot):
        fleet = Fleet(make_client, bot)
        shards, max_concurrency, _ = bot
        seconds = await fleet.start()
        assert seconds <= INTERVAL * shards / max_concurrency + 1
        await fleet.lose_once(limit=2 * seconds + 2)
        assert (fleet.discord.early_identifies, fleet.discord.identifies) == (0, 2 * shards)

    @sharded_bots
    @clients
    async def test_failing_shard_does_not_keep_others_away(self, make_client, bot):
        fleet = Fleet(make_client, bot)
        await fleet.start()
        fleet.discord.get_lifetime = lambda shard_id: 0.5 if shard_id == 0 else FOREVER
        ready = fleet.clients[0].ready
        fleet.lose(0)
        for shard_id in range(1, 8):
            await asyncio.sleep(1200)
            fleet.lose(shard_id)
            await asyncio.sleep(0.1)
            await fleet.wait_until(lambda each=shard_id: each in ready, 2 * HOOK_TIMEOUT)


class TestReserve:
    @bots
    @clients
    async def test_reserve_is_left_if_sessions_are_lost_all_day(self, make_client, bot):
        fleet = Fleet(make_client, bot)
        await fleet.lose_all_for(23.9)
        assert fleet.discord.lowest_remaining == RESERVE
        (client,) = fleet.clients
        assert client.errors[-1].startswith(TOO_FEW)
        fleet.discord.keep_sessions()
        await fleet.wait_until_ready(HOUR + get_recovery_limit(fleet.shards))
        assert fleet.discord.early_identifies == 0

    @pytest.mark.parametrize(
        ("error", "a_day"), [(None, 900), (OSError(), 450)], ids=["answers", "errors"]
    )
    async def test_every_day_has_a_reserve(self, error, a_day):
        fleet = Fleet(OwnClient, EIGHT)
        fleet.discord.get_error = lambda: error
        await fleet.lose_all_for(3 * 24)
        assert fleet.discord.lowest_remaining >= RESERVE
        assert fleet.discord.identifies > 2 * a_day

    async def test_reset_without_an_answer_begins_a_day(self):
        fleet = Fleet(OwnClient, ONE)
        fleet.stop(fleet.clients[0])
        fleet.discord.set_remaining(RESERVE + 1)
        fleet.discord.reset_time = time.monotonic() + HOUR
        fleet.discord.get_error = OSError
        fleet.start_process([0])
        await fleet.lose_all_for(24)
        assert fleet.discord.lowest_remaining >= RESERVE
        assert fleet.discord.identifies > 400  # half of the new budget

    @bots
    @clients
    @pytest.mark.parametrize("make_turns", [Turns, RedisTurns])
    async def test_restart_that_just_leaves_the_reserve_succeeds(
        self, make_client, bot, make_turns, use_redis
    ):
        fleet = Fleet(make_client, bot, make_turns=make_turns)
        fleet.stop(fleet.clients[0])
        fleet.discord.set_remaining(RESERVE + fleet.shards)
        client = fleet.start_process(range(fleet.shards))
        # Each answer allows half of what is left.
        answers = math.log2(fleet.shards) + 2
        await fleet.wait_until_ready(answers * (FRESH + 1) + INTERVAL * fleet.shards)
        assert (client.errors, fleet.discord.lowest_remaining) == ([], RESERVE)

    @pytest.mark.parametrize("make_turns", [Turns, RedisTurns])
    @pytest.mark.parametrize("reserve", [0, 1, 7, 2000])
    async def test_reserve_is_at_least_one(self, reserve, make_turns, use_redis):
        discord = Discord(1, 1, total=20)
        guard = make_turns(discord.token, discord.get_info(), reserve)
        await take_until_error(guard, 20, discord)
        assert discord.lowest_remaining == min(max(reserve, 1), 20)

    async def test_error_at_the_default_reserve_names_the_reset(self):
        discord = Discord(1, 1, total=RESERVE)
        reset = time.ctime(time.time() + DAY)
        with pytest.raises(ConnectionError, match=f"^{TOO_FEW}{reset}$") as caught:
            await Turns(discord.token, discord.get_info()).take(0)
        assert caught.value.__suppress_context__  # a library handles another error then


class TestOtherUsers:
    @bots
    @clients
    async def test_copies_leave_half_of_the_reserve(self, make_client, bot):
        fleet = Fleet(make_client, bot, copies=3)
        await fleet.lose_all_for(30)
        assert fleet.discord.lowest_remaining >= RESERVE / 2

    @bots
    @clients
    @pytest.mark.parametrize("left", [RESERVE + 100, RESERVE + 20])
    async def test_copies_that_lose_all_leave_half_of_the_reserve(self, make_client, bot, left):
        fleet = Fleet(make_client, bot, copies=2)
        second = fleet.clients[1]
        limit = 40 * INTERVAL * fleet.shards  # the copies come too early for each other
        await fleet.wait_until(lambda: len(second.ready) > fleet.shards / 2, limit)
        await asyncio.sleep(2 * HOUR)
        fleet.discord.set_remaining(left)
        await fleet.lose_all_for(1)
        assert fleet.discord.lowest_remaining >= RESERVE / 2

    @clients
    @pytest.mark.parametrize(
        ("bot", "processes"),
        [(ONE, 1), (EIGHT, 1), (MANY, 1), (MORE, 1), (PODS, 8)],
        ids=lambda value: str(value) if isinstance(value, int) else f"{value[0]} shards",
    )
    @pytest.mark.parametrize("left", [RESERVE + 200, RESERVE])
    async def test_sessions_used_by_others_are_counted(
        self, make_client, bot, processes, left, use_redis
    ):
        make_turns = Turns if processes == 1 else RedisTurns
        fleet = Fleet(make_client, bot, processes, make_turns=make_turns)
        await fleet.start(8)
        fleet.discord.set_remaining(left)
        await fleet.lose_all_for(4)
        assert fleet.discord.lowest_remaining >= RESERVE - processes

    @clients
    @pytest.mark.parametrize("processes", [2, 8])
    @pytest.mark.parametrize("is_limited", [False, True], ids=["", "limited requests"])
    async def test_crash_loop_of_a_process_is_counted(
        self, make_client, processes, is_limited, use_redis
    ):
        fleet = Fleet(make_client, PODS, processes, make_turns=RedisTurns)
        await fleet.start()
        crashing = fleet.clients[0]
        fleet.stop(crashing)
        while fleet.discord.remaining >= RESERVE + len(crashing.shard_ids):  # as look requires
            await asyncio.sleep(7)
            for shard_id in crashing.shard_ids:
                fleet.discord.identify(shard_id)
        if is_limited:
            fleet.discord.limit_requests()
        await fleet.lose_all_for(4)
        assert fleet.discord.lowest_remaining >= RESERVE - processes

    async def test_second_bot_of_a_program_keeps_its_own_reserve(self):
        fleets = [Fleet(Library, EIGHT), Fleet(Library, EIGHT)]
        await fleets[0].lose_all_for(0)
        await fleets[1].lose_all_for(14)
        assert [fleet.discord.lowest_remaining >= RESERVE for fleet in fleets] == [True, True]
        assert fleets[1].discord.request_times


class TestRequests:
    @pytest.mark.parametrize(
        ("hours", "seconds"), [(1, 0), (-24, FRESH)], ids=["old answer", "clock set back"]
    )
    async def test_age_of_the_answer_counts(self, hours, seconds):
        discord = Discord(1, 1)
        info = discord.get_info()
        limit = info.session_start_limit
        limit = limit.copy(created_at=limit.created_at - datetime.timedelta(hours=hours))
        guard = Turns(discord.token, info.copy(session_start_limit=limit))
        await asyncio.sleep(seconds)
        await guard.take(0)
        assert len(discord.request_times) == 1

    async def test_request_precedes_a_start_by_the_patience(self):
        discord = Discord(8, 8)
        guard = Turns(discord.token, discord.get_info(), shard_ids=[0])
        for _ in range(2 + EXTRA_STARTS):
            await guard.take(0)
        discord.request_times.clear()
        await guard.take(0)
        assert discord.request_times == [pytest.approx(time.monotonic() - PATIENCE, abs=1)]

    @clients
    async def test_requests_follow_the_pace_and_stop_with_the_starts(self, make_client):
        fleet = Fleet(make_client, EIGHT)
        await fleet.start(8)
        times = fleet.discord.request_times
        assert times == []
        await fleet.incident(8, limit=get_recovery_limit(8))
        assert 8 * HOUR / PACE / 2 < len(times) <= 8 * HOUR / PACE + 2 * 8 + EXTRA_STARTS + 8
        assert min(map(float.__sub__, times[1:], times)) >= FRESH
        count = len(times)
        await asyncio.sleep(HOUR)
        assert len(times) == count

    @pytest.mark.parametrize("seconds", [30, 3600, 82_721])
    async def test_rate_limited_request_is_repeated_in_time(self, seconds):
        fleet = Fleet(Library, EIGHT)
        await fleet.start()
        fleet.discord.rate_limit(seconds)
        await fleet.lose_all_for(0.005)
        fleet.discord.get_error = lambda: None
        await asyncio.sleep(seconds + LONGEST_BACKOFF)
        first, second, *_ = fleet.discord.request_times
        assert seconds <= second - first <= seconds + LONGEST_BACKOFF

    @sharded_bots
    @clients
    @pytest.mark.parametrize("failure", ["rate limit", "error", "silence", "no thread"])
    async def test_bot_returns_after_a_reset_without_an_answer(
        self, make_client, bot, failure, monkeypatch
    ):
        fleet = Fleet(make_client, bot)
        await fleet.start(20)
        fleet.discord.set_remaining(RESERVE + 1)
        await fleet.lose_all_for(1)
        assert fleet.discord.lowest_remaining == RESERVE
        if failure == "rate limit":
            fleet.discord.rate_limit(23 * HOUR)
        elif failure == "error":
            fleet.discord.get_error = lambda: TimeoutError("timed out")
        elif failure == "silence":
            fleet.discord.delay = FOREVER
        else:
            error = RuntimeError("can't start new thread")
            monkeypatch.setattr("clock.Thread.start", mock.Mock(side_effect=error))
        fleet.discord.keep_sessions()
        await asyncio.sleep(fleet.discord.reset_time - time.monotonic())
        assert (fleet.is_ready(), fleet.discord.lowest_remaining) == (False, RESERVE)
        await fleet.wait_until_ready(HOUR + get_recovery_limit(fleet.shards))

    @pytest.mark.parametrize("seconds", [15, 30])
    async def test_starts_during_a_slow_request_are_counted(self, seconds):
        fleet = Fleet(OwnClient, MANY)
        await fleet.start()
        fleet.discord.delay = seconds
        fleet.discord.set_remaining(180)
        await fleet.lose_all_for(1)
        assert fleet.discord.lowest_remaining >= RESERVE

    async def test_slow_answer_does_not_make_the_reset_earlier(self):
        fleet = Fleet(OwnClient, MANY)
        await fleet.start()
        fleet.discord.delay = 16
        fleet.discord.set_remaining(RESERVE)
        await asyncio.sleep(fleet.discord.reset_time - time.monotonic() - 25)
        await fleet.lose_all_for(0.1)
        assert fleet.discord.lowest_remaining == RESERVE

    @pytest.mark.parametrize("change", [DAY, -DAY], ids=["forward", "back"])
    async def test_set_clock_does_not_change_the_reset(self, change, clock):
        fleet = Fleet(OwnClient, MORE)
        await fleet.start()
        fleet.discord.set_remaining(RESERVE)
        await fleet.lose_all_for(0.1)
        fleet.discord.get_error = OSError
        clock.time_of_day += change
        await asyncio.sleep(fleet.discord.reset_time - time.monotonic())
        assert fleet.discord.lowest_remaining == RESERVE
        fleet.discord.keep_sessions()
        await fleet.wait_until_ready(get_recovery_limit(160))

    @pytest.mark.parametrize("seconds", [11, 19])
    async def test_slow_request_and_pace_stay_below_the_limit(self, seconds):
        fleet = Fleet(Library, ONE)
        fleet.discord.delay = seconds
        await fleet.incident(3, limit=2 * HOOK_TIMEOUT)

    async def test_hanging_request_delays_starts_once(self):
        fleet = Fleet(Library, EIGHT)
        seconds = await fleet.start()
        fleet.discord.delay = FOREVER
        await fleet.lose_once(limit=PATIENCE + 2 * seconds)
        await asyncio.sleep(HOUR)
        await fleet.lose_once(0, limit=2)
        assert len(fleet.discord.request_times) == 1

    async def test_request_refused_each_second_delays_starts_little(self):
        fleet = Fleet(Library, EIGHT)
        fleet.discord.rate_limit(1)
        seconds = await fleet.start()
        await fleet.lose_once(limit=2 * PATIENCE + 2 * seconds)
        times = fleet.discord.request_times
        assert min(map(float.__sub__, times[1:], times)) >= 5  # however short the retry_after

    async def test_start_fails_if_no_answer_comes(self):
        discord = Discord(1, 1, total=RESERVE + 20)
        discord.rate_limit(23 * HOUR)
        guard = Turns(discord.token, discord.get_info())
        await take_until_error(guard, 20)

    async def test_thread_that_cannot_be_started_is_tried_again(self, monkeypatch):
        fleet = Fleet(Library, EIGHT)
        await fleet.start()
        with monkeypatch.context() as patch:
            patch.setattr("clock.Thread.start", mock.Mock(side_effect=RuntimeError))
            await fleet.lose_all_for(0.1)
        await fleet.lose_all_for(1)
        assert len(fleet.discord.request_times) > 10


class TestSeveralProcesses:
    @clients
    @pytest.mark.parametrize("hours", [1 / 6, 8])
    @pytest.mark.parametrize("processes", [2, 8])
    async def test_processes_cost_no_more_than_one(self, make_client, hours, processes, use_redis):
        fleet = Fleet(make_client, PODS, processes, make_turns=RedisTurns)
        assert await fleet.start() <= 60
        identifies = fleet.discord.identifies
        await fleet.incident(hours, limit=2 * get_recovery_limit(fleet.shards))
        budget = (
            2 * fleet.shards + EXTRA_STARTS * processes + hours * HOUR / PACE + 2 * fleet.shards
        )
        assert fleet.discord.identifies - identifies <= budget
        assert fleet.discord.early_identifies == 0

    @clients
    @pytest.mark.parametrize(
        ("host", "error"),
        [
            ("good", ""),
            ("late", ""),
            ("bad", "ConnectionError: 'connection refused'"),
            ("silent", "TimeoutError: ''"),
        ],
        ids=lambda value: value.partition(":")[0],
    )
    async def test_reserve_is_left_with_and_without_redis(
        self, make_client, host, error, use_redis, capsys
    ):
        use_redis(host)
        fleet = Fleet(make_client, PODS, 8, make_turns=RedisTurns)
        await fleet.lose_all_for(23.9)
        assert RESERVE - 8 <= fleet.discord.lowest_remaining < RESERVE + 8
        assert fleet.discord.early_identifies == 0
        assert (f"no turns from Redis: {error}" in capsys.readouterr().out) == bool(error)

    @clients
    async def test_pods_start_without_redis(self, make_client, use_redis):
        use_redis("bad")
        fleet = Fleet(make_client, (24, 1), 3, make_turns=RedisTurns)
        await fleet.wait_until_ready(600)
        assert fleet.discord.early_identifies == 0

    @clients
    async def test_pods_return_soon_after_redis_does(self, make_client, use_redis):
        fleet = Fleet(make_client, (24, 1), 3, make_turns=RedisTurns)
        await fleet.start()
        for client in fleet.clients:
            client.turns.url = "redis://bad"
        await fleet.lose_all_for(1)
        for client in fleet.clients:
            client.turns.url = "redis://good"
        fleet.discord.keep_sessions()
        await fleet.wait_until_ready(get_recovery_limit(24) + LONGEST_BACKOFF)

    @clients
    @pytest.mark.parametrize(("left", "started"), [(40, 24), (30, 24), (24, 24), (10, 8)])
    async def test_rolling_restart_leaves_the_reserve(self, make_client, left, started, use_redis):
        fleet = Fleet(make_client, (24, 1), 3, make_turns=RedisTurns)
        await fleet.start()
        fleet.discord.set_remaining(RESERVE + left)
        for client in fleet.clients[:]:
            fleet.stop(client)
            if fleet.discord.remaining >= RESERVE + 8:  # as look requires
                fleet.start_process(client.shard_ids)
                await fleet.wait_until_ready(0.5 * HOUR)
        assert sum(len(client.ready) for client in fleet.clients) == started
        assert fleet.discord.lowest_remaining >= RESERVE


class TestTaking:
    @pytest.mark.parametrize("shards", [1, 8])
    async def test_burst_ends_after_two_starts_for_each_shard_and_five(self, shards):
        discord = Discord(shards, 16)
        guard = Turns(discord.token, discord.get_info())
        times = []
        for number in range(2 * shards + 5 + 2):
            await guard.take(number % shards)
            times.append(time.monotonic())
        *burst, first, second = times
        assert burst[-1] - burst[0] < INTERVAL * len(burst) / shards
        seconds = max(PACE, INTERVAL * len(burst) / shards)
        assert first - burst[0] == pytest.approx(seconds, abs=1)
        assert second - burst[0] == pytest.approx(2 * PACE, abs=1)

    async def test_cancelled_wait_gives_no_further_start(self):
        discord = Discord(1, 1)
        guard = Turns(discord.token, discord.get_info())
        begin = time.monotonic()
        for _ in range(2 + EXTRA_STARTS):
            await guard.take(0)
        for _ in range(5):
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(guard.take(0), 0.01)
        await guard.take(0)
        seconds = max(PACE, (2 + EXTRA_STARTS) * INTERVAL)
        assert time.monotonic() - begin == pytest.approx(seconds, abs=1)

    async def test_cancelled_wait_uses_nothing(self):
        discord = Discord(4, 1, total=RESERVE + 4)
        guard = Turns(discord.token, discord.get_info())
        await guard.take(0)
        for _ in range(100):
            tasks = [asyncio.ensure_future(guard.take(shard_id)) for shard_id in range(4)]
            await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        begin = time.monotonic()
        await guard.take(0)
        assert time.monotonic() - begin <= INTERVAL

    async def test_reasons_are_printed_once(self, capsys):
        fleet = Fleet(Library, EIGHT)
        fleet.discord.set_remaining(RESERVE + 40)
        await fleet.lose_all_for(12)
        pace, reserve = capsys.readouterr().out.splitlines()
        assert pace == f"{MANY_LOST}: one start in {PACE:.0f} s"
        assert reserve.startswith(TOO_FEW)

    async def test_reason_is_printed_again_in_the_next_incident(self, capsys):
        fleet = Fleet(OwnClient, EIGHT)
        for _ in range(2):
            await fleet.incident(1, limit=get_recovery_limit(8))
            await asyncio.sleep(HOUR)
            await fleet.lose_once(limit=60)
        assert capsys.readouterr().out.count(MANY_LOST) == 2

    async def test_full_disk_does_not_end_a_wait(self, monkeypatch):
        monkeypatch.setattr("builtins.print", mock.Mock(side_effect=OSError("disk full")))
        discord = Discord(1, 1)
        guard = Turns(discord.token, discord.get_info())
        for _ in range(2 + EXTRA_STARTS + 1):
            await guard.take(0)

    def test_turns_work_in_one_event_loop_after_another(self, clock):
        discord = Discord(1, 1)
        guard = Turns(discord.token, discord.get_info())

        async def lose_sessions():
            for _ in range(10):
                await guard.take(0)

        for _ in range(3):
            clock.run(lose_sessions())
        assert len(discord.request_times) > 10


class TestGuard:
    async def test_own_hook_is_called_before_the_turn(self):
        discord = Discord(1, 1)
        guard = Turns(discord.token, discord.get_info())
        started = []

        async def own_hook(shard_id, *, initial):
            started.append((guard.started, shard_id, initial))

        bot = types.SimpleNamespace(before_identify_hook=own_hook)
        guard.guard(bot)
        await bot.before_identify_hook(None)
        assert started == [(0, None, True)]
        assert guard.started == 1

    async def test_hook_gives_up_before_the_socket_is_closed(self):
        discord = Discord(8, 8)
        bot = types.SimpleNamespace(before_identify_hook=mock.AsyncMock())
        Turns(discord.token, discord.get_info(), shard_ids=[0]).guard(bot)
        for _ in range(2 + EXTRA_STARTS):
            await bot.before_identify_hook(0)
        begin = time.monotonic()
        with pytest.raises(asyncio.TimeoutError):
            await bot.before_identify_hook(0)
        assert time.monotonic() - begin == pytest.approx(HOOK_TIMEOUT, abs=1)


class TestRedis:
    async def test_restarted_redis_gives_no_second_turn(self, use_redis):
        discord = Discord(1, 1)
        guard = RedisTurns(discord.token, discord.get_info())
        assert await guard.turn(0) == 0
        use_redis.server.expiries.clear()
        assert await guard.turn(0) > 0

    async def test_each_token_has_keys_that_hide_it(self, use_redis):
        for token in ("first", "second"):
            assert await RedisTurns(token, Discord(1, 1).get_info()).turn(0) == 0
        names = list(use_redis.server.expiries)
        assert len(names) == 2
        assert not any("first" in name or "second" in name for name in names)

    @pytest.mark.parametrize("name", ["ReadOnlyError", "MovedError", "OutOfMemoryError"])
    async def test_any_error_of_redis_lets_shards_go_by_the_clock(self, name, use_redis, capsys):
        discord = Discord(1, 1)
        guard = RedisTurns(discord.token, discord.get_info())
        error = getattr(redis.exceptions, name)("0 host:1")
        guard.claim = mock.AsyncMock(side_effect=error)
        assert await guard.turn(0) == 0
        assert capsys.readouterr().out.startswith(f"no turns from Redis: {name}: ")

    async def test_shard_uses_any_own_slot_without_redis(self, use_redis):
        use_redis("bad")
        discord = Discord(24, 1)
        guard = RedisTurns(discord.token, discord.get_info(), shard_ids=[0, 12])
        times = set()
        for _ in range(4):
            assert await guard.turn(0) == 0
            times.add(round(time.time() / SLOT))
        assert len(times) == 4
        assert {each % 12 for each in times} == {0}
        assert max(times) - min(times) == 36

    async def test_slow_redis_gives_turns(self, use_redis, capsys):
        use_redis("slow")
        fleet = Fleet(OwnClient, (24, 1), 3, make_turns=RedisTurns)
        await fleet.wait_until_ready(600)
        assert fleet.discord.early_identifies == 0
        assert capsys.readouterr().out == ""

    async def test_missing_url_error_names_the_variable(self, monkeypatch):
        monkeypatch.delenv("REDIS_URL", raising=False)
        with pytest.raises(KeyError, match="REDIS_URL"):
            RedisTurns("token", Discord(1, 1).get_info())
