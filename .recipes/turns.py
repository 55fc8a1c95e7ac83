# turns.py 1.5.0: keep a running Discord bot from losing its token; needs look.py and sessions.py
# SPDX-FileCopyrightText: 2026 the sessions authors
# SPDX-License-Identifier: MIT-0
"""Let the shards of a Discord bot take turns, so that sessions are left all day.

Save this file, `look.py` and `sessions.py` next to your bot, and guard the bot right above the line
that starts it:

    from look import look
    from turns import Turns

    Turns(TOKEN, look(TOKEN)).guard(bot)
    bot.run(TOKEN)

A client of your own awaits `turns.take(shard_id)` right before it sends an IDENTIFY.
"""

import asyncio
import contextlib
import datetime
import math
import threading
import time
from collections import defaultdict
from typing import Any

from look import REQUEST_ERRORS, RESERVE, fetch, report_error
from sessions import IDENTIFY_INTERVAL, GatewayBotInfo, SessionStartLimit

INTERVAL = IDENTIFY_INTERVAL.total_seconds() + 0.5
"""The seconds between two IDENTIFYs with the same rate limit key."""

EXTRA_STARTS = 5
"""The starts that do not wait for the pace, besides two for each shard."""

PACE = 50.0
"""The seconds between two starts of the whole bot, once the extra starts are used."""

HOOK_TIMEOUT = 60.0
"""The seconds after which `guard` gives up a start, as the libraries do when they reconnect."""

FRESH = 45.0
"""The seconds for which an answer counts as new. At PACE, each start needs a new one."""

PATIENCE = 20.0
"""The seconds that starts wait for an answer, and that Discord is asked before a start is due."""


