#!/usr/bin/env python3
"""Fast commits that the kernel left are replayed to the tree that the kernel's own replay gives.

The kernel carries out a scenario with an fsync after each step and is shut down without its log flushed. One copy is
recovered by the program, one by a mount of the kernel. Directories get the time of the recovery from either, so their
times are not compared. The kernel's replay leaves link counts and sizes of new directories wrong, which e2fsck mends on
its copy before the two are compared; the program's copy must be clean as it is. Where the kernel does not mount what it
left (orphans, numbers used again, directories that got an index), all was synced at the end of the scenario, and the tree
must be as it was before.

Usage: fast_commit_test.py PROGRAM
"""

import fcntl
import json
import os
import pathlib
import stat
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "mount"))
import comparing  # noqa: E402
import fast_commit_scenarios as scenarios  # noqa: E402
import mounting  # noqa: E402  (lies in the folder beside)
import views  # noqa: E402
from mounting import check  # noqa: E402

AREA = ("-J", "size=4,fast_commit_size=512")
FORMATS = {
    "default": ("-b", "4096", "-O", "fast_commit", *AREA),
    "blocks of 1024": ("-b", "1024", "-O", "fast_commit"),
    "inline data": ("-b", "4096", "-O", "fast_commit,inline_data", *AREA),
    "no checksums": ("-b", "4096", "-O", "fast_commit,^metadata_csum,^64bit", *AREA),
    "orphan file": ("-b", "4096", "-O", "fast_commit,orphan_file", *AREA),
    "clusters": ("-b", "4096", "-O", "fast_commit,bigalloc", "-C", "16384", *AREA),
    "small inodes": ("-b", "4096", "-I", "128", "-O", "fast_commit", *AREA),
}


def leave(scratch, image, scenario):
    """Returns the tree as it was before the kernel vanished."""
    directory = scratch.kernel_mount(image)
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    work = scenarios.Work(directory)
    try:
        scenario(work)
        alive = views.of_host(directory)
        fcntl.ioctl(root, mounting.IOC_SHUTDOWN, struct.pack("I", mounting.SHUTDOWN_NO_FLUSH))
    finally:
        work.close()
        os.close(root)
    scratch.kernel_umount(directory)
    return alive


def fast_commits(scratch, image):
    """What `uext4 journal` lists of them."""
    told = json.loads(mounting.run(scratch.program, "journal", "--json", image).stdout)
    return told["fast_commits"]


def recovered_by_the_kernel(scratch, image):
    """Mended by e2fsck where that is needed. Returns the copy and who did it; nothing where the kernel does not mount it:
    there are fast commits of its own that it cannot replay."""
    copy = mounting.copy_image(image, scratch.path("kernels"))
    try:
        scratch.kernel_umount(scratch.kernel_mount(copy))
    except mounting.Failure:
        os.unlink(copy)
        return None, "what was there, which the kernel does not mount"
    mended = mounting.run("e2fsck", "-fy", copy, accept=(0, 1)).returncode == 1
    mounting.clean(copy)
    return copy, "the kernel's, mended by e2fsck" if mended else "the kernel's"


FIEMAP, FIEMAP_EXTENTS = 0xC020660B, 2000
UNWRITTEN = 0x800


def extents(path):
    """[(logical, physical, length, unwritten)] of a file in bytes, in pieces as long as can be."""
    buffer = bytearray(32 + 56 * FIEMAP_EXTENTS)
    struct.pack_into("=QQIII", buffer, 0, 0, (1 << 64) - 1, 0, 0, FIEMAP_EXTENTS)
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, FIEMAP, buffer)
    finally:
        os.close(fd)
    found = []
    for index in range(struct.unpack_from("=I", buffer, 20)[0]):
        logical, physical, length, flags = struct.unpack_from("=QQQ16xI", buffer, 32 + 56 * index)
        unwritten = bool(flags & UNWRITTEN)
        if found and found[-1][0] + found[-1][2] == logical and found[-1][1] + found[-1][2] == physical and found[-1][3] == unwritten:
            found[-1] = (found[-1][0], found[-1][1], found[-1][2] + length, unwritten)
        else:
            found.append((logical, physical, length, unwritten))
    return found


def table_of(scratch, image, by_mount=False):
    directory = scratch.mount(image, options="ro") if by_mount else scratch.kernel_mount(image, options="ro")
    table = views.of_host(directory)
    for path, entry in table.items():
        if entry["kind"] == stat.S_IFREG and not by_mount:
            entry["extents"] = extents(os.fsencode(directory) + b"/" + path)
    (scratch.umount if by_mount else scratch.kernel_umount)(directory)
    for entry in table.values():
        for key in ("pages", "data"):  # the extents tell more, and the cache has no say in them
            entry.pop(key, None)
        if entry["kind"] == stat.S_IFDIR:
            entry.pop("mtime")
            entry.pop("ctime")
    return table


def goes_on(scratch, image, expected, what):
    """The image, mounted by us for writing, lives on with the kernel: ordinary commits, then fast ones again."""
    directory = scratch.mount(image)
    (directory / "written by us").write_bytes(b"ours" * 5000)
    scratch.kill(directory)  # what is in the log now is an ordinary commit, if it is there
    directory = scratch.mount(image)
    (directory / "written by us").write_bytes(b"ours" * 5000)
    scratch.umount(directory)
    mounting.clean(image)
    leave(scratch, image, lambda w: w.write("written by the kernel", b"kernel" * 5000))
    ours = comparing.recovered_by_us(scratch, image, "again")
    table = table_of(scratch, ours)
    for name in (b"./written by us", b"./written by the kernel"):
        check(table.pop(name)["size"] > 0, f"{what}: {name} is empty")
    missing = {path for path in expected.keys() ^ table.keys() if not path.startswith(b"./lost+found")}
    check(not missing, f"{what}: names differ after it was written again: {missing}")
    os.unlink(ours)


