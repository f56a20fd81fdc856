#!/usr/bin/env python3
"""Trees of the host that are copied into an image: what each file costs, how deep they may be, and their attributes.

Costs are system calls that strace counts, never time. Judged by e2fsck. Usage: host_trees_test.py PROGRAM
"""

import os
import re
import subprocess

from verbs import Verbs, check, mounting

# Of the calls for one file of the host: its status, open, where its data ends, read, names of attributes, close.
MOST_PER_FILE = {"status": 1, "open": 1, "lseek": 1, "pread64": 1, "attributes": 1, "close": 1, "readlink": 0, "messages": 0}
KINDS = {"newfstatat": "status", "fstat": "status", "statx": "status", "stat": "status", "lstat": "status",
         "openat": "open", "open": "open", "lseek": "lseek", "pread64": "pread64", "read": "pread64", "close": "close",
         "listxattr": "attributes", "llistxattr": "attributes", "flistxattr": "attributes",
         "getxattr": "attributes", "lgetxattr": "attributes", "fgetxattr": "attributes",
         "readlink": "readlink", "readlinkat": "readlink",
         "sendto": "messages", "sendmsg": "messages", "recvfrom": "messages", "recvmsg": "messages"}


def tree(scratch, files):
    top = scratch.path(f"tree of {files}")
    for number in range(files):
        folder = top / f"folder {number % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"file {number}").write_bytes(b"x" * (number * 37 % 9000 + 1))
    return top


def calls(scratch, verbs, *words):
    """How often the verb makes each kind of call, in all its processes."""
    table = scratch.path("table")
    mounting.run("strace", "-f", "-c", "-o", table, verbs.program, *words)
    found = dict.fromkeys(MOST_PER_FILE, 0)
    for line in table.read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r" *[\d.]+ +[\d.]+ +\d+ +(\d+)(?: +\d+)? +(\w+)", line):
            if kind := KINDS.get(match[2]):
                found[kind] += int(match[1])
    return found


def costs(scratch):
    mounting.need("strace")
    few, many = 300, 1300
    for words in (("-a",), ("-r",)):
        verbs = Verbs(scratch, scratch.image("costs", "64M", "-t", "ext4"))
        counted = [calls(scratch, verbs, "cp", *words, tree(scratch, files), f"{verbs.image}:/{files}") for files in (few, many)]
        for kind, most in MOST_PER_FILE.items():
            more = counted[1][kind] - counted[0][kind]
            check(more <= most * (many - few) + 20, f"cp {words}, {kind}: {more} for {many - few} files, not {most} for each")
        mounting.clean(verbs.image)


def deep(scratch):
    """Deeper than a process may have descriptors, to the end of what a path can name."""
    top = scratch.path("deep")
    top.mkdir()
    here = os.getcwd()
    levels = 1200
    os.chdir(top)
    for _ in range(levels):
        os.mkdir("d")
        os.chdir("d")
    with open("file", "w", encoding="utf-8") as file:
        file.write("deep")
    os.symlink("file", "link")
    os.chdir(here)
    verbs = Verbs(scratch, scratch.image("deep.img", "64M", "-t", "ext4"))
    command = ["prlimit", "--nofile=400:400", verbs.program, "cp", "-a", str(top), f"{verbs.image}:/copy"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    check(ran.returncode == 0, f"{levels} levels: {ran}")
    inside = "/copy" + "/d" * levels
    check(verbs("cat", f":{inside}/link") == "deep", "what lies at the bottom")
    mounting.clean(verbs.image)
    mounting.run("rm", "-r", top)


def attributes(scratch):
    """Of files, folders and links, with -a; of what is named and of what lies below."""
    verbs = Verbs(scratch, scratch.image("attributes", "16M", "-t", "ext4"))
    top = scratch.path("attributes of a tree")
    (top / "folder").mkdir(parents=True)
    (top / "folder" / "file").write_text("text")
    (top / "folder" / "link").symlink_to("file")
    os.mkfifo(top / "folder" / "fifo")
    paths = ("", "/folder", "/folder/file", "/folder/link", "/folder/fifo")
    for number, path in enumerate(paths):
        os.setxattr(f"{top}{path}", "trusted.number", str(number).encode(), follow_symlinks=False)
        os.setxattr(f"{top}{path}", "trusted.long", b"long" * 100, follow_symlinks=False)
    os.chown(top / "folder" / "file", 7, 8)
    os.chmod(top / "folder" / "file", 0o6755)
    os.setxattr(top / "folder" / "file", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    verbs("cp", "-a", top, ":/copy")
    for number, path in enumerate(paths):
        shown = verbs("getfattr", "-h", f":/copy{path}")
        check(f'trusted.number="{number}"' in shown and "trusted.long" in shown, f"{path}: {shown}")
    check("security.capability" in verbs("getfattr", ":/copy/folder/file"), "the capability is lost")
    status = verbs.status("/copy/folder/file")
    check((status["uid"], status["gid"], status["mode"]) == (7, 8, "-rwsr-sr-x"), f"{status}")
    # What a folder of the image hands on is not the source's.
    verbs("mkdir", ":/hands on")
    acl = "0x0200000001000700ffffffff020005000100010004000500ffffffff10000500ffffffff20000000ffffffff"
    verbs("setfattr", "-n", "system.posix_acl_default", "-v", acl, ":/hands on")
    (top / "plain").write_text("text")
    os.chmod(top / "plain", 0o640)
    verbs("cp", "-a", top / "plain", ":/hands on")
    check("posix_acl" not in verbs("getfattr", ":/hands on/plain"), "an inherited ACL stays")
    check(verbs.status("/hands on/plain")["mode"] == "-rw-r-----", "the permissions behind an inherited ACL")
    mounting.clean(verbs.image)


def test(scratch):
    mounting.need_mount()  # and root: trusted attributes
    deep(scratch)
    attributes(scratch)
    costs(scratch)


if __name__ == "__main__":
    mounting.main(test)
