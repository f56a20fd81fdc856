#!/usr/bin/env python3
"""What verbs say: the path and the errno's text for what a user can mend, the structure for damage, each once.

Usage: messages_test.py PROGRAM
"""

import re
import subprocess

from verbs import IMPOSSIBLE, NO, Verbs, check, mounting, prepare


def answer(verbs, *words):
    words = [f"{verbs.image}{word}" if str(word).startswith(":") else str(word) for word in words]
    done = subprocess.run([verbs.program, *words], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def errnos(scratch, verbs):
    """No number of an inode, no count of clusters."""
    big = scratch.folder / "big"
    with open(big, "wb") as file:
        file.truncate(1 << 20)
        for at in range(0, 200 << 20, 1 << 20):
            file.seek(at)
            file.write(b"b" * (1 << 20))
    name = "n" * 256
    cases = (
        (("ls", ":/missing"), NO, ":/missing: No such file or directory"),
        (("mkdir", ":/missing/x"), NO, ":/missing: No such file or directory"),
        (("mkdir", ":/there"), NO, ":/there: File exists"),
        (("mkdir", ":/file/x"), NO, ":/file: Not a directory"),
        (("mkdir", f":/{name}"), NO, f":/{name}: File name too long"),
        (("rmdir", ":/full"), NO, ":/full: Directory not empty"),
        (("getfattr", "-n", "user.q", ":/file"), NO, ":/file: user.q: No such attribute"),
        (("setfattr", "-x", "user.q", ":/file"), NO, ":/file: user.q: No such attribute"),
        (("cp", big, ":/big"), IMPOSSIBLE, ":/big: No space left on device"),
        (("rm", ":/fixed"), NO, ":/fixed: Operation not permitted: is immutable or append-only"),
        (("cat", ":/circle"), NO, ":/circle: Too many levels of symbolic links"),
    )
    verbs("mkdir", "-p", ":/full/inner")
    verbs("ln", "-s", "circle", ":/circle")
    verbs("cp", "/etc/hostname", ":/fixed")
    verbs("chattr", "+i", ":/fixed")
    for words, code, says in cases:
        got, error = answer(verbs, *words)
        expected = f"uext4 {words[0]}: {verbs.image}{says}\n"
        check((got, error) == (code, expected), f"{words}: {got}, {error!r}, not {code}, {expected!r}")


def damaged_directory(scratch):
    """Random bytes in a directory's block: reported once, with the structure that is wrong."""
    image = scratch.image("damaged", "16M", "-t", "ext4", "-b", "4096")
    verbs = Verbs(scratch, image)
    verbs("mkdir", ":/d")
    block = int(mounting.run("debugfs", "-R", "bmap /d 0", image).stdout.splitlines()[-1])
    with open(image, "r+b") as file:
        file.seek(block * 4096)
        file.write((bytes(range(1, 256)) * 17)[:4096])
    for words in (("ls", ":/d"), ("rm", "-r", ":/d"), ("mkdir", ":/d/x"), ("chmod", "-R", "700", ":/d")):
        code, error = answer(verbs, *words)
        told = [line for line in error.splitlines() if "block 0, offset 4084" in line]
        check(code == IMPOSSIBLE and len(told) == 1, f"{words}: {code}, {error}")
        check(re.search(r": directory \d+: block 0, offset 4084: the record that holds the checksum is missing", told[0]), error)
    report = subprocess.run([verbs.program, "check", str(image)], capture_output=True, text=True, check=False).stdout
    check(report.count("the record that holds the checksum is missing") == 1, report)
    check(report.splitlines()[0].startswith("/d: directory "), report)


def damaged_bitmap(scratch):
    """A verb that writes does what it can without the group, says so, and fails. One that reads has no need of it."""
    image = scratch.image("bitmap", "64M", "-t", "ext4", "-b", "1024")
    verbs = Verbs(scratch, image)
    groups = mounting.run("dumpe2fs", image).stdout
    block = int(re.search(r"Block bitmap at (\d+)", groups)[1])
    with open(image, "r+b") as file:
        file.seek(block * 1024)
        file.write(b"\x5a" * 1024)
    code, error = answer(verbs, "cp", "/etc/passwd", ":/passwd")
    lines = error.splitlines()
    check(code == IMPOSSIBLE and len(lines) == 2, f"{code}: {error}")
    check(lines[0] == f"uext4 cp: {image}: group 0: block bitmap: bad checksum", error)
    check("e2fsck" in lines[1], error)
    check(answer(verbs, "cat", ":/passwd") == (0, ""), "a verb that reads")
    with open("/etc/passwd", encoding="utf-8") as file:
        check(verbs("cat", ":/passwd") == file.read(), "what was copied all the same")


def test(scratch):
    verbs = prepare(scratch)
    errnos(scratch, verbs)
    damaged_directory(scratch)
    damaged_bitmap(scratch)


if __name__ == "__main__":
    mounting.main(test)
