#!/usr/bin/env python3
"""An image that holds no file system of ours: what it is and how to get at it, by verbs and by mounts.

Made by the programs that are there, else by their first bytes. Usage: contents_test.py PROGRAM
"""

import lzma
import bz2
import gzip
import re
import shutil
import subprocess
import sys

from verbs import IMPOSSIBLE, check, mounting

# By first bytes: the name, where they lie, what they are called, and the program that helps.
MAGIC = (("qcow2", 0, b"QFI\xfb\0\0\0\3", "qcow2", "qemu-img convert -O raw"), ("qed", 0, b"QED\0", "QED", "qemu-img"),
         ("vhd", 0, b"conectix", "VHD", "qemu-img convert -f vpc"), ("vhdx", 0, b"vhdxfile", "VHDX", "qemu-img convert -f vhdx"),
         ("vmdk", 0, b"KDMV", "VMDK", "qemu-img convert -f vmdk"), ("flat", 0, b"# Disk DescriptorFile", "VMDK", "qemu-img"),
         ("vdi", 64, b"\x7f\x10\xda\xbe", "VDI", "qemu-img convert -f vdi"),
         ("sparse", 0, b"\x3a\xff\x26\xed", "Android sparse", "simg2img"),
         ("zstd", 0, b"\x28\xb5\x2f\xfd", "zstd", "zstd -dc"), ("lz4", 0, b"\x04\x22\x4d\x18", "lz4", "lz4 -dc"),
         ("luks", 0, b"LUKS\xba\xbe\0\2", "LUKS", "cryptsetup open"), ("lvm", 0x218, b"LVM2 001", "LVM", "vgchange -ay"),
         ("squashfs", 0, b"hsqs", "squashfs", "unsquashfs"), ("erofs", 1024, b"\xe2\xe1\xf5\xe0", "EROFS", "fsck.erofs"),
         ("xfs", 0, b"XFSB", "XFS", "mount -t xfs"), ("btrfs", 0x10040, b"_BHRfS_M", "btrfs", "mount -t btrfs"),
         ("f2fs", 1024, b"\x10\x20\xf5\xf2", "F2FS", "mount -t f2fs"), ("iso", 0x8001, b"CD001", "ISO 9660", "mount -t iso9660"),
         ("fat", 82, b"FAT32   ", "FAT", "mcopy"), ("ntfs", 3, b"NTFS    ", "NTFS", "mount -t ntfs3"),
         ("tar", 257, b"ustar", "tar archive", "tar -xf"), ("zip", 0, b"PK\3\4", "zip", "unzip"))


def refused(program, image, *says, words=None):
    """By a verb that reads, one that writes, and a mount: one line, in which all that is said."""
    for command in words or (("ls", image), ("mkdir", f"{image}:/x"), ("info", image), ("mount", image, "/mnt")):
        result = subprocess.run([str(word) for word in (program, *command)], capture_output=True, text=True, check=False)
        check(result.returncode == IMPOSSIBLE, f"{command}: {result}")
        check(len(result.stderr.splitlines()) == 1, f"{command}: {result.stderr}")
        for text in (*says, str(image)):
            check(text in result.stderr, f"{command}: {result.stderr!r} does not say {text!r}")


def formats(scratch):
    for name, offset, magic, *says in MAGIC:
        image = scratch.path(name)
        with open(image, "wb") as file:
            file.truncate(1 << 20)
            file.seek(offset)
            file.write(magic)
        refused(scratch.program, image, *says)
        image.unlink()
    for name, pack in (("gzip", gzip.compress), ("xz", lzma.compress), ("bzip2", bz2.compress)):
        image = scratch.path(name)
        image.write_bytes(pack(b"packed"))  # some bytes only
        refused(scratch.program, image, f"compressed by {name}", f"{name} -dc {image}")
    swap = scratch.path("swap")
    with open(swap, "wb") as file:
        file.truncate(1 << 20)
    refused(scratch.program, swap, "zeros", "mkfs.ext4")
    if shutil.which("mkswap"):
        mounting.run("mkswap", swap)
        refused(scratch.program, swap, "swap space", "no files")
    # One that only libblkid knows.
    with open(swap, "wb") as file:
        file.truncate(1 << 20)
        file.seek(1024)
        file.write(b"\xf5\xfc\x01\xa5")
    refused(scratch.program, swap, "vxfs")
    print(f"{len(MAGIC) + 6} formats", flush=True)


