#!/usr/bin/env python3
"""Images with encrypt, casefold or verity are written outside of what these protect; quota and project are read-only.

The kernel makes an encrypted tree and judges: without the key it and the program answer the same to the same calls.
Afterwards e2fsck finds nothing, the kernel reads what the program wrote, and with the key what it has encrypted.
Folded directories and verity files are made by debugfs, as this kernel may know neither.

Usage: limited_features_test.py PROGRAM
"""

import errno
import fcntl
import os
import struct

import mounting
from mounting import check, run

EXTENTS, CASEFOLD, VERITY = 0x80000, 0x40000000, 0x100000
GETFLAGS, SETFLAGS = 0x80086601, 0x40086602
ADD_KEY, SET_POLICY = 0xC0506617, 0x800C6613
KEY = bytes(range(64))


def answer(act):
    """The name of the errno, or "" where it works."""
    try:
        result = act()
        if isinstance(result, int) and result > 2:
            os.close(result)
        return ""
    except OSError as error:
        return errno.errorcode[error.errno]


def add_key(folder):
    """The identifier of the key, which the file system of `folder` has from now on."""
    key = bytearray(struct.pack("<II32sII32s", 2, 0, b"", len(KEY), 0, b"") + KEY)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, ADD_KEY, key)
        return bytes(key[8:24])
    finally:
        os.close(descriptor)


def encrypt(folder):
    identifier = add_key(folder)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, SET_POLICY, struct.pack("<8B16s", 2, 1, 4, 0, 0, 0, 0, 0, identifier))
    finally:
        os.close(descriptor)


def plain_changes(root):
    """What is open to anybody: names and contents outside of everything that is protected."""
    (root / "new").mkdir()
    for number in range(200):
        (root / "new" / f"file {number}").write_bytes(b"x" * number * 11)
    for number in range(0, 200, 3):
        os.unlink(root / "new" / f"file {number}")
    os.rename(root / "new" / "file 1", root / "plain" / "moved")
    os.link(root / "plain" / "old", root / "new" / "linked")
    os.symlink("target", root / "new" / "link")
    os.truncate(root / "plain" / "old", 3)
    with open(root / "plain" / "old", "ab") as file:
        file.write(b"appended")
    os.setxattr(root / "plain" / "old", "user.name", b"value")
    os.chmod(root / "plain", 0o711)
    (root / "new" / "sub").mkdir()
    os.rmdir(root / "new" / "sub")


def set_flag(path, flag, on):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        old = struct.unpack("L", fcntl.ioctl(descriptor, GETFLAGS, bytes(8)))[0]
        fcntl.ioctl(descriptor, SETFLAGS, struct.pack("L", old | flag if on else old & ~flag))
    finally:
        os.close(descriptor)


def encrypted_calls(root):
    """Without the key. The names that are shown differ: the kernel's has a hash before it."""
    folder = root / "e"
    kinds = {}
    for entry in sorted(os.scandir(folder), key=lambda entry: (entry.stat(follow_symlinks=False).st_size, entry.inode())):
        kinds.setdefault("d" if entry.is_dir(follow_symlinks=False) else "l" if entry.is_symlink() else "f", []).append(entry.path)
    one, two = kinds["f"][:2]
    below, empty = sorted(kinds["d"], key=lambda path: -len(os.listdir(path)))
    link = kinds["l"][0]
    plain = root / "plain"
    calls = {
        "read": lambda: os.open(one, os.O_RDONLY),
        "write": lambda: os.open(one, os.O_WRONLY),
        "truncate": lambda: os.truncate(one, 0),
        "grow": lambda: os.truncate(one, 100000),
        "create": lambda: os.open(folder / "fresh", os.O_CREAT | os.O_WRONLY),
        "create below": lambda: os.open(os.path.join(below, "fresh"), os.O_CREAT | os.O_WRONLY),
        "mkdir": lambda: os.mkdir(folder / "fresh"),
        "symlink": lambda: os.symlink("x", folder / "fresh"),
        "mkfifo": lambda: os.mkfifo(folder / "fresh"),
        "unnamed": lambda: os.open(folder, os.O_TMPFILE | os.O_RDWR),
        "link into": lambda: os.link(plain / "old", folder / "fresh"),
        "rename into": lambda: os.rename(plain / "old", folder / "fresh"),
        "rename over": lambda: os.rename(plain / "old", one),
        "rename out": lambda: os.rename(one, plain / "out"),
        "rename within": lambda: os.rename(one, folder / "other"),
        "rmdir of a full one": lambda: os.rmdir(below),
        # What takes no key.
        "chmod": lambda: os.chmod(one, 0o640),
        "chown": lambda: os.chown(one, 5, 6),
        "utime": lambda: os.utime(one, (5, 6)),
        "link out": lambda: os.link(one, plain / "linked out"),
        "rename outside": lambda: os.rename(plain / "linked out", plain / "out"),
        "unlink outside": lambda: os.unlink(plain / "out"),
        "setxattr": lambda: os.setxattr(one, "user.name", b"value"),
        "chmod of the directory": lambda: os.chmod(folder, 0o700),
        "set a flag": lambda: set_flag(folder, 0x40, True),
        "unlink": lambda: os.unlink(two),
        "unlink a link": lambda: os.unlink(link),
        "rmdir": lambda: os.rmdir(empty),
        "rename the directory itself": lambda: os.rename(folder, root / "renamed"),
    }
    return {name: answer(call) for name, call in calls.items()}


