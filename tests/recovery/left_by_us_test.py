#!/usr/bin/env python3
"""A journal that we left is recovered to the same tree and metadata by the program, by the kernel and by e2fsck.

A mount's server, and a process that uses the library, are killed in the middle of a load: with a file open that has no
name, blocks of metadata that were freed (their revokes are in the log), and truncations that take several transactions
while others commit. Logs are of every checksum version, data is ordered or journaled.

Usage: left_by_us_test.py PROGRAM LIBRARY. UEXT4_SEED chooses the moments, UEXT4_LONG=1 tries five times as many.
"""

import os
import pathlib
import random
import re
import signal
import struct
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "mount"))
import comparing  # noqa: E402
import mounting  # noqa: E402  (lies in the folder beside)
import sides  # noqa: E402
from mounting import check  # noqa: E402

# The log's checksums, and the features of the file system.
BIGALLOC = "checksums 3, bigalloc"
LOGS = {
    "no checksums": "^metadata_csum,^64bit",
    "checksums 1": "^metadata_csum",
    "checksums 2": "metadata_csum",
    "checksums 3": "metadata_csum",
    "checksums 3, orphan file": "orphan_file",
    "checksums 3, inline data": "inline_data",
    "no extents": "^extent,^64bit",
    BIGALLOC: "bigalloc",
}
LOAD_ONLY = (BIGALLOC,)  # clusters leave nothing of many pieces to cut
FEATURES = {"checksums 1": "journal_checksum", "checksums 2": "journal_checksum_v2", "checksums 3": "journal_checksum_v3"}
CUT = ("cut 0", "cut 1")
# How many islands the files have that are cut, and how large one is, in bytes. Two leaves of a tree never name blocks of one
# cluster: e2fsck 1.47.0 does not get past an orphan like that, the kernel's neither ("Already cleared block").
ISLANDS = {BIGALLOC: (500, 16384)}
MANY_ISLANDS = (4000, 1024)


def new_image(scratch, log, work):
    """With the log's checksum version, which is the journal superblock's own business."""
    shape = ("-t", "ext4", "-b", "1024", "-I", "256", "-O", LOGS[log] + ("" if work is load else ",^resize_inode"))
    if work is load:
        image = scratch.image("image", "64M", *shape, "-J", "size=4")
    else:
        # Small groups and a small log: the bitmaps of a large file are more than a transaction may have. Its extents fit
        # into one level of leaves, as e2fsck 1.47.0 fails at finishing a truncation of more, whoever began it.
        image = scratch.image("image", "128M", *shape, "-J", "size=1", "-g", "256", "-N", "4096")
        directory = scratch.kernel_mount(image)
        for name, islands in zip(CUT, (32, 15)):
            with open(directory / name, "wb") as file:
                for number in range(islands):
                    file.seek(number * 2001 * 1024)
                    file.write(b"%08d" % number * (2000 * 128))
        scratch.kernel_umount(directory)
    if log == "checksums 2":
        mounting.run("debugfs", "-w", image, input="jo -c -v 2\njc\n")
    elif log == "checksums 1":
        block = int(mounting.run("debugfs", "-R", "bmap <8> 0", image).stdout.split()[-1])
        with open(image, "r+b") as file:
            file.seek(block * 1024 + 0x24)
            file.write(struct.pack(">I", 1))  # s_feature_compat: checksums in commit blocks
    return image


def pulse(side, ended):
    """Small syncs one after the other, so that whatever else goes on is spread over many transactions."""
    number = 0
    try:
        while True:
            number += 1
            side.write("pulse", b"%08d" % number, number % 64 * 8, sync=True)
    except OSError:
        ended.set()  # the mount is dead


def prepare(side, work, islands):
    side.nameless("nameless", b"nameless" * 40000)
    if work is load:
        for name in CUT:
            side.islands(name, *islands)
    side.write("steady", b"was synced" * 3000, sync=True)


