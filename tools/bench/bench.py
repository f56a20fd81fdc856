#!/usr/bin/env python3
"""Measures uext4 on a mount beside the kernel's ext4, fuse2fs and mke2fs -d, interleaved in one run, images in memory.

Each workload runs N times; a run goes through all peers one after the other, each with a fresh image, so that whatever
else the machine does meets all of them. What counts is the ratio inside a run. After each, e2fsck judges the image.
"""

import argparse
import json
import os
import pathlib
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import peers
from workloads import LIBRARY_FLOORS, MOST_MICROSECONDS, WORKLOADS, fallen, floor

PEERS = ("uext4", "kernel", "fuse2fs", "mke2fs")


class Bench:
    """What a workload sees: one peer, mounted."""

    def __init__(self, peer, workload, megabytes, settings):
        self.peer, self.workload, self.megabytes = peer, workload, megabytes
        self.driver, self.scale, self.archive_path = settings.driver, settings.scale, settings.archive
        self.source = self.archive_path.parent / f"{workload.name} source"  # the same one for all peers

    @property
    def directory(self):
        return self.peer.directory

    def scaled(self, amount, least):
        """`amount` times the scale that was asked for; bytes stay whole pages."""
        value = max(least, int(amount * self.scale))
        return value - value % 4096 if amount > 1 << 20 else value

    def step(self, name, *numbers):
        return json.loads(peers.run(self.driver, name, self.directory, *numbers, what=f"{self.peer.name}: {name}"))

    def sync(self):
        return json.loads(peers.run(self.driver, "sync", self.directory, what=f"{self.peer.name}: sync"))["seconds"]

    def remount(self):
        """Seconds until the mount is there."""
        self.peer.umount()
        start = time.monotonic()
        self.peer.mount(self.workload.options)
        return time.monotonic() - start

    def refill(self, source):
        """Seconds until there is another image, with what is in the folder."""
        self.peer.umount()
        start = time.monotonic()
        self.peer.make_of(source, self.megabytes, self.workload.mke2fs)
        seconds = time.monotonic() - start
        self.peer.mount(self.workload.options)
        return seconds

    def archive(self):
        return self.archive_path


def make_archive(folder, source, scale):
    """A tar of a real tree: the first of those that are there, /usr/include or /usr/share among them."""
    candidates = [source] if source else ["/usr/include", "/usr/share", "/etc"]
    for candidate in candidates:
        if os.path.isdir(candidate):
            if scale < 0.1 and not source:
                candidate = str(pathlib.Path(__file__).resolve().parent)
            archive = folder / "tree.tar"
            peers.run("tar", "-cf", archive, "-C", os.path.dirname(os.path.abspath(candidate)),
                      os.path.basename(candidate))
            return archive, candidate
    raise peers.Broken(f"no tree to unpack: {', '.join(candidates)}")


def one_run(peer, workload, settings):
    """{metric: value} of one peer; its image is made, judged and removed."""
    megabytes = workload.megabytes if settings.scale >= 0.2 else max(64, int(workload.megabytes * 0.1))
    try:
        peer.make(megabytes, workload.mke2fs)
        peer.mount(workload.options)
        found = workload.run(Bench(peer, workload, megabytes, settings))
        peer.umount()
        peer.judge()
        return found
    finally:
        peer.clear()


def better_when_larger(metric):
    return metric.endswith("/s")


def ratio(metric, ours, theirs):
    """Above 1: ours is faster."""
    if not ours or not theirs:
        return None
    return ours / theirs if better_when_larger(metric) else theirs / ours


