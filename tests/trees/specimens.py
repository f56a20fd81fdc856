"""The tree that is copied: real files of the machine, and one of everything that is seldom."""

import os
import pathlib
import shutil
import socket
import stat
import struct

SECOND = 1_000_000_000
# A name each, with a time that needs the sign, the epoch bits or the nanoseconds of an inode.
TIMES = {
    "1901": -2_147_000_000 * SECOND,
    "before 1970": -1_000_000_000 * SECOND + 123_456_789,
    "last nanosecond of 1969": -1,
    "2005": 1_123_456_789 * SECOND + 987_654_321,
    "2038": (1 << 31) * SECOND + 5,
    "after 2106": (1 << 32) * SECOND + 999_999_999,
    "2400": 13_569_465_600 * SECOND + 1,
}


def copy_real_files(source, count, largest):
    """Up to `count` files of the headers and of what is shared on this machine, their links and directories."""
    taken = 0
    for top in ("/usr/include", "/usr/share"):
        target = source / pathlib.Path(top).name
        limit = count * 2 // 5 if top == "/usr/include" else count
        for folder, directories, names in os.walk(top):
            directories.sort()
            if taken >= limit:
                break
            made = target / os.path.relpath(folder, top)
            made.mkdir(parents=True, exist_ok=True)
            for name in sorted(names):
                path = os.path.join(folder, name)
                status = os.lstat(path)
                if stat.S_ISREG(status.st_mode) and (status.st_size > largest or taken >= limit):
                    continue
                shutil.copy2(path, made / name, follow_symlinks=False)
                taken += stat.S_ISREG(status.st_mode)
            shutil.copystat(folder, made)
    return taken


