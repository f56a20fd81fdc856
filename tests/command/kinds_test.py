#!/usr/bin/env python3
"""Copies of each kind of file over each kind of file: cp(1) on directories of the host says what is to come of it.

Into an image, out of it, and inside of one, with what -r and -a change. Judged by cp(1) and e2fsck.
Usage: kinds_test.py PROGRAM
"""

import itertools
import os
import pathlib
import shutil
import stat
import subprocess

from verbs import FINE, NO, Verbs, check, mounting, prepare

NULL = os.makedev(1, 3)
MODES = ((), ("-r",), ("-a",))
# What is called "s" and what is called "d" in the folder of a case.
SOURCES = ("file", "second name", "link", "link to a directory", "dangling", "directory", "fifo", "device")
TARGETS = ("missing", "file", "second name", "link", "link to a second name", "link to a directory", "dangling", "loop",
           "directory", "file in it", "second name in it", "link in it", "dangling in it", "directory in it", "link below",
           "link to it below", "fifo", "device", "socket")
SELVES = ("itself", "another name of it", "link to it", "its directory", "below it")


def make(folder, source, target):
    """The folder of a case, with a source and a target of these kinds."""
    os.mkdir(folder)
    make_source(folder, source)
    make_target(folder, target)


def make_source(folder, kind):
    def put(name, text):
        with open(os.path.join(folder, name), "w", encoding="ascii") as file:
            file.write(text)

    path = os.path.join(folder, "s")
    put("source", "what the source leads to")
    os.mkdir(os.path.join(folder, "sources"))
    put("sources/inner", "in a directory")
    if kind in ("file", "second name"):
        put("s", "source")
        os.chmod(path, 0o604)
    if kind == "second name":
        os.link(path, os.path.join(folder, "s2"))
    if kind == "link":
        os.symlink("source", path)
    if kind == "link to a directory":
        os.symlink("sources", path)
    if kind == "dangling":
        os.symlink("nowhere", path)
    if kind == "directory":
        os.mkdir(path, 0o750)
        put("s/x", "x")
        os.symlink("x", os.path.join(path, "y"))
        os.mkdir(os.path.join(path, "z"))
    if kind == "fifo":
        os.mkfifo(path)
    if kind == "device":
        os.mknod(path, stat.S_IFCHR | 0o600, NULL)


def make_target(folder, kind):
    def at(name):
        return os.path.join(folder, name)

    def put(name):
        with open(at(name), "w", encoding="ascii") as file:
            file.write(f"old contents of {name}, rather long")

    os.mkdir(at("directory"))
    put("directory/kept")
    put("other")
    if kind == "file":
        put("d")
    if kind in ("second name", "link to a second name"):
        put("first")
        os.link(at("first"), at("d" if kind == "second name" else "d2"))
    for name, text in (("link", "other"), ("link to a second name", "first"), ("link to a directory", "directory"),
                       ("dangling", "nothing"), ("loop", "d"), ("link to it", "s")):
        if kind == name:
            os.symlink(text, at("d"))
    if kind == "another name of it":
        os.link(at("s"), at("d"), follow_symlinks=False)
    if kind.endswith((" in it", " below")) or kind == "directory":
        os.mkdir(at("d"))
    if kind == "file in it":
        put("d/s")
    if kind == "second name in it":
        os.link(at("other"), at("d/s"))
    if kind == "link in it":
        os.symlink("../other", at("d/s"))
    if kind == "dangling in it":
        os.symlink("nothing", at("d/s"))
    if kind in ("directory in it", "link below", "link to it below"):
        os.mkdir(at("d/s"))
        put("d/s/x" if kind == "directory in it" else "d/s/w")
    if kind == "link below":
        os.symlink("../../other", at("d/s/x"))
    if kind == "link to it below":
        os.symlink("../../directory", at("d/s/z"))
    if kind == "fifo":
        os.mkfifo(at("d"))
    if kind == "device":
        os.mknod(at("d"), stat.S_IFCHR | 0o600, NULL)
    if kind == "socket":
        os.mknod(at("d"), stat.S_IFSOCK | 0o600)


