#!/usr/bin/env python3
"""`uext4 fiemap` says of files that the kernel wrote what the kernel's FIEMAP says of them.

Usage: fiemap_test.py PROGRAM
"""

import fcntl
import json
import os
import pathlib
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "mount"))
import mounting  # noqa: E402  (lies in the folder beside)
from mounting import check  # noqa: E402

IOC_FIEMAP = 0xC020660B  # _IOWR('f', 11, struct fiemap), <linux/fs.h>
SYNC = 1
HEAD, EXTENT = "=QQIIII", "=QQQQQIIII"
LAST, UNWRITTEN, INLINE = 0x1, 0x800, 0x200
PLACES = {0: "mapped", UNWRITTEN: "unwritten", INLINE: "inline"}

FORMATS = {
    "extents, 4k": ("-t", "ext4", "-b", "4096"),
    "extents, 1k": ("-t", "ext4", "-b", "1024"),
    "indirect": ("-t", "ext3", "-b", "1024"),
    "inline data": ("-t", "ext4", "-b", "4096", "-I", "256", "-O", "inline_data"),
    "bigalloc": ("-t", "ext4", "-b", "1024", "-O", "bigalloc"),
}


def told_by_the_kernel(path):
    """[(offset, length, physical, place)] in bytes, neighbours joined."""
    room = 4096
    fd = os.open(path, os.O_RDONLY)
    try:
        answer = bytearray(struct.pack(HEAD, 0, 2**64 - 1, SYNC, 0, room, 0) + bytes(room * struct.calcsize(EXTENT)))
        fcntl.ioctl(fd, IOC_FIEMAP, answer)
    finally:
        os.close(fd)
    count = struct.unpack_from(HEAD, answer)[3]
    check(count < room, f"{path} has too many extents for this test")
    found = []
    for number in range(count):
        offset, physical, length, _, _, flags, *_ = struct.unpack_from(
            EXTENT, answer, struct.calcsize(HEAD) + number * struct.calcsize(EXTENT))
        found.append((offset, length, physical, PLACES[flags & (UNWRITTEN | INLINE)]))
    return joined(found)


def joined(extents):
    """How a tree cuts what lies together is nobody's business."""
    out = []
    for offset, length, physical, place in extents:
        if out and place == out[-1][3] != "inline":
            before = out[-1]
            if before[0] + before[1] == offset and before[2] + before[1] == physical:
                out[-1] = (before[0], before[1] + length, before[2], place)
                continue
        out.append((offset, length, physical, place))
    return out


def told_by_the_program(scratch, image, name):
    listing = mounting.run(scratch.program, "fiemap", "--json", f"{image}:/{name}").stdout
    return joined([(e["offset"], e["length"], e.get("physical"), e["place"]) for e in json.loads(listing)])


def write(path, *places):
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        for offset, length in places:
            os.pwrite(fd, b"x" * length, offset)
    finally:
        os.close(fd)


def fill(directory):
    """Files of every kind of mapping; returns their names."""
    write(directory / "plain", (0, 3_000_000))
    write(directory / "small", (0, 50))
    write(directory / "empty")
    write(directory / "islands", *((number * 65536, 5000) for number in range(300)))
    write(directory / "far away", (2**34 - 20000, 20000))
    write(directory / "behind a hole", (1_000_001, 7))
    fd = os.open(directory / "larger than its data", os.O_RDWR | os.O_CREAT, 0o644)
    os.pwrite(fd, b"y" * 4096, 0)
    os.ftruncate(fd, 10_000_000)
    os.close(fd)
    fd = os.open(directory / "fallocated", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        os.posix_fallocate(fd, 0, 800_000)
        os.pwrite(fd, b"z" * 70_000, 131_072)
    finally:
        os.close(fd)
    return sorted(os.listdir(directory))


def test(scratch):
    for title, options in FORMATS.items():
        image = scratch.image("image", "64M", *options)
        directory = scratch.kernel_mount(image)
        names = [name for name in fill(directory) if name != "lost+found"]
        scratch.kernel_umount(directory)
        directory = scratch.kernel_mount(image, options="ro")
        places = set()
        for name in names:
            expected, got = told_by_the_kernel(directory / name), told_by_the_program(scratch, image, name)
            # Where in the table of inodes such bytes lie is not told.
            expected = [(o, n, None if place == "inline" else at, place) for o, n, at, place in expected]
            check(got == expected, f"{title}: {name}: {got}, and by the kernel {expected}")
            places |= {place for *_, place in got}
        scratch.kernel_umount(directory)
        wanted = {"mapped"} | ({"unwritten"} if title != "indirect" else set()) | ({"inline"} if title == "inline data" else set())
        check(places == wanted, f"{title}: only {places} were met")
        print(f"{title}: {len(names)} files agree", flush=True)
        os.unlink(image)


if __name__ == "__main__":
    mounting.main(test)
