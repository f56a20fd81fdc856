#!/usr/bin/env python3
"""The same random sequences of operations by several users on the kernel's ext4, in a mount, and by the C interface.

Every result, every look at what an operation names, and every tree at the end have to be equal. A sequence that differs
is shrunk and printed. UEXT4_SEED chooses the sequences (default: always the same, so that a failure is a change's), or
the clock with UEXT4_LONG=1; UEXT4_SECONDS how long (default: four sequences a format, or an hour with UEXT4_LONG=1),
UEXT4_CELL one format by a part of its name.

Usage: beside_test.py PROGRAM LIBRARY
"""

import os
import pathlib
import random
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "mount"))
import mounting  # noqa: E402  (lies in the folder beside)
from operations import Sequences  # noqa: E402
from sides import Sides, printed, shrunk  # noqa: E402

# name: (mke2fs's options, mount options, large values)
CELLS = {
    "default": (("-t", "ext4", "-b", "4096"), "", False),
    "inline_data, 1k": (("-t", "ext4", "-b", "1024", "-O", "inline_data", "-I", "256"), "", False),
    "ext3": (("-t", "ext3", "-b", "4096", "-I", "256"), "", False),
    "ea_inode, journal": (("-t", "ext4", "-b", "4096", "-O", "ea_inode,large_dir"), "data=journal", True),
    "128-byte inodes, 2k": (("-t", "ext4", "-b", "2048", "-I", "128"), "", False),
    "bigalloc": (("-t", "ext4", "-b", "4096", "-O", "bigalloc,orphan_file", "-C", "16384"), "", False),
}
LENGTH = 120
SEQUENCES = 4
KEEP_GOING = os.environ.get("UEXT4_KEEP_GOING") == "1"


def run_cell(scratch, name, seed, seconds):
    options, mount_options, big = CELLS[name]
    limit = time.monotonic() + seconds if seconds else None
    operations = failures = number = 0
    with Sides(scratch, sys.argv[2], name, options, mount_options) as sides:
        while number < SEQUENCES if limit is None else time.monotonic() < limit:
            choice = random.Random(f"{seed}/{name}/{number}")
            everything = number % 2 == 1
            names = ["kernel", "library"] if everything else ["kernel", "mount", "library"]
            sequence = Sequences(choice, everything, big, name == "default" and everything).sequence(LENGTH)
            found = sides.compare(sequence, names)
            operations += len(sequence)
            if found:
                text = printed(*shrunk(sides, sequence, found, names))
                if not KEEP_GOING:
                    raise mounting.Failure(f"{name}, UEXT4_SEED={seed}, sequence {number}: {text}")
                print(f"{name}, sequence {number}: {text}", flush=True)
                failures += 1
            number += 1
    mounting.check(failures == 0, f"{name}: {failures} of {number} sequences differ")
    print(f"{name}: {number} sequences, {operations} operations agree", flush=True)


def test(scratch):
    seed = os.environ.get("UEXT4_SEED", str(time.time_ns() % 1_000_000) if mounting.is_long() else "1")
    print(f"UEXT4_SEED={seed}", flush=True)
    wanted = os.environ.get("UEXT4_CELL", "")
    cells = [name for name in CELLS if wanted in name]
    seconds = float(os.environ.get("UEXT4_SECONDS", 3600 if mounting.is_long() else 0))
    for name in cells:
        run_cell(scratch, name, seed, seconds / len(cells))


mounting.main(test)
