#!/usr/bin/env python3
"""A direct request comes in pieces, of which the kernel has so many under way and no more: those that wait for it to send
something of its cache leave a place for that.

Usage: large_direct_test.py PROGRAM
"""

import mmap
import os

import mounting
from mounting import check

MiB = 1 << 20


def buffer(length, fill):
    memory = mmap.mmap(-1, length)
    for at in range(0, length, MiB):
        memory[at:at + MiB] = fill * MiB
    return memory


def write_that_takes_the_half(top):
    """What others have in the kernel's cache is called in, beside many more pieces."""
    cached = os.open(top / "cached", os.O_RDWR | os.O_CREAT)
    os.write(cached, b"c" * MiB)
    direct = os.open(top / "written", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    length = 160 * MiB
    check(os.pwrite(direct, buffer(length, b"d"), 0) == length, "a short write")
    os.fsync(cached)
    check(os.pread(cached, MiB, 0) == b"c" * MiB, "what was in the cache")
    memory = buffer(MiB, b"?")
    check(os.preadv(direct, [memory], length - MiB) == MiB and memory[:] == b"d" * MiB, "what was written")


def read_behind_the_end(top):
    """The file goes on in the kernel's cache, behind a hole."""
    cached = os.open(top / "sparse", os.O_RDWR | os.O_CREAT)
    os.pwrite(cached, b"x", 1 << 33)
    direct = os.open(top / "sparse", os.O_RDONLY | os.O_DIRECT)
    memory = buffer(128 * MiB, b"?")
    done = 0
    while done < len(memory):
        got = os.preadv(direct, [memoryview(memory)[done:]], done)
        check(got > 0, f"an end at {done} of a file that has none there")
        done += got
    for at in range(0, done, MiB):
        check(memory[at:at + MiB] == bytes(MiB), f"no hole at {at}")


def test(scratch):
    image = scratch.image("image", "300M", "-t", "ext4", "-m", "0")
    top = scratch.mount(image)
    scratch.within(60, top, "a direct write that takes the half of the space", lambda: write_that_takes_the_half(top))
    scratch.within(60, top, "a direct read behind the end that the server knows", lambda: read_behind_the_end(top))
    scratch.umount(top)
    mounting.clean(image)


mounting.main(test)
