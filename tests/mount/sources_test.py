#!/usr/bin/env python3
"""Where an image may lie: a file, a partition of a disk image, an offset, a descriptor, a block device. One in use is refused.

Usage: sources_test.py PROGRAM
"""

import errno
import hashlib
import os
import pathlib
import stat
import time

import mounting
from mounting import check, run

SECTOR = 512


def source_of(directory):
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as table:
        return next(line.split(" ")[0] for line in table if line.split(" ")[1] == str(directory))


def use(scratch, image, what, source=None, **options):
    """Mounts, writes, unmounts, mounts again and reads."""
    directory = scratch.mount(image, **options)
    check(source_of(directory) == str(source or image), f"{what}: the source reads as {source_of(directory)}")
    (directory / "written").write_bytes(what.encode() * 1000)
    scratch.umount(directory)
    directory = scratch.mount(image, **options)
    check((directory / "written").read_bytes() == what.encode() * 1000, f"{what}: something else is read")
    scratch.umount(directory)
    print(f"{what}: mounted, written, read", flush=True)


def disk_of(scratch, label):
    """A disk image with three partitions, a file system in the second and the third."""
    disk = scratch.path(f"disk {label}")
    with open(disk, "wb") as file:
        file.truncate(200 << 20)
    # What it would tell the kernel ends in a sync of the whole machine.
    run("sfdisk", "-q", "--no-tell-kernel", disk, input=f"label: {label}\n,16M\n,64M\n,64M\n")
    table = run("sfdisk", "-d", disk).stdout
    starts = [int(line.split("start=")[1].split(",")[0]) * SECTOR for line in table.splitlines() if "start=" in line]
    for start in starts[1:]:
        run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-E", f"offset={start}", disk, "64M")
    return disk, starts


def checked_part(scratch, disk, start):
    part = scratch.path("part")
    run("dd", f"if={disk}", f"of={part}", "bs=1M", f"skip={start}", "count=64M", "iflag=skip_bytes,count_bytes",
        "conv=sparse", "status=none")
    mounting.clean(part)
    os.unlink(part)


def by_descriptor(scratch, disk):
    """A partition of what a descriptor leads to has that file's name in the table of mounts."""
    directory = scratch.path("mnt")
    directory.mkdir(exist_ok=True)
    with open(disk, "r+b") as file:
        run(scratch.program, "mount", f"/dev/fd/{file.fileno()}@2", directory, pass_fds=(file.fileno(),))
    scratch.servers[directory] = scratch.server_of(directory)
    check(source_of(directory) == str(disk).replace(" ", "\\040") + "@2", f"the source reads as {source_of(directory)}")
    check((directory / "written").exists(), "another partition is mounted by a descriptor")
    scratch.umount(directory)


def partitions(scratch):
    for label in ("gpt", "dos"):
        disk, starts = disk_of(scratch, label)
        use(scratch, f"{disk}@2", f"partition 2 of a {label} disk", source=str(disk).replace(" ", "\\040") + "@2")
        use(scratch, disk, f"offset in a {label} disk", source=str(disk).replace(" ", "\\040"), options=f"offset={starts[2]}")
        by_descriptor(scratch, disk)
        one = scratch.mount(f"{disk}@2", "one")
        other = scratch.mount(f"{disk}@3", "other")
        check((one / "written").read_bytes() != (other / "written").read_bytes(), "two partitions are the same")
        scratch.umount(one)
        scratch.umount(other)
        for start in starts[1:]:
            checked_part(scratch, disk, start)
        for name, word in ((f"{disk}@1", ""), (f"{disk}@9", ""), (f"{disk}@x", "")):
            result = run(scratch.program, "info", name, accept=(2,))
            check(name.rsplit("/", 1)[1] in result.stdout, f"{name}: {result.stdout}")


