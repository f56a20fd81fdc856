#!/usr/bin/env python3
"""A journal that the kernel left is recovered to the same tree by the program and by the kernel.

The kernel writes a load and is shut down in the middle of it, with and without its log flushed, so that the image is
what a crash leaves. One copy is recovered by the program, one by a mount of the kernel.

Usage: kernel_left_test.py PROGRAM
"""

import fcntl
import os
import pathlib
import random
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "mount"))
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
    ours = mounting.copy_image(image, scratch.path("ours"))
    kernels = mounting.copy_image(image, scratch.path("kernels"))
    mounting.run(scratch.program, "replay", ours)
    mounting.clean(ours)
    directory = scratch.kernel_mount(kernels, options=f"data={data}")
    scratch.kernel_umount(directory)
    mounting.clean(kernels)

    trees = []
    for recovered in (ours, kernels):
        directory = scratch.kernel_mount(recovered, options="ro")
        trees.append(mounting.tree(directory))
        for path, content in certain.items():
            check((directory / path).read_bytes() == content, f"{what}: {path} of {recovered.name} is not what was synced")
        check(not (directory / "orphan").exists(), f"{what}: the orphan has its name back")
        scratch.kernel_umount(directory)
    mounting.same_tree(trees[1], trees[0], f"{what}: recovered by the kernel and by the program")
    # The mount recovers by itself, too, and what it shows is the same.
    directory = scratch.mount(image)
    mounting.same_tree(trees[1], mounting.tree(directory), f"{what}: recovered by the kernel and by the mount")
    scratch.umount(directory)
    mounting.clean(image)
    for path in (image, ours, kernels):
        os.unlink(path)
    print(f"{what}: {len(trees[0])} entries are the same", flush=True)


def test(scratch):
    seed = 1
    for name, options in FORMATS.items():
        for data in ("ordered", "journal"):
            for flag in (mounting.SHUTDOWN_FLUSH_LOG, mounting.SHUTDOWN_NO_FLUSH):
                one(scratch, name, options, data, flag, seed)
                seed += 1


if __name__ == "__main__":
    mounting.main(test)
