#!/usr/bin/env python3
"""With SOURCE_DATE_EPOCH, what is done to two equal images leaves two equal images, to the last byte: whoever does it,
with whatever umask, a day later, from a tree that lies on another file system and was made in another order.

Judged by cmp and e2fsck. Usage: reproducible_test.py PROGRAM
"""

import filecmp
import hashlib
import os
import pathlib
import re
import shutil
import socket
import stat
import subprocess
import tempfile

from verbs import NOBODY, Verbs, check, mounting

EPOCH = 1_600_000_000
DAY = 86_400
FIXED = ("-U", "6b1f5f8e-0f0e-4c53-9d0f-3b6c0a1f2d11", "-E", "hash_seed=0d2a6ef0-53a1-4e0c-8b7e-7a9d51c20f42,root_owner=0:0",
         "-m", "0")
FORMATS = {
    "ext4": ("-t", "ext4"),
    "1 KiB blocks": ("-t", "ext4", "-b", "1024"),
    "no journal": ("-t", "ext4", "-O", "^has_journal"),
    "ext2": ("-t", "ext2"),
    "orphan file, inline data": ("-t", "ext4", "-O", "orphan_file,inline_data"),
    "journaled contents": ("-t", "ext4"),
    "mmp": ("-t", "ext4", "-O", "mmp"),
    "bigalloc": ("-t", "ext4", "-O", "bigalloc", "-C", "16384"),
    "small journal": ("-t", "ext4", "-b", "1024", "-J", "size=1"),
}


class Run:
    """How one of the two runs is done."""

    def __init__(self, scratch, name, folder, *, user=None, umask=0o022, later=False, backwards=False):
        self.scratch, self.name, self.user, self.umask, self.backwards = scratch, name, user, umask, backwards
        self.folder = folder / name
        self.folder.mkdir()
        os.chmod(self.folder, 0o777)
        self.environment = {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH)}
        # The program `faketime` removes what its library leaves in /dev/shm.
        self.clock = ["faketime", "-m", "--exclude-monotonic", "-f", f"+{DAY}s"] if later else []
        self.image = None

    def __call__(self, *words, epoch=EPOCH, status=0, text=None):
        """Runs a verb; ':' begins a path of the image, '%' one of this run's folder."""
        places = {":": f"{self.image}:", "%": f"{self.folder}/"}
        words = [places[word[0]] + word[1:] if word[:1] in places else word for word in words]
        words = [str(self.image) if word == "IMAGE" else word for word in words]
        identity = {} if self.user is None else {"user": self.user, "group": self.user, "extra_groups": []}
        environment = self.environment | {"SOURCE_DATE_EPOCH": str(epoch)}
        if epoch is None:
            del environment["SOURCE_DATE_EPOCH"]
        ran = subprocess.run([*self.clock, self.scratch.program, *words], env=environment, umask=self.umask, capture_output=True, text=True,
                             input=text, check=False, **identity)
        check(ran.returncode == status, f"{self.name}: {words}: {ran.returncode}, not {status}\n{ran.stdout}{ran.stderr}")
        return ran

    def start(self, template):
        self.image = self.folder / "image"  # named alike: in two folders
        mounting.copy_image(template, self.image)
        os.chown(self.image, NOBODY, NOBODY)


