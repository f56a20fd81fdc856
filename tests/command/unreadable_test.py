#!/usr/bin/env python3
"""A source that cannot be read leaves what it would have replaced as it was, and nothing where nothing was.

Judged by e2fsck. Usage: unreadable_test.py PROGRAM
"""

import os
import re
import subprocess

from verbs import FINE, IMPOSSIBLE, Verbs, check, mounting

PRECIOUS = "precious"
# The first two are files, the last one is a link: a damaged extent tree, an encrypted file, a damaged target.
SOURCES = ("damaged", "encrypted", "link")
MODES = ((), ("-r",), ("-a",))


def debugfs(image, *requests):
    for request in requests:
        subprocess.run(["debugfs", "-w", "-R", request, str(image)], capture_output=True, check=True)


def sources(scratch):
    """In / and in /t: what cannot be read, and beside it what can."""
    verbs = Verbs(scratch, scratch.image("sources", "16M", "-t", "ext4", "-O", "^metadata_csum", "-b", "1024"))
    verbs("mkdir", ":/t")
    for folder in ("", "/t"):
        for name in ("damaged", "encrypted", "sound"):
            verbs("cp", "/etc/hostname", f":{folder}/{name}")
        verbs("ln", "-s", "x" * 100, f":{folder}/link")
    for folder in ("", "/t"):
        debugfs(verbs.image, f"sif {folder}/damaged block[0] 0", f"sif {folder}/link block[0] 0",
                f"sif {folder}/encrypted flags 0x80800")
    return verbs


