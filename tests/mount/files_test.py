#!/usr/bin/env python3
"""What trips servers of file systems is right in a mount.

Usage: files_test.py PROGRAM
"""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import resource
import signal
import stat
import struct
import subprocess
import sys
import time

import mounting
from mounting import check

LIBC = ctypes.CDLL(None, use_errno=True)


def refused(error, function, *arguments, **named):
    try:
        function(*arguments, **named)
    except OSError as problem:
        check(problem.errno == error, f"{function.__name__}{arguments}: {problem}, not {errno.errorcode[error]}")
        return
    raise mounting.Failure(f"{function.__name__}{arguments} succeeded, {errno.errorcode[error]} was due")


def write(path, content):
    with open(path, "wb") as file:
        file.write(content)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def names_that_are_too_long(top):
    long = top / ("n" * 256)
    here = top / "here"
    write(here, b"")
    (top / "folder").mkdir()
    for call, arguments in ((os.stat, (long,)), (os.mkdir, (long,)), (os.mknod, (long,)), (os.symlink, ("x", long)),
                            (os.link, (here, long)), (os.rename, (here, long)), (os.rename, (long, here)),
                            (os.unlink, (long,)), (os.rmdir, (long,)), (os.open, (long, os.O_CREAT | os.O_RDWR)),
                            (os.open, (long, os.O_RDONLY)), (os.listdir, (long,)), (os.chmod, (long, 0o600))):
        refused(errno.ENAMETOOLONG, call, *arguments)
    write(top / ("m" * 255), b"fits")
    check(sorted(os.listdir(top)) == sorted(["folder", "here", "m" * 255] + (
        ["lost+found"] if (top / "lost+found").exists() else [])), "a name came out of nothing")


def requests_go_by_inode(top):
    write(top / "old", b"old content")
    write(top / "new", b"new")
    with open(top / "old", "r+b") as file:
        number = os.fstat(file.fileno()).st_ino
        os.rename(top / "new", top / "old")
        status = os.fstat(file.fileno())
        check((status.st_ino, status.st_nlink, status.st_size) == (number, 0, 11), f"renamed over, it is {status}")
        os.fchmod(file.fileno(), 0o640)
        os.ftruncate(file.fileno(), 5)
        file.seek(0)
        check(file.read() == b"old c", "what was renamed over reads differently")
        os.setxattr(file.fileno(), "user.still", b"there")
        check(os.getxattr(file.fileno(), "user.still") == b"there", "attributes of a file without a name")
    check(read(top / "old") == b"new", "the new file is not in the old one's place")
    os.mkdir(top / "gone")
    held = os.open(top / "gone", os.O_RDONLY)
    os.rmdir(top / "gone")
    check(os.fstat(held).st_nlink == 0, "a removed directory has links")
    check(os.listdir(held) == [], "a removed directory has entries")
    refused(errno.ENOENT, os.open, "x", os.O_CREAT | os.O_RDWR, dir_fd=held)
    os.close(held)


class _Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_ubyte * 128)]


def handles_outlive_the_cache(top):
    write(top / "by handle", b"opened by its handle")
    handle, identity = _Handle(128, 0), ctypes.c_int()
    path = os.fsencode(top / "by handle")
    check(LIBC.name_to_handle_at(-100, path, ctypes.byref(handle), ctypes.byref(identity), 0) == 0,
          f"name_to_handle_at: {os.strerror(ctypes.get_errno())}")
    with open(top / "by handle", "rb") as file:
        os.fsync(file.fileno())
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as caches:
        caches.write("2")  # names and inodes; "1" would go through all file systems of the machine
    root = os.open(top, os.O_RDONLY)
    try:
        fd = LIBC.open_by_handle_at(root, ctypes.byref(handle), os.O_RDONLY)
        check(fd >= 0, f"open_by_handle_at: {os.strerror(ctypes.get_errno())}")
        check(os.read(fd, 100) == b"opened by its handle", "another file was opened by the handle")
        os.close(fd)
        os.unlink(top / "by handle")
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as caches:
            caches.write("2")  # names and inodes; "1" would go through all file systems of the machine
        write(top / "takes the inode", b"someone else")
        fd = LIBC.open_by_handle_at(root, ctypes.byref(handle), os.O_RDONLY)
        check(fd < 0 and ctypes.get_errno() == errno.ESTALE, f"the handle of a removed file opens: {fd}")
    finally:
        os.close(root)