class Turns:
    """The turns of a bot, or of those of its shards that run in this process.

    - IDENTIFYs with the same rate limit key are INTERVAL seconds apart.
    - Two starts for each shard and EXTRA_STARTS need no further wait. After that, the whole bot
      starts one session in PACE seconds.
    - While sessions are started, Discord is asked how many are left, whoever uses them. Once only
      *reserve* are left, no session is started before the reset.
    """

    def __init__(
        self,
        token: str,
        info: GatewayBotInfo,
        reserve: int = RESERVE,
        shard_ids: list[int] | None = None,
    ) -> None:
        shards = sum(map(len, info.buckets(shard_ids)))
        self.token, self.info, self.reserve = token, info, max(reserve, 1)
        self.share = shards / info.shard_count
        self.pace = PACE / self.share
        # How many seconds starts may be ahead of the pace. The first start is not ahead.
        self.head_start = (2 * shards + EXTRA_STARTS - 1) * self.pace
        self.due = -math.inf  # when the last start was due, at this pace
        self.free_times: defaultdict[int, float] = defaultdict(float)  # by rate limit key
        self.printed: set[str] = set()
        self.started = 0
        self.set_budget(info.session_start_limit, 0)
        age = datetime.datetime.now(datetime.timezone.utc) - info.session_start_limit.created_at
        self.next_request = time.monotonic() + FRESH - max(0.0, age.total_seconds())
        self.patience_end = 0.0
        self.thread = threading.Thread()  # not started, because nothing is asked yet

    def set_budget(self, limit: SessionStartLimit, known: int) -> None:
        """Set how many sessions may be started, from an answer that includes *known* starts."""
        # Half of the share, because a copy of the bot may use the rest before it asks again.
        left = (limit.remaining - self.reserve) * self.share / 2
        # At a reset_after of zero, the first start begins a new window of a day.
        reset = time.monotonic() + (limit.reset_after.total_seconds() or 86_400)
        self.budget = known, left, reset  # replaced as a whole, because `ask` runs in a thread

    def ask(self) -> None:
        """Ask Discord, and repeat a refused request. Runs in a thread, because it may take long."""
        while True:
            known = self.started  # the answer may not include later starts
            try:
                limit = fetch(self.token).session_start_limit
            except REQUEST_ERRORS as error:
                wait = report_error(error)
                if time.monotonic() + wait > self.patience_end:
                    self.next_request = max(self.next_request, time.monotonic() + wait)
                    return
                time.sleep(wait)
            else:
                self.set_budget(limit, known)
                return

    def poll(self, due: float) -> float:
        """Ask Discord again if its answer is old. Return how many seconds a start has to wait."""
        now = time.monotonic()
        if now < due - PATIENCE:
            return due - PATIENCE - now
        if now >= self.next_request and not self.thread.is_alive():
            self.next_request, self.patience_end = now + FRESH, now + PATIENCE
            # The end of the program does not wait for a daemon.
            self.thread = threading.Thread(target=self.ask, daemon=True)
            with contextlib.suppress(RuntimeError):  # there may be too many threads
                self.thread.start()
        if self.thread.is_alive() and now < self.patience_end:
            return 0.1
        return max(0.0, due - now)

    def check_budget(self) -> float:
        """Return how many seconds to wait for an answer that may allow a start, usually 0.

        Raises ConnectionError if too few sessions are left.
        """
        now = time.monotonic()
        known, left, reset = self.budget
        if now >= reset:  # even if Discord does not answer
            limit = self.info.session_start_limit
            limit = limit.copy(remaining=limit.total, reset_after=datetime.timedelta(0))
            self.set_budget(limit, self.started)
            return 0.0
        if self.started < known + left:
            return 0.0
        # Half of the rest is not allowed yet: an answer that is due soon may allow more.
        wait = self.next_request - now
        if left > 0 and 0 < wait <= FRESH:
            return wait
        message = f"too few sessions are left until {time.ctime(time.time() + reset - now)}"
        self.print_once("reserve", message)
        # Libraries ask while they handle an error: None keeps it out of the log.
        raise ConnectionError(message) from None

    async def take(self, shard_id: int) -> None:
        """Wait until the shard may send its IDENTIFY, which it has to do at once.

        Raises ConnectionError if too few sessions are left. Wait five minutes before you try again.
        """
        now = time.monotonic()
        due = self.due = max(self.due + self.pace, now - self.head_start)
        try:
            if due > now:
                self.print_once("pace", f"many sessions were lost: one start in {self.pace:.0f} s")
            # Checked twice, because the turn of a subclass may take seconds, and others may start.
            while wait := (
                self.poll(due)
                or self.check_budget()
                or await self.turn(shard_id)
                or self.check_budget()
            ):
                await asyncio.sleep(wait)
        except BaseException:
            self.due -= self.pace  # nothing was started
            raise
        self.started += 1
        if self.due <= now:  # neither this start nor a later one waited for the pace
            self.printed.clear()

    async def turn(self, shard_id: int) -> float:
        """Take the turn of the shard's key, or return how many seconds to wait for it."""
        key = self.info.session_start_limit.rate_limit_key(shard_id)
        now = time.monotonic()
        if now < self.free_times[key]:
            return self.free_times[key] - now
        self.free_times[key] = now + INTERVAL
        return 0.0

    def print_once(self, reason: str, message: str) -> None:
        """Print *message* once for each reason, until a start does not wait for the pace."""
        if reason not in self.printed:
            self.printed.add(reason)
            with contextlib.suppress(OSError):  # the disk may be full
                print(message, flush=True)

    def guard(self, bot: Any) -> None:
        """Let a bot of discord.py, disnake, nextcord or py-cord take its turns.

        The bot's own `before_identify_hook` is called first, always with `initial=True`. Nothing
        may set the hook after this call, because the bot would take no more turns.
        """
        own_hook = bot.before_identify_hook

        async def before_identify_hook(shard_id: int | None, *, initial: bool = False) -> None:
            await own_hook(shard_id, initial=True)  # the library's own waits for 5 s otherwise
            await asyncio.wait_for(self.take(shard_id or 0), HOOK_TIMEOUT)

        bot.before_identify_hook = before_identify_hook
