"""Check a bot that vendors sessions.py and has nothing else with mypy and pyright, both strict."""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import venv

HERE = pathlib.Path(__file__).parent
SETTINGS = {
    "include": ["bot"],
    "typeCheckingMode": "strict",
    "reportUnnecessaryTypeIgnoreComment": "error",
}

with tempfile.TemporaryDirectory() as directory:
    root = pathlib.Path(directory)
    venv.create(root / "python")  # without typing_extensions or other packages
    python = str(root / "python" / "bin" / "python")
    vendor = root / "bot" / "_vendor"
    vendor.mkdir(parents=True)
    for package in (vendor, vendor.parent):
        (package / "__init__.py").touch()
    shutil.copy(HERE.parents[1] / "sessions.py", vendor)
    for name in ("typed_use.py", "typed_misuse.py"):
        shutil.copy(HERE / name, vendor.parent)
    (root / "pyrightconfig.json").write_text(json.dumps(SETTINGS))

    failed = False
    for version in ("3.10", "3.12", "3.14"):
        mypy = f"mypy --config-file= --strict --python-executable {python} bot --python-version"
        pyright = f"pyright --warnings --pythonpath {python} --pythonversion"
        for command in (mypy, pyright):
            print(f"{command.split()[0]} for {version}:", flush=True)
            arguments = [sys.executable, "-m", *command.split(), version]
            failed |= subprocess.run(arguments, cwd=root, check=False).returncode != 0
sys.exit(failed)
