"""Processes beside each other: locks of three kinds, leases, maps, notifications."""

import ctypes
import fcntl
import mmap
import os
import select
import signal
import struct

from answers import ANN, LIBC, libc

F_OFD_GETLK, F_OFD_SETLK, F_SETLEASE, F_GETLEASE, F_SETPIPE_SZ, F_ADD_SEALS, F_SET_RW_HINT = 36, 37, 1024, 1025, 1031, 1033, 1036


def lock(kind, start, length):
    return struct.pack("hhqqi4x", kind, 0, start, length, 0)


def locks(answers):
    os.umask(0)
    fd = os.open("locked", os.O_CREAT | os.O_RDWR, 0o666)
    os.ftruncate(fd, 100)
    answers.quiet("lock", fcntl.fcntl, fd, fcntl.F_SETLK, lock(fcntl.F_WRLCK, 0, 10))

    def other(mine):
        again = os.open("locked", os.O_RDWR)
        mine.quiet("overlapping", fcntl.fcntl, again, fcntl.F_SETLK, lock(fcntl.F_WRLCK, 5, 10))
        mine.quiet("beside", fcntl.fcntl, again, fcntl.F_SETLK, lock(fcntl.F_WRLCK, 10, 10))
        found = fcntl.fcntl(again, fcntl.F_GETLK, lock(fcntl.F_RDLCK, 0, 10))
        mine.tell("who holds it", (struct.unpack_from("hhqqi", found)[:4], struct.unpack_from("hhqqi", found)[4] == os.getppid()))
        mine.quiet("ofd overlapping", fcntl.fcntl, again, F_OFD_SETLK, lock(fcntl.F_WRLCK, 5, 10))
        mine.quiet("flock beside fcntl", fcntl.flock, again, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine.quiet("negative length", fcntl.fcntl, again, fcntl.F_SETLK, lock(fcntl.F_WRLCK, 50, -10))
        mine.quiet("negative start", fcntl.fcntl, again, fcntl.F_SETLK, lock(fcntl.F_WRLCK, -50, 10))
    answers.by(ANN, other)
    second = os.open("locked", os.O_RDWR)
    answers.quiet("ofd lock", fcntl.fcntl, fd, F_OFD_SETLK, lock(fcntl.F_WRLCK, 50, 10))
    answers.quiet("ofd lock of another description", fcntl.fcntl, second, F_OFD_SETLK, lock(fcntl.F_WRLCK, 55, 10))
    answers.quiet("flock", fcntl.flock, fd, fcntl.LOCK_EX)
    answers.quiet("flock of another description", fcntl.flock, second, fcntl.LOCK_SH | fcntl.LOCK_NB)
    answers.quiet("lock for writing of what is open for reading", fcntl.fcntl, os.open("locked", os.O_RDONLY), fcntl.F_SETLK,
                  lock(fcntl.F_WRLCK, 80, 10))
    answers.quiet("lockf", os.lockf, second, os.F_TEST, 5)
    os.close(second)
    os.close(fd)
    answers.by(ANN, lambda mine: mine.quiet("after close", fcntl.fcntl, os.open("locked", os.O_RDWR), fcntl.F_SETLK,
                                            lock(fcntl.F_WRLCK, 0, 0)))


def leases(answers):
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    fd = os.open("leased", os.O_CREAT | os.O_RDONLY, 0o644)
    answers.call("read lease", fcntl.fcntl, fd, F_SETLEASE, fcntl.F_RDLCK)
    answers.call("which lease", fcntl.fcntl, fd, F_GETLEASE)
    answers.quiet("open for writing", os.open, "leased", os.O_WRONLY | os.O_NONBLOCK)
    answers.call("end of it", fcntl.fcntl, fd, F_SETLEASE, fcntl.F_UNLCK)
    answers.call("write lease", fcntl.fcntl, fd, F_SETLEASE, fcntl.F_WRLCK)
    answers.call("write hint", fcntl.fcntl, fd, F_SET_RW_HINT, struct.pack("Q", 2))
    answers.call("seals", fcntl.fcntl, fd, F_ADD_SEALS, 1)


def maps(answers):
    os.umask(0)
    fd = os.open("mapped", os.O_CREAT | os.O_RDWR, 0o666)
    os.ftruncate(fd, 10000)
    shared = mmap.mmap(fd, 10000)
    shared[5000:5004] = b"here"
    answers.tell("seen by read", os.pread(fd, 4, 5000))
    os.pwrite(fd, b"there", 6000)
    answers.tell("seen by the map", bytes(shared[6000:6005]))

    def other(mine):
        again = mmap.mmap(os.open("mapped", os.O_RDWR), 10000)
        mine.tell("seen by another's map", bytes(again[5000:5004]))
        again[0:5] = b"other"
        mine.call("write to a read-only map", lambda: mmap.mmap(os.open("mapped", os.O_RDONLY), 4096, prot=mmap.PROT_WRITE))
    answers.by(ANN, other)
    answers.tell("seen here", bytes(shared[0:5]))
    shared[8190:8194] = b"edge"
    os.ftruncate(fd, 8192)
    os.ftruncate(fd, 10000)
    answers.tell("cut and grown", bytes(shared[8188:8196]))
    answers.call("msync", shared.flush)
    child = os.fork()
    if child == 0:
        os.ftruncate(fd, 100)
        signal.signal(signal.SIGBUS, signal.SIG_DFL)
        shared[9000:9001] = b"x"
        os._exit(0)
    answers.tell("store past the end", os.waitpid(child, 0)[1] & 127)
    answers.tell("behind the end of the file", bytes(shared[100:110]))
    shared[100:104] = b"tail"
    os.ftruncate(fd, 200)
    answers.tell("a store behind the end, then grown", os.pread(fd, 10, 100))
    private = mmap.mmap(fd, 200, flags=mmap.MAP_PRIVATE)
    private[0:4] = b"mine"
    answers.tell("private", (os.pread(fd, 4, 0) != b"mine", bytes(private[0:4])))
    answers.call("map of a directory", lambda: mmap.mmap(os.open(".", os.O_RDONLY), 100, prot=mmap.PROT_READ))
    # What a copy over itself leaves is the processor's business: these do not overlap.
    os.pwrite(fd, bytes(range(200)), 0)
    answers.call("read of a file into its own map", lambda: os.preadv(fd, [memoryview(shared)[:80]], 110))
    answers.call("write of a file from its own map", lambda: os.pwritev(fd, [memoryview(shared)[:80]], 90))
    answers.tell("its bytes", os.pread(fd, 200, 0))
    answers.call("mincore", lambda: libc("madvise", ctypes.addressof(ctypes.c_char.from_buffer(shared)) & ~4095, 4096, 4))


def notifications(answers):
    notify = libc("inotify_init1", os.O_NONBLOCK)
    os.mkdir("watched")
    libc("inotify_add_watch", notify, b"watched", 0xfff)

    def told():
        if not select.select([notify], [], [], 0.2)[0]:
            return []
        raw, at, found = os.read(notify, 1 << 16), 0, []
        while at < len(raw):
            _, mask, _, length = struct.unpack_from("iIII", raw, at)
            found.append((hex(mask), raw[at + 16:at + 16 + length].split(b"\0")[0]))
            at += 16 + length
        return found

    def write():
        with open("watched/a", "ab") as file:
            file.write(b"1")
    for name, function in (("create", lambda: os.close(os.open("watched/a", os.O_CREAT | os.O_RDWR))), ("write", write),
                           ("rename", lambda: os.rename("watched/a", "watched/b")), ("link", lambda: os.link("watched/b", "watched/c")),
                           ("chmod", lambda: os.chmod("watched/b", 0o600)), ("truncate", lambda: os.truncate("watched/b", 0)),
                           ("xattr", lambda: os.setxattr("watched/b", "user.x", b"1")), ("mkdir", lambda: os.mkdir("watched/d")),
                           ("list", lambda: os.listdir("watched")), ("unlink", lambda: os.unlink("watched/b")),
                           ("rmdir", lambda: os.rmdir("watched/d")), ("utime", lambda: os.utime("watched/c", (1, 1)))):
        answers.quiet(name, function)
        answers.tell(f"told of {name}", told())


CASES = (locks, leases, maps, notifications)
