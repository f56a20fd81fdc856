"""Random sequences of operations by several users."""

import os
import stat
import struct

import mounting
import users

DIRECTORIES = ("d", "e", "d/s", "e/s", "d/s/t")
LEAVES = ("a", "b", "c", "l", "x" * 255)
SLOTS = 4
ACL_ACCESS, ACL_DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
IMMUTABLE, APPEND, NODUMP, NOATIME, DIRSYNC, SYNC, TOPDIR = 0x10, 0x20, 0x40, 0x80, 0x10000, 0x8, 0x20000
# Those that are taken and kept as they are, one that is kept, and those that are refused.
FLAGS_OF_OTHERS = (0x200, 0x400, 0x400000, 0x40000, 0x200000, 0x40000000)
KEEP_SIZE, PUNCH, COLLAPSE, ZERO, INSERT = 1, 2, 8, 16, 32
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4


def acl(choice):
    """A random access list as the system calls take it; sometimes one that is not valid."""
    entries = [(1, choice.randrange(8), 0xFFFFFFFF)]
    named = choice.random() < 0.8
    if named:
        for uid in sorted(choice.sample([user.uid for user in users.USERS[1:]], choice.randint(0, 3))):
            entries.append((2, choice.randrange(8), uid))
    entries.append((4, choice.randrange(8), 0xFFFFFFFF))
    if named:
        for gid in sorted(choice.sample(users.GROUPS, choice.randint(0, 3))):
            entries.append((8, choice.randrange(8), gid))
        entries.append((16, choice.randrange(8), 0xFFFFFFFF))
    entries.append((32, choice.randrange(8), 0xFFFFFFFF))
    if choice.random() < 0.05:
        entries.pop(choice.randrange(len(entries)))
    if choice.random() < 0.03:
        choice.shuffle(entries)
    return struct.pack("<I", 2 if choice.random() < 0.98 else 1) + b"".join(
        struct.pack("<HHI", *entry) for entry in entries)


