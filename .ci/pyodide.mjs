// Runs pytest with the given arguments on the CPython that the npm package pyodide carries, with the packages in $PACKAGES.
import { loadPyodide } from "pyodide";

const python = await loadPyodide();
const root = process.cwd();
for (const folder of [root, process.env.PACKAGES]) {
  python.FS.mkdirTree(folder);
  python.FS.mount(python.FS.filesystems.NODEFS, { root: folder }, folder);
}
python.FS.chdir(root);
python.globals.set("arguments", python.toPy(process.argv.slice(2)));
python.globals.set("packages", process.env.PACKAGES);
process.exitCode = python.runPython(`
import sys

sys.path[:0] = ["", packages]
import pytest

int(pytest.main(arguments))
`);