def entries(top):
    """What is in the tree: (path, how it is made), directories before what is in them."""
    def file(data):
        return lambda path: path.write_bytes(data)

    def sparse(path):
        with open(path, "wb") as out:
            for at in (0, 5000, 1 << 20, (1 << 20) + 4096, 3 << 20):
                out.seek(at)
                out.write(b"data at %d" % at)
            out.truncate((4 << 20) + 17)

    def bound(path):
        # Its address is too long for a deep folder.
        with socket.socket(socket.AF_UNIX) as made:
            here = os.open(path.parent, os.O_PATH)
            made.bind(f"/proc/self/fd/{here}/{path.name}")
            os.close(here)

    noise = b"".join(hashlib.sha256(b"%d" % i).digest() for i in range(100_000))
    for name in ("a", "a/b", "a/b/c", "many", "empty"):
        yield top / name, pathlib.Path.mkdir
    yield top / "file", file(b"contents\n")
    yield top / "large", file(noise)
    yield top / "zeros", file(bytes(300_000))
    yield top / "sparse", sparse
    yield top / "nothing", file(b"")
    yield top / "a" / "link", lambda path: path.symlink_to("../file")
    yield top / "a" / "long link", lambda path: path.symlink_to("x" * 200)
    yield top / "a" / "fifo", os.mkfifo
    yield top / "a" / "device", lambda path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    yield top / "a" / "disk", lambda path: os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(259, 100_000))
    yield top / "a" / "socket", bound
    for i in range(700):
        yield top / "many" / f"name {i * 7919 % 700:04} of many {'ä' * (i % 5)}", file(noise[i:i + i * 37 % 9000])


def tree(run):
    """Equal trees, whose directories list what is in them in another order."""
    top = run.folder / "tree"
    top.mkdir()
    made = list(entries(top))
    folders = [entry for entry in made if entry[1] is pathlib.Path.mkdir]
    others = [entry for entry in made if entry[1] is not pathlib.Path.mkdir]
    for path, make in folders + (others[::-1] if run.backwards else others):
        make(path)
    os.link(top / "file", top / "a" / "b" / "hard")
    os.link(top / "large", top / "z hard")
    for i, (name, value) in enumerate(sorted((("one", b"1"), ("two", b"2" * 300), ("three", b"3")), reverse=run.backwards)):
        os.setxattr(top / "file", f"user.{name}", value)
        check(i < 3, "")
    for path, _ in made:
        if not path.is_symlink():
            os.chmod(path, 0o755 if path.is_dir() else 0o4755 if path.name == "large" else 0o644)
        os.chown(path, 1000 + len(path.name), 7, follow_symlinks=False)
    for number, path in enumerate([*sorted(top.rglob("*"), key=os.fsencode), top]):
        # Of before and after the fixed time; what was read last differs.
        when = (EPOCH + (number - 300) * 5000) * 10**9 + 123_456_789
        os.utime(path, ns=(when + (DAY * 10**9 if run.backwards else 0), when), follow_symlinks=False)
    return top


def script(run):
    return f"""mkdir shell
cp -a host:{run.folder}/tree/a/b shell
cd shell
cp host:{run.folder}/tree/file one
ln one two
ln -s one three
touch one
mv two four
rm three
check
cp host:{run.folder}/tree/large five
truncate -s 5000 five
rm -r b
exit
"""


def steps(run):
    """Every verb that writes, with what it prints left alone."""
    run("cp", "-a", "%tree", ":/copy")
    run("cp", "-a", "%tree/.", ":/")
    run("mkdir", "-p", ":/made/deeper/still")
    for name in ("one", "two", "three"):
        run("mkdir", f":/{name}")
    run("mknod", ":/null", "c", "1", "3")
    run("touch", ":/touched", ":/file")
    run("touch", "-d", "+1 day", ":/later")
    run("touch", "-m", "-r", "%tree/file", ":/later", ":/nothing")
    run("chmod", "-R", "g+w", ":/a", ":/copy/a")
    run("chown", "-R", "9:9", ":/a/b")
    run("ln", ":/file", ":/made/file")
    run("ln", "-s", "/made/file", ":/made/link")
    run("chown", "-h", "5:6", ":/made/link")
    run("chown", "7:8", ":/made")
    run("chmod", "2711", ":/file")
    run("chmod", "2711", ":/one")
    run("chattr", "+d", ":/file")
    run("setfattr", "-n", "user.later", "-v", "value", ":/file")
    run("setfattr", "-n", "user.long", "-v", "value" * 100, ":/a")
    run("setfattr", "-x", "user.later", ":/file")
    run("cp", "%tree/large", ":/large")  # new contents
    run("cp", "-a", ":/copy/many", ":/made/many")
    run("truncate", "-s", "100000", ":/copy/large")
    run("truncate", "-s", "10000000", ":/copy/file")
    run("mv", ":/copy/many", ":/two/renamed")
    run("mv", ":/touched", ":/null")
    run("rm", "-r", ":/many")
    run("rm", ":/sparse", ":/zeros")
    run("rmdir", ":/three")
    run("cp", "-a", "%tree/many", ":/again")
    run("label", "IMAGE", "a label")
    run("shell", "IMAGE", text=script(run))
    run("replay", "IMAGE")


