#!/usr/bin/env python3
"""Files without a name (O_TMPFILE) on a mount: they get one and keep it, or leave nothing behind, whatever ends the server.

Usage: unnamed_test.py PROGRAM
"""

import contextlib
import ctypes
import errno
import os
import pathlib
import signal
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import mounting  # noqa: E402
from mounting import check  # noqa: E402

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, AT_SYMLINK_FOLLOW = -100, 0x400
FORMATS = {"4k": ("-b", "4096"), "1k, inline_data": ("-b", "1024", "-O", "inline_data", "-I", "256"),
           "4k, data=journal": ("-b", "4096"), "4k, no journal": ("-b", "4096", "-O", "^has_journal"),
           "128-byte inodes": ("-b", "4096", "-I", "128")}


def name_it(fd, path):
    through = b"/proc/self/fd/%d" % fd
    if LIBC.linkat(AT_FDCWD, through, AT_FDCWD, os.fsencode(path), AT_SYMLINK_FOLLOW) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))


def contents(number):
    return b"%d " % number * (1, 20, 900, 40000)[number % 4]


def unnamed(top, number):
    fd = os.open(top, os.O_TMPFILE | os.O_RDWR, 0o644)
    os.write(fd, contents(number))
    return fd


def named_and_not(top):
    """Every second one of 40 gets a name; descriptors of both stay open behind it for a while."""
    fds = [unnamed(top, number) for number in range(40)]
    for number, fd in enumerate(fds):
        check(os.fstat(fd).st_nlink == 0, f"{number} has {os.fstat(fd).st_nlink} names")
        if number % 2:
            if number % 3 == 0:
                os.fsync(fd)
            name_it(fd, top / f"n{number}")
    for number, fd in enumerate(fds):
        check(os.fstat(fd).st_nlink == number % 2, f"{number} has {os.fstat(fd).st_nlink} names now")
        check(os.pread(fd, 1 << 20, 0) == contents(number), f"{number} reads otherwise")
    return fds


def check_named(top):
    wanted = {f"n{number}": contents(number) for number in range(1, 40, 2)}
    found = {path.name: path.read_bytes() for path in top.iterdir() if path.name != "lost+found"}
    check(found == wanted, f"{sorted(found)} are there, or otherwise than they were")


def free(top):
    space = os.statvfs(top)
    return space.f_bfree, space.f_ffree


def end(scratch, image, top, before):
    """The named ones are there, and nothing is left behind them."""
    check_named(top)
    for path in top.glob("n*"):
        path.unlink()
    check(free(top) == before, f"{free(top)} are free at last, {before} at first")
    scratch.umount(top)
    mounting.clean(image)
    os.unlink(image)


def get_names(scratch, name):
    """Kept over a new mount; nothing is left of the others."""
    image = scratch.image("image", "64M", "-t", "ext4", *FORMATS[name])
    options = "data=journal" if "data=journal" in name else ""
    top = scratch.mount(image, options=options)
    before = free(top)
    for fd in [unnamed(top, number) for number in range(40)]:
        os.close(fd)
    check(free(top) == before, f"{free(top)} are free behind files that had no name, {before} before")
    fds = named_and_not(top)
    sealed = os.open(top, os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o600)
    try:
        name_it(sealed, top / "sealed")
        check(False, "a file made with O_EXCL has got a name")
    except OSError as error:
        check(error.errno == errno.ENOENT, f"O_EXCL: {error}")
    for fd in [*fds, sealed]:
        os.close(fd)
    check_named(top)
    scratch.umount(top)
    mounting.clean(image)
    top = scratch.mount(image, options=options)
    end(scratch, image, top, before)


def server_dies(scratch):
    """What has a name and was synced is there; what had none is gone, and its space is back."""
    image = scratch.image("image", "64M", "-t", "ext4", "-b", "4096")
    top = scratch.mount(image)
    before = free(top)
    fds = named_and_not(top)
    for fd in fds:
        os.fsync(fd)
    root = os.open(top, os.O_RDONLY)
    os.fsync(root)
    os.close(root)
    scratch.kill(top)
    for fd in fds:
        with contextlib.suppress(OSError):  # nobody is there to be told
            os.close(fd)
    top = scratch.mount(image)
    end(scratch, image, top, before)


def frozen(scratch):
    """They wait for the thaw like all that changes something."""
    image = scratch.image("image", "64M", "-t", "ext4", "-b", "4096")
    top = scratch.mount(image)
    subprocess.run([scratch.program, "freeze", str(top)], check=True)
    child = os.fork()
    if child == 0:
        signal.alarm(120)
        os._exit(0 if os.fstat(unnamed(top, 3)).st_nlink == 0 else 1)
    mounting.clean(image)
    check(os.waitpid(child, os.WNOHANG) == (0, 0), "a file was made in a frozen mount")
    subprocess.run([scratch.program, "thaw", str(top)], check=True)
    check(os.waitpid(child, 0)[1] == 0, "what was made in a frozen mount")
    scratch.umount(top)
    mounting.clean(image)
    os.unlink(image)


def test(scratch):
    mounting.need_kernel(mounting.KERNEL_OF_UNNAMED, "O_TMPFILE")
    for name in FORMATS:
        get_names(scratch, name)
        print(f"{name}: unnamed files are right", flush=True)
    server_dies(scratch)
    frozen(scratch)


if __name__ == "__main__":
    mounting.main(test)