def disk_of(scratch, name, script, *files):
    disk = scratch.path(name)
    with open(disk, "wb") as file:
        file.truncate(96 << 20)
    mounting.run("sfdisk", "--no-tell-kernel", "-q", disk, input=script)
    with open(disk, "r+b") as target:
        for offset, image in files:
            target.seek(offset)
            target.write(image.read_bytes())
    return disk


def disks(scratch):
    """The partitions with number, type, size and the word to use, which works."""
    image = scratch.image("image", "32M", "-t", "ext4")
    mounting.run(scratch.program, "cp", "/etc/hostname", f"{image}:/file")
    gpt = disk_of(scratch, "gpt.img", "label: gpt\n2048,8192,U\n10240,65536,L\n77824,4096,S\n", (10240 * 512, image))
    mbr = disk_of(scratch, "mbr.img", "label: dos\n2048,8192,ef\n10240,65536,83\n77824,,5\n79872,4096,82\n", (10240 * 512, image))
    for disk, rest in ((gpt, ("EFI system, 4.0 MiB", f"{disk_word(gpt, 3)} (Linux swap, 2.0 MiB")),
                       (mbr, ("EFI system, 4.0 MiB", f"{disk_word(mbr, 5)} (Linux swap, 2.0 MiB"))):
        refused(scratch.program, disk, "a disk with partitions", f"{disk_word(disk, 2)} (Linux, 32.0 MiB, ext2, ext3 or ext4)", *rest)
        listed = mounting.run(scratch.program, "ls", disk, accept=(IMPOSSIBLE,)).stdout
        # A word that is named can be used: with a file system of ours it shows its files.
        words = re.findall(rf"{re.escape(str(disk))}@\d+", listed)
        check(len(words) == 3, f"{words}: {listed}")
        check("file" in mounting.run(scratch.program, "ls", words[1]).stdout, f"{words[1]}: the file")
        refused(scratch.program, disk, "there is no partition 9", *(f"{word} (" for word in words),
                words=(("ls", f"{disk}@9"), ("mkdir", f"{disk}@9:/x"), ("mount", f"{disk}@9", "/mnt")))
        # A partition of another kind is named as what it was asked by.
        refused(scratch.program, words[0], f"{words[0]}: no ext2, ext3 or ext4", words=(("ls", words[0]),))
    for words in (("ls", "--no-sandbox", gpt), ("mount", "-o", "nosandbox", gpt, "/mnt")):
        refused(scratch.program, gpt, f"{disk_word(gpt, 2)} (Linux", words=(words,))
    # Many partitions are not all listed, and a table that lies is no crash.
    many = disk_of(scratch, "many.img", "label: gpt\n" + "".join(f"{2048 * (n + 1)},2048,L\n" for n in range(40)))
    refused(scratch.program, many, "and more", f"{disk_word(many, 16)} (Linux")
    with open(mbr, "r+b") as file:
        file.seek(446 + 8)
        file.write(b"\xff\xff\xff\x7f\xff\xff\xff\x7f")
    refused(scratch.program, mbr, "outside of the disk", f"{disk_word(mbr, 2)} (Linux, 32.0 MiB")
    print("disks: done", flush=True)


def disk_word(disk, number):
    return f"{disk}@{number}"


def backups_come_first(scratch):
    """A file system whose first blocks were overwritten is one, whatever lies there now."""
    image = scratch.image("overwritten", "200M", "-t", "ext4", "-b", "4096")
    with open(image, "r+b") as file:
        file.write(b"QFI\xfb" + bytes(8188))
    refused(scratch.program, image, "sb=131072", words=(("ls", image), ("info", image)))
    result = mounting.run(scratch.program, "ls", image, accept=(IMPOSSIBLE,)).stdout
    check("qcow2" not in result, result)


def test(scratch):
    mounting.need("sfdisk")
    formats(scratch)
    disks(scratch)
    backups_come_first(scratch)


if __name__ == "__main__":
    sys.exit(mounting.main(test))
