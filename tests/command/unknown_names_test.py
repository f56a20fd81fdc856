#!/usr/bin/env python3
"""Names that are encrypted, or in which case does not count: all are listed, and each is found by what is listed.

The images are e2fsprogs' own; what a key would make of a name is nobody's to know here, so any bytes stand for one.
Usage: unknown_names_test.py PROGRAM
"""

import base64
import fcntl
import json
import os
import pathlib
import stat
import struct
import subprocess

from verbs import IMPOSSIBLE, Verbs, check, mounting

EXTENTS, INDEX, ENCRYPT, CASEFOLD = 0x80000, 0x1000, 0x800, 0x40000000


def debugfs(image, lines):
    return subprocess.run(["debugfs", "-w", "-f", "-", str(image)], input="\n".join(lines) + "\n", capture_output=True,
                          text=True, check=True).stdout


def fsck(image, how):
    return subprocess.run(["e2fsck", how, str(image)], capture_output=True, text=True, check=False)


def patch(image, changes):
    """Bytes in the place of others as long, which are there once or more."""
    content = bytearray(pathlib.Path(image).read_bytes())
    for before, after in changes:
        check(len(before) == len(after) and before in content, f"{before} is not in the image")
        content = content.replace(before, after)
    pathlib.Path(image).write_bytes(content)


def all_found(scratch, verbs, folder, names):
    """By verbs and on a mount, each by the name that is listed."""
    listed = {entry["name"] for entry in json.loads(verbs("ls", "--json", "-a", f":/{folder}"))} - {".", ".."}
    check(listed == set(names), f"{folder}: {len(listed)} names of {len(names)}: {sorted(listed ^ set(names))[:5]}")
    directory = scratch.mount(verbs.image, options="ro")
    there = os.listdir(directory / folder)
    check(sorted(there) == sorted(names), f"{folder} on the mount: {len(there)} names")
    for name in names:
        os.lstat(directory / folder / name)
    for name in sorted(names)[:3]:
        verbs("stat", f":/{folder}/{name}")
    check(not os.path.lexists(directory / folder / "no such name"), "there is a name that is not listed")
    scratch.umount(directory)
    verbs("check", verbs.image)


def case_does_not_count(scratch, blocks):
    verbs = Verbs(scratch, scratch.image(f"casefold-{blocks}", "64M", "-t", "ext4", "-b", blocks, "-O", "casefold", "-E",
                                         "encoding=utf8"))
    source = scratch.path("source")
    source.write_text("contents")
    names = [f"File_Name_{i}_{'X' * 60}" for i in range(700)]
    debugfs(verbs.image, ["mkdir d", f"sif d flags {EXTENTS | CASEFOLD}"] + [f"write {source} d/{n}" for n in names])
    fsck(verbs.image, "-fyD")
    check("Hash Version" in debugfs(verbs.image, ["htree_dump d"]), "e2fsck has made no index")
    check(fsck(verbs.image, "-fn").returncode == 0, "the image is not sound")
    all_found(scratch, verbs, "d", names)
    check(verbs("cat", f":/d/{names[-1]}") == "contents", "the contents")


def shown(cipher, number):
    def text(part):
        return base64.urlsafe_b64encode(part).rstrip(b"=").decode()
    return text(cipher) if len(cipher) <= 191 else f"{text(cipher[:177])}~{number}"


