#!/usr/bin/env python3
"""Copies of several things, of contents, of directories, and how far they are.

Judged by e2fsck. Usage: copies_test.py PROGRAM
"""

import errno
import os
import pathlib
import re
import shutil
import socket
import stat
import subprocess
import sys

from verbs import FINE, IMPOSSIBLE, NO, NOBODY, Verbs, check, in_terminal, mounting, prepare


def others_are_copied(scratch, verbs, source):
    """As with cp(1): what cannot be copied is told, the others are copied, and the exit code says that not all was."""
    verbs("mkdir", ":/others")
    verbs("cp", source / "missing", source / "one", source / "gone", source / "two", ":/others", status=NO, says="gone")
    check(verbs("ls", ":/others").split() == ["one", "two"], "into an image: what is named beside what is missing")
    out = scratch.path("others")
    out.mkdir()
    verbs("cp", ":/others/missing", ":/others/one", ":/others/gone", ":/others/two", out, status=NO, says="gone")
    check(sorted(os.listdir(out)) == ["one", "two"], "out of an image: what is named beside what is missing")
    other = Verbs(scratch, scratch.image("others.img", "8M", "-t", "ext4"))
    verbs("cp", ":/others/missing", ":/others/one", ":/others/two", f"{other.image}:/", status=NO, says="missing")
    check(other("cat", ":/one") + other("cat", ":/two") == "oneone", "between images: what is named beside what is missing")
    # Inside of a tree as well, with its attributes; a file that fails stays as far as it was written.
    tree = scratch.path("tree with a vast one")
    (tree / "inner").mkdir(parents=True)
    for name in ("a", "inner/b", "z"):
        (tree / name).write_text(name)
    with open(tree / "inner" / "vast", "wb") as vast:
        vast.truncate(20 << 40)
    os.symlink("a", tree / "link")
    os.chmod(tree / "inner", 0o751)
    verbs("cp", "-a", tree, ":/others", status=IMPOSSIBLE, says="vast")
    found = verbs("ls", f":/others/{tree.name}/inner").split() + verbs("ls", f":/others/{tree.name}").split()
    check(sorted(found) == ["a", "b", "inner", "link", "vast", "z"], f"of a tree with a file that is too large: {found}")
    check(verbs.status(f"/others/{tree.name}/inner")["mode"][-9:] == "rwxr-x--x", "the tree's attributes are not copied")
    shutil.rmtree(tree)
    verbs("cp", "-r", ":/others", ":/others/none", out, status=NO, says="none")
    check((out / "others" / "two").read_text() == "one", "out of an image: a tree beside what is missing")
    for image in (verbs.image, other.image):
        mounting.clean(image)


def copies(scratch, verbs):
    source = scratch.path("source")
    source.mkdir()
    (source / "one").write_text("one")
    os.link(source / "one", source / "two")
    # Several sources know of each other's links, into an image, out of it, and between images.
    verbs("cp", "-a", source / "one", source / "two", ":/there")
    check(verbs.status("/there/one")["inode"] == verbs.status("/there/two")["inode"], "into an image: two files of one")
    out = scratch.path("out")
    out.mkdir()
    verbs("cp", "-a", ":/there/one", ":/there/two", out)
    check(os.stat(out / "one").st_ino == os.stat(out / "two").st_ino, "out of an image: two files of one")
    other = Verbs(scratch, scratch.image("other", "8M", "-t", "ext4"))
    verbs("cp", "-a", ":/there/one", ":/there/two", f"{other.image}:/")
    check(other.status("/one")["inode"] == other.status("/two")["inode"], "between images: two files of one")
    # What cannot be copied takes nothing with it of what was.
    verbs("mkdir", ":/kept")
    verbs("cp", source / "one", source / "missing", ":/kept", status=NO, says="missing")
    check(verbs("cat", ":/kept/one") == "one", "a copy is lost with one that failed")
    with open(source / "vast", "wb") as vast:
        vast.truncate(20 << 40)
    verbs("cp", source / "two", source / "vast", ":/kept", status=IMPOSSIBLE, says="vast")
    os.unlink(source / "vast")
    check(verbs("cat", ":/kept/two") == "one", "a copy is lost with one that failed")
    mounting.clean(verbs.image)
    others_are_copied(scratch, verbs, source)
    # Two that are called alike, of two directories.
    verbs("mkdir", ":/else")
    verbs("cp", "/etc/hostname", ":/else/one")
    verbs("mkdir", ":/target")
    verbs("cp", ":/there/two", ":/else/one", ":/target")
    # As cp(1): a file that is there gets new contents and stays who it is.
    verbs("ln", ":/file", ":/second name")
    verbs("chown", "3:4", ":/file")
    verbs("chmod", "640", ":/file")
    before = verbs.status("/file")
    (source / "new").write_text("new contents")
    verbs("cp", source / "new", ":/file")
    after = verbs.status("/file")
    check(all(before[key] == after[key] for key in ("inode", "uid", "gid", "mode", "links")), f"{before} {after}")
    check(verbs("cat", ":/second name") == "new contents", "the other name has other contents")
    # Set-id bits of files that cannot be given to their owner would give somebody else's rights away.
    verbs("cp", "--mode", "4755", source / "new", ":/set-id")
    folder = scratch.path("given away")
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    verbs("cp", "-a", ":/set-id", folder, user=NOBODY)
    check(stat.S_IMODE(os.stat(folder / "set-id").st_mode) == 0o755, "a set-id bit of somebody else")
    verbs("cp", "-a", ":/set-id", out)
    check(stat.S_IMODE(os.stat(out / "set-id").st_mode) == 0o4755, "root keeps set-id bits")


