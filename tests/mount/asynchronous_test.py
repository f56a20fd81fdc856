#!/usr/bin/env python3
"""Asynchronous direct requests, and others, meet what is in the kernel's cache of the file: its bytes, and how far it goes.

Usage: asynchronous_test.py PROGRAM
"""

import ctypes
import mmap
import os
import random
import signal
import struct

import mounting
from mounting import check

LENGTH, BLOCK = 1 << 18, 512
SETUP, GETEVENTS, SUBMIT = 206, 208, 209  # x86-64
READ, WRITE = 0, 1


class Requests:
    """One at a time, by io_submit(2): unlike preadv(2), the kernel adds nothing to what the file system answers."""

    def __init__(self):
        self.system = ctypes.CDLL(None, use_errno=True)
        self.context = ctypes.c_ulong(0)
        if self.system.syscall(SETUP, 1, ctypes.byref(self.context)) != 0:
            mounting.skip(f"io_setup: {os.strerror(ctypes.get_errno())}")
        self.buffer = mmap.mmap(-1, LENGTH)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.buffer))

    def do(self, kind, fd, length, offset):
        request = ctypes.create_string_buffer(struct.pack("<QIIHhIQQqQII", 0, 0, 0, kind, 0, fd, self.address, length,
                                                          offset, 0, 0, 0), 64)
        pointer = ctypes.c_void_p(ctypes.addressof(request))
        check(self.system.syscall(SUBMIT, self.context, 1, ctypes.byref(pointer)) == 1, "io_submit")
        event = ctypes.create_string_buffer(32)
        check(self.system.syscall(GETEVENTS, self.context, 1, 1, event, None) == 1, "io_getevents")
        return struct.unpack("<QQqq", event.raw)[2]

    def read(self, fd, length, offset):
        got = self.do(READ, fd, length, offset)
        check(got >= 0, f"a read of {length} bytes at {offset}: {got}")
        return self.buffer[:got]

    def write(self, fd, content, offset):
        self.buffer[:len(content)] = content
        return self.do(WRITE, fd, len(content), offset)


def agree_with_the_cache(top, requests, seed):
    """Truncations and cached writes, of which the file system knows what has arrived; then requests that go past it."""
    chance = random.Random(seed)
    name = top / f"file {seed}"
    fd = os.open(name, os.O_RDWR | os.O_CREAT)
    direct = os.open(name, os.O_RDWR | os.O_DIRECT)
    model = bytearray()

    def put(offset, content):
        nonlocal model
        model.extend(bytes(max(offset - len(model), 0)))
        model[offset:offset + len(content)] = content

    for turn in range(400):
        offset = chance.randrange(LENGTH // 2)
        content = bytes([turn % 255 + 1]) * chance.randrange(1, 60_000)
        kind = chance.randrange(6)
        if kind == 0:
            os.truncate(name, offset)
            model = model[:offset] + bytes(max(offset - len(model), 0))
        elif kind <= 2:
            os.pwrite(fd, content, offset)
            put(offset, content)
        elif kind == 3:
            offset -= offset % BLOCK
            content = content[:max(len(content) // BLOCK * BLOCK, BLOCK)].ljust(BLOCK, content[:1])
            done = requests.write(direct, content, offset)
            check(done == len(content), f"turn {turn}: a write of {len(content)} bytes at {offset}: {done}")
            put(offset, content)
        else:
            offset -= offset % BLOCK
            length = chance.randrange(1, 128) * BLOCK
            got, wanted = requests.read(direct, length, offset), bytes(model[offset:offset + length])
            check(got == wanted, f"seed {seed}, turn {turn}: a read of {length} bytes at {offset} of {len(model)}: "
                                 f"{len(got)} bytes for {len(wanted)}")
    os.close(fd)
    os.close(direct)
    check(name.read_bytes() == model, f"seed {seed}: at the end")


def last_beside_a_reader(top, requests, number):
    """What was there before a direct write does not stay in the kernel's cache, nor comes back from there."""
    name = top / f"read {number}"
    length, pieces = 65_536, 4
    name.write_bytes(bytes(length * pieces))
    direct = os.open(name, os.O_RDWR | os.O_DIRECT)
    cached = os.open(name, os.O_RDWR)
    reader = os.fork()
    if reader == 0:
        while True:
            os.pread(cached, length * pieces, 0)
    try:
        for turn in range(20_000 if mounting.is_long() else 4000):
            content, offset = bytes([turn % 255 + 1]) * length, turn % pieces * length
            check(requests.write(direct, content, offset) == length, f"turn {turn}: a short write")
            got = os.pread(cached, length, offset)
            check(got == content, f"turn {turn}: {got[0]} was read at {offset} after {content[0]} had been written")
    finally:
        os.kill(reader, signal.SIGKILL)
        os.waitpid(reader, 0)
        os.close(cached)
        os.close(direct)


def map_of_a_direct_descriptor(scratch, top):
    """A page is locked while it is read: also one that is read by a descriptor for direct requests."""
    name = top / "mapped"
    writer = os.open(name, os.O_RDWR | os.O_CREAT)
    os.write(writer, b"hello")
    os.fsync(writer)
    os.posix_fadvise(writer, 0, 0, os.POSIX_FADV_DONTNEED)

    def read():
        with mmap.mmap(os.open(name, os.O_RDONLY | os.O_DIRECT), 5, prot=mmap.PROT_READ) as memory:
            check(memory[:] == b"hello", "a map shows something else")

    scratch.within(20, top, "a map of a descriptor for direct requests", read)
    os.close(writer)


def end_into_its_own_map(top):
    """The end of a file, into a map of the page that it is in: what the file system asks the kernel to send is not that."""
    name = top / "end"
    direct = os.open(name, os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    content = bytearray(number % 251 for number in range(3860))
    name.write_bytes(content)
    with mmap.mmap(direct, 3860) as memory:
        with memoryview(memory) as bytes_of_it:
            got = os.preadv(direct, [bytes_of_it[512:3584]], 3584)
        check(got == 276, f"a read of the last 276 bytes: {got}")
        content[512:788] = content[3584:]
        check(memory[:] == content, "what was read at the end is not in the map that it was read into")
    os.fsync(direct)
    check(name.read_bytes() == content, "what was read into a map is not in the file")
    os.close(direct)


def test(scratch):
    if os.uname().machine != "x86_64":
        mounting.skip("the numbers of the system calls are those of x86-64")
    requests = Requests()
    for number, options in enumerate((("-t", "ext4"), ("-t", "ext4", "-b", "1024"), ("-t", "ext4", "-O", "inline_data"))):
        image = scratch.image(f"image {number}", "64M", *options)
        top = scratch.mount(image)
        for seed in range(20 if mounting.is_long() else 4):
            agree_with_the_cache(top, requests, seed)
        map_of_a_direct_descriptor(scratch, top)
        end_into_its_own_map(top)
        last_beside_a_reader(top, requests, number)
        scratch.umount(top)
        mounting.clean(image)


if __name__ == "__main__":
    mounting.main(test)
