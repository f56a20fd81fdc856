#!/usr/bin/env python3
"""Images whose superblock and group descriptors are overwritten are read by their backups (option sb=).

The kernel fills an image after mke2fs has made it, so that the backup descriptors are old. The primary superblock and
descriptors, which dumpe2fs names, are overwritten with zeros and with random bytes. The error names the backups; by the
first and the last of them the tree and the free space are those of the whole image, `check` finds nothing but the
primary superblock, and the kernel's mount by the same option shows the same tree. e2fsck repairs by the named command.

Usage: backup_super_test.py PROGRAM
"""

import fcntl
import os
import pathlib
import random
import re
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "mount"))
import mounting  # noqa: E402  (lies in the folder beside)
from mounting import check, run  # noqa: E402

FORMATS = {
    "ext2 1k": ("48M", "-t", "ext2", "-b", "1024"),
    "ext2 revision 0": ("40M", "-t", "ext2", "-b", "1024", "-r", "0", "-O", "none"),
    "ext2 every group": ("48M", "-t", "ext2", "-b", "1024", "-O", "^sparse_super,^resize_inode"),
    "ext3 2k": ("96M", "-t", "ext3", "-b", "2048"),
    "ext3 4k": ("300M", "-t", "ext3", "-b", "4096"),
    "ext4 1k": ("64M", "-t", "ext4", "-b", "1024"),
    "ext4 2k": ("100M", "-t", "ext4", "-b", "2048"),
    "ext4 4k": ("600M", "-t", "ext4", "-b", "4096"),
    "ext4 4k 32-byte descriptors": ("300M", "-t", "ext4", "-b", "4096", "-O", "^64bit"),
    "ext4 1k many descriptor blocks": ("300M", "-t", "ext4", "-b", "1024", "-N", "8192"),
    "no flex_bg": ("64M", "-t", "ext4", "-b", "1024", "-O", "^flex_bg"),
    "uninit_bg": ("64M", "-t", "ext4", "-b", "1024", "-O", "^metadata_csum,uninit_bg,^64bit"),
    "uninit_bg 64bit": ("300M", "-t", "ext4", "-b", "4096", "-O", "^metadata_csum,uninit_bg,64bit"),
    "no checksums": ("64M", "-t", "ext4", "-b", "1024", "-O", "^metadata_csum,^uninit_bg"),
    "sparse_super2": ("64M", "-t", "ext4", "-b", "1024", "-O", "sparse_super2,^resize_inode"),
    "sparse_super2 4k": ("600M", "-t", "ext4", "-b", "4096", "-O", "sparse_super2,^resize_inode"),
    "meta_bg": ("300M", "-t", "ext4", "-b", "1024", "-N", "8192", "-O", "meta_bg,^resize_inode"),
    "meta_bg 32-byte descriptors": ("500M", "-t", "ext4", "-b", "1024", "-N", "8192",
                                    "-O", "meta_bg,^resize_inode,^64bit,^flex_bg,^metadata_csum,uninit_bg"),
    "bigalloc": ("1200M", "-t", "ext4", "-b", "1024", "-O", "bigalloc", "-C", "16384"),
    "bigalloc 4k": ("3G", "-t", "ext4", "-b", "4096", "-O", "bigalloc"),
    "orphan file": ("64M", "-t", "ext4", "-b", "1024", "-O", "orphan_file"),
    "inline data": ("64M", "-t", "ext4", "-b", "1024", "-O", "inline_data"),
}
IOC_SHUTDOWN, FLUSH_LOG = mounting.IOC_SHUTDOWN, mounting.SHUTDOWN_FLUSH_LOG


def fill(directory, seed):
    """Directories in all groups, files of several sizes, some of them removed again."""
    choice = random.Random(seed)
    for number in range(40):
        folder = directory / f"folder{number}"
        folder.mkdir()
        for inner in range(12):
            (folder / f"file{inner}").write_bytes(choice.randbytes(choice.choice((0, 50, 3000, 30000))))
        for inner in range(0, 12, 5):
            (folder / f"file{inner}").unlink()
        os.symlink("file1", folder / "link")
        os.mkfifo(folder / "fifo")
    (directory / "large").write_bytes(choice.randbytes(6 << 20))


