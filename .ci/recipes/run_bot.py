"""Run bot.py with a library that takes a stand-in for Discord, and with less time to wait.

python run_bot.py LIBRARY HOST PACE HOSTNAME
"""

import importlib
import logging
import runpy
import socket
import sys

import yarl

library, host, pace, hostname = sys.argv[1:]
logging.basicConfig()
sys.path[0] = ""

turns = importlib.import_module("turns")
turns.PACE, turns.FRESH, turns.PATIENCE = float(pace), 3.0, 1.0
http = importlib.import_module(f"{library}.http")
http.Route.BASE = http.Route.API_BASE_URL = f"{host}/api/v10"
gateway = importlib.import_module(f"{library}.gateway")
gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(host.replace("http", "ws") + "/")
socket.gethostname = lambda: hostname

runpy.run_path("bot.py", run_name="__main__")
