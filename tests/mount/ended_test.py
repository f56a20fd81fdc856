#!/usr/bin/env python3
"""A test that is stopped from outside leaves nothing mounted: neither by the program nor by the kernel, and no folder.

Usage: ended_test.py PROGRAM
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys

import mounting
from mounting import check

# (A signal that comes just before a pause() would not end it.)
WAITING = """
import time
import mounting

def wait(scratch):
    scratch.mount(scratch.image("ours.img", "16M"), "ours")
    if {kernel}:
        scratch.kernel_mount(scratch.image("kernel.img", "16M"), "kernel")
    print(scratch.folder, flush=True)
    while True:
        time.sleep(0.05)

mounting.main(wait)
"""


def stopped(program, kernel):
    """Stops a test that waits with its mounts; skips where that one does, with its reason."""
    process = subprocess.Popen([sys.executable, "-B", "-c", WAITING.format(kernel=kernel), program], text=True,
                               stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parent)})
    with process:
        folder = process.stdout.readline().strip()
        if not folder.startswith("/"):
            if process.wait(timeout=60) == mounting.SKIPPED:
                mounting.skip(folder.removeprefix("skipped: "))
            raise mounting.Failure(f"the test that was to wait did not: {folder}")
        check(mounting.mounts_below(pathlib.Path(folder)), "nothing was mounted")
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            status = "none"
    left = mounting.mounts_below(pathlib.Path(folder))
    remains = os.path.exists(folder)
    for directory in left:
        subprocess.run(["umount", "-l", directory], check=False)
    shutil.rmtree(folder, ignore_errors=True)
    check(status == 128 + signal.SIGTERM, f"status {status} after SIGTERM")
    check(not left, f"still mounted: {left}")
    check(not remains, f"{folder} is left")


def ended(scratch):
    stopped(scratch.program, kernel=False)
    stopped(scratch.program, kernel=True)


if __name__ == "__main__":
    mounting.main(ended)