def layout(image):
    """Block size, the blocks of the primary superblock and descriptors, those of the backup superblocks, and where group 1
    has descriptors."""
    told = run("dumpe2fs", image).stdout
    size = int(re.search(r"^Block size:\s+(\d+)", told, re.M)[1])
    primary = int(re.search(r"Primary superblock at (\d+)", told)[1])
    after = told[told.index("Primary superblock at"):]
    place = re.search(r"Group descriptors? at (\d+)(?:-(\d+))?", after)
    if place is None:
        first, last = primary + 1, primary
    else:
        first, last = int(place[1]), int(place[2] or place[1])
    backups = [int(block) for block in re.findall(r"Backup superblock at (\d+)", told)]
    second = re.search(r"Group descriptors? at (\d+)", told[told.index("\nGroup 1:"):])
    return size, [primary, *range(first, last + 1)], backups, int(second[1]) if second else 0


def overwrite(image, size, blocks, random_bytes):
    with open(image, "r+b") as file:
        for block in blocks:
            file.seek(block * size)
            file.write(random.Random(block).randbytes(size) if random_bytes else bytes(size))


def view(scratch, mount, image, options):
    """The tree and the free space (blocks, inodes) by a mount."""
    directory = mount(image, options=options)
    seen = mounting.tree(directory)
    space = os.statvfs(directory)
    (scratch.umount if directory in scratch.servers else scratch.kernel_umount)(directory)
    return seen, (space.f_blocks, space.f_bfree, space.f_files, space.f_ffree)


def by_option(scratch, name, image, kib, whole):
    """One backup: the tree, the space, `check`, `cat`, and the kernel."""
    what = f"{name}, sb={kib}"
    tree, space = view(scratch, scratch.mount, image, f"ro,sb={kib}")
    mounting.same_tree(whole[0], tree, what)
    check(space == whole[1], f"{what}: free space {space}, of the whole image {whole[1]}")
    told = run(scratch.program, "check", "-o", f"sb={kib}", image, accept=(0, 1, 2))
    problems = [line for line in told.stdout.splitlines() if re.match(r"[a-z ]+( \d+)?: ", line)]
    check(told.returncode == 1 and len(problems) == 1 and problems[0].startswith("superblock: s_magic is 0x"),
          f"{what}: check ends with {told.returncode}\n{told.stdout}")
    run(scratch.program, "cat", "-o", f"sb={kib}", f"{image}:/folder7/file1")
    refused = run(scratch.program, "mkdir", "-o", f"sb={kib}", f"{image}:/new", accept=(2,)).stdout
    check("e2fsck -b" in refused, f"{what}: mkdir: {refused}")
    if not name.startswith("meta_bg"):  # the kernel looks for those of a meta group in its first group only
        mounting.same_tree(whole[0], view(scratch, scratch.kernel_mount, image, f"ro,sb={kib}")[0], f"{what}: the kernel")


