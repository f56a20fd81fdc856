#!/usr/bin/env python3
"""A journal that a killed program left is recovered to the same tree and metadata by the program and by the kernel.

A process that holds the library changes an image until it is killed: files made, written, cut, renamed and removed,
directories whose freed blocks are revoked, open files without a name, and a truncation of many transactions. One copy is
recovered by the program, one by a mount of the kernel, and they are compared with all that stat tells, blocks and free
space; on a third e2fsck replays the journal. What every kind of log has to have had in it is counted.

Usage: we_left_test.py PROGRAM LIBRARY. UEXT4_SEED, UEXT4_ROUNDS (kills of each kind; more with UEXT4_LONG=1).
"""

import contextlib
import os
import pathlib
import random
import signal
import sys
import time

for folder in ("mount", "beside"):
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / folder))
import comparing  # noqa: E402
import mounting  # noqa: E402
from library_calls import LibraryCalls  # noqa: E402
from mounting import check  # noqa: E402

# name: (mke2fs's options, mount options, what a log is made to be by debugfs)
KINDS = {
    "checksums 3": (("-t", "ext4", "-b", "1024"), "", None),
    "checksums 3, data=journal": (("-t", "ext4", "-b", "4096"), "data=journal", None),
    "checksums 2": (("-t", "ext4", "-b", "1024"), "", 2),
    "checksums 2, data=journal": (("-t", "ext4", "-b", "4096"), "data=journal", 2),
    "no checksums": (("-t", "ext4", "-b", "1024", "-O", "^metadata_csum,^64bit"), "", None),
    "no checksums, data=journal": (("-t", "ext4", "-b", "4096", "-O", "^metadata_csum"), "data=journal", None),
    "ext3": (("-t", "ext3", "-b", "1024"), "", None),
    "orphan file, inline data": (("-t", "ext4", "-b", "1024", "-O", "orphan_file,inline_data", "-I", "256"), "", None),
    "bigalloc": (("-t", "ext4", "-b", "4096", "-O", "bigalloc", "-C", "16384"), "", None),
}
CUT = "cut"
PIECES = 2500