def large_sectors(scratch):
    """The copy of a disk with sectors of 4 KiB: its table counts in these."""
    disk = scratch.path("disk of large sectors")
    with open(disk, "wb") as file:
        file.truncate(100 << 20)
    made = run("losetup", "-f", "--show", "-b", "4096", disk, accept=range(256))
    if made.returncode != 0:
        print(f"sectors of 4 KiB: left out, there are no such loop devices: {made.stdout.strip()}")
        return
    device = made.stdout.strip()
    try:
        run("sfdisk", "-q", "--no-tell-kernel", device, input="label: gpt\n256,40M\n,\n")
        result = run(scratch.program, "info", f"{device}@3", accept=(2,)).stdout
        check("there is no partition 3" in result, f"a device of such sectors: {result}")
    finally:
        run("losetup", "-d", device)
    run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-E", "offset=1048576", disk, "40M")
    use(scratch, f"{disk}@1", "a partition of large sectors", source=str(disk).replace(" ", "\\040") + "@1")
    result = run(scratch.program, "info", f"{disk}@3", accept=(2,)).stdout
    check("there is no partition 3" in result, result)


def descriptor(scratch):
    image = scratch.image("by descriptor", "64M", "-t", "ext4", "-b", "4096")
    directory = scratch.path("mnt")
    directory.mkdir(exist_ok=True)
    fd = os.open(image, os.O_RDWR)
    try:
        # Its name is gone: only the descriptor leads to it.
        os.rename(image, scratch.path("renamed"))
        run(scratch.program, "mount", f"/dev/fd/{fd}", directory, pass_fds=(fd,))
    finally:
        os.close(fd)
    scratch.servers[directory] = scratch.server_of(directory)
    check(source_of(directory) == str(scratch.path("renamed")), f"the source reads as {source_of(directory)}")
    (directory / "written").write_bytes(b"by descriptor")
    scratch.umount(directory)
    # One without a name is the descriptor.
    os.link(scratch.path("renamed"), scratch.path("nameless"))
    with open(scratch.path("nameless"), "r+b") as file:
        os.unlink(scratch.path("nameless"))
        run(scratch.program, "mount", f"/dev/fd/{file.fileno()}", directory, pass_fds=(file.fileno(),))
        scratch.servers[directory] = scratch.server_of(directory)
        check(source_of(directory) == f"/dev/fd/{file.fileno()}", f"the source reads as {source_of(directory)}")
        scratch.umount(directory)
    mounting.clean(scratch.path("renamed"))
    print("an open descriptor: mounted, written", flush=True)


def block_device(scratch):
    image = scratch.image("on a device", "64M", "-t", "ext4", "-b", "4096")
    result = run("losetup", "-f", "--show", image, accept=range(256))
    if result.returncode != 0:
        mounting.skip(f"there are no loop devices: {result.stdout.strip()}")
    device = result.stdout.strip()
    try:
        use(scratch, device, "a block device")
        directory = scratch.mount(device)
        refused(scratch, device, "a device that is mounted here")
        # It is no mount of the kernel's drivers, and not told as one.
        told = run(scratch.program, "ls", "--wait", "0", image, accept=(2,)).stdout
        check(f"mounted for writing on {directory} through {device}" in told and "kernel" not in told, f"the file behind: {told}")
        result = run("mount", "-t", "ext4", device, scratch.path("mnt"), accept=range(256))
        check(result.returncode != 0, "the kernel mounts a device that is in use")
        scratch.umount(directory)
    finally:
        run("losetup", "-d", device)
    mounting.clean(image)


def beside_the_kernel(scratch):
    """Of a disk the kernel has one partition mounted: the other one is free."""
    disk, starts = disk_of(scratch, "gpt")
    there = scratch.path("the kernel's")
    there.mkdir(exist_ok=True)
    length = starts[2] - starts[1]
    for what, option in (("a stretch of the disk", ("-o", str(starts[1]), "--sizelimit", str(length))),
                         ("a device of partitions", ("-P",))):
        result = run("losetup", "-f", "--show", *option, disk, accept=range(256))
        if result.returncode != 0:
            print(f"beside the kernel: left out, there are no loop devices: {result.stdout.strip()}")
            return
        device = result.stdout.strip()
        try:
            part = f"{device}p2" if option == ("-P",) else device
            if not os.path.exists(part):
                print(f"{what}: left out, there is no {part}")
                continue
            run("mount", "-t", "ext4", part, there)
            try:
                refused(scratch, f"{disk}@2", f"the partition, with {what}")
                refused(scratch, disk, f"the partition by its offset, with {what}", "-o", f"offset={starts[1]}")
                use(scratch, f"{disk}@3", f"another partition, with {what}", source=str(disk).replace(" ", "\\040") + "@3")
                told = run(scratch.program, "ls", f"{disk}@2:/").stdout
                check(f"mounted for writing on {there} through {part}" in told, told)
                check("mounted" not in run(scratch.program, "ls", f"{disk}@3:/").stdout, "a warning for another partition")
            finally:
                run("umount", there)
        finally:
            run("losetup", "-d", device)
        checked_part(scratch, disk, starts[2])
    print("partitions beside one that the kernel has", flush=True)


