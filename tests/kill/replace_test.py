#!/usr/bin/env python3
"""A file takes another's place, without an fsync, and the server dies: the old contents or the new ones, never none.

The ways: rename over it while the new file is still open, or mapped, or closed; truncate by open or by name, and close.
Usage: replace_test.py PROGRAM
"""

import mmap
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "mount"))
import mounting  # noqa: E402
from mounting import check  # noqa: E402

AFTER_COMMIT = 2.5  # seconds, with commit=1
OLD, NEW = b"o" * 300000, b"n" * 200000


def renamed_open(path):
    fd = os.open(f"{path}.new", os.O_CREAT | os.O_WRONLY, 0o644)
    os.write(fd, NEW)
    os.rename(f"{path}.new", path)
    return [fd]


def renamed_mapped(path):
    fd = os.open(f"{path}.new", os.O_CREAT | os.O_RDWR, 0o644)
    os.ftruncate(fd, len(NEW))
    view = mmap.mmap(fd, len(NEW))
    view[:] = NEW
    os.close(fd)
    os.rename(f"{path}.new", path)
    return [view]


def renamed_into_another_directory(path):
    os.mkdir(f"{path}.d")
    fd = os.open(f"{path}.d/new", os.O_CREAT | os.O_WRONLY, 0o644)
    os.write(fd, NEW)
    os.rename(f"{path}.d/new", path)
    return [fd]


def renamed_closed(path):
    pathlib.Path(f"{path}.new").write_bytes(NEW)
    os.rename(f"{path}.new", path)
    return []


def opened_empty(path):
    path.write_bytes(NEW)
    return []


def truncated(path):
    os.truncate(path, 0)
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, NEW)
    os.close(fd)
    return []


WAYS = (renamed_open, renamed_mapped, renamed_into_another_directory, renamed_closed, opened_empty, truncated)


def replaced(scratch, kind, features, options):
    image = scratch.image("image", "64M", "-t", "ext4", "-b", "4096", *features)
    directory = scratch.mount(image, options=options)
    for way in WAYS:
        (directory / way.__name__).write_bytes(OLD)
    fd = os.open(directory, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    kept = [held for way in WAYS for held in way(directory / way.__name__)]
    time.sleep(AFTER_COMMIT)  # what names the new file is durable; the kernel would keep its data for much longer
    scratch.kill(directory)
    for held in kept:
        close = held.close if isinstance(held, mmap.mmap) else lambda fd=held: os.close(fd)
        try:
            close()
        except OSError:
            pass  # its server is dead
    mounting.run(scratch.program, "replay", image)
    mounting.clean(image)
    directory = scratch.mount(image, options="ro")
    for way in WAYS:
        found = (directory / way.__name__).read_bytes()
        check(found in (OLD, NEW), f"{kind}, {way.__name__}: {len(found)} bytes, neither the old nor the new contents")
    scratch.umount(directory)
    print(f"{kind}: old or new", flush=True)


def test(scratch):
    for kind, features, options in (("ordered", (), "commit=1"), ("journal", (), "data=journal,commit=1"),
                                    ("inline data", ("-O", "inline_data"), "commit=1"), ("indirect", ("-O", "^extents,^64bit"), "commit=1")):
        replaced(scratch, kind, features, options)


if __name__ == "__main__":
    mounting.main(test)
