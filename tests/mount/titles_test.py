#!/usr/bin/env python3
"""ps(1) tells the processes of a mount apart: each has a title that says what it is, of which image, and where.

Usage: titles_test.py PROGRAM
"""

import os
import subprocess

import mounting
from mounting import check
from server_test import children

ROLES = {"uext4-server": "server", "uext4-supervise": "supervisor of", "uext4-placement": "placement of",
         "uext4-awake": "waker of"}


def titles(server):
    """By process: its name and what ps shows of it."""
    processes = {server}
    for child in children(server):
        processes |= {child, *children(child)}
    listed = mounting.run("ps", "-ww", "-o", "pid=,comm=,args=", "-p", ",".join(map(str, processes))).stdout
    return {int(line.split(None, 2)[0]): tuple(line.split(None, 2)[1:]) for line in listed.splitlines()}


def titled(scratch, image, directory, words):
    server = scratch.server_of(directory)
    found = titles(server)
    wanted = {name: f"uext4: {role} {image} on {directory}" for name, role in ROLES.items()}
    if os.cpu_count() < 2:
        del wanted["uext4-placement"], wanted["uext4-awake"]
    check(dict(found.values()) == wanted and len(found) == len(wanted), f"{words}: {found}")
    check(found[server][0] == "uext4-server", f"the server {server}: {found}")


def test(scratch):
    mounting.need("ps")
    image = scratch.image("an image", "32M", "-t", "ext4")
    directory = scratch.path("a mount")
    directory.mkdir()
    for words in ((), ("-o", "nosandbox")):
        mounting.run(scratch.program, "mount", *words, image, directory)
        scratch.servers[directory] = scratch.server_of(directory)
        titled(scratch, image, directory, words)
        scratch.umount(directory)
    # The words of the command line and the environment are where the title goes: what they say stays so.
    environment = os.environ | {"UEXT4_TEST": "x" * 1000}
    subprocess.run([scratch.program, "mount", "-o", "fsname=named,subtype=kind", image, directory], env=environment, check=True)
    scratch.servers[directory] = scratch.server_of(directory)
    titled(scratch, image, directory, "with an environment")
    with open("/proc/self/mounts", encoding="utf-8") as table:
        check(any(line.startswith("named ") and " fuse.kind " in line for line in table), "the options")
    scratch.umount(directory)
    # Where there is hardly room for it, the title is cut.
    subprocess.run([scratch.program, "mount", image.name, directory.name], env={}, cwd=scratch.folder, check=True)
    scratch.servers[directory] = scratch.server_of(directory)
    found = titles(scratch.servers[directory])[scratch.servers[directory]]
    check(found[0] == "uext4-server" and found[1].startswith("uext4: server an image"), f"{found}")
    scratch.umount(directory)
    mounting.clean(image)


if __name__ == "__main__":
    mounting.main(test)