def measure(workload, team, settings):
    """[{metric, unit-less medians by peer, ratios}], and what went wrong by peer."""
    values, faults = {}, {}
    ratios = {}
    for number in range(settings.runs):
        run = {}
        for peer in team[number % len(team):] + team[:number % len(team)]:
            if (not peer.mounts and not workload.fills) or peer.name in workload.left_out:
                continue
            if workload.needs_journal and not peer.journals:
                faults[peer.name] = "has no journal"
                continue
            try:
                run[peer.name] = one_run(peer, workload, settings)
            except (peers.Broken, subprocess.SubprocessError, OSError, ArithmeticError) as fault:
                faults[peer.name] = str(fault)
                print(f"bench: {workload.name}: {fault}", file=sys.stderr, flush=True)
        for name, found in run.items():
            for metric, value in found.items():
                values.setdefault(metric, {}).setdefault(name, []).append(value)
                ours = run.get("uext4", {}).get(metric)
                against = ratio(metric, ours, value) if name != "uext4" else None
                if against:
                    ratios.setdefault(metric, {}).setdefault(name, []).append(against)
    rows = []
    for metric, by_peer in values.items():
        rows.append({"metric": metric,
                     "median": {name: statistics.median(all_of) for name, all_of in by_peer.items()},
                     "spread": {name: [min(all_of), max(all_of)] for name, all_of in by_peer.items()},
                     "ratio": {name: statistics.median(all_of) for name, all_of in ratios.get(metric, {}).items()}})
    return rows, faults


def below(workload, rows):
    """The ratios that are below their floors, a sentence each."""
    found = []
    for row in rows:
        for name, against in row["ratio"].items():
            least = floor(row["metric"], name)
            if least and not against >= least:
                found.append(f"{workload.name}, {row['metric']}: {against:.2f} of {name}, the floor is {least}")
    return found


def unknown(workload, rows, faults, team):
    """The floors that nothing was measured for, a sentence each."""
    asked = [name for name in PEERS if (name != "mke2fs" or workload.fills) and name not in workload.left_out]
    found = [f"{workload.name}: {name} was not measured" for name in asked if name not in {p.name for p in team}]
    cannot = {peer.name for peer in team if workload.needs_journal and not peer.journals}
    found += [f"{workload.name}: {name} failed" for name in faults if name not in cannot]
    for row in rows:
        found += [f"{workload.name}, {row['metric']}: no ratio to {name}" for name in row["median"]
                  if name != "uext4" and floor(row["metric"], name) and name not in row["ratio"]]
    return found


def number_text(value):
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def print_rows(workload, rows, names):
    for row in rows:
        cells = [f"{number_text(row['median'].get(name)):>12}" for name in names]
        cells += [f"{row['ratio'][name]:>10.2f}" if name in row["ratio"] else f"{'-':>10}"
                  for name in names if name != "uext4"]
        print(f"{workload.name:<13}{row['metric']:<26}" + "".join(cells), flush=True)


def micro(program):
    """The benchmarks inside one process: {name: nanoseconds per operation}."""
    if not program:
        return None
    text = peers.run(program, "--benchmark_format=json", "--benchmark_min_time=0.2")
    answer = json.loads(text[text.index("{"):])
    factor = {"ns": 1, "us": 1e3, "ms": 1e6}
    return {one["name"]: one["real_time"] * factor[one["time_unit"]] for one in answer["benchmarks"]
            if not one.get("error_occurred")}


def library(options, folder):
    """The library beside the kernel's system calls, each line by both in turn: [{metric, median, spread, ratio}]."""
    values = {}
    for number in range(options.runs):
        kernel, own = peers.Kernel(folder), peers.LibraryImage(folder)
        kernel.check_available()
        megabytes = 3072 if options.scale >= 0.2 else 256
        try:
            for peer in (kernel, own):
                peer.make(megabytes, ("-N", "131072"))
            kernel.mount()
            answer = json.loads(peers.run(options.library_driver, own.image, kernel.directory, options.scale,
                                          ("uext4", "kernel")[number % 2],
                                          what="the library's lines"))
            kernel.umount()
            for peer in (kernel, own):
                peer.judge()
        finally:
            for peer in (kernel, own):
                peer.clear()
        for metric, by_peer in answer.items():
            values.setdefault(metric, []).append(by_peer)
    rows = []
    for metric, runs in values.items():
        by_peer = {name: [run[name] for run in runs] for name in ("uext4", "kernel")}
        rows.append({"metric": metric,
                     "median": {name: statistics.median(all_of) for name, all_of in by_peer.items()},
                     "spread": {name: [min(all_of), max(all_of)] for name, all_of in by_peer.items()},
                     "ratio": {"kernel": statistics.median(run["uext4"] / run["kernel"] for run in runs)}})
    return rows


