"""Which times a call moves, of the files and of the directories that it changes, and which it leaves when it fails."""

import fcntl
import os
import stat
import struct

from answers import ANN, BEN, libc
from cases_linux import GETFLAGS, SETFLAGS

IMMUTABLE, APPEND = 0x10, 0x20
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2


def touch(path, content=b""):
    fd = os.open(path, os.O_CREAT | os.O_WRONLY)
    os.write(fd, content)
    os.close(fd)


def moved(answers):
    os.makedirs("a/sub")
    os.makedirs("b")
    os.mkdir("a/full")
    for name in ("one", "two", "three", "a/full/x"):
        touch("a/" + name if "/" not in name else name, b"content")
    t = answers.times
    create = os.O_CREAT | os.O_RDWR
    t("create", ["a"], lambda: os.close(os.open("a/new", create)))
    t("create over", ["a", "a/new"], lambda: os.close(os.open("a/new", create)))
    t("create excl over", ["a", "a/new"], lambda: os.close(os.open("a/new", create | os.O_EXCL)))
    t("open truncating a full one", ["a", "a/one"], lambda: os.close(os.open("a/one", os.O_WRONLY | os.O_TRUNC)))
    t("open truncating an empty one", ["a", "a/new"], lambda: os.close(os.open("a/new", os.O_WRONLY | os.O_TRUNC)))
    t("mkdir", ["a"], os.mkdir, "a/dir")
    t("mkdir over", ["a", "a/dir"], os.mkdir, "a/dir")
    t("mkfifo", ["a"], os.mkfifo, "a/fifo")
    t("mknod", ["a"], os.mknod, "a/node", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    t("symlink", ["a"], os.symlink, "to", "a/link")
    t("link", ["a", "b", "a/one"], os.link, "a/one", "b/one")
    t("link over", ["a", "b", "a/one"], os.link, "a/one", "b/one")
    t("unlink one of two", ["a", "b", "a/one"], os.unlink, "b/one")
    t("unlink", ["a"], os.unlink, "a/link")
    t("unlink nothing", ["a"], os.unlink, "a/none")
    t("rmdir", ["a"], os.rmdir, "a/dir")
    t("rmdir of a full one", ["a", "a/full"], os.rmdir, "a/full")
    t("rename in place", ["a", "a/two"], lambda: os.rename("a/two", "a/two"))
    fd = os.open("a/two", os.O_RDWR)
    t("rename", ["a", "b", fd], os.rename, "a/two", "b/two")
    t("rename back", ["a", "b", fd], os.rename, "b/two", "a/two")
    os.link("a/two", "b/same")
    t("rename onto the same file", ["a", "b", fd], os.rename, "a/two", "b/same")
    os.unlink("b/same")
    replaced = os.open("a/three", os.O_RDONLY)
    t("rename over", ["a", fd, replaced], os.rename, "a/two", "a/three")
    os.close(replaced)
    directory = os.open("a/sub", os.O_RDONLY)
    t("rename a directory", ["a", "b", directory], os.rename, "a/sub", "b/sub")
    t("rename a directory in place", ["b", directory], os.rename, "b/sub", "b/sub2")
    touch("b/x")
    target = os.open("b/x", os.O_RDONLY)
    t("exchange", ["a", "b", fd, target, directory], lambda: libc("renameat2", -100, b"a/three", -100, b"b/x", 2))
    t("rename refused", ["a", "b", fd], os.rename, "b/three", "a/full")
    os.close(target)
    os.close(directory)
    t("write", [fd], os.pwrite, fd, b"abc", 0)
    t("write of nothing", [fd], os.pwrite, fd, b"", 0)
    t("append", [fd], os.pwrite, fd, b"abc", 10)
    t("ftruncate shorter", [fd], os.ftruncate, fd, 5)
    t("ftruncate longer", [fd], os.ftruncate, fd, 500)
    t("truncate by name", ["a/new"], os.truncate, "a/new", 5)
    t("truncate negative", ["a/new"], lambda: libc("truncate", b"a/new", -1))
    t("fallocate", [fd], os.posix_fallocate, fd, 0, 5000)
    t("fallocate keeping the size", [fd], lambda: libc("fallocate", fd, 1, 0, 50000))
    t("punch", [fd], lambda: libc("fallocate", fd, 3, 0, 4096))
    t("zero", [fd], lambda: libc("fallocate", fd, 16, 0, 4096))
    t("chmod", ["a/new", "a"], os.chmod, "a/new", 0o600)
    t("chmod the same", ["a/new"], os.chmod, "a/new", 0o600)
    t("chown", ["a/new"], os.chown, "a/new", ANN.uid, ANN.gid)
    t("chown the same", ["a/new"], os.chown, "a/new", ANN.uid, ANN.gid)
    t("chown of nothing", ["a/new"], os.chown, "a/new", -1, -1)
    t("setxattr", ["a/new"], os.setxattr, "a/new", "user.x", b"1")
    t("setxattr refused", ["a/new"], os.setxattr, "a/new", "user.x", b"1", os.XATTR_CREATE)
    t("removexattr", ["a/new"], os.removexattr, "a/new", "user.x")
    t("utime of now", ["a/new"], os.utime, "a/new")
    t("utime", ["a/new"], lambda: os.utime("a/new", ns=(10**18 + 1, 10**18 + 7)))
    answers.tell("utime to the nanosecond", os.stat("a/new").st_mtime_ns)
    libc("utimensat", -100, b"a/new", bytes(8) + (0x3ffffffe).to_bytes(8, "little") + bytes(8) + (5).to_bytes(8, "little"), 0)
    answers.tell("utime with UTIME_OMIT", os.stat("a/new").st_mtime_ns)
    answers.call("utime with a bad nanosecond", lambda: libc("utimensat", -100, b"a/new", bytes(8) + (10**9).to_bytes(8, "little") * 3, 0))
    for when in (-1, -2**31, -2**31 - 1, 2**31, 2**32, 2**33, 15032385535, 15032385536, 2**40):
        os.utime("a/new", (when, when))
        answers.tell(f"time {when}", os.stat("a/new").st_mtime)
    os.close(fd)


def as_others(answers):
    """utimes by who does not own the file."""
    os.umask(0)
    touch("mine")
    os.chmod("mine", 0o666)

    def by_ann(mine):
        mine.call("now, writable", os.utime, "mine")
        mine.call("a time, writable", os.utime, "mine", (1, 1))
        mine.call("chmod", os.chmod, "mine", 0o600)
    answers.by(ANN, by_ann)
    os.chmod("mine", 0o644)
    answers.by(ANN, by_ann)


def set_flags(path, flags):
    """A file's flags beside those that tell of its map."""
    fd = os.open(path, os.O_RDONLY)
    before = struct.unpack("Q", fcntl.ioctl(fd, GETFLAGS, bytes(8)))[0]
    fcntl.ioctl(fd, SETFLAGS, struct.pack("Q", before & ~(IMMUTABLE | APPEND) | flags))
    os.close(fd)


def utimens(path, atime, mtime):
    """`now`, `omit`, or nanoseconds since 1970, as the call takes them."""
    words = [word for time in (atime, mtime) for word in
             {"now": (0, UTIME_NOW), "omit": (0, UTIME_OMIT)}.get(time) or divmod(time, 10 ** 9)]
    libc("utimensat", -100, path.encode(), struct.pack("4q", *words), 0)


def touch_flagged(answers, label):
    for atime, mtime in (("now", "now"), ("now", "omit"), ("omit", "now"), ("omit", "omit"), (5, 7), ("now", 7), (5, "now")):
        answers.times(f"times {atime} {mtime} of {label}", [label], utimens, label, atime, mtime)


def of_flagged(answers):
    """What only grows may be touched, and nothing else."""
    for label, flags in (("plain", 0), ("append", APPEND), ("immutable", IMMUTABLE)):
        touch(label, b"content")
        os.chmod(label, 0o666)
        os.chown(label, ANN.uid, ANN.gid)
        set_flags(label, flags)
    try:
        for label in ("plain", "append", "immutable"):
            touch_flagged(answers, label)
            for user in (ANN, BEN):
                answers.by(user, touch_flagged, label)
    finally:
        for label in ("append", "immutable"):
            set_flags(label, 0)


CASES = (moved, as_others, of_flagged)