def few_steps(run):
    run("cp", "-a", "%tree/a", ":/copy")


def difference(first, second):
    ran = subprocess.run(["cmp", "-l", first, second], capture_output=True, text=True, check=False)
    lines = ran.stdout.splitlines()
    return f"{len(lines)} bytes, from {' '.join(lines[:8])} {ran.stderr}"


def reproduce(runs, template, options, do, what):
    for run in runs:
        run.start(template)
        do(Step(run, options))
    if not filecmp.cmp(*(run.image for run in runs), shallow=False):
        tell_difference(runs, template, options, do, what)
    mounting.clean(runs[0].image)


class Step:
    """A run with mount options; `seen`, where it is given, gets (verb, digest of the image after it)."""

    def __init__(self, run, options, seen=None):
        self.run, self.folder, self.seen, self.options = run, run.folder, seen, (f"--options={options}",) if options else ()

    def __call__(self, verb, *words, **others):
        self.run(verb, *self.options, *words, **others)
        if self.seen is not None:
            self.seen.append((f"{verb} {' '.join(words)}", hashlib.sha1(self.run.image.read_bytes()).digest()))


def tell_difference(runs, template, options, do, what):
    """Does it once more to name the first step after which the images differ."""
    bytes_of = difference(*(run.image for run in runs))
    both = ([], [])
    for run, seen in zip(runs, both):
        run.start(template)
        do(Step(run, options, seen))
    differing = next((first[0] for first, second in zip(*both) if first[1] != second[1]), "no step when done once more")
    raise mounting.Failure(f"{what}: the images differ: {bytes_of}; first after: {differing}")


def times(run, path):
    """What debugfs says of an inode: {name: seconds}, and its generation."""
    said = mounting.run("debugfs", "-R", f"stat {path}", run.image).stdout
    found = {name: int(seconds, 16) for name, seconds in re.findall(r"^ *(\w+): 0x([0-9a-f]+)", said, re.M)}
    return found, int(re.search(r"Generation: (\d+)", said)[1])


def what_is_set(run, template):
    """Times that are copied and later than the fixed one, and those that the tool sets, are it; earlier ones stay. What is
    made belongs to root."""
    run.start(template)
    early, late = run.folder / "early", run.folder / "late"
    for path, when in ((early, EPOCH - 5), (late, EPOCH + 5)):
        path.write_text("text", encoding="ascii")
        os.utime(path, (when, when))
    os.chmod(early, 0o644)
    os.chmod(late, 0o644)
    run("cp", "-a", "%early", "%late", ":/")
    run("mkdir", ":/dir")
    run("touch", ":/dir/file")
    run("touch", "-d", "+1 hour", ":/hour")
    run("touch", "-r", "%late", ":/as late")
    generations = set()
    for path, expected in (("/early", EPOCH - 5), ("/late", EPOCH), ("/dir", EPOCH), ("/dir/file", EPOCH),
                           ("/hour", EPOCH + 3600), ("\"/as late\"", EPOCH)):
        found, generation = times(run, path)
        check({found["mtime"], found["atime"]} == {expected}, f"{path}: {found}")
        check({found["ctime"], found["crtime"]} == {EPOCH}, f"{path}: {found}")
        said = mounting.run("debugfs", "-R", f"stat {path}", run.image).stdout
        check(re.search(r"User: +0 +Group: +0 ", said), f"{path}: {said}")
        generations.add(generation)
    check(len(generations) == 6 and 0 not in generations, f"generations: {generations}")
    check(times(run, "/")[0]["mtime"] == EPOCH, f"/: {times(run, '/')}")
    said = mounting.run("dumpe2fs", "-h", run.image).stdout
    at = re.findall(r"^Last (?:mount|write) time: *(.*)$", said, re.M)
    wanted = subprocess.run(["date", "-d", f"@{EPOCH}", "+%a %b %e %H:%M:%S %Y"], capture_output=True, text=True, check=True,
                            env=os.environ | {"LC_ALL": "C"}).stdout.strip()
    check(at == [wanted, wanted], f"the superblock: {at}, not {wanted}")


