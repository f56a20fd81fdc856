#!/usr/bin/env python3
"""Every verb of ./dev tells what it does when it is asked, and refuses words that it does not know.

Usage: help_test.py SOURCE
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(sys.argv[1]).resolve() / "tools"))
from house import usage  # noqa: E402  (the path has to be set first)

VERBS = ("run", "test", "build", "lint", "bench", "fuzz", "explore", "crash")
TOOLS = ("explore", "crash")  # programs, built from the list of options that ./dev judges by


def main():
    dev = pathlib.Path(sys.argv[1]).resolve() / "dev"
    bad = []

    # All of PATH: nothing to install or to build with.
    folder = tempfile.TemporaryDirectory()
    for name, program in (("python3", sys.executable), ("readlink", shutil.which("readlink")), ("dirname", shutil.which("dirname"))):
        pathlib.Path(folder.name, name).symlink_to(program)

    def expect(status, says, *words):
        """The time limit is for a verb that hangs."""
        try:
            result = subprocess.run([dev, *words], capture_output=True, text=True, check=False, timeout=120,
                                    env={"PATH": folder.name})
        except subprocess.TimeoutExpired:
            bad.append(f"./dev {' '.join(words)} takes its time")
            return
        said = result.stdout if status == 0 else result.stderr
        if result.returncode != status or says not in said:
            bad.append(f"./dev {' '.join(words)}: {result.returncode}, {said!r}")

    expect(0, "./dev VERB", "help")
    expect(0, "./dev VERB", "--help")
    for verb in VERBS:
        expect(0, f"usage: ./dev {verb}", verb, "--help")
    for verb in TOOLS:
        # What the program knows, and what the list says of it.
        source = (dev.parent / "tests" / verb / "main.cpp").read_text(encoding="utf-8")
        listed = usage.options_of(dev.parent / "tests" / verb / "usage.inc")
        if set(re.findall(r'"(--[a-z0-9-]+)"', source)) - {"--help"} != set(listed):
            bad.append(f"tests/{verb}/usage.inc lists {', '.join(listed)}")
        expect(2, "no such option", verb, "--no-such-option")
        expect(2, "needs a value", verb, "--list", "--seed")
        expect(2, "is no number", verb, "--seed", "one")
    expect(2, "is none of", "crash", "--workload", "nothing")
    expect(2, "is none of", "crash", "--mode", "nothing")
    expect(2, "is none of", "explore", "--scheduler", "nothing")
    expect(2, "there is no workload nothing", "bench", "--workload", "nothing")
    expect(2, "there is no peer nothing", "bench", "--peers", "uext4,nothing")
    expect(2, "invalid int", "bench", "--runs", "some")
    for verb in ("build", "lint", "test", "run", "bench", "fuzz"):
        expect(2, "unrecognized arguments", verb, "--no-such-option")
    expect(2, "no verb nothing", "nothing")
    folder.cleanup()
    print("\n".join(bad) if bad else f"{len(VERBS)} verbs tell what they do")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
