#!/usr/bin/env python3
"""When files were made (statx on a mount): as the image has it, and not told where inodes have no room for it.

Usage: birth_times_test.py PROGRAM
"""

import ctypes
import datetime
import json
import os
import pathlib
import struct
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import mounting  # noqa: E402
from mounting import check  # noqa: E402

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, AT_SYMLINK_NOFOLLOW, BASIC_AND_BIRTH = -100, 0x100, 0xfff
FORMATS = {"4k": ("-b", "4096"), "128-byte inodes": ("-b", "4096", "-I", "128")}


def birth(path):
    """Seconds and nanoseconds; None where the answer has none."""
    buffer = ctypes.create_string_buffer(256)
    check(LIBC.statx(AT_FDCWD, os.fsencode(path), AT_SYMLINK_NOFOLLOW, BASIC_AND_BIRTH, buffer) == 0, f"statx of {path}")
    mask, = struct.unpack_from("I", buffer)
    size, = struct.unpack_from("Q", buffer, 40)
    check(size == os.lstat(path).st_size, f"{path}: statx says {size} bytes")
    return struct.unpack_from("qI", buffer, 80) if mask & 0x800 else None


def births(scratch, name):
    image = scratch.image("image", "64M", "-t", "ext4", *FORMATS[name])
    top = scratch.mount(image)
    with open(top / "file", "wb") as file:
        file.write(b"f" * 5000)
        file.flush()
        during = birth(top / "file")
    (top / "directory").mkdir()
    (top / "link").symlink_to("nowhere")
    os.mkfifo(top / "pipe")
    os.mknod(top / "device", 0o600 | 0o020000, os.makedev(300, 70000))
    check(os.lstat(top / "device").st_rdev == os.makedev(300, 70000), "the device's number")
    paths = [top / each for each in ("file", "directory", "link", "pipe", "device", "lost+found", "")]
    told = {path.name: birth(path) for path in paths}
    check(told["file"] == during, f"the file was born at {told['file']}, and at {during} while it was written")
    scratch.umount(top)
    for path in paths:
        where = f"{image}:/{'' if path == top else path.name}"
        shown = json.loads(subprocess.run([scratch.program, "stat", "--json", where], stdout=subprocess.PIPE, check=True,
                                          env=os.environ | {"TZ": "UTC"}).stdout)
        shown = shown[0] if isinstance(shown, list) else shown
        if name == "128-byte inodes":
            check(told[path.name] is None and "btime" not in shown, f"{where}: {told[path.name]}, and {shown}")
            continue
        seconds, nanoseconds = told[path.name]
        stamp = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        check(shown["btime"] == f"{stamp}.{nanoseconds:09}+00:00",
              f"{where}: born {seconds}.{nanoseconds:09} on the mount, {shown['btime']} in the image")
    mounting.clean(image)
    os.unlink(image)


def test(scratch):
    mounting.need_kernel(mounting.KERNEL_OF_BIRTHS, "wish for a birth time")
    for name in FORMATS:
        births(scratch, name)
        print(f"{name}: birth times are the image's", flush=True)


if __name__ == "__main__":
    mounting.main(test)
