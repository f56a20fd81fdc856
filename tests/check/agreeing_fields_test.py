#!/usr/bin/env python3
"""Two fields of an inode that must agree are judged as the kernel and e2fsck judge them.

Each file of an image is damaged by debugfs in one way. The kernel (a loop mount) and the program (a mount) then do the
same calls with it, and must answer the same: the errno, and where there is none what was read. `uext4 check` must find
something in the inodes in which `e2fsck -fn` finds something, and in no others.

Usage: agreeing_fields_test.py PROGRAM
"""

import errno
import os
import pathlib
import re
import stat
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "mount"))
import mounting  # noqa: E402  (lies in the folder beside)
from mounting import check, run  # noqa: E402

EXTENTS, INDEX, INLINE, HUGE, EA_INODE, VERITY, ENCRYPT, FOLD = (0x80000, 0x1000, 0x10000000, 0x40000, 0x200000,
                                                                0x100000, 0x800, 0x40000000)
FORMATS = {
    "ext4": ("-t", "ext4", "-b", "4096"),
    "ext4 without checksums": ("-t", "ext4", "-b", "1024", "-O", "^metadata_csum,^64bit"),
    "indirect": ("-t", "ext3", "-b", "1024"),
    "small inodes": ("-t", "ext4", "-b", "1024", "-I", "128"),
    "inline data": ("-t", "ext4", "-b", "1024", "-O", "inline_data"),
    "ea_inode": ("-t", "ext4", "-b", "1024", "-O", "ea_inode"),
    "bigalloc": ("-t", "ext4", "-b", "1024", "-O", "bigalloc"),
}
# What is damaged, and how: requests of debugfs, {} the path. Of flags, + and - say which are set and taken away.
DAMAGES = {
    "fast": {  # a symbolic link to "0123456789"
        "size 3": "size 3", "size 9": "size 9", "size 11": "size 11", "size 20": "size 20", "size 59": "size 59",
        "size 60": "size 60", "size 61": "size 61", "size 0": "size 0", "size 4096": "size 4096",
        "size 70000": "size 70000", "upper half": "size 0x10000000a", "blocks 8": "blocks 8", "blocks 2": "blocks 2",
        "extents": f"flags +{EXTENTS}", "extents, blocks": f"flags +{EXTENTS}; blocks 8", "inline": f"flags +{INLINE}",
        "index": f"flags +{INDEX}", "no text": "block[0] 0", "verity": f"flags +{VERITY}", "dtime": "dtime 55",
        "ea_inode": f"flags +{EA_INODE}", "encrypt": f"flags +{ENCRYPT}", "fold": f"flags +{FOLD}",
        "append": "flags +0x20", "immutable": "flags +0x10",
    },
    "full": {"size 58": "size 58", "size 60": "size 60", "size 10": "size 10"},  # of 59 bytes
    "slow": {  # of 200 bytes
        "size 0": "size 0", "size 1": "size 1", "size 59": "size 59", "size 60": "size 60", "size 199": "size 199",
        "size 201": "size 201", "size of a block": "size 1024", "size above a block": "size 5000",
        "upper half": "size 0x1000000c8", "blocks 0": "blocks 0", "blocks 16": "blocks 16", "no extents": f"flags -{EXTENTS}",
        "extents": f"flags +{EXTENTS}", "inline": f"flags +{INLINE}", "no root": "block[0] 0",
        "append": "flags +0x20", "immutable": "flags +0x10",
    },
    "file": {  # of 5000 bytes
        "size 0": "size 0", "size 1": "size 1", "size 4": "size 4000", "size 1 MiB": "size 1048576",
        "size of 2 TiB": "size 0x20000000000", "size too large": "size 0x1000000000000", "size negative": "size 0x8000000000000000",
        "blocks 0": "blocks 0", "blocks 8": "blocks 8", "blocks 32": "blocks 32", "blocks upper half": "blocks 0x100000010",
        "huge": f"flags +{HUGE}", "extents": f"flags +{EXTENTS}", "no extents": f"flags -{EXTENTS}",
        "inline": f"flags +{INLINE}", "inline alone": f"flags +{INLINE}-{EXTENTS}", "index": f"flags +{INDEX}",
        "no root": "block[0] 0", "depth 9": "block[1] 9", "more entries": "block[0] 0x0009f30a",
        "max 0": "block[1] 0", "max 9": "block[1] 9",
        "ea_inode": f"flags +{EA_INODE}", "verity": f"flags +{VERITY}", "encrypt": f"flags +{ENCRYPT}",
        "fold": f"flags +{FOLD}", "dtime": "dtime 55", "no links": "links_count 0", "links 2": "links_count 2",
        "extra 0": "extra_isize 0", "extra 1": "extra_isize 1", "extra 2": "extra_isize 2", "extra 3": "extra_isize 3",
        "extra 28": "extra_isize 28", "extra 30": "extra_isize 30", "extra 128": "extra_isize 128", "extra 132": "extra_isize 132",
        "extra 200": "extra_isize 200", "extra 65535": "extra_isize 65535",
        "file_acl 5": "file_acl 5", "file_acl beyond": "file_acl 999999999", "file_acl 0xffffffff": "file_acl 4294967295",
        "file_acl upper half": "file_acl 0x100000000", "file_acl upper half and block": "file_acl 0x100000bb8",
        "file_acl of zeros": "file_acl 30000", "mode of a fifo": "mode 0010644", "mode of a link": "mode 0120777",
        "mode of a directory": "mode 0040755", "mode 0": "mode 0", "mode of no kind": "mode 0170644",
        "mode of a device": "mode 0020644", "faddr": "faddr 7",
    },
    "empty": {"size 10": "size 10", "inline": f"flags +{INLINE}", "no extents": f"flags -{EXTENTS}", "no root": "block[0] 0",
              "size, no extents": f"flags -{EXTENTS}; size 10"},
    "dir": {  # with five files
        "size 0": "size 0", "size 1": "size 1", "size 1000": "size 1000", "size 1025": "size 1025", "size 5000": "size 5000",
        "size of 8 blocks": "size 8192", "size too large": "size 4294966272", "upper half": "size 0x100000400",
        "blocks 0": "blocks 0", "blocks 99": "blocks 99", "extents": f"flags +{EXTENTS}", "no extents": f"flags -{EXTENTS}",
        "inline": f"flags +{INLINE}", "inline alone": f"flags +{INLINE}-{EXTENTS}", "index": f"flags +{INDEX}", "no root": "block[0] 0",
        "depth 9": "block[1] 9", "ea_inode": f"flags +{EA_INODE}", "encrypt": f"flags +{ENCRYPT}", "fold": f"flags +{FOLD}",
        "verity": f"flags +{VERITY}", "dtime": "dtime 55", "links 0": "links_count 0", "links 1": "links_count 1",
        "links 3": "links_count 3", "mode of a file": "mode 0100644", "mode of a link": "mode 0120777",
    },
    "fifo": {
        "size 5": "size 5", "upper half": "size 0x100000000", "blocks 8": "blocks 8", "extents": f"flags +{EXTENTS}",
        "inline": f"flags +{INLINE}", "index": f"flags +{INDEX}", "ea_inode": f"flags +{EA_INODE}",
        "text": "block[3] 77", "no links": "links_count 0", "dtime": "dtime 55", "encrypt": f"flags +{ENCRYPT}",
        "fold": f"flags +{FOLD}", "verity": f"flags +{VERITY}", "append": "flags +0x20", "immutable": "flags +0x10",
    },
    "device": {
        "size 5": "size 5", "blocks 8": "blocks 8", "extents": f"flags +{EXTENTS}", "inline": f"flags +{INLINE}",
        "both numbers": "block[1] 0x12345", "text": "block[5] 77", "immutable": "flags +0x10",
    },
}
JUDGED_BY_E2FSCK = ("ext4", "indirect", "inline data")
# What the program answers otherwise, why, and how: "refused" is EUCLEAN from one of the calls, "shown" from none.
KEYS = ("encrypted without a context: ENODATA of the kernel, which asks for it; the program has no keys, and shows ciphertext",
        ("refused", "shown"))