def library_misses(rows):
    """The library's ratios that are below their floors, a sentence each."""
    return [f"library, {row['metric']}: {row['ratio']['kernel']:.2f} of the kernel's calls, the floor is "
            f"{LIBRARY_FLOORS[row['metric']]}" for row in rows
            if row["metric"] in LIBRARY_FLOORS and not row["ratio"]["kernel"] >= LIBRARY_FLOORS[row["metric"]]]


def bench_library(options):
    """The result of --library, and whether it failed."""
    if not options.library_driver or not os.access(options.library_driver, os.X_OK):
        raise peers.Unavailable(f"{options.library_driver or 'the driver of the library'} is not built")
    with tempfile.TemporaryDirectory(prefix="uext4-bench-", dir=base_folder(), ignore_cleanup_errors=True) as folder:
        rows = library(options, pathlib.Path(folder))
    print(f"{'':<13}{'median':<26}{'library':>12}{'kernel':>12}{'/kernel':>10}")
    for row in rows:
        print(f"{'library':<13}{row['metric']:<26}{number_text(row['median']['uext4']):>12}"
              f"{number_text(row['median']['kernel']):>12}{row['ratio']['kernel']:>10.2f}", flush=True)
    misses = library_misses(rows)
    if misses:
        print("\nBelow their floors:")
        for miss in misses:
            print(f"  {miss}")
    result = {"machine": {"cpus": os.cpu_count(), "kernel": platform.release(), "load": os.getloadavg()},
              "runs": options.runs, "scale": options.scale, "library": rows, "below_floors": misses}
    return result, options.floors and bool(misses)


def base_folder():
    return "/dev/shm" if os.path.isdir("/dev/shm") else None