def groups_and_modes(top):
    folder = top / "group"
    folder.mkdir()
    os.chown(folder, 0, 4321)
    os.chmod(folder, 0o2775)
    write(folder / "file", b"")
    (folder / "sub").mkdir()
    check(os.stat(folder / "file").st_gid == 4321, "a file does not take its set-gid directory's group")
    status = os.stat(folder / "sub")
    check(status.st_gid == 4321 and status.st_mode & stat.S_ISGID, "a directory does not take group and set-gid bit")
    write(folder / "set-id", b"x")
    os.chown(folder / "set-id", 1000, 1000)
    os.chmod(folder / "set-id", 0o6755)
    os.chown(folder / "set-id", 1001, 1001)
    check(stat.S_IMODE(os.stat(folder / "set-id").st_mode) == 0o755, "chown keeps set-id bits")


def times(top):
    path = top / "times"
    write(path, b"x")
    os.utime(path, ns=(1_000_000_001, 2_000_000_000_123_456_789))
    status = os.stat(path)
    check((status.st_atime_ns, status.st_mtime_ns) == (1_000_000_001, 2_000_000_000_123_456_789), f"times are {status}")
    before = os.stat(path).st_ctime_ns
    time.sleep(0.02)
    os.chmod(path, 0o600)
    check(os.stat(path).st_ctime_ns > before, "chmod does not change ctime")
    # relatime: an access time that is not after the modification moves at the next read.
    os.utime(path, ns=(1_000_000_000, 1_500_000_000_000_000_000))
    read(path)
    check(os.stat(path).st_atime_ns > 1_500_000_000_000_000_000, "relatime: a read does not move an old atime")


def attributes(top):
    path = top / "attributes"
    write(path, b"")
    refused(errno.ENODATA, os.getxattr, path, "user.absent")
    refused(errno.ENODATA, os.removexattr, path, "user.absent")
    refused(errno.ENODATA, os.setxattr, path, "user.absent", b"x", os.XATTR_REPLACE)
    os.setxattr(path, "user.there", b"value")
    refused(errno.EEXIST, os.setxattr, path, "user.there", b"x", os.XATTR_CREATE)
    refused(errno.ERANGE, lambda: _small_getxattr(path))
    refused(errno.EOPNOTSUPP, os.setxattr, path, "unknown.space", b"x")


def _small_getxattr(path):
    buffer = ctypes.create_string_buffer(2)
    if LIBC.getxattr(os.fsencode(path), b"user.there", buffer, 2) < 0:
        raise OSError(ctypes.get_errno(), "getxattr")


def sizes(top):
    path = top / "sizes"
    write(path, b"x")
    limit = (1 << 32) * 4096 - 4096
    refused(errno.EFBIG, os.truncate, path, limit + (1 << 20))
    refused(errno.EINVAL, os.truncate, path, -1)
    os.truncate(path, 1 << 40)
    check(os.stat(path).st_size == 1 << 40 and os.stat(path).st_blocks <= 8, "a sparse file of a tebibyte")
    with open(path, "r+b") as file:
        file.seek(1 << 39)
        file.write(b"in the middle")
        file.flush()
        check(os.lseek(file.fileno(), 4096, os.SEEK_DATA) == 1 << 39, "SEEK_DATA")
        check(os.lseek(file.fileno(), 1 << 39, os.SEEK_HOLE) == (1 << 39) + 4096, "SEEK_HOLE")
        refused(errno.ENXIO, os.lseek, file.fileno(), (1 << 39) + 4096, os.SEEK_DATA)
    # The caller's own limit.
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            os.truncate(path, 1 << 41)
        except OSError as problem:
            os._exit(0 if problem.errno == errno.EFBIG else 2)
        os._exit(1)
    check(os.waitpid(pid, 0)[1] == 0, "RLIMIT_FSIZE does not hold")