def one_format(scratch, name, random_bytes):
    size, *options = FORMATS[name]
    image = scratch.image("image", size, *options)
    directory = scratch.kernel_mount(image)
    fill(directory, 3)
    scratch.kernel_umount(directory)
    run("e2fsck", "-fn", image)
    whole = view(scratch, scratch.mount, image, "ro")
    block_size, primary, backups, second = layout(image)
    check(backups, f"{name}: mke2fs made no backup")
    overwrite(image, block_size, primary, random_bytes)
    kib = block_size // 1024
    refused = run(scratch.program, "ls", f"{image}:/", accept=(2,)).stdout
    named = [int(number) for number in re.findall(r"\bsb=(\d+)", refused)]
    check(named and set(named) <= {block * kib for block in backups}, f"{name}: {refused}\nbackups are at {backups}")
    command = re.search(r"e2fsck -b (\d+) -B (\d+)", refused)
    check(command and (int(command[1]), int(command[2])) == (named[0] // kib, block_size), f"{name}: {refused}")
    if name.startswith("meta_bg"):
        # The copy in the second group of the meta group as well: the last one has another.
        before = image.read_bytes()
        overwrite(image, block_size, [second], random_bytes)
        by_option(scratch, f"{name}, second copy gone", image, named[0], whole)
        image.write_bytes(before)
    for block in sorted({backups[0], backups[-1]}):
        by_option(scratch, name, image, block * kib, whole)
    run("e2fsck", "-fy", "-b", command[1], "-B", command[2], image, accept=(0, 1))
    mounting.same_tree(whole[0], view(scratch, scratch.mount, image, "ro")[0], f"{name}: after e2fsck")
    image.unlink()


def with_a_log(scratch):
    """What the log holds is replayed in memory, as e2fsck -b does it: the backup superblock does not say that it must."""
    image = scratch.image("image", "64M", "-t", "ext4", "-b", "1024")
    directory = scratch.kernel_mount(image)
    fill(directory, 5)
    fd = os.open(directory, os.O_RDONLY)
    fcntl.ioctl(fd, IOC_SHUTDOWN, struct.pack("I", FLUSH_LOG))
    os.close(fd)
    scratch.kernel_umount(directory)
    check("needs_recovery" in run("dumpe2fs", "-h", image).stdout, "the image has nothing to replay")
    whole = view(scratch, scratch.mount, image, "ro")
    check(b"folder39/file1" in whole[0], "the log did not reach the image")
    block_size, primary, backups, _ = layout(image)
    overwrite(image, block_size, primary, False)
    before = image.read_bytes()
    tree, space = view(scratch, scratch.mount, image, f"ro,sb={backups[0]}")
    mounting.same_tree(whole[0], tree, "a log to replay")
    check(space == whole[1], f"a log to replay: free space {space}, of the whole image {whole[1]}")
    run(scratch.program, "ls", "-o", f"noload,sb={backups[0]}", f"{image}:/")
    check(image.read_bytes() == before, "reading by a backup wrote to the image")
    image.unlink()


def wrong_places(scratch):
    image = scratch.image("image", "64M", "-t", "ext4", "-b", "4096", "-O", "^metadata_csum")
    for option, text in (("sb=77", "option sb=77: no superblock is there"), ("sb=99999999", "ends before it"),
                         ("sb=18446744073709551615", "ends before it")):
        told = run(scratch.program, "ls", "-o", option, f"{image}:/", accept=(2,)).stdout
        check(text in told, f"{option}: {told}")
    # The number of the block, which e2fsck takes: the error gives the number of KiB.
    larger = scratch.image("larger", "300M", "-t", "ext4", "-b", "4096")
    told = run(scratch.program, "ls", "-o", "sb=32768", f"{larger}:/", accept=(2,)).stdout
    check("no superblock is there" in told and "sb=131072" in told, told)
    larger.unlink()
    # A file system of one group has no backup, and random bytes have none: no option is named.
    overwrite(image, 4096, [0], False)
    told = run(scratch.program, "ls", f"{image}:/", accept=(2,)).stdout
    check("sb=" not in told and "0xef53" in told, told)
    image.unlink()
    # A superblock that is there, and absurd or with a wrong checksum.
    for place, options in ((24, ("-O", "^metadata_csum")), (24, ("-O", "metadata_csum"))):
        image = scratch.image("image", "64M", "-t", "ext4", "-b", "1024", *options)
        with open(image, "r+b") as file:
            file.seek(1024 + place)
            file.write(b"\x63")
        told = run(scratch.program, "ls", f"{image}:/", accept=(2,)).stdout
        check("sb=8193, sb=24577, sb=40961" in told, told)
        image.unlink()


def test(scratch):
    mounting.need("dumpe2fs", "e2fsck", "mke2fs")
    wrong_places(scratch)
    with_a_log(scratch)
    for number, name in enumerate(FORMATS):
        one_format(scratch, name, number % 2 == 1)


mounting.main(test)
