#!/usr/bin/env python3
"""What write(2) has taken while there was space is not lost when somebody else takes that, nor by what reads it then.

Usage: taken_space_test.py PROGRAM
"""

import concurrent.futures
import ctypes
import errno
import functools
import mmap
import os
import pathlib
import subprocess
import time

import mounting
from mounting import check

LIBC = ctypes.CDLL(None, use_errno=True)
MIB = 1 << 20
FAR_TOO_MUCH = 1 << 30


def content(name, size):
    """Another one in each 64 KiB."""
    return b"".join((f"{name} {number:07} ".encode() * (1 << 13))[:1 << 16] for number in range(size >> 16))


def is_refused(call, *arguments):
    """Whether for want of space."""
    try:
        call(*arguments)
        return False
    except OSError as error:
        check(error.errno == errno.ENOSPC, f"{getattr(call, '__name__', call)}: {error}")
        return True


def allocated(fd, _):
    os.fstat(fd)
    check(LIBC.fallocate(fd, 0, ctypes.c_long(0), ctypes.c_long(FAR_TOO_MUCH)) != 0, "a gigabyte in less")
    # It has what there was, and says so.
    check(os.fstat(fd).st_blocks * 512 > 100 * MIB, f"{os.fstat(fd).st_blocks} blocks after an allocation that failed")


def zeroed(fd, _):
    check(LIBC.fallocate(fd, 0x10, ctypes.c_long(0), ctypes.c_long(FAR_TOO_MUCH)) != 0, "a gigabyte in less")


def in_pieces(write, fd):
    at = 0
    while at < FAR_TOO_MUCH and not is_refused(write, fd, at):
        at += MIB


def written_directly(fd, path):
    direct = os.open(path, os.O_WRONLY | os.O_DIRECT)
    page = mmap.mmap(-1, MIB)
    in_pieces(lambda _, at: os.pwritev(direct, [page], at), fd)
    os.close(direct)


def written_directly_by_many(fd, path):
    """Each to a place of his own."""
    def write(number):
        direct = os.open(path, os.O_WRONLY | os.O_DIRECT)
        page = mmap.mmap(-1, MIB)
        in_pieces(lambda _, at: os.pwritev(direct, [page], number * FAR_TOO_MUCH + at), fd)
        os.close(direct)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))


def cached(fd, _):
    in_pieces(lambda fd, at: os.pwrite(fd, bytes(MIB), at), fd)
    is_refused(os.fsync, fd)


def synced(fd, _):
    def write(fd, at):
        os.pwrite(fd, bytes(MIB), at)
        os.fsync(fd)
    in_pieces(write, fd)


def copied(fd, path):
    source = path.parent / "source"
    source.write_bytes(bytes(8 * MIB))
    with open(source, "rb") as file:
        os.fsync(file.fileno())
        in_pieces(lambda _, at: os.copy_file_range(file.fileno(), fd, 8 * MIB, 0, at), fd)
    source.unlink()


def read_across_the_end(fd, _):
    size = os.fstat(fd).st_size
    is_refused(os.pread, fd, 1 << 16, size - 100)


def seek_data(fd, _):
    is_refused(os.lseek, fd, 0, os.SEEK_DATA)


def opened_by_another(_, path):
    other = os.open(path, os.O_RDONLY)
    os.read(other, 100)
    os.pread(other, 1000, 20 * MIB - 100)
    is_refused(os.close, other)  # whoever closes it first is told


def read_directly(_, path):
    other = os.open(path, os.O_RDONLY | os.O_DIRECT)
    is_refused(os.preadv, other, [mmap.mmap(-1, 1 << 16)], 8 * MIB)
    is_refused(os.close, other)


def written_to(fd, _):
    for _ in range(3):
        if not is_refused(os.pwrite, fd, content("more", 1 << 16), os.fstat(fd).st_size):
            os.ftruncate(fd, os.fstat(fd).st_size - (1 << 16))


def root_synced(_, path):
    root = os.open(path.parent, os.O_RDONLY)
    is_refused(os.fsync, root)
    os.close(root)