def ranges(top):
    path = top / "ranges"
    write(path, bytes(range(256)) * 256)
    with open(path, "r+b") as file, open(top / "copy", "w+b") as copy:
        keep, punch, zero = 1, 2, 16
        fd = file.fileno()

        def fallocate(mode, offset, length):
            if LIBC.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)) != 0:
                raise OSError(ctypes.get_errno(), "fallocate")

        fallocate(keep, 65536, 65536)
        check(os.fstat(fd).st_size == 65536, "fallocate with KEEP_SIZE moves the size")
        fallocate(punch | keep, 8192, 8192)
        fallocate(zero, 100, 50)
        content = bytearray(bytes(range(256)) * 256)
        content[8192:16384] = bytes(8192)
        content[100:150] = bytes(50)
        check(read(path) == bytes(content), "punched or zeroed wrongly")
        check(os.copy_file_range(fd, copy.fileno(), 60000, 1000, 3) == 60000, "copy_file_range")
        check(read(top / "copy") == bytes(3) + bytes(content[1000:61000]), "copy_file_range copied something else")
    with open(path, "rb") as source, open(top / "too large", "w+b") as target:
        for offset in ((1 << 63) - 33, (1 << 44)):
            refused(errno.EFBIG, os.copy_file_range, source.fileno(), target.fileno(), 32, 0, offset)
        check(os.fstat(target.fileno()).st_size == 0, "a copy behind the largest size has moved the end")
    direct = os.open(path, os.O_RDWR | os.O_DIRECT)
    try:
        memory = mmap.mmap(-1, 8192)
        memory[:] = b"D" * 8192
        check(os.pwritev(direct, [memory], 4096) == 8192, "a direct write")
        memory[:] = bytes(8192)
        check(os.preadv(direct, [memory], 4096) == 8192 and memory[:] == b"D" * 8192, "a direct read")
    finally:
        os.close(direct)
    check(read(path)[4096:12288] == b"D" * 8192, "a cached read after a direct write")


def copies_beside_stores(top):
    """A copy into a page takes nothing of what another process stores into the rest of it through a map."""
    source, target = top / "copied from", top / "copied to"
    write(source, b"c" * 8192)
    write(target, b"t" * 8192)
    storer = os.fork()
    if storer == 0:
        with mmap.mmap(os.open(target, os.O_RDWR), 8192) as memory:
            limit = time.monotonic() + 60
            for count in range(1, 1_000_000):
                struct.pack_into("I", memory, 0, count)
                if struct.unpack_from("I", memory, 0)[0] != count:
                    os._exit(1)
                if memory[4] == ord("e") or time.monotonic() > limit:  # the end
                    break
        os._exit(0)
    given, taken = os.open(source, os.O_RDONLY), os.open(target, os.O_RDWR)
    for _ in range(3000):
        check(os.copy_file_range(given, taken, 1024, 0, 2048) == 1024, "a short copy")
    os.pwrite(taken, b"e", 4)
    check(os.waitpid(storer, 0)[1] == 0, "a store was taken back by a copy to another place of its page")
    for offset, length in ((0, 5000), (5000, 7000), (12_000, 1), (100, 4096), (8192, 8192)):
        done = 0
        while done < length:
            count = os.copy_file_range(given, taken, min(length - done, 8192), 0, offset + done)
            check(count > 0, f"a copy of {length} bytes to {offset} ends after {done}")
            done += count
        check(os.pread(taken, length, offset) == b"c" * length, f"{length} bytes copied to {offset}")
    os.close(given)
    os.close(taken)


