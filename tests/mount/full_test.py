#!/usr/bin/env python3
"""A mount that is full says so to whoever writes, though the kernel takes writes into its cache first.

Usage: full_test.py PROGRAM
"""

import ctypes
import errno
import mmap
import os
import signal
import threading
import time

import mounting
from mounting import check

PIECE = bytes(1 << 20)
# No file of the test may become larger, whatever goes wrong.
FAR_TOO_MUCH = 1 << 30


def write_until_full(path, piece):
    """Bytes that write(2) took before it answered ENOSPC."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    taken = 0
    try:
        while taken < FAR_TOO_MUCH:
            try:
                taken += os.write(fd, piece)
            except OSError as error:
                check(error.errno == errno.ENOSPC, f"{path.name}: {error}")
                return taken
    finally:
        # What could not be written is told once by each of both; whoever opens the file next would be told otherwise.
        for last in (os.fsync, os.close):
            try:
                last(fd)
            except OSError as error:
                check(error.errno == errno.ENOSPC, f"{path.name}: {last.__name__}: {error}")
    raise mounting.Failure(f"{path.name}: {taken} bytes were taken by a file system of 64 MiB")


def synced(path, content):
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        os.write(fd, content)
        os.fsync(fd)
    finally:
        os.close(fd)


def fill(scratch, image, options):
    top = scratch.mount(image, options=options)
    synced(top / "before", b"before" * 1000)
    for name, piece in (("large", PIECE), ("small", PIECE[:4096]), ("tiny", b"x" * 1000)):
        write_until_full(top / name, piece)
    try:
        synced(top / "while full", PIECE)
        raise mounting.Failure("an fsync says that a full file system has taken a MiB")
    except OSError as error:
        check(error.errno == errno.ENOSPC, f"fsync: {error}")
    # What found no space keeps nobody from freezing the rest.
    mounting.run(scratch.program, "freeze", top)
    mounting.run(scratch.program, "thaw", top)
    # What needs no space goes on, and what was synced is there.
    fd = os.open(top / "before", os.O_RDWR)
    os.pwrite(fd, b"BEFORE", 0)
    os.fsync(fd)
    os.close(fd)
    # Space that comes back is used, by descriptors that met the error as well.
    fd = os.open(top / "large", os.O_RDWR | os.O_APPEND)
    os.unlink(top / "small")
    os.unlink(top / "large")
    os.close(fd)
    check(os.statvfs(top).f_bfree * os.statvfs(top).f_bsize >= 2 * len(PIECE), "the space of removed files is not free")
    fd = os.open(top / "tiny", os.O_RDWR)
    os.ftruncate(fd, 0)
    check(os.pwrite(fd, PIECE, 0) == len(PIECE), "space that came back is not used")
    os.fsync(fd)
    os.close(fd)
    synced(top / "after", PIECE)
    scratch.umount(top)
    mounting.clean(image)
    seen = scratch.kernel_mount(image)
    check((seen / "before").read_bytes() == b"BEFORE" + b"before" * 999, "what was synced differs")
    check((seen / "tiny").read_bytes() == PIECE and (seen / "after").read_bytes() == PIECE, "what was written after differs")
    scratch.kernel_umount(seen)


def take_all(path, mode):
    """A file that has all the space there is, as far as fallocate(2) gets it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    at = 0
    for length in (1 << 24, 1 << 20, 1 << 16, 1 << 12, 1 << 10):
        try:
            while at < FAR_TOO_MUCH:
                os.posix_fallocate(fd, at, length)
                at += length
        except OSError as error:
            check(error.errno == errno.ENOSPC, f"fallocate: {error}")
    os.close(fd)
    return os.open(path, mode)


def begin(call, held):
    """A process that is in `call`, and ends with its error; it does not hold `held`."""
    start, started = os.pipe()
    caller = os.fork()
    if caller == 0:
        status = errno.EDOM
        try:
            os.close(held)
            os.write(started, b"x")
            call()
            status = 0
        except OSError as error:
            status = error.errno
        finally:
            os._exit(status)
    os.read(start, 1)
    os.close(start)
    os.close(started)
    # From here on it sleeps in its call only, which is where it waits for an answer.
    limit = time.monotonic() + 10
    while True:
        with open(f"/proc/{caller}/stat", encoding="ascii", errors="replace") as status:
            if status.read().rsplit(")", 1)[1].split()[0] in "SD":
                return caller
        check(time.monotonic() < limit, "a call does not wait for its answer")
        time.sleep(0.001)


