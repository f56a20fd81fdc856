#!/usr/bin/env python3
"""Directories of a mount: places in their streams, ends, and what a listing tells of the files.

Usage: directories_test.py PROGRAM
"""

import ctypes
import errno
import mmap
import os
import platform
import random
import signal
import struct
import time

import mounting
from mounting import check

LIBC = ctypes.CDLL(None, use_errno=True)
GETDENTS64 = 217 if platform.machine() == "x86_64" else 61


def write(path, content):
    path.write_bytes(content)


class Directory:
    """opendir, readdir, telldir, seekdir of the C library."""

    def __init__(self, path):
        LIBC.opendir.restype = LIBC.readdir.restype = ctypes.c_void_p
        LIBC.telldir.restype = ctypes.c_long
        self._stream = ctypes.c_void_p(LIBC.opendir(os.fsencode(path)))

    def read(self):
        entry = LIBC.readdir(self._stream)
        return (struct.unpack("Q", ctypes.string_at(entry, 8))[0], ctypes.string_at(entry + 19).decode()) if entry else None

    def tell(self):
        return LIBC.telldir(self._stream)

    def seek(self, place):
        LIBC.seekdir(self._stream, ctypes.c_long(place))

    def close(self):
        LIBC.closedir(self._stream)


def directories_have_places(top):
    folder = top / "places"
    folder.mkdir()
    for number in range(3000):
        write(folder / f"entry {number}", b"")
    directory = Directory(folder)
    seen = []
    places = [directory.tell()]
    while entry := directory.read():
        seen.append(entry)
        places.append(directory.tell())
    check(len(seen) == 3002 and len(set(seen)) == 3002, f"{len(seen)} entries, {len(set(seen))} different")
    for number, name in seen:
        if name not in (".", ".."):
            check(os.lstat(folder / name).st_ino == number, f"d_ino of {name}")
    for index in (2500, 0, 1, 3001, 77, 1234):
        directory.seek(places[index])
        check(directory.read() == seen[index], f"seekdir to entry {index}")
    # Entries that stay are seen exactly once while others come and go.
    directory.seek(places[0])
    found = []
    for index in range(3002):
        entry = directory.read()
        if entry is None:
            break
        found.append(entry[1])
        if index % 10 == 0:
            write(folder / f"new {index}", b"")
            (folder / f"entry {index}").unlink(missing_ok=True)
    while entry := directory.read():
        found.append(entry[1])
    directory.close()
    stays = {f"entry {number}" for number in range(3000) if number % 10}
    check(all(found.count(name) == 1 for name in sorted(stays)[::50]), "an entry was seen twice or not at all")
    check(stays <= set(found), f"{len(stays - set(found))} entries that stayed were not seen")


def names_behind_an_end(top):
    """A stream that has met its end knows of what comes later, at the latest when it begins anew."""
    folder = top / "ends"
    folder.mkdir()
    for number in range(20):
        write(folder / f"entry {number}", b"")
    one, other = Directory(folder), Directory(folder)
    start = one.tell()

    def rest(stream):
        names = []
        while entry := stream.read():
            names.append(entry[1])
        return sorted(names)

    expected = sorted([".", ".."] + [f"entry {number}" for number in range(20)])
    check(rest(one) == expected and rest(other) == expected, "not all names")
    check(rest(one) == [] and rest(one) == [], "names behind the end")
    changes = (lambda: write(folder / "made", b""), lambda: (folder / "entry 3").unlink(),
               lambda: (folder / "entry 4").rename(folder / "renamed"), lambda: (folder / "entry 5").rename(top / "gone"),
               lambda: os.link(folder / "made", folder / "linked"), lambda: (folder / "below").mkdir(),
               lambda: (folder / "below").rmdir(), lambda: (folder / "symbolic").symlink_to("made"))
    for number, change in enumerate(changes):
        change()
        expected = sorted([".", ".."] + os.listdir(folder))
        late = rest(one)
        check(set(late) <= set(expected) and len(late) == len(set(late)), f"change {number}: {late} behind the end")
        for stream in (one, other):
            stream.seek(start)
            check(rest(stream) == expected, f"change {number}: not the names that there are")
            check(rest(stream) == [], f"change {number}: names behind the end")
    one.close()
    other.close()
    (top / "gone").unlink()


