#!/usr/bin/env python3
"""Random operations on two files through every door, against a model of their bytes, over formats and modes.

The operations come in segments: each begins with a mount and ends with an unmount or, one in four, with a SIGKILL of what
holds the file system, after which the files hold a state between their last sync and the kill. e2fsck judges every image
at the end and after some kills, and the kernel's own mount, where there is one, has to show the bytes of the model.

Usage: exercise_test.py PROGRAM EXERCISE library|mount. UEXT4_OPERATIONS for each cell, UEXT4_SEED, UEXT4_CELL (a part of
a cell's name, as "inline 1k journal 3"); UEXT4_LONG=1 runs a million. UEXT4_TRACE=1 tells every operation.
"""

import itertools
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "mount"))
import mounting  # noqa: E402  (lies in the folder beside)
from mounting import check  # noqa: E402

FORMATS = {
    "plain 4k": ("-t", "ext4", "-b", "4096"),
    "plain 1k": ("-t", "ext4", "-b", "1024"),
    "inline 4k": ("-t", "ext4", "-b", "4096", "-O", "inline_data"),
    "inline 1k": ("-t", "ext4", "-b", "1024", "-O", "inline_data", "-I", "256"),
    "^extents 4k": ("-t", "ext4", "-b", "4096", "-O", "^extents,^64bit"),
    "^extents 1k": ("-t", "ext4", "-b", "1024", "-O", "^extents,^64bit", "-I", "256"),
    "bigalloc 4k": ("-t", "ext4", "-b", "4096", "-O", "bigalloc", "-C", "16384"),
    "bigalloc 1k": ("-t", "ext4", "-b", "1024", "-O", "bigalloc", "-C", "16384"),
}
MODES = {"ordered": "", "journal": "data=journal"}
OPERATIONS = {"library": 2000, "mount": 2000}
SEGMENT = 400  # operations between a mount and its end
THREADS = (1, 3)  # each has two files of its own; they share the operations of a cell
DONE, NEXT, KILLED = 0, 10, -9
JUDGED = 16  # of the kills, one in so many is judged by e2fsck


class Cell:
    def __init__(self, scratch, door, name, mode, threads, operations, seed):
        self.scratch, self.door, self.name, self.mode, self.threads = scratch, door, name, mode, threads
        self.operations, self.seed = operations, seed
        self.image = scratch.image("image", "128M", *FORMATS[name])
        self.state = scratch.path("state")
        for number in range(threads):
            self.scratch.path(f"state.{number}" if number else "state").unlink(missing_ok=True)
        self.kills = 0

    def segment(self, *where):
        command = [sys.argv[2], "--state", self.state, *where, "--operations", str(self.operations), "--seed", str(self.seed)]
        if "^extents" in self.name:
            command.append("--no-ranges")
        if self.mode == "journal":
            command.append("--journaled")
        grain = 16384 if "bigalloc" in self.name else 1024 if "1k" in self.name else 4096
        command += ["--unaligned", "either" if "inline" in self.name else "refused", "--grain", grain,
                    "--threads", self.threads, "--segment", SEGMENT // self.threads]
        done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              errors="replace", check=False)
        if os.environ.get("UEXT4_TRACE") == "1":
            print(done.stdout, flush=True)
        check(done.returncode in (DONE, NEXT, KILLED), f"{self}: status {done.returncode}\n{done.stdout[-12000:]}")
        return done.returncode

    def __str__(self):
        return f"{self.door}, {self.name}, {self.mode}, threads {self.threads}"

    def was_killed(self):
        """The model's fourth number."""
        return int.from_bytes(self.state.read_bytes()[24:32], "little") == 1

    def judge_a_kill(self):
        self.kills += 1
        if self.kills % JUDGED != 1:
            return
        copy = mounting.copy_image(self.image, self.scratch.path("copy"))
        mounting.run(self.scratch.program, "replay", copy)
        mounting.clean(copy)
        copy.unlink()

    def run_library(self):
        options = ",".join(filter(None, ("cache=4M", MODES[self.mode])))
        while (status := self.segment("--image", self.image, "--options", options)) != DONE:
            if status == KILLED:
                self.judge_a_kill()

    def run_mount(self):
        status = NEXT
        while status != DONE:
            directory = self.scratch.mount(self.image, options=",".join(filter(None, ("cache=4M", MODES[self.mode]))))
            status = self.segment("--directory", directory)
            if self.was_killed():
                self.scratch.kill(directory)
                self.judge_a_kill()
            else:
                self.scratch.umount(directory)

    def judge(self):
        mounting.clean(self.image)
        if os.geteuid() != 0 or not os.path.exists("/dev/loop-control"):
            return
        files = range(2 * self.threads)
        ours = [self.read(number) for number in files]
        seen = self.scratch.kernel_mount(self.image, options="ro")
        for number in files:
            theirs = (pathlib.Path(seen) / f"f{number}").read_bytes()
            check(theirs == ours[number], f"{self}: the kernel reads other bytes of file {number}")
        self.scratch.kernel_umount(seen)

    def read(self, number):
        """What the model says, by way of the program: the last segment has compared them."""
        return subprocess.run([self.scratch.program, "cat", f"{self.image}:/f{number}"], stdout=subprocess.PIPE,
                              check=True).stdout


def test(scratch):
    door = sys.argv[3]
    if door == "mount":
        mounting.need_mount()
    operations = int(os.environ.get("UEXT4_OPERATIONS", 1_000_000 if mounting.is_long() else OPERATIONS[door]))
    seed = int(os.environ.get("UEXT4_SEED", 1))
    wanted = os.environ.get("UEXT4_CELL", "")
    for mode, name, threads in itertools.product(MODES, FORMATS, THREADS):
        if wanted not in f"{name} {mode} {threads}":
            continue
        cell = Cell(scratch, door, name, mode, threads, operations // threads, seed)
        cell.run_library() if door == "library" else cell.run_mount()
        cell.judge()
        print(f"{cell}: {cell.operations} operations of each, {cell.kills} kills, seed {seed}: right", flush=True)


mounting.main(test)
