#!/usr/bin/env python3
"""The checker's seed says what it does, and what it cannot do is an error.

crash_tool_test.py CHECKER
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

SEEDED = ("ace1", "ace2", "ace3", "replace", "exerciser", "namespace")


def call(checker, *options):
    return subprocess.run([checker, *options], capture_output=True, text=True, check=False, timeout=600)


def run(checker, *options):
    return call(checker, "--kernel", "0", *options)


def told(checker, *options):
    """What a run says, but for its speed, and the hash of all its images."""
    done = run(checker, *options)
    if done.returncode != 0 or done.stderr:
        raise SystemExit(f"{options}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    trace = re.search(r"^trace ([0-9a-f]{16}) ", done.stdout, re.M)
    if not trace:
        raise SystemExit(f"{options}: no hash of the images\n{done.stdout}")
    return re.sub(r"\d+ a second", "", done.stdout), trace[1]


def check_seed(checker):
    """Two runs are the same one; another seed is another; a cell alone does what it does among others."""
    one, two, other = (told(checker, "--states", "280", "--format", form, "--mode", mode, "--seed", seed)
                       for form, mode, seed in (("1k", "journal", "5"), ("1k", "journal", "5"), ("1k", "journal", "6")))
    lines = [[line for line in text.splitlines() if not line.startswith(("reuse ", "wrap ", "stress ")) and " distinct" not in line]
             for text, _ in (one, two)]
    if lines[0] != lines[1] or one[1] != two[1]:
        raise SystemExit(f"the same seed, and not the same run:\n{one[0]}\n{two[0]}")
    if one[1] == other[1]:
        raise SystemExit("another seed, and the same run")
    for workload in SEEDED:
        line = next(line for line in lines[0] if line.startswith(workload + " "))
        states = re.search(r": (\d+) states", line)[1]
        alone = told(checker, "--states", states, "--format", "1k", "--mode", "journal", "--seed", "5",
                     "--workload", workload)[0]
        if line not in alone.splitlines():
            raise SystemExit(f"{workload} by itself does something else:\n{line}\n{alone}")


def check_refusals(checker):
    """Exit status 2 for what cannot run or be told."""
    few = ["--kernel", "0", "--states", "3", "--workload", "ace1", "--format", "1k", "--mode", "ordered"]
    unwritable = "/nonexistent/folder/page", "/"
    for wrong in (["--states", "0"], ["--states", "-5"], ["--depth", "0"], ["--depth", "17"], ["--depth", "99999999999"],
                  ["--failures", "0"], ["--seed", "99999999999999999999"],
                  ["--workload", "none"], ["--best"], ["--seed", "x"],
                  *([*few, option, path] for option in ("--html", "--report") for path in unwritable),
                  *(["--faults", "--report", path] for path in unwritable),
                  *([*few, "--keep", path] for path in ("/nonexistent/folder", "/dev/full", "/proc")),
                  *(["--faults", *more] for more in (
                      ["--workload", "ace1"], ["--format", "1k"], ["--mode", "ordered"], ["--states", "3"], ["--depth", "1"],
                      ["--e2fsck", "0"], ["--kernel", "0"], ["--failures", "1"], ["--keep", "/tmp"], ["--json"],
                      ["--html", "/dev/null"])),
                  [*few, "--html", "/dev/full"]):
        done = call(checker, *wrong)
        if done.returncode != 2 or not done.stderr:
            raise SystemExit(f"{wrong}: exit status 2 and a word were promised, not {done.returncode}, {done.stderr!r}")
    # Every state would fail else, and be kept.
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "mke2fs").symlink_to(shutil.which("mke2fs"))
        done = subprocess.run([checker, *few], capture_output=True, text=True, check=False, timeout=600,
                              env={**os.environ, "PATH": folder})
        if done.returncode != 2 or "e2fsck" not in done.stderr:
            raise SystemExit(f"without e2fsck: {done.returncode}, {done.stderr!r}")
    with tempfile.TemporaryDirectory() as folder:
        page, report = pathlib.Path(folder, "page"), pathlib.Path(folder, "report")
        kept = pathlib.Path(folder, "kept")
        told(checker, *few, "--html", page, "--report", report, "--keep", kept)
        if kept.exists():
            raise SystemExit("a folder was made for no image")
        if "<table>" not in page.read_text(encoding="utf-8") or "| ace1 |" not in report.read_text(encoding="utf-8"):
            raise SystemExit("what was tried is not in the files that were asked for")


def check_end(checker):
    """Whoever ends it finds nothing of it left."""
    run = subprocess.Popen([checker, "--states", "100000", "--e2fsck", "1", "--kernel", "0"], stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, text=True)
    left = pathlib.Path("/dev/shm", f"uext4-crash-{run.pid}.e2fsck")
    while not left.exists():
        if run.poll() is not None:
            raise SystemExit(f"it ends by itself: {run.stderr.read()}")
        time.sleep(0.01)
    run.terminate()
    said = run.communicate(timeout=60)[1]
    if run.returncode != 2 or "signal" not in said or list(left.parent.glob(f"uext4-crash-{run.pid}*")):
        raise SystemExit(f"ended by a signal: exit {run.returncode}, {said!r}, {left.exists()}")


def main():
    check_end(sys.argv[1])
    check_refusals(sys.argv[1])
    check_seed(sys.argv[1])
    print("a seed is a run, and what cannot be done is said")


main()