def spare_inline(expected, got, alive):
    """The kernel's replay loses what is in the blocks of a file that grew out of its inode, but for those that it was told
    of later; the program's must then be what was there before. And it keeps more room for names in an inode than they
    need."""
    for path in expected.keys() & got.keys():
        theirs, own = expected[path], got[path]
        if own["kind"] == stat.S_IFDIR:
            theirs["size"] = own["size"] = 0
        elif theirs["content"] != own["content"] and theirs["blocks"] < own["blocks"] and own["content"] == alive[path]["content"]:
            for key in ("content", "extents"):
                theirs[key] = own[key]
            theirs["lost"] = own["lost"] = True


def spare_times(expected, got, alive):
    """An orphan's number that was used again: the kernel takes the new file for one that was being cut, and stamps it."""
    for path in expected.keys() & got.keys() & alive.keys():
        for key in ("mtime", "ctime"):
            if key in got[path] and got[path][key] == alive[path][key]:
                expected[path][key] = got[path][key]


def compare(expected, got, kernels, ours, what):
    """The same trees. Blocks (clusters) of an extent tree or of a directory may be more or less where it was built in
    another way: not more than two, and as many as are free or used because of it. What the kernel forgot to free is where e2fsck found it."""
    by_kernel, by_us = comparing.superblock(kernels), comparing.superblock(ours)
    block = int(by_us["Block size"])
    unit = int(by_us.get("Cluster size", block))
    forgotten = [expected.pop(path) for path in list(expected) if path.startswith(b"./lost+found/")]
    for table in (expected, got):
        table.pop(b"./lost+found", None)
    trees = -sum(entry["blocks"] for entry in forgotten) * 512 // block
    seen = set()
    for path in expected.keys() & got.keys():
        if expected[path]["inode"] in seen:
            got[path]["blocks"] = expected[path]["blocks"]
            continue
        seen.add(expected[path]["inode"])
        difference = got[path]["blocks"] - expected[path]["blocks"]
        if "lost" in got[path] or abs(difference) <= 2 * unit // 512:
            got[path]["blocks"] = expected[path]["blocks"]
            if expected[path]["kind"] == stat.S_IFDIR and abs(got[path]["size"] - expected[path]["size"]) <= 2 * unit:
                got[path]["size"] = expected[path]["size"]  # names split otherwise; a tree of extents may take the block
            trees += difference * 512 // block
    views.same(expected, got, f"{what}: recovered by the kernel and by the program")
    for field in comparing.COUNTS:
        theirs, own = by_kernel.get(field), by_us.get(field)
        if field == "Free blocks":
            own = str(int(own) + trees)
        if field == "Free inodes":
            own = str(int(own) - len(forgotten))
        check(theirs == own, f"{what}: {field}: {theirs} after the kernel, {own} after the program")


def one(scratch, format_name, scenario, name):
    what = f"{format_name}, {name}"
    image = scratch.image("image", "64M", "-t", "ext4", *FORMATS[format_name])
    alive = leave(scratch, image, scenario)
    commits = fast_commits(scratch, image)
    kernels, by = recovered_by_the_kernel(scratch, image)
    shown = table_of(scratch, image, by_mount=True)
    check(commits == fast_commits(scratch, image), f"{what}: a read-only mount changed the log")
    ours = comparing.recovered_by_us(scratch, image)
    got = table_of(scratch, ours)
    for path, entry in got.items():
        shown[path].update(extents=entry["extents"]) if "extents" in entry and path in shown else None
    views.same(got, shown, f"{what}: recovered on the image and in memory")
    check(not fast_commits(scratch, ours)["commits"], f"{what}: fast commits are left after the recovery")
    if kernels:
        expected = table_of(scratch, kernels)
        if "inline" in format_name:
            spare_inline(expected, got, alive)
        if scenario is scenarios.orphan_gone:
            spare_times(expected, got, alive)
        compare(expected, got, kernels, ours, what)
        os.unlink(kernels)
    else:
        for table in (alive, got):
            for path in table:
                table[path] = {key: table[path][key] for key in ("kind", "mode", "owner", "links", "content", "inode")}
        views.same(alive, got, f"{what}: before the crash and recovered by the program")
    goes_on(scratch, ours, got, what)
    comparing.remove(image, ours)
    print(f"{what}: {commits['commits']} fast commits of {len(commits['operations'])} operations, {len(got)} entries are "
          f"as {by}", flush=True)
    return commits["commits"]


def test(scratch):
    wanted = set(sys.argv[2:])
    found = 0
    todo = [(scenario, scenario.__name__) for scenario in scenarios.SCENARIOS]
    for format_name in FORMATS:
        for scenario, name in todo:
            if not wanted or name in wanted or format_name in wanted:
                found += one(scratch, format_name, scenario, name)
        for seed in range(int(os.environ.get("UEXT4_SEED", "1")), int(os.environ.get("UEXT4_SEED", "1")) +
                          int(os.environ.get("UEXT4_OPERATIONS", "60" if mounting.is_long() else "3"))):
            if not wanted or format_name in wanted or "mixture" in wanted:
                found += one(scratch, format_name, scenarios.mixture(seed), f"mixture {seed}")
    check(found, "the kernel made no fast commits")


if __name__ == "__main__":
    mounting.main(test)
