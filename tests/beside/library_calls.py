"""The operations of a sequence as calls of the C interface, each thread with an identity of its own."""

import contextlib
import ctypes
import errno
import os
import stat
import struct

import users
from kernel_calls import IMMUTABLE, LAYOUT, flags_to_set, is_device, long, timespecs

SIZE = 1 << 20
with open("/proc/sys/fs/protected_hardlinks", encoding="ascii") as setting:
    PROTECTED = int(setting.read()) != 0


class _Identity(ctypes.Structure):
    _fields_ = [("uid", ctypes.c_uint), ("gid", ctypes.c_uint), ("groups", ctypes.c_void_p),
                ("count", ctypes.c_size_t), ("umask", ctypes.c_uint), ("privileged", ctypes.c_int)]


class _Status:
    """struct stat of x86-64, with the names of os.stat_result."""

    def __init__(self, raw):
        (_, self.st_ino, self.st_nlink, self.st_mode, self.st_uid, self.st_gid, self.st_rdev, self.st_size, _,
         self.st_blocks, atime, atime_ns, mtime, mtime_ns, ctime, ctime_ns) = struct.unpack_from("=QQQIII4xQ9q", raw)
        self.st_atime_ns = atime * 1_000_000_000 + atime_ns
        self.st_mtime_ns = mtime * 1_000_000_000 + mtime_ns
        self.st_ctime_ns = ctime * 1_000_000_000 + ctime_ns