class Loop:
    """A loop device over a file or another device; None where there are none."""

    def __init__(self, source, *options):
        self.source, self.options = source, options

    def __enter__(self):
        result = run("losetup", "-f", "--show", *self.options, self.source, accept=range(256))
        self.device = result.stdout.strip() if result.returncode == 0 else None
        return self.device

    def __exit__(self, *unused):
        if self.device:
            run("losetup", "-d", self.device)


def partition_node(scratch, device, number, start, length):
    """The node of a loop device's partition, made where nothing on this machine finds partitions; None where none can be."""
    node = f"{device}p{number}"
    if os.path.exists(node):
        return node
    told = pathlib.Path("/sys/block", os.path.basename(device), os.path.basename(node), "dev")
    if not told.exists():
        run("addpart", device, number, start // SECTOR, length // SECTOR, accept=range(256))
    if not told.exists():
        print(f"partitions of {device}: left out, they cannot be made")
        return None
    node = scratch.path(f"p{number}")
    node.unlink(missing_ok=True)
    os.mknod(node, 0o600 | stat.S_IFBLK, os.makedev(*map(int, told.read_text().split(":"))))
    return node


def changes_refused(scratch, image, where, through, what):
    """The verbs that write as well as the mount; who reads is told."""
    refused(scratch, image, what)
    result = run(scratch.program, "mkdir", "--wait", "0", f"{image}:/written", accept=(2,))
    check(f"mounted on {where} through {through}" in result.stdout, f"{what}: {result.stdout}")
    told = run(scratch.program, "ls", image).stdout
    check(f"mounted for writing on {where} through {through}" in told, f"a reader, {what}: {told}")


def through_another_device(scratch):
    """Two devices show one file: what the kernel has mounted of it through one is not written through the other."""
    image = scratch.image("shown twice", "64M", "-t", "ext4", "-b", "4096")
    there = scratch.path("the kernel's")
    there.mkdir(exist_ok=True)
    with Loop(image) as one, Loop(image) as other, Loop(one) as above, Loop(above) as high:
        if not high:
            print("two devices of a file: left out, there are no loop devices")
            return
        run("mount", "-t", "ext4", one, there)
        try:
            changes_refused(scratch, other, there, one, "mounted through another device")
            changes_refused(scratch, above, there, one, "mounted, and a device over its device")
            changes_refused(scratch, high, there, one, "mounted, and a device over a device over its device")
            fd = os.open(other, os.O_RDWR)
            try:
                result = run(scratch.program, "mkdir", "--wait", "0", f"/dev/fd/{fd}:/written", pass_fds=(fd,), accept=(2,))
            finally:
                os.close(fd)
            check(f"mounted on {there} through {one}" in result.stdout, f"a descriptor of another device: {result.stdout}")
            check(not (there / "written").exists(), "it was written")
        finally:
            run("umount", there)
        # The mount lies two devices higher than what is to be written.
        run("mount", "-t", "ext4", high, there)
        try:
            for lower, what in ((image, "the file"), (one, "the lowest device"), (other, "another device"),
                                (above, "the device below")):
                changes_refused(scratch, lower, there, high, f"mounted two devices higher: {what}")
        finally:
            run("umount", there)
        use(scratch, other, "one of two devices that nobody has mounted")
    mounting.clean(image)

    disk, starts = disk_of(scratch, "gpt")
    with Loop(disk, "-o", str(starts[1]), "--sizelimit", str(starts[2] - starts[1])) as part, Loop(disk) as whole, \
            Loop(disk, "-P") as divided, Loop(whole, "-o", str(starts[1])) as rest:
        second, third = (partition_node(scratch, divided, n, starts[n - 1], starts[2] - starts[1]) for n in (2, 3))
        run("mount", "-t", "ext4", part, there)
        try:
            changes_refused(scratch, f"{whole}@2", there, part, "a partition, mounted by its offset")
            changes_refused(scratch, rest, there, part, "an offset of another device, mounted by its offset")
            refused(scratch, whole, "a partition by its offset, mounted by its offset", "-o", f"offset={starts[1]}")
            use(scratch, f"{whole}@3", "another partition, through another device")
            check("mounted" not in run(scratch.program, "ls", f"{whole}@3:/").stdout, "a warning for another partition")
            if second:
                changes_refused(scratch, second, there, part, "a partition's device, mounted by its offset")
                use(scratch, third, "another partition's device")
        finally:
            run("umount", there)
        if second:
            through = f"{divided}p2"
            run("mount", "-t", "ext4", second, there)
            try:
                changes_refused(scratch, part, there, through, "a stretch that is mounted as a partition")
                changes_refused(scratch, f"{whole}@2", there, through, "a partition that is mounted as a device")
                use(scratch, f"{whole}@3", "another partition, beside one that is mounted as a device")
            finally:
                run("umount", there)
            with Loop(second) as above:
                run("mount", "-t", "ext4", above, there)
                try:
                    changes_refused(scratch, second, there, above, "a partition, mounted through a device over it")
                    changes_refused(scratch, part, there, above, "a stretch, mounted through a device over a partition")
                    changes_refused(scratch, f"{whole}@2", there, above, "a partition by its number, and a device over it")
                    use(scratch, third, "another partition's device, beside one with a device over it")
                finally:
                    run("umount", there)
    for start in starts[1:]:
        checked_part(scratch, disk, start)
    print("mounted through one device, and another shows the same: refused")


def refused(scratch, image, what, *options):
    other = scratch.path("refused")
    other.mkdir(exist_ok=True)
    result = run(scratch.program, "mount", "--wait", "0", *options, image, other, accept=(2,))
    check(not mounting.is_mounted(other), f"{what}: mounted all the same")
    check(any(word in result.stdout for word in ("in use", "mounted", "has it open", "has the device open")),
          f"{what}: {result.stdout}")


def in_use(scratch):
    image = scratch.image("in use", "64M", "-t", "ext4", "-b", "4096")
    directory = scratch.mount(image)
    refused(scratch, image, "a second mount")
    refused(scratch, image, "a second mount, read-only", "-o", "ro")
    for verb in (("ls", image), ("mkdir", f"{image}:/x"), ("replay", image), ("check", image)):
        result = run(scratch.program, verb[0], "--wait", "0", *verb[1:], accept=(2,))
        check("use" in result.stdout or "mounted" in result.stdout, f"{verb}: {result.stdout}")
    scratch.umount(directory)
    # Readers share.
    directory = scratch.mount(image, options="ro")
    second = scratch.mount(image, "second", options="ro")
    run(scratch.program, "ls", image)
    run(scratch.program, "mkdir", "--wait", "0", f"{image}:/x", accept=(2,))
    refused(scratch, image, "a writer beside readers")
    scratch.umount(second)
    scratch.umount(directory)
    run(scratch.program, "mkdir", f"{image}:/x")
    directory = scratch.kernel_mount(image)
    refused(scratch, image, "an image that the kernel has mounted")
    run(scratch.program, "mkdir", f"{image}:/y", accept=(2,))
    told = run(scratch.program, "ls", image).stdout
    check(f"mounted for writing on {directory} through /dev/loop" in told, f"a reader of what the kernel writes: {told}")
    scratch.kernel_umount(directory)
    directory = scratch.kernel_mount(image, options="ro")
    told = run(scratch.program, "ls", image).stdout
    check("mounted" not in told, f"a reader of what nobody writes: {told}")
    scratch.kernel_umount(directory)
    mounting.clean(image)
    print("images in use: refused; readers share", flush=True)


def mmp_block(image):
    told = run("dumpe2fs", "-h", image).stdout.splitlines()
    return int(next(line for line in told if "MMP block number" in line).split(":")[1])


def leave(scratch, directory):
    """Unmounts what another host has taken, and waits for the end of the server."""
    pid = scratch.servers.pop(directory)
    run("umount", directory)
    limit = time.monotonic() + 20
    while os.path.exists(f"/proc/{pid}"):
        check(time.monotonic() < limit, f"the server {pid} lives on")
        time.sleep(0.1)


def multiple_mount_protection(scratch):
    """An image with mmp says that it is in use, and goes on saying so."""
    image = scratch.image("mmp", "64M", "-t", "ext4", "-b", "4096", "-O", "mmp", "-E", "mmp_update_interval=1")
    directory = scratch.mount(image)
    block = mmp_block(image)

    def sequence():
        with open(image, "rb") as file:
            file.seek(block * 4096 + 4)
            return int.from_bytes(file.read(4), "little")

    first = sequence()
    check(first not in (0xFF4D4D50, 0xE24D4D50), f"mmp says that nobody uses it: {first:#x}")
    limit = time.monotonic() + 20
    while sequence() == first:
        check(time.monotonic() < limit, "mmp is not kept alive")
        time.sleep(0.1)
    scratch.umount(directory)
    check(sequence() == 0xFF4D4D50, f"mmp is not released: {sequence():#x}")
    mounting.clean(image)
    print("mmp: kept alive and released", flush=True)


def frozen(scratch):
    """A frozen image does not change, mmp's block included; if another host takes it meanwhile, the thaw says so."""
    image = scratch.image("frozen", "64M", "-t", "ext4", "-b", "4096", "-O", "mmp,^metadata_csum", "-E", "mmp_update_interval=1")
    directory = scratch.mount(image)
    (directory / "before").write_bytes(b"before")
    block = mmp_block(image)
    run(scratch.program, "freeze", directory)
    before = image.read_bytes()
    time.sleep(6)  # it is kept alive every two seconds
    check(image.read_bytes() == before, "the image changes while it is frozen")
    run(scratch.program, "thaw", directory)
    limit = time.monotonic() + 20
    at = slice(block * 4096, block * 4096 + 4096)
    while image.read_bytes()[at] == before[at]:
        check(time.monotonic() < limit, "mmp is not kept alive after the thaw")
        time.sleep(0.1)
    run(scratch.program, "freeze", directory)
    with open(image, "r+b") as file:
        file.seek(block * 4096 + 4)
        file.write((0x12345).to_bytes(4, "little"))
    taken = image.read_bytes()
    told = run(scratch.program, "thaw", directory, accept=(1, 2)).stdout
    check("another host" in told, f"thaw: {told}")
    try:
        os.mkdir(directory / "after")
        raise mounting.Failure("a directory is made in a file system that another host has")
    except OSError as error:
        check(error.errno == errno.EROFS, f"mkdir after the takeover: {error}")
    leave(scratch, directory)
    check(image.read_bytes() == taken, "the image is written after it was taken over")
    print("mmp: still while frozen, and looked at by the thaw", flush=True)


def taken_over(scratch):
    """Another host takes the file system: nothing more is written, not even to the block that says so."""
    image = scratch.image("taken", "64M", "-t", "ext4", "-b", "4096", "-O", "mmp,^metadata_csum", "-E", "mmp_update_interval=1")
    directory = scratch.mount(image, options="errors=continue")
    (directory / "before").write_bytes(b"before")
    fd = os.open(directory, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    block = mmp_block(image)
    with open(image, "r+b") as file:
        file.seek(block * 4096 + 4)
        file.write((0x12345).to_bytes(4, "little"))
        file.seek(block * 4096 + 16)
        file.write(b"other" + bytes(59))
    (directory / "dirty").write_bytes(bytes(100000))
    limit = time.monotonic() + 30
    while True:
        try:
            os.mkdir(directory / f"d{time.monotonic()}")
        except OSError as error:
            check(error.errno == errno.EROFS, f"mkdir after the takeover: {error}")
            break
        check(time.monotonic() < limit, "the takeover is not noticed")
        time.sleep(0.2)

    def digest():
        with open(image, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()

    before = digest()
    time.sleep(4)
    check(digest() == before, "the image is written after it was taken over")
    leave(scratch, directory)
    check(digest() == before, "the image is written by the unmount after it was taken over")
    print("mmp: taken over, nothing is written", flush=True)


def test(scratch):
    taken_over(scratch)
    frozen(scratch)
    mounting.need("sfdisk", "losetup", "dd", "dumpe2fs")
    use(scratch, scratch.image("image", "64M", "-t", "ext4", "-b", "4096"), "a file")
    partitions(scratch)
    large_sectors(scratch)
    beside_the_kernel(scratch)
    through_another_device(scratch)
    descriptor(scratch)
    block_device(scratch)
    in_use(scratch)
    multiple_mount_protection(scratch)


if __name__ == "__main__":
    mounting.main(test)
