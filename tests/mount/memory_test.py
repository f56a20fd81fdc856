#!/usr/bin/env python3
"""The server's memory stays bounded however many files the kernel remembers, and what the kernel still means by a number
whose last name is gone is there all the same.

Usage: memory_test.py PROGRAM
"""

import contextlib
import fcntl
import os
import pathlib
import re
import struct

import mounting
from mounting import check

CACHE = 16  # MiB
BESIDE = 64  # MiB that the process may have beside its cache
FILES = 60_000
FOLDERS = 60
IOC_GETVERSION = 0x80087601
MANY = 6_000  # more inodes than the server keeps with such a cache


def peak(pid):
    """The most memory that the process had so far, MiB."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise mounting.Failure("no VmHWM")


def heap_is_huge(pid):
    """Whether the kernel may give huge pages to the memory that malloc(3) has of the server; None: there are none."""
    if not pathlib.Path("/sys/kernel/mm/transparent_hugepage").exists():
        return None
    in_heap = huge = False
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8").splitlines():
        if re.match("[0-9a-f]+-[0-9a-f]+ ", line):
            in_heap = line.endswith("[heap]")
        elif in_heap and line.startswith("VmFlags:"):
            huge = huge or "hg" in line.split()
    return huge


def make_many(folder, count):
    folder.mkdir()
    for number in range(count):
        os.close(os.open(folder / f"file {number}", os.O_CREAT | os.O_WRONLY))


def generation(file):
    return struct.unpack("q", fcntl.ioctl(file, IOC_GETVERSION, bytes(8)))[0]


def remembers_many(scratch):
    image = scratch.image("many", "256M", "-t", "ext4", "-b", "4096", "-N", str(FILES + 1000))
    directory = scratch.mount(image, options=f"cache={CACHE}M")
    pid = scratch.servers[directory]
    for number in range(FOLDERS):
        make_many(directory / f"folder {number}", FILES // FOLDERS)
    check(heap_is_huge(pid) is not False, "a page of the server's heap is a fault each")
    made = peak(pid)
    names = 0
    for _, _, files in os.walk(directory):
        names += len(files)
    seen = [os.stat(directory / f"folder {number}" / f"file {index}").st_ino
            for number in range(FOLDERS) for index in range(FILES // FOLDERS)]
    check(names == FILES and len(set(seen)) == FILES, f"{names} files, {len(set(seen))} inodes")
    print(f"peak after {FILES} files were made: {made:.1f} MiB; looked at: {peak(pid):.1f} MiB", flush=True)
    check(peak(pid) <= CACHE + BESIDE, f"the server had {peak(pid):.1f} MiB")
    for number in range(FOLDERS):
        for index in range(FILES // FOLDERS):
            os.unlink(directory / f"folder {number}" / f"file {index}")
    check(peak(pid) <= CACHE + BESIDE, f"the server had {peak(pid):.1f} MiB")
    scratch.umount(directory)
    mounting.clean(image)


def means_the_same(scratch, options):
    """Files whose names go while the server has long let go of them, but the kernel has not."""
    image = scratch.image("held", "128M", "-t", "ext4", "-b", "4096", "-N", "20000")
    directory = scratch.mount(image, options=f"cache={CACHE}M,{options}")
    text = b"still there" * 1000
    ways = ("removed", "replaced", "folder")
    (directory / "removed").write_bytes(text)
    (directory / "replaced").write_bytes(text)
    (directory / "folder").mkdir()
    with contextlib.ExitStack() as closed:
        held = {}
        for name in ways:
            held[name] = os.open(directory / name, os.O_PATH)  # the server knows of no open file
            closed.callback(os.close, held[name])
        before = {name: os.fstat(held[name]) for name in ways}
        with open(directory / "removed", "rb") as file:
            version = generation(file)
        make_many(directory / "others", MANY)
        mounting.run("sync", "-f", directory)
        make_many(directory / "more", MANY)
        with open(directory / "removed", "rb") as file:
            check(generation(file) == version, "another generation")
        free = os.statvfs(directory)
        os.unlink(directory / "removed")
        (directory / "new").write_bytes(b"")
        os.rename(directory / "new", directory / "replaced")
        os.rmdir(directory / "folder")
        make_many(directory / "yet more", 2000)
        numbers = {entry.inode() for entry in os.scandir(directory / "yet more")}
        for name in ways:
            now = os.fstat(held[name])
            check(now.st_nlink == 0, f"{name}: {now.st_nlink} links")
            check((now.st_ino, now.st_mode) == (before[name].st_ino, before[name].st_mode) and
                  now.st_size == (0 if name == "folder" else len(text)), f"{name}: {now}, before {before[name]}")
            check(now.st_ino not in numbers, f"{name}: its number was given to another file")
        for name in ("removed", "replaced"):
            with open(f"/proc/self/fd/{held[name]}", "rb") as file:
                check(file.read() == text, f"{name}: other contents")
        check(os.listdir(f"/proc/self/fd/{held['folder']}") == [], "the removed folder is not empty")
    for number in range(2000):
        os.unlink(directory / "yet more" / f"file {number}")
    os.rmdir(directory / "yet more")
    gained = os.statvfs(directory).f_bfree - free.f_bfree
    check(gained >= 2 * (len(text) // 4096), f"{gained} blocks came back")
    given = os.statvfs(directory).f_ffree - free.f_ffree
    check(given == 2, f"{given} inodes came back")  # one of the three went to "new"
    scratch.umount(directory)
    mounting.clean(image)
    print(f"{options}: passed", flush=True)


def test(scratch):
    remembers_many(scratch)
    for options in ("data=ordered", "data=journal"):
        means_the_same(scratch, options)


mounting.main(test)
