#!/usr/bin/env python3
"""A journal that the kernel left is recovered to the same tree and metadata by the program and by the kernel.

The kernel writes a load and is shut down in the middle of it, with and without its log flushed, so that the image is
what a crash leaves. One copy is recovered by the program, one by a mount of the kernel. Files without a name that are
still open are orphans then, and so are files whose truncation is under way. Logs of checksum versions that this kernel
no longer writes are made by debugfs.

Usage: kernel_left_test.py PROGRAM
"""

import fcntl
import os
import pathlib
import random
import stat
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "mount"))
import comparing  # noqa: E402
import mounting  # noqa: E402  (lies in the folder beside)
from mounting import check  # noqa: E402

FORMATS = {
    "default": ("-t", "ext4"),
    "blocks of 1024": ("-t", "ext4", "-b", "1024"),
    "no checksums": ("-t", "ext4", "-O", "^metadata_csum,^64bit"),
    "orphan file": ("-t", "ext4", "-O", "orphan_file"),
}


def load(directory, seed):
    """Files made, changed, cut, renamed, removed; some of it fsynced. Returns {name: content} of what must be there."""
    choice = random.Random(seed)
    certain = {}
    names = []
    for number in range(150):
        name = f"file{number}"
        content = choice.randbytes(choice.choice((0, 10, 3000, 20000, 90000)))
        path = directory / name
        with open(path, "wb") as file:
            file.write(content)
            if number % 4 == 0:
                file.flush()
                os.fsync(file.fileno())
                certain[name] = content
        names.append(name)
        if number % 4 == 1:
            os.setxattr(path, "user.name", name.encode() * 5)
        if number % 7 == 3:
            os.chmod(path, 0o600 + number % 8)
        if number % 10 == 9:
            os.mkdir(directory / f"folder{number}")
            moved = choice.choice([other for other in names if other not in certain])
            os.rename(directory / moved, directory / f"folder{number}" / moved)
            names.remove(moved)
        if number % 15 == 14:
            gone = choice.choice([other for other in names if other not in certain])
            os.unlink(directory / gone)
            names.remove(gone)
    # A block of metadata that is freed and then holds data is revoked in the journal.
    for number in range(20):
        os.mkdir(directory / f"folder of {number}")
    for number in range(20):
        os.rmdir(directory / f"folder of {number}")
    with open(directory / "last", "wb") as file:
        file.write(b"last" * 50000)
        file.flush()
        os.fsync(file.fileno())
    certain["last"] = b"last" * 50000
    return certain


def leave(scratch, image, options, flag, seed):
    """The kernel writes the load and vanishes; an open file without a name is an orphan then."""
    directory = scratch.kernel_mount(image, options=options)
    orphan = os.open(directory / "orphan", os.O_RDWR | os.O_CREAT, 0o600)
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.write(orphan, b"orphan" * 50000)
        os.fsync(orphan)
        os.unlink(directory / "orphan")
        certain = load(directory, seed)
        for number in range(20):
            (directory / f"late{number}").write_bytes(b"late" * 100)
        fcntl.ioctl(root, mounting.IOC_SHUTDOWN, struct.pack("I", flag))
    finally:
        os.close(orphan)
        os.close(root)
    scratch.kernel_umount(directory)
    return certain


def one(scratch, name, options, data, flag, seed):
    what = f"{name}, data={data}, shutdown {flag}"
    image = scratch.image("image", "64M", *options)
    certain = leave(scratch, image, f"data={data}", flag, seed)
    ours = comparing.recovered_by_us(scratch, image)
    kernels = comparing.recovered_by_the_kernel(scratch, image, f"data={data}")
    table = comparing.same(scratch, ours, kernels, what)
    check(b"./orphan" not in table, f"{what}: the orphan has its name back")
    for recovered in (ours, kernels):
        directory = scratch.kernel_mount(recovered, options="ro")
        for path, content in certain.items():
            check((directory / path).read_bytes() == content, f"{what}: {path} of {recovered.name} is not what was synced")
        expected = mounting.tree(directory)
        scratch.kernel_umount(directory)
    # The mount recovers by itself, too, and what it shows is the same.
    directory = scratch.mount(image)
    mounting.same_tree(expected, mounting.tree(directory), f"{what}: recovered by the kernel and by the mount")
    scratch.umount(directory)
    mounting.clean(image)
    comparing.remove(image, ours, kernels)
    print(f"{what}: {len(table)} entries are the same", flush=True)


