#!/usr/bin/env python3
"""The options of cp, mv, ln, rm, mkdir, rmdir and truncate do what those of coreutils do.

Each command is run by coreutils in a folder, and by the program in an image with the same tree. Judged by what is there
afterwards, by what is printed and whether it failed, and by e2fsck. Usage: options_test.py PROGRAM
"""

import os
import pathlib
import shutil
import stat
import subprocess

from verbs import FINE, IMPOSSIBLE, NO, NOBODY, Verbs, check, mounting, prepare

# Words that begin with @ are paths. A command that ends with ! has to fail, by coreutils as well.
MV = """
mv @old @new
mv -f @old @new
mv -n @old @new
mv -n @old @nothing
mv -u @old @new
mv -u @new @old
mv -v @old @new
mv -fn @old @new
mv -nf @old @new
mv @old @d
mv @old @new @d
mv -v @old @new @d/s
mv @old @missing @new @d
mv @old @new @missing
mv @old @new @h1
mv -T @old @d
mv -T @e @d/s
mv -T @e @d
mv @d @e
mv @d @d
mv @d @d/s
mv @d @old
mv @old @old
mv @old @d/../old
mv @h1 @h2
mv @old @link
mv @link @d
mv @old @dlink
mv -T @old @dlink
mv @dangling @d
mv @full/old @old @d
mv @old @e/
mv @d @newname/
mv -v -u @new @old @full @d
""".split("\n")

LN = """
ln @old @name
ln -v @old @name
ln @old @new
ln -f @old @new
ln -f @old @old
ln -f @h1 @h2
ln -f @old @d/s
ln @old @d
ln -v @old @new @d
ln @old @missing @new @d
ln @old @new @nothing
ln @d @name
ln @link @name
ln @full/old @old @d
ln -T @old @d
ln -T @old @name
ln -s text @name
ln -sv text @name
ln -s text @new
ln -sf text @new
ln -s a/text b/other @d
ln -sf text @dlink
ln -sfn text @dlink
ln -sn text @dlink
ln -sT text @dlink
ln -sfT text @dlink
ln -sf text @dangling
ln -sf text @d/s
ln -s / @name
""".split("\n")

RM = """
rm @old
rm -v @old @new
rm @old @missing @new
rm -f @missing @old
rm --force @missing @old
rm @d
rm -d @e
rm -d @d
rm -dv @e
rm --recursive @d
rm -rv @d @old
rm -Rf @d @missing
rm -r -f -v @dlink
rm @dangling @link
rmdir @e
rmdir @d @e @old
mkdir @new1 @d/new2
mkdir -m 700 @new1
mkdir -p -m 2750 @new1/new2
mkdir -m u=rwx,g=rx,o= @new1
mkdir -m go-w,+t @new1
mkdir --mode=u=q @new1
mkdir -v @new1 @old @new2
mkdir -pv @d/s/t/u @old/x @new1
""".split("\n")

TRUNCATE = """
truncate -s 3 @new
truncate -s +3 @new @old
truncate -s -2 @new
truncate -s -2000 @new
truncate -s <2 @new @old
truncate -s >4 @new @old
truncate -s /4 @new
truncate -s %4 @new
truncate -s %4K @new @old
truncate -s 2k @nothing
truncate -c -s 2k @nothing @old
truncate --no-create --size=2k @nothing
truncate -r @old @new @nothing
truncate -r @old -s +7 @new
truncate -r @old -s 7 @new
truncate -r @missing @new
truncate -s 3 @d @new
truncate @new
truncate -s %0 @new
""".split("\n")

CP = """
cp @old @new
cp -n @old @new
cp -n @old @nothing
cp -n @old @new @d
cp -u @old @new
cp -u @new @old
cp -u @old @new @full
cp -v @old @new
cp -v @old @new @d
cp -rv @d @e
cp -rv @d/. @e
cp -vn @old @new
cp -p @old @name
cp -p @exec @new
cp -rp @d @name
cp -pr @d/. @e
cp -d @link @name
cp -P @link @name
cp -P @link @new
cp -d @dangling @name
cp -L @link @name
cp -L @dangling @name
cp @link @name
cp -H @link @name
cp -P @d @name
cp -d @h1 @h2 @d
cp @h1 @h2 @d
cp -r @d @name
cp -rL @d @name
cp -rH @dlink @name
cp -rL @dlink @name
cp -rP @dlink @name
cp -r @dlink @name
cp -RLP @dlink @name
cp -RPL @dlink @name
cp -aL @d @name
cp -La @d @name
cp -rd @hard @name
cp -r @hard @name
cp -a @hard @name
cp -rL @circle @name
cp -d @old @h1
cp -p @old @h1
cp -f @old @new
cp --force --update --verbose @new @old
cp --no-clobber --recursive @full @d
cp -f @old @d
cp -ru @full @d
cp @old @missing @new @d
""".split("\n")

