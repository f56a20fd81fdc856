#!/usr/bin/env python3
"""The server's memory stays bounded however many files the kernel remembers, and whatever it is asked for at
once; and what the kernel still means by a number whose last name is gone is there all the same.

Usage: memory_test.py PROGRAM
"""

import contextlib
import ctypes
import fcntl
import mmap
import os
import pathlib
import random
import re
import signal
import struct
import time

import mounting
from mounting import check

MIB = 1 << 20
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


def worker(directory, number):
    """Asks for much at a time, of several kinds at once, until it is killed."""
    chance = random.Random(number)
    libc = ctypes.CDLL(None)
    fd = os.open(directory / f"of {number % 6}", os.O_RDWR | os.O_CREAT | (os.O_DIRECT if number % 3 == 0 else 0))
    memory = mmap.mmap(-1, 8 * MIB)
    os.ftruncate(fd, 16 * MIB)
    there = mmap.mmap(fd, 16 * MIB)
    other = os.open(directory / f"of {(number + 1) % 6}", os.O_RDWR | os.O_CREAT)

    def fill_map():
        for at in range(0, 8 * MIB, mmap.PAGESIZE):
            there[at] = 1

    def allocate(mode, at, length):
        libc.fallocate(fd, mode, ctypes.c_long(at), ctypes.c_long(length))
        os.ftruncate(fd, 16 * MIB)

    steps = (lambda: os.pwrite(fd, memory, chance.randrange(8) * MIB), lambda: os.fsync(fd), fill_map,
             lambda: allocate(0, 0, 200 * MIB), lambda: allocate(3, chance.randrange(8 * MIB), MIB),
             lambda: os.preadv(fd, [memory], chance.randrange(8) * MIB),
             lambda: os.copy_file_range(other, fd, 12 * MIB, 0, chance.randrange(4) * MIB))
    while True:
        with contextlib.suppress(OSError):  # full, or in no sectors
            chance.choice(steps)()


def heaps_of_threads(pid):
    """Arenas that malloc(3) has made beside the heap: each begins a stretch of 64 MiB, the rest of which is reserved."""
    found, before = 0, None
    for line in pathlib.Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines():
        span, rights = line.split()[:2]
        first, end = (int(part, 16) for part in span.split("-"))
        if before == first and rights == "---p" and end % (64 * MIB) == 0:
            found += 1
        before = end if rights == "rw-p" and first % (64 * MIB) == 0 else None
    return found


def killed_in_the_middle(scratch):
    """What the server's threads have needed once does not stay with each of them."""
    image = scratch.image("killed", "700M", "-t", "ext4", "-b", "1024", "-O", "inline_data")
    directory = scratch.mount(image, options=f"cache={CACHE}M,data=journal")
    pid = scratch.servers[directory]
    for turn in range(25):
        workers = []
        try:
            for number in range(6):
                child = os.fork()
                if child == 0:
                    try:
                        worker(directory, 6 * turn + number)
                    finally:
                        os._exit(1)
                workers.append(child)
            time.sleep(0.5)
        finally:
            for child in workers:
                os.kill(child, signal.SIGKILL)
            ends = [os.waitpid(child, 0)[1] for child in workers]
        check(all(map(os.WIFSIGNALED, ends)), f"a worker has ended by itself: {ends}")
    print(f"peak under programs that were killed: {peak(pid):.1f} MiB", flush=True)
    check(heaps_of_threads(pid) == 0, f"{heaps_of_threads(pid)} heaps of threads")
    check(peak(pid) <= CACHE + BESIDE, f"the server had {peak(pid):.1f} MiB")
    scratch.umount(directory)
    mounting.clean(image)


def test(scratch):
    killed_in_the_middle(scratch)
    remembers_many(scratch)
    for options in ("data=ordered", "data=journal"):
        means_the_same(scratch, options)


mounting.main(test)
