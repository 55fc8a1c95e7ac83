"""For programs of the page, as they stand there: Discord is at $DISCORD, and time is short."""

import os
import time
import urllib.request

import sessions

sessions.IDENTIFY_INTERVAL *= 0.08
sleep, Request = time.sleep, urllib.request.Request
time.sleep = lambda seconds: sleep(0.15 * seconds)
urllib.request.Request = lambda url, **options: Request(
    url.replace("https://discord.com", os.environ["DISCORD"]), **options
)
