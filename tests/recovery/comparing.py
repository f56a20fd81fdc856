"""Two recoveries of one image compared: trees, times, blocks, free space."""

import os
import pathlib
import sys

for folder in ("mount", "trees"):
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / folder))
import mounting  # noqa: E402
import views  # noqa: E402
from mounting import check  # noqa: E402

# What the superblock counts.
COUNTS = ("Free blocks", "Free inodes", "Filesystem state", "First orphan inode", "Orphans")


def superblock(image):
    """{field: value} of dumpe2fs -h."""
    lines = mounting.run("dumpe2fs", "-h", image).stdout.splitlines()
    return {line.split(":", 1)[0]: line.split(":", 1)[1].strip() for line in lines if ":" in line}


def recovered_by_us(scratch, image, name="ours"):
    copy = mounting.copy_image(image, scratch.path(name))
    mounting.run(scratch.program, "replay", copy)
    mounting.clean(copy)
    return copy


def recovered_by_the_kernel(scratch, image, options="", name="kernels"):
    copy = mounting.copy_image(image, scratch.path(name))
    directory = scratch.kernel_mount(copy, options=options)
    scratch.kernel_umount(directory)
    mounting.clean(copy)
    return copy


def kernel_table(scratch, image):
    directory = scratch.kernel_mount(image, options="ro")
    table = views.of_host(directory)
    scratch.kernel_umount(directory)
    return table


def same(scratch, ours, kernels, what, cut=frozenset()):
    """Equal trees with all that stat tells, and equal free space. Whoever finishes a truncation of the files in `cut` has
    to write the time at which it did. Returns the table."""
    expected, got = kernel_table(scratch, kernels), kernel_table(scratch, ours)
    for table in (expected, got):
        for path in cut & table.keys():
            table[path].pop("mtime")
            table[path].pop("ctime")
    views.same(expected, got, f"{what}: recovered by the kernel and by the program")
    by_kernel, by_us = superblock(kernels), superblock(ours)
    for field in COUNTS:
        check(by_kernel.get(field) == by_us.get(field),
              f"{what}: {field}: {by_kernel.get(field)} after the kernel, {by_us.get(field)} after the program")
    return got


def remove(*images):
    for image in images:
        os.unlink(image)