def contents_of_no_files(scratch, verbs):
    """Without -r, pipes and devices of the host are read, as by cp(1); an image's have no contents."""
    def fed(place, target, text="from a pipe"):
        subprocess.run([verbs.program, "cp", place, f"{verbs.image}{target}"], input=text, text=True, check=True)

    verbs("mkdir", ":/read")
    fed("/dev/stdin", ":/read/stdin")
    fed("/dev/fd/0", ":/read/large", text="many" * 10**6)
    subprocess.run(["bash", "-c", f"echo -n from a pipe | '{verbs.program}' cp /dev/stdin '{verbs.image}:/read/of nobody'"],
                   user=NOBODY, group=NOBODY, extra_groups=[], check=True)
    check(verbs("cat", ":/read/stdin") == verbs("cat", ":/read/of nobody") == "from a pipe", "what came through a pipe")
    check(verbs("cat", ":/read/large") == "many" * 10**6, "what came through a pipe in pieces")
    fed("/dev/stdin", ":/read/stdin", text="other")
    check(verbs("cat", ":/read/stdin") == "other", "a file gets new contents from a pipe")
    number = verbs.status("/read/stdin")["inode"]
    fed("/dev/stdin", f":<{number}>", text="by number")
    check(verbs("cat", ":/read/stdin") == "by number", "an inode gets new contents from a pipe")
    fed("/dev/stdin", ":/read/", text="")
    check(verbs.status("/read/stdin")["size"] == 0, "an empty pipe")
    command = f"exec '{verbs.program}' cp <(echo one) <(echo two) '{verbs.image}:/read'"
    subprocess.run(["bash", "-c", command], check=True)
    verbs("cp", "/dev/null", "/proc/version", ":/read")
    check(verbs.status("/read/null")["mode"].startswith("-"), "a device was made")
    check(verbs("cat", ":/read/version") == pathlib.Path("/proc/version").read_text(encoding="utf-8"), "/proc/version")
    check(sorted(verbs("cat", f":/read/{name}") for name in verbs("ls", ":/read").split() if name.isdigit())
          == ["one\n", "two\n"], f"{verbs('ls', ':/read')}")
    # What cannot be opened leaves nothing behind.
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(scratch.path("a socket")))
        verbs("cp", scratch.path("a socket"), ":/read", status=IMPOSSIBLE, says="a socket")
        check("a socket" not in verbs("ls", ":/read"), "a file of what could not be opened")
        verbs("cp", "-r", scratch.path("a socket"), ":/read")
    check(verbs.status("/read/a socket")["mode"].startswith("s"), "a socket itself, with -r")
    # Out of an image.
    verbs("mknod", "--mode", "666", ":/read/device", "c", "1", "3")
    verbs("mknod", ":/read/fifo", "p")
    out = scratch.path("read")
    out.mkdir()
    for name in ("device", "fifo", "a socket"):
        verbs("cp", f":/read/{name}", out, status=NO, says="no contents")
        verbs("cp", f":/read/{name}", f":/read/again {name}", status=NO, says="no contents")
    check(not list(out.iterdir()) and "again" not in verbs("ls", ":/read"), "a plain cp made a device on the host")
    verbs("cp", "-r", ":/read/device", ":/read/fifo", out)
    check(stat.S_ISCHR(os.stat(out / "device").st_mode) and stat.S_ISFIFO(os.stat(out / "fifo").st_mode), "with -r")
    verbs("cp", "-a", ":/read/fifo", ":/read/again")
    check(verbs.status("/read/again")["mode"].startswith("p"), "a fifo itself, with -a")
    mounting.clean(verbs.image)
    to_no_files(scratch, verbs, out)
    errors_of_the_host(scratch, verbs, out)


