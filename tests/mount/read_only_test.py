#!/usr/bin/env python3
"""An image that cannot be written is mounted read-only, and a line says so; with `rw` it is a failure, but not by mount(8).

Usage: read_only_test.py PROGRAM
"""

import contextlib
import errno
import os
import pathlib
import shutil
import struct
import subprocess

import mounting
import users_test as users
from helpers_test import HELPERS, Helpers
from mounting import check

NOBODY = 65534
RO_COMPAT, READ_ONLY_FEATURE = 1024 + 0x64, 0x1000


def options_of(directory):
    """Of the mount, and of the file system (the superblock)."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        fields = next(line.split(" ") for line in table if line.split(" ")[4] == str(directory))
    return fields[5].split(","), fields[fields.index("-") + 3].strip().split(",")


def is_read_only(scratch, directory, image):
    """As the kernel sees it, and the programs; and readers may open the image beside it."""
    of_mount, of_super = options_of(directory)
    check("ro" in of_mount and "ro" in of_super, f"{image}: {of_mount} {of_super}")
    check((directory / "file").read_bytes() == b"in the image", f"{image}: the file")
    try:
        (directory / "new").touch()
        raise mounting.Failure(f"{image}: a file was made")
    except OSError as error:
        check(error.errno == errno.EROFS, f"{image}: {error}")


def mount(scratch, image, *words, code=0, program=None, **identity):
    """Mounts; the lines on stderr."""
    directory = scratch.path("mnt")
    command = [str(word) for word in (program or scratch.program, "mount", *words, image, directory)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, **identity)
    check(result.returncode == code, f"{command}: {result}")
    check(mounting.is_mounted(directory) == (code == 0), f"{command}: {result}")
    if code == 0:
        scratch.servers[directory] = 0
    return directory, result.stderr


def falls_back(scratch, image, reason, shared=True):
    """Without a word about it, and after `ro`; not with `rw`. `shared`: others may read the image meanwhile."""
    for words in ((), ("-o", "noatime"), ("-o", "rw,ro,noatime")):
        directory, said = mount(scratch, image, *words)
        scratch.servers[directory] = scratch.server_of(directory)
        is_read_only(scratch, directory, image)
        lines = said.splitlines()
        if "ro" not in ",".join(words).split(","):
            check(len(lines) == 1 and reason in said and "mounted read-only" in said and
                  said.startswith("uext4 mount: "), f"{image} {words}: {said}")
        else:
            check(not lines, f"{image} {words}: {said}")
        if shared:
            mounting.run(scratch.program, "ls", "--wait", "0", f"{image}:/file")
        scratch.umount(directory)
    for words in (("-o", "rw"), ("-o", "noatime,rw"), ("-o", "ro,rw")):
        said = mount(scratch, image, *words, code=2)[1]
        check(reason in said and "mounted read-only" not in said, f"{image} {words}: {said}")
    for words in (("mkdir", f"{image}:/x"), ("label", image, "new"), ("replay", image)):
        result = mounting.run(scratch.program, *words, accept=(1, 2))
        check(reason in result.stdout, f"{words}: {result.stdout}")


def by_mount_program(scratch, image, reason):
    """mount(8) always passes `rw`: it insists on nothing."""
    directory = scratch.path("mnt")
    table = scratch.path("fstab")
    table.write_text(f"{image} {directory} fuse.uext4 defaults,x-a=b,nofail 0 0\n")
    for words in (("mount", "-t", "fuse.uext4", image, directory), ("mount", "-t", "fuse.uext4", "-o", "rw", image, directory),
                  ("mount", "-T", table, directory), (HELPERS[0], image, directory, "-o", "rw,noatime")):
        result = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
        check(result.returncode == 0 and reason in result.stderr and "mounted read-only" in result.stderr, f"{words}: {result}")
        scratch.servers[directory] = scratch.server_of(directory)
        is_read_only(scratch, directory, image)
        scratch.umount(directory)


@contextlib.contextmanager
def read_only_folder(scratch, image):
    """The image in a mount that is read-only."""
    folder = scratch.path("read_only_folder")
    folder.mkdir(exist_ok=True)
    mounting.run("mount", "--bind", scratch.folder, folder)
    try:
        mounting.run("mount", "-o", "remount,bind,ro", folder)
        yield folder / image.name
    finally:
        mounting.run("umount", folder)


def through_loop(scratch, image):
    made = subprocess.run(["losetup", "-r", "-f", "--show", image], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        print(f"no loop device: {made.stderr.strip()}")
        return
    loop = made.stdout.strip()
    try:
        falls_back(scratch, loop, loop)
    finally:
        mounting.run("losetup", "-d", loop)
    print("a read-only device: done", flush=True)


def feature(scratch):
    """A feature that only reading supports is found when the image is open for writing already."""
    image = scratch.image("feature", "32M", "-t", "ext4", "-O", "^metadata_csum")
    put_file(scratch, image)
    with open(image, "r+b") as file:
        file.seek(RO_COMPAT)
        features = struct.unpack("<I", file.read(4))[0]
        file.seek(RO_COMPAT)
        file.write(struct.pack("<I", features | READ_ONLY_FEATURE))
    before = image.read_bytes()
    falls_back(scratch, image, "read-only because of")
    check(image.read_bytes() == before, "a mount that only reads changed the image")
    print("a feature: done", flush=True)


def put_file(scratch, image):
    text = scratch.path("text")
    text.write_bytes(b"in the image")
    mounting.run(scratch.program, "cp", text, f"{image}:/file")


def as_a_user(scratch, image):
    """Whose file may only be read; by fusermount3. What may not even be read is a failure."""
    users.own_namespace(scratch)
    program = shutil.copy(scratch.program, scratch.path("uext4"))
    os.chmod(image, 0o444)
    os.chown(scratch.path("mnt"), NOBODY, NOBODY)
    identity = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    directory, said = mount(scratch, image, program=program, **identity)
    check("Permission denied" in said and "mounted read-only" in said and len(said.splitlines()) == 1, said)
    check("ro" in options_of(directory)[1], f"{options_of(directory)}")
    subprocess.run([program, "umount", directory], check=True, **identity)
    del scratch.servers[directory]
    said = mount(scratch, image, "-o", "rw", code=2, program=program, **identity)[1]
    check("Permission denied" in said, said)
    os.chmod(image, 0)
    said = mount(scratch, image, code=2, program=program, **identity)[1]
    check("Permission denied" in said and "read-only" not in said, said)
    print("a user: done", flush=True)


def test(scratch):
    os.chmod(scratch.folder, 0o755)
    scratch.path("mnt").mkdir()
    image = scratch.image("image", "32M", "-t", "ext4")
    put_file(scratch, image)
    with read_only_folder(scratch, image) as protected:
        falls_back(scratch, protected, "Read-only file system")
        with Helpers(scratch.program):
            by_mount_program(scratch, protected, "Read-only file system")
    print("a read-only file system: done", flush=True)
    through_loop(scratch, image)
    feature(scratch)
    with open(image, "rb") as file:
        os.set_inheritable(file.fileno(), True)
        directory = scratch.path("mnt")
        result = subprocess.run([scratch.program, "mount", f"/dev/fd/{file.fileno()}", directory], capture_output=True,
                                text=True, check=False, close_fds=False)
        check(result.returncode == 0 and "mounted read-only" in result.stderr, f"a descriptor: {result}")
        scratch.servers[directory] = scratch.server_of(directory)
        is_read_only(scratch, directory, "a descriptor")
        scratch.umount(directory)
    # What is no reason to only read is a failure as ever.
    text = scratch.path("text")
    with read_only_folder(scratch, text) as protected:
        said = mount(scratch, protected, code=2)[1]
        check("read-only" not in said.lower() and len(said.splitlines()) == 1, said)
    as_a_user(scratch, image)
    check(pathlib.Path(image).stat().st_size == 32 << 20, "the image")


if __name__ == "__main__":
    mounting.main(test)
