#!/usr/bin/env python3
"""What calls answer where nothing can be changed: the kernel's ext4, mounted read-only, and the C interface with `ro`.

Each call that changes something is tried on each kind of name, by root and by somebody else; the errors have to be
equal, and the image stays as it is. Opening the root is compared where writing is possible as well.

Usage: read_only_test.py PROGRAM LIBRARY
"""

import hashlib
import json
import os
import pathlib
import stat
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "mount"))
import mounting  # noqa: E402  (lies in the folder beside)
import users  # noqa: E402
from kernel_calls import AT_FDCWD, KernelCalls, called  # noqa: E402
from library_calls import LibraryCalls  # noqa: E402
from running import named  # noqa: E402

LONG = "l" * 256
AT_EMPTY_PATH = 0x1000
NAMES = ("", "/", "/.", "/..", "/t", "/t/", "/t/.", "/t/..", "/t/file", "/t/file/", "/t/file/x", "/t/file/.", "/t/full",
         "/t/full/", "/t/full/.", "/t/full/..", "/t/empty", "/t/empty/", "/t/fifo", "/t/fifo/", "/t/device", "/t/socket",
         "/t/link", "/t/link/", "/t/tofull", "/t/tofull/", "/t/dangling", "/t/dangling/", "/t/loop", "/t/loop/", "/nx",
         "/nx/", "/nx/x", "/nx/.", "/t/" + LONG[1:], "/t/" + LONG, "/t/" + LONG + "/", "/" + LONG + "/x", "/t/immutable",
         "/t/append", "/t/closed/x", "/t/closed/nx", "/" + "x/" * 2048)
# Of the two names of a call, so that they stay a few thousand.
PAIRED = ("", "/", "/t", "/t/.", "/t/..", "/t/file", "/t/file/", "/t/file/x", "/t/full", "/t/full/", "/t/full/file",
          "/t/empty", "/t/empty/", "/t/fifo", "/t/link", "/t/link/", "/t/dangling", "/t/loop", "/nx", "/nx/", "/nx/x",
          "/t/" + LONG, "/t/immutable", "/t/closed/x")
TIMES = ((1, 2), (3, 4))
OMITTED = ((0, (1 << 30) - 2), (0, (1 << 30) - 2))
ACL = (b"\2\0\0\0" + b"\1\0\6\0\xff\xff\xff\xff" + b"\2\0\6\0\1\0\0\0" + b"\4\0\4\0\xff\xff\xff\xff" +
       b"\x10\0\6\0\xff\xff\xff\xff" + b"\x20\0\4\0\xff\xff\xff\xff")
FLAGS = tuple(access | extra for access in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR)
              for extra in (0, os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_TRUNC, os.O_CREAT | os.O_TRUNC, os.O_DIRECTORY,
                            os.O_NOFOLLOW, os.O_CREAT | os.O_NOFOLLOW, os.O_CREAT | os.O_DIRECTORY, os.O_TMPFILE))


def of_one_name(name):
    yield "mkdir", name, 0o755
    yield "rmdir", name
    yield "unlink", name
    for kind, device in ((stat.S_IFREG, 0), (stat.S_IFIFO, 0), (stat.S_IFSOCK, 0), (stat.S_IFCHR, os.makedev(1, 3)),
                         (stat.S_IFCHR, 0)):
        yield "mknod", name, kind | 0o644, device
    for target in ("file", "", "x" * 4096):
        yield "symlink", target, name
    for size in (0, 100, 1 << 62, -1):
        yield "truncate", name, size
    yield "chmod", name, 0o600
    yield "chown", name, 0, 0
    yield "chown", name, -1, -1
    yield "lchown", name, 7, 7
    for times in (TIMES, None, OMITTED):
        for follow in (True, False):
            yield "utimensat", name, times, follow
    for attribute in ("user.a", "user.here", "user.", "nonsense.a", "trusted.a", "security.a", "system.a",
                      "system.posix_acl_access", "system.posix_acl_default", "user." + LONG[5:], "user." + LONG):
        for follow in (True, False):
            for flags in (0, 1, 2):
                yield "setxattr", name, attribute, ACL if "acl" in attribute else b"1", flags, follow
            yield "removexattr", name, attribute, follow
    for mask in (0, 1, 2, 4, 7):
        yield "access", name, mask
    yield "setflags", name, 0x40
    for flags in FLAGS:
        yield "open", 0, name, flags, 0o644


def of_two_names():
    for old in PAIRED:
        for new in PAIRED:
            yield "link", old, new
            for flags in (0, 1, 2, 3, 4, 5, 6, 8):
                yield "rename", old, new, flags


