"""Set-id bits and file capabilities, taken by whatever changes a file: each door, by its owner, by others and by root."""

import mmap
import os
import struct

from answers import ANN, BEN, CAT, libc, users

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1, 0, 0, 0)  # revision 2, effective, CAP_CHOWN permitted
MODES = (0o4777, 0o2777, 0o2767, 0o6777, 0o0777)


def buffered(path):
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, b"x")
    os.close(fd)


def twice(path):
    fd = os.open(path, os.O_RDWR)
    os.write(fd, b"x")
    os.write(fd, b"y")
    os.fsync(fd)
    os.close(fd)


def direct(path):
    fd = os.open(path, os.O_RDWR | os.O_DIRECT)
    with mmap.mmap(-1, 4096) as page:
        os.pwritev(fd, [page], 0)
    os.close(fd)


def appended(path):
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(fd, b"x")
    os.close(fd)


def of_nothing(path):
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, b"")
    os.close(fd)


def truncated(path):
    os.truncate(path, 1)


def truncated_descriptor(path):
    fd = os.open(path, os.O_RDWR)
    os.ftruncate(fd, 2)
    os.close(fd)


def opened_empty(path):
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))


def created_over(path):
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600))


def allocated(path):
    fd = os.open(path, os.O_RDWR)
    os.posix_fallocate(fd, 0, 8192)
    os.close(fd)


def punched(path):
    fd = os.open(path, os.O_RDWR)
    libc("fallocate", fd, 3, 0, 4096)
    os.close(fd)


def copied(path):
    source, target = os.open("source", os.O_RDONLY), os.open(path, os.O_WRONLY)
    os.copy_file_range(source, target, 100)
    os.close(source)
    os.close(target)


def mapped(path):
    fd = os.open(path, os.O_RDWR)
    with mmap.mmap(fd, 4096) as page:
        page[0] = 65
        page.flush()
    os.close(fd)


def chowned(path):
    os.chown(path, os.stat(path).st_uid, os.stat(path).st_gid)


def chowned_to_nobody(path):
    os.chown(path, -1, -1)


def group_changed(path):
    os.chown(path, -1, 2000)


def touched(path):
    os.utime(path, (1, 1))


DOORS = (buffered, twice, direct, appended, of_nothing, truncated, truncated_descriptor, opened_empty, created_over,
         allocated, punched, copied, mapped, chowned, chowned_to_nobody, group_changed, touched)


def set_ids(answers):
    with open("source", "wb") as source:
        source.write(bytes(200))
    os.chmod("source", 0o644)
    for door in DOORS:
        for owner in (ANN, CAT):
            for mode in MODES:
                for user in (users.ROOT, ANN, BEN, CAT):
                    if door is chowned_to_nobody and user not in (users.ROOT, owner):
                        continue  # see set_ids_of_others
                    path = f"{door.__name__}.{owner.name}.{mode:o}.{user.name}"
                    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
                    os.write(fd, bytes(5000))
                    os.close(fd)
                    os.chown(path, owner.uid, 3000 if owner is CAT else owner.gid)
                    os.chmod(path, mode)
                    answers.by(user, lambda mine, door=door, path=path: mine.quiet(path, door, path))
                    answers.tell(path + " now", oct(os.stat(path).st_mode))
                    os.chmod(path, mode)  # it comes back, and so is taken again
                    answers.by(user, lambda mine, door=door, path=path: mine.quiet(path, door, path))
                    answers.tell(path + " again", oct(os.stat(path).st_mode))


def set_ids_of_others(answers):
    for mode in (0o777, 0o4777):
        path = f"{mode:o}"
        with open(path, "wb"):
            pass
        os.chown(path, ANN.uid, ANN.gid)
        os.chmod(path, mode)
        answers.by(BEN, lambda mine, path=path: mine.call("chown to nobody " + path, chowned_to_nobody, path))
        answers.tell("chown to nobody now", oct(os.stat(path).st_mode))


def capabilities(answers):
    with open("source", "wb") as source:
        source.write(bytes(200))
    for door in DOORS:
        for user in (users.ROOT, BEN if door is not chowned_to_nobody else ANN):
            for mode in (0o777, 0o4777):
                path = f"{door.__name__}.{mode:o}.{user.name}"
                with open(path, "wb") as file:
                    file.write(bytes(5000))
                os.chown(path, ANN.uid, ANN.gid)
                os.chmod(path, mode)
                os.setxattr(path, "security.capability", CAPABILITY)
                answers.by(user, lambda mine, door=door, path=path: mine.quiet(path, door, path))
                answers.call(path + " keeps", os.getxattr, path, "security.capability")
                answers.tell(path + " now", oct(os.stat(path).st_mode))


CASES = (set_ids, set_ids_of_others, capabilities)
