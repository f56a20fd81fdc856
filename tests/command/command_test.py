#!/usr/bin/env python3
"""The command's verbs as scripts use them: exit codes, words that are wrong, copies, owners, and a terminal.

Judged by e2fsck. Usage: command_test.py PROGRAM
"""

import hashlib
import json
import os
import pathlib
import pty
import re
import shutil
import socket
import stat
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "mount"))
import mounting  # noqa: E402  (lies in the folder beside)
from mounting import check  # noqa: E402

FINE, NO, IMPOSSIBLE = 0, 1, 2
NOBODY = 65534


class Verbs:
    def __init__(self, scratch, image):
        self.program, self.image = scratch.program, image

    def __call__(self, *words, status=FINE, says="", user=None):
        """Runs a verb; a word that begins with ':' is a path of the image. Returns what it printed."""
        command = [self.program, *(f"{self.image}{word}" if str(word).startswith(":") else str(word) for word in words)]
        identity = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        result = subprocess.run(command, capture_output=True, text=True, check=False, **identity)
        check(result.returncode == status, f"{command}: {result.returncode}, not {status}\n{result.stdout}{result.stderr}")
        check(says in result.stderr, f"{command}: {result.stderr!r} does not say {says!r}")
        check(status == FINE or result.stderr.startswith(f"uext4 {words[0]}: "),
              f"{command}: {result.stderr!r} does not name the verb")
        return result.stdout

    def status(self, path):
        return json.loads(self("stat", "--json", f":{path}"))


