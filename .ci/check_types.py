"""Let mypy and pyright, both strict, look at a bot that has sessions.py and nothing else."""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import venv

CI = pathlib.Path(__file__).parent
VERSIONS = ("3.10", "3.12", "3.14")

with tempfile.TemporaryDirectory() as directory:
    root = pathlib.Path(directory)
    venv.create(
        root / "python"
    )  # with neither typing_extensions nor anything else that is not everywhere
    python = str(root / "python" / "bin" / "python")
    vendor = root / "bot" / "_vendor"
    vendor.mkdir(parents=True)
    (vendor / "__init__.py").touch()
    (vendor.parent / "__init__.py").touch()
    shutil.copy(CI.parent / "sessions.py", vendor)
    for name in ("typed_use.py", "typed_misuse.py"):
        shutil.copy(CI / name, vendor.parent)

    failed = False
    for version in VERSIONS:
        settings = {
            "include": ["bot"],
            "typeCheckingMode": "strict",
            "pythonVersion": version,
            "reportUnnecessaryTypeIgnoreComment": "error",
        }
        (root / "pyrightconfig.json").write_text(json.dumps(settings))
        mypy = [
            "mypy",
            "--config-file=",
            "--strict",
            "--python-executable",
            python,
            "--python-version",
            version,
            "bot",
        ]
        pyright = ["pyright", "--warnings", "--pythonpath", python]
        for command in (mypy, pyright):
            print(f"{command[0]} for {version}:", flush=True)
            failed |= (
                subprocess.run([sys.executable, "-m", *command], cwd=root, check=False).returncode
                != 0
            )
sys.exit(failed)
