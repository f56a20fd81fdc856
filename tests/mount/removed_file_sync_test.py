#!/usr/bin/env python3
"""After a file that did not fit has been removed nothing is without space any more, and syncfs(2) says so.

The mount does not do so yet: the test is expected to fail, and fails itself once the mount does.

Usage: removed_file_sync_test.py PROGRAM
"""

import ctypes
import errno
import os

import mounting
from mounting import check

PIECE = bytes(range(256)) * 4096  # a MiB


def sync_file_system(directory):
    """0, or the errno of syncfs(2)."""
    system = ctypes.CDLL(None, use_errno=True)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return 0 if system.syncfs(fd) == 0 else ctypes.get_errno()
    finally:
        os.close(fd)


def write_what_does_not_fit(path):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    refused = []
    for last in (lambda: [os.write(fd, PIECE) for _ in range(64)], lambda: os.close(fd)):
        try:
            last()
        except OSError as error:
            refused.append(error.errno)
    check(refused and set(refused) == {errno.ENOSPC}, f"64 MiB into 32 MiB: {refused}")


def test(scratch):
    image = scratch.image("image", "32M", "-t", "ext4", "-m", "0")
    top = scratch.mount(image)
    write_what_does_not_fit(top / "large")
    (top / "large").unlink()
    first, second = sync_file_system(top), sync_file_system(top)
    # The rest is right as it is.
    check(first in (0, errno.ENOSPC) and second == 0, f"syncfs: {first}, then {second}")
    (top / "after").write_bytes(PIECE)
    check(sync_file_system(top) == 0, "syncfs of what fits")
    scratch.umount(top)
    mounting.clean(image)
    mounting.expect_failure(first == 0, "syncfs after the removal of what did not fit answers ENOSPC")


if __name__ == "__main__":
    mounting.main(test)