def leave(top, left):
    """A file `fill`, and so many bytes that are free."""
    fill = os.open(top / "fill", os.O_RDWR | os.O_CREAT)
    free = os.statvfs(top)
    os.posix_fallocate(fill, 0, free.f_bfree * free.f_frsize - left)
    os.close(fill)


def has_no_space(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        check(error.errno == errno.ENOSPC, f"{call.__name__}: {error}")
        return
    raise mounting.Failure(f"{call.__name__} says that all is well")


def is_kept_until_there_is_space(scratch, image):
    """What write(2) has taken and finds no space is the file's contents, is not said to be durable, and becomes it."""
    content = os.urandom(3 << 20)
    top = scratch.mount(image)
    leave(top, 300 << 10)
    fd = os.open(top / "synced", os.O_RDWR | os.O_CREAT)
    check(os.write(fd, content) == len(content), "a write that the kernel takes at once was short")
    for _ in range(2):
        has_no_space(os.fsync, fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        check(os.pread(fd, len(content), 0) == content, "the file has not what was written to it")
    # Somebody else who opens it: the same.
    with open(top / "synced", "rb") as other:
        check(other.read() == content, "who opens it next does not see it")
        has_no_space(os.fsync, other.fileno())
    os.close(fd)
    # And through a map, which nobody can be told of at once.
    fd = os.open(top / "mapped", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 1 << 20)
    with mmap.mmap(fd, 1 << 20) as stores:
        stores[:] = content[:1 << 20]
        has_no_space(stores.flush)
    os.close(fd)
    os.unlink(top / "fill")
    for name in ("synced", "mapped"):
        fd = os.open(top / name, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
    # Who never asks whether it is durable either.
    leave(top, 300 << 10)
    fd = os.open(top / "unasked", os.O_RDWR | os.O_CREAT)
    taken = 0
    while taken < FAR_TOO_MUCH:
        try:
            taken += os.write(fd, content[taken % len(content):][:4096])
        except OSError as error:
            check(error.errno == errno.ENOSPC, f"write: {error}")
            break
    check(taken < 16 << 20, f"{taken} bytes were taken where 300 KiB are free")
    os.unlink(top / "fill")
    try:
        os.close(fd)
    except OSError as error:
        check(error.errno == errno.ENOSPC, f"close: {error}")
    scratch.umount(top)
    mounting.clean(image)
    seen = scratch.kernel_mount(image)
    check((seen / "synced").read_bytes() == content, "what was kept is not what the image has")
    check((seen / "mapped").read_bytes() == content[:1 << 20], "stores through a map were not kept")
    there = (seen / "unasked").read_bytes()
    check(there == (content * (taken // len(content) + 1))[:taken], f"{len(there)} bytes are in the image, {taken} were taken")
    scratch.kernel_umount(seen)


def empty_files(scratch, image, options):
    """Where no block can be had, write(2) to a file that has none is refused at once, however small, and close(2) says nothing."""
    top = scratch.mount(image, options=options)
    paths = [top / f"file {number}" for number in range(60)]
    for path in paths:
        path.touch()
    block = os.statvfs(top).f_frsize
    leave(top, 30 * block)
    # One is promised with three for the tree above it.
    number = 0
    while os.statvfs(top).f_bfree > 4:
        number += 1
        rest = os.open(top / f"rest {number}", os.O_RDWR | os.O_CREAT)
        os.posix_fallocate(rest, 0, block)
        os.close(rest)
    if os.statvfs(top).f_bfree < 4:  # the directory grew
        os.unlink(top / "rest 1")
    check(os.statvfs(top).f_bfree == 4, f"{os.statvfs(top).f_bfree} blocks are free")
    taken = []
    for path in paths:
        fd = os.open(path, os.O_WRONLY)
        try:
            check(os.write(fd, b"few") == 3, "a write was cut short")
            taken.append(path)
        except OSError as error:
            check(error.errno == errno.ENOSPC, f"write: {error}")
        os.close(fd)
    check(len(taken) == 1, f"{len(taken)} files were written where there is space for one")
    # Who may read as well is not told by a read that there is no space.
    fd = os.open(paths[1], os.O_RDWR)
    check(os.read(fd, 10) == b"", "an empty file is not empty")
    os.close(fd)
    os.unlink(top / "fill")
    fd = os.open(paths[2], os.O_WRONLY)
    os.write(fd, b"few")
    os.close(fd)
    scratch.umount(top)
    mounting.clean(image)
    seen = scratch.kernel_mount(image)
    for path in paths:
        wanted = b"few" if path in (taken[0], paths[2]) else b""
        check((seen / path.name).read_bytes() == wanted, f"{path.name}: not {wanted}")
    scratch.kernel_umount(seen)


def what_is_lost_is_not_read(scratch, image):
    """What found no space, and is more than is kept, is not read by whoever opens the file next."""
    top = scratch.mount(image, options="cache=4M")
    leave(top, 300 << 10)
    content = {}
    for turn in range(40):
        path = top / f"late {turn}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            os.write(fd, b"x" * len(PIECE))
        except OSError as error:
            check(error.errno == errno.ENOSPC, f"write: {error}")
        for last in (os.fsync, os.close):
            try:
                last(fd)
                check(last is os.close, "a MiB found space in 300 KiB")
            except OSError as error:
                check(error.errno == errno.ENOSPC, f"{last.__name__}: {error}")
        fd = os.open(path, os.O_RDWR)  # for reading alone it would empty the cache
        was = os.pread(fd, 1 << 20, 0)
        # The kernel may do this to clean pages whenever it wants to.
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        check(os.pread(fd, 1 << 20, 0) == was, f"{path.name}: bytes that were read are not there any more")
        try:
            os.fsync(fd)
            content[path.name] = was
        except OSError as error:
            check(error.errno == errno.ENOSPC, f"fsync: {error}")
        os.close(fd)
        if turn % 2:
            os.unlink(path)
            content.pop(path.name, None)
    check(len(content) >= 5, f"of 40 files {len(content)} are said to be durable")
    scratch.umount(top)
    mounting.clean(image)
    seen = scratch.kernel_mount(image)
    for name, was in content.items():
        there = (seen / name).read_bytes()
        check(was == there + bytes(len(was) - len(there)), f"{name}: what was read differs from what the image has")
    scratch.kernel_umount(seen)


def what_is_lost_is_told(scratch, image, options):
    """Many write more than there is and remove it again. Whose write(2) and close(2) all said yes has its file."""
    piece, pieces, writers, rounds = 32 << 10, 8, 8, 40
    top = scratch.mount(image, options=options)
    leave(top, writers * piece * pieces * 8 // 10)
    refused, whole, wrong = [], [], []
    all_wrote = threading.Barrier(writers, timeout=60)

    def write(path, content):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        try:
            for at in range(0, len(content), piece):
                os.write(fd, content[at : at + piece])
        finally:
            os.close(fd)

    def work(number):
        content = bytes([number + 1]) * piece * pieces
        path = top / f"of {number}"
        for turn in range(rounds):
            try:
                write(path, content)
            except OSError as error:
                (refused if error.errno == errno.ENOSPC else wrong).append(f"{path.name}: {error}")
            else:
                (whole if path.read_bytes() == content else wrong).append(f"{path.name}, turn {turn}")
            if turn % 2 == 0:  # otherwise there is space again while others write
                all_wrote.wait()
            path.unlink()

    workers = [threading.Thread(target=work, args=(number,)) for number in range(writers)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    check(not wrong, f"{options}: {wrong}")
    check(len(whole) + len(refused) == writers * rounds, "a writer has given up")
    check(whole and refused, f"{options}: {len(whole)} files were written, {len(refused)} refused: nothing was short")
    scratch.umount(top)
    mounting.clean(image)


def let_go_behind(scratch, image):
    """The kernel lets go of a removed file by a message that is read after requests which were sent before it."""
    top = scratch.mount(image)
    server = scratch.servers[top]
    # Each is one request: what makes a name looks it up first.
    calls = {"xattr": lambda: os.setxattr(tiny, "user.large", b"v" * 900),
             "fallocate": lambda: os.posix_fallocate(tiny, 0, 1 << 20),
             "direct write": lambda: os.pwrite(direct, memoryview(aligned), 0)}
    aligned = mmap.mmap(-1, 1 << 20)
    tiny = os.open(top / "tiny", os.O_RDWR | os.O_CREAT)
    direct = os.open(top / "direct", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    for name, call in calls.items():
        held = take_all(top / "all", os.O_PATH)
        os.unlink(top / "all")
        os.kill(server, signal.SIGSTOP)
        try:
            caller = begin(call, held)
            os.close(held)
        finally:
            os.kill(server, signal.SIGCONT)
        status = os.waitstatus_to_exitcode(os.waitpid(caller, 0)[1])
        check(status == 0, f"{name}: {errno.errorcode.get(status, status)} though the space of a removed file was there")
    os.close(tiny)
    os.close(direct)
    scratch.umount(top)
    mounting.clean(image)


def told_at_once(scratch, image):
    """What a removed file had is free to whoever asks next."""
    top = scratch.mount(image)

    def free():
        now = os.statvfs(top)
        return now.f_bfree, now.f_bavail, now.f_ffree

    before = free()
    late = 0
    for number in range(100):
        synced(top / "file", PIECE[:200000])
        os.unlink(top / "file")
        # For a moment what is deleted in the background may count twice.
        if not all(there >= once for there, once in zip(free(), before)):
            late += 1
            limit = time.monotonic() + 10
            while not all(there >= once for there, once in zip(free(), before)):
                check(time.monotonic() < limit, f"round {number}: {free()} is free, {before} was")
    # Whoever looks at all files, as background writeback does each second, may just hold the one that is removed.
    check(late <= 5, f"the space of {late} files of 100 was not free at once")
    scratch.umount(top)


def direct_writes(scratch, image):
    """What goes past the kernel's cache ends in ENOSPC as well, also within a request."""
    top = scratch.mount(image)
    aligned = mmap.mmap(-1, 1 << 20)
    fd = os.open(top / "direct", os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
    try:
        for _ in range(FAR_TOO_MUCH // len(aligned)):
            os.writev(fd, [aligned])
        raise mounting.Failure("direct writes have no end")
    except OSError as error:
        check(error.errno == errno.ENOSPC, f"a direct write: {error}")
    os.close(fd)
    os.unlink(top / "direct")
    scratch.umount(top)
    mounting.clean(image)


def a_size_that_is_lost_is_told(scratch, image, options):
    """What found no space was the file's new end. A punch takes the bytes away, and the size is still not there."""
    top = scratch.mount(image, options=options)
    libc = ctypes.CDLL(None, use_errno=True)
    punch_and_keep = 3

    def sync_fails(fd):
        try:
            os.fsync(fd)
            return False
        except OSError as error:
            check(error.errno == errno.ENOSPC, f"{options}: {error}")
            return True

    fd, filler = (os.open(top / name, os.O_RDWR | os.O_CREAT) for name in ("file", "filler"))
    os.posix_fallocate(filler, 0, 1 << 20)
    end = 1 << 20
    for step in (1 << 20, 1 << 16, 4096):
        while os.statvfs(top).f_bfree and libc.fallocate(filler, 0, ctypes.c_int64(end), ctypes.c_int64(step)) == 0:
            end += step
    check(os.statvfs(top).f_bfree == 0, f"{options}: there is space")
    os.pwrite(fd, b"x" * 427, 0)
    check(sync_fails(fd), f"{options}: an fsync says that a full file system has taken a block")
    check(libc.fallocate(fd, punch_and_keep, ctypes.c_int64(0), ctypes.c_int64(4096)) == 0, f"{options}: the punch")
    told = sync_fails(fd)
    for one in (fd, filler):
        os.close(one)
    scratch.umount(top)
    mounting.clean(image)
    top = scratch.mount(image, options="ro")
    size = os.stat(top / "file").st_size
    check(told or size == 427, f"{options}: an fsync said yes to a file that has {size} bytes")
    scratch.umount(top)


def takes_no_more_than_there_is(scratch, size, left, length):
    """What write(2) took from a file system that had room for it is there, and no more than a write of it has none."""
    image = scratch.image("image", size, "-t", "ext4", "-b", "4096", "-m", "0", "-J", "size=4")
    top = scratch.mount(image)
    if left:
        leave(top, left)
        time.sleep(0.2)  # the kernel believes for that long what it was told when there was plenty
    space = os.statvfs(top)
    free = space.f_bavail * space.f_frsize
    piece = os.urandom(4096) * (length // 4096)
    fd = os.open(top / "file", os.O_RDWR | os.O_CREAT)
    taken = 0
    try:
        while taken < 4 * free:
            taken += os.write(fd, piece)
    except OSError as error:
        check(error.errno == errno.ENOSPC, f"a write: {error}")
    try:
        os.close(fd)
    except OSError as error:
        check(error.errno == errno.ENOSPC, f"close: {error}")
    case = f"{size}, {free >> 10} KiB free, writes of {length}"
    check(taken <= free + length, f"{case}: {taken - free} bytes more were taken")
    there = (top / "file").read_bytes()
    wrong = sum(there[at:at + 4096] != piece[:4096] for at in range(0, taken, 4096))
    check(wrong == 0, f"{case}: {wrong} blocks are not what was written")
    scratch.umount(top)
    mounting.clean(image)


def largest_file(scratch):
    """Past the largest size of a file it is that, and not the space, that is missing."""
    image = scratch.image("image", "64M", "-t", "ext4", "-b", "1024")
    top = scratch.mount(image)
    last = (1 << 42) - 1024
    for name, flags in (("written through", os.O_SYNC), ("cached", 0)):
        fd = os.open(top / name, os.O_RDWR | os.O_CREAT | flags)
        os.pwrite(fd, b"last", last - 4)
        os.fsync(fd)
        try:
            os.pwrite(fd, bytes(512), last)
            os.fsync(fd)
            raise mounting.Failure(f"{name}: a file is larger than the format allows")
        except OSError as error:
            check(error.errno == errno.EFBIG, f"{name}: {error}")
        os.close(fd)
    scratch.umount(top)
    mounting.clean(image)


def closed_descriptors(scratch, image):
    """Started by whoever has closed the standard ones."""
    directory = scratch.path("mnt")
    directory.mkdir(exist_ok=True)
    mounting.run("sh", "-c", f"exec timeout 60 '{scratch.program}' mount '{image}' '{directory}' <&- >&- 2>&-")
    check(mounting.is_mounted(directory), "not mounted")
    scratch.servers[directory] = scratch.server_of(directory)
    os.listdir(directory)
    scratch.umount(directory)


def test(scratch):
    mounting.need_mount()
    for name, features in (("plain", ()), ("inline", ("-O", "inline_data")), ("blocks of 1024", ("-b", "1024"))):
        image = scratch.image("image", "64M", "-t", "ext4", *features)
        for data in ("ordered", "journal"):
            fill(scratch, image, f"data={data}")
            print(f"{name}, data={data}: full, and told", flush=True)
            image = scratch.image("image", "64M", "-t", "ext4", *features)
    what_is_lost_is_not_read(scratch, image)
    for features in ((), ("-b", "1024"), ("-O", "inline_data"), ("-O", "^extents,^64bit"), ("-O", "^has_journal")):
        is_kept_until_there_is_space(scratch, scratch.image("image", "64M", "-t", "ext4", "-m", "0", *features))
    for features in ((), ("-b", "1024")):
        for data in ("ordered", "journal"):
            image = scratch.image("image", "64M", "-t", "ext4", "-m", "0", *features)
            what_is_lost_is_told(scratch, image, f"data={data}")
            a_size_that_is_lost_is_told(scratch, scratch.image("image", "64M", "-t", "ext4", "-m", "0", *features),
                                        f"data={data}")
            empty_files(scratch, scratch.image("image", "64M", "-t", "ext4", "-m", "0", *features), f"data={data}")
    image = scratch.image("image", "64M", "-t", "ext4")
    let_go_behind(scratch, image)
    direct_writes(scratch, image)
    told_at_once(scratch, image)
    for size, left, length in (("40M", 4000 << 10, 1 << 16), ("40M", 0, 4096), ("100M", 0, 1 << 20),
                               ("400M", 12000 << 10, 1 << 16), ("400M", 12000 << 10, 1 << 12)):
        takes_no_more_than_there_is(scratch, size, left, length)
    largest_file(scratch)
    closed_descriptors(scratch, image)


if __name__ == "__main__":
    mounting.main(test)