def make_links(folder):
    folder.mkdir()
    (folder / "linked").write_bytes(b"many names" * 700)
    (folder / "elsewhere").mkdir()
    for number in range(40):
        os.link(folder / "linked", folder / ("elsewhere" if number % 2 else ".") / f"name {number}")
    for length in (1, 58, 59, 60, 61, 120, 900):
        os.symlink(("t" * 100 + "/") * (length // 101) + "t" * (length % 101), folder / f"symlink of {length}")
    os.symlink("linked", folder / "to linked")
    os.symlink("../links", folder / "to a directory")
    os.link(folder / "to linked", folder / "to linked, again", follow_symlinks=False)


def make_contents(folder, generator):
    folder.mkdir()
    for size in (0, 1, 59, 60, 61, 95, 96, 155, 156, 160, 1023, 1024, 1025, 4095, 4096, 4097, 65536, 3_000_001):
        (folder / f"{size} bytes").write_bytes(generator.randbytes(size))
    for name, islands, size in (("sparse", (0, 70_000, 5 << 20, 60 << 20), (60 << 20) + 12345),
                                ("begins with a hole", (1 << 20,), (1 << 20) + 600), ("nothing but a hole", (), 9 << 20),
                                ("ends with a hole", (0, 8192), 1 << 20)):
        with open(folder / name, "wb") as file:
            for offset in islands:
                file.seek(offset)
                file.write(b"island" * 100)
            file.truncate(size)
    with open(folder / "every other block", "wb") as file:
        for number in range(400):
            file.seek(number * 8192)
            file.write(struct.pack("<I", number + 1) * 1024)  # no zeros: copies may make holes of them


def acl(*entries):
    """A POSIX ACL as the kernel takes it: entries of (tag, rights, id)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY = 0xFFFFFFFF
ACL = acl((1, 7, NOBODY), (2, 5, 1001), (2, 6, 70000), (4, 5, NOBODY), (8, 4, 1002), (16, 7, NOBODY), (32, 1, NOBODY))


def make_attributes(folder, generator):
    folder.mkdir()
    for size in (0, 1, 20, 200, 500):
        path = folder / f"value of {size}"
        path.write_bytes(b"content" * (size // 10))
        os.setxattr(path, "user.value", generator.randbytes(size))
        if size < 200:
            os.setxattr(path, "trusted.value", b"for root" * 4)
            os.setxattr(path, "security.value", b"kept")
    many = folder / "many"
    many.write_bytes(b"")
    for number in range(12):
        os.setxattr(many, f"user.number {number}", b"%d" % number * number)
    # The same values in many files: they may share one block.
    for number in range(10):
        path = folder / f"same {number}"
        path.write_bytes(b"same")
        os.setxattr(path, "user.same", b"the same in all of them" * 12)
    (folder / "with acl").write_bytes(b"acl")
    os.setxattr(folder / "with acl", "system.posix_acl_access", ACL)
    (folder / "directory").mkdir()
    os.setxattr(folder / "directory", "user.of a directory", b"value")
    os.setxattr(folder / "directory", "system.posix_acl_access", ACL)
    os.setxattr(folder / "directory", "system.posix_acl_default", ACL)
    (folder / "directory" / "heir").write_bytes(b"inherits the list")
    os.symlink("nowhere", folder / "symlink")
    os.setxattr(folder / "symlink", "trusted.of a symlink", b"value", follow_symlinks=False)
    for number, mode in enumerate((0o4755, 0o2755, 0o1777, 0o0, 0o7777, 0o400)):
        path = folder / f"mode {mode:o}"
        path.write_bytes(b"mode")
        os.chown(path, (0, 1, 65534, 70000, 0x7FFF0001, 5)[number], (0, 100, 65535, 80000, 7, 0x10001)[number])
        os.chmod(path, mode)


def make_special(folder):
    folder.mkdir()
    for name, mode, device in (("null", stat.S_IFCHR, (1, 3)), ("big character", stat.S_IFCHR, (259, 70_000)),
                               ("block", stat.S_IFBLK, (8, 17)), ("big block", stat.S_IFBLK, (4095, 1_048_575))):
        os.mknod(folder / name, mode | 0o640, os.makedev(*device))
    os.mkfifo(folder / "fifo", 0o622)
    here = os.getcwd()
    os.chdir(folder)  # a socket's path may have 108 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("socket")
    finally:
        os.chdir(here)


def make_names(folder):
    folder.mkdir()
    top = os.fsencode(folder)
    names = [b"n" * 255, b"\xff\xfe no UTF-8 \x80", "gr\u00f6\u00dfer \u732b".encode(), b"\xe7" * 255, b" ", b"...", b"-rf",
             b"line\nbreak", b"back\\slash", b"quote'\"", b"*?[x]", b"\x01\x7f"]
    for number, name in enumerate(names):
        with open(top + b"/" + name, "wb") as file:
            file.write(b"name %d" % number)
    deep = top
    for number in range(20):
        deep += b"/" + (b"%02d" % number) * (60 if number < 3 else 4)
        os.mkdir(deep)
    with open(deep + b"/bottom", "wb") as file:
        file.write(b"deep down")


def make_times(folder):
    folder.mkdir()
    for name, moment in TIMES.items():
        (folder / name).write_bytes(name.encode())
        (folder / f"directory of {name}").mkdir()
        os.symlink("nowhere", folder / f"symlink of {name}")
        for path in (name, f"directory of {name}", f"symlink of {name}"):
            os.utime(folder / path, ns=(moment + 7, moment), follow_symlinks=False)


def make_crowd(folder, count):
    """One directory of many entries."""
    folder.mkdir()
    top = os.fsencode(folder)
    for number in range(count):
        os.close(os.open(top + b"/entry %d of the crowd" % number, os.O_CREAT | os.O_WRONLY, 0o600 + number % 0o200))


def make_big_values(folder, generator):
    folder.mkdir()
    for size in (2000, 4000, 5000, 20_000, 60 * 1024):
        path = folder / f"value of {size}"
        path.write_bytes(b"big value")
        os.setxattr(path, "user.big", generator.randbytes(size))
        os.setxattr(path, "user.small", b"beside")
    # Equal values are one value in the image.
    for number in range(5):
        path = folder / f"same {number}"
        path.write_bytes(b"")
        os.setxattr(path, "user.big", b"the same" * 3000)


def make(source, extra, files, crowd, largest, generator):
    """Fills `source`, and `extra` with what only some formats hold. Returns how many real files there are."""
    source.mkdir()
    extra.mkdir()
    real = copy_real_files(source, files, largest)
    make_links(source / "links")
    make_contents(source / "contents", generator)
    make_attributes(source / "attributes", generator)
    make_special(source / "special")
    make_names(source / "names")
    make_crowd(source / "crowd", crowd)
    make_times(source / "times")
    make_big_values(extra / "big values", generator)
    return real
