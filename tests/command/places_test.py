#!/usr/bin/env python3
"""Words and places: what is wrong is named, numbers, dots, slashes, and answers that are no.

Judged by e2fsck. Usage: places_test.py PROGRAM
"""

import json
import os
import pathlib
import re
import subprocess

from verbs import IMPOSSIBLE, NO, Verbs, check, digest, mounting, prepare


def wrong_words(verbs):
    """A word that is wrong is named, with exit code 2, and nothing was changed."""
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
                  ("chattr", "+?", ":/there"), ("chattr", "i", ":/there"), ("chattr", "+", ":/there"),
                  # Nothing is taken and ignored.
                  ("chown", "", ":/there"), ("mkdir", "--owner", "", ":/new"), ("mkdir", "--mode", "", ":/new"),
                  ("mknod", "--mode", "", ":/new", "p"), ("mknod", "--owner", "", ":/new", "p"),
                  ("cp", "--owner", "", "/etc/hostname", ":/new"), ("cp", "--mode", "", "/etc/hostname", ":/new"),
                  ("setfattr", "-n", "", "-v", "a", ":/there"), ("setfattr", "-x", "", ":/there"),
                  ("setfattr", "-x", "user.a", "-v", "a", ":/there"), ("setfattr", "-n", "user.a", "-x", "user.b", ":/there"),
                  ("setfattr", "-v", "a", ":/there"), ("getfattr", "-n", "", ":/there")):
        verbs(*words, status=IMPOSSIBLE)
    for words in (("mknod", ":/new", "c", "99999999", "1"), ("mknod", ":/new", "c", "1", "1048576"),
                  ("mknod", ":/new", "c"), ("mknod", ":/new", "p", "1", "3"), ("mknod", ":/new", "x"), ("ls",), ("ls", ""),
                  ("ls", "--unheard", ":/there"), ("fiemap", ":/there", ":/there"), ("umount", ""), ("mount", "", ""),
                  ("freeze", ""), ("umount", verbs.image), ("version", "word"), ("mkdir", ""), ("shell", "")):
        verbs(*words, status=IMPOSSIBLE)
    for words in ((), ("",), ("-v",), ("--unheard",), ("nothing", verbs.image)):
        result = subprocess.run([verbs.program, *words], capture_output=True, text=True, check=False)
        check(result.returncode == IMPOSSIBLE and result.stderr.startswith("uext4: "), f"{words}: {result}")
    check(digest(verbs.image) == before, "a wrong word changed the image")


def questions(verbs):
    """Answers that are no, and places that are files or directories, for every verb that reads."""
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


def flags_of_the_file_system(verbs):
    """A flag that nobody sets is not taken as if it had been set."""
    for change in ("+I", "+N", "+V", "+E", "+F"):
        verbs("chattr", change, ":/there", status=IMPOSSIBLE, says="own")
    verbs("chattr", "-e", ":/there")
    check("e" not in verbs("lsattr", "-d", ":/there").split()[0], "chattr -e")
    verbs("chattr", "+e", ":/there")
    check("e" in verbs("lsattr", "-d", ":/there").split()[0], "chattr +e")
    verbs("chattr", "+di", ":/there")
    verbs("chattr", "=", ":/there")


def nobody_reads(verbs):
    """Who has stopped to read is an error without a word, and no end by a signal that would leave an image unclean."""
    verbs("truncate", "-s", "1000000", ":/long")
    command = [verbs.program, "shell", verbs.image]
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(command, input="mkdir unread\nls\n", text=True, stdout=writer, stderr=subprocess.PIPE, check=False)
    check((result.returncode, result.stderr) == (IMPOSSIBLE, ""), f"{result}")
    mounting.clean(verbs.image)
    check("unread" in verbs("ls", ":/"), "what was done before is lost")
    image = str(verbs.image)
    for line in (("ls", image), ("tree", image), ("info", image), ("check", image), ("cat", f"{image}:/file"),
                 ("cat", f"{image}:/long"), ("stat", "--json", image), ("--help",), ("version",)):
        result = subprocess.run([verbs.program, *line], stdout=writer, stderr=subprocess.PIPE, check=False)
        check((result.returncode, result.stderr) == (IMPOSSIBLE, b""), f"{line}: {result}")
    os.close(writer)


