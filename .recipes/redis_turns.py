# redis_turns.py 1.5.0: turns for a Discord bot of several processes; needs turns.py and redis
# SPDX-FileCopyrightText: 2026 the sessions authors
# SPDX-License-Identifier: MIT-0
"""Let the processes of a Discord bot take turns through the Redis server at $REDIS_URL.

Save this file next to `turns.py` and use it in the same way, in each process:

    info = look(TOKEN, shard_count=24, shard_ids=shard_ids)
    RedisTurns(TOKEN, info, shard_ids=shard_ids).guard(bot)
"""

import asyncio
import hashlib
import itertools
import os
import time
from collections import defaultdict

import redis.asyncio

from look import RESERVE
from sessions import GatewayBotInfo
from turns import INTERVAL, Turns

SLOT = INTERVAL + 0.5
"""The seconds of a turn if shards go by the clock. Clocks may differ by half a second."""


class RedisTurns(Turns):
    """Turns that the processes of a bot share, each with an object of its own.

    If Redis fails, the shards take turns by the time of day.
    """

    def __init__(
        self,
        token: str,
        info: GatewayBotInfo,
        reserve: int = RESERVE,
        shard_ids: list[int] | None = None,
    ) -> None:
        super().__init__(token, info, reserve, shard_ids)
        self.url = os.environ["REDIS_URL"]
        self.name = f"identify:{hashlib.sha256(token.encode()).hexdigest()[:16]}"
        self.timeout = 0.5  # the seconds after which an answer is too late
        # The slots of this process by the time of day, for each rate limit key.
        self.slots: defaultdict[int, list[float]] = defaultdict(list)
        limit = info.session_start_limit
        for each in itertools.chain(*info.buckets(shard_ids)):
            self.slots[limit.rate_limit_key(each)].append(SLOT * (each // limit.max_concurrency))

    async def turn(self, shard_id: int) -> float:
        """Take the turn of the shard's key, or return how many seconds to wait for it."""
        try:
            wait = await asyncio.wait_for(self.claim(shard_id), 5)
        except Exception as error:
            self.print_once("redis", f"no turns from Redis: {type(error).__name__}: {str(error)!a}")
            slots = self.slots[self.info.session_start_limit.rate_limit_key(shard_id)]
            round_seconds = SLOT * len(self.info.buckets())
            await asyncio.sleep(min((slot - time.time()) % round_seconds for slot in slots))
            wait = 0.0
        return wait or await super().turn(shard_id)

    async def claim(self, shard_id: int) -> float:
        """Claim the key in Redis, or return how many seconds to wait before another try."""
        name = f"{self.name}:{self.info.session_start_limit.rate_limit_key(shard_id)}"
        async with redis.asyncio.from_url(self.url) as client:  # a client belongs to one loop
            milliseconds = await client.pttl(name)  # this connects, before the time counts
            if milliseconds > 0:
                return milliseconds / 1000
            # The key outlasts the answer, because the turn begins with the answer.
            begin, timeout = time.monotonic(), self.timeout
            is_free = await client.set(name, 1, nx=True, px=round(1000 * (INTERVAL + timeout)))
            seconds = time.monotonic() - begin
            self.timeout = max(0.5, 2 * seconds)  # a slow server gets more time at the next try
            return 0.0 if is_free and seconds < timeout else 0.1