class LibraryCalls:
    def __init__(self, library, image, options=""):
        self.calls = ctypes.CDLL(library)
        for name in ("pread", "pwrite", "readlink", "getxattr", "lgetxattr", "fgetxattr", "listxattr", "llistxattr",
                     "flistxattr", "lseek", "copy_file_range", "telldir"):
            getattr(self.calls, f"uext4_{name}").restype = ctypes.c_int64
        self.calls.uext4_strerror.restype = ctypes.c_char_p
        self.calls.uext4_readdir.restype = ctypes.c_void_p
        self.fs = ctypes.c_void_p()
        self._call("mount", os.fsencode(image), options.encode(), ctypes.byref(self.fs))
        self.buffer = ctypes.create_string_buffer(SIZE)
        self.slots = {}
        self.folder = ""
        self.who = users.ROOT

    def unmount(self):
        self._call("umount", self.fs)

    def begin(self, folder):
        self.become(users.ROOT)
        self.folder = ""
        for _ in range(2):  # as KernelCalls
            self.folder += "/" + folder
            self._call("mkdir", self.fs, self._path(""), 0o777)
            self._call("chmod", self.fs, self._path(""), 0o777)

    def end(self):
        self.become(users.ROOT)
        for slot in list(self.slots):
            self.close(slot)

    def become(self, user):
        groups = (ctypes.c_uint * len(user.groups))(*user.groups)
        identity = _Identity(user.uid, user.gid, ctypes.addressof(groups), len(groups), user.umask, user.uid == 0)
        self._call("set_thread_identity", ctypes.byref(identity))
        self.who = user

    def _call(self, name, *arguments):
        result = getattr(self.calls, f"uext4_{name}")(*arguments)
        if result < 0:
            raise OSError(-result, f"uext4_{name}: {self.calls.uext4_strerror().decode(errors='replace')}")
        return result

    def _path(self, path):
        if path == "" and self.folder:
            return os.fsencode(self.folder)
        return os.fsencode(self.folder + "/" + path)

    def _given(self, path):
        """A path of the sequence; the empty one stays empty."""
        return b"" if path == "" else self._path(path)

    def _bytes(self, name, *arguments):
        length = self._call(name, *arguments, self.buffer, ctypes.c_size_t(SIZE))
        return self.buffer[:length]

    def _stat(self, name, *arguments):
        raw = ctypes.create_string_buffer(144)
        self._call(name, *arguments, raw)
        return _Status(raw.raw)

    # -- descriptors

    def file(self, slot):
        if slot not in self.slots:
            raise OSError(errno.EBADF, "slot")
        return self.slots[slot]

    def open(self, slot, path, flags, mode):
        file = ctypes.c_void_p()
        try:
            self._call("open", self.fs, self._given(path), flags | os.O_NONBLOCK | os.O_CLOEXEC, mode,
                       ctypes.byref(file))
        except OSError as error:
            if error.errno == errno.EACCES and self._as_root(
                    lambda: is_device(self.lstat if flags & os.O_NOFOLLOW else self.stat, path)):
                raise OSError(errno.ENXIO, path) from None
            unfollowed = error.errno == errno.ENXIO or (error.errno == errno.ELOOP and flags & os.O_NOFOLLOW)
            if unfollowed and flags & os.O_CREAT and self._is_foreign(path):
                raise OSError(errno.EACCES, path) from None
            raise
        if slot in self.slots:
            self._call("close", self.slots.pop(slot))
        self.slots[slot] = file
        return "open"

    def _is_foreign(self, path):
        """Somebody else's link, socket or device in a directory with the sticky bit that all may write: the system call
        refuses to create there, before it says what else is wrong."""
        link = self._as_root(lambda: self._stat("lstat", self.fs, self._given(path)))
        directory = self._as_root(lambda: self._stat("stat", self.fs, self._given(path.rpartition("/")[0] or ".")))
        return (stat.S_IFMT(link.st_mode) in (stat.S_IFLNK, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK) and directory.st_mode & 0o1002 == 0o1002 and
                link.st_uid not in (self.who.uid, directory.st_uid))

    def close(self, slot):
        file = self.file(slot)
        del self.slots[slot]
        self._call("close", file)

    def pread(self, slot, offset, length):
        count = self._call("pread", self.file(slot), self.buffer, ctypes.c_size_t(length), long(offset))
        return self.buffer[:count]

    def pwrite(self, slot, offset, length, byte):
        return self._call("pwrite", self.file(slot), bytes([byte]) * length, ctypes.c_size_t(length), long(offset))

    def ftruncate(self, slot, size):
        self._call("ftruncate", self.file(slot), long(size))

    def fallocate(self, slot, mode, offset, length):
        self._call("fallocate", self.file(slot), mode, long(offset), long(length))

    def lseek(self, slot, offset, whence):
        if stat.S_ISDIR(self._stat("fstat", self.file(slot)).st_mode):
            raise OSError(errno.EISDIR, "a position among names is the file system's own matter")
        return self._call("lseek", self.file(slot), long(offset), whence)

    def fsync(self, slot):
        self._call("fsync", self.file(slot))

    def fstat(self, slot):
        return self.look_at(self._stat("fstat", self.file(slot)))

    def fchmod(self, slot, mode):
        self._call("fchmod", self.file(slot), mode)

    def fchown(self, slot, uid, gid):
        self._call("fchown", self.file(slot), uid, gid)

    def futimens(self, slot, times):
        self._call("futimens", self.file(slot), timespecs(times))

    def fgetxattr(self, slot, name):
        return self._bytes("fgetxattr", self.file(slot), name.encode())

    def fsetxattr(self, slot, name, value, flags):
        self._call("fsetxattr", self.file(slot), name.encode(), value, ctypes.c_size_t(len(value)), flags)

    def flistxattr(self, slot):
        return sorted(name.decode() for name in self._bytes("flistxattr", self.file(slot)).split(b"\0")[:-1])

    def fremovexattr(self, slot, name):
        self._call("fremovexattr", self.file(slot), name.encode())

    def flink(self, slot, path):
        if PROTECTED and self.who.uid != 0:
            status = self._stat("fstat", self.file(slot))
            self._refuse_protected(status, b"<%d>" % status.st_ino, path)
        self._call("flink", self.file(slot), self._given(path))

    def copy_file_range(self, source, offset, target, target_offset, length):
        return self._call("copy_file_range", self.file(source), long(offset), self.file(target), long(target_offset),
                          ctypes.c_size_t(length))

    # -- paths

    def mkdir(self, path, mode):
        self._call("mkdir", self.fs, self._given(path), mode)

    def rmdir(self, path):
        self._call("rmdir", self.fs, self._given(path))

    def unlink(self, path):
        self._call("unlink", self.fs, self._given(path))

    def rename(self, old, new, flags):
        self._call("rename", self.fs, self._given(old), self._given(new), flags)

    def link(self, old, new):
        if PROTECTED and self.who.uid != 0:
            try:
                status = self._as_root(lambda: self._stat("lstat", self.fs, self._given(old)))
            except OSError:
                status = None  # the call itself says why
            if status:
                self._call("lstat", self.fs, self._given(old), ctypes.create_string_buffer(144))
                self._refuse_protected(status, self._given(old), new)
        self._call("link", self.fs, self._given(old), self._given(new))

    def _refuse_protected(self, status, old, new):
        """As the system calls do with fs.protected_hardlinks, which is no matter of the file system."""
        if not self._is_protected(status, old):
            return
        if "/" in new.rstrip("/"):
            self.lstat(new.rstrip("/").rpartition("/")[0] + "/.")
        try:
            self.lstat(new.rstrip("/"))
        except OSError as error:
            if error.errno == errno.ENOENT and new and not new.endswith("/"):
                raise OSError(errno.EPERM, "protected") from None
            raise
        raise OSError(errno.EEXIST, new)

    def _is_protected(self, status, path):
        if status.st_uid == self.who.uid:
            return False
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o4000 or status.st_mode & 0o2010 == 0o2010:
            return True
        if status.st_nlink == 0:  # no path leads there
            shift = 3 if status.st_gid in (self.who.gid, *self.who.groups) else 0
            return status.st_mode >> shift & 6 != 6
        try:
            self._call("access", self.fs, path, 6)
        except OSError as error:
            return error.errno == errno.EACCES
        return False

    def symlink(self, target, path):
        self._call("symlink", self.fs, os.fsencode(target), self._given(path))

    def readlink(self, path):
        return os.fsdecode(self._bytes("readlink", self.fs, self._given(path)))

    def mknod(self, path, mode, device):
        self._call("mknod", self.fs, self._given(path), mode, ctypes.c_uint64(device))

    def chmod(self, path, mode):
        self._call("chmod", self.fs, self._given(path), mode)

    def chown(self, path, uid, gid):
        self._call("chown", self.fs, self._given(path), uid, gid)

    def lchown(self, path, uid, gid):
        self._call("lchown", self.fs, self._given(path), uid, gid)

    def utimensat(self, path, times, follow):
        self._call("utimensat", self.fs, self._given(path), timespecs(times), 0 if follow else 0x100)

    def truncate(self, path, size):
        self._call("truncate", self.fs, self._given(path), long(size))

    def access(self, path, mask):
        self._call("access", self.fs, self._given(path), mask)

    def getxattr(self, path, name, follow):
        return self._bytes("getxattr" if follow else "lgetxattr", self.fs, self._given(path), name.encode())

    def setxattr(self, path, name, value, flags, follow):
        self._call("setxattr" if follow else "lsetxattr", self.fs, self._given(path), name.encode(), value,
                   ctypes.c_size_t(len(value)), flags)

    def listxattr(self, path, follow):
        names = self._bytes("listxattr" if follow else "llistxattr", self.fs, self._given(path))
        return sorted(name.decode() for name in names.split(b"\0")[:-1])

    def removexattr(self, path, name, follow):
        self._call("removexattr" if follow else "lremovexattr", self.fs, self._given(path), name.encode())

    def stat(self, path):
        return self.look_at(self._stat("stat", self.fs, self._given(path)))

    def lstat(self, path):
        return self.look_at(self._stat("lstat", self.fs, self._given(path)))

    def setflags(self, path, flags):
        with self._opened_for_flags(path) as (file, old):
            self._call("fsetflags", file, flags_to_set(flags, old))

    def is_immutable(self, slot):
        flags = ctypes.c_uint()
        self._call("fgetflags", self.file(slot), ctypes.byref(flags))
        return bool(flags.value & IMMUTABLE)

    def getflags(self, path):
        with self._opened_for_flags(path) as (_, flags):
            return flags & ~LAYOUT

    @contextlib.contextmanager
    def _opened_for_flags(self, path):
        """As the system calls, which need a descriptor, that root opens. And the flags that are set."""
        file, flags = ctypes.c_void_p(), ctypes.c_uint()

        def opened():
            status = self._stat("lstat", self.fs, self._given(path))
            if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
                raise OSError(errno.ENOTTY, "flags")
            self._call("open", self.fs, self._given(path), os.O_RDONLY, 0, ctypes.byref(file))
            self._call("fgetflags", file, ctypes.byref(flags))

        self._as_root(opened)
        try:
            yield file, flags.value
        finally:
            self._call("close", file)

    def _as_root(self, question):
        who, self.who = self.who, users.ROOT
        self.become(users.ROOT)
        try:
            return question()
        finally:
            self.become(who)

    def readdir(self, path):
        directory = ctypes.c_void_p()
        self._call("opendir", self.fs, self._given(path), ctypes.byref(directory))
        found = []
        while entry := self.calls.uext4_readdir(directory):
            inode, _, _, kind = struct.unpack("=QqHB", ctypes.string_at(entry, 19))
            found.append((os.fsdecode(ctypes.string_at(entry + 19)), inode, kind))
        self._call("closedir", directory)
        return self._as_root(lambda: sorted(
            (name, kind == 4, kind == 10,
             self._stat("lstat", self.fs, self._given(f"{path}/{name}")).st_ino == inode)
            for name, inode, kind in found if name not in (".", "..")))

    # -- looking

    @staticmethod
    def look_at(status):
        directory = stat.S_ISDIR(status.st_mode)
        return {"mode": oct(status.st_mode), "links": status.st_nlink, "uid": status.st_uid, "gid": status.st_gid,
                "size": None if directory else status.st_size, "device": status.st_rdev,
                "atime": status.st_atime_ns, "mtime": status.st_mtime_ns, "ctime": status.st_ctime_ns}

    def xattrs(self, path):
        return [(name, self.getxattr(path, name, False)) for name in self.listxattr(path, False)]
