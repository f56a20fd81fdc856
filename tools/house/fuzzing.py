"""./dev fuzz: libFuzzer's programs, several at once, and the table of what they did."""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import os
import pathlib
import re
import subprocess
import tempfile
import threading

from . import build, host, packages
from .host import BUILD, ROOT, GiveUp, output_on_stderr, say

CORPUS = ROOT / "tests" / "fuzz" / "corpus"
PROGRAMS = BUILD / "fuzz" / "bin"
FOUND = BUILD / "fuzz" / "found"
SECONDS_AN_INPUT = 20
MEGABYTES = 1024
LONGEST_INPUT = 256

BEGIN, END = "<!-- fuzz: begin -->", "<!-- fuzz: end -->"
OPTIONS = {
    "ASAN_OPTIONS": "abort_on_error=1:detect_stack_use_after_return=1:detect_leaks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


@dataclasses.dataclass
class Outcome:
    target: str
    seconds: int = 0
    inputs: int = 0       # run
    edges: int = 0        # reached
    all_edges: int = 0    # in the program
    megabytes: int = 0
    complaint: str = ""   # what ended it before its time


def last_number(pattern, text):
    found = re.findall(pattern, text)
    return int(found[-1]) if found else 0


def targets():
    """Names of all fuzz targets, as the configured preset knows them."""
    with build.locked("fuzz"):
        build.configure("fuzz")
    listing = subprocess.run(["ninja", "-C", str(BUILD / "fuzz"), "-t", "targets", "all"], capture_output=True,
                             text=True, check=False).stdout
    names = sorted({line.split(":")[0].removeprefix("bin/fuzz_") for line in listing.splitlines()
                    if line.startswith("bin/fuzz_")})
    if not names:
        raise GiveUp("fuzz targets are not part of this tree: no target makes bin/fuzz_*")
    return names


def build_targets(names):
    build.build("fuzz", *(f"bin/fuzz_{name}" for name in names))


def saw_trouble(text):
    """The line in which libFuzzer or a sanitizer says what was wrong."""
    for line in text.splitlines():
        if "ERROR:" in line or "runtime error:" in line:
            return line.strip()
    return ""


def run_target(name, seconds, kept):
    """Fuzzes one target. New inputs go to `kept`; what breaks it, to build/fuzz/found."""
    FOUND.mkdir(parents=True, exist_ok=True)
    command = [str(PROGRAMS / f"fuzz_{name}"), f"-max_total_time={seconds}", f"-timeout={SECONDS_AN_INPUT}",
               f"-rss_limit_mb={MEGABYTES}", f"-max_len={LONGEST_INPUT}", "-print_final_stats=1",
               f"-artifact_prefix={FOUND}/{name}-", str(kept), str(CORPUS / name)]
    try:
        # libFuzzer ends by itself; an end from outside means that even its own alarm did not.
        result = subprocess.run(command, env=OPTIONS | os.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                text=True, errors="replace", check=False,
                                timeout=seconds + 4 * SECONDS_AN_INPUT + 60)
        text, status = result.stdout, result.returncode
    except subprocess.TimeoutExpired as late:
        text, status = (late.stdout or b"").decode(errors="replace"), None
    outcome = Outcome(name, last_number(r"Done \d+ runs in (\d+) second", text),
                      last_number(r"stat::number_of_executed_units: *(\d+)", text), last_number(r"\bcov: (\d+)", text),
                      last_number(r"Loaded \d+ modules +\((\d+) inline", text),
                      last_number(r"stat::peak_rss_mb: *(\d+)", text))
    if status is None:
        outcome.complaint = "did not end when its time was over"
    elif status != 0:
        outcome.complaint = saw_trouble(text) or f"ended with status {status}"
        (FOUND / f"{name}.log").write_text(text, encoding="utf-8")
    elif outcome.inputs == 0:
        outcome.complaint = "ran no input"
    return outcome


@contextlib.contextmanager
def place_for_inputs(name, keep):
    """Where a target's new inputs go: build/fuzz/corpus/NAME, or a folder that is removed afterwards."""
    if keep:
        path = BUILD / "fuzz" / "corpus" / name
        path.mkdir(parents=True, exist_ok=True)
        yield path
    else:
        with tempfile.TemporaryDirectory(prefix="uext4-fuzz-") as path:
            yield path


def run_targets(names, seconds, jobs, keep):
    """Outcomes of all targets, `jobs` at a time. What was learnt stays in build/fuzz/corpus if `keep`."""
    lock = threading.Lock()

    def one(name):
        with place_for_inputs(name, keep) as kept:
            outcome = run_target(name, seconds, kept)
        with lock:
            say(f"  {name}: {outcome.inputs} inputs, {outcome.edges} of {outcome.all_edges} edges, "
                f"{outcome.complaint or 'nothing found'}")
        return outcome

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(one, names))


