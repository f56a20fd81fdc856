"""The operations of a sequence as system calls below a directory: of the kernel's ext4, or of a uext4 mount."""

import ctypes
import errno
import fcntl
import os
import stat
import struct

import users

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
AT_EACCESS = 0x200
GETFLAGS, SETFLAGS = 0x80086601, 0x40086602


def called(name, *arguments):
    """A function of libc; OSError when it returns -1."""
    result = getattr(LIBC, name)(*arguments)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def long(value):
    return ctypes.c_int64(value)


def timespecs(times):
    """struct timespec[2] of two (seconds, nanoseconds); None means both now."""
    return struct.pack("4q", *times[0], *times[1]) if times is not None else None


def is_device(look, path):
    try:
        return int(look(path)["mode"], 8) & 0o170000 in (0o020000, 0o060000)
    except OSError:
        return False


IMMUTABLE, EXTENTS = 0x10, 0x80000
LAYOUT = EXTENTS | 0x10000000 | 0x1000  # extents, inline contents, a hashed directory: when each is chosen may differ


def flags_to_set(flags, old):
    """The kernel would move a file between extents and indirect blocks; uext4 refuses to, by a table in the documents."""
    return (flags & ~LAYOUT) | (old & LAYOUT)


class KernelCalls:
    """Each method is an operation: arguments of a sequence in, a plain value out, OSError for an errno."""

    def __init__(self, root):
        self.root = root
        self.slots = {}
        os.chdir(root)

    def begin(self, folder):
        users.become(users.ROOT)
        os.chdir(self.root)
        # One more directory around it, for whatever leads out by `..`: other runs must not see that.
        for _ in range(2):
            os.mkdir(folder, 0o777)
            os.chmod(folder, 0o777)
            os.chdir(folder)

    def end(self):
        users.become(users.ROOT)
        for slot in list(self.slots):
            self.close(slot)
        os.chdir(self.root)

    become = staticmethod(users.become)

    # -- descriptors

    def fd(self, slot):
        if slot not in self.slots:
            raise OSError(errno.EBADF, "slot")
        return self.slots[slot]

    def open(self, slot, path, flags, mode):
        # Special files are not opened by the C interface; the mounts have nodev.
        try:
            fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, mode)
        except OSError as error:
            who = os.geteuid()
            os.seteuid(0)
            device = error.errno == errno.EACCES and is_device(self.lstat if flags & os.O_NOFOLLOW else self.stat, path)
            os.seteuid(who)
            if device:
                raise OSError(errno.ENXIO, path) from None
            raise
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.ENXIO, path)
        if slot in self.slots:
            os.close(self.slots.pop(slot))
        self.slots[slot] = fd
        return "open"

    def close(self, slot):
        fd = self.fd(slot)
        del self.slots[slot]
        os.close(fd)

    def pread(self, slot, offset, length):
        return os.pread(self.fd(slot), length, offset)

    def pwrite(self, slot, offset, length, byte):
        return os.pwrite(self.fd(slot), bytes([byte]) * length, offset)

    def ftruncate(self, slot, size):
        called("ftruncate", self.fd(slot), long(size))

    def fallocate(self, slot, mode, offset, length):
        called("fallocate", self.fd(slot), mode, long(offset), long(length))

    def lseek(self, slot, offset, whence):
        if stat.S_ISDIR(os.fstat(self.fd(slot)).st_mode):
            raise OSError(errno.EISDIR, "a position among names is the file system's own matter")
        return os.lseek(self.fd(slot), offset, whence)

    def fsync(self, slot):
        os.fsync(self.fd(slot))

    def fstat(self, slot):
        return self.look_at(os.fstat(self.fd(slot)))

    def fchmod(self, slot, mode):
        os.fchmod(self.fd(slot), mode)

    def fchown(self, slot, uid, gid):
        os.fchown(self.fd(slot), uid, gid)

    def futimens(self, slot, times):
        called("futimens", self.fd(slot), timespecs(times))

    def fgetxattr(self, slot, name):
        return os.getxattr(self.fd(slot), name)

    def fsetxattr(self, slot, name, value, flags):
        os.setxattr(self.fd(slot), name, value, flags)

    def flistxattr(self, slot):
        return sorted(os.listxattr(self.fd(slot)))

    def fremovexattr(self, slot, name):
        os.removexattr(self.fd(slot), name)

    def flink(self, slot, path):
        called("linkat", AT_FDCWD, f"/proc/self/fd/{self.fd(slot)}".encode(), AT_FDCWD, os.fsencode(path), 0x400)

    def copy_file_range(self, source, offset, target, target_offset, length):
        return os.copy_file_range(self.fd(source), self.fd(target), length, offset, target_offset)

    # -- paths

    def mkdir(self, path, mode):
        os.mkdir(path, mode)

    def rmdir(self, path):
        os.rmdir(path)

    def unlink(self, path):
        os.unlink(path)

    def rename(self, old, new, flags):
        called("renameat2", AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags)

    def link(self, old, new):
        os.link(old, new, follow_symlinks=False)

    def symlink(self, target, path):
        os.symlink(target, path)

    def readlink(self, path):
        return os.readlink(path)

    def mknod(self, path, mode, device):
        os.mknod(path, mode, device)

    def chmod(self, path, mode):
        os.chmod(path, mode)

    def chown(self, path, uid, gid):
        os.chown(path, uid, gid)

    def lchown(self, path, uid, gid):
        os.lchown(path, uid, gid)

    def utimensat(self, path, times, follow):
        called("utimensat", AT_FDCWD, os.fsencode(path), timespecs(times), 0 if follow else 0x100)

    def truncate(self, path, size):
        called("truncate", os.fsencode(path), long(size))

    def access(self, path, mask):
        called("faccessat", AT_FDCWD, os.fsencode(path), mask, AT_EACCESS)

    def getxattr(self, path, name, follow):
        return os.getxattr(path, name, follow_symlinks=follow)

    def setxattr(self, path, name, value, flags, follow):
        os.setxattr(path, name, value, flags, follow_symlinks=follow)

    def listxattr(self, path, follow):
        return sorted(os.listxattr(path, follow_symlinks=follow))

    def removexattr(self, path, name, follow):
        os.removexattr(path, name, follow_symlinks=follow)

    def stat(self, path):
        return self.look_at(os.stat(path))

    def lstat(self, path):
        return self.look_at(os.lstat(path))

    def setflags(self, path, flags):
        fd = self._for_flags(path)
        try:
            old = struct.unpack("q", fcntl.ioctl(fd, GETFLAGS, bytes(8)))[0]
            fcntl.ioctl(fd, SETFLAGS, struct.pack("q", flags_to_set(flags, old)))
        finally:
            os.close(fd)

    def is_immutable(self, slot):
        return bool(struct.unpack("q", fcntl.ioctl(self.fd(slot), GETFLAGS, bytes(8)))[0] & IMMUTABLE)

    def getflags(self, path):
        fd = self._for_flags(path)
        try:
            return struct.unpack("q", fcntl.ioctl(fd, GETFLAGS, bytes(8)))[0] & 0xFFFFFFFF & ~LAYOUT
        finally:
            os.close(fd)

    @staticmethod
    def _for_flags(path):
        """Root opens, so that the right to read the file is not part of what is asked; the caller's rights come back."""
        who = os.geteuid()
        os.seteuid(0)
        try:
            status = os.lstat(path)
            if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
                raise OSError(errno.ENOTTY, "flags")
            return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        finally:
            os.seteuid(who)

    def readdir(self, path):
        # What is asked about each entry is asked as root.
        with os.scandir(path) as listing:
            entries = [(entry.name, entry.inode(), entry.is_dir(follow_symlinks=False), entry.is_symlink())
                       for entry in listing]
        who = os.geteuid()
        os.seteuid(0)
        try:
            return sorted((name, directory, link, os.lstat(os.path.join(path, name)).st_ino == inode)
                          for name, inode, directory, link in entries)
        finally:
            os.seteuid(who)

    # -- looking

    def look_at(self, status):
        """What of a stat is compared; times are told by the Runner."""
        directory = stat.S_ISDIR(status.st_mode)
        return {"mode": oct(status.st_mode), "links": status.st_nlink, "uid": status.st_uid, "gid": status.st_gid,
                "size": None if directory else status.st_size, "device": status.st_rdev,
                "atime": status.st_atime_ns, "mtime": status.st_mtime_ns, "ctime": status.st_ctime_ns}

    def xattrs(self, path):
        return sorted((name, os.getxattr(path, name, follow_symlinks=False))
                      for name in os.listxattr(path, follow_symlinks=False))
