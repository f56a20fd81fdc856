"""What is done to a file system in fast commits: operations by name, each followed by an fsync somewhere.

A scenario is a function of a Work. Before `work.settle()` comes what ordinary commits hold; what follows goes into fast
commits, as far as the kernel makes some of it.
"""

import ctypes
import os
import random
import stat
import struct

LIBC = ctypes.CDLL(None, use_errno=True)
KEEP_SIZE, PUNCH, COLLAPSE, ZERO, INSERT = 1, 2, 8, 16, 32


class Work:
    def __init__(self, directory):
        self.directory = os.fsencode(directory)
        self.open = []

    def path(self, name):
        return os.path.join(self.directory, os.fsencode(name))

    def settle(self):
        """Everything durable, by an ordinary commit."""
        fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        if LIBC.syncfs(fd) != 0:
            raise OSError(ctypes.get_errno(), "syncfs")
        os.close(fd)
        # The kernel may still do one ordinary commit before its fast ones.
        self.write("warm", b"1")
        self.write("warm", b"22")

    def fsync(self, name):
        fd = os.open(self.path(name), os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)

    def write(self, name, data, at=0, sync=True):
        fd = os.open(self.path(name), os.O_RDWR | os.O_CREAT, 0o640)
        os.pwrite(fd, data, at)
        if sync:
            os.fsync(fd)
        os.close(fd)

    def truncate(self, name, size, sync=True):
        os.truncate(self.path(name), size)
        if sync:
            self.fsync(name)

    def fallocate(self, name, mode, at, size, sync=True):
        fd = os.open(self.path(name), os.O_RDWR | os.O_CREAT, 0o640)
        if LIBC.fallocate(fd, mode, ctypes.c_long(at), ctypes.c_long(size)) != 0:
            raise OSError(ctypes.get_errno(), f"fallocate {mode}")
        if sync:
            os.fsync(fd)
        os.close(fd)

    def hold(self, name):
        self.open.append(os.open(self.path(name), os.O_RDWR))
        return self.open[-1]

    def close(self):
        for fd in self.open:
            os.close(fd)
        self.open = []

    def __getattr__(self, call):
        """mkdir, rename, link... of os, with names below the directory."""
        function = getattr(os, call)
        two = call in ("rename", "link")
        return lambda *names, **more: function(*(self.path(n) if i < 1 + two else n for i, n in enumerate(names)), **more)


def create(w):
    w.settle()
    for number in range(20):
        w.write(f"new{number}", b"%d" % number * (number * 700))
    w.write("empty", b"")
    w.write("sparse", b"far", at=50_000_000)


def append(w):
    w.write("file", b"a" * 5000)
    w.settle()
    for number in range(30):
        w.write("file", b"%02d" % number * 900, at=5000 + 1800 * number)


def overwrite(w):
    w.write("file", b"a" * 100_000)
    w.write("unwritten", b"b" * 10)
    w.fallocate("unwritten", 0, 0, 400_000)
    w.settle()
    w.write("file", b"c" * 30_000, at=7000)
    w.write("unwritten", b"d" * 5000, at=20_000)
    w.write("unwritten", b"e" * 5000, at=200_000)


def truncate(w):
    for number in range(4):
        w.write(f"file{number}", b"x" * 300_000)
    w.settle()
    w.truncate("file0", 100_001)
    w.truncate("file1", 0)
    w.truncate("file2", 900_000)
    w.truncate("file2", 12)
    w.truncate("file3", 0)
    w.write("file3", b"again" * 3000)
    w.truncate("file0", 200_000)


def unlink(w):
    for number in range(6):
        w.write(f"file{number}", b"x" * (number * 20_000))
    w.write("witness", b"w")
    w.settle()
    for number in range(5):
        w.unlink(f"file{number}")
        w.write("witness", b"w" * number)
    w.write("short life", b"s" * 9000)
    w.unlink("short life")
    w.write("witness", b"end")


