#!/usr/bin/env python3
"""What operations cost in the journal, here and in the kernel's ext4: commits and blocks of the log, counted on the image.

    p10_table.py UEXT4

Each operation runs in a new mount of the same image format, alone, between two looks at the log by debugfs.
"""

import argparse
import ctypes
import os
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "mount"))
from mounting import Failure, Scratch, check, need, need_mount, run  # noqa: E402

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
KEEP_SIZE, PUNCH_HOLE = 1, 2  # FALLOC_FL_
COMMIT = re.compile(r"sequence (\d+), type 2 \(commit block\) at block (\d+)")


class Work:
    """Files of one mount; every operation may take a file that is there."""

    def __init__(self, directory):
        self.at = directory
        for name in ("append", "short", "over", "nothing", "old", "cut", "linked", "gone", "named", "valued", "mode"):
            self.put(name, b"a" * 8192)
        self.put("punched", b"a" * 65536)
        self.put("within", b"a" * 8292)
        fd = os.open(self.at / "prealloc", os.O_CREAT | os.O_RDWR)
        os.posix_fallocate(fd, 0, 65536)
        os.fsync(fd)
        os.close(fd)

    def put(self, name, data, at=0, flags=os.O_CREAT, sync=os.fsync):
        fd = os.open(self.at / name, os.O_RDWR | flags, 0o644)
        os.pwrite(fd, data, at)
        sync(fd)
        os.close(fd)

    def append(self):
        self.put("append", b"b" * 4096, 8192)

    def short(self):
        self.put("short", b"b" * 100, 8192)

    def within(self):
        self.put("within", b"b" * 100, 8292)

    def over(self):
        self.put("over", b"c" * 4096, 4096, sync=os.fdatasync)

    def prealloc(self):
        self.put("prealloc", b"d" * 4096, 4096)

    def create(self):
        self.put("new", b"e" * 4096)

    def replace(self):
        self.put("fresh", b"f" * 4096)
        os.rename(self.at / "fresh", self.at / "old")
        self.synced(".")

    def nothing(self):
        self.synced("nothing")

    def synced(self, name, change=lambda fd: None):
        """A change of what has the name, by a descriptor or otherwise, and its fsync."""
        fd = os.open(self.at / name, os.O_RDONLY if (self.at / name).is_dir() else os.O_RDWR)
        change(fd)
        os.fsync(fd)
        os.close(fd)

    def allocate(self, name, mode, at, size):
        def change(fd):
            check(LIBC.fallocate(fd, mode, at, size) == 0, f"fallocate of {name}: {os.strerror(ctypes.get_errno())}")

        self.synced(name, change)

    def punched(self):
        self.allocate("punched", PUNCH_HOLE | KEEP_SIZE, 8192, 16384)

    def allocated(self):
        self.allocate("append", 0, 8192, 65536)

    def cut(self):
        self.synced("cut", lambda fd: os.ftruncate(fd, 4096))

    def cut_within(self):
        self.synced("cut", lambda fd: os.ftruncate(fd, 5000))

    def made(self):
        os.mkdir(self.at / "made")
        self.synced("made")

    def linked(self):
        os.link(self.at / "linked", self.at / "again")
        self.synced("linked")

    def gone(self):
        os.unlink(self.at / "gone")
        self.synced(".")

    def named(self):
        os.rename(self.at / "named", self.at / "anew")
        self.synced(".")

    def valued(self):
        self.synced("valued", lambda fd: os.setxattr(fd, "user.name", b"value"))

    def mode(self):
        self.synced("mode", lambda fd: os.fchmod(fd, 0o600))

    def inside(self):
        self.put("inside", b"i" * 60)


OPERATIONS = (("append 4 KiB + fsync", "append", 1), ("append 100 bytes + fsync", "short", 1),
              ("append 100 bytes within the last block + fsync", "within", 1),
              ("overwrite 4 KiB + fdatasync", "over", 0), ("write into space of fallocate + fsync", "prealloc", 1),
              ("create 4 KiB + fsync", "create", 1), ("replace by rename, both synced", "replace", 2),
              ("fsync of nothing", "nothing", 0), ("punch 16 KiB + fsync", "punched", 1),
              ("fallocate 64 KiB + fsync", "allocated", 1), ("truncate by a block + fsync", "cut", 1),
              ("truncate into a block + fsync", "cut_within", 1), ("mkdir + fsync of it", "made", 1),
              ("link + fsync", "linked", 1), ("unlink + fsync of the directory", "gone", 1),
              ("rename + fsync of the directory", "named", 1), ("setxattr + fsync", "valued", 1),
              ("chmod + fsync", "mode", 1), ("create 60 bytes in the inode + fsync", "inside", 1))
FEATURES = {"inside": ("-I", "256", "-O", "inline_data")}


def look(image):
    """The newest committed transaction, and the block of the log where its commit record lies."""
    found = COMMIT.findall(run("debugfs", "-R", "logdump -a", image).stdout)
    check(found, f"{image}: debugfs finds no transaction in the log")
    return max((int(tid), int(block)) for tid, block in found)


def sync(directory):
    fd = os.open(directory, os.O_RDONLY)
    check(LIBC.syncfs(fd) == 0, f"syncfs of {directory} fails")
    os.fsync(fd)
    os.close(fd)


def costs(scratch, mode, ours):
    """What each operation costs: (commits, blocks of the log)."""
    out = {}
    for _, name, _ in OPERATIONS:
        image = scratch.image("image", "64M", "-t", "ext4", "-b", "4096", "-J", "size=8", "-E",
                              "lazy_itable_init=0,lazy_journal_init=0", *FEATURES.get(name, ()))
        options = f"data={mode},noatime,commit=300"
        directory = (scratch.mount if ours else scratch.kernel_mount)(image, options=options)
        work = Work(directory)
        sync(directory)
        before = look(image)
        getattr(work, name)()
        after = look(image)
        out[name] = (after[0] - before[0], after[1] - before[1])
        (scratch.umount if ours else scratch.kernel_umount)(directory)
        run("e2fsck", "-fn", image)
        image.unlink()
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    arguments = parser.parse_args()
    need_mount()
    need("debugfs", "mke2fs", "e2fsck")
    with Scratch(arguments.program) as scratch:
        table = {(mode, ours): costs(scratch, mode, ours) for mode in ("ordered", "journal") for ours in (True, False)}
    print("| operation | ordered, uext4 | ordered, kernel | journal, uext4 | journal, kernel |\n|---|---|---|---|---|")
    wrong = []
    for text, name, most in OPERATIONS:
        cells = [table[mode, ours][name] for mode in ("ordered", "journal") for ours in (True, False)]
        print(f"| {text} | " + " | ".join(f"{commits} / {blocks}" for commits, blocks in cells) + " |")
        if cells[0][0] > most or cells[2][0] > max(most, 1):
            wrong.append(f"{text}: {cells[0][0]} commits ordered and {cells[2][0]} with data=journal")
    check(not wrong, "; ".join(wrong))


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        print(failure, file=sys.stderr)
        sys.exit(1)
