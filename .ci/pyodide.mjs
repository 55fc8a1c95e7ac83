// Runs `python FILE ARGUMENTS` or `python -m MODULE ARGUMENTS` on the CPython that the npm package pyodide carries, which is
// installed in $PYODIDE.
const home = process.env.PYODIDE;
const { loadPyodide } = await import(`${home}/node_modules/pyodide/pyodide.mjs`);

const python = await loadPyodide();
python.FS.mkdirTree(process.cwd());
python.FS.mount(python.FS.filesystems.NODEFS, { root: process.cwd() }, process.cwd());
python.FS.chdir(process.cwd());
python.globals.set("argv", python.toPy(process.argv.slice(2)));
python.globals.set("packages", `${process.cwd()}/.tox/site-packages`);
process.exitCode = python.runPython(`
import runpy, sys, traceback

sys.path[:0] = ["", packages]
try:
    if argv[0] == "-m":
        sys.argv = argv[1:]
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = argv
        runpy.run_path(argv[0], run_name="__main__")
    status = 0
except SystemExit as exit:
    status = int(exit.code or 0)
except Exception:
    traceback.print_exc()
    status = 1
sys.stdout.flush()
status
`);
