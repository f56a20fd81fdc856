"""The repository's place, running other programs, and giving up with a sentence."""

import contextlib
import os
import pathlib
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"


class GiveUp(Exception):
    """Ends ./dev with a sentence on standard error. Status 1: something failed; 2: something is missing."""

    def __init__(self, sentence, status=2):
        super().__init__(sentence)
        self.status = status


def say(text):
    print(text, flush=True)


@contextlib.contextmanager
def output_on_stderr():
    """For a verb whose standard output is its result: what building says goes elsewhere."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def jobs():
    """How many compilers or tests to run at once."""
    return max(1, len(os.sched_getaffinity(0)))


def run(command, what=None, **options):
    """Runs a command to its end in the root of the repository; gives up with status 1 if it fails."""
    command = [str(part) for part in command]
    try:
        result = subprocess.run(command, cwd=options.pop("cwd", ROOT), check=False, **options)
    except FileNotFoundError:
        raise GiveUp(f"{command[0]} is not installed") from None
    if result.returncode != 0:
        for text in (result.stdout, result.stderr):
            if text:
                sys.stderr.write(text if isinstance(text, str) else text.decode(errors="replace"))
        raise GiveUp(f"{what or shlex.join(command)} failed with status {result.returncode}", 1)
    return result