def streams_see_what_there_is(top):
    """Changes in any order beside many streams: whoever begins anew sees all names that there are, and no other; whoever
    reads on sees each name once at most, and misses none that was there all the time."""
    chance = random.Random(4)
    folder = top / "streams"
    folder.mkdir()
    names = {f"name {number:04}" for number in range(700)}
    for name in sorted(names):
        write(folder / name, b"")
    streams = [Directory(folder) for _ in range(4)]
    start = streams[0].tell()
    seen = [[] for _ in streams]  # since the stream began
    steady = [set(names) for _ in streams]  # there since then,
    possible = [set(names) for _ in streams]  # or for a while
    made = 0

    def change():
        nonlocal made
        made += 1
        name, new = chance.choice(sorted(names)), f"made {made}"
        kind = chance.choice(("make", "remove", "rename", "link", "replace"))
        if kind == "make":
            write(folder / new, b"")
        elif kind == "remove":
            (folder / name).unlink()
        elif kind == "link":
            os.link(folder / name, folder / new)
        else:
            target = new if kind == "rename" else chance.choice(sorted(names - {name}))
            (folder / name).rename(folder / target)
            new = target
        if kind in ("remove", "rename", "replace"):
            names.discard(name)
            for there in steady:
                there.discard(name)
        if kind != "remove":
            if kind == "replace":
                for there in steady:
                    there.discard(new)  # another entry of that name
            names.add(new)
            for there in possible:
                there.add(new)

    for step in range(6000):
        if chance.random() < 0.05:
            change()
            continue
        index = chance.randrange(len(streams))
        entry = streams[index].read()
        if entry is not None:
            if entry[1] not in (".", ".."):
                seen[index].append(entry[1])
                check(entry[1] in possible[index], f"step {step}: stream {index} saw {entry[1]}, which had gone before")
            if chance.random() < 0.999:
                continue
        else:
            missing = steady[index] - set(seen[index])
            check(not missing, f"step {step}: stream {index} missed {sorted(missing)[:5]}")
        twice = {name for name in steady[index] if seen[index].count(name) > 1}
        check(not twice, f"step {step}: stream {index} saw twice {sorted(twice)[:5]}")
        streams[index].seek(start)
        seen[index], steady[index], possible[index] = [], set(names), set(names)
        if chance.random() < 0.5:
            check(sorted(os.listdir(folder)) == sorted(names), f"step {step}: not the names that there are")
    for stream in streams:
        stream.close()


def reading_moves_the_atime(top, strict):
    """What the kernel remembers of a directory is in nobody's way: an access time moves as if it remembered nothing."""
    folder = top / f"read {strict}"
    folder.mkdir()
    for number in range(200):
        write(folder / f"entry {number}", b"")

    def reads(flags=0):
        time.sleep(0.02)  # the clock of these times is a coarse one
        before = folder.stat().st_atime_ns
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | flags)
        check(len(os.listdir(fd)) >= 200, "not all names")
        os.close(fd)
        return folder.stat().st_atime_ns > before

    check(not reads(os.O_NOATIME), "O_NOATIME moved the access time")
    check(reads() and reads() == strict and reads() == strict, "accesses after changes")
    day = 24 * 3600 * 10**9
    for number, change in enumerate((
            lambda: write(folder / "made", b""), lambda: os.chmod(folder, 0o700), lambda: os.chown(folder, 1, 2),
            lambda: os.setxattr(folder, "user.name", b"value"), lambda: folder.rename(top / "other"),
            lambda: (top / "other").rename(folder), lambda: (folder / "made").unlink(),
            lambda: os.utime(folder, ns=(folder.stat().st_mtime_ns - day, folder.stat().st_mtime_ns - 2 * day)))):
        change()
        if folder.exists():
            check(reads(), f"change {number}: the next access did not move the time")
            check(reads() == strict, f"change {number}: the second access")


def getdents(fd, size):
    """The names of one call, None at an error."""
    buffer = ctypes.create_string_buffer(size)
    got = LIBC.syscall(GETDENTS64, fd, buffer, size)
    names, at = [], 0
    while at < got:
        length = struct.unpack_from("H", buffer, at + 16)[0]
        names.append(buffer.raw[at + 19:at + length].split(b"\0")[0].decode())
        at += length
    return names if got >= 0 else None


def pieces(fd, size=512):
    """The names from where a descriptor is."""
    names = []
    while (some := getdents(fd, size)) != []:
        check(some is not None, f"getdents64: {ctypes.get_errno()}")
        names += some
    return names


