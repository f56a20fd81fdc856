#!/usr/bin/env python3
"""What the server could not take of the kernel's cache: every fsync says so until it is written anew.

The image cannot be read for a while: its file is shorter than the file system.

Usage: lost_writes_test.py PROGRAM
"""

import errno
import json
import os

import mounting
from mounting import check

SIZE, BLOCK = 24_096, 4096
FAR, LATE = 131_072, b"B" * 20_000


def fsyncs(fd, times=1):
    """The errno of each, or 0."""
    said = []
    for _ in range(times):
        try:
            os.fsync(fd)
            said.append(0)
        except OSError as error:
            said.append(error.errno)
    return said


def last_block(program, image, name):
    """Where the file's last block is in the image, in bytes."""
    run = json.loads(mounting.run(program, "fiemap", "--json", f"{image}:/{name}").stdout)[-1]
    return run["physical"] + (SIZE // BLOCK * BLOCK - run["offset"])


def test(scratch):
    # The metadata, and where others would be written meanwhile, lie in front of the file.
    image = scratch.image("image", "32M", "-t", "ext4", "-b", "4096", "-J", "size=4,location=600")
    top = scratch.mount(image)
    for number in range(24):
        (top / f"fill {number}").write_bytes(b"f" * (1 << 20))
        (top / f"f{number}").write_bytes(b"A" * SIZE)
    scratch.umount(top)
    where, last = max((last_block(scratch.program, image, f"f{number}"), number) for number in range(24))
    check(where > 8 << 20, f"all files lie in front of the log: {where}")
    top = scratch.mount(image)
    (top / f"f{last}").rename(top / "f")
    scratch.umount(top)
    full = os.stat(image).st_size

    for way in ("written anew", "cut off"):
        where = last_block(scratch.program, image, "f")
        check(where > 8 << 20, f"the file lies in front of the log now: {where}")
        with open(image, "rb") as file:
            file.seek(where)
            behind = file.read()
        top = scratch.mount(image, options="commit=300")
        path = top / "f"
        fd, other = os.open(path, os.O_RDWR), os.open(path, os.O_RDWR)
        os.fstat(fd)
        os.truncate(image, where)
        check(os.pwrite(fd, LATE, FAR) == len(LATE), "a short write")
        said = fsyncs(fd, 4) + fsyncs(other, 2)
        check(all(one == errno.EIO for one in said[:1] + said[2:]), f"fsync said {said}")
        os.truncate(image, full)
        with open(image, "r+b") as file:
            file.seek(where)
            file.write(behind)
        check(fsyncs(fd) + fsyncs(other) == [errno.EIO] * 2, "an fsync says that all is durable")
        os.pwrite(fd, b"C" * 10, 0)
        check(fsyncs(fd) == [errno.EIO], "another write took the loss away")
        if way == "written anew":
            os.pwrite(fd, LATE, FAR)
            check(fsyncs(fd) == [0], "what is written anew is not durable")
        else:
            os.ftruncate(fd, SIZE)
            check(fsyncs(fd) == [0], "there is nothing left that could be lost")
        os.close(fd)
        os.close(other)
        scratch.umount(top)
        mounting.clean(image)
        top = scratch.mount(image)
        content = (top / "f").read_bytes()
        expected = b"C" * 10 + b"A" * (SIZE - 10)
        if way == "written anew":
            expected += bytes(FAR - SIZE) + LATE
        check(content == expected, f"{way}: {len(content)} bytes, others than were written")
        os.truncate(top / "f", SIZE)
        scratch.umount(top)


if __name__ == "__main__":
    mounting.main(test)