def table(outcomes):
    lines = ["| target | seconds | inputs run | edges reached | of | peak memory, MiB | found |", "|---|---|---|---|---|---|---|"]
    for o in outcomes:
        lines.append(f"| {o.target} | {o.seconds} | {o.inputs} | {o.edges} | {o.all_edges} | {o.megabytes} | "
                     f"{o.complaint or '0'} |")
    total = sum(o.inputs for o in outcomes)
    lines += ["", f"{total} inputs in {sum(o.seconds for o in outcomes) / 3600:.2f} hours of fuzzing, under "
              f"AddressSanitizer, UBSan and leak detection; at most {SECONDS_AN_INPUT} s and {MEGABYTES} MiB an input."]
    return "\n".join(lines)


def write_report(path, outcomes):
    text = path.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise GiveUp(f"{path} has no place for the table: {BEGIN} and {END}")
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    path.write_text(f"{before}{BEGIN}\n{table(outcomes)}\n{END}{after}", encoding="utf-8")


def fuzz(arguments):
    parser = argparse.ArgumentParser(prog="./dev fuzz", description="Runs fuzz targets; without any, lists them. Exit "
                                     "status 1: something was found.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="names, or `all`")
    parser.add_argument("--seconds", type=int, default=60, metavar="N", help="for each target (default 60)")
    parser.add_argument("--jobs", type=int, default=host.jobs(), metavar="N", help="targets at a time")
    parser.add_argument("--report", type=pathlib.Path, metavar="FILE", help="write the table into it, e.g. docs/PROOF.md")
    parser.add_argument("--built", action="store_true", help="use the programs as they are, and keep no inputs (the suite)")
    options = parser.parse_args(arguments)
    if options.built:
        known = sorted(path.name.removeprefix("fuzz_") for path in PROGRAMS.glob("fuzz_*"))
    else:
        with output_on_stderr():
            packages.ensure("products", "clang")
            known = targets()
    if not options.targets:
        say("fuzz targets: " + " ".join(known))
        return 0
    names = known if "all" in options.targets else options.targets
    if not names:
        raise GiveUp(f"there is no fuzz program in {PROGRAMS}")
    for name in names:
        if name not in known:
            raise GiveUp(f"there is no fuzz target {name}; there are: {' '.join(known)}")
    if options.seconds < 1 or options.jobs < 1:
        raise GiveUp("--seconds and --jobs want a number above 0")
    if not options.built:
        with output_on_stderr():
            build_targets(names)
    outcomes = run_targets(names, options.seconds, options.jobs, keep=not options.built)
    if options.report:
        write_report(options.report, outcomes)
    bad = [outcome for outcome in outcomes if outcome.complaint]
    for outcome in bad:
        say(f"{outcome.target}: {outcome.complaint} (inputs and log in {FOUND})")
    say(f"{len(outcomes)} targets, {sum(o.inputs for o in outcomes)} inputs, {len(bad)} failures")
    return 1 if bad else 0