def rename(w):
    w.mkdir("from")
    w.mkdir("to")
    w.write("from/a", b"a" * 6000)
    w.write("from/b", b"b" * 6000)
    w.write("to/taken", b"t" * 70_000)
    w.settle()
    w.rename("from/a", "from/c")
    w.fsync("from/c")
    w.rename("from/c", "to/c")
    w.fsync("to/c")
    w.rename("from/b", "to/taken")
    w.fsync("to/taken")
    w.write("next", b"n" * 300)
    w.rename("next", "to/taken")
    w.fsync("to/taken")
    w.rename("to/c", "from/a")
    w.fsync("from/a")


def rename_directory(w):
    w.mkdir("from")
    w.mkdir("from/inner")
    w.mkdir("to")
    w.write("from/inner/file", b"f" * 5000)
    w.settle()
    w.rename("from/inner", "to/moved")
    w.write("to/moved/file", b"g", at=5000)
    w.rename("to/moved", "to/again")
    w.write("to/again/other", b"h" * 100)


def link(w):
    w.write("file", b"f" * 100)
    w.mkdir("folder")
    w.settle()
    w.link("file", "second")
    w.fsync("second")
    w.link("second", "folder/third")
    w.fsync("file")
    w.unlink("file")
    w.fsync("second")
    w.write("own", b"o")
    w.link("own", "own too")
    w.unlink("own")
    w.fsync("own too")
    w.rename("own too", "own")
    w.fsync("own")


def directories(w):
    w.mkdir("old")
    w.mkdir("goes")
    w.settle()
    w.mkdir("new")
    w.write("new/file", b"n" * 100)
    w.mkdir("new/deeper")
    w.mkdir("new/deeper/deepest")
    w.write("new/deeper/deepest/file", b"n" * 100)
    w.write("old/file", b"o" * 100)
    w.rmdir("goes")
    w.mkdir("short life")
    w.rmdir("short life")
    w.write("witness", b"w")


def directory_attributes(w):
    w.mkdir("old")
    w.mkdir("other")
    w.settle()
    w.chmod("old", 0o711)
    w.write("witness", b"1")
    w.chown("other", 17, 18)
    w.fsync("other")
    w.mkdir("new")
    w.write("witness", b"2")
    w.chmod("new", 0o500)
    w.write("witness", b"3")
    os.setxattr(w.path("new"), "user.a", b"a")
    w.write("witness", b"4")
    w.mkdir("new/inner")
    w.chmod("new/inner", 0o511)
    w.fsync("new/inner")


def vanished_directories(w):
    w.mkdir("goes")
    w.write("goes/file", b"f")
    w.settle()
    w.unlink("goes/file")
    w.rmdir("goes")
    w.write("witness", b"1")
    w.mkdir("short life")
    w.write("short life/file", b"f" * 5000, sync=False)
    w.unlink("short life/file")
    w.rmdir("short life")
    w.write("witness", b"2")
    w.mkdir("short again")
    w.write("short again/file", b"f" * 5000, sync=False)
    w.rename("short again/file", "stays")
    w.rmdir("short again")
    w.write("witness", b"3")


def inherited(w):
    """New files get the access list of their directory, and its project flags."""
    entries = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, rights, who) for tag, rights, who in (
        (1, 7, 0xFFFFFFFF), (2, 6, 1234), (4, 5, 0xFFFFFFFF), (16, 7, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF)))
    w.mkdir("folder")
    os.setxattr(w.path("folder"), "system.posix_acl_default", entries)
    w.settle()
    w.write("folder/file", b"f" * 100)
    w.mkdir("folder/inner")
    w.write("folder/inner/file", b"f" * 100)


def many_unlinked(w):
    for folder in range(10):
        w.mkdir(f"d{folder}")
        for number in range(200):
            w.write(f"d{folder}/{number}", b"x" * 10, sync=False)
    w.settle()
    for number in range(200):
        for folder in range(10):
            w.unlink(f"d{folder}/{number}")
    w.write("witness", b"w")


def many_names(w):
    w.mkdir("full")
    w.settle()
    w.mkdir("new")
    for number in range(400):
        for folder in ("full", "new"):
            w.write(f"{folder}/a name that takes some room {number}", b"", sync=False)
    w.fsync("new/a name that takes some room 1")
    for number in range(0, 400, 2):
        w.unlink(f"full/a name that takes some room {number}")
    w.fsync("full/a name that takes some room 1")


