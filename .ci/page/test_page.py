"""What the page says of itself, and its programs in the eyes of a linter."""

import re
import subprocess
import sys

from blocks import FILES, PAGE, ROOT, save

import sessions


def test_page_tells_what_changed_in_this_version():
    assert f"\n- {sessions.__version__.removesuffix('.0')}: " in PAGE


def test_every_link_leads_to_a_heading_or_a_file():
    headings = re.findall(r"^##+ (.+)$", PAGE, re.M)
    anchors = {"#" + re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}
    links = re.findall(r"\]\((?!https:)(.+?)\)", PAGE)
    assert {link for link in links if not (ROOT / link).exists()} <= anchors
    named = set(re.findall(r"\]\[(\w+)\]", PAGE))
    assert named == set(re.findall(r"^\[(\w+)\]: https://\S+$", PAGE, re.M))


def test_programs_pass_the_default_rules_of_ruff(tmp_path):
    save(tmp_path)
    project = '[project]\nname = "bot"\nversion = "1"\nrequires-python = ">=3.10"\n'
    (tmp_path / "pyproject.toml").write_text(project)
    programs = [name for name in FILES if name.endswith(".py") and name != "sessions.py"]
    ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", *programs]
    done = subprocess.run(ruff, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
