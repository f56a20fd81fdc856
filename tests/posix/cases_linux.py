"""Linux's own calls: unnamed files, handles, flags of reads and writes, copies, ranges, statx, ioctls, limits, positions."""

import array
import ctypes
import fcntl
import mmap
import os
import resource
import select
import signal
import struct

import mounting
from answers import ANN, AT_FDCWD, LIBC, libc

AT_EMPTY_PATH, AT_SYMLINK_FOLLOW = 0x1000, 0x400
GETFLAGS, SETFLAGS, FSGETXATTR, FSSETXATTR, FIEMAP, FICLONE, FICLONERANGE, FITRIM, GETVERSION, FIBMAP = (
    0x80086601, 0x40086602, 0x801C581F, 0x401C5820, 0xC020660B, 0x40049409, 0x4020940D, 0xC0185879, 0x80087601, 1)
RWF_HIPRI, RWF_DSYNC, RWF_SYNC, RWF_NOWAIT, RWF_APPEND = 1, 2, 4, 8, 16


def opened(path="f", flags=os.O_RDWR | os.O_CREAT, content=None):
    fd = os.open(path, flags, 0o644)
    if content is not None:
        os.pwrite(fd, content, 0)
    return fd


def check_links(status, links):
    if status.st_nlink != links:
        raise ValueError(f"{status.st_nlink} links")


def unnamed_in_directories(answers):
    """What the directory has to say, who may, and what a name needs."""
    def made(where, flags, mode, then):
        fd = os.open(where, os.O_TMPFILE | flags, mode)
        try:
            return then(fd)
        finally:
            os.close(fd)

    def named(fd):
        libc("linkat", AT_FDCWD, b"/proc/self/fd/%d" % fd, AT_FDCWD, b"later", AT_SYMLINK_FOLLOW)
        status = os.fstat(fd)
        os.link("later", "twice")
        os.unlink("later")
        found = oct(status.st_mode), status.st_gid, status.st_nlink, os.fstat(fd).st_nlink, os.stat("twice").st_size
        os.unlink("twice")
        return found

    def filled(fd):
        os.write(fd, b"u" * 70000)
        os.ftruncate(fd, 5000)
        os.fsync(fd)
        os.setxattr(fd, "user.there", b"value")
        os.fchmod(fd, 0o4755)
        os.fchown(fd, 1000, 1000)
        status = os.fstat(fd)
        again = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
        got = os.pread(again, 9, 4995), os.getxattr(again, "user.there")
        os.close(again)
        return oct(status.st_mode), status.st_nlink, status.st_size, status.st_uid, got, named(fd)

    os.mkdir("plain")
    os.mkdir("group")
    os.chown("group", 0, 1234)
    os.chmod("group", 0o2777)
    os.mkdir("shut")
    os.mkdir("listed")
    os.setxattr("listed", "system.posix_acl_default", struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", *entry) for entry in ((1, 7, 0xFFFFFFFF), (2, 5, 1000), (4, 5, 0xFFFFFFFF), (16, 5, 0xFFFFFFFF),
                                                  (32, 1, 0xFFFFFFFF))))
    for where in ("plain", "group", "listed"):
        for mode in (0o600, 0o777, 0o2771, 0o4711):
            answers.call(f"unnamed in {where}, {mode:o}", made, where, os.O_RDWR, mode, named)
        answers.call(f"filled in {where}", made, where, os.O_WRONLY, 0o600, filled)
    answers.call("with O_EXCL it gets no name", made, "plain", os.O_RDWR | os.O_EXCL, 0o600, named)
    answers.call("for reading only", made, "plain", os.O_RDONLY, 0o600, named)
    answers.call("in a file", made, "named", os.O_RDWR, 0o600, named)
    answers.call("in what is not there", made, "none", os.O_RDWR, 0o600, named)

    def as_ann(mine):
        mine.call("in a directory of root's", made, "shut", os.O_RDWR, 0o600, os.fstat)
        mine.call("in everybody's", made, "group", os.O_RDWR, 0o666, lambda fd: (oct(os.fstat(fd).st_mode), os.fstat(fd).st_gid))
    answers.by(ANN, as_ann)
    answers.tell("nothing is left", [os.listdir(where) for where in ("plain", "group", "listed", "shut")])


