#!/usr/bin/env python3
"""A mount that nobody uses sleeps, and what is written to it later reaches the image by itself all the same.

Usage: idle_test.py PROGRAM
"""

import os
import pathlib
import time

import mounting
from mounting import check

PATIENCE = 60  # seconds until everything is written and committed, with much else going on
WINDOW = 3  # seconds without a wake-up; the timers there are go off at least once in that


def switches(pid):
    """How often each thread of the server went to sleep so far, by number and name."""
    found = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        lines = dict(line.split(":", 1) for line in (task / "status").read_text(encoding="utf-8").splitlines())
        found[task.name, lines["Name"].strip()] = int(lines["voluntary_ctxt_switches"])
    return found


def falls_asleep(pid):
    limit = time.monotonic() + PATIENCE
    before = switches(pid)
    while True:
        time.sleep(WINDOW)
        after = switches(pid)
        awake = sorted(name for (task, name), count in after.items() if before.get((task, name)) != count)
        if not awake:
            return
        check(time.monotonic() < limit, f"an idle server is still awake: {awake}")
        before = after


def reaches(image, text):
    limit = time.monotonic() + PATIENCE
    while text not in image.read_bytes():
        check(time.monotonic() < limit, f"{text} is not written to the image by itself")
        time.sleep(0.2)


def test(scratch):
    image = scratch.image("image", "16M", "-t", "ext4", "-b", "4096")
    directory = scratch.mount(image)
    pid = scratch.servers[directory]
    falls_asleep(pid)
    for text in (b"the first that is written", b"what is written after a rest"):
        (directory / text.decode()).write_bytes(text * 300)
        reaches(image, text * 10)
        falls_asleep(pid)
        print(f"{text.decode()}: reached the image, then the server slept", flush=True)
    # Names alone wake nobody for long.
    os.mkdir(directory / "directory")
    falls_asleep(pid)
    scratch.umount(directory)
    mounting.clean(image)


if __name__ == "__main__":
    mounting.main(test)