def in_part(folder):
    """What one call says; the rest is left."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    names = getdents(fd, 32768)
    os.close(fd)
    check(names, "no name")
    return names


def changes_behind_a_part(top):
    """What the kernel has in part is not what a stream that began behind a change is shown."""
    for turn in ("removed", "made"):
        folder = top / f"parts {turn}"
        folder.mkdir()
        for number in range(2000):
            write(folder / f"entry {number:05}", b"")
        # Behind what the stream below begins with, and not the last, at which the kernel goes on.
        gone = in_part(folder)[-10]
        if turn == "removed":
            (folder / gone).unlink()
        else:
            for number in range(300):
                write(folder / f"made {number}", b"")
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        shown = getdents(fd, 512)
        os.listdir(folder)
        shown += pieces(fd)
        os.close(fd)
        expected = {f"entry {number:05}" for number in range(2000)} | {".", ".."}
        expected = expected - {gone} if turn == "removed" else expected | {f"made {number}" for number in range(300)}
        check(set(shown) == expected and len(shown) == len(expected),
              f"{turn}: shown though gone {set(shown) - expected}, not shown {sorted(expected - set(shown))[:5]}")
        for _ in range(2):
            check(set(os.listdir(folder)) == expected - {".", ".."}, f"{turn}: not the names that there are")


def moved_directories_have_another_parent(top):
    """What is known of a directory's names goes when it is moved: ".." is one of them."""
    for folder in ("left", "right", "left/moved", "left/one", "right/other"):
        (top / folder).mkdir()

    def parent(path):
        return next(number for number, name in entries(path) if name == "..")

    def entries(path):
        stream = Directory(path)
        found = []
        while entry := stream.read():
            found.append(entry)
        stream.close()
        return found

    def check_parents():
        for folder in ("left", "right"):
            for entry in os.scandir(top / folder):
                for _ in range(2):
                    got = parent(entry.path)
                    check(got == (top / folder).stat().st_ino, f"\"..\" of {folder}/{entry.name} is {got}")

    check_parents()
    for number in range(2000):
        write(top / f"left/moved/entry {number:05}", b"")
    for path, target in ((top / "left/moved", top / "right/moved"), (top / "right/moved", top / "left/moved")):
        in_part(path)
        path.rename(target)
        check_parents()
    for number in range(2000):
        (top / f"left/moved/entry {number:05}").unlink()
    (top / "left/moved").rename(top / "right/moved")
    check_parents()
    check(LIBC.renameat2(-100, os.fsencode(top / "left/one"), -100, os.fsencode(top / "right/other"), 2) == 0, "exchange")
    check_parents()
    (top / "right/moved").rename(top / "left/moved")
    check_parents()
    for folder in ("left/moved", "left/one", "right/other"):
        (top / folder).rmdir()


def listed_without_the_server(scratch, top):
    """The kernel keeps names: a listing behind another asks the server nothing, whatever came before."""
    server = scratch.server_of(top)
    for number, before in enumerate((
            lambda folder: None, in_part, lambda folder: (os.listdir(folder), write(folder / "made", b"")),
            lambda folder: (in_part(folder), write(folder / "made", b"")),
            lambda folder: (in_part(folder), os.chmod(folder, 0o700), write(folder / "made", b""), in_part(folder)),
            lambda folder: (os.listdir(folder), write(folder / "made", b""), in_part(folder), write(folder / "other", b"")))):
        folder = top / f"kept {number}"
        folder.mkdir()
        for index in range(3000):
            write(folder / f"entry {index:05}", b"")
        before(folder)
        expected = sorted(os.listdir(folder))
        time.sleep(0.02)  # the access time moves once more within a tick of its clock
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        for _ in range(2):
            os.listdir(fd)
            os.fstat(fd)
        # A process, because it can be ended where it waits for ever.
        child = os.fork()
        if child == 0:
            try:
                os.kill(server, signal.SIGSTOP)
                os._exit(0 if sorted(os.listdir(fd)) == expected else 1)
            finally:
                os._exit(2)
        limit = time.monotonic() + 10
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < limit:
            time.sleep(0.01)
        os.kill(server, signal.SIGCONT)
        if ended[0] == 0:
            ended = os.waitpid(child, 0)
            check(False, f"change {number}: a listing behind another waits for the server")
        check(ended[1] == 0, f"change {number}: the names differ")
        os.close(fd)