def encrypted(scratch, *options):
    image = scratch.image("image", "64M", "-t", "ext4", "-O", "encrypt", *options)
    root = scratch.kernel_mount(image)
    for folder in ("plain", "e"):
        (root / folder).mkdir()
    (root / "plain" / "old").write_bytes(b"old contents")
    try:
        encrypt(root / "e")
    except OSError as error:
        scratch.kernel_umount(root)
        print(f"the kernel does not encrypt ({error}): left out")
        return
    contents = {f"file {number}": bytes([number]) * (1000 * number + 1) for number in range(1, 120)}
    for name, content in contents.items():
        (root / "e" / name).write_bytes(content)
    for folder in ("full", "empty"):
        (root / "e" / folder).mkdir()
    (root / "e" / "full" / ("long" * 60)).write_bytes(b"below")
    os.symlink("t" * 30, root / "e" / "link")
    scratch.kernel_umount(root)
    run("e2fsck", "-fn", image)
    copy = mounting.copy_image(image, scratch.path("copy"))
    root = scratch.kernel_mount(copy)
    expected = encrypted_calls(root)
    scratch.kernel_umount(root)
    root = scratch.mount(image)
    got = encrypted_calls(root)
    check(got == expected, "encrypted: " + ", ".join(f"{name}: kernel {expected[name]!r}, program {got[name]!r}"
                                                    for name in expected if got[name] != expected[name]))
    plain_changes(root)
    seen = mounting.tree(root / "new"), mounting.tree(root / "plain")
    shown = next(name for name in sorted(os.listdir(root / "renamed")) if (root / "renamed" / name).is_file())
    scratch.umount(root)
    run("e2fsck", "-fn", image)
    # By the library.
    told = run(scratch.program, "mkdir", f"{image}:/renamed/x", accept=(2,)).stdout
    check("encrypted" in told, told)
    run(scratch.program, "mkdir", f"{image}:/x")
    run(scratch.program, "rm", f"{image}:/renamed/{shown}")
    run("e2fsck", "-fn", image)
    root = scratch.kernel_mount(image)
    for number, folder in enumerate(("new", "plain")):
        mounting.same_tree(seen[number], mounting.tree(root / folder), f"encrypt: {folder}, as the program wrote it")
    add_key(root)
    left = 0
    for name, content in contents.items():
        path = root / "renamed" / name
        if path.exists():
            left += 1
            check(path.read_bytes() == content, f"{name}: its contents changed")
    check(left == len(contents) - 2, f"{left} encrypted files are left of {len(contents)}")
    check((root / "renamed" / "full" / ("long" * 60)).read_bytes() == b"below", "the file below")
    scratch.kernel_umount(root)
    image.unlink()
    copy.unlink()