def to_be_replaced(path):
    return path.with_name(f"{path.name}.replaced")


def renamed_over(_, path):
    other = to_be_replaced(path)
    check(other.exists(), f"{other} was not made while there was space for its name")
    is_refused(os.rename, path, other)  # where the new file has data without space
    if not path.exists():
        os.rename(other, path)


def made(make, path):
    number = 0
    while not is_refused(make, f"{path}.{number}"):
        number += 1


def directories(_, path):
    made(os.mkdir, path)


def symlinks(_, path):
    made(functools.partial(os.symlink, "x" * 200), path)


def in_small_pieces(take):
    """Each less than what the server makes room for before."""
    at, piece = 0, 1000 << 10
    while not is_refused(take, at, piece):
        at += piece


def allocated_in_pieces(fd, _):
    in_small_pieces(functools.partial(os.posix_fallocate, fd))


def copied_in_pieces(fd, path):
    source = os.open(path, os.O_RDWR)
    os.pwrite(source, b"x" * MIB, 0)
    in_small_pieces(lambda at, piece: os.copy_file_range(source, fd, piece, 0, MIB + at))
    os.close(source)


FILLERS = (allocated, zeroed, written_directly, written_directly_by_many, cached, synced, copied, directories, symlinks,
           allocated_in_pieces, copied_in_pieces)
LOOKS = (read_across_the_end, seek_data, opened_by_another, read_directly, written_to, root_synced, renamed_over)


def check_has(fd, expected, what):
    got = os.pread(fd, len(expected), 0)
    if got == expected:
        return
    wrong = [at for at in range(0, len(expected), 1 << 16) if got[at:at + (1 << 16)] != expected[at:at + (1 << 16)]]
    raise mounting.Failure(f"{what}: {len(got)} bytes of {len(expected)}; not right at {len(wrong)}, first {wrong[:1]}")


def sync_when_there_is_space(fd, what):
    """What was refused before may be told once more."""
    if is_refused(os.fsync, fd):
        check(not is_refused(os.fsync, fd), f"{what}: no space though there is")


def somebody_takes_all(scratch, filler):
    image = scratch.image("image", "256M", "-t", "ext4", "-b", "4096")
    top = scratch.mount(image)
    first = content("first", 20 * MIB)
    fd = os.open(top / "first", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, first, 0)
    to_be_replaced(top / "first").touch()
    taker = os.open(top / "taker", os.O_RDWR | os.O_CREAT)
    filler(taker, top / "taker")
    check_has(fd, first, filler.__name__)
    for look in LOOKS:
        look(fd, top / "first")
        check_has(fd, first, f"{filler.__name__}, {look.__name__}")
    os.ftruncate(taker, 0)
    os.close(taker)
    for entry in top.glob("taker*"):
        entry.rmdir() if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    sync_when_there_is_space(fd, filler.__name__)
    check_has(fd, first, f"{filler.__name__}, synced")
    os.close(fd)
    scratch.umount(top)
    mounting.clean(image)
    seen = scratch.mount(image)
    check((seen / "first").read_bytes() == first, f"{filler.__name__}: not what was synced")
    scratch.umount(seen)


def kernel_room(field):
    """Bytes of a FUSE mount that the kernel keeps dirty below this threshold of /proc/vmstat: a hundredth of it."""
    fields = dict(line.split() for line in pathlib.Path("/proc/vmstat").read_text(encoding="ascii").splitlines())
    return int(fields[field]) * mmap.PAGESIZE // 100


