#!/usr/bin/env python3
"""Who opens a directory makes the kernel drop the names it has, but only when that thread runs again, behind the answer.

Until then the kernel has them, and shows them to others: they have to be right, and what was due to others is.

Usage: slow_openers_test.py PROGRAM
"""

import os
import signal
import time

import mounting
from directories_test import Directory
from mounting import check

TURNS = 150
A_TICK = 0.012  # the coarse clock of the kernel's times


def keep_busy(cpu):
    """A process that has the CPU nearly all the time."""
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    os.sched_setaffinity(0, {cpu})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    while os.getppid() == parent:
        until = time.monotonic() + 0.03
        while time.monotonic() < until:
            pass
        time.sleep(0.002)
    os._exit(0)


class SlowOpener:
    """Opens a directory on a CPU where it runs only when nobody else wants to."""

    def __init__(self, path, cpu):
        ready, begun = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            os.sched_setaffinity(0, {cpu})
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            os.write(begun, b"x")
            status = 1
            try:
                os.open(path, os.O_RDONLY | os.O_DIRECTORY)
                status = 0
            except FileNotFoundError:
                status = 0  # too slow: it is elsewhere already
            finally:
                os._exit(status)
        os.read(ready, 1)
        os.close(ready)
        os.close(begun)

    def end(self):
        check(os.waitpid(self._child, 0)[1] == 0, "a directory could not be opened")


def make_due(path, turn):
    """The names are the kernel's, and the next reading is to move the access time."""
    for _ in range(2):
        os.listdir(path)
        os.listdir(path)
        time.sleep(A_TICK)
    os.chmod(path, 0o700 | (turn & 7))
    time.sleep(A_TICK)


def parent_shown(path):
    """The inode that ".." is in the listing, which os.listdir leaves out."""
    stream = Directory(path)
    found = None
    while entry := stream.read():
        found = entry[0] if entry[1] == ".." else found
    stream.close()
    return found


def moved_meanwhile(top, busy):
    for folder in ("left", "right"):
        (top / folder).mkdir()
    (top / "left/m").mkdir()
    for number in range(5):
        (top / f"left/m/f{number}").touch()
    here, there = "left", "right"
    for turn in range(TURNS):
        path = top / here / "m"
        make_due(path, turn)
        opener = SlowOpener(path, busy)
        time.sleep(0.0005 * (turn % 6))
        path.rename(top / there / "m")
        shown = parent_shown(top / there / "m")
        opener.end()
        check(shown == (top / there).stat().st_ino, f"turn {turn}: \"..\" is {shown}, the directory that it was in")
        here, there = there, here


def listed_meanwhile(top, busy):
    path = top / "listed"
    path.mkdir()
    for number in range(5):
        (path / f"f{number}").touch()
    for turn in range(TURNS):
        make_due(path, turn)
        before = path.stat().st_atime_ns
        opener = SlowOpener(path, busy)
        time.sleep(0.0005 * (turn % 6))
        os.listdir(path)
        opener.end()
        check(path.stat().st_atime_ns > before, f"turn {turn}: a listing that was to move the access time has not")


def test(scratch):
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        mounting.skip("there is one CPU")
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    except OSError as refused:
        mounting.skip(f"no process may be kept from running: {refused}")
    image = scratch.image("image", "64M", "-t", "ext4")
    top = scratch.mount(image)
    os.sched_setaffinity(0, set(allowed[1:]))
    hog = keep_busy(allowed[0])
    try:
        moved_meanwhile(top, allowed[0])
        listed_meanwhile(top, allowed[0])
    finally:
        os.kill(hog, signal.SIGKILL)
        os.waitpid(hog, 0)
    scratch.umount(top)
    mounting.clean(image)


if __name__ == "__main__":
    mounting.main(test)