TIMES = ("-p", "-rp", "-pr", "-a", "-aL", "-La")


def plant(top):
    """What there is before each command."""
    for folder in ("d/s", "e", "full/old2", "hard", "circle/in"):
        (top / folder).mkdir(parents=True)
    for name, content in (("old", "the old one"), ("new", "new"), ("d/f", "in d"), ("full/old", "in full"), ("full/f", "newer f"),
                          ("h1", "two names"), ("hard/1", "hard"), ("exec", "#!"), ("circle/f", "f")):
        (top / name).write_text(content)
    os.link(top / "h1", top / "h2")
    os.link(top / "hard/1", top / "hard/2")
    for name, text in (("link", "old"), ("dlink", "d"), ("dangling", "nowhere"), ("d/up", "../old"), ("d/dir", "../full"),
                       ("circle/in/up", "..")):
        (top / name).symlink_to(text)
    os.chmod(top / "exec", 0o751)
    os.chmod(top / "d", 0o750)
    for number, (folder, folders, files) in enumerate(os.walk(top, topdown=False)):
        for name in folders + files:
            os.utime(os.path.join(folder, name), (2000 + number, 1000 + number), follow_symlinks=False)
    os.utime(top / "new", (2 * 10**9, 10**9))
    os.utime(top / "full/f", (2 * 10**9, 10**9))
    os.utime(top, (5, 5))


def snapshot(top, times):
    """Names, kinds, permissions, contents and texts; which names are of one file; times, if they count."""
    out, inodes = {}, {}
    for folder, folders, files in os.walk(top):
        folders.sort()
        for name in sorted(folders + files):
            path = os.path.join(folder, name)
            info = os.lstat(path)
            key = os.path.relpath(path, top)
            content = os.readlink(path) if stat.S_ISLNK(info.st_mode) else ""
            if stat.S_ISREG(info.st_mode):
                content = pathlib.Path(path).read_bytes()
            mode = 0 if stat.S_ISLNK(info.st_mode) else info.st_mode
            first = inodes.setdefault(info.st_ino, key) if not stat.S_ISDIR(info.st_mode) else ""
            out[key] = (stat.S_IFMT(info.st_mode), mode, content, first, info.st_mtime_ns if times and content else 0)
    return out


class Both:
    def __init__(self, scratch):
        self.program, self.folder = scratch.program, scratch.path("both")
        self.folder.mkdir()
        self.base = scratch.image("base", "16M", "-t", "ext4")
        planted = self.folder / "planted"
        planted.mkdir()
        plant(planted)
        subprocess.run([self.program, "cp", "-a", f"{planted}/.", f"{self.base}:/"], check=True)
        subprocess.run([self.program, "rmdir", f"{self.base}:/lost+found"], check=True)
        self.count = 0

    def words_for_image(self, verb, words, image):
        seen = False
        for before, word in zip(("", *words), words):
            if not word.startswith("@"):
                yield word
                continue
            yield f":/{word[1:]}" if seen else f"{image}:/{word[1:]}"
            seen = seen or verb != "truncate" or before != "-r"  # the value of an option is no operand

    def __call__(self, line):
        verb, *words = line.split()
        host, image, out = (self.folder / name for name in ("host", "i", "out"))
        for old in (host, out):
            shutil.rmtree(old, ignore_errors=True)
        host.mkdir()
        plant(host)
        out.mkdir()
        subprocess.run(["cp", "--sparse=always", self.base, image], check=True)
        expected = subprocess.run([verb, *(word.lstrip("@") for word in words)], cwd=host, capture_output=True, text=True, check=False)
        own = subprocess.run([self.program, verb, *self.words_for_image(verb, words, "i")], cwd=self.folder, capture_output=True, text=True,
                             check=False)
        check(own.returncode in (FINE, NO, IMPOSSIBLE), f"{line}: {own}")
        check((own.returncode == 0) == (expected.returncode == 0), f"{line}:\n{own}\n{expected}")
        printed = sorted(line.removeprefix(f"{verb}: ").replace("/./", "/") for line in expected.stdout.splitlines())
        told = sorted(line.replace("i:/", "").replace("/./", "/") for line in own.stdout.splitlines())
        check(printed == told, f"{line}: printed {told}, not {printed}")
        subprocess.run([self.program, "cp", "-a", "i:/.", out], cwd=self.folder, check=True)
        times = any(word in TIMES for word in words)
        there, wanted = snapshot(out, times), snapshot(host, times)
        different = sorted(key for key in there.keys() | wanted.keys() if there.get(key) != wanted.get(key))
        check(not different, f"{line}: {[(key, there.get(key), wanted.get(key)) for key in different]}\n{own}\n{expected}")
        self.count += 1
        if self.count % 10 == 0 or own.returncode:
            mounting.clean(image)


