#!/usr/bin/env python3
"""The benchmark itself: each workload once, tiny, on what is there; no time is judged.

    bench_test.py PROGRAM DRIVER LIBRARY_DRIVER
"""

import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

from bench import below, library_misses, unknown
from workloads import WORKLOADS, fallen

HERE = pathlib.Path(__file__).resolve().parent
SKIPPED = 77


def bench(*words):
    return subprocess.run([sys.executable, "-B", HERE / "bench.py", "--program", sys.argv[1], "--driver", sys.argv[2],
                           *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)


def check(condition, text):
    if not condition:
        print(f"FAILED: {text}")
        sys.exit(1)


def floors_are_told():
    def missed(metric, **ratios):
        return len(below(WORKLOADS[0], [{"metric": metric, "ratio": ratios}]))
    check(missed("unlink /s", fuse2fs=4.9) == 1 and missed("unlink /s", fuse2fs=5.1) == 0, "the floor of unlink")
    check(missed("read warm MB/s", fuse2fs=0.99) == 1 and missed("read warm MB/s", fuse2fs=1, kernel=0.1) == 0, "reads")
    check(missed("append 4 KiB + fsync /s", fuse2fs=1.1, kernel=0.4) == 1, "the floor of appends")
    check(missed("new image of a tree s", mke2fs=0.9) == 1 and missed("new image of a tree s", mke2fs=1.1) == 0, "mke2fs -d")
    check(missed("unlink /s", fuse2fs=math.nan) == 1, "what is no number holds no floor")


def what_falls_is_told():
    def result(name, ratio):
        return {name: [{"metric": "read cold /s", "ratio": {"kernel": ratio}}]}
    few = result("files-20k", 0.5)
    check(fallen(few) == [] and fallen({}) == [], "one number of files alone")
    check(fallen(few | result("files-1m", 0.41)) == [], "four fifths are kept")
    check(len(fallen(few | result("files-50k", 0.5) | result("files-1m", 0.39))) == 1, "less than four fifths")
    check(fallen(few | {"files-1m": [{"metric": "peak memory MiB", "ratio": {}}]}) == [], "what has no ratio")


class Peer:
    def __init__(self, name, journals=True):
        self.name, self.journals = name, journals


def floors_of_the_library_are_told():
    def missed(metric, value):
        return len(library_misses([{"metric": metric, "ratio": {"kernel": value}}]))
    check(missed("stat /s", 1.9) == 1 and missed("stat /s", 2.1) == 0, "the library's floor of stat")
    check(missed("open + close /s", 0.1) == 0, "no floor")
    check(missed("stat /s", math.nan) == 1, "what is no number holds no floor of the library")


def library_is_measured():
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "result.json"
        done = bench("--library", "--scale", "0.002", "--runs", "1", "--library-driver", sys.argv[3], "--json", str(file))
        check(done.returncode == 0, f"--library: status {done.returncode}\n{done.stdout}\n{done.stderr}")
        rows = json.loads(file.read_text(encoding="utf-8"))["library"]
    check(len(rows) >= 10, f"--library measured {rows}")
    for row in rows:
        check(all(row["median"][name] > 0 for name in ("uext4", "kernel")), f"--library: {row}")
    gone = bench("--library", "--library-driver", "/nonexistent")
    check(gone.returncode == 2 and "is not built" in gone.stderr, f"no driver of the library: {gone.stderr}")


def what_is_not_known_is_told():
    team = [Peer("uext4"), Peer("kernel"), Peer("fuse2fs", False)]
    plain = next(w for w in WORKLOADS if not w.needs_journal)
    journaled = next(w for w in WORKLOADS if w.needs_journal)
    held = [{"metric": "unlink /s", "median": {"uext4": 6, "kernel": 1, "fuse2fs": 1},
             "ratio": {"kernel": 6, "fuse2fs": 6}}]
    none = [{"metric": "unlink /s", "median": {"uext4": 0, "kernel": 1, "fuse2fs": 1}, "ratio": {}}]
    check(unknown(plain, held, {}, team) == [], "all is known")
    check(unknown(journaled, held, {"fuse2fs": "has no journal"}, team) == [], "who cannot take part is not missed")
    check(len(unknown(plain, held, {"kernel": "it ended"}, team)) == 1, "a peer that failed")
    check(len(unknown(plain, held, {}, team[:2])) == 1, "a peer that is not there")
    check(len(unknown(plain, none, {}, team)) == 1, "nothing to compare")
    fills = next(w for w in WORKLOADS if w.fills)
    check(unknown(fills, held, {}, team) == ["fill: mke2fs was not measured"], "mke2fs -d is missed where it takes part")


def main():
    if len(sys.argv) != 4:
        sys.exit(f"usage: {sys.argv[0]} PROGRAM DRIVER LIBRARY_DRIVER")
    if not os.path.exists("/dev/fuse") or os.geteuid() != 0:
        print("skipped: only root, with /dev/fuse, may mount here")
        sys.exit(SKIPPED)
    floors_are_told()
    floors_of_the_library_are_told()
    what_is_not_known_is_told()
    what_falls_is_told()
    listing = bench("--list")
    check(listing.returncode == 0 and all(w.name in listing.stdout for w in WORKLOADS), f"--list: {listing.stdout}")
    wrong = bench("--workload", "nonsense")
    check(wrong.returncode == 2 and "nonsense" in wrong.stderr, f"an unknown workload: {wrong.stderr}")
    for nothing in (("--runs", "0"), ("--runs", "-3"), ("--scale", "0")):
        check(bench(*nothing).returncode == 2, f"{nothing}: nothing would be measured")
    alone = bench("--scale", "0.0005", "--runs", "1", "--peers", "uext4", "--workload", "append", "--floors")
    check(alone.returncode == 1 and "fuse2fs was not measured" in alone.stdout, f"floors of nobody: {alone.stdout}")
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "result.json"
        done = bench("--scale", "0.0005", "--runs", "1", "--peers", "uext4,kernel,mke2fs", "--json", str(file))
        check(done.returncode == 0, f"status {done.returncode}\n{done.stdout}\n{done.stderr}")
        result = json.loads(file.read_text(encoding="utf-8"))
        named = [word for w in WORKLOADS if w.by_name_only for word in ("--workload", w.name)]
        check(not any(w.name in result["workloads"] for w in WORKLOADS if w.by_name_only), "they were not named")
        done = bench("--scale", "0.002", "--runs", "1", "--peers", "uext4,kernel", "--json", str(file), *named)
        check(done.returncode == 0, f"status {done.returncode}\n{done.stdout}\n{done.stderr}")
        result["workloads"] |= json.loads(file.read_text(encoding="utf-8"))["workloads"]
    check(isinstance(result["below_floors"], list), "what is below its floor is told")
    for workload in WORKLOADS:
        found = result["workloads"][workload.name]
        check("uext4" not in found["faults"], f"{workload.name}: {found['faults']}")
        check(found["rows"], f"{workload.name} measured nothing")
        for row in found["rows"]:
            check(row["median"].get("uext4", 0) > 0, f"{workload.name}: {row}")
            check(("mke2fs" in row["median"]) == workload.fills, f"{workload.name}: {row}")
    library_is_measured()
    print("passed")


if __name__ == "__main__":
    main()
