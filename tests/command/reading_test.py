#!/usr/bin/env python3
"""ls, stat, cat, readlink, tree, du and df print what coreutils print on the kernel's mount of the same image.

Usage: reading_test.py PROGRAM
"""

import json
import os
import re
import subprocess

from specimen import Specimen
from verbs import FINE, IMPOSSIBLE, NO, Verbs, check, mounting

ZONES = ("UTC0", "EST5EDT,M3.2.0,M11.1.0", "<+0545>-5:45", "Europe/Berlin")

LS = ("", "-1", "-a", "-A", "-d", "-i", "-s", "-sh", "-r", "-t", "-tr", "-S", "-Sr", "-tS", "-St", "-R", "-aR", "-l", "-la",
      "-lA", "-lh", "-lS", "-lt", "-ltr", "-li", "-ls", "-lish", "-ld", "-lR", "-lRA", "-lRSr", "-l --time-style=full-iso",
      "-l --time-style=long-iso", "-l --time-style=iso", "-l --time-style=+%s", "-l --time-style=+%d.%m.%Y_%H:%M:%S.%N_%Z",
      "-l --time-style=locale", "--full-time", "-l --time-style=+old_%Y\nnew_%H")
PLACES = (("/",), ("/kinds",), ("/sizes",), ("/times",), ("/kinds/link",), ("/kinds/to directory",), ("/sizes/empty",),
          ("/kinds", "/sizes"), ("/times", "/sizes/empty", "/kinds/link", "/kinds/to directory", "/deep"))
STAT = ("%n %N", "%a %A %F %f", "%s %b %B %o", "%h %i %u %g", "%t %T", "%x|%X", "%y|%Y", "%z|%Z", "%w|%W",
        "%.3Y|%.9Y|%.0Y|%.12Y", "[%10s][%-10s][%010s][%+s][% s]", "[%#a][%8a][%08a][%#f][%.3F][%-20F]", "100%% %s")


def ls(specimen):
    for zone in ZONES:
        for places in PLACES if zone == ZONES[1] else PLACES[3:4]:
            for options in LS:
                words = options.split(" ") if options else []
                if places == ("/",) and "a" in options.split(" ")[0]:
                    continue  # what lies above the root of a mount is another directory
                numeric = ["-n"] if "-l" in options or "full-time" in options else []
                specimen.same(["ls", *words], ["ls", *numeric, *words], places, zone)


def stat(specimen):
    # Quotes, and letters that are not in ASCII, have another form in the C locale of stat(1).
    paths = sorted(path for path in specimen.paths if path.isascii() and "'" not in path)
    for zone in ZONES:
        for text in STAT:
            specimen.same(["stat", "-c", text], ["stat", "-c", text], paths, zone)
    specimen.same(["stat", "-L", "-c", "%F %s"], ["stat", "-L", "-c", "%F %s"], ["/kinds/link", "/kinds/to directory"])
    specimen.same(["stat", "--printf", r"%s\t%a\n\101\0|"], ["stat", "--printf", r"%s\t%a\n\101\0|"], paths)
    for text in ("%q", "%", r"%5"):
        specimen.verbs("stat", "-c", text, ":/", status=IMPOSSIBLE, says="format")


def json_of(specimen):
    """ISO 8601 with the offset of TZ, the mode in octal and as text, and the type."""
    verbs = specimen.verbs
    os.environ["TZ"] = "<+0545>-5:45"
    entry = json.loads(verbs("stat", "--json", ":/times/2001"))
    check(entry["mtime"] == "2001-02-03T09:50:06.000000789+05:45", f"{entry}")
    check((entry["mode"], entry["mode_octal"], entry["type"]) == ("-rw-r--r--", "0644", "regular file"), f"{entry}")
    check("mtime: 2001-02-03 09:50:06.000000789 +0545" in verbs("stat", ":/times/2001"), verbs("stat", ":/times/2001"))
    os.environ["TZ"] = "UTC0"
    kinds = {entry["name"]: entry for entry in json.loads(verbs("ls", "--json", ":/kinds"))}
    found = {name: (entry["type"], entry["mode_octal"]) for name, entry in kinds.items()}
    check(found == {"directory": ("directory", "1777"), "file": ("regular file", "4711"), "link": ("symbolic link", "0777"),
                    "to directory": ("symbolic link", "0777"), "nowhere": ("symbolic link", "0777"),
                    "pipe": ("fifo", "0644"), "null": ("character special file", "0666"), "socket": ("socket", "0600"),
                    "disk": ("block special file", "0660"), "listed": ("regular file", "0654")}, f"{found}")
    several = json.loads(verbs("ls", "--json", ":/kinds", ":/sizes/empty", ":/times"))
    check([entry.get("directory", entry.get("name")) for entry in several] == ["/sizes/empty", "/kinds", "/times"], f"{several}")
    recursive = json.loads(verbs("ls", "-R", "--json", ":/deep"))
    check([entry["directory"] for entry in recursive] == ["/deep", "/deep/a", "/deep/a/b", "/deep/a/b/c", "/deep/z"], f"{recursive}")
    both = json.loads(verbs("stat", "--json", ":/kinds", ":/times"))
    check([entry["name"] for entry in both] == ["/kinds", "/times"], f"{both}")