def out_and_in(scratch, verbs):
    """The same options between the host and an image."""
    folder = scratch.path("out and in")
    folder.mkdir()
    plant(folder)
    verbs("mkdir", ":/t")
    verbs("cp", "-p", folder / "exec", ":/t/exec")
    status = verbs.status("/t/exec")
    check(status["mode"].endswith("rwxr-x--x") and status["uid"] == 0, f"{status}")
    os.chown(folder / "exec", 5, 6)
    verbs("cp", "-p", folder / "exec", ":/t/exec")
    check((verbs.status("/t/exec")["uid"], verbs.status("/t/exec")["gid"]) == (5, 6), "cp -p keeps owners")
    verbs("cp", "-P", folder / "link", ":/t/link")
    verbs("cp", "-L", folder / "link", ":/t/followed")
    check((verbs.status("/t/link")["target"], verbs("cat", ":/t/followed")) == ("old", "the old one"), "cp -P and -L of the host")
    verbs("cp", "-rL", folder / "d", ":/t/d")
    check((verbs("cat", ":/t/d/up"), verbs("cat", ":/t/d/dir/f")) == ("the old one", "newer f"), "cp -rL out of the tree that is named")
    verbs("cp", "-rL", folder / "circle", ":/t/circle", status=NO, says="a directory that it lies in")
    check(verbs("ls", ":/t/circle/in") == "", "a circle of links")
    target = folder / "target"
    for option, expected in (("-n", "new"), ("-u", "new"), ("-f", "the old one")):
        target.write_text("new")
        verbs("cp", target, ":/t/target")
        verbs("cp", option, folder / "old", ":/t/target")
        check(verbs("cat", ":/t/target") == expected, f"cp {option} in")
        verbs("cp", "-p", folder / "old", ":/t/old")
        verbs("cp", option, ":/t/old", target)
        check(target.read_text() == expected, f"cp {option} out")
    verbs("cp", "-P", ":/t/link", folder / "link out")
    check(os.readlink(folder / "link out") == "old", "cp -P out")
    verbs("cp", "-rL", ":/t/d", folder / "d out")
    check((folder / "d out/up").read_text() == "the old one", "cp -rL out")
    # What cannot be written to is replaced.
    own = scratch.path("own")
    own.mkdir()
    os.chown(own, NOBODY, NOBODY)
    (own / "locked").write_text("locked")
    os.chown(own / "locked", NOBODY, NOBODY)
    os.chmod(own / "locked", 0o444)
    verbs("cp", ":/t/followed", own / "locked", status=IMPOSSIBLE, user=NOBODY)
    verbs("cp", "-f", ":/t/followed", own / "locked", user=NOBODY)
    check((own / "locked").read_text() == "the old one", "cp -f out")
    verbs("mknod", ":/t/fifo", "p")
    verbs("cp", folder / "old", ":/t/fifo", status=NO)
    verbs("cp", "-f", folder / "old", ":/t/fifo")
    check(verbs("cat", ":/t/fifo") == "the old one", "cp -f in")


