#!/usr/bin/env python3
"""The schedule explorer finds every wrong design, and nothing in the shipped one.

explore_test.py EXPLORER designs PRODUCT...  the wrong designs, old bugs and the tool
explore_test.py EXPLORER shipped I/N         the Ith of N parts of the shipped one; UEXT4_LONG=1 for a million schedules
explore_test.py EXPLORER --write PROOF.md [SCENARIO...]    writes the tables of the document, or the rows of some
"""

import concurrent.futures
import json
import os
import pathlib
import queue
import re
import subprocess
import sys
import tempfile

LONG = os.environ.get("UEXT4_LONG") == "1"
SHIPPED = {"random": 20000 if LONG else 1400, "pct": 22000 if LONG else 700}
DESIGNS = pathlib.Path(__file__).parents[1] / "designs"
REGRESSIONS = pathlib.Path(__file__).with_name("regressions.txt")

# Each explorer stays on one processor. Left to themselves, two may choose the same one and leave the other idle.
PROCESSORS = queue.SimpleQueue()


class Outcome:
    """What one run of the explorer said."""

    def __init__(self, explorer, *arguments):
        processor = PROCESSORS.get()
        try:
            done = subprocess.run(["taskset", "-c", processor, explorer, *map(str, arguments)], capture_output=True,
                                  text=True, check=False, timeout=3600)
        finally:
            PROCESSORS.put(processor)
        self.status, self.text = done.returncode, done.stdout + done.stderr
        last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""
        end = re.fullmatch(r"(\S+) (\S+): (\d+) schedules, (\d+) failures", last)
        if not end or self.status != (1 if end[4] != "0" else 0):
            raise SystemExit(f"{arguments}: exit {self.status}, not as promised\n{self.text}")
        self.schedules, self.failures = int(end[3]), int(end[4])
        counts = re.search(r"^(\d+) distinct, (\d+) with contention .* trace (\w+)$", done.stdout, re.M)
        self.distinct, self.contended, self.trace = (int(counts[1]), int(counts[2]), counts[3]) if counts else (0, 0, "")


def designs_of(explorer):
    """(scenario, design, schedules within which it is found or 0) for all of them."""
    listing = subprocess.run([explorer, "--list"], capture_output=True, text=True, check=True).stdout
    found, scenario = [], ""
    for line in listing.splitlines():
        if not line.startswith(" "):
            scenario = line.split(":")[0]
            continue
        limit = re.search(r"found within (\d+) schedules$", line)
        found.append((scenario, line.split(":")[0].strip(), int(limit[1]) if limit else 0))
    names = json.loads(subprocess.run([explorer, "--list", "--json"], capture_output=True, text=True,
                                      check=True).stdout)
    told = [(s["name"], d) for s in names["scenarios"] for d in s["designs"]]
    if told != [(s, d) for s, d, _ in found]:
        raise SystemExit(f"--list and --list --json differ: {told}")
    return found


def explore(explorer, scenario, design, scheduler, seed, schedules, *more):
    return Outcome(explorer, "--scenario", scenario, "--design", design, "--scheduler", scheduler, "--seed", seed,
                   "--schedules", schedules, *more)


def check_wrong(explorer, scenario, design, limit):
    """Found by both algorithms, with two seeds, and again by the strings that are printed."""
    rows = []
    for scheduler in ("random", "pct"):
        for seed in (1, 2):
            outcome = explore(explorer, scenario, design, scheduler, seed, limit)
            if outcome.failures != 1 or "\nthis is not what the design is wrong by" in outcome.text:
                raise SystemExit(f"{outcome.text}{scenario} {design}: not found by {scheduler}, seed {seed}, in {limit} schedules")
            rows.append(outcome.schedules)
            for string in re.findall(r"--replay (\S+)$", outcome.text, re.M):
                if Outcome(explorer, "--replay", string).failures != 1:
                    raise SystemExit(f"{scenario} {design}: the replay does not fail: {string}")
    return rows


def check_shipped(explorer, scenario, failures):
    rows = {}
    for scheduler, schedules in SHIPPED.items():
        outcome = explore(explorer, scenario, "shipped", scheduler, 1, schedules)
        if outcome.failures:
            failures.append(f"{scenario} shipped, {scheduler}:\n{outcome.text}")
        rows[scheduler] = outcome
    if not sum(r.contended for r in rows.values()):
        failures.append(f"{scenario}: no thread ever had to wait for what another one held")
    # What both have found is not known to be different.
    if LONG and max(r.distinct for r in rows.values()) < 10000:
        failures.append(f"{scenario}: fewer than 10000 distinct schedules")
    return rows