def cat(specimen):
    paths = ["/sizes/3", "/sizes/100000", "/sizes/empty", "/sizes/1500000", "/sizes/3"]
    specimen.same(["cat"], ["cat"], paths)
    command = [specimen.verbs.program, "cat", f"{specimen.verbs.image}:/sizes/3", "-", f"{specimen.verbs.image}:/sizes/3"]
    shown = subprocess.run(command, input=b"typed\n", capture_output=True, check=True).stdout
    check(shown == b"xxxtyped\nxxx", f"{shown}")


def readlink(specimen):
    links = ["/kinds/link", "/kinds/to directory", "/kinds/nowhere"]
    specimen.same(["readlink"], ["readlink"], links)
    specimen.same(["readlink", "-n"], ["readlink", "-n"], links[:1])
    specimen.same(["readlink", "-z"], ["readlink", "-z"], links)
    specimen.same(["readlink", "-f"], ["readlink", "-f"],
                  [*links, "/kinds/to directory/../../sizes/3", "/deep/./a//b/../../z", "/kinds/to directory/missing", "/"])
    verbs = specimen.verbs
    check(verbs("readlink", "-f", ":/deep/absolute/c") == "/deep/a/b/c\n", verbs("readlink", "-f", ":/deep/absolute/c"))
    for words, says in ((("/kinds/file",), "/kinds/file: is no symbolic link"), (("-f", "/missing/x"), "No such file"),
                        (("-f", "/kinds/file/x"), "Not a directory"), (("-f", "/deep/loop"), "Too many levels")):
        verbs("readlink", *words[:-1], ":" + words[-1], status=NO, says=says)


def du(specimen):
    for options in ("", "-s", "-h", "-c", "-sh", "-sc", "-d 1", "--max-depth=0", "-d 2 -a", "-a", "-ah", "--apparent-size"):
        words = options.split()
        for places in (["/"], ["/sizes", "/deep"], ["/sizes/3", "/deep"]):
            specimen.same(["du", "-l", *words], ["du", "-l", *words], places, in_order=False)
    specimen.same(["du", "-b"], ["du", "-b"], ["/sizes/3", "/sizes/sparse"])
    # What has several names counts once.
    specimen.same(["du", "-s"], ["du", "-s"], ["/"])
    specimen.same(["du", "-sc"], ["du", "-sc"], ["/sizes/100000", "/another name"])
    found = json.loads(specimen.verbs("du", "--json", "-d", "1", ":/deep"))
    check([entry["path"] for entry in found] == ["/deep/a", "/deep/z", "/deep"] and found[2]["bytes"] % 512 == 0, f"{found}")


def df(specimen):
    verbs = specimen.verbs
    for options, columns in ((("-k",), "size,used"), (("-h",), "size,used"), (("-i",), "itotal,iused,iavail,ipcent")):
        told = subprocess.run(["df", *(option for option in options if option != "-i"), f"--output={columns}", specimen.directory], capture_output=True, text=True, check=True)
        shown = verbs("df", *(option for option in options if option != "-k"), verbs.image)
        check(shown.splitlines()[1].split()[1:columns.count(",") + 2] == told.stdout.splitlines()[1].split(), f"df {options}: {shown} {told.stdout}")


def tree(specimen):
    verbs = specimen.verbs
    deep = "/deep\n|-- .hidden\n|-- a\n|   `-- b\n|       `-- c\n|-- absolute\n|-- loop\n`-- z\n"
    check(verbs("tree", ":/deep") == deep, verbs("tree", ":/deep"))
    check(verbs("tree", "-L", "2", ":/deep") == deep.replace("|       `-- c\n", ""), verbs("tree", "-L", "2", ":/deep"))
    only = "/deep\n|-- a\n|   `-- b\n|       `-- c\n`-- z\n"
    check(verbs("tree", "-d", ":/deep") == only, verbs("tree", "-d", ":/deep"))
    check(verbs("tree", "-d", "-L", "1", ":/deep", ":/times") == "/deep\n|-- a\n`-- z\n/times\n", "several trees")


