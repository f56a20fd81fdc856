#!/usr/bin/env python3
"""A mount that is frozen: the image is clean, changes wait for the thaw, what makes durable does not, and it does not nest.

Usage: freeze_test.py PROGRAM
"""

import os
import subprocess
import sys
import time

import mounting
from mounting import check

PATIENCE = 20  # seconds for what should take a fraction of one

# In a process of its own: a call that waits in the kernel can only be killed.
SYNC = """
import ctypes, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
if sys.argv[2] == "syncfs":
    sys.exit(0 if ctypes.CDLL(None).syncfs(fd) == 0 else 1)
os.fsync(fd)
"""


class Frozen:
    """A mount, frozen; thawed at the latest when this is left. What waits for the thaw in the kernel ends only then."""

    def __init__(self, scratch, directory):
        self.program, self.directory, self.calls, self.frozen = scratch.program, directory, [], True
        mounting.run(self.program, "freeze", directory)

    def __enter__(self):
        return self

    def start(self, *command):
        self.calls.append(subprocess.Popen([str(word) for word in command]))
        return self.calls[-1]

    def ends(self, call, path):
        started = self.start(sys.executable, "-c", SYNC, path, call)
        try:
            check(started.wait(PATIENCE) == 0, f"{call} of {path} fails")
        except subprocess.TimeoutExpired as late:
            raise mounting.Failure(f"{call} of {path} waits for the thaw") from late

    def thaw(self):
        self.frozen = False
        mounting.run(self.program, "thaw", self.directory)

    def __exit__(self, *unused):
        if self.frozen:
            self.thaw()
        for call in self.calls:
            call.wait()


def stops_changes(scratch, options):
    image = scratch.image("image", "64M", "-t", "ext4", "-b", "4096")
    directory = scratch.mount(image, options=options)
    (directory / "file").write_bytes(b"before" * 1000)
    with Frozen(scratch, directory) as frozen:
        told = mounting.run(scratch.program, "freeze", directory, accept=(1,)).stdout
        check("frozen already" in told, f"a second freeze: {told}")
        mounting.clean(mounting.copy_image(image, scratch.path("copy")))
        before = image.read_bytes()
        check((directory / "file").read_bytes() == b"before" * 1000, "a frozen file is not read")
        frozen.ends("fsync", directory / "file")
        frozen.ends("fsync", directory)
        frozen.ends("syncfs", directory / "file")
        check(image.read_bytes() == before, "the image changed while it was frozen")
        change = frozen.start("mkdir", directory / "made")
        time.sleep(0.3)
        check(change.poll() is None, "a change did not wait for the thaw")
        frozen.thaw()
        check(change.wait(PATIENCE) == 0 and os.path.isdir(directory / "made"), "what waited for the thaw failed")
    told = mounting.run(scratch.program, "thaw", directory, accept=(1,)).stdout
    check("not frozen" in told, f"a second thaw: {told}")
    scratch.umount(directory)
    mounting.clean(image)
    print(f"{options or 'default'}: frozen and thawed", flush=True)


def test(scratch):
    for options in ("", "data=journal", "strictatime"):
        stops_changes(scratch, options)


if __name__ == "__main__":
    mounting.main(test)