def check_tool(explorer, first):
    """Same seed, same trace; a page that needs nothing else; help; exit status 2 for what cannot run."""
    scenario, design, limit = first
    one, two = (explore(explorer, scenario, "shipped", "random", 7, 200) for _ in range(2))
    if one.trace != two.trace or explore(explorer, scenario, "shipped", "random", 8, 200).trace == one.trace:
        raise SystemExit("a seed does not say what is explored")
    speed = re.compile(r"\d+ schedules/s")
    if speed.sub("", one.text) != speed.sub("", two.text):
        raise SystemExit(f"the same seed is told in two ways:\n{one.text}\n{two.text}")
    explore(explorer, scenario, "shipped", "dfs", 1, 300)
    # Nobody holds what another one wants while no thread is switched: answers to a fault are no contention.
    if explore(explorer, "mapped-direct", "shipped", "dfs", 1, 1).contended:
        raise SystemExit("waiting for an answer is taken for contention")
    with tempfile.TemporaryDirectory() as folder:
        page = pathlib.Path(folder) / "schedule.html"
        explore(explorer, scenario, design, "random", 1, limit, "--html", page)
        text = page.read_text(encoding="utf-8")
        if "<svg" not in text or "src=" in text or "here it fails" not in text or "decisive" not in text:
            raise SystemExit("the page is not what it should be")
    if "usage: ./dev explore" not in subprocess.run([explorer, "--help"], capture_output=True, text=True, check=True).stdout:
        raise SystemExit("--help does not say what the explorer does")
    replay, unwritable = ["--replay", f"{scenario}/shipped:-"], ["--html", "/nonexistent/page.html"]
    Outcome(explorer, *replay)
    some = ["--scenario", scenario, "--schedules", "3"]
    for wrong in (["--scenario", "none"], ["--replay", "x"], ["--scheduler", "best"], ["--schedules", "0"],
                  ["--replay", ""], ["--html", ""], ["--scenario", ""], ["--json"],
                  *(["--list", *more] for more in (["--scenario", scenario], ["--design", "shipped"], ["--seed", "1"],
                                                   ["--schedules", "1"], ["--scheduler", "pct"], replay,
                                                   ["--html", "/dev/null"])),
                  *(["--replay", f"{scenario}/shipped:{cut}"] for cut in ("", "1", "1.", "1.4,", "1.4,2")),
                  ["--design", "nonsuch"], ["--scenario", scenario, "--design", "nonsuch"],
                  ["--scenario", "renames", "--design", design],
                  ["--replay", "mapped-punch/shipped:9999.3"], ["--replay", "mapped-punch/shipped:1.99"],
                  *([*replay, *more] for more in (["--scenario", scenario], ["--design", "shipped"], ["--seed", "1"],
                                                  ["--schedules", "1"], ["--scheduler", "pct"])),
                  [*replay, *unwritable], [*some, *unwritable],
                  ["--scenario", scenario, "--design", design, "--schedules", str(limit), *unwritable],
                  [*some, "--html", "/dev/full"]):
        done = subprocess.run([explorer, *wrong], capture_output=True, text=True, check=False)
        if done.returncode != 2 or not done.stderr:
            raise SystemExit(f"{wrong}: exit status 2 and a word were promised, not {done.returncode}, {done.stderr!r}")
    for wrong in (["--schedules", "-1"], ["--seed", "1x"], ["--scheduler", "best"], ["stray"], ["--seed"]):
        told = subprocess.run([explorer, *wrong], capture_output=True, text=True, check=False).stderr.splitlines()
        if not told or wrong[-1] not in told[-1]:
            raise SystemExit(f"{wrong}: the last line does not say what is wrong: {told[-1:]}")


def check_products(products):
    """Nothing of the seams is left in what is shipped."""
    for product in products:
        content = pathlib.Path(product).read_bytes()
        for trace in (b"seam:", b"5seams"):
            if trace in content:
                raise SystemExit(f"{product} contains {trace.decode()}")


def check_designs(designs):
    """A seam in the code is a design's, and a design's seam is in the code; the folder says which there are."""
    source = DESIGNS.parents[1] / "src"
    seams = {seam for file in source.glob("*/*.cpp")
             for seam in re.findall(r"UEXT4_SEAM\((\w+)\)", file.read_text(encoding="utf-8"))}
    used = {seam for file in DESIGNS.glob("*.cpp")
            for names in re.findall(r"\.seams = \{([^}]*)\}", file.read_text(encoding="utf-8"))
            for seam in re.findall(r'"(\w+)"', names)}
    if seams != used | {"lock_order_ends"}:
        raise SystemExit(f"seams of the code and of the designs differ: {seams ^ used}")
    listed = re.findall(r"^\| `([\w-]+)` \|", (DESIGNS / "README.md").read_text(encoding="utf-8"), re.M)
    if sorted(listed) != sorted({design for _, design, limit in designs if limit}):
        raise SystemExit(f"tests/designs/README.md lists {listed}")


def replay(explorer, string):
    """What an old schedule shows. One that the code takes other steps than shows nothing, and would never fail again."""
    done = subprocess.run([explorer, "--replay", string], capture_output=True, text=True, check=False, timeout=3600)
    if done.returncode == 2 and "the schedule cannot be followed" in done.stderr:
        raise SystemExit(f"the code takes other steps now than in {string}: put its bug back, search for it anew, and put "
                         f"the new string into {REGRESSIONS.name}\n{done.stderr}")
    return Outcome(explorer, "--replay", string)