class Work:
    """Changes an image until it is killed."""

    def __init__(self, library, image, options, seed):
        self.calls = LibraryCalls(library, str(image), options)
        self.choice = random.Random(seed)
        self.names = []
        self.number = 0

    def prepare(self):
        """A file of many pieces, so that cutting it takes many transactions; and files to work with."""
        self.calls.begin("work")
        self.calls.open("cut", CUT, os.O_RDWR | os.O_CREAT, 0o644)
        for number in range(PIECES):
            self.calls.pwrite("cut", (2 * number + 1) * 4096, 100, 65 + number % 26)
        self.calls.fsync("cut")

    def run(self):
        while True:
            getattr(self, self.choice.choice(("make", "make", "append", "shorten", "remove", "move", "folders", "unname",
                                              "attribute", "cut", "sync")))()

    def make(self):
        self.number += 1
        name = f"file{self.number}"
        self.calls.open("f", name, os.O_RDWR | os.O_CREAT, 0o644)
        self.calls.pwrite("f", 0, self.choice.choice((0, 10, 100, 3000, 20_000, 90_000)), 1 + self.number % 250)
        self.names.append(name)
        if len(self.names) > 60:
            self.calls.unlink(self.names.pop(0))

    def some(self):
        return self.choice.choice(self.names) if self.names else None

    def append(self):
        if name := self.some():
            self.calls.open("a", name, os.O_RDWR, 0)
            self.calls.pwrite("a", self.calls.fstat("a")["size"] + self.choice.choice((0, 0, 5000)),
                              self.choice.randrange(8000), 7)

    def shorten(self):
        if name := self.some():
            self.calls.truncate(name, self.choice.randrange(30_000))

    def remove(self):
        if name := self.some():
            self.names.remove(name)
            self.calls.unlink(name)

    def move(self):
        if len(self.names) > 1:
            source, target = self.choice.sample(self.names, 2)
            self.names.remove(source)
            self.calls.rename(source, target, 0)

    def folders(self):
        """Blocks of directories are freed, and hold data then: they are revoked."""
        for number in range(6):
            self.calls.mkdir(f"folder{number}", 0o755)
            for entry in range(20):
                self.calls.symlink("t" * 70, f"folder{number}/{'n' * 40}{entry}")
        self.sync()
        for number in range(6):
            for entry in range(20):
                self.calls.unlink(f"folder{number}/{'n' * 40}{entry}")
            self.calls.rmdir(f"folder{number}")
        self.make()

    def unname(self):
        slot = f"open{self.choice.randrange(4)}"
        name = f"gone{self.number}"
        self.number += 1
        self.calls.open(slot, name, os.O_RDWR | os.O_CREAT, 0o600)
        self.calls.pwrite(slot, 0, 50_000, 9)
        self.calls.unlink(name)

    def attribute(self):
        if name := self.some():
            self.calls.setxattr(name, "user.a", b"v" * self.choice.choice((3, 60, 500)), 0, True)

    def cut(self):
        """In many transactions; then there is something to cut again."""
        self.calls.ftruncate("cut", self.choice.choice((0, 4097, 5_000_100)))
        self.sync()
        for number in range(PIECES // 5):
            self.calls.pwrite("cut", (2 * self.choice.randrange(PIECES) + 1) * 4096, 100, 65 + number % 26)

    def sync(self):
        self.calls.fsync("cut")


def child(library, image, options, seed, ready):
    os.setsid()
    work = Work(library, image, options, seed)
    work.prepare()
    os.write(ready, b"r")
    work.run()


def kill_one(library, image, options, seed):
    """Runs the work and kills it at a moment that the seed chooses."""
    ready, other = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        with contextlib.suppress(BaseException):
            child(library, image, options, seed, other)
            status = 0
        os._exit(status)
    os.close(other)
    try:
        check(os.read(ready, 1) == b"r", f"seed {seed}: the work ended before it began")
        time.sleep(random.Random(seed).uniform(0.02, 0.5))
    finally:
        os.close(ready)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    check(os.WIFSIGNALED(status), f"seed {seed}: the work ended by itself, status {status}")


def made(scratch, options, version):
    image = scratch.image("image", "96M", *options, "-J", "size=8" if "4096" in options else "size=4")
    if version:
        mounting.run("debugfs", "-w", image, input=f"jo -c -v {version}\njc\n")
        mounting.run("e2fsck", "-fy", image, accept=(0, 1))
        check(f"journal_checksum_v{version}" in comparing.superblock(image).get("Journal features", ""),
              f"the log has no checksums of version {version}")
    return image


def judged_by_e2fsck(scratch, image):
    copy = mounting.copy_image(image, scratch.path("third"))
    mounting.run("e2fsck", "-E", "journal_only", "-y", copy, accept=(0, 1))
    mounting.clean_but_orphans(copy)
    mounting.run("e2fsck", "-fy", copy, accept=(0, 1))
    mounting.clean(copy)
    comparing.remove(copy)


def one(scratch, kind, seed, met):
    options, mount_options, version = KINDS[kind]
    what = f"{kind}, seed {seed}"
    image = made(scratch, options, version)
    kill_one(sys.argv[2], image, mount_options, seed)
    before = comparing.superblock(image)
    if version:
        check(f"journal_checksum_v{version}" in before.get("Journal features", ""), f"{what}: the log changed its checksums")
    met["log"] += "needs_recovery" in before["Filesystem features"]
    met["revoke"] += "revoke" in mounting.run(scratch.program, "journal", image, accept=(0, 1)).stdout
    met["orphan"] += mounting.has_orphans(image)
    ours = comparing.recovered_by_us(scratch, image)
    kernels = comparing.recovered_by_the_kernel(scratch, image, mount_options)
    # The time of a truncation that somebody else finishes is his.
    comparing.same(scratch, ours, kernels, what, {f"./work/{CUT}".encode()})
    judged_by_e2fsck(scratch, image)
    comparing.remove(image, ours, kernels)


def test(scratch):
    mounting.need_mount()
    seed = int(os.environ.get("UEXT4_SEED", 1))
    rounds = int(os.environ.get("UEXT4_ROUNDS", 12 if mounting.is_long() else 1))
    met = {"log": 0, "revoke": 0, "orphan": 0}
    for kind in KINDS:
        for number in range(rounds):
            one(scratch, kind, seed * 1000 + number, met)
        print(f"{kind}: {rounds} kills, recovered alike", flush=True)
    for name, count in met.items():
        check(count > 0, f"no {name} was left in {rounds * len(KINDS)} kills")
    print(", ".join(f"{count} with a {name}" for name, count in met.items()), flush=True)


if __name__ == "__main__":
    mounting.main(test)
