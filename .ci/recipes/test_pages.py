"""The README and the guide: their numbers, links, code blocks and versions."""

import asyncio
import dataclasses
import re
import subprocess
import sys

import aiohttp
import pytest

import sessions
from conftest import MANY_LOST, TOO_FEW, make_environment, report_sessions
from gateway import Gateway
from look import RESERVE
from pages import GUIDE, PAGE, RECIPES, ROOT, get_block
from sessions import GatewayBotInfo, PayloadError, SessionStartLimit
from turns import EXTRA_STARTS, FRESH, INTERVAL, PACE

PAGES = {"README": (PAGE, ROOT), "guide": (GUIDE, RECIPES)}
pages = pytest.mark.parametrize(("text", "folder"), PAGES.values(), ids=PAGES)


def get_anchors(text):
    headings = re.findall(r"^##+ (.+)$", text, re.M)
    return {"#" + re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}


@pages
def test_links_lead_to_a_heading_or_a_file(text, folder):
    for link in re.findall(r"\]\((?!https:)(.+?)\)", text):
        path, mark, anchor = link.partition("#")
        target = (folder / path).resolve() if path else folder / "README.md"
        assert target.is_file(), link
        assert not mark or f"#{anchor}" in get_anchors(target.read_text(encoding="utf-8")), link


@pages
def test_named_links_are_defined(text, folder):
    names = set(re.findall(r"\]\[(\w+)\]", text))
    assert names == set(re.findall(r"^\[(\w+)\]: https://\S+$", text, re.M))


def test_versions_begin_with_this_version():
    newest, *_ = re.findall(r"^- (\d[\d.]*) \(\d{4}-\d\d-\d\d\):", PAGE, re.M)
    assert newest == sessions.__version__.removesuffix(".0")


@pytest.mark.parametrize("name", ["look.py", "turns.py", "redis_turns.py", "start"])
def test_recipe_has_the_version_of_the_module(name):
    header = (RECIPES / name).read_text(encoding="utf-8")[:300]
    assert f"# {name} {sessions.__version__}: " in header


@pytest.mark.parametrize("entity", [GatewayBotInfo, SessionStartLimit])
def test_table_names_the_fields(entity):
    (row,) = re.findall(rf"^\| `{entity.__name__}` \| (.+?) \| (.+?) \|$", PAGE, re.M)
    fields = [field.name for field in dataclasses.fields(entity)]
    assert re.findall(r"`(\w+)", row[0]) == fields
    others = {name for name in dir(entity) if not name.startswith("_")}
    shared = {"copy", "from_payload", "to_payload"}
    assert set(re.findall(r"`(\w+)", row[1])) == others - shared - set(fields)


def count_sessions(shards):
    """Return how many sessions a start of some shards needs, as `look` counts."""
    return shards + RESERVE


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        (sessions.__doc__, f"info.shard_count + {RESERVE}) # keep {RESERVE} in reserve"),
        (PAGE, f"info.shard_count + {RESERVE}) # keep {RESERVE} in reserve"),
        (PAGE, f"`--sessions 24 --reserve {RESERVE}` to ask whether 24 shards can start and"),
        (PAGE, f"leave {RESERVE} sessions"),
        (GUIDE, f"a *reserve* of {RESERVE}."),
        (GUIDE, f"`{report_sessions(0, count_sessions(1))}`"),
        (GUIDE, f"`{report_sessions(70, count_sessions(1))}`"),
        (GUIDE, f"`ConnectionError: {TOO_FEW}...`"),
        (GUIDE, f"| `{TOO_FEW}...` |"),
        (GUIDE, f"| `{MANY_LOST}` |"),
        (GUIDE, f"The {RESERVE} sessions are for you"),
        (GUIDE, f"start {INTERVAL} seconds apart"),
        (GUIDE, f"Two starts for each shard and {EXTRA_STARTS} more need no further wait."),
        (GUIDE, f"one session in {PACE:.0f} seconds, {3600 / PACE:.0f} an hour"),
        (GUIDE, f"within about {PACE:.0f} seconds each"),
        (GUIDE, f"is asked every {FRESH:.0f} seconds"),
        (GUIDE, f"Each pod has its own {EXTRA_STARTS} extra starts"),
        (GUIDE, f"one start in {3 * PACE:.0f} seconds"),
        (GUIDE, f"It needs {count_sessions(24)} sessions."),
        (GUIDE, f"`--sessions 24 --reserve {RESERVE}`"),
        (GUIDE, f"With {count_sessions(8) + 2}, it stops at the second pod"),
        (GUIDE, f"With {count_sessions(8) + 2}, ten shards start"),
        (GUIDE, f"It needs {count_sessions(24)} sessions as well, but"),
        (GUIDE, f"until fewer than {count_sessions(8)} are left"),
    ],
)
def test_number_on_the_page_is_the_one_in_the_code(text, phrase):
    assert phrase in " ".join(text.split())


def test_command_prints_what_the_page_shows():
    command = get_block(PAGE, "sh", "echo ").replace("python3", sys.executable)
    output = subprocess.check_output(["sh", "-c", command], text=True, cwd=ROOT)
    assert output == get_block(PAGE, "text", "Sessions left")


def test_curl_command_reads_the_answer():
    command = get_block(PAGE, "sh", "curl").replace("python3", sys.executable)
    with Gateway(shards=9).running() as gateway:
        command = command.replace("https://discord.com", gateway.host)
        options = {"cwd": ROOT, "env": make_environment()}
        output = subprocess.check_output(["sh", "-c", command], text=True, **options)
    assert "Sessions left   1000\n" in output


@pytest.mark.parametrize(
    ("response", "message", "seconds"),
    [
        ((429, '{"message": "no", "retry_after": 5}', {"Retry-After": "6"}), "'no'", 6),
        ((429, "<html>", {"Retry-After": "60"}), "'HTTP status 429'", 60),
        ((401, '{"message": "401: Unauthorized"}', {}), "'401: Unauthorized'", None),
        ((502, "<html>", {}), "'HTTP status 502'", None),
    ],
    ids=["429", "429 HTML", "401", "502"],
)
def test_fetch_of_the_page_raises_what_discord_says(response, message, seconds, tmp_path):
    status, text, headers = response
    kind = "text/html" if text.startswith("<") else "application/json"
    gateway = Gateway(shards=9, responses=[(status, text, {"Content-Type": kind, **headers})])
    lines = get_block(PAGE, "python", "async def fetch(")
    imports = ["contextlib", "aiohttp", "typing; Any = typing.Any"]
    lines = "".join(f"import {name}\n" for name in imports) + lines
    lines = "from sessions import GatewayBotInfo\n" + lines

    async def read():
        import fetch_of_the_page

        async with aiohttp.ClientSession() as http:
            with pytest.raises(PayloadError, match=re.escape(message)) as caught:
                await fetch_of_the_page.fetch(http, "secret")
            info = await fetch_of_the_page.fetch(http, "secret")
        return caught.value, info

    with gateway.running(), pytest.MonkeyPatch.context() as patch:
        lines = lines.replace("https://discord.com", gateway.host)
        (tmp_path / "fetch_of_the_page.py").write_text(lines)
        patch.syspath_prepend(tmp_path)
        patch.delitem(sys.modules, "fetch_of_the_page", raising=False)
        error, info = asyncio.run(read())
    assert info.to_payload() == gateway.answer
    wait = error.retry_after
    assert (wait and wait.total_seconds()) == seconds