def encrypted(scratch, kind):
    """One block of names, an index, or an index by a hash that has a key of its own."""
    features = "encrypt,^metadata_csum" + (",casefold" if kind == "keyed" else "")
    verbs = Verbs(scratch, scratch.image(f"encrypted-{kind}", "64M", "-t", "ext4", "-b", "1024", "-O", features))
    source = scratch.path("source")
    source.write_bytes(b"x" * 5000)
    lengths = [16, 32, 191, 192, 255] if kind == "short" else [16, 48, 200] * 60
    names = [(f"N{i:03}" * 64)[:length] for i, length in enumerate(lengths)]
    link = "xxAAAAAAAAAAAAAAAA"
    debugfs(verbs.image, ["mkdir e"] + [f"write {source} e/{name}" for name in names] +
            [f"symlink e/{link} xxLLLLLLLLLLLLLLLL"])
    if kind != "short":
        fsck(verbs.image, "-fyD")
    debugfs(verbs.image, [f"sif e/{name} flags {EXTENTS | ENCRYPT:#x}" for name in names] +
            [f"sif e/{link} flags {ENCRYPT:#x}"])
    names.append(link)
    changes = [(b"xxLLLLLLLLLLLLLLLL", b"\x10\0" + b"LL\0/LLLLLLLLLLLL")]
    if kind == "short":  # the bytes of an index's names are where their hashes say
        changes.append((b"N001", b"\0//\xff"))
    patch(verbs.image, changes)
    flags = EXTENTS | ENCRYPT | (0 if kind == "short" else INDEX) | (CASEFOLD if kind == "keyed" else 0)
    debugfs(verbs.image, [f"sif e flags {flags:#x}"])
    if kind == "keyed":
        block = int(debugfs(verbs.image, ["bmap e 0"]).splitlines()[-1])
        with open(verbs.image, "r+b") as file:
            file.seek(block * 1024 + 28)
            check(file.read(1) == b"\1", "the index is not by half of MD4")
            file.seek(-1, os.SEEK_CUR)
            file.write(b"\6")

    numbers = {entry["name"]: entry["inode"] for entry in json.loads(verbs("ls", "--json", "-a", ":/e"))}
    expected = []
    for name in names:
        cipher = name.encode()
        if kind == "short":
            cipher = cipher.replace(b"N001", b"\0//\xff")
        start = shown(cipher, "")
        expected.append(start + (str(numbers[next(n for n in numbers if n.startswith(start))]) if start.endswith("~") else ""))
    all_found(scratch, verbs, "e", expected)

    verbs("cat", f":/e/{expected[0]}", status=IMPOSSIBLE, says="encrypted")
    directory = scratch.mount(verbs.image, options="ro")
    target = os.readlink(directory / "e" / expected[-1])
    check(target == shown(b"LL\0/LLLLLLLLLLLL", 0), f"the target is {target}")
    check(stat.S_ISREG(os.lstat(directory / "e" / expected[0]).st_mode), "the kind")
    try:
        os.close(os.open(directory / "e" / expected[0], os.O_RDONLY))
        check(False, "ciphertext can be read")
    except OSError as error:
        check(error.errno == 126, f"ENOKEY was due, not {error}")
    scratch.umount(directory)


def kernel_encrypts(scratch):
    """The kernel's own ciphertext: what it lists without the key has as many names, and the image is sound."""
    verbs = Verbs(scratch, scratch.image("encrypted", "64M", "-t", "ext4", "-b", "4096", "-O", "encrypt"))
    folder = scratch.kernel_mount(verbs.image) / "e"
    folder.mkdir()
    key = bytearray(struct.pack("<II32sII32s", 2, 0, b"", 64, 0, b"") + bytes(range(64)))
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, 0xc0506617, key)  # FS_IOC_ADD_ENCRYPTION_KEY
        # FS_IOC_SET_ENCRYPTION_POLICY
        fcntl.ioctl(descriptor, 0x800c6613, struct.pack("<8B16s", 2, 1, 4, 0, 0, 0, 0, 0, bytes(key[8:24])))
    except OSError as error:
        mounting.skip(f"the kernel does not encrypt ({error}); all else was tested")
    finally:
        os.close(descriptor)
    for i in range(300):
        (folder / f"file {i}").write_text("x" * i)
    (folder / ("long" * 60)).write_text("long")
    os.symlink("target", folder / "link")
    os.symlink("t" * 300, folder / "long link")
    (folder / "sub").mkdir()
    scratch.kernel_umount(folder.parent)
    check(fsck(verbs.image, "-fn").returncode == 0, "the kernel's image is not sound")
    folder = scratch.kernel_mount(verbs.image, options="ro") / "e"
    kinds = sorted(stat.S_IFMT(os.lstat(entry).st_mode) for entry in os.scandir(folder))
    scratch.kernel_umount(folder.parent)
    names = [entry["name"] for entry in json.loads(verbs("ls", "--json", "-a", ":/e")) if entry["name"] not in (".", "..")]
    all_found(scratch, verbs, "e", names)
    directory = scratch.mount(verbs.image, options="ro")
    check(sorted(stat.S_IFMT(os.lstat(entry).st_mode) for entry in os.scandir(directory / "e")) == kinds, "the kinds")
    check(sum(len(os.readlink(directory / "e" / name)) > 0 for name in names
              if os.path.islink(directory / "e" / name)) == 2, "the links")
    scratch.umount(directory)


def test(scratch):
    for blocks in ("1024", "4096"):
        case_does_not_count(scratch, blocks)
    for kind in ("short", "indexed", "keyed"):
        encrypted(scratch, kind)
    kernel_encrypts(scratch)


if __name__ == "__main__":
    mounting.main(test)
