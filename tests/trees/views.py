"""A tree as a table, and tables compared: {relative path: {what: value}}."""

import ctypes
import errno
import hashlib
import os
import stat
import struct

from mounting import check

PIECE = 1 << 20
# What a copy has in common with its source.
COPIED = ("kind", "mode", "owner", "links", "size", "device", "content", "pages", "mtime", "xattrs")
# What two readers of one image have in common.
ALL = COPIED + ("data", "inode", "atime", "ctime", "blocks")
PAGE = 4096  # hosts keep holes of whole pages


def data_ranges(seek, size):
    """Where a file has data: [[begin, end]]. `seek` is lseek of it, and fails with ENXIO where no data follows."""
    ranges, offset = [], 0
    while offset < size:
        try:
            begin = seek(offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break
        offset = seek(begin, os.SEEK_HOLE)
        ranges.append([begin, offset])
    return ranges


def pages_of(ranges):
    """The pages that have data, as ranges: what a copy keeps of holes when blocks are smaller than a page."""
    pages = []
    for begin, end in ranges:
        first, last = begin // PAGE, (end + PAGE - 1) // PAGE
        if pages and first <= pages[-1][1]:
            pages[-1][1] = max(last, pages[-1][1])
        else:
            pages.append([first, last])
    return pages


def entry_of(status, content, data, xattrs):
    """`status` has the fields of os.stat_result."""
    return {"kind": stat.S_IFMT(status.st_mode), "mode": oct(stat.S_IMODE(status.st_mode)),
            "owner": (status.st_uid, status.st_gid), "links": status.st_nlink, "size": status.st_size,
            "device": status.st_rdev, "content": content, "data": data, "pages": pages_of(data),
            "mtime": status.st_mtime_ns, "xattrs": xattrs,
            "inode": status.st_ino, "atime": status.st_atime_ns, "ctime": status.st_ctime_ns,
            "blocks": status.st_blocks}


def content_of(path, status):
    """Contents, and where they are not holes."""
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(path), []
    if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
        return "", []
    digest = hashlib.sha1()
    # O_NOATIME: what is looked at stays as it is, also in a writable mount.
    with open(os.open(path, os.O_RDONLY | os.O_NOATIME), "rb", buffering=0) as file:
        while piece := file.read(PIECE):
            digest.update(piece)
        ranges = data_ranges(lambda offset, whence: os.lseek(file.fileno(), offset, whence), status.st_size)
    return digest.hexdigest(), ranges


def of_host(root):
    """The tree below a directory of the host, which may be a mount."""
    found = {}
    pending = [b"."]
    top = os.fsencode(root)
    while pending:
        path = pending.pop()
        full = top + b"/" + path
        status = os.lstat(full)
        if stat.S_ISDIR(status.st_mode):
            pending += [path + b"/" + name for name in os.listdir(full)]
        xattrs = sorted((name, os.getxattr(full, name, follow_symlinks=False))
                        for name in os.listxattr(full, follow_symlinks=False))
        found[path] = entry_of(status, *content_of(full, status), xattrs)
    return found


class _LibraryStat:
    """struct stat of x86-64, with the names of os.stat_result."""

    def __init__(self, raw):
        (_, self.st_ino, self.st_nlink, self.st_mode, self.st_uid, self.st_gid, self.st_rdev, self.st_size, _,
         self.st_blocks, atime, atime_ns, mtime, mtime_ns, ctime, ctime_ns) = struct.unpack_from("=QQQIII4xQ9q", raw)
        self.st_atime_ns = atime * 1_000_000_000 + atime_ns
        self.st_mtime_ns = mtime * 1_000_000_000 + mtime_ns
        self.st_ctime_ns = ctime * 1_000_000_000 + ctime_ns


class Library:
    """An image opened by libuext4.so, read-only."""

    def __init__(self, library, image):
        self._calls = ctypes.CDLL(str(library))
        for name in ("uext4_pread", "uext4_readlink", "uext4_llistxattr", "uext4_lgetxattr", "uext4_lseek"):
            getattr(self._calls, name).restype = ctypes.c_ssize_t
        self._calls.uext4_strerror.restype = ctypes.c_char_p
        self._calls.uext4_readdir.restype = ctypes.c_void_p
        self._fs = ctypes.c_void_p()
        self._done("mount", os.fsencode(image), b"ro", ctypes.byref(self._fs))
        self._buffer = ctypes.create_string_buffer(PIECE)

    def close(self):
        self._done("umount", self._fs)

    def _done(self, name, *arguments):
        result = getattr(self._calls, f"uext4_{name}")(*arguments)
        check(result >= 0, f"uext4_{name}{arguments}: {result}, {self._calls.uext4_strerror()}")
        return result

    def _names(self, path):
        directory = ctypes.c_void_p()
        self._done("opendir", self._fs, path, ctypes.byref(directory))
        names = []
        while entry := self._calls.uext4_readdir(directory):
            names.append(ctypes.string_at(entry + 19))  # d_name
        self._done("closedir", directory)
        return [name for name in names if name not in (b".", b"..")]

    def _content(self, path, status):
        if stat.S_ISLNK(status.st_mode):
            length = self._done("readlink", self._fs, path, self._buffer, ctypes.c_size_t(PIECE))
            return self._buffer.raw[:length], []
        if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
            return "", []
        file = ctypes.c_void_p()
        self._done("open", self._fs, path, os.O_RDONLY, 0, ctypes.byref(file))
        digest, offset = hashlib.sha1(), 0
        while length := self._done("pread", file, self._buffer, ctypes.c_size_t(PIECE), ctypes.c_int64(offset)):
            digest.update(memoryview(self._buffer)[:length])
            offset += length
        ranges = data_ranges(lambda start, whence: self._seek(file, start, whence), status.st_size)
        self._done("close", file)
        return digest.hexdigest(), ranges

    def _seek(self, file, offset, whence):
        result = self._calls.uext4_lseek(file, ctypes.c_int64(offset), whence)
        if result < 0:
            raise OSError(-result, "uext4_lseek")
        return result

    def _xattrs(self, path):
        length = self._done("llistxattr", self._fs, path, self._buffer, ctypes.c_size_t(PIECE))
        found = []
        for name in self._buffer.raw[:length].split(b"\0")[:-1] if length else ():
            size = self._done("lgetxattr", self._fs, path, name, self._buffer, ctypes.c_size_t(PIECE))
            found.append((name.decode(), self._buffer.raw[:size]))
        return sorted(found)

    def tree(self):
        found = {}
        pending = [b"."]
        raw = ctypes.create_string_buffer(256)
        while pending:
            path = pending.pop()
            full = b"/" + path
            self._done("lstat", self._fs, full, raw)
            status = _LibraryStat(raw)
            if stat.S_ISDIR(status.st_mode):
                pending += [path + b"/" + name for name in self._names(full)]
            found[path] = entry_of(status, *self._content(full, status), self._xattrs(full))
        return found


def in_format(table, shape):
    """What a table of a source becomes in a format: times that it cannot hold are cut as the kernel cuts them."""
    if not shape.seconds:
        return table
    second = 1_000_000_000
    return {path: entry | {"mtime": max(-1 << 31, min(entry["mtime"] // second, (1 << 31) - 1)) * second}
            for path, entry in table.items()}


def same(expected, got, what, fields=ALL, copied=False, without=frozenset()):
    """Failure unless both tables agree. `copied`: sizes of directories and what hangs on them may differ, and
    lost+found is only in one; `without`: paths whose times differ rightly."""
    lines = []
    for path in sorted(expected.keys() | got.keys()):
        if copied and path == b"./lost+found":
            continue
        if path not in got or path not in expected:
            lines.append(f"{path!r} is only in the {'first' if path in expected else 'second'}")
            continue
        for field in fields:
            one, other = expected[path].get(field), got[path].get(field)
            if one == other:
                continue
            directory = stat.S_ISDIR(expected[path]["kind"])
            if copied and (directory and field in ("size", "links") or field == "mtime" and path in without):
                continue
            lines.append(f"{path!r}: {field} {str(one)[:120]} and {str(other)[:120]}")
    check(not lines, f"{what}: {len(lines)} differences\n" + "\n".join(lines[:20]))