EMPTY = ("nothing is read of a file of size 0, so nothing is wrong with its map; a write to it is EUCLEAN", ("shown",))
SIZE = ("a directory's size is that of its blocks: where it is not, its names are found, and the end of the list is an error", ("refused",))
OTHERS = {
    "encrypt": KEYS, "empty: no extents": EMPTY, "empty: no root": EMPTY,
    "file: verity": ("this kernel knows no verity, and refuses to open the file", ("shown",)),
    "dir: size 0": SIZE, "dir: size 1": SIZE, "dir: size 1000": SIZE, "dir: size 1025": SIZE, "dir: size 5000": SIZE,
    "dir: size of 8 blocks": SIZE, "dir: size too large": SIZE, "dir: upper half": SIZE, "file: mode of a directory": SIZE,
    "dir: index": ("the kernel takes a broken index for none, and shows names twice; of names in the inode there is no index",
                   ("refused", "shown")),
    "dir: no root": ("the kernel takes a missing block of a directory for an empty one", ("refused",)),
    "dir: depth 9": ("of indirect blocks the kernel looks at all pointers in the inode, the program at those that it follows",
                     ("shown",)),
}
# Flags without their feature, which e2fsck 1.47 does not mind.
UNKNOWN_TO_E2FSCK = ("verity", "ea_inode")
LINK = {"fast": "0123456789", "full": "f" * 59, "slow": "s" * 200}


def make(directory, kind, path):
    path = directory / path
    if kind in LINK:
        os.symlink(LINK[kind], path)
    elif kind == "file":
        path.write_bytes(b"contents " * 555 + b"12345")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "dir":
        path.mkdir()
        for number in range(5):
            (path / f"name{number}").write_bytes(b"")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))