def to_no_files(scratch, verbs, out):
    """Devices, pipes and files that are there get the contents, and stay what they are."""
    null = out / "device"
    before = os.stat(null).st_mode
    verbs("cp", ":/file", null)
    check(os.stat(null).st_mode == before and stat.S_ISCHR(before), "a device was changed")
    check(verbs("cp", ":/file", "/dev/stdout") == verbs("cat", ":/file"), "/dev/stdout")
    os.mkfifo(out / "pipe")
    with subprocess.Popen(["cat", out / "pipe"], stdout=subprocess.PIPE, text=True) as reader:
        verbs("cp", ":/file", out / "pipe")
        check(reader.communicate(timeout=20)[0] == verbs("cat", ":/file"), "a pipe")
    for name in ("/dev/tty", "/dev/stdout"):
        status, shown = in_terminal(verbs.program, "cp", f"{verbs.image}:/file", name)
        check(status == FINE and verbs("cat", ":/file").strip().encode() in shown, f"{name} on a terminal: {shown!r}")
    # They may be what an image has brought: in a tree they are in the way, and stay.
    verbs("mkdir", ":/in the way")
    for name in ("device", "pipe", "file"):
        verbs("cp", ":/file", f":/in the way/{name}")
    for mode in ("-r", "-a"):
        for name in ("device", "pipe"):
            verbs("cp", mode, ":/in the way/.", out, status=NO, says=f"/{name}: is no file, and only a destination")
        check(stat.S_ISCHR(os.stat(null).st_mode) and stat.S_ISFIFO(os.stat(out / "pipe").st_mode), "they are gone")
        check((out / "file").read_text() == verbs("cat", ":/file"), "the file beside them")
    there = out / "there"
    there.write_text("long contents " * 100)
    os.chmod(there, 0o604)
    os.symlink("there", out / "link")
    os.symlink("missing", out / "dangling")
    verbs("cp", ":/file", out / "link")
    check(there.read_text() == verbs("cat", ":/file"), "through a link")
    check(stat.S_IMODE(os.stat(there).st_mode) == 0o604, "a file that is there has other permissions")
    verbs("cp", ":/file", out / "dangling", status=NO, says="nowhere")
    there.write_text("long contents " * 100)
    verbs("cp", "-r", ":/file", out / "link")
    check(there.read_text() == verbs("cat", ":/file") and os.path.islink(out / "link"), "through a link, with -r")
    verbs("cp", "-a", ":/file", there)
    check(stat.S_IMODE(os.stat(there).st_mode) != 0o604 and not (out / "missing").exists(), "with -a")


def errors_of_the_host(scratch, verbs, out):
    """What the host says to a destination that cannot be is told as it is said to any program."""
    (out / "gone").mkdir()
    for name, text in (("none/x", os.strerror(errno.ENOENT)), ("there/x", os.strerror(errno.ENOTDIR)),
                       ("x" * 300, os.strerror(errno.ENAMETOOLONG))):
        for words in (("cp",), ("cp", "-r"), ("cp", "--no-sandbox")):
            verbs(*words, ":/file", out / name, status=IMPOSSIBLE, says=text)
    verbs("cp", ":/file", "", status=IMPOSSIBLE, says=os.strerror(errno.ENOENT))
    gone = subprocess.run(["sh", "-c", 'cd "$1"; rmdir "$1"; exec "$2" cp "$3:/file" x', "sh", out / "gone", verbs.program,
                           verbs.image], check=False, capture_output=True, text=True)
    check(gone.returncode == IMPOSSIBLE and os.strerror(errno.ENOENT) in gone.stderr, f"a folder that is gone: {gone}")