def force_is_for_what_is_missing(verbs):
    """rm -f passes over what is not there, and over nothing else."""
    verbs("rm", "-f", ":/missing", ":/file/below")
    verbs("ln", "-s", "circle", ":/circle")
    verbs("rm", "-f", ":/circle/below", status=NO, says="symbolic links")
    verbs("rm", "-f", f":/{'n' * 256}", status=NO, says="File name too long")
    verbs("rm", "-f", ":/circle")


def examples(verbs):
    """Each verb's help has an example."""
    listed = re.findall(r"^  (\w+)  +[A-Z]", verbs("--help").split("Subcommands:")[1], re.M)
    check(len(listed) > 30, f"{listed}")
    for verb in listed:
        check("Example" in verbs(verb, "--help") and f"uext4 {verb}" in verbs(verb, "--help"), f"{verb} --help has no example")


def nowhere_to_write(verbs):
    """What could not be printed was not done, the help and the version as well."""
    for redirection in (">/dev/full", ">&-"):
        for words in ("--help", "--version", "version", "cp --help", f"ls '{verbs.image}'", f"info '{verbs.image}'"):
            code = subprocess.run(["bash", "-c", f"exec '{verbs.program}' {words} {redirection}"], check=False,
                                  stderr=subprocess.PIPE).returncode
            check(code == IMPOSSIBLE, f"{words} {redirection}: {code}")
    subprocess.run(["bash", "-c", f"exec '{verbs.program}' mkdir '{verbs.image}:/said nothing' >&- <&- 2>&-"], check=True)


def limits_of_size(scratch):
    """A write past the limit of the size of files (setrlimit) is an error like any other, and no signal."""
    image = scratch.image("limited", "32M", "-t", "ext4", "-b", "4096")
    out = scratch.path("limited out")
    big = scratch.path("big")
    big.write_bytes(b"more than the largest limit\n" * 400)
    Verbs(scratch, image)("cp", big, ":/big")
    for kib in (0, 1, 8):
        for words, named in ((("mkdir", f"{image}:/x"), image), (("cp", "/etc/hostname", f"{image}:/x"), image),
                             (("cp", f"{image}:/big", out), out)):
            command = ["prlimit", f"--fsize={kib << 10}", scratch.program, *map(str, words)]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            check(result.returncode == IMPOSSIBLE and f"uext4 {words[0]}: " in result.stderr and
                  str(named) in result.stderr, f"{command}: {result}")
    mounting.run("e2fsck", "-fp", image, accept=(0, 1))


def sentences(verbs):
    """What is no damage is not told as if it were one, and what is wrong is named."""
    verbs("mknod", ":/null", "c", "1", "3")
    verbs("fiemap", ":/null", status=NO, says="has no extents")