def unnamed(answers):
    fd = answers.quiet("O_TMPFILE", os.open, ".", os.O_TMPFILE | os.O_RDWR, 0o640)
    if fd is not None:
        os.write(fd, b"text")
        check_links(os.fstat(fd), 0)
        libc("linkat", AT_FDCWD, b"/proc/self/fd/%d" % fd, AT_FDCWD, b"named", AT_SYMLINK_FOLLOW)
        check_links(os.fstat(fd), 1)
        os.close(fd)
    else:
        opened("named", content=b"text")
    if mounting.KERNEL >= mounting.KERNEL_OF_UNNAMED:
        answers.tell("what is named now", (oct(os.stat("named").st_mode), os.stat("named").st_nlink, open("named", "rb").read()))
        unnamed_in_directories(answers)
    fd = opened("gone", content=b"gone")
    os.unlink("gone")
    answers.tell("open and unlinked", (os.fstat(fd).st_nlink, os.pread(fd, 9, 0), os.fstat(fd).st_size))
    answers.call("link of an unlinked file",
                 lambda: libc("linkat", AT_FDCWD, b"/proc/self/fd/%d" % fd, AT_FDCWD, b"again", AT_SYMLINK_FOLLOW))
    answers.call("link by AT_EMPTY_PATH", lambda: libc("linkat", fd, b"", AT_FDCWD, b"again", AT_EMPTY_PATH))
    answers.quiet("open of an unlinked file through /proc", lambda: os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDWR)))
    answers.call("xattr of an unlinked file", os.setxattr, fd, "user.x", b"1")
    answers.call("chmod of an unlinked file", os.fchmod, fd, 0o600)
    answers.call("ftruncate of an unlinked file", os.ftruncate, fd, 100000)
    os.close(fd)
    os.mkdir("d")
    fd = os.open("d", os.O_RDONLY)
    os.rmdir("d")
    answers.tell("a removed directory", (os.fstat(fd).st_nlink, os.fstat(fd).st_size, os.listdir(fd)))
    answers.call("create in it", os.open, "x", os.O_CREAT | os.O_RDWR, 0o644, dir_fd=fd)
    answers.call("mkdir in it", os.mkdir, "x", dir_fd=fd)
    answers.call("look up in it", os.stat, "x", dir_fd=fd)
    answers.call("its ..", lambda: os.stat("..", dir_fd=fd).st_ino == os.stat(".").st_ino)
    answers.call("link into it", os.link, "named", "x", dst_dir_fd=fd)
    if mounting.KERNEL >= mounting.KERNEL_OF_UNNAMED:
        answers.call("unnamed in it", os.open, ".", os.O_TMPFILE | os.O_RDWR, 0o644, dir_fd=fd)
    answers.call("fsync of it", os.fsync, fd)
    os.close(fd)