def words(mode, source, target):
    """The two names that cp gets; None for what cp(1) takes from or gives to a live pipe or device, and for what is not."""
    contents = source in ("file", "second name") or (not mode and source == "link")
    if (not mode and source in ("fifo", "device")) or (contents and target in ("fifo", "device", "socket")):
        return None
    if source == "directory" and target == "another name of it":
        return None
    return "s", {"itself": "s", "its directory": ".", "below it": "s/new"}.get(target, "d")


def view(folder):
    """What is in a folder: kinds, permissions, contents, and which names are of one file."""
    found, names = {}, {}
    for root, directories, files in os.walk(folder):
        for name in directories + files:
            path = os.path.join(root, name)
            status = os.lstat(path)
            short = os.path.relpath(path, folder)
            names.setdefault(status.st_ino, []).append(short)
            text = ""
            if stat.S_ISLNK(status.st_mode):
                text = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                with open(path, encoding="ascii") as file:
                    text = file.read()
            found[short] = [stat.filemode(status.st_mode), text, status.st_rdev, names[status.st_ino]]
    for entry in found.values():
        entry[3] = sorted(entry[3])
    return found


def difference(expected, got):
    return {name: (expected.get(name), got.get(name)) for name in expected.keys() | got.keys()
            if expected.get(name) != got.get(name)}


class Comparison:
    """The cases of one direction: run by cp(1) and by the program, and compared at the end."""

    def __init__(self, scratch, verbs, name, cases):
        self.verbs, self.name, self.cases = verbs, name, [c for c in cases if words(*c)]
        self.expected, self.host = (scratch.path(f"{name} {side}") for side in ("cp", "program"))
        for folder in (self.expected, self.host):
            folder.mkdir()
            for number, (_, source, target) in enumerate(self.cases):
                make(folder / str(number), source, target)
        verbs("cp", "-a", self.host, f":/{name}")
        self.wrong = []

    def run(self):
        for number, case in enumerate(self.cases):
            source, target = words(*case)
            by_cp = subprocess.run(["cp", *case[0], source, target], cwd=self.expected / str(number), check=False,
                                   capture_output=True, text=True, timeout=20)
            inside, outside = f"{self.verbs.image}:/{self.name}/{number}", str(self.host / str(number))
            result = subprocess.run([self.verbs.program, "cp", *case[0],
                                     f"{outside if self.name == 'in' else inside}/{source}",
                                     f"{outside if self.name == 'out' else inside}/{target}"],
                                    check=False, capture_output=True, text=True)
            refused = by_cp.returncode != 0 or (self.name == "out" and self.follows_below(case))
            if result.returncode != (NO if refused else FINE):
                self.wrong.append(f"{self.name} {case}: {result.returncode} {result.stderr.strip()}; "
                                  f"cp(1): {by_cp.returncode} {by_cp.stderr.strip()}")

    @staticmethod
    def follows_below(case):
        return case[0] and case[1] == "directory" and case[2] == "link below"

    def differs_on_purpose(self, case):
        """Out of an image no link below is followed, and no directory is begun to be copied into itself."""
        return ((self.name == "out" and self.follows_below(case)) or
                (case[1] == "directory" and case[2] in ("itself", "below it", "link to it")))

    def compare(self, root):
        folder = self.host if self.name == "out" else pathlib.Path(root) / self.name
        for number, case in enumerate(self.cases):
            differs = difference(view(self.expected / str(number)), view(folder / str(number)))
            if differs and not self.differs_on_purpose(case):
                self.wrong.append(f"{self.name} {case}: cp(1) and the program: {differs}")
        return self.wrong