def told_when_closed(scratch, verbs):
    """A file system that tells when a file is closed what could not be written: neither cp nor cat says that it was."""
    contents = os.urandom(3 << 20)
    big = scratch.path("three MiB")
    big.write_bytes(contents)
    verbs("cp", big, ":/three")
    root = scratch.mount(scratch.image("full.img", "16M", "-t", "ext4"))
    with open(root / "filler", "wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, os.statvfs(root).f_bavail * os.statvfs(root).f_frsize - (2 << 20))
    for number in range(2):
        (root / "there").write_bytes(b"x")
        verbs("cp", ":/three", root / "there", status=IMPOSSIBLE, says=os.strerror(errno.ENOSPC))
        (root / "there").unlink()
        with open(root / f"out{number}", "wb") as out:
            result = subprocess.run([verbs.program, "cat", f"{verbs.image}:/three"], stdout=out, stderr=subprocess.PIPE,
                                    check=False, text=True)
            check(result.returncode == IMPOSSIBLE and "could not be written" in result.stderr, f"cat: {result}")
            out.truncate(0)
    scratch.umount(root)


def on_a_terminal(scratch, verbs):
    """A copy shows how far it is, in both directions."""
    big = scratch.path("big")
    big.write_bytes(os.urandom(6 << 20))
    for words in ((str(big), f"{verbs.image}:/big"), (f"{verbs.image}:/big", str(scratch.path("big again")))):
        status, shown = in_terminal(verbs.program, "cp", *words)
        check(status == FINE, f"cp {words} on a terminal: {shown!r}")
        check(re.search(rb"\[[#.]{30}\] +\d+% of \d+ MiB  big", shown), f"no bar: {shown!r}")
        check(b"100%" in shown, f"the bar does not end: {shown!r}")
    check(scratch.path("big again").read_bytes() == big.read_bytes(), "the copy differs")


def contents_of_directories(scratch):
    """What is in a directory (`tree/.`), from image to image: with its attributes, into what is there and what is not."""
    a, b = (Verbs(scratch, scratch.image(name, "8M", "-t", "ext4")) for name in ("from", "to"))
    tree = scratch.path("tree")
    (tree / "empty").mkdir(parents=True)
    (tree / "one").mkdir()
    (tree / "two").mkdir()
    for path in ("one/file", "two/file", "two/file2"):
        (tree / path).write_text(path)
    os.chown(tree, 33, 44)
    os.chmod(tree, 0o750)
    os.utime(tree, ns=(10**18 + 3, 978307323 * 10**9 + 4))
    a("cp", "-a", f"{tree}/.", ":/")
    b("mkdir", ":/there")
    for target in ("/", "/new", "/there"):
        b("cp", "-a", f"{a.image}:/.", f":{target}")
        status = b.status(target)
        check((status["mode"], status["uid"], status["gid"]) == ("drwxr-x---", 33, 44), f"{target}: {status}")
        check(status["mtime"] == "2001-01-01T00:02:03.000000004+00:00", f"{target}: {status}")
        for path in ("one/file", "two/file", "two/file2"):
            check(b("cat", f":{target}/{path}") == path, f"{target}/{path}")
    for name, inside in (("empty", []), ("one", ["file"]), ("two", ["file", "file2"])):
        b("cp", "-a", f"{a.image}:/{name}/.", f":/new {name}")
        check(b.status(f"/new {name}")["mode"].startswith("d"), f"/new {name} is no directory")
        check(b("ls", f":/new {name}").split() == inside, f"/new {name}")
    # Out of an image "tree/.." is no way out of the target.
    out = scratch.path("inner") / "deep"
    out.mkdir(parents=True)
    a("cp", "-r", ":/one/..", out)
    check(sorted(p.name for p in out.parent.iterdir()) == ["deep"], "a copy beside its target")
    check((out / "one" / "file").exists(), "the parent of a directory was not copied")
    # A link to a directory leads to the one that is filled, and that gets the attributes.
    beside = scratch.path("beside")
    beside.mkdir()
    mounting.run("rm", "-r", out / "two")
    (out / "two").symlink_to(beside)
    a("chown", "33:44", ":/two")
    a("cp", "-a", ":/two", out, status=NO, says="in the way of a directory")  # as with cp(1)
    check(not list(beside.iterdir()), "copied behind a link that nobody has named")
    a("cp", "-a", ":/two/.", out / "two")
    check((beside / "file2").read_text() == "two/file2", "not copied behind a link")
    check((beside.stat().st_uid, os.lstat(out / "two").st_uid) == (33, os.geteuid()), "not the owner of the directory")
    for verbs in (a, b):
        mounting.clean(verbs.image)


def closed_directories(scratch):
    """Directories that their owner cannot enter are no obstacle for links into them, whatever the order."""
    folder = scratch.path("closed")
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    for number in range(6):
        verbs = Verbs(scratch, scratch.image(f"closed {number}", "4M", "-t", "ext4"))
        verbs("mkdir", ":/h", ":/h/d", ":/h/d/e")
        verbs("cp", "/etc/hostname", ":/h/d/e/a")
        verbs("ln", ":/h/d/e/a", ":/h/f")
        verbs("cp", "/etc/hostname", ":/h/zz")
        verbs("chmod", "600", ":/h/d")
        verbs("chmod", "0", ":/h/d/e")
        out = folder / str(number)
        verbs("cp", "-a", ":/h", out, user=NOBODY)
        check(os.stat(out / "f").st_nlink == 2 and (out / "zz").exists(), "the copy is not whole")
        check(stat.S_IMODE(os.stat(out / "d").st_mode) == 0o600, "the permissions of a directory")
        check(stat.S_IMODE(os.stat(out / "d" / "e").st_mode) == 0, "the permissions of a directory in it")


# Runs a program under a filter that answers EPERM to a call that it does not know, as containers' filters do.
FILTERED = """
import ctypes, os, struct, sys
number = int(sys.argv[1])
code = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7fff0000)]
program = b"".join(struct.pack("=HBBI", *one) for one in code)
buffer = ctypes.create_string_buffer(program)
filter = struct.pack("=HxxxxxxQ", len(code), ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.c_char_p(filter), 0, 0):
    sys.exit(77)
os.execv(sys.argv[2], sys.argv[2:])
"""
FCHMODAT2, CLOSE_RANGE = 452, 436


def permissions_arrive(scratch, verbs):
    """By whatever way the files are named, and whatever the process may call and look at."""
    verbs("mkdir", ":/modes")
    verbs("cp", "--mode", "604", "/etc/hostname", ":/modes/file")
    dated = scratch.path("d")
    dated.mkdir(mode=0o600)
    os.utime(dated, (1e9, 1e9))
    verbs("cp", "-a", dated, ":/modes/d")

    def mode_of(path):
        return stat.S_IMODE(os.stat(path).st_mode)

    # Below a folder that may not be searched, by relative names.
    above = scratch.path("not searched")
    inner = above / "w"
    inner.mkdir(parents=True)
    os.chown(inner, NOBODY, NOBODY)
    above.chmod(0o700)
    image = os.open(verbs.image, os.O_RDONLY)
    ran = subprocess.run([verbs.program, "cp", "-r", f"/dev/fd/{image}:/modes", "."], cwd=inner, user=NOBODY,
                         group=NOBODY, extra_groups=[], pass_fds=(image,), capture_output=True, text=True, check=False)
    check(ran.returncode == FINE, f"below a folder that may not be searched: {ran}")
    check((mode_of(inner / "modes" / "file"), mode_of(inner / "modes" / "d")) == (0o604, 0o600), "by relative names")
    # A file that has no name.
    unnamed = os.open(scratch.path("unnamed"), os.O_RDWR | os.O_CREAT, 0o644)
    scratch.path("unnamed").unlink()
    ran = subprocess.run([verbs.program, "cp", "-a", f"/dev/fd/{image}:/modes/file", f"/dev/fd/{unnamed}"],
                         pass_fds=(image, unnamed), capture_output=True, text=True, check=False)
    check(ran.returncode == FINE and mode_of(unnamed) == 0o604, f"a file without a name: {ran}, {mode_of(unnamed):o}")
    os.close(unnamed)
    os.close(image)
    # What others are not to have of what is made, but with -a or where it is asked for.
    verbs("cp", "--mode", "666", "/etc/hostname", ":/modes/open")
    masked = scratch.path("masked")
    for words, expected in (((), 0o600), (("-r",), 0o600), (("-a",), 0o666), (("--mode", "664"), 0o664)):
        ran = subprocess.run([verbs.program, "cp", *words, f"{verbs.image}:/modes/open", masked], umask=0o077, check=False)
        check(ran.returncode == FINE and mode_of(masked) == expected, f"cp {words} under a mask: {mode_of(masked):o}")
        masked.unlink()
    # A folder that cannot be searched when its times are set.
    target = inner / "target"
    target.mkdir()
    os.chown(target, NOBODY, NOBODY)
    above.chmod(0o711)
    verbs("cp", "-a", ":/modes/d/.", target, user=NOBODY)
    check(mode_of(target) == 0o600 and target.stat().st_mtime == 1e9,
          f"the times of a folder that cannot be searched: {target.stat()}")
    # More files that are there than a process has descriptors.
    many = scratch.path("many")
    many.mkdir()
    names = [f"{number}" for number in range(300)]
    for name in names:
        (many / name).touch()
    verbs("mkdir", ":/many")
    verbs("cp", *(many / name for name in names), ":/many")
    ran = subprocess.run(["prlimit", "--nofile=200:200", verbs.program, "cp", "--mode", "641",
                          *(f"{verbs.image}:/many/{name}" for name in names), many], capture_output=True, text=True,
                         check=False)
    check(ran.returncode == FINE and {mode_of(many / name) for name in names} == {0o641}, f"many files: {ran.stderr}")
    for call in (FCHMODAT2, CLOSE_RANGE):
        out = scratch.path(f"filtered {call}")
        out.mkdir()
        try:
            ran = subprocess.run([sys.executable, "-c", FILTERED, str(call), verbs.program, "cp", "-r",
                                  f"{verbs.image}:/modes", out], capture_output=True, text=True, check=False, timeout=60)
        except subprocess.TimeoutExpired as late:
            raise mounting.Failure(f"without call {call} a copy does not end") from late
        check(ran.returncode == FINE and mode_of(out / "modes" / "file") == 0o604, f"without call {call}: {ran}")


def below_set_group_folders(scratch, verbs):
    """Folders that are made below one have its bit, as by cp(1), unless -a or --mode says what they have."""
    tree = scratch.path("inherits")
    (tree / "inner").mkdir(parents=True)
    (tree / "inner" / "file").write_text("file")
    tree.chmod(0o755)
    (tree / "inner").chmod(0o750)
    verbs("cp", "-a", tree, ":/")

    def modes_of(top):
        return {str(path.relative_to(top)): oct(stat.S_IMODE(path.stat().st_mode)) for path in (top, *top.rglob("*"))}

    for door in ([], ["--no-sandbox"]):
        shared = scratch.path(f"shared{len(door)}")
        shared.mkdir()
        os.chown(shared, -1, NOBODY)
        shared.chmod(0o2775)
        mounting.run("cp", "-r", tree, shared / "expected")
        verbs("cp", *door, "-r", ":/inherits", shared / "ours")
        check(modes_of(shared / "expected")["inner"] == "0o2750", f"the host's folders: {modes_of(shared / 'expected')}")
        check(modes_of(shared / "ours") == modes_of(shared / "expected"), f"{door}: {modes_of(shared / 'ours')}")
        verbs("cp", *door, "-a", ":/inherits", shared / "same")
        check(modes_of(shared / "same") == modes_of(tree), f"{door}: {modes_of(shared / 'same')}")
        # What was there is not the copy's to change.
        (shared / "ours").chmod(0o700)
        verbs("cp", *door, "-r", ":/inherits/.", shared / "ours")
        check(modes_of(shared / "ours")["."] == "0o700", f"{door}: a folder that was there has another mode")


def owners(scratch, verbs):
    """--owner and --map-owner mean the same whichever way a copy goes."""
    other = Verbs(scratch, scratch.image("owned", "16M", "-t", "ext4"))
    verbs("mkdir", ":/owned")
    verbs("cp", "--owner", "7:8", "/etc/hostname", ":/owned/file")
    verbs("ln", "-s", "file", ":/owned/link")
    verbs("chown", "-h", "7:9", ":/owned/link")
    verbs("chown", "9:7", ":/owned")
    out = scratch.path("owned out")
    out.mkdir()

    def of(path):
        st = os.lstat(path)
        return st.st_uid, st.st_gid

    for number, (words, expected) in enumerate((
            (("-a",), ((9, 7), (7, 8), (7, 9))),
            (("-r",), ((0, 0), (0, 0), (0, 0))),
            (("-r", "--owner", "5:6"), ((5, 6), (5, 6), (5, 6))),
            (("-a", "--owner", "5:6"), ((5, 6), (5, 6), (5, 6))),
            (("-a", "--map-owner", "7:9", "--map-owner", "9:5"), ((5, 9), (9, 8), (9, 5))),
            (("-r", "--map-owner", "7:9"), ((0, 9), (9, 0), (9, 0))))):
        # Out of an image, on from there, and from image to image.
        place = out / str(number)
        verbs("cp", *words, ":/owned", place)
        found = tuple(of(path) for path in (place, place / "file", place / "link"))
        check(found == expected, f"cp {words} out of an image: {found}")
        verbs("cp", *words, ":/owned", f"{other.image}:/{number}")
        states = [other.status(f"/{number}{path}") for path in ("", "/file", "/link")]
        found = tuple((s["uid"], s["gid"]) for s in states)
        check(found == expected, f"cp {words} from image to image: {found}")
    # Of what was there, what was asked for changes and nothing else.
    there = out / "there"
    there.write_text("before")
    there.chmod(0o640)
    verbs("cp", "--owner", "5:6", ":/owned/file", there)
    check((of(there), there.stat().st_mode & 0o7777) == ((5, 6), 0o640), f"{there.stat()}")
    # Who cannot give files away is told so, and has the copy.
    mine = scratch.path("not mine")
    mine.mkdir()
    os.chown(mine, NOBODY, NOBODY)
    for option in (("--owner", "5:6"), ("--map-owner", "7:5"), ("-a", "--map-owner", "7:5")):
        verbs("cp", *option, ":/owned/file", mine / "file", status=NO, says=f"{mine / 'file'}: cannot be given to 5:",
              user=NOBODY)
        check((mine / "file").read_text(encoding="utf-8") == verbs("cat", ":/owned/file"), f"{option}")
        (mine / "file").unlink()
    verbs("cp", "--owner", f"{NOBODY}:{NOBODY}", ":/owned/file", mine / "file", user=NOBODY)
    mounting.clean(other.image)


def places_are_named(scratch, verbs):
    """What lies in an image is told with the image's name, one slash between names."""
    small = Verbs(scratch, scratch.image("small", "4M", "-t", "ext4"))
    large = scratch.path("large")
    large.write_bytes(os.urandom(8 << 20))
    small("cp", large, ":/", status=IMPOSSIBLE, says=f"uext4 cp: {small.image}:/large: ")
    small("cp", large, ":/named/", status=NO, says=f"uext4 cp: {small.image}:/named/: ")
    small("rm", ":/large")
    small("mkdir", ":/in")
    out = scratch.path("named")
    (out / "in").parent.mkdir()
    (out / "in").write_text("in the way")
    small("cp", "-a", ":/", f"{out}/", status=NO, says=f"uext4 cp: {out}/in: ")
    small("cp", "-a", f"{out}/.", ":/", status=NO, says=f"uext4 cp: {small.image}:/in: ")
    mounting.clean(small.image)


def test(scratch):
    verbs = prepare(scratch)
    copies(scratch, verbs)
    contents_of_no_files(scratch, verbs)
    contents_of_directories(scratch)
    closed_directories(scratch)
    permissions_arrive(scratch, verbs)
    told_when_closed(scratch, verbs)
    on_a_terminal(scratch, verbs)
    below_set_group_folders(scratch, verbs)
    owners(scratch, verbs)
    places_are_named(scratch, verbs)
    mounting.clean(verbs.image)


if __name__ == "__main__":
    mounting.main(test)
