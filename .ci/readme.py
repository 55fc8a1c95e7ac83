"""The code blocks of the README. As a script: print the one of a language that holds a text."""

import pathlib
import re
import sys

README = pathlib.Path(__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8")


def block(language: str, part: str) -> str:
    """Return the code block that has *part* in it."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    (source,) = (source for source in blocks if part in source)
    return str(source)


def replaced(source: str, *pairs: tuple[str, str]) -> str:
    """Return *source* with the first of each pair, which comes once, replaced by the second."""
    for old, new in pairs:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    return source


if __name__ == "__main__":
    sys.stdout.write(block(*sys.argv[1:]))