def places_are_named(scratch, verbs):
    """Messages begin with the place that they are about: of the image with its name, of the host as it is."""
    out = scratch.path("told")
    verbs("ln", "-s", "nowhere", ":/dangling")
    verbs("mknod", ":/fifo", "p")
    missing = (("ls", ":/gone"), ("tree", ":/gone"), ("stat", ":/gone"), ("df", ":/gone"), ("fiemap", ":/gone"),
               ("cat", ":/gone"), ("info", ":/gone"), ("rm", ":/gone"), ("rm", "-r", ":/gone"), ("rmdir", ":/gone"),
               ("mv", ":/gone", ":/new"), ("ln", ":/gone", ":/new"), ("chmod", "1", ":/gone"), ("chown", "1", ":/gone"),
               ("chattr", "+i", ":/gone"), ("lsattr", ":/gone"), ("getfattr", ":/gone"), ("touch", ":/gone/x"),
               ("setfattr", "-n", "user.a", ":/gone"), ("mkdir", ":/gone/x"), ("mknod", ":/gone/x", "p"),
               ("cp", ":/gone", out), ("cp", ":/gone", ":/new"), ("cp", "/etc/hostname", ":/gone/x"))
    cases = [(words, "/gone") for words in missing] + [
        (("truncate", "-s", "1", ":/gone/x"), "/gone/x"), (("truncate", "-s", "1", ":/there"), "/there"),
        (("cat", ":/there"), "/there"), (("tree", ":/file"), "/file"), (("fiemap", ":/fifo"), "/fifo"),
        (("rm", ":/there"), "/there"), (("rmdir", ":/file"), "/file"), (("rm", "-r", ":/there/."), "/there/."),
        (("mkdir", ":/there"), "/there"), (("mknod", ":/there", "p"), "/there"), (("touch", ":/file/"), "/file/"),
        (("ln", "-s", "x", ":/file"), "/file"), (("mv", ":/there", ":/there/x"), "/there"),
        (("rm", ":/file/x"), "/file"), (("getfattr", "-n", "user.none", ":/file"), "/file"),
        (("setfattr", "-x", "user.none", ":/file"), "/file"), (("stat", ":<9999999>"), "<9999999>"),
        (("cp", ":/there", out), "/there"), (("cp", ":/fifo", out), "/fifo"),
        (("cp", "/etc/hostname", ":/dangling"), "/dangling"), (("cp", "/etc/hostname", ":/fifo"), "/fifo"),
        (("cp", "-r", scratch.folder, ":/file"), "/file"), (("cp", "/etc/hostname", ":/none/"), "/none/"),
        (("cp", ":/file", ":/file"), "/file"), (("cp", "-r", ":/there", ":/there"), "/there"),
        (("cp", "/etc/hostname", "/etc/passwd", ":/file"), "/file")]
    for words, place in cases:
        verbs(*words, status=NO, says=f"uext4 {words[0]}: {verbs.image}:{place}: "
              if words[0] != "cp" or words[1:] != (":/file", ":/file") else f"{verbs.image}:/file and ")
    for words in (("mv", ":/file", "/none.img:/x"), ("ln", "/none.img:/x", ":/new"), ("cp", "/none.img:/x", ":/new")):
        verbs(*words, status=IMPOSSIBLE, says=f"uext4 {words[0]}: /none.img: ")
    verbs("mkdir", ":/none.img:")
    verbs("mv", ":/file", ":/none.img:/x")
    verbs("ln", ":/none.img:/x", ":/file")
    verbs("rm", "-r", ":/none.img:")
    verbs("rmdir", ":/", status=IMPOSSIBLE, says=f"{verbs.image}:/: ")
    verbs("cp", out / "none", ":/", status=NO, says=f"uext4 cp: {out}/none: ")
    verbs("cp", ":/file", out / "none", status=IMPOSSIBLE, says=f"uext4 cp: {out}/none: ")
    verbs("rm", ":/dangling", ":/fifo")


def options_again(verbs):
    """-o may be given several times."""
    for words in (("ls", ":/"), ("info", verbs.image), ("label", verbs.image), ("cat", ":/file"), ("check", verbs.image)):
        verbs(words[0], "-o", "ro", "-o", "noload,noatime", *words[1:])
    verbs("touch", "-o", "noatime", ":/file", "-o", "ro", status=IMPOSSIBLE, says="read-only")
    verbs("ls", "-o", "ro", "-o", "nonsense", ":/", status=IMPOSSIBLE, says="nonsense")


def test(scratch):
    verbs = prepare(scratch)
    wrong_words(verbs)
    questions(verbs)
    numbers(scratch, verbs)
    slashes(scratch, verbs)
    flags_of_the_file_system(verbs)
    nowhere_to_write(verbs)
    limits_of_size(scratch)
    nobody_reads(verbs)
    force_is_for_what_is_missing(verbs)
    examples(verbs)
    sentences(verbs)
    places_are_named(scratch, verbs)
    options_again(verbs)
    dots(verbs)
    mounting.clean(verbs.image)


if __name__ == "__main__":
    mounting.main(test)
