#!/usr/bin/env python3
"""The checker's seed says what it does, and what it cannot do is an error.

crash_tool_test.py CHECKER
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

SEEDED = ("ace1", "ace2", "ace3", "replace", "exerciser", "namespace", "held")


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
    others = "reuse ", "wrap ", "stress ", "e2fsck judged ", "of ", "prefixes "
    lines = [[line for line in text.splitlines() if not line.startswith(others) and " distinct" not in line]
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
                  ["--best"], ["--seed", "x"],
                  *([*few, option, path] for option in ("--html", "--report") for path in unwritable),
                  *(["--faults", "--report", path] for path in unwritable),
                  *([*few, "--keep", path] for path in ("/nonexistent/folder", "/dev/full", "/proc")),
                  *(["--faults", *more] for more in (
                      ["--workload", "ace1"], ["--format", "1k"], ["--mode", "ordered"], ["--states", "3"], ["--depth", "1"],
                      ["--e2fsck", "0"], ["--kernel", "0"], ["--failures", "1"], ["--keep", "/tmp"], ["--json"],
                      ["--html", "/dev/null"], ["--each-prefix"])),
                  *([*few, option, ""] for option in ("--html", "--report", "--keep")),
                  *(["--list", *more] for more in (["--workload", "ace1"], ["--long"], ["--seed", "1"], ["--faults"],
                                                   ["--each-prefix"], ["--html", "/dev/null"])),
                  [*few, "--html", "/dev/full"]):
        done = call(checker, *wrong)
        if done.returncode != 2 or not done.stderr:
            raise SystemExit(f"{wrong}: exit status 2 and a word were promised, not {done.returncode}, {done.stderr!r}")
    for wrong, word in ((["--workload", "none"], "no workload none"), (["--format", "2k"], "no format 2k"),
                        (["--mode", "writeback"], "no mode writeback"),
                        (["--workload", "ace1", "--format", "small-log"], "ace1 is not run"),
                        (["--workload", "fragments", "--format", "1k"], "fragments is not run")):
        done = call(checker, *wrong)
        if done.returncode != 2 or word not in done.stderr:
            raise SystemExit(f"{wrong}: {word!r} was to be said, not {done.stderr!r}")
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


def program(path, body):
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="ascii")
    path.chmod(0o755)


def check_killed_judge(checker):
    """An e2fsck that a signal ends is no pass, whatever it was asked; and what cannot be kept is said."""
    real = shutil.which("e2fsck")
    for ends in ("-E journal_only", "-fn"):
        with tempfile.TemporaryDirectory() as folder:
            program(pathlib.Path(folder, "e2fsck"), f'case "$*" in *"{ends}"*) kill -9 $$;; esac\nexec {real} "$@"')
            kept = pathlib.Path(folder, "kept")
            kept.mkdir()
            kept.joinpath("1.img").symlink_to("/dev/full")
            options = ("--kernel", "0", "--states", "3", "--workload", "ace1", "--format", "1k", "--mode", "ordered",
                       "--e2fsck", "1", "--keep", str(kept))
            environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
            done = subprocess.run([checker, *options], capture_output=True, text=True, check=False, timeout=600,
                                  env=environment)
            if done.returncode != 1 or "e2fsck was ended by a signal (KILL)" not in done.stdout:
                raise SystemExit(f"e2fsck {ends} was killed: exit {done.returncode}\n{done.stdout}{done.stderr}")
            if "  not kept: " not in done.stdout or kept.joinpath("1.img").is_symlink():
                raise SystemExit(f"an image that cannot be kept:\n{done.stdout}")
            # The call leads to the failure.
            again = re.search(r"^  again: \./dev crash (.* --states 3 .*)$", done.stdout, re.M)
            if not again or subprocess.run([checker, *again[1].split(), "--keep", str(kept)], capture_output=True, check=False,
                                           timeout=600, env=environment).returncode != 1:
                raise SystemExit(f"the same again does not fail:\n{done.stdout}")


def check_no_room(checker):
    """A full /dev/shm is an error, and nothing is left there."""
    in_own = ["unshare", *([] if os.geteuid() == 0 else ["-r"]), "-m"]
    if subprocess.run([*in_own, "mount", "-t", "tmpfs", "none", "/dev/shm"], capture_output=True, check=False).returncode:
        print("no /dev/shm of its own to fill up: not tried")
        return
    with tempfile.TemporaryDirectory() as folder:
        # The image has room, as most of it is a hole; its copy has not.
        program(pathlib.Path(folder, "mke2fs"),
                f'for word; do case $word in /dev/shm/*) image=$word;; esac; done\n'
                f'{shutil.which("mke2fs")} "$@" && truncate -s 64M "$image"')
        done = subprocess.run(
            [*in_own, "sh", "-c", 'mount -t tmpfs -o size=6m none /dev/shm && "$@"; status=$?; ls /dev/shm; exit $status', "-",
             checker, "--kernel", "0", "--e2fsck", "1", "--states", "5", "--workload", "ace1", "--format", "1k",
             "--mode", "ordered"],
            capture_output=True, text=True, check=False, timeout=600,
            env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"})
        if done.returncode != 2 or "no room" not in done.stderr or done.stdout:
            raise SystemExit(f"no room: exit {done.returncode}\n{done.stdout}{done.stderr}")


def check_reports(checker):
    """What was not asked, what was sampled and what a lying flush leaves are told, for people and for programs."""
    few = ["--workload", "ace1", "--format", "1k", "--mode", "ordered", "--states", "120", "--e2fsck", "50"]
    begin = "images of a device whose flush lies,"
    with tempfile.TemporaryDirectory() as folder:
        page, report = pathlib.Path(folder, "page"), pathlib.Path(folder, "report")
        printed = told(checker, *few, "--html", page, "--report", report)[0]
        spoken = json.loads(run(checker, *few, "--json").stdout)
        for text in (printed, page.read_text(encoding="utf-8"), report.read_text(encoding="utf-8"),
                     " ".join(spoken["said"])):
            for said in ("30 % drawn by the seed",
                         "e2fsck judged 3 of 120 images, 1 of them after our recovery too, the kernel was not asked",
                         f"of {spoken['lying']['images']} {begin} {spoken['lying']['opened']} opened"):
                if said not in text:
                    raise SystemExit(f"not told: {said}\n{text}")
        if (spoken["e2fsck"], spoken["kernel"]) != (3, 0) or not spoken["lying"]["images"]:
            raise SystemExit(f"--json: {spoken}")


def check_prefixes(checker):
    """Each prefix, if that is asked for: as many as there are requests that write, but for images that were seen."""
    few = ["--workload", "namespace", "--format", "1k", "--mode", "ordered", "--states", "1", "--e2fsck", "0"]
    with tempfile.TemporaryDirectory() as folder:
        tried = []
        for more in ([], ["--each-prefix"]):
            report = pathlib.Path(folder, "report")
            told(checker, *few, *more, "--report", report)
            text = report.read_text(encoding="utf-8")
            tried.append(int(re.search(r"^\| namespace (?:\|[^|]*){3}\| (\d+) \|", text, re.M)[1]))
        if tried[0] > 1 or tried[1] < 20 or "was run: all." not in text:
            raise SystemExit(f"prefixes of one sequence: {tried}\n{text}")


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
    check_killed_judge(sys.argv[1])
    check_no_room(sys.argv[1])
    check_reports(sys.argv[1])
    check_prefixes(sys.argv[1])
    check_seed(sys.argv[1])
    print("a seed is a run, and what cannot be done is said")


main()
