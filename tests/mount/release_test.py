#!/usr/bin/env python3
"""umount(8) returns while the server still writes: whoever opens the image then waits for it.

Usage: release_test.py PROGRAM
"""

import os
import select
import signal
import subprocess

import mounting
from mounting import check

ROUNDS = 50


def umount_and_open(scratch, image):
    directory = scratch.path("mnt")
    for number in range(ROUNDS):
        scratch.mount(image)
        data = os.urandom(3 << 20)
        (directory / f"file {number % 4}").write_bytes(data)
        mounting.run("umount", "-i", directory)
        del scratch.servers[directory]
        # Readers and writers, and another mount.
        if number % 3 == 0:
            mounting.run(scratch.program, "check", image)
        elif number % 3 == 1:
            mounting.run(scratch.program, "mkdir", f"{image}:/directory {number}")
        else:
            scratch.mount(image)
            check((directory / f"file {number % 4}").read_bytes() == data, "what was written before")
            scratch.umount(directory)
    mounting.clean(image)


def umount_and_judge(scratch, image):
    """Other programs than ours know of no locks: they, too, find the image as it is when the server has released it."""
    directory = scratch.path("mnt")
    for number in range(ROUNDS):
        scratch.mount(image)
        (directory / f"file {number % 4}").write_bytes(os.urandom(3 << 20))
        (directory / f"judged {number}").mkdir()
        mounting.run("umount", "-i", directory)
        del scratch.servers[directory]
        mounting.clean(image)


def behind_a_loop_device(scratch, image):
    """What is mounted is refused through a loop device over it, also by a process that is closed in already."""
    other = scratch.image("other", "32M")
    directory = scratch.mount(image)
    made = subprocess.run(["losetup", "-f", "--show", image], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        mounting.skip(f"no loop device: {made.stderr.strip()}")
    loop = made.stdout.strip()
    try:
        for words in (("ls", f"{loop}:/"), ("mkdir", f"{loop}:/more"), ("cp", "-a", f"{loop}:/", f"{other}:/copy")):
            result = subprocess.run([scratch.program, words[0], "--wait", "0.1", *words[1:]], capture_output=True, text=True,
                                    check=False)
            check(result.returncode == 2 and "has it open" in result.stderr, f"{words}: {result}")
    finally:
        scratch.umount(directory)
        mounting.run("losetup", "-d", loop)


def stays_refused(scratch, image):
    """A mount that goes on is not waited for longer than that."""
    directory = scratch.mount(image)
    for words in (("check", image), ("mkdir", f"{image}:/more"), ("mount", image, scratch.folder / "mnt")):
        result = subprocess.run([scratch.program, words[0], "--wait", "0.1", *map(str, words[1:])], capture_output=True,
                                text=True, check=False)
        check(result.returncode == 2 and "has it open" in result.stderr, f"{words}: {result}")
    scratch.umount(directory)


def also_elsewhere(scratch, image):
    """While the mount is also elsewhere, its server stays, and who waits for it says so, once."""
    directory, other = scratch.mount(image), scratch.path("elsewhere")
    other.mkdir()
    mounting.run("mount", "--bind", directory, other)
    with subprocess.Popen([scratch.program, "umount", directory], stderr=subprocess.PIPE, text=True) as waiting:
        try:
            said = waiting.stderr.readline()
            check(f"{directory}: unmounted, but its server still serves {image}" in said, f"umount says: {said}")
            check(waiting.poll() is None and not mounting.is_mounted(directory), "umount does not wait")
        finally:
            mounting.run("umount", other)
            rest = waiting.communicate(timeout=60)[1]
    check(waiting.returncode == 0 and not rest, f"umount ends with {waiting.returncode}: {rest}")
    del scratch.servers[directory]
    mounting.clean(image)


def does_not_answer(scratch, image):
    """Whoever unmounts is told, once, that the server does not answer; once it does, all is as ever."""
    directory = scratch.mount(image)
    (directory / "late").write_bytes(os.urandom(3 << 20))
    server = scratch.servers[directory]
    os.kill(server, signal.SIGSTOP)
    with subprocess.Popen([scratch.program, "umount", directory], stderr=subprocess.PIPE, text=True) as waiting:
        try:
            ready = select.select([waiting.stderr], [], [], 60)[0]
            said = waiting.stderr.readline() if ready else ""
            check("does not answer" in said and f"umount -f {directory}" in said, f"umount says: {said}")
            check(waiting.poll() is None, "umount does not wait")
        finally:
            os.kill(server, signal.SIGCONT)
            rest = waiting.communicate(timeout=60)[1]
    check(waiting.returncode == 0 and not rest, f"umount ends with {waiting.returncode}: {rest}")
    del scratch.servers[directory]
    mounting.clean(image)


def test(scratch):
    image = scratch.image("image", "64M")
    umount_and_open(scratch, image)
    umount_and_judge(scratch, image)
    stays_refused(scratch, image)
    also_elsewhere(scratch, image)
    does_not_answer(scratch, image)
    behind_a_loop_device(scratch, image)


if __name__ == "__main__":
    mounting.main(test)