def requests(path, damage, old_flags):
    for request in damage.split("; "):
        field, value = request.split(" ")
        if field == "flags":
            flags = old_flags
            for sign, bits in re.findall(r"([+-])(\w+)", value):
                flags = flags | int(bits, 0) if sign == "+" else flags & ~int(bits, 0)
            value = hex(flags)
        yield f"sif {path} {field} {value}"


def answers(path):
    """What the calls that reach the inode answer."""
    out = []

    def call(name, act):
        try:
            out.append((name, act()))
            return True
        except OSError as error:
            out.append((name, errno.errorcode[error.errno]))
            return False

    status = []
    if not call("lstat", lambda: status.append(os.lstat(path))):
        return out
    kind = status[0].st_mode
    out[0] = ("lstat", (oct(kind), status[0].st_nlink, status[0].st_size, status[0].st_rdev))
    call("listxattr", lambda: os.listxattr(path, follow_symlinks=False))
    if stat.S_ISLNK(kind):
        call("readlink", lambda: os.readlink(path))
    elif stat.S_ISDIR(kind):
        call("listdir", lambda: sorted(os.listdir(path)))
        call("stat of a name", lambda: os.lstat(path / "name3").st_size)
        call("stat of no name", lambda: os.lstat(path / "nothing"))
    elif stat.S_ISREG(kind):
        def read():
            fd = os.open(path, os.O_RDONLY)
            try:
                return len(data := os.pread(fd, 20000, 0)), data[:10], data[-10:]
            finally:
                os.close(fd)
        call("read", read)
    return out


def same_answers(kernels, ours):
    """EBADMSG of the kernel is EUCLEAN here. What the kernel refuses when it reads the inode, the program may show to
    stat(2), and refuses when the contents are asked for."""
    kernels = [(call, "EUCLEAN" if answer == "EBADMSG" else answer) for call, answer in kernels]
    if kernels == [("lstat", "EUCLEAN")]:
        return any(answer == "EUCLEAN" for _, answer in ours)
    return kernels == ours


def one_format(scratch, name):
    image = scratch.image("image", "12M", *FORMATS[name])
    names = [(kind, what, f"{kind}{number}") for kind, damages in DAMAGES.items() for number, what in enumerate(damages)]
    directory = scratch.kernel_mount(image)
    for kind, _, path in names:
        make(directory, kind, path)
    scratch.kernel_umount(directory)
    run("e2fsck", "-fn", image)
    listed = scratch.path("requests")
    flags = {}
    listed.write_text("".join(f"stat /{path}\n" for _, _, path in names))
    told = run("debugfs", "-f", listed, image).stdout
    for path, found in zip((path for _, _, path in names), re.findall(r"Flags: (0x[0-9a-f]+)", told), strict=True):
        flags[path] = int(found, 16)
    def damage(target, chosen):
        listed.write_text("".join(f"{request}\n" for kind, what, path in chosen
                                  for request in requests(f"/{path}", DAMAGES[kind][what], flags[path])))
        done = run("debugfs", "-w", "-f", listed, target).stdout
        check("nvalid" not in done and "nknown" not in done, done)

    lines = []
    for chosen in names if name in JUDGED_BY_E2FSCK else ():
        copy = mounting.copy_image(image, scratch.path("copy"))
        damage(copy, [chosen])
        theirs = run("e2fsck", "-fn", copy, accept=range(256))
        ours = run(scratch.program, "check", "--no-replay", copy, accept=(0, 1, 2))
        if chosen[1] in UNKNOWN_TO_E2FSCK and ours.returncode == 1:
            continue
        if (theirs.returncode == 0) != (ours.returncode == 0):
            lines.append(f"{name}: {chosen}:\n    e2fsck {theirs.returncode} {theirs.stdout}\n    check {ours.returncode} {ours.stdout}")
    damage(image, names)
    directory = scratch.kernel_mount(image, options="ro,noload,errors=continue")
    kernels = {path: answers(directory / path) for _, _, path in names}
    scratch.kernel_umount(directory)
    directory = scratch.mount(image, options="ro,noload")
    ours = {path: answers(directory / path) for _, _, path in names}
    scratch.umount(directory)
    for kind, what, path in names:
        if same_answers(kernels[path], ours[path]):
            continue
        _, allowed = OTHERS.get(what) or OTHERS.get(f"{kind}: {what}") or ("", ())
        # The names that are there are found all the same.
        lost = OTHERS.get(f"{kind}: {what}") is SIZE and kind == "dir" and what != "size 0" and name != "inline data" and (
            ("stat of a name", 0) not in ours[path])
        if lost or ("refused" if any(got == "EUCLEAN" for _, got in ours[path]) else "shown") not in allowed:
            lines.append(f"{name}: {kind}: {what} ({path}):\n    kernel  {kernels[path]}\n    program {ours[path]}")
    image.unlink()
    return lines


def test(scratch):
    mounting.need("debugfs", "e2fsck", "mke2fs")
    lines = []
    for name in FORMATS:
        lines += one_format(scratch, name)
    check(not lines, f"{len(lines)} differ\n" + "\n".join(lines))


mounting.main(test)
