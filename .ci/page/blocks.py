"""The code blocks of the page. As a script: print the block of a language that holds a text."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language, part):
    """Return the code block that has *part* in it."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    (source,) = (source for source in blocks if part in source)
    return str(source)


FILES = {
    "look.py": block("python", "def fetch("),
    "turns.py": block("python", "class Turns:"),
    "redis_turns.py": block("python", "class RedisTurns("),
    "start": block("sh", "exec ./start-bot"),
    "sessions.py": (ROOT / "sessions.py").read_text(encoding="utf-8"),
}
"""What a reader of the page saves next to a bot."""

CLASS = block("python", "class Bot(").split("turns = ")[0]
"""What a reader adds to a bot."""


def save(directory):
    """Save all files, as a reader does."""
    for name, text in FILES.items():
        (directory / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.stdout.write(block(*sys.argv[1:]))