def folded(scratch):
    image = scratch.image("image", "64M", "-t", "ext4", "-O", "casefold", "-E", "encoding=utf8")
    source = scratch.path("source")
    source.write_bytes(b"contents")
    listed = scratch.path("requests")
    listed.write_text("".join(f"{line}\n" for line in (
        "mkdir plain", f"write {source} plain/old", "mkdir folded", f"write {source} folded/Name", "mkdir folded/Sub",
        f"sif folded flags {EXTENTS | CASEFOLD}", f"sif folded/Sub flags {EXTENTS | CASEFOLD}", "mkdir empty", f"sif empty flags {EXTENTS | CASEFOLD}")))
    run("debugfs", "-w", "-f", listed, image)
    run("e2fsck", "-fn", image)
    root = scratch.mount(image)
    folder, plain = root / "folded", root / "plain"
    refused = {
        "create": lambda: os.open(folder / "fresh", os.O_CREAT | os.O_WRONLY),
        "create below": lambda: os.open(folder / "Sub" / "fresh", os.O_CREAT | os.O_WRONLY),
        "mkdir": lambda: os.mkdir(folder / "fresh"),
        "symlink": lambda: os.symlink("x", folder / "fresh"),
        "mkfifo": lambda: os.mkfifo(folder / "fresh"),
        "link into": lambda: os.link(plain / "old", folder / "fresh"),
        "rename into": lambda: os.rename(plain / "old", folder / "fresh"),
        "rename over": lambda: os.rename(plain / "old", folder / "Name"),
        "rename out": lambda: os.rename(folder / "Name", plain / "out"),
        "rename within": lambda: os.rename(folder / "Name", folder / "other"),
        "unlink": lambda: os.unlink(folder / "Name"),
        "rmdir": lambda: os.rmdir(folder / "Sub"),
        "fold a directory": lambda: set_flag(plain, CASEFOLD, True),
        "unfold a directory": lambda: set_flag(folder, CASEFOLD, False),
    }
    for name, call in refused.items():
        check((got := answer(call)) in ("ENOTSUP", "EOPNOTSUPP"), f"casefold: {name}: {got!r}")
    # The contents and the attributes of what is in a folded directory, and the directory as an entry of its parent.
    with open(folder / "Name", "ab") as file:
        file.write(b" and more")
    os.chmod(folder / "Name", 0o600)
    os.chmod(folder, 0o700)
    set_flag(folder, 0x40, True)
    os.rename(folder, plain / "folded")
    os.rmdir(root / "empty")
    plain_changes(root)
    check(not os.path.lexists(root / "new" / "FILE 2"), "a plain directory folds")
    seen = mounting.tree(root)
    scratch.umount(root)
    run("e2fsck", "-fn", image)
    root = scratch.mount(image, options="ro")
    mounting.same_tree(seen, mounting.tree(root), "casefold: what the program wrote")
    check((root / "plain" / "folded" / "Name").read_bytes() == b"contents and more", "the contents in a folded directory")
    scratch.umount(root)
    told = run(scratch.program, "mkdir", f"{image}:/plain/folded/x", accept=(2,)).stdout
    check("casefolded" in told, told)
    run(scratch.program, "mkdir", f"{image}:/plain/x")
    image.unlink()


def sealed(scratch):
    image = scratch.image("image", "64M", "-t", "ext4", "-O", "verity")
    source = scratch.path("source")
    source.write_bytes(b"contents " * 3000)
    listed = scratch.path("requests")
    listed.write_text("".join(f"{line}\n" for line in (
        "mkdir plain", f"write {source} plain/old", f"write {source} plain/sealed", f"write {source} plain/gone",
        f"sif plain/sealed flags {EXTENTS | VERITY}", f"sif plain/gone flags {EXTENTS | VERITY}")))
    run("debugfs", "-w", "-f", listed, image)
    run("e2fsck", "-fn", image)
    root = scratch.mount(image)
    path = root / "plain" / "sealed"
    for name, call in {"write": lambda: os.open(path, os.O_WRONLY), "read and write": lambda: os.open(path, os.O_RDWR),
                       "append": lambda: os.open(path, os.O_WRONLY | os.O_APPEND), "truncate": lambda: os.truncate(path, 5),
                       "open and truncate": lambda: os.open(path, os.O_RDONLY | os.O_TRUNC)}.items():
        check((got := answer(call)) == "EPERM", f"verity: {name}: {got!r}")
    check(answer(lambda: set_flag(path, EXTENTS, False)) in ("ENOTSUP", "EOPNOTSUPP"), "verity: the map can be changed")
    os.chmod(path, 0o600)
    os.setxattr(path, "user.name", b"value")
    os.link(path, root / "plain" / "linked")
    os.rename(path, root / "sealed")
    os.unlink(root / "plain" / "gone")
    plain_changes(root)
    seen = mounting.tree(root)
    scratch.umount(root)
    check(seen[b"sealed"]["size"] == 27000, "the sealed file's size")
    run("e2fsck", "-fn", image)
    told = run(scratch.program, "cp", source, f"{image}:/sealed", accept=(1, 2)).stdout
    check("verity" in told, told)
    image.unlink()


def counted(scratch):
    for features, options in (("quota", ()), ("project", ("-I", "256")), ("quota,project", ("-I", "256"))):
        image = scratch.image("image", "64M", "-t", "ext4", "-O", features, *options)
        before = image.read_bytes()
        told = run(scratch.program, "mkdir", f"{image}:/x", accept=(2,)).stdout
        check(told.rstrip().endswith(": uext4 does not update quotas"), f"{features}: {told}")
        directory = scratch.mount(image, options="ro")
        check(answer(lambda at=directory: os.mkdir(at / "x")) == "EROFS", f"{features}: written to")
        scratch.umount(directory)
        check(image.read_bytes() == before, f"{features}: the image has changed")
        image.unlink()


def test(scratch):
    mounting.need("debugfs")
    counted(scratch)
    sealed(scratch)
    folded(scratch)
    encrypted(scratch)
    encrypted(scratch, "-b", "1024", "-O", "inline_data")


mounting.main(test)