def old_inodes(scratch):
    """-u with times that the image cannot hold."""
    verbs = Verbs(scratch, scratch.image("old inodes", "8M", "-t", "ext4", "-I", "128"))
    source = scratch.path("source of old inodes")
    source.write_text("1")
    os.utime(source, ns=(5 * 10**9 + 5, 5 * 10**9 + 5))
    verbs("cp", "-pu", source, ":/f")
    check(verbs("cp", "-puv", source, ":/f") == "", "as new as its source")
    os.utime(source, ns=(6 * 10**9 + 5, 6 * 10**9 + 5))
    check("->" in verbs("cp", "-puv", source, ":/f"), "older than its source")


def streams(scratch, verbs):
    """- is standard input or output, of cp and cat."""
    def run(*words, standard_input=b"", status=FINE, says=b""):
        result = subprocess.run([verbs.program, *map(str, words)], input=standard_input, capture_output=True, check=False)
        check(result.returncode == status and says in result.stderr, f"{words}: {result}")
        return result.stdout

    long = os.urandom(3 << 20)
    image = str(verbs.image)
    run("cp", "-", f"{image}:/stream", standard_input=long)
    check(run("cp", f"{image}:/stream", "-") == long, "through standard input and output")
    run("cp", "--mode", "600", "--owner", "7:8", "-", f"{image}:/stream", standard_input=b"short")
    status = verbs.status("/stream")
    check((status["size"], status["uid"], status["mode"]) == (5, 7, "-rw-------"), f"{status}")
    check(run("cp", f"{image}:/stream", "-") == b"short" == run("cat", f"{image}:/stream"), "shorter")
    run("cp", "-n", "-", f"{image}:/stream", standard_input=b"other")
    check(run("cat", f"{image}:/stream") == b"short", "cp -n - ")
    check(run("cat", "-", standard_input=long) == long, "cat -")
    with open(verbs.image, "rb") as stream:
        result = subprocess.run([verbs.program, "cp", "-", f"{image}:/itself"], stdin=stream, capture_output=True, check=False)
        check(result.returncode == NO and b"is the image" in result.stderr, f"{result}")
    for words, said in ((("cp", "-", f"{image}:/"), b"has no name"), (("cp", "-", f"{image}:/stream", f"{image}:/"), b"one source"),
                        (("cp", "-", "-"), b"neither side"), (("cp", "-", "out"), b"neither side"), (("cp", "out", "-"), b"neither side"),
                        (("cp", "-a", "-", f"{image}:/x"), b"-a asks for more"), (("cp", "-v", f"{image}:/stream", "-"), b"-v asks for more"),
                        (("cp", f"{image}:/", "-"), b""), (("rm", "-"), b"-: ")):
        run(*words, status=NO if said in (b"", b"has no name") else IMPOSSIBLE, says=said)
    folder = scratch.path("streams")
    folder.mkdir()
    (folder / "-").write_text("a file")
    result = subprocess.run([verbs.program, "cp", "./-", f"{image}:/dash"], cwd=folder, check=True)
    check(result.returncode == 0 and run("cat", f"{image}:/dash") == b"a file", "./-")


def lost_names(verbs):
    """ln -f leaves one of the two names at any time, and none of its own."""
    verbs("mkdir", ":/lost")
    verbs("cp", "/etc/hostname", ":/lost/f")
    verbs("ln", "-s", "x", ":/lost/.uext4-ln-0")
    verbs("ln", "-sf", "text", ":/lost/f")
    verbs("ln", "-f", ":/file", ":/lost/f")
    check(verbs("ls", "-A", ":/lost").split() == [".uext4-ln-0", "f"], verbs("ls", "-A", ":/lost"))
    # Without room for a link the old name stays.
    verbs("chattr", "+i", ":/lost/f")
    verbs("ln", "-sf", "text", ":/lost/f", status=NO)
    verbs("chattr", "-i", ":/lost/f")
    check(verbs("ls", "-A", ":/lost").split() == [".uext4-ln-0", "f"], verbs("ls", "-A", ":/lost"))


def test(scratch):
    verbs = prepare(scratch)
    both = Both(scratch)
    for lines in (MV, LN, RM, TRUNCATE, CP):
        for line in lines:
            if line:
                both(line)
    out_and_in(scratch, verbs)
    old_inodes(scratch)
    streams(scratch, verbs)
    lost_names(verbs)
    mounting.clean(verbs.image)
    print(f"{both.count} commands as by coreutils")


if __name__ == "__main__":
    mounting.main(test)
