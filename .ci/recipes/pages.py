"""The README and the guide, and their code blocks. As a script: print one block of the README."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parents[2]
RECIPES = ROOT / ".recipes"
PAGE = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDE = (RECIPES / "README.md").read_text(encoding="utf-8")


def get_block(text, language, part):
    """Return the only code block of a language that contains *part*."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    (block,) = (block for block in blocks if part in block)
    return block


if __name__ == "__main__":
    sys.stdout.write(get_block(PAGE, *sys.argv[1:]))
