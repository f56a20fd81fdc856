#!/usr/bin/env python3
"""An attribute that is set to the value which it has: what the kernel's ext4 answers, and which times move, and the same
of the C interface.

Usage: same_value_test.py PROGRAM LIBRARY
"""

import multiprocessing
import os
import pathlib
import struct
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "mount"))
import mounting  # noqa: E402  (lies in the folder beside)
import users  # noqa: E402
from kernel_calls import KernelCalls  # noqa: E402
from library_calls import LibraryCalls  # noqa: E402
from running import named  # noqa: E402

FORMATS = {
    "default": ("-t", "ext4", "-b", "4096"),
    "ea_inode": ("-t", "ext4", "-b", "4096", "-O", "ea_inode"),
    "1k blocks": ("-t", "ext4", "-b", "1024", "-I", "256"),
    "128-byte inodes": ("-t", "ext4", "-b", "4096", "-I", "128"),
}
ANY = 0xFFFFFFFF


def acl(*entries):
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


LIST = acl((1, 6, ANY), (2, 6, 1), (4, 4, ANY), (16, 6, ANY), (32, 4, ANY))
AS_THE_MODE = acl((1, 6, ANY), (4, 4, ANY), (32, 4, ANY))
ANOTHER_MODE = acl((1, 7, ANY), (4, 4, ANY), (32, 0, ANY))
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
VALUES = (("user.none", b""), ("user.small", b"1"), ("user.block", b"b" * 600), ("user.half", b"h" * 1500),
          ("user.large", b"l" * 2500), ("user.largest", b"L" * 61440), ("security.other", b"s"), ("trusted.one", b"t"),
          (ACCESS, LIST))


def steps():
    for name, value in VALUES:
        yield "setxattr", "file", name, value, 0, True
        for flags in (0, 2, 1):
            yield "setxattr", "file", name, value, flags, True
    for value in (LIST, AS_THE_MODE, AS_THE_MODE, ANOTHER_MODE, ANOTHER_MODE, b"", LIST, LIST, b"", b"", LIST):
        yield "setxattr", "file", ACCESS, value, 0, True
    for _ in range(2):
        yield "removexattr", "file", ACCESS, True
    for value in (b"", LIST, LIST, AS_THE_MODE, AS_THE_MODE, b"", b"", LIST):
        yield "setxattr", "folder", DEFAULT, value, 0, True
    for _ in range(2):
        yield "removexattr", "folder", DEFAULT, True
    for value in (b"2", b"22", b"2", b"3", b"3"):
        yield "setxattr", "file", "user.small", value, 0, True


def told(side):
    """Of each step: what it answers, and which times it moves."""
    side.become(users.ROOT)
    side.open(0, "file", os.O_CREAT | os.O_RDWR, 0o644)
    side.close(0)
    side.mkdir("folder", 0o755)
    out = []
    for name, path, *arguments in steps():
        before = side.stat(path)
        if before["ctime"] % 10**9 == 0:  # whole seconds
            time.sleep(1.05)
        time.sleep(0.02)
        try:
            getattr(side, name)(path, *arguments)
            answer = "done"
        except OSError as error:
            answer = named(error)
        after = side.stat(path)
        out.append((answer, [which for which in ("atime", "mtime", "ctime") if before[which] != after[which]], after["mode"]))
    return out


def told_by_kernel(directory):
    return told(KernelCalls(directory))


def told_by_library(library, image):
    side = LibraryCalls(library, image)
    out = told(side)
    side.unmount()
    return out


def compare(scratch, form, options):
    directory = scratch.kernel_mount(scratch.image("kernel.img", "32M", *options))
    image = scratch.image("library.img", "32M", *options)
    # Side by side, each in a process of its own: most of the time is spent waiting for the clock.
    with multiprocessing.get_context("fork").Pool(2) as processes:
        of_library = processes.apply_async(told_by_library, (os.path.abspath(sys.argv[2]), str(image)))
        of_kernel = processes.apply_async(told_by_kernel, (directory,))
        library, kernel = of_library.get(), of_kernel.get()
    scratch.kernel_umount(directory)
    mounting.clean(image)
    differ = [f"{step[0]} {step[1]} {step[2]} {step[3:]!r:.30}: {one}, and here {other}"
              for step, one, other in zip(steps(), kernel, library) if one != other]
    mounting.check(not differ, f"{form}: {len(differ)} answers differ\n" + "\n".join(differ))
    print(f"{form}: {len(kernel)} answers are equal", flush=True)


def test(scratch):
    for form, options in FORMATS.items():
        compare(scratch, form, options)


mounting.main(test)