def locks(top):
    path = top / "locks"
    write(path, b"x" * 100)
    script = ("import fcntl,sys\nf=open(sys.argv[1],'r+b')\n"
              "try:\n getattr(fcntl,sys.argv[2])(f,fcntl.LOCK_EX|fcntl.LOCK_NB)\nexcept OSError: sys.exit(3)\n")
    for kind in ("flock", "lockf"):
        with open(path, "r+b") as file:
            getattr(fcntl, kind)(file, fcntl.LOCK_EX)
            other = subprocess.run([sys.executable, "-c", script, str(path), kind], check=False).returncode
            check(other == 3, f"{kind}: a second process got the lock as well")
        other = subprocess.run([sys.executable, "-c", script, str(path), kind], check=False).returncode
        check(other == 0, f"{kind}: the lock outlives its file: {other}")


def the_root_syncs_everything(scratch, top, image):
    """What is written and not synced is in a copy of the image once the root's fsync has returned."""
    for number in range(50):
        (top / f"unsynced{number}").write_bytes(b"unsynced %d" % number * 3000)
    root = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        LIBC.syncfs(root)
        os.fsync(root)
    finally:
        os.close(root)
    copy = mounting.copy_image(image, scratch.path("synced"))
    mounting.run(scratch.program, "replay", copy)
    mounting.clean(copy)
    for number in range(50):
        shown = subprocess.run([scratch.program, "cat", f"{copy}:/unsynced{number}"], stdout=subprocess.PIPE, check=True)
        check(shown.stdout == b"unsynced %d" % number * 3000, f"unsynced{number} did not survive")
    os.unlink(copy)


def what_the_image_says(scratch, top, image):
    """Inode numbers and free space are the image's."""
    numbers = {name: os.lstat(top / name).st_ino for name in os.listdir(top)}
    space = os.statvfs(top)
    check(space.f_namemax == 255 and space.f_bsize == 4096, f"statfs: {space}")
    check(os.stat(top).st_ino == 2 or os.stat(top).st_ino == 1, "the root's number")
    scratch.umount(top)
    listing = json.loads(subprocess.run([scratch.program, "ls", "-a", "--json", str(image)], stdout=subprocess.PIPE,
                                        check=True).stdout)
    entries = {entry["name"]: entry["inode"] for entry in listing if entry["name"] not in (".", "..")}
    check(entries == numbers, f"st_ino: {entries} and {numbers}")


def blocks_while_written(top):
    """The kernel does not count the blocks of what it caches: what it was told before does not stay."""
    piece = b"a" * 2000000

    def right(path, size, what, after=0.2):  # attributes of what is open for writing may be that old, but after a sync
        time.sleep(after)
        found = os.stat(path)
        check(found.st_size == size and size <= found.st_blocks * 512 <= size + (64 << 10),
              f"{what}: {found.st_blocks} blocks for {found.st_size} bytes")

    os.close(os.open(top / "told", os.O_WRONLY | os.O_CREAT, 0o644))
    for name, flags, what in (("made", os.O_CREAT, "a new file"), ("told", 0, "a file whose attributes were told"),
                              ("made", os.O_TRUNC, "a file that becomes empty")):
        path = top / name
        if not flags & os.O_CREAT:
            for _ in range(2):  # the first one may come before the server knows that the file is closed
                os.stat(path)
                time.sleep(0.2)
        fd = os.open(path, os.O_RDWR | flags, 0o644)
        os.fstat(fd)
        for i in range(1, 4):
            os.write(fd, piece)
            os.fstat(fd)
            os.fsync(fd)
            right(path, i * len(piece), what, 0)
        os.close(fd)
        right(path, 3 * len(piece), f"{what}, closed")
    path = top / "log"
    with open(path, "wb", buffering=0) as log:
        for i in range(1, 100):  # somebody looks behind each sync
            log.write(piece[:4096])
            os.fsync(log.fileno())
            right(path, i * 4096, "a log", 0)
        for i in range(100, 200):
            log.write(piece[:4096])
            os.fsync(log.fileno())
        right(path, 199 * 4096, "a log that nobody has looked at for long")
        log.write(piece[:4096])
        os.fsync(log.fileno())
        right(path, 200 * 4096, "a log that somebody has looked at again", 0)
    right(path, 200 * 4096, "a log, closed", 0)
    path = top / "mapped"
    with open(path, "w+b") as file:
        file.truncate(len(piece))
        os.stat(path)
        with mmap.mmap(file.fileno(), len(piece)) as stores:
            stores[:] = piece
            stores.flush()
            right(path, len(piece), "a mapped file")


