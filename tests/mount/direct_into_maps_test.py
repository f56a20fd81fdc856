#!/usr/bin/env python3
"""Direct reads into maps of the mount's own files, beside whoever makes the kernel write those back: nobody hangs.

The kernel locks the pages of the buffer when it has the answer. Others hold such a lock while they wait for a write. (What
it has read into a page that somebody makes it drop meanwhile is lost; docs/MOUNT.md.)

Usage: direct_into_maps_test.py PROGRAM
"""

import fcntl
import mmap
import os
import signal
import struct
import subprocess
import sys
import time

import mounting
from mounting import check

SIZE, PIECE = 1 << 20, 65_536
ROUNDS = 400
PATIENCE = 120
GETFLAGS, SETFLAGS, NOATIME = 0x80086601, 0x40086602, 0x80


def reader(top, rounds, half):
    """Stores to a map of one file and reads another one into it, in a half of its own."""
    fd = os.open(top / "mapped", os.O_RDWR)
    direct = os.open(top / "read", os.O_RDONLY | os.O_DIRECT)
    memory = mmap.mmap(fd, SIZE)
    for turn in range(rounds):
        first = half * SIZE // 2
        for page in range(first, first + SIZE // 2, 4096):
            memory[page] = turn % 251
        at = first + turn % (SIZE // 2 // PIECE) * PIECE
        with memoryview(memory) as view, view[at:at + PIECE] as into:
            if os.preadv(direct, [into], 0) != PIECE:
                sys.exit("a short read")


def seeker(top, rounds, _):
    fd = os.open(top / "mapped", os.O_RDWR)
    for turn in range(rounds * 4):
        os.lseek(fd, 0, os.SEEK_DATA if turn % 2 else os.SEEK_HOLE)


def writer(top, rounds, _):
    """Direct writes from the map, syncs, and flags that make the kernel drop what it has."""
    fd = os.open(top / "mapped", os.O_RDWR)
    out = os.open(top / "written", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    memory = mmap.mmap(fd, SIZE)
    for turn in range(rounds):
        with memoryview(memory) as view, view[:PIECE] as piece:
            os.pwritev(out, [piece], 0)
        os.fsync(fd)
        flags = struct.unpack("i", fcntl.ioctl(fd, GETFLAGS, bytes(4)))[0]
        fcntl.ioctl(fd, SETFLAGS, struct.pack("i", flags ^ NOATIME))


def test(scratch):
    image = scratch.image("image", "64M")
    top = scratch.mount(image)
    for name, byte in (("mapped", b"m"), ("read", b"r")):
        (top / name).write_bytes(byte * SIZE)
    rounds = ROUNDS * (10 if mounting.is_long() else 1)
    children = []
    for work, half in ((reader, 0), (reader, 1), (seeker, 0), (writer, 0)):
        pid = os.fork()
        if pid == 0:
            try:
                work(top, rounds, half)
            except BaseException as error:  # noqa: BLE001  (a child says why, and ends)
                print(f"{work.__name__}: {error!r}", file=sys.stderr)
                os._exit(1)
            os._exit(0)
        children.append(pid)
    limit = time.monotonic() + PATIENCE * (10 if mounting.is_long() else 1)
    states = {}
    while len(states) < len(children) and time.monotonic() < limit:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            states[pid] = status
        else:
            time.sleep(0.05)
    if len(states) < len(children):
        # Nothing but this ends requests that wait for each other in the kernel.
        subprocess.run(["umount", "-f", top], check=False)
        for pid in children:
            if pid not in states:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        raise mounting.Failure(f"{len(children) - len(states)} of {len(children)} processes hang")
    check(not any(states.values()), f"ended with {sorted(states.values())}")
    scratch.umount(top)
    mounting.clean(image)


if __name__ == "__main__":
    mounting.main(test)
