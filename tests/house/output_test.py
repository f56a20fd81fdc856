#!/usr/bin/env python3
"""What a verb prints is its own: building talks on standard error, however much a build and a package manager say.

Runs ./dev of a copy of the house, in which cmake, ninja and dpkg-query talk on standard output and build nothing.
Usage: output_test.py SOURCE
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

NOISE = "the build talks"
LISTED = {"scenarios": [{"name": "one", "looks_for": "nothing", "designs": ["shipped"]}]}
# What the verb builds and runs, and what it then prints.
TOOLS = {
    "build/debug/bin/uext4-explore": json.dumps(LISTED),
    "build/debug/bin/uext4-crash": "1 states, 0 failures",
    "build/release/bin/uext4-bench-driver": "",
}


def program(path, body):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="ascii")
    path.chmod(0o755)


def copy_of_the_house(source, tree):
    shutil.copy(source / "dev", tree / "dev")
    shutil.copytree(source / "tools", tree / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("explore", "crash"):
        (tree / "tests" / name).mkdir(parents=True)
        shutil.copy(source / "tests" / name / "usage.inc", tree / "tests" / name / "usage.inc")
    for name, printed in TOOLS.items():
        program(tree / name, f"echo '{printed}'")
    (tree / "build" / "fuzz" / "bin").mkdir(parents=True)
    # Measuring is not what is looked at.
    (tree / "tools" / "bench" / "bench.py").write_text(
        "import types\ndef parse(_): return types.SimpleNamespace(list=False)\n"
        "if __name__ == '__main__': print('{\"results\": []}')\n", encoding="ascii")
    commands = tree / "commands"
    program(commands / "cmake", f"echo '{NOISE}'")
    program(commands / "ninja", f"echo '{NOISE}'; case \"$*\" in *targets*) echo 'bin/fuzz_one: phony';; esac")
    program(commands / "dpkg-query", 'shift 3; for name; do echo "$name installed"; done')
    return commands


def main():
    source = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        tree = pathlib.Path(folder)
        path = f"{copy_of_the_house(source, tree)}:{os.environ['PATH']}"

        def printed(*words, builds=True):
            done = subprocess.run([tree / "dev", *words], env=os.environ | {"PATH": path},
                                  capture_output=True, text=True, check=True, timeout=60)
            # Or there was nothing to keep apart.
            if builds and NOISE not in done.stderr:
                raise SystemExit(f"{words}: no build was heard of, {done.stderr!r}")
            return done.stdout

        if json.loads(printed("explore", "--list", "--json")) != LISTED:
            raise SystemExit("explore --list --json: not what the explorer printed")
        if json.loads(printed("bench", "--json", "-")) != {"results": []}:
            raise SystemExit("bench --json -: not what the benchmark printed")
        for words, expected in ((("explore", "--list"), json.dumps(LISTED) + "\n"),
                                (("crash", "--states", "1"), TOOLS["build/debug/bin/uext4-crash"] + "\n")):
            if (got := printed(*words)) != expected:
                raise SystemExit(f"{words} printed {got!r}")
        if (got := printed("fuzz", builds=False)) != "fuzz targets: one\n":
            raise SystemExit(f"fuzz printed {got!r}")
        program(tree / "build" / "fuzz" / "bin" / "fuzz_one", "echo 'Done 1 runs in 1 second'; "
                "echo 'stat::number_of_executed_units: 1'")
        if (got := printed("fuzz", "one", "--seconds", "1").splitlines()) != [
                "  one: 1 inputs, 0 of 0 edges, nothing found", "1 targets, 1 inputs, 0 failures"]:
            raise SystemExit(f"fuzz one printed {got!r}")
    print("building is heard on standard error only")


if __name__ == "__main__":
    main()