def flags_after_a_write(top):
    """What was written before a file may not be changed any more is written back, times and all; later times are not."""
    for flag in (0x10, 0x20):  # immutable, append-only
        path = top / f"flagged{flag}"
        writer = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        reader = os.open(path, os.O_RDONLY)
        os.pwrite(writer, b"before", 0)
        flags = struct.unpack("q", fcntl.ioctl(reader, 0x80086601, bytes(8)))[0]
        fcntl.ioctl(reader, 0x40086602, struct.pack("q", flags | flag))
        os.pwrite(writer, b"after", 6)  # by a descriptor that is open
        os.close(os.open(path, os.O_RDONLY))
        os.fsync(writer)
        os.close(writer)
        refused(errno.EPERM, os.utime, path, (1, 1))
        check(read(path) == b"beforeafter", "what was written is not there")
        fcntl.ioctl(reader, 0x40086602, struct.pack("q", flags))
        os.close(reader)


def refused_calls_with_flags(top):
    """What a flag forbids is refused each time, and neither the next call nor fsync fails for a time of it."""
    class Time(ctypes.Structure):
        _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]

    def call(function, *arguments):
        return 0 if function(*arguments) >= 0 else ctypes.get_errno()

    def punch(fd):
        return call(LIBC.fallocate, fd, 3, ctypes.c_int64(0), ctypes.c_int64(4096))

    source = os.open(top / "source", os.O_RDWR | os.O_CREAT, 0o644)
    os.write(source, b"another")
    for flag in (0x10, 0x20):  # immutable, append-only
        path = top / f"refuses{flag}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.write(fd, bytes(8192))
        os.fsync(fd)
        flags = struct.unpack("q", fcntl.ioctl(fd, 0x80086601, bytes(8)))[0]
        fcntl.ioctl(fd, 0x40086602, struct.pack("q", flags | flag))
        is_immutable = flag == 0x10
        answers = [punch(fd), punch(fd), call(LIBC.fallocate, fd, 16, ctypes.c_int64(0), ctypes.c_int64(4096)), punch(fd)]
        if is_immutable:
            answers.append(call(LIBC.copy_file_range, source, ctypes.byref(ctypes.c_int64(0)), fd,
                                ctypes.byref(ctypes.c_int64(0)), ctypes.c_size_t(7), 0))
        check(answers == [errno.EPERM] * len(answers), f"flag {flag:#x}: the calls answer {answers}")
        os.fsync(fd)
        # A program's own times are refused, with a descriptor or a name.
        for change in (0x3fffffff, 1):  # now, or a time; and leave the time of the last access (UTIME_OMIT) alone
            two = (Time * 2)(Time(0, 0x3ffffffe), Time(1, change))
            check(call(LIBC.futimens, fd, two) == errno.EPERM, f"flag {flag:#x}: futimens with {change:#x}")
            check(call(LIBC.utimensat, -100, bytes(path), two, 0) == errno.EPERM, f"utimensat with {change:#x}")
        fcntl.ioctl(fd, 0x40086602, struct.pack("q", flags))
        check(punch(fd) == 0, "a call fails when the flag is gone")
        os.fsync(fd)
        os.close(fd)
    os.close(source)