def digest(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def wrong_words(verbs):
    """A word that is wrong is named, with exit code 2, and nothing was changed."""
    verbs("mkdir", ":/there")
    before = digest(verbs.image)
    for words in (("chmod", "7777777777777777777777777777", ":/there"), ("chmod", "10000", ":/there"),
                  ("chmod", "78", ":/there"), ("chmod", "", ":/there"), ("chmod", "u+q", ":/there"),
                  ("chown", "99999999999", ":/there"), ("chown", "5x", ":/there"), ("chown", "4294967295", ":/there"),
                  ("chown", "5:", ":/there"), ("chown", " 5", ":/there"), ("chown", "+5", ":/there"),
                  ("mkdir", "--owner", "5x:6y", ":/new"), ("mkdir", "--owner=-1:5", ":/new"),
                  ("mkdir", "--mode", "7x", ":/new"), ("mkdir", "--mode", "9" * 30, ":/new"),
                  ("mknod", "--mode", "9" * 30, ":/new", "p"), ("cp", "--mode", "7x", "/etc/hostname", ":/new"),
                  ("cp", "--owner", "5", "/etc/hostname", ":/new"), ("cp", "--map-owner", "1:2:3", "/etc/hostname", ":/new"),
                  ("label", verbs.image, "seventeen letters"), ("truncate", "-s", "5x", ":/there"),
                  ("setfattr", "-n", "user.a", "-v", "0xabc", ":/there"),
                  ("chmod", "u=gr", ":/there"), ("chmod", "u=,", ":/there"), ("chmod", ",u+r", ":/there"),
                  ("chmod", "u", ":/there"), ("chmod", "u=7", ":/there"), ("chmod", "=77777", ":/there"),
                  ("chattr", "+?", ":/there"), ("chattr", "i", ":/there"), ("chattr", "+", ":/there")):
        verbs(*words, status=IMPOSSIBLE)
    for words in (("mknod", ":/new", "c", "99999999", "1"), ("mknod", ":/new", "c", "1", "1048576"),
                  ("mknod", ":/new", "c"), ("mknod", ":/new", "p", "1", "3"), ("mknod", ":/new", "x"), ("ls",),
                  ("nothing", ":/there")):
        command = [verbs.program, *(f"{verbs.image}{word}" if word.startswith(":") else word for word in words)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        check(result.returncode == IMPOSSIBLE and result.stderr, f"{command}: {result.returncode} {result.stderr}")
    check(digest(verbs.image) == before, "a wrong word changed the image")


def questions(verbs):
    """Answers that are no, and places that are files or directories, for every verb that reads."""
    verbs("cp", "/etc/hostname", ":/file")
    for verb in ("ls", "tree", "stat", "df", "info"):
        verbs(verb, ":/there")
        verbs(verb, verbs.image)
        verbs(verb, ":/missing", status=NO, says=str(verbs.image))
        json.loads(verbs(verb, "--json", ":/there"))
    verbs("cat", ":/missing", status=NO, says="missing")
    verbs("cat", ":/there", status=NO)
    verbs("rmdir", ":/file", status=NO)
    verbs("check", verbs.image)
    verbs("ls", "/missing.img", status=IMPOSSIBLE, says="/missing.img")
    check(verbs("cat", ":/file") == pathlib.Path("/etc/hostname").read_text(encoding="utf-8"), "cat")
    number = verbs.status("/file")["inode"]
    check(verbs.status(f"<{number}>")["inode"] == number, "an inode by its number")


def numbers(scratch, verbs):
    """A place that is an inode's number: its contents can be given to it, and it is never a name."""
    other = scratch.path("other contents")
    other.write_text("other contents")
    verbs("cp", "/etc/hostname", ":/numbered")
    before = verbs.status("/numbered")
    number = f"<{before['inode']}>"
    verbs("cp", other, f":{number}")
    check(verbs("cat", ":/numbered") == "other contents", "the contents of an inode by its number")
    after = verbs.status("/numbered")
    check(all(before[key] == after[key] for key in ("inode", "uid", "gid", "mode", "links")), f"{before} {after}")
    inside = f"<{verbs.status('/there')['inode']}>/by number"
    verbs("mkdir", f":{inside}")
    check(verbs.status(inside) | {"name": 0} == verbs.status("/there/by number") | {"name": 0}, "below a number")
    verbs("cp", "-a", scratch.folder, f":{number}", status=NO, says="by number")
    for words in (("cp", other, ":<999>"), ("cp", other, ":<99999999>"), ("mkdir", f":{number}"), ("mkdir", ":<999>"),
                  ("rm", f":{number}"), ("rm", "-r", ":<2>"), ("rmdir", ":<2>"), ("mv", f":{number}", ":/moved"),
                  ("ln", ":/numbered", ":<999>"), ("ln", "-s", "text", ":<999>"), ("mknod", ":<999>", "p"),
                  ("touch", ":<999>"), ("truncate", "-s", "0", ":<999>"), ("cat", ":<7>"), ("fiemap", ":<7>"),
                  # The journal is looked at, and only the file system changes it.
                  ("cp", other, ":<8>"), ("truncate", "-s", "0", ":<8>"), ("ln", ":<8>", ":/journal"),
                  ("touch", ":<8>"), ("chmod", "777", ":<8>"), ("chown", "5", ":<8>"), ("chattr", "+i", ":<8>"),
                  ("setfattr", "-n", "user.a", "-v", "a", ":<8>"), ("setfattr", "-x", "user.a", ":<8>")):
        verbs(*words, status=NO)
    for verb in ("stat", "fiemap", "lsattr", "getfattr"):
        verbs(verb, ":<8>")
    check(all("<" not in name for name in verbs("ls", ":/").split("\n")), "a number became a name")
    mounting.clean(verbs.image)


def dots(verbs):
    """rm of "." or ".." is refused before anything below is gone."""
    verbs("mkdir", "-p", ":/dots/below")
    verbs("cp", "/etc/hostname", ":/dots/below/file")
    for place in ("/dots/below/..", "/dots/below/.", "/dots/.", "/dots/below/../", "/dots/../dots/./", "/.", "/..", "/dots/.."):
        verbs("rm", "-r", f":{place}", status=NO, says="cannot be removed")
        verbs("rm", "-rf", f":{place}", status=NO, says="cannot be removed")
    for word in (".", "..", "below/..", "./", "../"):
        result = subprocess.run([verbs.program, "shell", verbs.image], input=f"cd /dots\nrm -r {word}\n", text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        check("cannot be removed" in result.stdout, f"rm -r {word}: {result.stdout}")
    check(verbs.status("/dots/below/file")["size"] > 0, "what was below is gone")
    verbs("rm", "-r", ":/dots/below/../below/")
    check(verbs("ls", ":/dots") == "", "a directory with a slash behind its name stays")
    verbs("rm", "-r", ":/dots")


def owners(scratch, verbs):
    """Who runs a verb owns what it makes."""
    for words, path in ((("mkdir", ":/by nobody"), "/by nobody"), (("touch", ":/touched"), "/touched"),
                        (("mknod", ":/fifo", "p"), "/fifo"), (("ln", "-s", "text", ":/link"), "/link"),
                        (("mkdir", "--owner", "7:8", ":/of 7"), "/of 7"), (("cp", "/etc/hostname", ":/copied"), "/copied")):
        verbs(*words, user=NOBODY)
        status = verbs.status(path)
        expected = (7, 8) if path == "/of 7" else (NOBODY, NOBODY)
        check((status["uid"], status["gid"]) == expected, f"{path} belongs to {status['uid']}:{status['gid']}")


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
    folder = scratch.path("of nobody")
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    verbs("cp", "-a", ":/set-id", folder, user=NOBODY)
    check(stat.S_IMODE(os.stat(folder / "set-id").st_mode) == 0o755, "a set-id bit of somebody else")
    verbs("cp", "-a", ":/set-id", out)
    check(stat.S_IMODE(os.stat(out / "set-id").st_mode) == 0o4755, "root keeps set-id bits")


def slashes(scratch, verbs):
    """A path that goes on with a slash is a directory's: nothing else is made, moved or removed there, as by cp(1)."""
    verbs("mkdir", ":/slashes", ":/slashes/directory")
    verbs("cp", "/etc/hostname", ":/slashes/file")
    before = verbs("ls", ":/slashes")
    host = scratch.path("no directory")
    for words in (("cp", "/etc/hostname", ":/slashes/new/"), ("cp", "/etc/hostname", ":/slashes/file/"),
                  ("cp", "-a", "/etc/hostname", ":/slashes/new/"), ("cp", ":/slashes/file", f"{host}/"),
                  ("cp", ":/slashes/file", ":/slashes/new/"), ("cp", ":/slashes/file/", host),
                  ("touch", ":/slashes/new/"), ("touch", ":/slashes/file/"), ("truncate", "-s", "1", ":/slashes/new/"),
                  ("ln", "-s", "text", ":/slashes/new/"), ("ln", ":/slashes/file", ":/slashes/new/"),
                  ("mknod", ":/slashes/new/", "p"), ("mv", ":/slashes/file", ":/slashes/new/"),
                  ("mv", ":/slashes/file/", ":/slashes/new"), ("rm", ":/slashes/file/"), ("rm", "-r", ":/slashes/file/")):
        verbs(*words, status=NO)
    check(verbs("ls", ":/slashes") == before and not host.exists(), f"{verbs('ls', ':/slashes')}, {before} before")
    source = scratch.path("directory with a slash")
    source.mkdir()
    verbs("mv", ":/slashes/directory", ":/slashes/moved/")
    verbs("mkdir", ":/slashes/made/")
    verbs("mkdir", "-p", "--mode", "700", ":/slashes/parents/too//")
    verbs("cp", "-r", source, ":/slashes/copied/")
    check(verbs("ls", ":/slashes").split() == ["copied", "file", "made", "moved", "parents"], "directories with a slash")
    check(verbs.status("/slashes/parents/too")["mode"] == "drwx------", "the mode of a directory with a slash")


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


def to_no_files(scratch, verbs, out):
    """Devices, pipes and files that are there get the contents, and stay what they are."""
    null = out / "device"
    verbs("cp", ":/file", null)
    check(stat.S_IMODE(os.stat(null).st_mode) == 0o666 and stat.S_ISCHR(os.stat(null).st_mode), "a device was changed")
    check(verbs("cp", ":/file", "/dev/stdout") == verbs("cat", ":/file"), "/dev/stdout")
    there = out / "there"
    there.write_text("long contents " * 100)
    os.chmod(there, 0o604)
    os.symlink("there", out / "link")
    os.symlink("missing", out / "dangling")
    verbs("cp", ":/file", out / "link")
    check(there.read_text() == verbs("cat", ":/file"), "through a link")
    check(stat.S_IMODE(os.stat(there).st_mode) == 0o604, "a file that is there has other permissions")
    verbs("cp", ":/file", out / "dangling", status=NO, says="nowhere")
    verbs("cp", "-r", ":/file", out / "link", status=IMPOSSIBLE)
    verbs("cp", "-a", ":/file", there)
    check(stat.S_IMODE(os.stat(there).st_mode) != 0o604 and not (out / "missing").exists(), "with -a")


MODES = ("=", "+", "-", "u=g", "u+g-x", "g=u+x", "u=rw+x-w", "a=,u+r", "+X,u+x+X", "o+t", "a=t", "u+s,u=", "g+s,g=x",
         "o=u,g=o", "u+", "u==r", "=7", "+7", "-111", "a=rx", "g=", "u-s", "=,ug+s", "go-u", "a+rwXst")


def changes(scratch, verbs):
    """Permissions and flags are changed by the same words as by chmod(1) and chattr(1)."""
    host = scratch.path("changes")
    host.mkdir()
    (host / "file").touch()
    (host / "directory").mkdir()
    verbs("cp", "-a", host, ":/changes")
    lines, expected = "", []
    for path in ("file", "directory"):
        for change in MODES:
            lines += f"chmod 2754 /changes/{path}\nchmod {change} /changes/{path}\nstat /changes/{path}\n"
            os.chmod(host / path, 0o2754)
            mounting.run("chmod", change, host / path, umask=0)
            expected.append(stat.filemode(os.stat(host / path).st_mode)[1:])
    shown = subprocess.run([verbs.program, "shell", verbs.image], input=lines, text=True, check=True, capture_output=True).stdout
    found = re.findall(r"mode: .(.*)", shown)
    words = [f"{change} of a {path}" for path in ("file", "directory") for change in MODES]
    wrong = [(w, f, e) for w, f, e in zip(words, found, expected, strict=True) if f != e]
    check(not wrong, f"chmod: what, as it is, as it is with chmod(1): {wrong}")
    verbs("chattr", "+dA", ":/changes/file")
    verbs("chattr", "=", ":/changes/file")
    check(set(verbs("lsattr", ":/changes/file").split()[0]) <= {"-", "e"}, f"chattr =: {verbs('lsattr', ':/changes/file')}")


def nowhere_to_write(verbs):
    """What could not be printed was not done, the help and the version as well."""
    for redirection in (">/dev/full", ">&-"):
        for words in ("--help", "--version", "version", "cp --help", f"ls '{verbs.image}'", f"info '{verbs.image}'"):
            code = subprocess.run(["bash", "-c", f"exec '{verbs.program}' {words} {redirection}"], check=False,
                                  stderr=subprocess.PIPE).returncode
            check(code == IMPOSSIBLE, f"{words} {redirection}: {code}")
    subprocess.run(["bash", "-c", f"exec '{verbs.program}' mkdir '{verbs.image}:/said nothing' >&- <&- 2>&-"], check=True)


def sentences(verbs):
    """What is no damage is not told as if it were one, and what is wrong is named."""
    verbs("mknod", ":/null", "c", "1", "3")
    verbs("fiemap", ":/null", status=NO, says="has no extents")
    result = subprocess.run([verbs.program, "cp", f"{verbs.image}:/file", f"{verbs.image}:/file again"], check=False,
                            capture_output=True, text=True, env=os.environ | {"TMPDIR": "/nonexistent"})
    check(result.returncode == IMPOSSIBLE and "/nonexistent (TMPDIR)" in result.stderr, f"{result}")
    verbs("ls", ":/file again", status=NO)


def in_terminal(*command):
    """Runs a command on a terminal of its own: its exit code and all that it showed."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(command[0], command)
    shown = b""
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        shown += piece
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown


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
        check(status["mtime"] == "2001-01-01 00:02:03.000000004 UTC", f"{target}: {status}")
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


ODD_NAMES = (b"\xff", b"\xfe", b"\x01\x1b[31m", b"a\\b", "\u00fc".encode(), b"\xc2\x9b31m")


def names_as_bytes(scratch):
    """Names that are no UTF-8 can be told apart in JSON; those that a terminal would obey are shown to it as text."""
    verbs = Verbs(scratch, scratch.image("bytes", "8M", "-t", "ext4"))
    source = os.fsencode(scratch.path("odd names"))
    os.mkdir(source)
    for name in ODD_NAMES:
        with open(os.path.join(source, name), "wb"):
            pass
    os.symlink(b"to \xfd", os.path.join(source, b"link"))
    os.setxattr(os.path.join(source, b"\xff"), b"user.\xfa", b"\xf9")
    os.setxattr(os.path.join(source, b"\xff"), b"user.text", b"text")
    verbs("cp", "-a", scratch.path("odd names"), ":/odd")

    def real(entry, key="name"):
        return bytes.fromhex(entry[key + "_bytes"]) if key + "_bytes" in entry else entry[key].encode()

    entries = json.loads(verbs("ls", "--json", ":/odd"))
    check({real(e) for e in entries} == {*ODD_NAMES, b"link"}, f"{entries}")
    check([real(e, "target") for e in entries if "target" in e] == [b"to \xfd"], f"{entries}")
    check([e["name_bytes"] for e in entries if e["name"] == "\ufffd"] == ["fe", "ff"], f"{entries}")
    check(sum("name_bytes" in e for e in entries) == 2, "a name in UTF-8 needs no bytes")
    tree = json.loads(verbs("tree", "--json", ":/odd"))
    check({real(e) for e in tree} == {*ODD_NAMES, b"link"}, f"{tree}")
    place = os.fsencode(f"{verbs.image}:/odd/") + b"\xff"
    attributes = json.loads(verbs("getfattr", "--json", os.fsdecode(place)))
    check({real(a): real(a, "value") for a in attributes} == {b"user.\xfa": b"\xf9", b"user.text": b"text"},
          f"{attributes}")
    # To a pipe the bytes themselves, to a terminal none that it would obey.
    plain = subprocess.run([verbs.program, "ls", f"{verbs.image}:/odd"], capture_output=True, check=True).stdout
    check(set(plain.split(b"\n")) == {*ODD_NAMES, b"link", b""}, f"{plain!r}")
    for words in (("ls",), ("ls", "-l"), ("tree",), ("ls", "--json"), ("stat",), ("check",)):
        status, shown = in_terminal(verbs.program, *words, f"{verbs.image}:/odd" if words != ("check",) else str(verbs.image))
        check(status == FINE and not re.search(rb"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f]|\xc2[\x80-\x9f]", shown), f"{words}: {shown!r}")
        if words in (("ls",), ("tree",)):
            for text in (rb"\377", rb"\376", rb"\001\033[31m", rb"a\\b", "\u00fc".encode(), rb"\302\23331m"):
                check(text + b"\r\n" in shown, f"{words}: {text!r} is not in {shown!r}")
    status, shown = in_terminal(verbs.program, "cat", os.fsdecode(b"%s:/\x1b[31m" % os.fsencode(str(verbs.image))))
    check(status == NO and rb"\033[31m" in shown and b"\x1b" not in shown, f"a message: {shown!r}")


def links_themselves(verbs):
    """-h is what it is in chown(1), and never a way to ask for help that ends well and changes nothing."""
    verbs("ln", "-s", "file", ":/to file")
    before = verbs.status("/file")
    verbs("chown", "-h", "11:12", ":/to file")
    verbs("touch", "-h", ":/to file")
    verbs("setfattr", "-h", "-n", "trusted.a", "-v", "a", ":/to file")
    check(verbs("getfattr", "-h", ":/to file") == 'trusted.a="a"\n', "an attribute of a link")
    link = verbs.status("/to file")
    check((link["uid"], link["gid"]) == (11, 12) and link["mtime"] > before["mtime"], f"{link}")
    check(verbs.status("/file") == before, "-h changed what the link leads to")
    verbs("chown", "13:14", ":/to file")
    check(verbs.status("/file")["uid"] == 13 and verbs.status("/to file")["uid"] == 11, "without -h a link is followed")
    check("--no-dereference" in verbs("chown", "--help"), "chown --help")


def shell(verbs):
    """From a pipe: the worst exit code of all lines."""
    for lines, expected in (("ls\npwd\n", FINE), ("cat missing\nls\n", NO), ("bogus\nls\n", IMPOSSIBLE),
                            ("cd missing\n", NO), ("chmod 99 there\ncat missing\n", IMPOSSIBLE),
                            ("touch 'not closed\nls\n", IMPOSSIBLE), ('touch "not closed\nls\n', IMPOSSIBLE)):
        result = subprocess.run([verbs.program, "shell", verbs.image], input=lines, capture_output=True, text=True,
                                check=False)
        check(result.returncode == expected, f"{lines!r}: {result.returncode}, not {expected}\n{result.stderr}")
    check("not closed" not in verbs("ls", ":/"), "a line whose quote does not end was done")


def small_logs(scratch):
    """Whatever features an image has, its names can be moved: a log of 1,024 blocks is mke2fs's own choice."""
    for block in (1024, 2048, 4096):
        size = "24M" if block == 1024 else "64M"
        image = scratch.image(f"small{block}", size, "-t", "ext4", "-b", str(block), "-I", "256", "-O", "inline_data,ea_inode")
        verbs = Verbs(scratch, image)
        for path in (":/a", ":/b", ":/a/d", ":/b/e"):
            verbs("mkdir", path)
        for path in (":/a/f", ":/b/f", ":/a/g"):
            verbs("cp", "/etc/hostname", path)
        verbs("mv", ":/a/f", ":/b/f")
        verbs("mv", ":/a/d", ":/b/d")
        verbs("mv", ":/a/g", ":/b/e/g")
        mounting.clean(image)
        inherits(scratch, image)
        mounting.clean(image)


def inherits(scratch, image):
    """Files and directories in one with a default access list."""
    directory = scratch.mount(image)
    mounting.run("setfacl", "-d", "-m", "u:1:rwx,g:2:r", directory / "a")
    for number in range(5):
        os.mkdir(directory / "a" / f"directory {number}")
        (directory / "a" / f"file {number}").write_text("x")
        os.chmod(directory / "a" / f"file {number}", 0o640)
    scratch.umount(directory)


def test(scratch):
    mounting.need_mount()  # and root: owners are changed, and verbs run as somebody else
    mounting.need("setfacl")
    verbs = Verbs(scratch, scratch.image("image", "64M", "-t", "ext4"))
    os.chmod(scratch.folder, 0o755)
    os.chown(verbs.image, NOBODY, NOBODY)
    wrong_words(verbs)
    questions(verbs)
    numbers(scratch, verbs)
    copies(scratch, verbs)
    slashes(scratch, verbs)
    contents_of_no_files(scratch, verbs)
    changes(scratch, verbs)
    nowhere_to_write(verbs)
    sentences(verbs)
    links_themselves(verbs)
    shell(verbs)
    dots(verbs)
    contents_of_directories(scratch)
    closed_directories(scratch)
    names_as_bytes(scratch)
    on_a_terminal(scratch, verbs)
    owners(scratch, verbs)
    mounting.clean(verbs.image)
    small_logs(scratch)


if __name__ == "__main__":
    mounting.main(test)