def symlinks(w):
    w.mkdir("folder")
    w.settle()
    os.symlink("fast", w.path("fast"))
    os.symlink("l" * 200, w.path("folder/slow"))
    w.write("witness", b"w")


def attributes(w):
    for number in range(5):
        w.write(f"file{number}", b"x")
    w.settle()
    w.chmod("file0", 0o604)
    w.fsync("file0")
    w.chown("file1", 1234, 70000)
    w.fsync("file1")
    w.utime("file2", ns=(1_234_567_890_123_456_789, 4_000_000_000_987_654_321))
    w.fsync("file2")
    os.setxattr(w.path("file3"), "user.small", b"value")
    w.fsync("file3")
    os.setxattr(w.path("file3"), "user.small", b"other")
    w.fsync("file3")
    os.setxattr(w.path("file4"), "user.large", b"v" * 900)
    w.fsync("file4")
    w.write("new", b"n")
    os.setxattr(w.path("new"), "user.small", b"n")
    w.fsync("new")
    w.write("file4", b"after")


def devices(w):
    w.settle()
    os.mkfifo(w.path("fifo"), 0o611)
    os.mknod(w.path("device"), stat.S_IFCHR | 0o600, os.makedev(7, 300))
    w.write("witness", b"w")


def allocated(w):
    w.settle()
    w.fallocate("kept", KEEP_SIZE, 0, 300_000)
    w.fallocate("grown", 0, 10_000, 300_000)
    w.write("grown", b"g" * 7000, at=100_000)
    w.write("kept", b"k" * 7000, at=4096)


def punched(w):
    for name in ("punched", "zeroed", "collapsed", "inserted"):
        w.write(name, b"0123456789abcdef" * 20_000)
    w.settle()
    w.fallocate("punched", KEEP_SIZE | PUNCH, 5000, 100_000)
    w.write("between", b"1")
    w.fallocate("zeroed", ZERO, 5000, 100_000)
    w.write("between", b"2")
    w.fallocate("collapsed", COLLAPSE, 16384, 65536)
    w.write("between", b"3")
    w.fallocate("inserted", INSERT, 16384, 65536)
    w.write("between", b"4")
    w.write("punched", b"p" * 9000, at=20_000)


def parts_of_clusters(w):
    """Blocks come, go and move within clusters of 16 KiB."""
    for number in range(4):
        w.write(f"file{number}", b"%d" % number * 70_000)
    w.settle()
    w.fallocate("file0", KEEP_SIZE | PUNCH, 4096, 4096)
    w.write("between", b"1")
    w.fallocate("file0", KEEP_SIZE | PUNCH, 20_480, 40_960)
    w.write("between", b"2")
    w.write("file0", b"y" * 4096, at=24_576)
    w.truncate("file1", 4097)
    w.truncate("file1", 0, sync=False)
    w.write("file1", b"z" * 5000, at=8192)
    w.write("file1", b"z" * 3000)
    w.truncate("file2", 0, sync=False)
    w.write("file2", b"m" * 70_000)
    w.write("file3", b"a" * 100, at=74_000)
    for at in (12_288, 4096, 1_000_000, 1_020_000, 1_008_000):
        w.write("sparse", b"s" * 4096, at=at)
    w.fallocate("allocated", 0, 4096, 8192)
    w.write("allocated", b"b" * 5000, at=8192)
    w.truncate("allocated", 9000)
    w.unlink("file0")
    w.write("takes its place", b"t" * 50_000)


def reused_inodes(w):
    for number in range(8):
        w.write(f"file{number}", b"x" * 9000)
    w.settle()
    for number in range(8):
        w.unlink(f"file{number}")
    w.mkdir("folder in its place")
    os.symlink("target", w.path("link in its place"))
    w.write("folder in its place/file", b"y" * 5000)
    w.write("another", b"z" * 20_000)


def orphan(w):
    w.write("held", b"h" * 50_000)
    w.write("witness", b"w")
    w.settle()
    w.hold("held")
    w.unlink("held")
    w.write("witness", b"ww")
    w.write("held too", b"h" * 50_000)
    w.hold("held too")
    w.unlink("held too")
    w.write("witness", b"www")