def without_it(run, template):
    """As always: times of the clock, generations of chance."""
    found = []
    for _ in range(2):
        run.start(template)
        run("mkdir", ":/dir", epoch=None)
        found.append(times(run, "/dir"))
    check(found[0][1] != found[1][1], f"generations without it: {found}")
    check(all(entry[0]["ctime"] > EPOCH + DAY for entry in found), f"times without it: {found}")


def malformed(run, template):
    run.start(template)
    before = run.image.read_bytes()
    for value in ("", "x", "12x", " 12", "-1", "+5", "1.5", "0x10", "99999999999999999999", "15032385536"):
        for words in (("mkdir", ":/d"), ("cp", run.scratch.program, ":/d"), ("label", "IMAGE", "x"), ("replay", "IMAGE"),
                      ("touch", ":/d"), ("chmod", "700", ":/lost+found")):
            said = run(*words, epoch=value, status=2).stderr
            check(f"SOURCE_DATE_EPOCH: '{value}'" in said, f"{value!r}: {said}")
        said = run("shell", "IMAGE", epoch=value, status=2, text="mkdir d\n").stderr
        check(f"SOURCE_DATE_EPOCH: '{value}'" in said, f"{value!r}: {said}")
        run("ls", ":/", epoch=value)  # what writes nothing does not ask for it
    check(run.image.read_bytes() == before, "a malformed value changed the image")
    for value in ("0", "15032385535"):
        run("mkdir", f":/{value}", epoch=value)


def on_a_mount(scratch, template):
    """A mount has the clock's times."""
    image = mounting.copy_image(template, scratch.path("mounted"))
    os.environ["SOURCE_DATE_EPOCH"] = str(EPOCH)
    try:
        directory = scratch.mount(image)
        (directory / "made").mkdir()
        check((directory / "made").stat().st_mtime > EPOCH + DAY, "a mount takes the fixed time")
        scratch.umount(directory)
    finally:
        del os.environ["SOURCE_DATE_EPOCH"]


def test(scratch):
    mounting.need_mount()
    mounting.need("debugfs", "dumpe2fs", "cmp", "faketime")
    os.chmod(scratch.folder, 0o755)
    elsewhere = pathlib.Path(tempfile.mkdtemp(prefix="uext4_test_", dir="/var/tmp"))
    os.chmod(elsewhere, 0o755)
    try:
        runs = (Run(scratch, "first", scratch.folder),
                Run(scratch, "second", elsewhere, user=NOBODY, umask=0o077, later=True, backwards=True))
        for run in runs:
            tree(run)
        for name, options in FORMATS.items():
            template = scratch.image(f"template {name}", "48M", *options, *FIXED)
            # Each opening of the last one takes five seconds.
            do = few_steps if name == "mmp" else steps
            reproduce(runs, template, "data=journal" if name == "journaled contents" else "", do, name)
            if name == "ext4":
                reproduce(runs, template, "cache=4M", steps, "a small cache")
                reproduce(runs, template, "discard", steps, "discard")
        template = scratch.path("template ext4")
        what_is_set(runs[1], template)
        without_it(runs[0], template)
        malformed(runs[0], template)
        on_a_mount(scratch, template)
    finally:
        shutil.rmtree(elsewhere)


if __name__ == "__main__":
    mounting.main(test)