def frozen_file_size():
    """Bytes of each of three files that are written while the mount is frozen. Beyond the threshold the kernel holds up
    the writer until the mount has written, and a frozen one does not."""
    return min(12 * MIB, kernel_room("nr_dirty_threshold") // 4 >> 16 << 16)


def stored_size():
    """Bytes that are stored to a map, and that the kernel does not send by itself."""
    return min(20, kernel_room("nr_dirty_background_threshold") * 9 // 10 // MIB) * MIB


def more_than_there_is(scratch, look):
    """Taken while a freeze kept the server from asking for it: no look at it costs any of it."""
    image = scratch.image("image", "128M", "-t", "ext4", "-b", "4096")
    top = scratch.mount(image)
    taker = os.open(top / "taker", os.O_RDWR | os.O_CREAT)
    space = os.statvfs(top)
    size = frozen_file_size()
    os.posix_fallocate(taker, 0, space.f_bavail * space.f_bsize - size * 5 // 3)  # for one of them, not for two
    names = ("one", "two", "three")
    for name in names:
        to_be_replaced(top / name).touch()
    expected = {name: content(name, size) for name in names}
    # A process that inherited the files would wait for the thaw when it closes them.
    verbs = [subprocess.Popen(["sh", "-c", f'read go && exec "$0" {verb} "$1"', scratch.program, top],
                              stdin=subprocess.PIPE) for verb in ("freeze", "thaw")]
    files = {name: os.open(top / name, os.O_RDWR | os.O_CREAT) for name in names}

    def do(verb):
        verb.communicate(b"go\n")
        check(verb.returncode == 0, "the mount does not freeze, or not thaw")

    do(verbs[0])
    try:
        for name, fd in files.items():
            check(os.pwrite(fd, expected[name], 0) == len(expected[name]), f"{name}: a short write")
    finally:
        do(verbs[1])
    for name, fd in files.items():
        look(fd, top / name)
    for name, fd in files.items():
        check_has(fd, expected[name], f"{look.__name__}, {name}")
    os.ftruncate(taker, 0)
    os.close(taker)
    durable = []
    for name, fd in files.items():
        # What the kernel has sent by itself, and was refused, it does not send again: each sync says so.
        if not is_refused(os.fsync, fd) or not is_refused(os.fsync, fd):
            durable.append(name)
        check_has(fd, expected[name], f"{look.__name__}, {name}, synced")
    for fd in files.values():
        is_refused(os.close, fd)
    check(durable, "not even what there was space for is durable")
    scratch.umount(top)
    mounting.clean(image)
    seen = scratch.mount(image)
    for name in durable:
        check((seen / name).read_bytes() == expected[name], f"{look.__name__}: {name} is said to be durable")
    scratch.umount(seen)


def take_all_but(top, left):
    """A descriptor of a file that has all the space but so much."""
    taker = os.open(top / "taker", os.O_RDWR | os.O_CREAT)
    space = os.statvfs(top)
    if left:
        os.posix_fallocate(taker, 0, space.f_bfree * space.f_bsize - left)
    else:
        LIBC.fallocate(taker, 0, ctypes.c_long(0), ctypes.c_long(FAR_TOO_MUCH))
    return taker


def looked_at(fd, path):
    """What tells whether the kernel has something that finds no space."""
    for whence in (os.SEEK_DATA, os.SEEK_HOLE):
        os.lseek(fd, 0, whence)
    root = os.open(path.parent, os.O_RDONLY)
    os.fsync(root)
    os.close(root)
    (path.parent / "old").write_bytes(b"")
    path.rename(path.parent / "old")
    (path.parent / "old").rename(path)


def refused_once(scratch, options):
    """Who was refused, and has written all anew when there was space again, is refused nothing more."""
    image = scratch.image("image", "128M", "-t", "ext4", "-b", "4096")
    top = scratch.mount(image, options=options)
    taker = take_all_but(top, 8 * MIB)
    fd = os.open(top / "file", os.O_RDWR | os.O_CREAT)
    for _ in range(16):
        if is_refused(os.write, fd, bytes(MIB)):
            break
    check(is_refused(os.fsync, fd), "16 MiB found space in 8")
    os.ftruncate(taker, 0)
    os.close(taker)
    (top / "taker").unlink()
    os.ftruncate(fd, 0)
    is_refused(os.pwrite, fd, b"new" * 100000, 0)
    os.pwrite(fd, b"new" * 100000, 0)
    sync_when_there_is_space(fd, options)
    looked_at(fd, top / "file")
    os.close(fd)
    scratch.umount(top)
    mounting.clean(image)


def sparse_and_clean(scratch, options):
    """Of files with holes that were synced there is nothing to find space for, however large they are."""
    image = scratch.image("image", "128M", "-t", "ext4", "-b", "4096")
    top = scratch.mount(image, options=options)
    (top / "old").write_bytes(b"")
    files = {}
    for name, size in (("small", 10 * MIB), ("large", 1 << 40)):
        files[name] = os.open(top / name, os.O_RDWR | os.O_CREAT)
        os.pwrite(files[name], b"x" * 4096, 0)
        os.ftruncate(files[name], size)
        os.fsync(files[name])
    os.close(take_all_but(top, 0))
    for name, fd in files.items():
        looked_at(fd, top / name)
        os.close(fd)
    scratch.umount(top)
    mounting.clean(image)


def taken_again(scratch):
    """Somebody takes the space, gives it back and takes it again, at once: what was written into holes meanwhile stays."""
    image = scratch.image("image", "320M", "-t", "ext4", "-b", "4096")
    top = scratch.mount(image)
    fd = os.open(top / "sparse", os.O_RDWR | os.O_CREAT)
    for at in range(0, 100 * MIB, MIB):
        os.pwrite(fd, content("old", MIB), 2 * at)
    os.fsync(fd)
    taker = take_all_but(top, 50 * MIB)
    os.ftruncate(taker, 0)
    new = content("new", MIB)
    holes = [(2 * number + 1) * MIB for number in range(20)]
    for at in holes:
        os.pwrite(fd, new, at)
    LIBC.fallocate(taker, 0, ctypes.c_long(0), ctypes.c_long(FAR_TOO_MUCH))
    is_refused(os.fsync, fd)
    os.ftruncate(taker, 0)
    os.close(taker)
    sync_when_there_is_space(fd, "taken again")
    lost = [at for at in holes if os.pread(fd, MIB, at) != new]
    check(not lost, f"{len(lost)} MiB of 20 are gone, first at {lost[:1]}")
    os.close(fd)
    scratch.umount(top)
    mounting.clean(image)


def stored_to_a_map(scratch):
    """A store does not ask for space; a copy that finds none takes nothing of what was stored into another file."""
    image = scratch.image("image", "256M", "-t", "ext4", "-b", "4096")
    top = scratch.mount(image)
    fd = os.open(top / "sparse", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"x" * 4096, 0)
    os.ftruncate(fd, 64 << 30)
    os.fsync(fd)
    new, size = content("new", MIB), stored_size()
    check(size > 0, "the kernel keeps less than 1 MiB dirty for a FUSE mount")
    with mmap.mmap(fd, 64 * MIB) as memory:
        taker = take_all_but(top, 64 << 10)
        for at in range(MIB, MIB + size, MIB):
            memory[at:at + MIB] = new
        into = os.open(top / "into", os.O_RDWR | os.O_CREAT)
        refused = any(is_refused(os.copy_file_range, taker, into, 2 * MIB, 0, at) for at in range(0, 4 * MIB, 2 * MIB))
        check(refused, "a copy without space")
        lost = [at for at in range(MIB, MIB + size, MIB) if memory[at:at + MIB] != new]
        check(not lost, f"{len(lost)} MiB of {size // MIB} are gone from the map, first at {lost[:1]}")
        os.ftruncate(taker, 0)
        os.close(taker)
        os.close(into)
    sync_when_there_is_space(fd, "stored to a map")
    check(all(os.pread(fd, MIB, at) == new for at in range(MIB, MIB + size, MIB)), "what was stored is not there")
    os.close(fd)
    scratch.umount(top)
    mounting.clean(image)


def holes_are_filled(scratch, how, options, behind=0, grows=False):
    """What write(2) has put into holes is there when another file, or the same behind its end, has taken all the rest:
    `behind` MiB were allocated behind the end before."""
    image = scratch.image("image", "64M", "-t", "ext4", "-b", "4096", "-m", "0")
    top = scratch.mount(image, options=options)
    fd = os.open(top / "file", os.O_RDWR | os.O_CREAT)
    holes = 6 * MIB
    data = 0 if behind else 8 * MIB
    os.pwrite(fd, content("data", data), holes)
    os.ftruncate(fd, holes + data)
    if behind:
        check(LIBC.fallocate(fd, 1, ctypes.c_long(holes), ctypes.c_long(behind * MIB)) == 0, "behind the end")
    os.fsync(fd)
    space = os.statvfs(top)
    filler = os.open(top / "filler", os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(filler, 0, space.f_bfree * space.f_bsize - 14 * MIB)
    filled = content("filled", holes)
    os.pwrite(fd, filled, 0)
    taker = fd if grows else os.open(top / "taker", os.O_RDWR | os.O_CREAT)
    at = holes + data if grows else 0
    piece = b"t" * (256 << 10)
    while not is_refused(os.pwrite, taker, piece, at):
        at += len(piece)
    is_refused(os.fsync, taker)
    check_has(fd, filled, how)
    is_refused(os.close, fd)
    if not grows:
        is_refused(os.close, taker)
    os.close(filler)
    scratch.umount(top)
    mounting.clean(image)
    seen = scratch.mount(image)
    check((seen / "file").read_bytes()[:holes] == filled, f"{how}: what was in the holes is gone")
    scratch.umount(seen)


def kept_beside_holes(scratch):
    """What has its blocks needs no space: the kernel keeps the file's pages there, and with them what a direct read brings
    into a map of it, and is made to send what it has in the holes."""
    image = scratch.image("image", "48M", "-t", "ext4", "-b", "4096")
    top = scratch.mount(image)
    size, page = 4 * MIB, mmap.PAGESIZE
    fd = os.open(top / "file", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, content("file", size), 0)
    os.fsync(fd)
    holes = {number for first in (MIB, 3 * MIB) for number in range(first // page, (first + (1 << 16)) // page)}
    for first in (MIB, 3 * MIB):
        check(LIBC.fallocate(fd, 3, ctypes.c_long(first), ctypes.c_long(1 << 16)) == 0, "a hole")
    with mmap.mmap(fd, size) as memory:
        present = (ctypes.c_ubyte * (size // page))()
        start = ctypes.c_char.from_buffer(memory)
        for at in range(0, size, page):
            memory[at]  # pylint: disable=pointless-statement
        gone = set()
        for number in range(20):
            os.pwrite(fd, b"x", number * page)
            time.sleep(0.02)  # it is looked at anew
            os.fstat(fd)
            check(LIBC.mincore(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(size), present) == 0, "mincore")
            gone.update(number for number, entry in enumerate(present) if not entry & 1)
        del start
    check(gone and gone <= holes, f"{len(gone - holes)} pages are gone beside {len(gone & holes)} of {len(holes)} in holes")
    os.close(fd)
    scratch.umount(top)
    mounting.clean(image)


def test(scratch):
    kept_beside_holes(scratch)
    for options in ("", "data=journal"):
        holes_are_filled(scratch, "another file grows", options)
        holes_are_filled(scratch, "blocks behind the end", options, behind=6)
        holes_are_filled(scratch, "it grows", options, grows=True)
    print("filled holes: right", flush=True)
    taken_again(scratch)
    stored_to_a_map(scratch)
    print("taken again, stored to a map: right", flush=True)
    for options in ("", "cache=4M", "data=journal"):
        refused_once(scratch, options)
        sparse_and_clean(scratch, options)
        print(f"{options or 'default'}: nobody is refused what needs no space", flush=True)
    for filler in FILLERS:
        somebody_takes_all(scratch, filler)
        print(f"{filler.__name__}: right", flush=True)
    for look in LOOKS:
        more_than_there_is(scratch, look)
        print(f"more than there is, {look.__name__}: right", flush=True)


if __name__ == "__main__":
    mounting.main(test)