def all_kinds(scratch, verbs):
    between = list(itertools.product(MODES, SOURCES, TARGETS))
    inside = list(itertools.product((MODES[0], MODES[2]), SOURCES, (*TARGETS, *SELVES)))
    comparisons = [Comparison(scratch, verbs, name, cases)
                   for name, cases in (("in", between), ("out", between), ("inside", inside))]
    for comparison in comparisons:
        comparison.run()
    mounting.clean(verbs.image)
    root = scratch.mount(verbs.image, options="ro")
    wrong = [line for comparison in comparisons for line in comparison.compare(root)]
    scratch.umount(root)
    check(not wrong, f"{len(wrong)} of {sum(len(c.cases) for c in comparisons)}\n" + "\n".join(wrong))
    print(f"{sum(len(c.cases) for c in comparisons)} copies as by cp(1)")


def made_links(scratch, verbs):
    """A link that the copy itself has made leads it nowhere, whatever comes after it."""
    tree = scratch.path("made")
    for name in ("one", "two"):
        (tree / name).mkdir(parents=True)
    secret = scratch.path("secret")
    secret.write_text("secret")
    os.symlink(secret, tree / "one" / "x")
    (tree / "two" / "x").write_text("overwritten")
    verbs("cp", "-a", tree, ":/made")
    for name, sources in (("named", ("one/x", "two/x")), ("in trees", ("one/.", "two/."))):
        out = scratch.path(name)
        out.mkdir()
        verbs("cp", "-a", *(f":/made/{s}" for s in sources), out, status=NO, says="just been made")
        check(secret.read_text() == "secret" and os.path.islink(out / "x"), f"{name}: through a link of the image")
        verbs("cp", "-a", *(f"{tree}/{s}" for s in sources), ":/there", status=NO, says="is a link")
    shutil.rmtree(tree)


def images_themselves(scratch, verbs):
    """No copy has the image on its other side."""
    size = os.stat(verbs.image).st_size
    out = scratch.path("holds the image")
    out.mkdir()
    os.link(verbs.image, out / "file")
    verbs("cp", ":/file", verbs.image, status=NO, says="is the image")
    verbs("cp", ":/file", out, status=NO, says="is the image")
    verbs("cp", "-a", verbs.image, ":/image", status=NO, says="is the image")
    check(os.stat(verbs.image).st_size == size, "the image was cut")
    mounting.clean(verbs.image)


def devices_stay(verbs):
    """A device, fifo or socket of an image is not replaced by a file that is copied over it."""
    verbs("mknod", ":/node", "c", "1", "3")
    for option in ((), ("-a",)):
        verbs("cp", *option, "/etc/hostname", ":/node", status=NO, says="take no contents")
    check(verbs.status("/node")["mode"].startswith("c"), "a device was replaced")


def attributes_behind_links(scratch, verbs):
    """With -a a link's target gets the attributes, and the link keeps its own."""
    folder = scratch.path("behind")
    folder.mkdir()
    (folder / "file").write_text("file")
    os.symlink("file", folder / "link")
    (folder / "new").write_text("new contents")
    os.chown(folder / "new", 5, 6)
    os.chmod(folder / "new", 0o640)
    os.utime(folder / "new", ns=(10**18, 10**18))
    verbs("cp", "-a", folder, ":/behind")
    verbs("cp", "-a", folder / "new", ":/behind/link")
    verbs("cp", "-a", ":/behind/new", folder / "link")
    found = verbs.status("/behind/file")
    check((found["mode"], found["uid"], found["gid"]) == ("-rw-r-----", 5, 6), f"{found}")
    check(verbs.status("/behind/link")["uid"] == 0, "the link's own owner")
    status = os.stat(folder / "file")
    check((stat.S_IMODE(status.st_mode), status.st_uid, status.st_mtime_ns) == (0o640, 5, 10**18), f"{status}")
    check(os.lstat(folder / "link").st_uid == 0, "the link's own owner on the host")


def test(scratch):
    verbs = prepare(scratch)
    devices_stay(verbs)
    attributes_behind_links(scratch, verbs)
    made_links(scratch, verbs)
    images_themselves(scratch, verbs)
    big = Verbs(scratch, scratch.image("kinds", "64M", "-t", "ext4", "-N", "65536"))
    all_kinds(scratch, big)


if __name__ == "__main__":
    mounting.main(test)
