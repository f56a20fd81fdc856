#!/usr/bin/env python3
"""What the kernel finds in a log that we left, it can go on from, wherever the log ended.

With the feature fast_commit the kernel sets the log's end apart for its own use, once it has recovered what is there.

Usage: kernel_goes_on_test.py PROGRAM
"""

import os
import pathlib
import struct
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "mount"))
import mounting  # noqa: E402
from mounting import check  # noqa: E402

BLOCK = 1024
JBD_MAGIC, COMMIT = 0xC03B3998, 2
NEAR = 100  # blocks from the log's end: with what is set apart there, or without
CUTS = 2


class Log:
    """The log of an image, read while it is in use."""

    def __init__(self, image):
        told = mounting.run("debugfs", "-R", "blocks <8>", image).stdout.splitlines()[-1].split()
        self.blocks = [int(word) for word in told]
        self.image = image
        with open(image, "rb") as file:
            file.seek(self.blocks[0] * BLOCK)
            self.length = struct.unpack(">I", file.read(20)[16:20])[0]
        self.newest = 0

    def ends_near_the_end(self):
        """Whether a commit has come since this was asked that ends in the last blocks of the log."""
        newest = self.newest
        with open(self.image, "rb") as file:
            for at in range(self.length - NEAR, self.length):
                file.seek(self.blocks[at] * BLOCK)
                magic, kind, sequence = struct.unpack(">III", file.read(12))
                if magic == JBD_MAGIC and kind == COMMIT:
                    newest = max(newest, sequence)
        came = newest > self.newest
        self.newest = newest
        return came


def cuts(scratch, image):
    """Copies of the image, as a power cut would leave it when the log is about to begin at its start again."""
    top = scratch.mount(image)
    log = Log(image)
    found, last = [], None
    fd = os.open(top / "synced", os.O_RDWR | os.O_CREAT)
    for turn in range(CUTS * log.length):
        os.pwrite(fd, b"%08d" % turn * 100, turn % 4000 * 800)
        (top / f"name {turn % 500}").touch()
        os.fsync(fd)
        if log.ends_near_the_end():
            last = (mounting.copy_image(image, scratch.path(f"cut {len(found)}")), turn + 1)
        elif last:
            found.append(last)
            last = None
            if len(found) == CUTS:
                break
    os.close(fd)
    scratch.umount(top)
    check(len(found) == CUTS, f"the log came to its end only {len(found)} times")
    return found


def goes_on(scratch, image, written):
    top = scratch.kernel_mount(image)
    content = (top / "synced").read_bytes()
    for turn in range(max(0, written - 4000), written):
        at = turn % 4000 * 800
        check(content[at:at + 800] == b"%08d" % turn * 100, f"what was synced at turn {turn} of {written} is not there")
    # Once around the log and more.
    for turn in range(60):
        folder = top / f"folder {turn}"
        try:
            folder.mkdir()
            (folder / "file").write_bytes(os.urandom(100_000))
        except OSError as error:
            raise mounting.Failure(f"the kernel cannot go on at turn {turn}: {error}") from None
        mounting.run("sync", "-f", top)
    options = next(line.split()[3] for line in open("/proc/self/mounts", encoding="utf-8") if line.split()[1] == str(top))
    check("rw" in options.split(","), f"the kernel has made it read-only: {options}")
    scratch.kernel_umount(top)
    mounting.clean(image)


def test(scratch):
    probe = subprocess.run(["mke2fs", "-q", "-F", "-O", "fast_commit", scratch.path("probe"), "16M"],
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if probe.returncode != 0:
        mounting.skip(f"mke2fs knows no fast_commit: {probe.stdout.strip()}")
    image = scratch.image("image", "64M", "-t", "ext4", "-b", str(BLOCK), "-O", "fast_commit", "-J", "size=4")
    for copy, written in cuts(scratch, image):
        goes_on(scratch, copy, written)


if __name__ == "__main__":
    mounting.main(test)