def flags_of_io(answers):
    fd = opened("io", content=b"0123456789")

    def write(flags, at, text):
        vector = struct.pack("QQ", ctypes.addressof(text), len(text) - 1)
        return libc("pwritev2", fd, vector, 1, at, flags)
    text = ctypes.create_string_buffer(b"abc")
    for name, flags in (("none", 0), ("dsync", RWF_DSYNC), ("sync", RWF_SYNC), ("append", RWF_APPEND), ("nonsense", 1 << 20)):
        answers.call(f"pwritev2 {name}", write, flags, 2, text)
    answers.tell("after that", os.pread(fd, 100, 0))
    buffer = bytearray(20)
    answers.call("preadv2 hipri", os.preadv, fd, [buffer], 0, RWF_HIPRI)
    answers.call("preadv2 nonsense", os.preadv, fd, [buffer], 0, 1 << 20)
    answers.call("pread at a negative offset", os.pread, fd, 5, -1)
    answers.call("pwrite at a negative offset", os.pwrite, fd, b"x", -1)
    answers.call("pwrite at the end of offsets", os.pwrite, fd, b"x", 2**63 - 1)
    beyond = opened("beyond")
    answers.call("pwrite past the largest file", os.pwrite, beyond, b"x", 16 * 2**40)
    answers.call("fsync after it", os.fsync, beyond)
    os.close(beyond)
    os.truncate("beyond", 0)
    answers.call("ftruncate to the largest file", os.ftruncate, fd, 16 * 2**40 - 4096)
    answers.tell("its size", os.fstat(fd).st_size)
    answers.call("ftruncate past it", os.ftruncate, fd, 16 * 2**40)
    os.ftruncate(fd, 10)
    answers.call("read of a directory", os.read, os.open(".", os.O_RDONLY), 10)
    answers.call("write to what is open for reading", os.pwrite, os.open("io", os.O_RDONLY), b"x", 0)
    answers.call("read of what is open for writing", os.pread, os.open("io", os.O_WRONLY), 1, 0)
    append = os.open("io", os.O_RDWR | os.O_APPEND)
    answers.call("pwrite to O_APPEND", os.pwrite, append, b"END", 0)
    answers.tell("goes to the end", (os.pread(fd, 100, 0), os.lseek(append, 0, os.SEEK_CUR)))
    fcntl.fcntl(append, fcntl.F_SETFL, 0)
    answers.call("pwrite without it", os.pwrite, append, b"BEG", 0)
    answers.tell("goes to the front", os.pread(fd, 100, 0))
    for name, advice in (("normal", 0), ("willneed", 3), ("dontneed", 4), ("noreuse", 5), ("nonsense", 77)):
        answers.call(f"fadvise {name}", lambda: libc("posix_fadvise", fd, 0, 0, advice))
    for flags in (0, 1, 2, 4, 7, 8):
        answers.call(f"sync_file_range {flags}", lambda: libc("sync_file_range", fd, 0, 0, flags))
    answers.call("readahead", lambda: libc("readahead", fd, 0, 100))
    answers.call("select", lambda: [len(one) for one in select.select([fd], [fd], [], 0)])
    for name, flags in (("direct", os.O_DIRECT), ("sync", os.O_SYNC), ("noatime", os.O_NOATIME), ("path", os.O_PATH)):
        answers.open(f"open {name}", "io", os.O_RDWR | flags)
    answers.by(ANN, lambda mine: mine.open("open noatime of another's", "io", os.O_RDONLY | os.O_NOATIME))
    direct = opened("direct", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    page = mmap.mmap(-1, 8192)
    answers.call("direct write of an odd length", os.pwritev, direct, [memoryview(page)[:100]], 0)
    answers.call("direct write at an odd place", os.pwritev, direct, [memoryview(page)[:4096]], 100)
    answers.call("direct write, then", os.pwritev, direct, [memoryview(page)[:8192]], 0)
    answers.call("direct read of an odd length", os.preadv, direct, [memoryview(page)[:100]], 0)
    answers.call("direct read at an odd place", os.preadv, direct, [memoryview(page)[:4096]], 100)
    answers.call("direct read of sectors", os.preadv, direct, [memoryview(page)[:512]], 7680)
    answers.call("direct write of sectors", os.pwritev, direct, [memoryview(page)[:512]], 7680)
    answers.call("an odd end", os.pwrite, opened("direct", os.O_WRONLY), b"odd", 8192)
    answers.call("direct read of an odd end", os.preadv, direct, [memoryview(page)[:4096]], 8192)
    answers.call("direct read at an odd place past the end", os.preadv, direct, [memoryview(page)[:4096]], (1 << 20) + 100)
    answers.call("direct read past the end", os.preadv, direct, [memoryview(page)[:4096]], 1 << 20)
    answers.call("direct write from odd memory", os.pwritev, direct, [memoryview(page)[100:4196]], 4096)


def copies(answers):
    source = opened("source", content=bytes(range(256)) * 64)
    target = opened("target")
    answers.call("sendfile", os.sendfile, target, source, 100, 5000)
    answers.call("copy_file_range", os.copy_file_range, source, target, 5000, 0, 3000)
    answers.call("copy_file_range onto itself, apart", os.copy_file_range, source, source, 100, 0, 10000)
    answers.call("copy_file_range onto itself, overlapping", os.copy_file_range, source, source, 100, 0, 50)
    answers.call("copy_file_range at the end", os.copy_file_range, source, target, 100, 1 << 20, 0)
    answers.call("copy_file_range from a directory", os.copy_file_range, os.open(".", os.O_RDONLY), target, 10)
    answers.call("copy_file_range to O_APPEND", os.copy_file_range, source, os.open("target", os.O_RDWR | os.O_APPEND), 10)
    answers.call("copy_file_range to what is read-only", os.copy_file_range, source, os.open("target", os.O_RDONLY), 10)
    answers.call("copy_file_range with flags", lambda: libc("copy_file_range", source, None, target, None, 10, 1))
    read, write = os.pipe()
    answers.call("splice in", lambda: libc("splice", source, None, write, None, 4096, 0))
    answers.call("splice out", lambda: libc("splice", read, None, target, None, 4096, 0))
    answers.call("sendfile out", lambda: os.sendfile(write, source, 0, 1000))
    answers.tell("target", (os.fstat(target).st_size, hash(bytes(os.pread(target, 1 << 16, 0)))and None))
    answers.call("FICLONE", fcntl.ioctl, target, FICLONE, source)
    answers.call("FICLONERANGE", fcntl.ioctl, target, FICLONERANGE, struct.pack("qQQQ", source, 0, 4096, 0))
    for name, mode in (("0", 0), ("keep", 1), ("punch without keep", 2), ("punch", 3), ("collapse", 8), ("zero", 16),
                       ("zero keep", 17), ("insert", 32), ("unshare", 64), ("collapse and zero", 24), ("nonsense", 1 << 20)):
        for at, length in ((0, 4096), (0, 0), (-1, 5), (5, -1), (4096, 4096), (1, 5), (1 << 62, 1 << 62), (15 * 2**40, 2 * 2**40)):
            answers.call(f"fallocate {name} {at} {length}", lambda: libc("fallocate", target, mode, at, length))
    answers.call("fallocate of a directory", lambda: libc("fallocate", os.open(".", os.O_RDONLY), 0, 0, 10))
    os.mkfifo("pipe")
    answers.call("fallocate of a fifo", lambda: libc("fallocate", os.open("pipe", os.O_RDWR), 0, 0, 10))
    answers.call("seek past the end for data", os.lseek, target, 1 << 50, os.SEEK_DATA)
    answers.call("seek past the end for a hole", os.lseek, target, 1 << 50, os.SEEK_HOLE)
    answers.call("seek far", os.lseek, target, 1 << 62, os.SEEK_SET)
    answers.call("seek to the largest", os.lseek, target, 16 * 2**40 - 4096, os.SEEK_SET)
    answers.call("seek nonsense", os.lseek, target, 0, 99)


def statx(answers):
    """Which fields are told, of those that say something on any file system; st_dev is the mount's own."""
    opened("sx", content=b"12345")
    buffer = ctypes.create_string_buffer(256)
    answers.call("statx", lambda: libc("statx", AT_FDCWD, b"sx", 0, 0x7ff, buffer))
    mask, block, attributes, links, uid, gid, mode, _, inode, size, blocks, known = struct.unpack_from("IIQIIIHHQQQQ", buffer)
    answers.tell("statx fields", (hex(mask & 0x7ff), links, uid, gid, oct(mode), size, inode == os.stat("sx").st_ino))
    answers.tell("blocks of what is open", blocks)
    answers.tell("statx birth time", hex(mask & 0x800))
    answers.tell("statx block size", block)
    for size in (1, 5, 511, 4096, 4097, 100000):
        with open("blocks", "wb") as file:
            file.write(b"b" * size)
        answers.tell(f"blocks of {size} bytes", os.stat("blocks").st_blocks)
    answers.tell("statx attributes", (hex(attributes), hex(known)))
    answers.call("statx with a bad mask", lambda: libc("statx", AT_FDCWD, b"sx", 0, 1 << 31, buffer))
    answers.call("statx with bad flags", lambda: libc("statx", AT_FDCWD, b"sx", 1 << 30, 0x7ff, buffer))
    answers.tell("st_blocks of a directory", os.stat(".").st_blocks)
    answers.tell("size of a directory", os.stat(".").st_size)
    answers.tell("pathconf", [os.pathconf(".", name) for name in ("PC_LINK_MAX", "PC_NAME_MAX", "PC_PATH_MAX", "PC_CHOWN_RESTRICTED",
                                                                   "PC_NO_TRUNC")])


def born(answers):
    """statx's birth time: there, near the other times of what is new, and moved by nothing."""
    def asked(path):
        buffer = ctypes.create_string_buffer(256)
        libc("statx", AT_FDCWD, os.fsencode(path), 0x100, 0xfff, buffer)  # AT_SYMLINK_NOFOLLOW
        there = struct.unpack_from("I", buffer)[0] & 0x800 != 0
        birth, change = (struct.unpack_from("qI", buffer, at) for at in (80, 96))
        return there, birth, change

    opened("file", content=b"12345")
    os.mkdir("directory")
    os.symlink("file", "link")
    os.mkfifo("fifo")
    for path in ("file", "directory", "link", "fifo"):
        there, first, change = asked(path)
        if not there:
            raise ValueError(f"{path} has no birth time")
        if abs(first[0] - change[0]) > 2:
            raise ValueError(f"{path}: born {first}, changed {change}")
        os.utime(path, (1, 1), follow_symlinks=False)
        os.chown(path, 1000, 1000, follow_symlinks=False)
        os.rename(path, "other")
        os.rename("other", path)
        if asked(path)[1] != first:
            raise ValueError(f"{path}: born {first}, later {asked(path)[1]}")
        status = os.lstat(path)
        answers.tell(f"{path} besides", (oct(status.st_mode), status.st_nlink, status.st_uid, status.st_size, status.st_mtime))


def ioctls(answers):
    fd = opened("ctl", content=b"1")
    answers.call("GETFLAGS", lambda: struct.unpack("I", fcntl.ioctl(fd, GETFLAGS, bytes(8))[:4])[0] & ~0x10080000)
    answers.quiet("SETFLAGS", lambda: fcntl.ioctl(fd, SETFLAGS, struct.pack("Q", struct.unpack("Q", fcntl.ioctl(fd, GETFLAGS, bytes(8)))[0] | 0x80)))
    # Whether what a file holds goes through the journal (j) costs everybody: its owner may not decide it alone.
    def journaled(mine, path):
        theirs = os.open(path, os.O_RDONLY)
        now = struct.unpack("Q", fcntl.ioctl(theirs, GETFLAGS, bytes(8)))[0]
        mine.quiet(f"SETFLAGS j of {path}", lambda: fcntl.ioctl(theirs, SETFLAGS, struct.pack("Q", now ^ 0x4000)))
        mine.quiet(f"SETFLAGS d of {path}", lambda: fcntl.ioctl(theirs, SETFLAGS, struct.pack("Q", now ^ 0x40)))
        os.close(theirs)

    opened("theirs")
    os.chown("theirs", ANN.uid, ANN.gid)
    answers.by(ANN, journaled, "theirs")
    # Root may be without that capability (24) here; a mount knows only who is root.
    with open("/proc/self/status", encoding="ascii") as status:
        held = int(next(line.split()[1] for line in status if line.startswith("CapEff:")), 16)
    if held >> 24 & 1:
        journaled(answers, "ctl")
    answers.quiet("FSGETXATTR", lambda: fcntl.ioctl(fd, FSGETXATTR, bytes(28)))

    def extended(mine, path, flags, project=0):
        theirs = os.open(path, os.O_RDONLY)
        mine.quiet(f"FSSETXATTR {flags:#x} {project} of {path}",
                   lambda: fcntl.ioctl(theirs, FSSETXATTR, struct.pack("5I8x", flags, 0, 0, project, 0)))
        mine.tell(f"GETFLAGS with {flags:#x}",
                  hex(struct.unpack("I", fcntl.ioctl(theirs, GETFLAGS, bytes(8))[:4])[0] & ~0x10080000))
        mine.tell(f"FSGETXATTR with {flags:#x}", fcntl.ioctl(theirs, FSGETXATTR, bytes(28)).hex())
        os.close(theirs)

    # FS_XFLAG_: nothing, IMMUTABLE, APPEND, SYNC, NOATIME, NODUMP, some of them.
    os.mkdir("ctl d")
    for flags in (0, 0x8, 0x10, 0x20, 0x40, 0x80, 0xE0, 0):
        extended(answers, "ctl", flags)
        extended(answers, "ctl d", flags)
        answers.call(f"pwrite with {flags:#x}", lambda: os.close(os.open("ctl", os.O_WRONLY)))
    extended(answers, "ctl", 0, project=5)
    answers.by(ANN, extended, "theirs", 0x80)
    answers.by(ANN, extended, "theirs", 0x10)
    answers.by(ANN, extended, "ctl", 0x80)
    answers.quiet("GETVERSION", lambda: fcntl.ioctl(fd, GETVERSION, bytes(8)))
    answers.quiet("FIEMAP", lambda: fcntl.ioctl(fd, FIEMAP, struct.pack("QQIIII", 0, 1 << 20, 0, 0, 0, 0)))
    answers.quiet("FIBMAP", lambda: fcntl.ioctl(fd, FIBMAP, bytes(4)))
    answers.quiet("FITRIM", lambda: fcntl.ioctl(fd, FITRIM, struct.pack("QQQ", 0, 1 << 40, 0)))
    answers.call("an ioctl that nobody knows", fcntl.ioctl, fd, 0x5A5A, bytes(8))
    answers.call("TCGETS", fcntl.ioctl, fd, 0x5401, bytes(64))
    answers.call("FIONREAD", lambda: struct.unpack("i", fcntl.ioctl(fd, 0x541B, bytes(4)))[0])


def limits(answers):
    def limited(mine):
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
        seen = []
        signal.signal(signal.SIGXFSZ, lambda number, frame: seen.append(number))
        fd = opened("limited")
        mine.call("write over the limit", os.pwrite, fd, b"x" * 9000, 0)
        mine.call("write beyond the limit", os.pwrite, fd, b"x", 8192)
        mine.call("truncate beyond the limit", os.ftruncate, fd, 8193)
        mine.call("truncate to the limit", os.ftruncate, fd, 8192)
        mine.call("fallocate beyond the limit", lambda: libc("fallocate", fd, 0, 0, 9000))
        mine.call("truncate by name", os.truncate, "limited", 9000)
        mine.tell("signals", len(seen))
    os.chmod(".", 0o777)
    answers.by(ANN, limited)
    os.mkdir("sub")
    for number in range(100):
        os.mkdir(f"sub/{number}")
    answers.tell("links of a directory of 100", os.stat("sub").st_nlink)


def positions(answers):
    os.mkdir("names")
    for number in range(300):
        os.close(os.open(f"names/n{number}", os.O_CREAT))
    dirent = struct.Struct("QqHB")

    def entries(fd):
        raw = ctypes.create_string_buffer(1000)
        found = []
        while (got := libc("getdents64", fd, raw, 1000)) > 0:
            at = 0
            while at < got:
                _, position, length, kind = dirent.unpack_from(raw, at)
                found.append((raw.raw[at + 19:at + length].split(b"\0")[0], position, kind))
                at += length
        return found
    fd = os.open("names", os.O_RDONLY)
    all_names = entries(fd)
    answers.tell("names", (len(all_names), len(set(all_names)), sorted({kind for _, _, kind in all_names})))
    for index in (0, 1, 57, 299, 301):
        os.lseek(fd, all_names[index][1], os.SEEK_SET)
        answers.tell(f"from {index}", entries(fd) == all_names[index + 1:])
    answers.call("to the front", os.lseek, fd, 0, os.SEEK_SET)
    answers.tell("again", entries(fd) == all_names)
    answers.call("small buffer", lambda: libc("getdents64", fd, ctypes.create_string_buffer(5), 5) if os.lseek(fd, 0, 0) == 0 else None)
    for number in range(150):
        os.unlink(f"names/n{number}")
    os.lseek(fd, all_names[57][1], os.SEEK_SET)
    left = [name for name, _, _ in all_names[58:] if not name.startswith(b"n") or int(name[1:]) >= 150]
    answers.tell("after removals", [name for name, _, _ in entries(fd)] == left)


def handles(answers):
    os.mkdir("h")
    opened("h/file", content=b"by handle")
    handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128), 136)
    mount = ctypes.c_int()
    answers.call("name_to_handle_at", lambda: libc("name_to_handle_at", AT_FDCWD, b"h/file", handle, ctypes.byref(mount), 0))
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as drop:
        drop.write("2")
    root = os.open(".", os.O_RDONLY)
    fd = answers.quiet("open_by_handle_at", lambda: libc("open_by_handle_at", root, handle, os.O_RDWR))
    if fd is not None:
        answers.tell("its text", os.pread(fd, 100, 0))
        os.close(fd)
    os.unlink("h/file")
    answers.quiet("open_by_handle_at of what is gone", lambda: libc("open_by_handle_at", root, handle, os.O_RDWR))


