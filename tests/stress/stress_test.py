#!/usr/bin/env python3
"""Many workers make, link, move and remove names in the same directories at once, over formats and modes.

In the library they are threads, on a mount processes. Most names belong to one worker, which knows each answer beforehand;
others are changed by all, and some order of what was done has to explain every answer. A round ends with all of it
compared with the models, by the workers and then from outside: on the mount, after a new one, and on the kernel's mount;
with e2fsck and our check. The next round begins with all workers removing the last one's tree.

Usage: stress_test.py PROGRAM STRESS library|mount. UEXT4_OPERATIONS for each cell, UEXT4_SEED, UEXT4_CELL (a part of a cell's
name); UEXT4_LONG=1 runs many more.
"""

import hashlib
import os
import pathlib
import shutil
import stat
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "mount"))
import mounting  # noqa: E402  (lies in the folder beside)
from mounting import check  # noqa: E402

EXT4 = ("-t", "ext4")
CELLS = {
    # name: options of mke2fs, of the mount, of the stress
    "4k": ((*EXT4, "-b", "4096"), "", ()),
    "1k": ((*EXT4, "-b", "1024"), "", ()),
    "inline": ((*EXT4, "-b", "4096", "-O", "inline_data"), "", ()),
    "^extents": ((*EXT4, "-b", "4096", "-O", "^extents,^64bit"), "", ()),
    # Four names to a block and 120 blocks to the top of the tree: it has two levels.
    "large_dir 1k": ((*EXT4, "-b", "1024", "-O", "large_dir"), "", ("--stable", "700", "--name-length", "230")),
    "journal": ((*EXT4, "-b", "4096"), "data=journal", ()),
    "^has_journal": ((*EXT4, "-b", "4096", "-O", "^has_journal"), "", ()),
}
OPERATIONS = 6400
ROUND = 32000  # operations at most, of all workers
WORKERS = 16
LIMIT = 1200  # seconds for a round: one that takes longer hangs


def described(path, status):
    """What a tree has of one name that does not depend on the mount."""
    return {"mode": oct(status.st_mode), "links": status.st_nlink, "size": None if stat.S_ISDIR(status.st_mode) else status.st_size,
            "device": status.st_rdev, "content": mounting.content_of(path, status),
            "xattrs": sorted((key, os.getxattr(path, key, follow_symlinks=False).hex())
                             for key in os.listxattr(path, follow_symlinks=False))}


def found_below(root, base):
    """The tree by path, and the names of each inode that has several."""
    found, names = {}, {}
    for folder, directories, files in os.walk(os.path.join(root, base)):
        for name in directories + files:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            relative = os.path.relpath(path, root)
            found[relative] = described(path, status)
            if not stat.S_ISDIR(status.st_mode):
                names.setdefault(status.st_ino, []).append(relative)
    return found, sorted(sorted(same) for same in names.values())


