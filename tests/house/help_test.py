#!/usr/bin/env python3
"""Every verb of ./dev tells what it does when it is asked, and refuses words that it does not know.

Usage: help_test.py SOURCE
"""

import pathlib
import subprocess
import sys

VERBS = ("run", "test", "build", "lint", "bench", "fuzz")
TOOLS = ("explore", "crash")  # these have their options told by the program that they build


def main():
    dev = pathlib.Path(sys.argv[1]).resolve() / "dev"
    bad = []

    def expect(status, says, *words):
        result = subprocess.run([dev, *words], capture_output=True, text=True, check=False)
        said = result.stdout if status == 0 else result.stderr
        if result.returncode != status or says not in said:
            bad.append(f"./dev {' '.join(words)}: {result.returncode}, {said!r}")

    expect(0, "./dev VERB", "help")
    expect(0, "./dev VERB", "--help")
    for verb in VERBS:
        expect(0, f"usage: ./dev {verb}", verb, "--help")
    for verb in TOOLS:
        if (dev.parent / "build" / "debug" / "bin" / f"uext4-{verb}").exists():
            expect(0, f"usage: ./dev {verb}", verb, "--help")
            if "Building" in subprocess.run([dev, verb, "--help"], capture_output=True, text=True, check=False).stdout:
                bad.append(f"./dev {verb} --help builds")
    for verb in ("build", "lint", "test"):
        expect(2, "unrecognized arguments", verb, "--no-such-option")
    expect(2, "no verb nothing", "nothing")
    print("\n".join(bad) if bad else f"{len(VERBS)} verbs tell what they do")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
