#!/usr/bin/env python3
"""Whoever takes the lines of the system's log may be slow, or wait for the mount: it goes on.

In a namespace of mounts of its own, with a /dev of its own, whose log nobody reads.

Usage: system_log_test.py PROGRAM
"""

import os
import socket
import sys
import time

import mounting
from mounting import check

DAMAGED = 40  # files; the socket's queue takes far fewer lines


def own_dev(scratch):
    mounting.own_mounts()
    folder = scratch.path("dev")
    folder.mkdir()
    mounting.run("mount", "-t", "tmpfs", "none", folder)
    for name in ("null", "zero", "fuse", "urandom", "random", "loop-control"):
        if os.path.exists(f"/dev/{name}"):
            mounting.run("cp", "-a", f"/dev/{name}", folder / name)
    (folder / "shm").mkdir()
    mounting.run("mount", "--bind", "/dev/shm", folder / "shm")
    mounting.run("mount", "--rbind", folder, "/dev")


def test(scratch):
    image = scratch.image("image", "32M", "-t", "ext4", "-b", "1024", "-I", "256", "-O", "^metadata_csum")
    top = scratch.mount(image)
    for number in range(DAMAGED):
        # Many extents: a block of the tree's own.
        with open(top / f"f{number}", "wb") as file:
            for piece in range(12):
                file.seek(piece * 8192)
                file.write(b"x" * 1024)
                file.flush()
                os.fsync(file.fileno())
    scratch.umount(top)
    for number in range(DAMAGED):
        told = mounting.run("debugfs", "-R", f"extents f{number}", image).stdout
        leaf = int(next(line for line in told.splitlines() if line.strip().startswith("0/ 1")).split()[7])
        with open(image, "r+b") as file:
            file.seek(leaf * 1024)
            file.write(b"\xff\xff")
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            own_dev(scratch)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
                log.bind("/dev/log")
                top = scratch.mount(image, options="errors=continue")
                begin = time.monotonic()
                for number in range(DAMAGED):
                    try:
                        (top / f"f{number}").read_bytes()
                    except OSError:
                        pass
                (top / "new").write_bytes(b"new")
                check((top / "new").read_bytes() == b"new", "other bytes")
                log.settimeout(5)
                check(b"uext4" in log.recv(4096), "no line of ours")
                print(f"{time.monotonic() - begin:.1f} s")
            scratch.umount(top)
            status = 0
        except mounting.Failure as failure:
            print(failure, file=sys.stderr)
        except SystemExit as end:
            status = end.code
        except BaseException as error:  # noqa: BLE001  (a child says why, and ends)
            print(repr(error), file=sys.stderr)
        finally:
            for directory in list(scratch.servers):
                scratch.kill(directory)
            sys.stdout.flush()  # why it was skipped
            os._exit(status if isinstance(status, int) else 1)
    limit = time.monotonic() + 60
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > limit:
            os.kill(pid, 9)  # its socket goes, and the server goes on, and ends with its namespace
            os.waitpid(pid, 0)
            raise mounting.Failure("the mount hangs while nobody reads the log")
        time.sleep(0.05)
    if os.waitstatus_to_exitcode(status) == mounting.SKIPPED:
        sys.exit(mounting.SKIPPED)
    check(status == 0, f"ended with {status}")


if __name__ == "__main__":
    mounting.main(test)