def of_descriptors():
    """An open file's, and an open directory's."""
    for path in ("/t/file", "/t/full"):
        yield "open", 1, path, os.O_RDONLY, 0
        yield "ftruncate", 1, 0
        yield "ftruncate", 1, -1
        for mode in (0, 1, 3, 0x10):
            yield "fallocate", 1, mode, 0, 4096
        yield "fchmod", 1, 0o600
        yield "fchown", 1, 0, 0
        yield "futimens", 1, TIMES
        yield "fsetxattr", 1, "user.a", b"1", 0
        yield "fsetxattr", 1, "nonsense.a", b"1", 0
        yield "fremovexattr", 1, "user.here"
        yield "pwrite", 1, 0, 10, 1
        yield "fsync", 1
        for name in ("/nx", "/t/file", "/t/full", "/nx/x", "/", "/nx/"):
            yield "flink", 1, name
        yield "copy_file_range", 1, 0, 1, 100, 10
        yield "close", 1


def matrix():
    for name in NAMES:
        yield from of_one_name(name)
    yield from of_two_names()
    yield from of_descriptors()


def never_done():
    """What changes nothing where writing is possible either."""
    for name in ("/", "//", "/.", "/..", "/t", "/t/.", "/t/.."):
        for flags in FLAGS:
            if flags & os.O_TMPFILE != os.O_TMPFILE:
                yield "open", 0, name, flags, 0o644
        yield "unlink", name
        yield "truncate", name, 0
    for name in ("/", "/.", "/..", "/t/.", "/t/.."):
        yield "rmdir", name
        for other in PAIRED:
            for flags in (0, 1, 2, 3, 4, 5, 6, 8):
                yield "rename", name, other, flags
                yield "rename", other, name, flags
    for name in NAMES:
        yield "symlink", "x" * 4096, name


def answers(make, calls):
    """In a process of its own: `make` gives the side; what it answers to each call, by each user."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(read)
            side = make()
            told = []
            for user in users.USERS[:2]:
                side.become(user)
                for name, *arguments in calls:
                    try:
                        getattr(side, name)(*arguments)
                        told.append("done")
                    except OSError as error:
                        told.append(named(error))
                side.become(users.ROOT)
                side.end()
            if isinstance(side, LibraryCalls):
                side.unmount()
            with os.fdopen(write, "w", encoding="ascii") as pipe:
                json.dump(told, pipe)
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read, encoding="ascii") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    mounting.check(status == 0, f"the process that calls ended with {status:#x}")
    return json.loads(told)


class KernelsRoot(KernelCalls):
    """Paths begin at the mount's root."""

    def __init__(self, directory):
        os.chroot(directory)
        super().__init__("/")

    def flink(self, slot, path):
        called("linkat", self.fd(slot), b"", AT_FDCWD, os.fsencode(path), AT_EMPTY_PATH)


class Library(LibraryCalls):
    def _given(self, path):
        return os.fsencode(path)


def shown(call):
    return " ".join(repr(part) if len(repr(part)) < 60 else repr(part)[:40] + "..." for part in call)


def compare(scratch, library, image, options, calls, meant=lambda user, call: False):
    directory = scratch.kernel_mount(image, options="nodev," + options)
    kernel = answers(lambda: KernelsRoot(directory), calls)
    scratch.kernel_umount(directory)
    ours = answers(lambda: Library(library, str(image), options), calls)
    every = [(user, call) for user in users.USERS[:2] for call in calls]
    differ = [f"{user.name}: {shown(call)}: {one}, and here {other}"
              for (user, call), one, other in zip(every, kernel, ours) if one != other and not meant(user, call)]
    mounting.check(not differ, f"{options}: {len(differ)} of {len(every)} answers differ\n" + "\n".join(
        differ if os.environ.get("UEXT4_KEEP_GOING") == "1" else differ[:40]))
    print(f"{options}: {len(every)} answers are equal", flush=True)


def filled(scratch):
    image = scratch.image("image", "32M", "-t", "ext4", "-b", "4096")
    directory = scratch.kernel_mount(image)
    top = directory / "t"
    top.mkdir()
    for name in ("full", "empty", "closed"):
        (top / name).mkdir()
    for name in ("file", "full/file", "immutable", "append", "closed/x"):
        (top / name).write_bytes(b"contents")
    os.setxattr(top / "file", "user.here", b"1")
    os.mkfifo(top / "fifo")
    os.mknod(top / "device", stat.S_IFCHR | 0o644, os.makedev(1, 3))
    os.mknod(top / "socket", stat.S_IFSOCK | 0o644)
    for name, target in (("link", "file"), ("tofull", "full"), ("dangling", "nothing"), ("loop", "loop")):
        os.symlink(target, top / name)
    mounting.run("chattr", "+i", top / "immutable")
    mounting.run("chattr", "+a", top / "append")
    os.chmod(top / "closed", 0o700)
    scratch.kernel_umount(directory)
    return image


def digest(image):
    return hashlib.sha256(image.read_bytes()).hexdigest()


def meant_of_links(user, call):
    """Who may link to what belongs to others is asked by the system call (fs.protected_hardlinks)."""
    return user.uid != 0 and call[0] in ("link", "flink")


def test(scratch):
    mounting.need("chattr")
    image = filled(scratch)
    before = digest(image)
    compare(scratch, sys.argv[2], image, "ro", list(matrix()), meant_of_links)
    mounting.check(digest(image) == before, "the image has changed")
    compare(scratch, sys.argv[2], image, "rw", list(never_done()))


mounting.main(test)
