#!/usr/bin/env python3
"""A minute of libFuzzer over all targets, ten minutes a target with UEXT4_LONG=1 (UEXT4_FUZZ_SECONDS chooses otherwise).

The programs are those of the fuzz preset; `./dev test` builds them first. Usage: minute_test.py
"""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
AT_ONCE = 2
WHOLE_SECONDS = 60
LONG_SECONDS = 600


def main():
    programs = len(list((ROOT / "build" / "fuzz" / "bin").glob("fuzz_*")))
    targets = len([path for path in (ROOT / "tests" / "fuzz" / "corpus").iterdir() if path.is_dir()])
    if programs == 0:
        print("the programs of the fuzz preset are not built; `./dev test` and `./dev fuzz all` build them")
        return 77
    if programs != targets:
        print(f"{programs} fuzz programs, but inputs for {targets} targets")
        return 1
    each = LONG_SECONDS if os.environ.get("UEXT4_LONG") else WHOLE_SECONDS // -(-targets // AT_ONCE)
    each = int(os.environ.get("UEXT4_FUZZ_SECONDS", each))
    command = [str(ROOT / "dev"), "fuzz", "all", "--built", "--seconds", str(each), "--jobs", str(AT_ONCE)]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