def holes_and_blocks(path, count, block):
    """A file of `count` blocks, each with a hole before it: as many extents, or indirect blocks full of gaps."""
    with open(path, "wb") as file:
        for number in range(count):
            file.seek(number * 2 * block + block)
            file.write(b"%08d" % number * (block // 8))
        file.flush()
        os.fsync(file.fileno())


def truncation(scratch, name, options):
    """What a truncation of many transactions leaves between two of them: the new size, the inode on the orphan list, and
    beyond the size blocks that are still there. The kernel is too quick to be caught at it; debugfs writes the same."""
    what = f"{name}, truncation under way"
    image = scratch.image("image", "64M", *options, "-b", "1024", "-J", "size=4")
    directory = scratch.kernel_mount(image)
    for path in ("cut", "cut in a block", "grown"):
        holes_and_blocks(directory / path, 6000, 1024)
    numbers = {path: os.stat(directory / path).st_ino for path in ("cut", "cut in a block", "grown")}
    scratch.kernel_umount(directory)
    steps = []
    for path, size, following in (("cut", 0, "cut in a block"), ("cut in a block", 5_000_100, "grown"), ("grown", 20_000_000, None)):
        inode = f"<{numbers[path]}>"
        steps += [f"sif {inode} size {size}", f"sif {inode} dtime {numbers[following] if following else 0}"]
        steps += [f"punch {inode} 9001 20000"] if path != "grown" else []
    steps.append(f"ssv last_orphan {numbers['cut']}")
    output = mounting.run("debugfs", "-w", image, input="\n".join(steps) + "\n").stdout
    check(comparing.superblock(image).get("First orphan inode") == str(numbers["cut"]), f"{what}: debugfs: {output}")
    ours = comparing.recovered_by_us(scratch, image)
    kernels = comparing.recovered_by_the_kernel(scratch, image)
    table = comparing.same(scratch, ours, kernels, what, {b"./cut", b"./cut in a block", b"./grown"})
    check(table[b"./cut"]["blocks"] == 0, f"{what}: {table[b'./cut']['blocks']} sectors are left of it")
    comparing.remove(image, ours, kernels)
    print(f"{what}: finished as the kernel finishes it", flush=True)


def without_maps(scratch):
    """On the orphan list stand, with names, a device and short symlinks: no truncation of any kernel leaves that, but an
    image may say it. What they have in the place of a map is a number and a text, and these name blocks of a file."""
    what = "orphans without maps"
    image = scratch.image("image", "16M", "-t", "ext4", "-b", "1024", "-O", "^orphan_file")
    directory = scratch.kernel_mount(image)
    (directory / "file").write_bytes(os.urandom(4_000_000))
    scratch.kernel_umount(directory)
    asked = "".join(f"bmap file {at}\n" for at in range(3900))
    blocks = [int(line) for line in mounting.run("debugfs", image, input=asked).stdout.splitlines() if line.isdigit()]
    text = next(block for block in blocks if 0x21 <= block >> 8 < 0x7F and 0x61 <= block & 0xFF < 0x7F)
    device = next(block for block in blocks if block != text and block >> 8)
    directory = scratch.kernel_mount(image)
    os.mknod(directory / "device", 0o600 | stat.S_IFCHR, os.makedev(device >> 8, device & 0xFF))
    os.symlink(text.to_bytes(2, "little"), os.fsencode(directory) + b"/link")
    numbers = [os.lstat(directory / name).st_ino for name in ("device", "link")]
    scratch.kernel_umount(directory)
    steps = [f"sif <{numbers[0]}> dtime {numbers[1]}", f"sif <{numbers[1]}> dtime 0", f"ssv last_orphan {numbers[0]}"]
    output = mounting.run("debugfs", "-w", image, input="\n".join(steps) + "\n").stdout
    check(comparing.superblock(image).get("First orphan inode") == str(numbers[0]), f"{what}: debugfs: {output}")
    ours = comparing.recovered_by_us(scratch, image)  # e2fsck finds nothing: the blocks are the file's still
    check("First orphan inode" not in comparing.superblock(ours), f"{what}: the list has one still")
    comparing.remove(image, ours)
    print(f"{what}: taken off the list, and nothing else", flush=True)


def checksum_version(scratch, version):
    """A transaction of debugfs, with the checksums of a version (or without), and one that a revoke takes back."""
    what = f"log with checksums {version or 'of no kind'}"
    options = ("-t", "ext4", "-b", "1024") + (() if version else ("-O", "^metadata_csum"))
    image = scratch.image("image", "32M", *options)
    directory = scratch.kernel_mount(image)
    for name in ("logged", "revoked"):
        (directory / name).write_bytes(b"before\n" * 1000)
    scratch.kernel_umount(directory)
    blocks = [mounting.run("debugfs", "-R", f"bmap {name} 2", image).stdout.split()[-1] for name in ("logged", "revoked")]
    new = scratch.path("new")
    new.write_bytes(b"after!!\n" * 128)
    flag = f"-c -v {version}" if version else ""
    script = f"jo {flag}\njw -b {blocks[0]} {new}\njw -b {blocks[1]} {new}\njw -r {blocks[1]}\njc\n"
    output = mounting.run("debugfs", "-w", image, input=script).stdout
    check("needs_recovery" in comparing.superblock(image)["Filesystem features"], f"{what}: debugfs: {output}")
    ours = comparing.recovered_by_us(scratch, image)
    kernels = comparing.recovered_by_the_kernel(scratch, image)
    comparing.same(scratch, ours, kernels, what)
    directory = scratch.kernel_mount(ours, options="ro")
    logged, revoked = ((directory / name).read_bytes()[2048:3072] for name in ("logged", "revoked"))
    scratch.kernel_umount(directory)
    check(logged == new.read_bytes(), f"{what}: the log was not brought home")
    check(b"after" not in revoked, f"{what}: a revoked block was brought home")
    comparing.remove(image, ours, kernels)
    print(f"{what}: the same", flush=True)


def test(scratch):
    seed = 1
    for name, options in FORMATS.items():
        for data in ("ordered", "journal"):
            for flag in (mounting.SHUTDOWN_FLUSH_LOG, mounting.SHUTDOWN_NO_FLUSH):
                one(scratch, name, options, data, flag, seed)
                seed += 1
    for name, options in (("extents", ("-t", "ext4")), ("indirect blocks", ("-t", "ext3"))):
        truncation(scratch, name, options)
    without_maps(scratch)
    for version in (None, 2, 3):
        checksum_version(scratch, version)


if __name__ == "__main__":
    mounting.main(test)