def fails(verbs, *words, says):
    """Damage is told before the verb says what it could not do."""
    command = [str(verbs.program), *(f"{verbs.image}{w}" if str(w).startswith(":") else str(w) for w in words)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    check(ran.returncode == IMPOSSIBLE and re.search(f"^uext4 cp: {re.escape(says)}", ran.stderr, re.M),
          f"{command}: {ran}, does not say {says!r}")


class Host:
    """Where copies go: a folder of the host."""

    def __init__(self, scratch, verbs):
        self.folder, self.verbs = scratch.path("destination"), verbs
        self.folder.mkdir()

    def word(self, name):
        return self.folder / name

    def prepare(self, name, links=1):
        self.word(name).parent.mkdir(exist_ok=True)
        self.word(name).write_text(PRECIOUS)
        for number in range(1, links):
            os.link(self.word(name), self.word(f"{name} {number}"))

    def read(self, name):
        return self.word(name).read_text() if os.path.lexists(self.word(name)) else None

    def links(self, name):
        return self.word(name).stat().st_nlink

    def clear(self):
        mounting.run("rm", "-r", self.folder)
        self.folder.mkdir()


class Image:
    """Where copies go: a folder of an image, another one or the same."""

    def __init__(self, scratch, verbs):
        self.verbs, self.text = verbs, scratch.path("text")
        self.text.write_text(PRECIOUS)
        verbs("mkdir", ":/destination")

    def word(self, name):
        return f"{self.verbs.image}:/destination/{name}"

    def prepare(self, name, links=1):
        self.verbs("mkdir", "-p", os.path.dirname(self.word(name)))
        self.verbs("cp", self.text, self.word(name))
        for number in range(1, links):
            self.verbs("ln", self.word(name), self.word(f"{name} {number}"))

    def read(self, name):
        parent, last = os.path.split(f"/destination/{name}")
        return self.verbs("cat", f":{parent}/{last}") if last in self.verbs("ls", f":{parent}").splitlines() else None

    def links(self, name):
        return self.verbs.status(f"/destination/{name}")["links"]

    def clear(self):
        self.verbs("rm", "-r", ":/destination")
        self.verbs("mkdir", ":/destination")


def named(source, to):
    for mode in MODES:
        for name in SOURCES:
            if name == "link" and not mode:
                continue  # followed
            for links in (1, 2):
                to.prepare("old", links)
                fails(source, "cp", *mode, f":/{name}", to.word("old"), says=f"{source.image}:/{name}: ")
                check(to.read("old") == PRECIOUS, f"cp {mode} of {name} to {to.word('old')}: {to.read('old')!r}")
                check(to.links("old") == links, f"cp {mode} of {name}: {to.links('old')} names, not {links}")
                to.clear()
            fails(source, "cp", *mode, f":/{name}", to.word("new"), says=f"{source.image}:/{name}: ")
            check(to.read("new") is None, f"cp {mode} of {name} to {to.word('new')} leaves {to.read('new')!r}")


def trees(source, to):
    hostname = source("cat", ":/sound")
    for mode in MODES[1:]:
        for name in (*SOURCES, "sound"):
            to.prepare(f"t/{name}")
        fails(source, "cp", *mode, ":/t/.", to.word("t"), says=f"{source.image}:/t/./link: ")
        fails(source, "cp", *mode, ":/t", to.word("new"), says=f"{source.image}:/t/damaged: ")
        for name in SOURCES:
            check(to.read(f"t/{name}") == PRECIOUS, f"cp {mode} of a tree: {name} is {to.read(f't/{name}')!r}")
            check(to.read(f"new/{name}") is None, f"cp {mode} of a tree leaves {name}: {to.read(f'new/{name}')!r}")
        for name in ("t/sound", "new/sound"):
            check(to.read(name) == hostname, f"cp {mode} of a tree: {name} is {to.read(name)!r}")
        to.clear()


def of_the_host(to):
    """Opening this file is fine; reading it is not."""
    for mode in ((), ("--mode", "600")):
        for place, number in ((to.word("old"), None), (None, True)):
            to.prepare("old")
            if number:
                place = f"{to.verbs.image}:<{to.verbs.status('/destination/old')['inode']}>"
            fails(to.verbs, "cp", *mode, "/proc/self/mem", place, says="/proc/self/mem: ")
            check(to.read("old") == PRECIOUS, f"a file of the host that cannot be read: {to.read('old')!r}")
        fails(to.verbs, "cp", *mode, "/proc/self/mem", to.word("new"), says="/proc/self/mem: ")
        check(to.read("new") is None, f"a file of the host that cannot be read leaves {to.read('new')!r}")
        to.clear()


def partly(scratch, source, places):
    """What fails behind the first part stays as far as it was written, as with cp(1)."""
    pieces = scratch.path("pieces")
    with open(pieces, "wb") as file:
        for number in range(200):
            file.seek(number * 8192)
            file.write(b"%03d" % number * 341)
    source("cp", pieces, ":/pieces")
    told = subprocess.run(["debugfs", "-R", "ex /pieces", str(source.image)], capture_output=True, text=True, check=True)
    leaves = [int(block) for block in re.findall(r"^ *0/ *1 +\d+/ *\d+ +\d+ - +\d+ +(\d+) ", told.stdout, re.M)]
    check(len(leaves) > 2, f"few leaves: {told.stdout}")
    with open(source.image, "r+b") as file:
        file.seek(leaves[-1] * 1024)
        file.write(bytes(1024))
    expected = pieces.read_bytes()
    for to in places:
        for mode in MODES:
            to.prepare("old")
            fails(source, "cp", *mode, ":/pieces", to.word("old"), says=f"{source.image}:/pieces: ")
            found = to.read("old").encode()
            check(len(found) > 8192 and expected.startswith(found), f"cp {mode}: {len(found)} bytes, {found[:20]!r}")
            to.clear()


def pipes(scratch, source):
    """Holes are zeros in a pipe, wherever the first data lies."""
    for name, start, end in (("behind a hole", 3 << 20, 5 << 20), ("a hole", None, 70_000), ("before one", 0, 1 << 20)):
        file = scratch.path(name)
        with open(file, "wb") as out:
            if start is not None:
                out.seek(start)
                out.write(b"data")
            out.truncate(end)
        source("cp", file, f":/{name}")
        ran = subprocess.run([source.program, "cp", f"{source.image}:/{name}", "/dev/stdout"], capture_output=True, check=False)
        check(ran.returncode == FINE and ran.stdout == file.read_bytes(), f"{name}: {len(ran.stdout)} bytes of {end}")
        mounting.run("cp", "--sparse=never", file, scratch.path("filled"))
        out = scratch.path("holes")
        source("cp", f":/{name}", out)
        check(out.read_bytes() == file.read_bytes(), f"{name} to a file")
        check(out.stat().st_blocks < 64, f"{name}: {out.stat().st_blocks} sectors")


def test(scratch):
    mounting.need("mke2fs", "e2fsck", "debugfs")
    source = sources(scratch)
    other = Image(scratch, Verbs(scratch, scratch.image("other", "16M", "-t", "ext4")))
    places = (Host(scratch, source), other, Image(scratch, source))
    for to in places:
        named(source, to)
        trees(source, to)
    of_the_host(other)
    partly(scratch, source, places)
    pipes(scratch, source)
    mounting.clean(other.verbs.image)


if __name__ == "__main__":
    mounting.main(test)