def several(specimen):
    """A place that fails ends nothing; places may be of several images, which are named then."""
    verbs = specimen.verbs
    other = Verbs(specimen.scratch, specimen.scratch.image("other", "8M", "-t", "ext4"))
    other("cp", "/etc/hostname", ":/file")
    for words in (("ls", "-d"), ("stat", "-c", "%n"), ("lsattr", "-d"), ("du", "-s"), ("find", "-maxdepth")):
        places = (":/sizes/3", ":/missing", ":/kinds")
        if words[0] == "find":
            shown = verbs("find", *places, "-maxdepth", "0", status=NO, says=":/missing")
        else:
            shown = verbs(*words, *places, status=NO, says=":/missing")
        check("/kinds" in shown and "/sizes/3" in shown, f"{words}: {shown}")
        if words[0] in ("ls", "stat"):
            shown = verbs(*words, ":/kinds", f"{other.image}:/file")
            check(sorted(shown.split("\n")) == sorted(["", f"{verbs.image}:/kinds", f"{other.image}:/file"]), shown)
    shown = verbs("cat", ":/sizes/3", ":/missing", ":/kinds", f"{other.image}:/file", status=NO, says=":/kinds: ")
    with open("/etc/hostname", encoding="utf-8") as file:
        check(shown == "xxx" + file.read(), shown)
    check(re.search(rf"^# file: {re.escape(str(verbs.image))}:/kinds/listed$", verbs("getfattr", ":/kinds/listed", f"{other.image}:/file"), re.M), "getfattr")


def options(specimen):
    """An option that a verb does not have is named, wherever it stands, and nothing else; -h is what it is elsewhere."""
    verbs = specimen.verbs
    for words, option in ((("ls", "-9", ":/"), "'-9'"), (("ls", ":/", "-lZ"), "'-Z'"), (("ls", "--nonsense=1", ":/"), "'--nonsense'"),
                          (("stat", "-q"), "'-q'"), (("chmod", "-9", "644", ":/"), "'-9'"), (("df", "-Y", verbs.image), "'-Y'"),
                          (("find", ":/", "-exec", "rm"), "'-exec'"), (("find", ":/", "-delete"), "'-delete'")):
        verbs(*words, status=IMPOSSIBLE, says=option)
    for words in (("ls", "-lh", ":/"), ("df", "-h", verbs.image), ("du", "-h", ":/")):
        check("Usage" not in verbs(*words), f"{words} prints the help")
        check("--human-readable" in verbs(words[0], "--help"), f"{words[0]} --help")


def shell(specimen):
    lines = ("cd /deep\nls -s a\nls -1d a\nfind -name c -type d\nfind a -newer z -print\ndu -s a\ntree -L 1\nreadlink absolute\n"
             "stat -c %n z\nls -l --time-style +%Y z\ncat -- /sizes/3\nfind ( -name z -o -name b )\n")
    result = subprocess.run([specimen.verbs.program, "shell", specimen.verbs.image], input=lines, text=True, capture_output=True, check=False)
    check(result.returncode == FINE and result.stderr == "", f"{result}")
    for line in ("1 b", "/deep/a", "/deep/a/b/c", "/deep/a/b", "/deep/z", "|-- a", "/deep/a/b/c", "xxx"):
        check(line in result.stdout, f"{line!r} is not in {result.stdout}")


RECURSIVE = (("ls", "-R"), ("tree",), ("find",), ("du",), ("lsattr", "-R"), ("getfattr", "-R"), ("chmod", "-R", "755"), ("chown", "-R", "1"),
             ("chattr", "-R", "+d"))


def bounded(scratch):
    """Trees that are deeper than any path, and directories that contain themselves, end a recursion with a message."""
    image = scratch.image("bounded", "16M", "-t", "ext4", "-b", "1024")
    verbs = Verbs(scratch, image)
    top = scratch.kernel_mount(image)
    here = os.open(top, os.O_RDONLY)
    for _ in range(2100):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    scratch.kernel_umount(top)
    for words in RECURSIVE:
        verbs(*words, ":/d", status=NO, says="more than 2048 directories deep")
    image = scratch.image("round", "8M", "-t", "ext4", "-O", "^metadata_csum")
    verbs = Verbs(scratch, image)
    verbs("mkdir", "-p", ":/a/b")
    mounting.run("debugfs", "-w", "-R", "ln /a /a/b/c", image)
    for words in RECURSIVE:
        verbs(*words, ":/a", status=IMPOSSIBLE, says="contains itself")
    # A link that leads upward is no damage.
    verbs("mkdir", ":/links")
    verbs("ln", "-s", "..", ":/links/up")
    verbs("ln", "-s", "../links", ":/links/here")
    check(verbs("find", "-L", ":/links", "-maxdepth", "1") == "/links\n/links/up\n", "find -L")
    verbs("chown", "-R", "-L", "3", ":/links/here")
    check(verbs.status("/links")["uid"] == 3, "chown -R -L")


def test(scratch):
    mounting.need_mount()
    bounded(scratch)
    specimen = Specimen(scratch)
    for part in (ls, stat, json_of, cat, readlink, du, df, tree, several, options, shell):
        part(specimen)


if __name__ == "__main__":
    mounting.main(test)
