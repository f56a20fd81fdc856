"""Where a load is written until its writer dies: a mount, or the library in a process that kills itself."""

import ctypes
import os
import signal
import threading


class InMount:
    """System calls below a mount."""

    def __init__(self, directory):
        os.chdir(directory)

    def die_after(self, writes):
        """The server is killed by somebody else."""

    def write(self, path, content, offset=0, sync=False):
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            os.pwrite(fd, content, offset)
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)

    def islands(self, path, count, block):
        """A file of `count` blocks, each with a hole before it, synced."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            for number in range(count):
                os.pwrite(fd, b"%08d" % number * (block // 8), (number * 2 + 1) * block)
            os.fsync(fd)
        finally:
            os.close(fd)

    def nameless(self, path, content):
        """A file that stays open without a name; the next sync makes it an orphan on disk."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.write(fd, content)
        os.fsync(fd)
        os.unlink(path)

    def setxattr(self, path, name, value):
        os.setxattr(path, name, value)

    mkdir, rmdir, unlink, rename, truncate = (staticmethod(call) for call in
                                              (os.mkdir, os.rmdir, os.unlink, os.rename, os.truncate))


READ = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint64)
FLUSH = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
DISCARD = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)


class _Device(ctypes.Structure):
    _fields_ = [("context", ctypes.c_void_p), ("read", READ), ("write", READ), ("flush", FLUSH), ("discard", DISCARD),
                ("size", ctypes.c_uint64)]


class InLibrary:
    """Calls of libuext4.so on a device of ours, which kills the process at a write to come."""

    def __init__(self, library, image, options):
        self._calls = ctypes.CDLL(str(library))
        self._calls.uext4_pwrite.restype = ctypes.c_ssize_t
        self._calls.uext4_strerror.restype = ctypes.c_char_p
        self._libc = ctypes.CDLL(None, use_errno=True)
        for name in ("pread", "pwrite"):
            getattr(self._libc, name).restype = ctypes.c_ssize_t
        self._image = os.open(image, os.O_RDWR)
        self._left = None
        self._lock = threading.Lock()
        self._device = _Device(None, READ(self._read), READ(self._write), FLUSH(lambda context: 0),
                               ctypes.cast(None, DISCARD), os.fstat(self._image).st_size)
        self._fs = ctypes.c_void_p()
        self._done("mount_device", ctypes.byref(self._device), options.encode(), ctypes.byref(self._fs))

    def die_after(self, writes):
        """The process ends before the device's write of this number, counted from now."""
        with self._lock:
            self._left = writes

    def _transfer(self, name, buffer, length, offset):
        done = getattr(self._libc, name)(self._image, ctypes.c_void_p(buffer), ctypes.c_size_t(length), ctypes.c_int64(offset))
        return 0 if done == length else -5

    def _read(self, context, buffer, length, offset):
        return self._transfer("pread", buffer, length, offset)

    def _write(self, context, buffer, length, offset):
        with self._lock:
            if self._left is not None:
                self._left -= 1
                if self._left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        return self._transfer("pwrite", buffer, length, offset)

    def _done(self, name, *arguments):
        result = getattr(self._calls, f"uext4_{name}")(*arguments)
        if result < 0:
            raise OSError(-result, f"uext4_{name}{arguments[1:]}: {self._calls.uext4_strerror()}")

    def _open(self, path, mode=0o644):
        file = ctypes.c_void_p()
        self._done("open", self._fs, path.encode(), os.O_RDWR | os.O_CREAT, mode, ctypes.byref(file))
        return file

    def _pwrite(self, file, content, offset):
        self._done("pwrite", file, content, ctypes.c_size_t(len(content)), ctypes.c_int64(offset))

    def write(self, path, content, offset=0, sync=False):
        file = self._open(path)
        self._pwrite(file, content, offset)
        if sync:
            self._done("fsync", file)
        self._done("close", file)

    def islands(self, path, count, block):
        file = self._open(path)
        for number in range(count):
            self._pwrite(file, b"%08d" % number * (block // 8), (number * 2 + 1) * block)
        self._done("fsync", file)
        self._done("close", file)

    def nameless(self, path, content):
        file = self._open(path, 0o600)
        self._pwrite(file, content, 0)
        self._done("fsync", file)
        self.unlink(path)

    def setxattr(self, path, name, value):
        self._done("setxattr", self._fs, path.encode(), name.encode(), value, ctypes.c_size_t(len(value)), 0)

    def mkdir(self, path):
        self._done("mkdir", self._fs, path.encode(), 0o755)

    def rmdir(self, path):
        self._done("rmdir", self._fs, path.encode())

    def unlink(self, path):
        self._done("unlink", self._fs, path.encode())

    def rename(self, path, target):
        self._done("rename", self._fs, path.encode(), target.encode(), 0)

    def truncate(self, path, size):
        self._done("truncate", self._fs, path.encode(), ctypes.c_int64(size))