def orphan_gone(w):
    """A file without a name that an ordinary commit knows is closed; its inode is used again."""
    w.write("held", b"h" * 50_000)
    w.hold("held")
    w.unlink("held")
    w.settle()
    w.close()
    w.mkdir("new")
    w.write("new/file", b"n" * 500)


def many_extents(w):
    w.write("old", b"o" * 4096)
    w.settle()
    for number in range(600):
        w.write("new", b"%04d" % number * 100, at=number * 8192, sync=number % 50 == 49)
        w.write("old", b"%04d" % number * 100, at=number * 8192, sync=number % 50 == 49)
    w.truncate("new", 8192 * 300)


def ordinary_between(w):
    w.settle()
    w.write("before", b"b" * 10_000)
    w.settle()
    w.write("after", b"a" * 10_000)
    w.write("before", b"B" * 100, at=9000)
    w.settle()
    w.write("last", b"l" * 10_000)


def mixture(seed):
    def scenario(w):
        choice = random.Random(seed)
        files, folders, number = [], [""], 0
        settle_at = choice.randrange(5, 30)
        for step in range(settle_at + choice.randrange(10, 120)):
            if step == settle_at:
                w.settle()
            folder = choice.choice(folders)
            number += 1
            what = choice.choice(("write",) * 5 + ("new",) * 4 + ("truncate", "truncate", "unlink", "unlink", "rename", "rename",
                                  "replace", "link", "mkdir", "symlink", "chmod", "xattr", "fallocate", "rmdir"))
            if what == "new" or not files:
                name = f"{folder}f{number}"
                w.write(name, choice.randbytes(choice.choice((0, 10, 3000, 20000, 90000))), sync=choice.random() < 0.4)
                files.append(name)
                continue
            name = choice.choice(files)
            if what == "write":
                w.write(name, choice.randbytes(choice.randrange(1, 30000)), at=choice.randrange(0, 200_000),
                        sync=choice.random() < 0.6)
            elif what == "truncate":
                w.truncate(name, choice.randrange(0, 200_000), sync=choice.random() < 0.6)
            elif what == "unlink":
                w.unlink(name)
                files.remove(name)
            elif what == "rename":
                new = f"{folder}r{number}"
                w.rename(name, new)
                files[files.index(name)] = new
            elif what == "replace":
                other = choice.choice(files)
                if other != name and not os.path.samefile(w.path(name), w.path(other)):
                    w.rename(name, other)
                    files.remove(name)
            elif what == "link":
                files.append(f"{folder}l{number}")
                w.link(name, files[-1])
            elif what == "mkdir":
                folders.append(f"{folder}d{number}/")
                w.mkdir(folders[-1])
            elif what == "rmdir":
                if folder and not os.listdir(w.path(folder)):
                    w.rmdir(folder)
                    folders.remove(folder)
            elif what == "symlink":
                os.symlink("s" * choice.choice((5, 59, 60, 100)), w.path(f"{folder}s{number}"))
            elif what == "chmod":
                w.chmod(name, choice.randrange(0o1000))
            elif what == "xattr":
                # Of a file that stays: the kernel's replay gives an inode that is used again the attributes that are
                # left in it.
                w.write("attributed", b"a", sync=False)
                os.setxattr(w.path("attributed"), "user.a", choice.randbytes(choice.choice((3, 30))))
            elif what == "fallocate":
                w.fallocate(name, choice.choice((0, KEEP_SIZE)), choice.randrange(100_000), choice.randrange(1, 100_000), sync=False)
            if choice.random() < 0.3 and files:
                w.fsync(choice.choice(files))
        if files:
            w.fsync(choice.choice(files))
    return scenario


SCENARIOS = (create, append, overwrite, truncate, unlink, rename, rename_directory, link, directories, many_names, symlinks,
             directory_attributes, vanished_directories, inherited, many_unlinked,
             attributes, devices, allocated, punched, parts_of_clusters, reused_inodes, orphan, orphan_gone, many_extents, ordinary_between)