def load(side, choice, islands):
    """Changes until the writer dies: names and directories come and go, files are cut and grow again."""
    count, size = islands
    number = 0
    while True:
        number += 1
        folder = f"folder {number}"
        side.mkdir(folder)
        for part in range(choice.randrange(1, 12)):
            side.write(f"{folder}/file {part}", choice.randbytes(choice.choice((0, 20, 700, 3000, 40000))),
                       sync=part % 4 == 3)
        side.setxattr(f"{folder}/file 0", "user.name", choice.randbytes(choice.choice((10, 300, 700))))
        side.rename(f"{folder}/file 0", f"moved {number % 7}")
        if number % 5 == 2:
            side.truncate("cut 0", choice.randrange(count * size * 2))
        if number % 10 == 4:
            side.islands("cut 1", count // 5, size)
            side.unlink("cut 1")
        if number % 3 == 0:
            empty = f"empty {number}"
            side.mkdir(empty)
            side.write("steady", b"was synced", 0, sync=True)
            side.rmdir(empty)  # its block stands in the log


def truncations(side, choice, _):
    """A truncation and a deletion of several transactions each, every other time beside a thread that syncs.

    Whose writes fall between two of the truncation's is chance there: alone, most of the first writes are in its middle."""
    ended = threading.Event()
    beside = choice.random() < 0.5
    syncing = threading.Thread(target=pulse, args=(side, ended), daemon=True)
    if beside:
        syncing.start()
    side.die_after(choice.randrange(1, choice.choice((15, 250, 1400)) if beside else 30))
    side.truncate(CUT[0], choice.choice((0, 1_000_100)))
    side.unlink(CUT[1])
    if not beside:
        syncing.start()
    ended.wait()


def start(make_side, log, work, seed):
    """The writer, a process of its own. Returns (its number, a descriptor that tells when the load begins)."""
    reader, told = os.pipe()
    child = os.fork()
    if child:
        os.close(told)
        return child, reader
    status = 3
    try:
        os.close(reader)
        choice = random.Random(seed)
        islands = ISLANDS.get(log, MANY_ISLANDS)
        side = make_side()
        prepare(side, work, islands)
        if work is load:
            side.die_after(choice.randrange(1, 1500))
        os.write(told, b"!")
        work(side, choice, islands)
        status = 0
    except OSError as error:
        print(f"  the writer ended: {error}", flush=True)
        status = 0
    finally:
        os._exit(status)


def left(scratch, image, log, way, data, work, seed):
    """Lets a writer begin and kills it, or the server that it writes to."""
    delay = random.Random(seed).uniform(0.001, 0.03 if work is truncations else 0.25)
    directory = scratch.mount(image, options=f"data={data}") if way == "mount" else None
    make_side = ((lambda: sides.InMount(directory)) if way == "mount" else
                 (lambda: sides.InLibrary(sys.argv[2], image, f"data={data}")))
    child, ready = start(make_side, log, work, seed)
    try:
        check(os.read(ready, 1) == b"!", "the writer failed before its load began")
        if way == "mount":
            time.sleep(delay)
            scratch.kill(directory)
        limit = time.monotonic() + 60
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
            check(time.monotonic() < limit, "the writer does not end")
            time.sleep(0.005)
        child = 0
        status = os.waitstatus_to_exitcode(ended[1])
        check(status == (0 if way == "mount" else -signal.SIGKILL), f"the writer ended with {status}")
    finally:
        os.close(ready)
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def recovered_by_e2fsck(image, target):
    """The log and the orphans, and nothing else is wrong; then the superblock's counts, which no log keeps up to date.
    Returns the copy and what e2fsck says of orphans."""
    copy = mounting.copy_image(image, target)
    told = mounting.run("e2fsck", "-y", "-E", "journal_only", copy, accept=(0, 1)).stdout
    comparing.clean_after_journal_only(copy)
    mounting.run("e2fsck", "-fy", copy, accept=(0, 1))
    mounting.clean(copy)
    return copy, told


def one(scratch, log, way, data, work, seed, seen):
    what = f"{log}, data={data}, {way}, {work.__name__}, seed {seed}"
    image = new_image(scratch, log, work)
    left(scratch, image, log, way, data, work, seed)
    features = comparing.superblock(image)
    check("needs_recovery" in features["Filesystem features"], f"{what}: nothing is left to recover")
    check(FEATURES.get(log.split(",", 1)[0], "") in features.get("Journal features", ""),
          f"{what}: the log has {features.get('Journal features')}")
    revokes = mounting.run("debugfs", "-R", "logdump -a", image).stdout.count("(revoke table)")
    ours = comparing.recovered_by_us(scratch, image)
    kernels = comparing.recovered_by_the_kernel(scratch, image)
    checkers, told = recovered_by_e2fsck(image, scratch.path("checkers"))
    check("learing orphaned inode" in told, f"{what}: the file without a name is no orphan: {told}")
    under_way = len(re.findall("runcating orphaned inode", told))
    cut = {b"./" + name.encode() for name in CUT}
    table = comparing.same(scratch, ours, kernels, what, cut)
    comparing.same(scratch, checkers, kernels, what, cut, "e2fsck")
    check(b"./nameless" not in table, f"{what}: the file without a name has its name back")
    check(table[b"./steady"]["size"] == 30000, f"{what}: what was synced is not there")
    comparing.remove(image, ours, kernels, checkers)
    seen["revokes", log] = seen.get(("revokes", log), 0) + revokes
    seen["truncations", way] = seen.get(("truncations", way), 0) + under_way
    print(f"{what}: {len(table)} entries are the same; {revokes} blocks of revokes, {under_way} truncations under way",
          flush=True)


def test(scratch):
    seed = int(os.environ.get("UEXT4_SEED", time.time_ns() % 1_000_000 if mounting.is_long() else 1))
    print(f"UEXT4_SEED={seed}", flush=True)
    seen = {}
    for again in range(5 if mounting.is_long() else 1):
        for place, log in enumerate(LOGS):
            for number, data in enumerate(("ordered", "journal")):
                ways = ("library", "mount") if (again + place // 2 + number) % 2 else ("mount", "library")
                for way, work in zip(ways, (load, truncations)):
                    if log in LOAD_ONLY and work is truncations:
                        continue
                    seed += 1
                    one(scratch, log, way, data, work, seed, seen)

    def until_seen(what, log, way, work):
        """The moment of a kill is a matter of luck: it is tried again until `what` was met."""
        nonlocal seed
        for _ in range(40):
            if seen.get(what):
                return
            seed += 1
            one(scratch, log, way, "journal", work, seed, seen)
        check(seen.get(what), f"{what}: not met in 40 kills")

    # A truncation's first transaction commits when it is full, or when somebody syncs: not each moment is in between.
    for way in ("library", "mount"):
        until_seen(("truncations", way), "checksums 3", way, truncations)
    for log in LOGS:
        until_seen(("revokes", log), log, "mount", load)


if __name__ == "__main__":
    mounting.main(test)
