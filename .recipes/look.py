# look.py 1.5.0: let a Discord bot start only if enough sessions are left; needs sessions.py
# SPDX-FileCopyrightText: 2026 the sessions authors
# SPDX-License-Identifier: MIT-0
"""Let a Discord bot start only if enough of its sessions are left.

Save this file and `sessions.py` next to your bot, and call `look` right above the line that starts
it:

    from look import look

    look(TOKEN)
    bot.run(TOKEN)

As a script, the file calls `look` with the token in the variable DISCORD_TOKEN.
"""

import contextlib
import http.client
import json
import os
import time
import urllib.error
import urllib.request

from sessions import GatewayBotInfo, PayloadError

URL = "https://discord.com/api/v10/gateway/bot"
USER_AGENT = "DiscordBot (https://example.com, 1.0)"  # any URL of yours
REQUEST_ERRORS = (OSError, ValueError, http.client.HTTPException)
"""The errors that `fetch` raises."""

RESERVE = max(1, int(os.environ.get("RESERVE") or 100))
"""The number of sessions that are kept for the person who repairs the bot."""

SETTLE = 6.0
"""The seconds before the first request: another process may just have sent an IDENTIFY."""


def fetch(token: str) -> GatewayBotInfo:
    """Return Discord's answer to `GET /gateway/bot`. The request does not use a session."""
    # Other characters, such as a line break, raise an error that shows the token.
    token = "".join(character for character in token if "!" <= character <= "~")
    request = urllib.request.Request(URL, headers={"User-Agent": USER_AGENT})
    request.add_unredirected_header("Authorization", f"Bot {token}")
    try:
        with urllib.request.urlopen(request, timeout=15) as response:
            return GatewayBotInfo.from_payload(json.load(response))
    except urllib.error.HTTPError as error:
        payload: dict[str, object] = {"message": str(error)}
        with contextlib.suppress(Exception):  # the body may be HTML, or incomplete
            payload.update(json.load(error))
        with contextlib.suppress(Exception):  # the header may be missing, or a date
            payload["retry_after"] = float(error.headers["Retry-After"])
        return GatewayBotInfo.from_payload(payload)  # raises PayloadError


def wait(seconds: float) -> None:
    """Print when the next request is due, and sleep until then."""
    # Whichever clock is there first: the time of day may be set, and the steady clock stops while
    # the machine is suspended.
    wake_time, wake_steady_time = time.time() + seconds, time.monotonic() + seconds
    print(f"the next request is due on {time.ctime(wake_time)}", flush=True)
    while (left := min(wake_time - time.time(), wake_steady_time - time.monotonic())) > 0:
        time.sleep(min(left, 60))


def report_error(error: Exception) -> float:
    """Print an error of `fetch`, and return how many seconds to wait before the next request."""
    print(ascii(error)[:500], flush=True)
    if isinstance(error, PayloadError) and error.retry_after:
        return min(max(5.0, error.retry_after.total_seconds()), 7 * 86_400)
    return 60.0


def look(
    token: str, shard_count: int | None = None, shard_ids: list[int] | None = None
) -> GatewayBotInfo:
    """Return Discord's answer as soon as the shards can start and RESERVE sessions are kept.

    Until then, wait and print why. *shard_count* is the number of shards of the whole bot, by
    default what Discord recommends. *shard_ids* are those that this process starts, by default all.
    """
    if not token:
        raise ValueError("the token is missing: set DISCORD_TOKEN, or the variable that you read")
    time.sleep(SETTLE)
    while True:
        try:
            info = fetch(token)
        except REQUEST_ERRORS as error:
            wait(report_error(error))
            continue
        info = info.copy(shard_count=shard_count or info.shard_count)
        limit = info.session_start_limit
        needed = sum(map(len, info.buckets(shard_ids))) + RESERVE
        print(f"{limit.remaining} sessions are left, {needed} are needed", flush=True)
        if limit.can_start(needed):
            return info
        wait(max(60.0, limit.reset_after.total_seconds()))


if __name__ == "__main__":
    look(os.environ["DISCORD_TOKEN"])