def full_directory(scratch, name):
    """An image with a linear directory `folder` of 400 names, and where the fourth of its blocks lies."""
    image = scratch.image(name, "64M", "-t", "ext4", "-b", "1024", "-O", "^dir_index,^metadata_csum,^extents,^64bit")
    top = scratch.mount(image, f"{name}.mnt")
    (top / "folder").mkdir()
    for number in range(400):
        write(top / "folder" / f"a name of entry {number:05}", b"")
    scratch.umount(top)
    blocks = mounting.run("debugfs", "-R", "blocks /folder", image).stdout.split("\n")[-2].split()
    return image, int(blocks[3]) * 1024


def error_of_listing(folder):
    try:
        os.listdir(folder)
    except OSError as error:
        return error.errno
    return 0


def damage_is_told_each_time(scratch):
    """What cannot be read of a directory nobody takes for its end, also where somebody has read past the error."""
    image, place = full_directory(scratch, "damaged")
    with open(image, "r+b") as file:
        file.seek(place + 4)
        file.write(b"\x03\0")  # the length of a record
    top = scratch.mount(image, "damaged.mnt")
    folder = top / "folder"

    def is_told():
        return error_of_listing(folder) == errno.EUCLEAN

    check(is_told() and is_told(), "another error")
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    met = 0
    for _ in range(100):
        names = getdents(fd, 4096)
        check(names != [], "an end behind the damage")
        met += names is None
    end = os.lseek(fd, 0, os.SEEK_CUR)
    os.close(fd)
    check(met > 10 and is_told(), "not told to who went on")
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.lseek(fd, end, os.SEEK_SET)
    check(getdents(fd, 4096) is None, "an end for who went there")
    os.close(fd)
    check(is_told() and is_told(), "not told behind that")
    scratch.umount(top)


def damage_that_heals_is_no_more(scratch):
    """A device that could not be read for a while: later listings have all names, again and again."""
    image, place = full_directory(scratch, "healing")
    # The block at the end of the image, so that no other is missing without it.
    last = 60000
    mounting.run("debugfs", "-w", "-R", f"set_inode_field /folder block[3] {last}", image)
    with open(image, "r+b") as file:
        file.seek(place)
        block = file.read(1024)
        place = last * 1024
        file.seek(place)
        file.write(block)
    whole = image.read_bytes()
    for size in (32768, 512):
        top = scratch.mount(image, "healing.mnt", "ro")
        folder = top / "folder"
        os.truncate(image, place)
        check(error_of_listing(folder) == errno.EIO, "another error of a block that is not there, or none")
        with open(image, "r+b") as file:
            file.seek(place)
            file.write(whole[place:])
        for turn in range(4):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            got = len(pieces(fd, size))
            os.close(fd)
            check(got == 402, f"listing {turn} by {size} bytes: {got} names")
        scratch.umount(top)