def space(answers):
    """What was just given back can be used at once."""
    def fill():
        fd = opened("big")
        at = 0
        for length in (1 << 28, 1 << 26, 1 << 24, 1 << 22, 1 << 20, 1 << 16, 1 << 12):
            try:
                while True:
                    libc("fallocate", fd, 0, at, length)
                    at += length
            except OSError as error:
                answers.tell(f"no {length} more", error.errno)
        return fd
    fd = fill()
    os.ftruncate(fd, 0)
    answers.call("mkdir after truncate", os.mkdir, "dir")
    os.close(fd)
    os.close(fill())
    os.unlink("big")
    answers.call("mkdir after unlink", os.mkdir, "dir2")
    answers.open("create after unlink", "file", os.O_CREAT | os.O_RDWR)
    answers.call("symlink after unlink", os.symlink, "t" * 1000, "sl")
    os.close(fill())
    os.unlink("big")
    fd = opened("again")
    answers.call("write after unlink", os.write, fd, b"w" * (8 << 20))
    answers.call("its fsync", os.fsync, fd)
    os.unlink("again")


def attributes(answers):
    fd = opened("x")
    for size in (0, 1, 3000, 4000, 4096, 65536, 65537):
        answers.call(f"xattr of {size}", os.setxattr, fd, "user.size", b"v" * size)
    for key in ("user.", "user", "", "none.x", "user." + "k" * 250, "user." + "k" * 251, "system.nothing", "system.", "system.richacl", "security.x",
                "trusted.x", "system.posix_acl_access"):
        answers.call(f"xattr named {key[:12]} {len(key)}", os.setxattr, fd, key, b"1")
        answers.call(f"read {key[:12]} {len(key)}", os.getxattr, fd, key)
        answers.call(f"remove {key[:12]} {len(key)}", os.removexattr, fd, key)
    answers.call("both flags", os.setxattr, fd, "user.a", b"1", 3)
    answers.call("bad flags", os.setxattr, fd, "user.a", b"1", 8)
    blocks = opened("blocks", content=b"b" * 5000)
    os.fsync(blocks)
    with_one, with_none = "st_blocks with an attribute's block", "st_blocks without it again"
    for who in (blocks, "."):
        for change, label in ((lambda: os.setxattr(who, "user.block", b"v" * 3000), with_one),
                              (lambda: os.removexattr(who, "user.block"), with_none)):
            had = os.stat(who).st_blocks
            answers.call(label, change)
            answers.tell(label, os.stat(who).st_blocks - had)
    os.close(blocks)
    os.symlink("x", "sl")
    answers.call("user xattr of a symlink", os.setxattr, "sl", "user.a", b"1", 0, follow_symlinks=False)
    answers.call("trusted xattr of a symlink", os.setxattr, "sl", "trusted.a", b"1", 0, follow_symlinks=False)
    os.chmod("x", 0o644)

    def by_ann(mine):
        mine.call("another's user xattr", os.setxattr, "x", "user.b", b"1")
        mine.call("trusted by a user", os.setxattr, "x", "trusted.b", b"1")
        mine.call("trusted read by a user", os.getxattr, "x", "trusted.b")
        mine.call("security by a user", os.setxattr, "x", "security.b", b"1")
        mine.call("list", lambda: sorted(os.listxattr("x")))
    answers.by(ANN, by_ann)
    answers.call("list", lambda: sorted(os.listxattr("x")))


CASES = (unnamed, flags_of_io, copies, statx, *((born,) if mounting.KERNEL >= mounting.KERNEL_OF_BIRTHS else ()), ioctls, limits,
         positions, handles, attributes, space)
