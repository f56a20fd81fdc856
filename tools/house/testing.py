"""./dev test"""

import argparse
import datetime
import os
import shutil
import signal
import subprocess
import time

from . import build, fuzzing, host, packages, results
from .host import BUILD, GiveUp, say

MINUTES = 80  # for all, the build as well: what is stopped from outside has no last line
MINUTES_LONG = 8 * 60

SANITIZER_OPTIONS = {
    "ASAN_OPTIONS": "abort_on_error=1:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    # The tests of errors=panic end a child that starts threads.
    "TSAN_OPTIONS": "second_deadlock_stack=1:die_after_fork=0",
}


def parse(arguments):
    parser = argparse.ArgumentParser(prog="./dev test", description="Builds everything and runs the tests. The last "
                                     "line is `N passed, N failed, N skipped`.")
    parser.add_argument("--long", action="store_true", help="run those labelled `long` too, and the others with UEXT4_LONG=1")
    parser.add_argument("--sanitizers", action="store_true",
                        help="run the unit tests with AddressSanitizer and UBSan, then with ThreadSanitizer")
    parser.add_argument("-k", metavar="REGEX", help="only the tests whose name matches, e.g. unit.journal")
    return parser.parse_args(arguments)


def run_ctest(preset, selection, minutes):
    """Runs the selected tests of a built preset and returns their tally. After `minutes` what is left has failed."""
    folder = BUILD / preset
    expected = results.listed(preset, selection)
    junit = folder / "results" / "ctest.xml"
    shutil.rmtree(junit.parent, ignore_errors=True)
    junit.parent.mkdir()
    say(f"Testing {preset}: {len(expected)} programs and scripts")
    # ctest stops by itself and still writes its report; the harder end below is for the case that it does not.
    stop = (datetime.datetime.now() + datetime.timedelta(minutes=minutes)).strftime("%H:%M:%S")
    # Many tests wait for a while (for timers, kills, other processes): one more than there are processors.
    command = ["ctest", "--output-on-failure", "--output-junit", str(junit), f"-j{host.jobs() + 1}", "--stop-time", stop,
               *selection]
    process = subprocess.Popen(command, cwd=folder, env=SANITIZER_OPTIONS | os.environ, start_new_session=True)
    try:
        process.wait(timeout=minutes * 60 + 60)
    except subprocess.TimeoutExpired:
        say(f"ctest did not end after {minutes} minutes and is killed")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        raise GiveUp("interrupted", 1) from None
    return results.count(preset, junit, expected)


def report(tally):
    """Prints the reasons and, last, the numbers. Returns the exit status."""
    for title, lines in (("Skipped", tally.skipped), ("Expected to fail, passed", tally.faults), ("Failed", tally.failed)):
        if lines:
            say(f"\n{title}:")
            for line in lines:
                say(f"  {line}")
    nothing = not tally.passed and not tally.failed
    if nothing:
        say("\nNo test ran.")
    say("")
    say(tally.last_line())
    return 1 if tally.failed or nothing else 0


def test(arguments):
    options = parse(arguments)
    started = time.monotonic()
    tally = results.Tally()
    try:
        packages.ensure("products", "tests", "clang")
        name = ["-R", options.k] if options.k else []
        minutes = MINUTES_LONG if options.long else MINUTES
        if options.long:
            os.environ["UEXT4_LONG"] = "1"
        if options.sanitizers:
            for preset in ("asan", "tsan"):
                build.build(preset)
                tally.add(run_ctest(preset, ["-L", "^unit$", "-LE", "^long$", *name], minutes), f"{preset}: ")
        else:
            build.build("debug")
            # Tests that need the product itself say so; a tree without it still has layers worth testing.
            build.build("release")
            if not options.k or "fuzz" in options.k:
                fuzzing.build_targets(fuzzing.targets())
            if not options.long:
                minutes = max(1, minutes - int(time.monotonic() - started) // 60)
            tally = run_ctest("debug", name if options.long else ["-LE", "^long$", *name], minutes)
    except GiveUp as reason:
        say(f"./dev test: {reason}")
        tally.failed.append("the tests could not be run to their end")
        report(tally)
        return reason.status
    return report(tally)