def is_a_test(path, suite, name):
    text = (REGRESSIONS.parents[2] / path).read_text(encoding="utf-8")
    return re.search(rf"TEST(_F|_P)?\({suite}, {name}\)", text) is not None


def check_regressions(explorer):
    """Old bugs of the shipped code: schedules that once failed, searches that found them, and tests without schedules."""
    for line in REGRESSIONS.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        search = re.fullmatch(r"(\S+) (random|pct) seed=(\d+) schedules=(\d+)", line)
        test = re.fullmatch(r"test (\S+) (\w+)\.(\w+)", line)
        if test:
            if not is_a_test(*test.groups()):
                raise SystemExit(f"there is no such test: {line}")
            continue
        outcome = (explore(explorer, search[1], "shipped", search[2], search[3], search[4]) if search
                   else replay(explorer, line))
        if outcome.failures:
            raise SystemExit(f"an old bug is back: {line}\n{outcome.text}")


def tables(wrong, shipped):
    lines = ["| scenario | wrong design | random, seeds 1 and 2 | PCT, seeds 1 and 2 |", "|---|---|---|---|"]
    for (scenario, design), rows in wrong.items():
        lines.append(f"| {scenario} | {design} | {rows[0]}, {rows[1]} | {rows[2]}, {rows[3]} |")
    lines += ["", "| scenario, shipped | schedules | distinct | with contention | failures |", "|---|---|---|---|---|"]
    for scenario, rows in shipped.items():
        total = [sum(getattr(r, name) for r in rows.values()) for name in
                 ("schedules", "distinct", "contended", "failures")]
        lines.append("| " + " | ".join([scenario, *map(str, total)]) + " |")
    return "\n".join(lines)


def merged(old, new):
    """The old tables with the rows of the new ones, which are of some scenarios only."""
    parts = []
    for before, after in zip(old.split("\n\n"), new.split("\n\n"), strict=True):
        head, rows = before.split("\n")[:2], before.split("\n")[2:] + after.split("\n")[2:]
        columns = 2 if "wrong design" in head[0] else 1  # that name a row
        last = {tuple(row.split(" | ")[:columns]): row for row in rows}
        parts.append("\n".join(head + [last[name] for name in sorted(last)]))
    return "\n\n".join(parts)


def write_tables(path, text, some):
    document = pathlib.Path(path)
    old = document.read_text(encoding="utf-8")
    new, count = re.subn(r"(<!-- explorer: begin -->\n)(.*?)(\n<!-- explorer: end -->)",
                         lambda m: m[1] + (merged(m[2], text) if some else text) + m[3], old, flags=re.S)
    if count != 1:
        raise SystemExit(f"{path} has no place for the explorer's tables")
    document.write_text(new, encoding="utf-8")


def explore_all(explorer, designs, workers):
    """(the rows of wrong designs, those of the shipped one)"""
    failures = []
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        wrong = {(scenario, design): pool.submit(check_wrong, explorer, scenario, design, limit)
                 for scenario, design, limit in designs if limit}
        shipped = {scenario: pool.submit(check_shipped, explorer, scenario, failures)
                   for scenario, _, limit in designs if not limit}
    rows = tuple({key: done.result() for key, done in part.items()} for part in (wrong, shipped))
    print(tables(*rows))
    if failures:
        raise SystemExit("\n".join(failures))
    return rows


def write(explorer, designs, path, some, workers):
    if some - {scenario for scenario, _, _ in designs}:
        raise SystemExit(f"there is no such scenario: {some}")
    rows = explore_all(explorer, [d for d in designs if not some or d[0] in some], workers)
    write_tables(path, tables(*rows), some)


def processors(part, rest):
    """Where explorers run side by side: the whole machine for who asks for more; else a test is one of two at a time."""
    own = sorted(map(str, os.sched_getaffinity(0)))
    if LONG or part == "--write":
        return own
    if part == "shipped":
        return [own[(int(rest[0].split("/")[0]) - 1) % len(own)]]
    return [",".join(own)]


def main():
    explorer, part, *rest = sys.argv[1:]
    designs = designs_of(explorer)
    places = processors(part, rest)
    for place in places:
        PROCESSORS.put(place)
    # The threads of a schedule hand over so often that whoever runs beside them would starve.
    os.nice(5)
    if part == "--write":
        write(explorer, designs, rest[0], set(rest[1:]), len(places))
    elif part == "shipped":
        number, parts = map(int, rest[0].split("/"))
        explore_all(explorer, [d for d in designs if not d[2]][number - 1::parts], len(places))
    elif part == "designs":
        check_products(rest)
        check_designs(designs)
        check_regressions(explorer)
        check_tool(explorer, next(d for d in designs if d[2]))
        explore_all(explorer, [d for d in designs if d[2]], len(places))
    else:
        raise SystemExit(__doc__)


main()