class Sequences:
    """Makes operations. `everything` adds what a mount does not pass on; `seeks` asks where data and holes are, whose
    answers are equal only where the contents lie in the same blocks."""

    def __init__(self, choice, everything=False, big_values=False, seeks=True):
        self.choice = choice
        self.everything = everything
        self.unnamed = everything or mounting.KERNEL >= mounting.KERNEL_OF_UNNAMED
        self.big_values = big_values
        self.seeks = seeks
        self.kinds = self._kinds()

    def sequence(self, length):
        made = [self.operation() for _ in range(length)]
        opening = [(0, "mkdir", (path, 0o777)) for path in DIRECTORIES] + [
            (0, "chmod", (path, self.choice.choice((0o777, 0o1777, 0o2777, 0o755, 0o3770)))) for path in DIRECTORIES]
        return opening + made

    def operation(self):
        user = self.choice.choice((0, 1, 1, 2, 2, 3, 4))
        name = self.choice.choices(list(self.kinds), [weight for weight, _ in self.kinds.values()])[0]
        return user, name, self.kinds[name][1]()

    # -- arguments

    def path(self):
        choice = self.choice
        if choice.random() < 0.12:
            return choice.choice(DIRECTORIES)
        leaf = choice.choice(LEAVES)
        path = leaf if choice.random() < 0.25 else f"{choice.choice(DIRECTORIES)}/{leaf}"
        odd = choice.random()
        if odd < 0.03:
            return choice.choice((path + "/", path + "/.", path + "/..", path + "/a", "", ".", "d/..",
                                  "d/" + "y" * 256, "d/" + "z" * 254, "l/a", "./" + path))
        return path

    def slot(self):
        return self.choice.randrange(SLOTS)

    def mode(self):
        choice = self.choice
        # The kernel's part of a mount keeps the set-gid bit of what a write by somebody else takes it from on ext4,
        # when the group may not execute.
        set_gid = (0o2000, 0o6000, 0o7000) if self.everything else (0o2010, 0o6010, 0o7010)
        mode = choice.choice((0o777, 0o755, 0o644, 0o600, 0o666, 0o070, 0o007, 0, 0o750, 0o640, choice.randrange(0o1000)))
        return mode | choice.choice((0, 0, 0, 0, 0o4000, 0o1000, *set_gid))

    def owner(self):
        return self.choice.choice((-1, -1, 0, 1000, 1001, 1002, 1003))

    def group(self):
        return self.choice.choice((-1, -1) + users.GROUPS)

    def offset(self):
        choice = self.choice
        return choice.choice((0, 0, 1, 60, 100, 160, 511, 1023, 1024, 4095, 4096, 4097, 8192, 12288, 65536,
                              choice.randrange(20000), choice.randrange(200)))

    def length(self):
        choice = self.choice
        return choice.choice((0, 1, 10, 60, 100, 1024, 4096, 4097, 10000, choice.randrange(9000)))

    def size(self):
        choice = self.choice
        if choice.random() < 0.04:
            return choice.choice((-1, 1 << 31, (1 << 32) + 1, (1 << 40) + 3, (1 << 44) - 4096, (1 << 44) - 1, 1 << 44,
                                  (1 << 63) - 1))
        return self.offset()

    def times(self):
        choice = self.choice
        if choice.random() < 0.2:
            return None

        def one():
            kind = choice.random()
            if kind < 0.2:
                return 0, UTIME_NOW
            if kind < 0.4:
                return 0, UTIME_OMIT
            if kind < 0.43:
                return 5, choice.choice((1_000_000_000, -1, UTIME_NOW + 1))
            if not self.everything:  # a mount shows times that it was told until it asks for them again
                return choice.choice((0, 1, -1, 1_000_000_000, choice.randrange(1 << 30))), choice.randrange(10**9)
            seconds = choice.choice((0, 1, -1, -(1 << 31), -(1 << 31) - 1, (1 << 31) - 1, 1 << 31, 1 << 32, (1 << 34),
                                     (3 << 32) + 5, 15032385535, 15032385536, 1_000_000_000, choice.randrange(1 << 30)))
            return seconds, choice.choice((0, 1, 999_999_999, choice.randrange(1_000_000_000)))

        return one(), one()

    def flags(self):
        choice = self.choice
        return choice.choice((0, 0, 0, IMMUTABLE, APPEND, NODUMP, NOATIME, DIRSYNC, SYNC, IMMUTABLE | APPEND, TOPDIR,
                              NODUMP | NOATIME, *FLAGS_OF_OTHERS)) | choice.choice((0, 0x80000, 0x80000))

    def name_of_xattr(self):
        choice = self.choice
        return choice.choice(("user.a", "user.b", "user.a", "user." + "n" * 250, "user." + "n" * 251, "user.", "trusted.a",
                              "trusted.b", "security.a", "security.capability", "system.a", "other.a", "nodot", "",
                              ACL_ACCESS, ACL_ACCESS, ACL_DEFAULT, ACL_DEFAULT))

    def value_of_xattr(self, name):
        choice = self.choice
        if name in (ACL_ACCESS, ACL_DEFAULT):
            # No bytes take an ACL away, which the kernel's part of a mount stamps even when there was none.
            return b"" if self.everything and choice.random() < 0.1 else acl(choice)
        if name == "security.capability":
            return choice.choice((struct.pack("<5I", 0x02000001, 1, 0, 0, 0), b"short"))
        sizes = (0, 1, 10, 30, 60, 100, 300, 900, 2000, 3900) + ((10000, 60000, 65536, 65537) if self.big_values else ())
        return bytes([choice.randrange(256)]) * choice.choice(sizes)

    def opened(self):
        choice = self.choice
        flags = choice.choice((os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR))
        for flag, chance in ((os.O_CREAT, 0.6), (os.O_EXCL, 0.1), (os.O_TRUNC, 0.15), (os.O_APPEND, 0.1),
                             (os.O_NOFOLLOW, 0.1), (os.O_DIRECTORY, 0.06), (os.O_NOATIME, 0.05), (os.O_SYNC, 0.03)):
            if choice.random() < chance:
                flags |= flag
        if flags & os.O_DIRECTORY:
            flags &= ~os.O_CREAT  # its answer changed between kernels
        # The umask may take the group's right to execute, which the set-gid bit of a mount's file needs (see mode).
        mode = self.mode() if self.everything else self.mode() & ~0o2000
        if self.unnamed and choice.random() < 0.1:
            return (self.slot(), choice.choice(DIRECTORIES), os.O_TMPFILE | choice.choice((os.O_RDWR, os.O_WRONLY))
                    | choice.choice((0, os.O_EXCL)), mode)
        return self.slot(), self.path(), flags, mode

    def set_xattr(self):
        name = self.name_of_xattr()
        return name, self.value_of_xattr(name), self.choice.choice((0, 0, 0, 1, 2))

    def fallocated(self):
        modes = [0, KEEP_SIZE, PUNCH | KEEP_SIZE, ZERO, ZERO | KEEP_SIZE, PUNCH]
        if self.everything:
            modes += [COLLAPSE, INSERT]
        # The kernel's part of a mount takes set-id bits before it asks whether the file may be so large.
        offset = self.size() if self.everything else self.size() % (1 << 30)
        return self.slot(), self.choice.choice(modes), offset, self.length()

    def node(self):
        choice = self.choice
        kind = choice.choice((stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFREG, stat.S_IFCHR, stat.S_IFBLK, 0, stat.S_IFDIR))
        device = os.makedev(choice.choice((1, 8, 300)), choice.choice((3, 0, 255, 70000)))
        mode = self.mode() if self.everything else self.mode() & ~0o2000
        return self.path(), kind | mode, device if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0

    def _kinds(self):
        choice = self.choice

        def follow():
            return choice.random() < 0.6

        kinds = {
            "open": (16, self.opened),
            "close": (3, lambda: (self.slot(),)),
            "pread": (3, lambda: (self.slot(), self.offset(), self.length())),
            "pwrite": (8, lambda: (self.slot(), self.offset(), self.length(), choice.randrange(256))),
            "ftruncate": (3, lambda: (self.slot(), self.size())),
            "fallocate": (5, self.fallocated),
            "lseek": (4, lambda: (self.slot(), self.size(), choice.choice((os.SEEK_DATA, os.SEEK_HOLE)))),
            "fsync": (1, lambda: (self.slot(),)),
            "fstat": (1, lambda: (self.slot(),)),
            "fchmod": (2, lambda: (self.slot(), self.mode())),
            "fchown": (2, lambda: (self.slot(), self.owner(), self.group())),
            "futimens": (2, lambda: (self.slot(), self.times())),
            "fgetxattr": (1, lambda: (self.slot(), self.name_of_xattr())),
            "fsetxattr": (2, lambda: (self.slot(), *self.set_xattr())),
            "flistxattr": (1, lambda: (self.slot(),)),
            "fremovexattr": (1, lambda: (self.slot(), self.name_of_xattr())),
            "copy_file_range": (2, lambda: (self.slot(), self.offset(), self.slot(), self.offset(), self.length())),
            "mkdir": (6, lambda: (self.path(), self.mode())),
            "rmdir": (4, lambda: (self.path(),)),
            "unlink": (6, lambda: (self.path(),)),
            "rename": (12, lambda: (self.path(), self.path(),
                                    choice.choice((0, 0, 0, NOREPLACE, EXCHANGE, WHITEOUT, WHITEOUT | NOREPLACE,
                                                   EXCHANGE | NOREPLACE, 8)))),
            "link": (6, lambda: (self.path(), self.path())),
            "symlink": (4, lambda: (choice.choice(("a", "b", "../a", "s", "l", "../d", ".", "nowhere", "q" * 59, "q" * 60,
                                                   "../d/" + "x" * 255)), self.path())),
            "readlink": (1, lambda: (self.path(),)),
            "mknod": (4, self.node),
            "chmod": (8, lambda: (self.path(), self.mode())),
            "chown": (4, lambda: (self.path(), self.owner(), self.group())),
            "lchown": (4, lambda: (self.path(), self.owner(), self.group())),
            "utimensat": (5, lambda: (self.path(), self.times(), follow())),
            "truncate": (3, lambda: (self.path(), self.size())),
            "access": (3, lambda: (self.path(), choice.randrange(8))),
            "getxattr": (2, lambda: (self.path(), self.name_of_xattr(), follow())),
            "setxattr": (10, lambda: (self.path(), *self.set_xattr(), follow())),
            "listxattr": (2, lambda: (self.path(), follow())),
            "removexattr": (2, lambda: (self.path(), self.name_of_xattr(), follow())),
            "stat": (1, lambda: (self.path(),)),
            "setflags": (2, lambda: (self.path(), self.flags())),
            "getflags": (1, lambda: (self.path(),)),
            "readdir": (3, lambda: (self.path(),)),
        }
        if not self.seeks:
            del kinds["lseek"]
        else:
            # The kernel takes unwritten space that was read, and so is cached, for data.
            del kinds["pread"], kinds["copy_file_range"]
        if self.unnamed:
            kinds["flink"] = (3, lambda: (self.slot(), self.path()))
        return kinds
