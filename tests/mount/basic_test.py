#!/usr/bin/env python3
"""A tree written through the mount is the tree that the kernel reads, in each of the formats.

Usage: basic_test.py PROGRAM
"""

import errno
import itertools
import os
import shutil

import mounting
from mounting import check

FORMATS = {
    "default": ("-t", "ext4"),
    "ext3": ("-t", "ext3"),
    "blocks of 1024": ("-t", "ext4", "-b", "1024"),
    "inline data": ("-t", "ext4", "-O", "inline_data", "-I", "256"),
    "clusters": ("-t", "ext4", "-O", "bigalloc", "-C", "16384"),
}


def copy_headers(target):
    """Some thousand small files in a few directories, as cp -a copies them."""
    if os.path.isdir("/usr/include/linux"):
        mounting.run("cp", "-a", "/usr/include/linux", target)
        return
    os.mkdir(target)
    files = (os.path.join(folder, name) for folder, _, names in os.walk("/usr/include") for name in names)
    for number, path in enumerate(itertools.islice(files, 1500)):
        shutil.copy2(path, os.path.join(target, f"{number}_{os.path.basename(path)}"), follow_symlinks=False)


def refused(error, function, *arguments):
    try:
        function(*arguments)
    except OSError as problem:
        check(problem.errno == error, f"{function.__name__}{arguments}: {problem}, not {errno.errorcode[error]}")
        return
    raise mounting.Failure(f"{function.__name__}{arguments} succeeded, {errno.errorcode[error]} was due")


def write(path, content):
    with open(path, "wb") as file:
        file.write(content)


def make_names(top):
    os.mkdir(f"{top}/names")
    write(f"{top}/names/" + "n" * 255, b"long name")
    refused(errno.ENAMETOOLONG, os.mkdir, f"{top}/names/" + "n" * 256)
    refused(errno.EEXIST, os.mkdir, f"{top}/names")
    refused(errno.ENOTEMPTY, os.rmdir, f"{top}/names")
    refused(errno.ENOENT, os.unlink, f"{top}/names/absent")
    write(f"{top}/names/one", b"linked")
    for number in range(20):
        os.link(f"{top}/names/one", f"{top}/names/link{number}")
    os.symlink("one", f"{top}/names/short symlink")
    os.symlink("/" + "far/" * 200, f"{top}/names/long symlink")
    os.mkfifo(f"{top}/names/fifo", 0o640)
    os.mknod(f"{top}/names/device", 0o20600, os.makedev(1, 3))
    check(os.stat(f"{top}/names/one").st_nlink == 21, "the link count is not 21")


def make_contents(top):
    os.mkdir(f"{top}/contents")
    for size in (0, 1, 59, 60, 61, 150, 160, 1023, 1024, 1025, 4095, 4096, 4097, 100000, 3000000):
        write(f"{top}/contents/{size}", os.urandom(size))
    with open(f"{top}/contents/sparse", "wb") as file:
        for offset in (0, 70000, 5 << 20, 300 << 20):
            file.seek(offset)
            file.write(b"island" * 100)
        file.truncate((300 << 20) + 12345)
    check(os.stat(f"{top}/contents/sparse").st_blocks * 512 < 1 << 20, "the sparse file is not sparse")
    with open(f"{top}/contents/cut", "wb") as file:
        file.write(b"x" * 50000)
        file.truncate(12345)
        file.truncate(20000)
    # Grows out of an inode, and shrinks back.
    write(f"{top}/contents/grown", b"a" * 20)
    with open(f"{top}/contents/grown", "ab") as file:
        file.write(b"b" * 9000)


def make_attributes(top):
    path = f"{top}/contents/4096"
    for number in range(6):
        os.setxattr(path, f"user.number{number}", bytes([number]) * 40 * number)
    os.removexattr(path, "user.number2")
    os.setxattr(path, "user.number3", b"replaced")
    os.setxattr(f"{top}/names", "user.of a directory", b"value")
    os.setxattr(path, "trusted.kept", b"by root")
    os.chmod(path, 0o4751)
    os.chown(path, 70000, 80000)
    os.utime(path, ns=(1_234_567_890_123_456_789, 1_400_000_000_000_000_001))
    os.utime(f"{top}/names/short symlink", ns=(5, 1_000_000_007), follow_symlinks=False)


def rename_and_remove(top):
    os.rename(f"{top}/contents/0", f"{top}/names/moved")
    os.rename(f"{top}/contents/1023", f"{top}/contents/1024")
    os.mkdir(f"{top}/empty")
    os.rename(f"{top}/names", f"{top}/empty/names")
    os.rename(f"{top}/linux", f"{top}/headers")
    files = sorted(os.path.join(folder, name) for folder, _, names in os.walk(f"{top}/headers") for name in names)
    for path in files[::3]:
        os.unlink(path)


def one_format(scratch, name, options):
    image = scratch.image("image", "128M", *options)
    directory = scratch.mount(image)
    top = str(directory)
    copy_headers(f"{top}/linux")
    make_names(top)
    make_contents(top)
    make_attributes(top)
    rename_and_remove(top)
    expected = mounting.tree(directory)
    scratch.umount(directory)
    mounting.clean(image)
    seen = scratch.kernel_mount(image, options="ro")
    mounting.same_tree(expected, mounting.tree(seen), f"{name}: what was written and what the kernel reads")
    scratch.kernel_umount(seen)
    directory = scratch.mount(image, options="ro")
    mounting.same_tree(expected, mounting.tree(directory), f"{name}: what was written and what a new mount reads")
    scratch.umount(directory)
    os.unlink(image)
    print(f"{name}: {len(expected)} entries are the same", flush=True)


def test(scratch):
    for name, options in FORMATS.items():
        one_format(scratch, name, options)


if __name__ == "__main__":
    mounting.main(test)