def parse(arguments):
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__.split("\n\n")[0])
    parser.add_argument("--json", metavar="FILE", help="write the results there too; - is standard output")
    parser.add_argument("--workload", metavar="NAME", action="append", help="only these (may be repeated)")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="how often each is measured (3)")
    parser.add_argument("--list", action="store_true", help="list the workloads")
    parser.add_argument("--scale", type=float, default=1.0, metavar="F", help="all sizes times this (1.0)")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"which of {', '.join(PEERS)}")
    parser.add_argument("--tree", metavar="DIR", help="what the tree workload packs (/usr/include)")
    parser.add_argument("--floors", action="store_true",
                        help="exit status 1 also where a ratio is below its floor, or not known")
    parser.add_argument("--library", action="store_true",
                        help="instead: the library beside the kernel's system calls, line by line in one process")
    parser.add_argument("--program", help=argparse.SUPPRESS)
    parser.add_argument("--library-driver", help=argparse.SUPPRESS)
    parser.add_argument("--driver", help=argparse.SUPPRESS)
    parser.add_argument("--micro", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.runs < 1 or not options.scale > 0:
        parser.error("nothing is measured by fewer runs than one, or at a scale that is not above 0")
    for kind, given, known in (("workload", options.workload or [], [w.name for w in WORKLOADS] + ["micro"]),
                               ("peer", options.peers.split(","), PEERS)):
        for name in given:
            if name not in known:
                parser.error(f"there is no {kind} {name}; there are {', '.join(known)}")
    return options


def team_of(options, folder):
    """The peers that can take part, and why the others cannot."""
    kinds = dict(zip(PEERS, (lambda: peers.Uext4(folder, options.program), lambda: peers.Kernel(folder),
                             lambda: peers.Fuse2fs(folder), lambda: peers.Mke2fs(folder))))
    team, skipped = [], {}
    for name in options.peers.split(","):
        peer = kinds[name]()
        try:
            peer.check_available()
            team.append(peer)
        except peers.Unavailable as reason:
            if name == "uext4":
                raise
            skipped[name] = str(reason)
    return team, skipped


def bench(options):
    chosen = [w for w in WORKLOADS if (w.name in options.workload if options.workload else not w.by_name_only)]
    for tool in ("mke2fs", "e2fsck", "tar", "umount"):
        if not shutil.which(tool):
            raise peers.Unavailable(f"{tool} is not installed")
    for tool in (options.program, options.driver):
        if not tool or not os.access(tool, os.X_OK):
            raise peers.Unavailable(f"{tool or 'the program'} is not built")
    result = {"machine": {"cpus": os.cpu_count(), "kernel": platform.release(), "load": os.getloadavg()},
              "runs": options.runs, "scale": options.scale, "workloads": {}, "skipped": {}}
    failed, misses, unmeasured = False, [], []
    with tempfile.TemporaryDirectory(prefix="uext4-bench-", dir=base_folder(), ignore_cleanup_errors=True) as folder:
        folder = pathlib.Path(folder)
        team, result["skipped"] = team_of(options, folder)
        options.archive, result["tree"] = make_archive(folder, options.tree, options.scale)
        names = [peer.name for peer in team]
        for name, reason in result["skipped"].items():
            print(f"left out: {name}: {reason}", flush=True)
        if chosen:
            print(f"{'':<13}{'median':<26}" + "".join(f"{name:>12}" for name in names) +
                  "".join(f"{'/' + name:>10}" for name in names if name != "uext4"))
        for workload in chosen:
            rows, faults = measure(workload, team, options)
            result["workloads"][workload.name] = {"what": workload.what, "rows": rows, "faults": faults}
            print_rows(workload, rows, names)
            failed = failed or "uext4" in faults
            unmeasured += unknown(workload, rows, faults, team)
            misses += below(workload, rows)
    misses += fallen({name: found["rows"] for name, found in result["workloads"].items()})
    if not options.workload or "micro" in options.workload:
        result["micro_ns"] = micro(options.micro) or {}
        unmeasured += [f"micro, {name}: not measured" for name in MOST_MICROSECONDS if name not in result["micro_ns"]]
        for name, nanoseconds in result["micro_ns"].items():
            print(f"{'micro':<13}{name:<40}{nanoseconds / 1000:>12.3f} us")
            most = MOST_MICROSECONDS.get(name)
            if most and nanoseconds / 1000 > most:
                misses.append(f"micro, {name}: {nanoseconds / 1000:.3f} us, at most {most}")
    result["machine"]["load_after"] = os.getloadavg()
    if chosen:
        print("\nThe last columns are ratios inside a run, median: above 1, uext4 is faster.")
    result["below_floors"] = misses
    if misses:
        print("\nBelow their floors:")
        for miss in misses:
            print(f"  {miss}")
    result["unknown_floors"] = unmeasured
    if unmeasured and options.floors:
        print("\nWhether these floors hold is not known:")
        for reason in unmeasured:
            print(f"  {reason}")
    return result, failed or (options.floors and bool(misses or unmeasured))


def main():
    options = parse(sys.argv[1:])
    if options.list:
        for workload in WORKLOADS:
            print(f"{workload.name:<14}{workload.what}{' (only when it is named)' if workload.by_name_only else ''}")
        print(f"{'micro':<14}inside one process: CRC32c of 4 KiB, create, stat, unlink, read, write")
        return 0
    # What is mounted goes also when somebody stops this from outside.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    stdout = sys.stdout
    if options.json == "-":
        sys.stdout = sys.stderr  # the table must not stand in the middle of the JSON
    try:
        result, failed = bench_library(options) if options.library else bench(options)
    except peers.Unavailable as reason:
        print(f"bench: {reason}", file=sys.stderr)
        return 2
    text = json.dumps(result, indent=2) + "\n"
    if options.json == "-":
        stdout.write(text)
    elif options.json:
        pathlib.Path(options.json).write_text(text, encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
