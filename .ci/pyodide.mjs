// Runs `python -m MODULE ARGUMENTS` on the CPython that the npm package pyodide carries, with the packages in $PACKAGES.
import { loadPyodide } from "pyodide";

const python = await loadPyodide();
const root = process.cwd();
for (const folder of [root, process.env.PACKAGES]) {
  python.FS.mkdirTree(folder);
  python.FS.mount(python.FS.filesystems.NODEFS, { root: folder }, folder);
}
python.FS.chdir(root);
python.globals.set("arguments", python.toPy(process.argv.slice(3)));
python.globals.set("packages", process.env.PACKAGES);
process.exitCode = python.runPython(`
import runpy, sys

sys.path[:0] = ["", packages]
sys.argv = arguments
try:
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    status = 0
except SystemExit as exit:
    status = int(exit.code or 0)
sys.stdout.flush()
status
`);
