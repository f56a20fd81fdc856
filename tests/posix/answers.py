"""What a case tells: each call by a label and its answer, an errno by name. Two file systems are alike if these are."""

import ctypes
import errno
import json
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "beside"))
import users  # noqa: E402  (lies in the folder beside)

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
ANN, BEN, CAT, DAN = users.USERS[1:]


def libc(name, *arguments):
    """A function of libc; OSError when it returns -1. Integers are passed as 64 bits."""
    result = getattr(LIBC, name)(*(ctypes.c_int64(one) if isinstance(one, int) else one for one in arguments))
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


class Answers:
    def __init__(self):
        self.told = []

    def tell(self, label, value):
        self.told.append([label, repr(value)])

    def call(self, label, function, *arguments, **named):
        """Calls and tells; returns the value, None after an errno."""
        try:
            value = function(*arguments, **named)
        except OSError as error:
            self.tell(label, errno.errorcode.get(error.errno, error.errno))
            return None
        self.tell(label, value)
        return value

    def quiet(self, label, function, *arguments, **named):
        """The same for values that are not comparable: tells only that it worked."""
        try:
            value = function(*arguments, **named)
        except OSError as error:
            self.tell(label, errno.errorcode.get(error.errno, error.errno))
            return None
        self.tell(label, "done")
        return value

    def open(self, label, path, flags, mode=0o644):
        """Opens and closes."""
        fd = self.quiet(label, os.open, path, flags, mode)
        if fd is not None:
            os.close(fd)

    def by(self, user, case, *arguments):
        """Runs case(self, *arguments) in a process of that user."""
        sys.stdout.flush()
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.close(read)
                users.become(user)
                mine = Answers()
                case(mine, *arguments)
                with os.fdopen(write, "w", encoding="utf-8") as pipe:
                    json.dump(mine.told, pipe)
                status = 0
            except BaseException as problem:  # pylint: disable=broad-exception-caught
                print(f"{case.__name__} by {user.name}: {problem!r}", file=sys.stderr)
            os._exit(status)
        os.close(write)
        with os.fdopen(read, encoding="utf-8") as pipe:
            text = pipe.read()
        _, status = os.waitpid(child, 0)
        self.tell(f"{user.name}: ended", status)
        self.told += [[f"{user.name}: {label}", value] for label, value in (json.loads(text) if text else [])]

    def times(self, label, looked_at, function, *arguments):
        """Which of mtime and ctime of the paths a call moves. (Times of access are lazy on a mount.)"""
        def now():
            found = []
            for path in looked_at:
                status = os.lstat(path) if isinstance(path, str) else os.fstat(path)
                found.append((status.st_mtime_ns, status.st_ctime_ns))
            return found
        before = now()
        time.sleep(0.012)  # further than the kernel's clock is coarse
        try:
            function(*arguments)
            result = "done"
        except OSError as error:
            result = errno.errorcode[error.errno]
        try:
            moved = ["".join(letter for letter, old, new in zip("mc", one, two) if old != new) for one, two in zip(before, now())]
        except FileNotFoundError:
            moved = "gone"
        self.tell(label, (result, moved))