class Model:
    """What the workers wrote down: each name and what it is, and which names are one object."""

    def __init__(self, folder, base, arguments):
        self.folder, self.base = folder, base
        self.tree, objects = {}, {}
        stable = int(arguments[arguments.index("--stable") + 1]) if "--stable" in arguments else 150
        length = int(arguments[arguments.index("--name-length") + 1]) if "--name-length" in arguments else 0
        for directory in ("d0", "d1", "d2"):
            for number in range(stable):
                path = f"{base}/{directory}/" + f"s{number:04}".ljust(length, "-")
                self.tree[path] = {"mode": oct(stat.S_IFREG | 0o644), "links": 1, "size": 0, "device": 0,
                                   "content": hashlib.sha1(b"").hexdigest(), "xattrs": []}
                objects[path] = [path]
        for written in sorted(folder.iterdir()):
            if "." not in written.name:
                for line in written.read_text().splitlines():
                    path, what, identity = self.parse(line)
                    self.tree[path] = what
                    if not stat.S_ISDIR(int(what["mode"], 8)):
                        objects.setdefault(identity, []).append(path)
        self.objects = sorted(sorted(same) for same in objects.values())
        directories = ["t", "d0", "d1", "d2"] + [f"k{cluster}{letter}" for cluster in range(3) for letter in "ab"]
        for name in directories:
            path = f"{base}/{name}"
            below = sum(1 for inner, what in self.tree.items()
                        if os.path.dirname(inner) == path and stat.S_ISDIR(int(what["mode"], 8)))
            self.tree[path] = {"mode": oct(stat.S_IFDIR | 0o755), "links": 2 + below, "size": None, "device": 0, "content": "",
                               "xattrs": []}

    @staticmethod
    def parse(line):
        path, mode, links, device, identity, *attributes = line.split("\t")
        kind, bytes_ = stat.S_IFMT(int(mode, 8)), pathlib.Path(identity).read_bytes()
        content = hashlib.sha1(bytes_).hexdigest() if kind == stat.S_IFREG else os.fsdecode(bytes_)
        return path, {"mode": oct(int(mode, 8)), "links": int(links), "size": None if kind == stat.S_IFDIR else len(bytes_),
                      "device": int(device), "content": content,
                      "xattrs": sorted(tuple(one.split("=")) for one in attributes)}, identity

    def compare(self, root, what):
        tree, objects = found_below(root, self.base)
        mounting.same_tree(self.tree, tree, what)
        check(objects == self.objects, f"{what}: other names are one file")


class Cell:
    def __init__(self, scratch, door, name, operations, seed):
        self.scratch, self.door, self.name, self.operations, self.seed = scratch, door, name, operations, seed
        options, self.mount_options, self.arguments = CELLS[name]
        self.image = scratch.image("image", "256M", "-N", "32768", *options)
        self.model = scratch.path("model")

    def __str__(self):
        return f"{self.door}, {self.name}"

    def stress(self, number, operations, *where):
        shutil.rmtree(self.model, ignore_errors=True)
        self.model.mkdir()
        command = [sys.argv[2], *where, "--model", self.model, "--workers", WORKERS, "--operations", -(-operations // WORKERS),
                   "--seed", self.seed + number, "--round", number, *self.arguments]
        if number > 0:
            command += ["--remove", f"r{number - 1}"]
        try:
            done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                  errors="replace", check=False, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            raise mounting.Failure(f"{self}, round {number}, seed {self.seed}: hangs") from None
        check(done.returncode == 0, f"{self}, round {number}, seed {self.seed}: status {done.returncode}\n{done.stdout[:20000]}")
        print(f"{self}: {done.stdout.strip()}", flush=True)
        return Model(self.model, f"r{number}", self.arguments)

    def round(self, number, operations):
        if self.door == "library":
            model = self.stress(number, operations, "--image", self.image, "--options", self.mount_options or "rw")
        else:
            directory = self.scratch.mount(self.image, options=self.mount_options)
            model = self.stress(number, operations, "--directory", directory)
            model.compare(directory, f"{self}, on the mount")
            self.scratch.umount(directory)
        mounting.clean(self.image)
        mounting.run(self.scratch.program, "check", self.image)
        self.look_again(model)

    def look_again(self, model):
        if os.path.exists("/dev/fuse") and os.geteuid() == 0:
            directory = self.scratch.mount(self.image, options="ro")
            model.compare(directory, f"{self}, mounted again")
            self.scratch.umount(directory)
        if os.path.exists("/dev/loop-control") and os.geteuid() == 0:
            directory = self.scratch.kernel_mount(self.image, options="ro")
            model.compare(directory, f"{self}, on the kernel's mount")
            self.scratch.kernel_umount(directory)

    def run(self):
        number, left = 0, self.operations
        while left > 0:
            self.round(number, min(left, ROUND))
            left -= ROUND
            number += 1


def test(scratch):
    door = sys.argv[3]
    if door == "mount":
        mounting.need_mount()
    operations = int(os.environ.get("UEXT4_OPERATIONS", 200_000 if mounting.is_long() else OPERATIONS))
    seed = int(os.environ.get("UEXT4_SEED", 1))
    for name in CELLS:
        if os.environ.get("UEXT4_CELL", "") in name:
            Cell(scratch, door, name, operations, seed).run()


mounting.main(test)
