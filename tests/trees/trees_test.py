#!/usr/bin/env python3
"""A tree of everything, in every format: what the program writes, the kernel reads, and the other way round.

The tree is copied into an image through the mount and, into another one, by `uext4 cp -a`; it is changed, partly removed
and renamed through the mount and by the shell; e2fsck finds nothing, and the kernel's mount agrees with the source and
with our mount in contents, modes, owners, times, links and attributes. Then the kernel writes the same, and the mount,
`uext4 cp -a` and the library read it.

Usage: trees_test.py PROGRAM LIBRARY [PART/PARTS]. With UEXT4_LONG=1 the tree has 20,000 real files and a directory of
100,000 entries. UEXT4_FORMATS names formats to try, separated by ';'. Of PARTS parts of the formats PART is tried.
"""

import os
import pathlib
import random
import shutil
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "mount"))
import changes  # noqa: E402
import mounting  # noqa: E402  (lies in the folder beside)
import specimens  # noqa: E402
import views  # noqa: E402
from formats import FORMATS  # noqa: E402
from mounting import check  # noqa: E402


class Source:
    """The tree to copy, its table, and what the table is after the changes."""

    def __init__(self, scratch):
        self.tree = scratch.path("source")
        self.extra = scratch.path("extra")
        files, crowd, largest = (22_000, 100_000, 1 << 20) if mounting.is_long() else (300, 1_500, 60_000)
        self.real = specimens.make(self.tree, self.extra, files, crowd, largest, random.Random(1))
        self.table = views.of_host(self.tree)
        self.extra_table = views.of_host(self.extra)
        self.steps, touched = changes.plan(self.table)
        copy = scratch.path("changed")
        mounting.run("cp", "-a", self.tree, copy)
        changes.apply(copy, self.steps)
        self.changed = views.of_host(copy)
        self.touched = changes.touched_in(self.table, self.changed, touched)
        shutil.rmtree(copy)

    def tables(self, shape):
        """The table before and after the changes, as this format holds them."""
        extra = {path: entry for path, entry in self.extra_table.items() if path != b"."} if shape.big_values else {}
        return views.in_format(self.table | extra, shape), views.in_format(self.changed | extra, shape)


def copy_by_programs(source, shape, target):
    """As users copy: rsync for the real files, cp for the rest."""
    rsync = shutil.which("rsync") is not None
    if rsync:
        mounting.run("rsync", "-aHAX", "--modify-window=-1", f"{source.tree}/include", f"{source.tree}/share", f"{target}/")
    for folder in ((source.tree, source.extra) if shape.big_values else (source.tree,)):
        for name in sorted(os.listdir(folder)):
            if not (rsync and name in ("include", "share")):
                mounting.run("cp", "-a", folder / name, target)
    shutil.copystat(source.tree, target)


def new_image(scratch, name, shape):
    size, inodes = (shape.room, "200000") if mounting.is_long() else ("160M", "12000")
    return scratch.image(name, size, *shape.options, "-b", str(shape.block), "-N", inodes)


def kernel_table(scratch, image):
    seen = scratch.kernel_mount(image, options="ro")
    table = views.of_host(seen)
    scratch.kernel_umount(seen)
    return table


def read_by_all(scratch, library, image, what):
    """The kernel's table of an image, after mount, library and verbs have shown the same."""
    mounting.clean(image)
    table = kernel_table(scratch, image)
    directory = scratch.mount(image, options="ro")
    views.same(table, views.of_host(directory), f"{what}: the kernel and our mount")
    scratch.umount(directory)
    opened = views.Library(library, image)
    try:
        views.same(table, opened.tree(), f"{what}: the kernel and the library")
    finally:
        opened.close()
    return table


def through_the_mount(scratch, source, shape, library, what):
    before, after = source.tables(shape)
    image = new_image(scratch, "image", shape)
    directory = scratch.mount(image)
    copy_by_programs(source, shape, directory)
    live = views.of_host(directory)
    scratch.umount(directory)
    table = read_by_all(scratch, library, image, f"{what}, copied through the mount")
    # In a mount the kernel's cache keeps the times that were set, whatever the inode can hold.
    views.same(table, views.in_format(live, shape), f"{what}: the kernel and the mount that wrote it", views.COPIED + ("inode", "ctime"))
    views.same(before, table, f"{what}: the source and what the kernel reads", views.COPIED, True)
    directory = scratch.mount(image)
    changes.apply(directory, source.steps)
    scratch.umount(directory)
    table = read_by_all(scratch, library, image, f"{what}, changed through the mount")
    views.same(after, table, f"{what}: the changed source and what the kernel reads", views.COPIED, True, source.touched)
    os.unlink(image)


def by_the_verbs(scratch, source, shape, library, what):
    before, after = source.tables(shape)
    image = new_image(scratch, "image", shape)
    if shape.big_values:
        mounting.run(scratch.program, "cp", "-a", source.extra / "big values", f"{image}:/")
    mounting.run(scratch.program, "cp", "-a", f"{source.tree}/.", f"{image}:/")
    mounting.clean(image)
    table = kernel_table(scratch, image)
    views.same(before, table, f"{what}: the source and the copy of uext4 cp", views.COPIED, True)
    done = subprocess.run([scratch.program, "shell", str(image)], input=changes.commands(source.steps),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    check(done.returncode == 0, f"{what}: the shell ends with {done.returncode}: {done.stdout[:2000]!r}")
    table = read_by_all(scratch, library, image, f"{what}, changed by the shell")
    views.same(after, table, f"{what}: the changed source and the image", views.COPIED, True, source.touched)
    os.unlink(image)


def written_by_the_kernel(scratch, source, shape, library, what):
    image = new_image(scratch, "image", shape)
    directory = scratch.kernel_mount(image)
    copy_by_programs(source, shape, directory)
    changes.apply(directory, source.steps)
    scratch.kernel_umount(directory)
    table = read_by_all(scratch, library, image, f"{what}, written by the kernel")
    out = scratch.path("out")
    mounting.run(scratch.program, "cp", "-a", f"{image}:/", out)
    views.same(table, views.of_host(out), f"{what}: the kernel and uext4 cp out of the image", views.COPIED, True)
    shutil.rmtree(out)
    os.unlink(image)


def selection(names):
    chosen = os.environ.get("UEXT4_FORMATS")
    if chosen:
        return [name for name in chosen.split(";") if name]
    if len(sys.argv) > 3:
        part, parts = map(int, sys.argv[3].split("/"))
        return names[part - 1::parts]
    return names


def test(scratch):
    mounting.need("cp")
    library = pathlib.Path(sys.argv[2]).resolve()
    began = time.monotonic()
    source = Source(scratch)
    print(f"the source has {len(source.table)} entries, {source.real} real files, {len(source.steps)} changes", flush=True)
    for name in selection(list(FORMATS)):
        shape = FORMATS[name]
        for way in (through_the_mount, by_the_verbs, written_by_the_kernel):
            way(scratch, source, shape, library, name)
        print(f"{name}: the same in all views, {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    mounting.main(test)