def appends_only(top):
    """The kernel's part does not know that a file only grows: an overwrite is refused when it comes, and gone again."""
    path = top / "grows"
    path.write_bytes(b"first line\n" * 1000)
    reader = os.open(path, os.O_RDONLY)
    flags = struct.unpack("q", fcntl.ioctl(reader, 0x80086601, bytes(8)))[0]
    fcntl.ioctl(reader, 0x40086602, struct.pack("q", flags | 0x20))
    expected = b"first line\n" * 1000

    def by_descriptor(fd):
        fcntl.fcntl(fd, fcntl.F_SETFL, 0)
        os.pwrite(fd, b"FORGED", 0)

    def by_map(fd):
        with mmap.mmap(fd, 4096) as stores:
            stores[:6] = b"FORGED"

    for forge in (by_descriptor, by_map):
        fd = os.open(path, os.O_RDWR | os.O_APPEND)
        os.write(fd, b"more\n")
        os.fsync(fd)
        expected += b"more\n"
        forge(fd)
        try:
            os.fsync(fd)
        except OSError as error:
            check(error.errno in (errno.EPERM, errno.EIO), f"{forge.__name__}: {error}")
        else:
            raise mounting.Failure(f"{forge.__name__}: an fsync after an overwrite tells nothing")
        os.close(fd)
        for _ in range(100):  # the kernel is told to drop its pages after that
            if read(path) == expected:
                break
            time.sleep(0.05)
        check(read(path) == expected, f"{forge.__name__}: what an append-only file had has changed")
    # Many at once, each of whole lines: pages of it are written back in any order.
    script = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
for i in range(300):
    os.write(fd, (sys.argv[2] * 99 + chr(10)).encode())
os.fsync(fd)
"""
    writers = [subprocess.Popen([sys.executable, "-c", script, path, letter]) for letter in "abcd"]
    check(all(writer.wait() == 0 for writer in writers), "appending by four at once")
    lines = read(path)[len(expected):].split(b"\n")
    check(sorted(lines) == [b""] + sorted(letter * 99 for letter in (b"a", b"b", b"c", b"d") for _ in range(300)),
          "what four appended at once is not all there")
    fcntl.ioctl(reader, 0x40086602, struct.pack("q", flags))
    os.close(reader)


def readers_leave_what_is_stored_to(top):
    """Who opens a file for reading does not make the kernel drop pages of it that another one stores to: a direct read
    into one of them would be lost."""
    path, pages = top / "stored-to", 16
    write(path, b"s" * pages * mmap.PAGESIZE)
    fd = os.open(path, os.O_RDWR)
    memory = mmap.mmap(fd, pages * mmap.PAGESIZE)
    os.close(fd)
    view = (ctypes.c_char * len(memory)).from_buffer(memory)
    resident = (ctypes.c_ubyte * pages)()
    for number in range(pages):
        memory[number * mmap.PAGESIZE] = ord("t")
    for _ in range(2):  # the second time what was stored is written back
        os.close(os.open(path, os.O_RDONLY))
        check(LIBC.mincore(ctypes.byref(view), ctypes.c_size_t(len(memory)), resident) == 0, "mincore fails")
        check(all(page & 1 for page in resident), "an open for reading has made the kernel drop what is mapped")
        memory.flush()
    del view
    memory.close()


def test(scratch):
    image = scratch.image("image", "256M", "-t", "ext4", "-b", "4096")
    top = scratch.mount(image)
    for part in (names_that_are_too_long, requests_go_by_inode, handles_outlive_the_cache,
                 groups_and_modes, times, attributes, sizes, ranges, copies_beside_stores, locks, blocks_while_written,
                 flags_after_a_write, refused_calls_with_flags, appends_only, readers_leave_what_is_stored_to):
        part(top)
        print(f"{part.__name__.replace('_', ' ')}: right", flush=True)
    the_root_syncs_everything(scratch, top, image)
    what_the_image_says(scratch, top, image)
    mounting.clean(image)


if __name__ == "__main__":
    mounting.main(test)