def change_that_fails_behind_itself(scratch):
    """A name that went though the call failed is not shown any more."""
    if os.geteuid() != 0:
        return "not tried, as only root may mount a small tmpfs"
    small = scratch.path("small")
    small.mkdir()
    mounting.run("mount", "-t", "tmpfs", "-o", "size=16M", "small", small)
    image = scratch.image("small/image", "64M", "-t", "ext4", "-E", "lazy_itable_init=1,lazy_journal_init=1")
    top = scratch.mount(image, "small.mnt", "dirsync,noatime,nosandbox")
    for number in range(50):
        write(top / f"entry {number:05}", b"")
    for _ in range(2):
        os.listdir(top)
    try:
        write(small / "filling", b"x" * (16 << 20))
    except OSError:
        pass
    failed = None
    for number in range(50):
        try:
            (top / f"entry {number:05}").unlink()
        except OSError:
            failed = f"entry {number:05}"
            break
        os.listdir(top)
    check(failed, "the image had room for all")
    known = sorted(os.listdir(top))
    check(failed not in known, "the call failed before the change: nothing is tried here")
    os.posix_fadvise(fd := os.open(top, os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    check(known == sorted(os.listdir(top)), "a name is shown that is gone")
    scratch.kill(top)
    mounting.run("umount", small)
    return "right"


def _statx(path, flags):
    """Type, links, owners, size, blocks and the times of access, change and modification, by statx(2)."""
    buffer = ctypes.create_string_buffer(256)
    check(LIBC.statx(-100, os.fsencode(path), flags, 0x7FF, buffer) == 0, f"statx of {path}: {ctypes.get_errno()}")
    links, uid, gid, mode = struct.unpack_from("IIIH", buffer, 16)
    number, size, blocks = struct.unpack_from("QQQ", buffer, 32)
    return links, uid, gid, mode, number, size, blocks, buffer[64:76], buffer[96:108], buffer[112:124]


def make_remembered(top):
    """Files for the next mount: it must not have opened them."""
    folder = top / "remembered"
    folder.mkdir()
    for number in range(16):
        write(folder / f"f{number}", b"x" * 100)
        os.utime(folder / f"f{number}", (1000, 2000))  # due to move at a read


def attributes_remembered(top):
    """What a listing tells only the name of has the attributes that the file system has, whatever happened to it."""
    folder = top / "remembered"
    at = folder.joinpath

    def extend(path, mode, data):
        with open(path, mode) as file:
            file.write(data)

    def allocate(path):
        fd = os.open(path, os.O_RDWR)
        os.posix_fallocate(fd, 0, 1 << 16)
        os.close(fd)

    def direct(path):
        fd = os.open(path, os.O_RDWR | os.O_DIRECT)
        buffer = mmap.mmap(-1, 8192)
        os.pwritev(fd, [buffer], 0)
        os.close(fd)

    def by_map(path):
        with open(path, "r+b") as file, mmap.mmap(file.fileno(), 100) as view:
            view[0:3] = b"map"

    def copy(path):
        source, target = os.open(path, os.O_RDONLY), os.open(at("f15"), os.O_WRONLY)
        os.fstat(source)
        os.copy_file_range(source, target, 100)
        os.close(source)
        os.close(target)

    changes = (lambda: copy(at("f14")), lambda: extend(at("f0"), "ab", b"more"), lambda: extend(at("f1"), "r+b", b"over"),
               lambda: os.chmod(at("f2"), 0o600), lambda: os.chown(at("f3"), 12, 34), lambda: os.utime(at("f4"), (5, 6)),
               lambda: os.truncate(at("f5"), 70000), lambda: os.truncate(at("f5"), 3), lambda: os.link(at("f6"), at("f6b")),
               lambda: at("f6").unlink(), lambda: at("f7").rename(at("f7b")), lambda: at("f8").rename(at("f9")),
               lambda: os.setxattr(at("f10"), "user.name", b"value"), lambda: allocate(at("f11")),
               lambda: direct(at("f12")), lambda: by_map(at("f13")), lambda: at("f13").read_bytes())
    for number, change in enumerate(changes):
        for _ in range(2):
            list(os.scandir(folder))
        change()
        for _ in range(2):
            for entry in os.scandir(folder):
                kept, fresh = _statx(entry.path, 0), _statx(entry.path, 0x2000)  # AT_STATX_FORCE_SYNC
                check(kept == fresh, f"change {number}: {entry.name} is {kept}, and {fresh} when the server is asked")


def test(scratch):
    image = scratch.image("image", "256M", "-t", "ext4", "-b", "4096")
    top = scratch.mount(image)
    for part in (directories_have_places, names_behind_an_end, streams_see_what_there_is, changes_behind_a_part, make_remembered):
        part(top)
        print(f"{part.__name__.replace('_', ' ')}: right", flush=True)
    reading_moves_the_atime(top, False)
    listed_without_the_server(scratch, top)
    print("listed without the server: right", flush=True)
    scratch.umount(top)
    attributes_remembered(scratch.mount(image))
    print("attributes remembered: right", flush=True)
    scratch.umount(top)
    top = scratch.mount(image, options="strictatime")
    reading_moves_the_atime(top, True)
    print("reading moves the atime: right", flush=True)
    scratch.umount(top)
    top = scratch.mount(image, options="noatime")
    moved_directories_have_another_parent(top)
    print("moved directories have another parent: right", flush=True)
    scratch.umount(top)
    damage_is_told_each_time(scratch)
    print("damage is told each time: right", flush=True)
    damage_that_heals_is_no_more(scratch)
    print("damage that heals is no more: right", flush=True)
    print(f"change that fails behind itself: {change_that_fails_behind_itself(scratch)}", flush=True)
    mounting.clean(image)


if __name__ == "__main__":
    mounting.main(test)
