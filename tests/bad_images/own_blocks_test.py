#!/usr/bin/env python3
"""A file whose map names the log, or blocks of the file system's own, is refused by name, however it is opened: nothing of
them is read or written through it. Usage: own_blocks_test.py PROGRAM
"""

import pathlib
import re
import subprocess
import sys
import tempfile

# How a file of one block names it: the field of debugfs.
FORMATS = {"extents": (["-t", "ext4", "-b", "1024"], 5), "pages": (["-t", "ext4", "-b", "4096"], 5),
           "indirect": (["-t", "ext3", "-b", "1024"], 0)}
FAILURES = []


def run(*arguments):
    return subprocess.run([*map(str, arguments)], capture_output=True, text=True, errors="replace", check=False)


def expect(condition, text):
    if not condition:
        FAILURES.append(text)


def first_of_log(image):
    return int(run("debugfs", "-R", "blocks <8>", image).stdout.split()[0])


def first_bitmap(image):
    return int(re.search(r"Block bitmap at (\d+)", run("dumpe2fs", image).stdout)[1])


def refused(program, image, block, what, block_size):
    before = pathlib.Path(image).read_bytes()
    expect(run(program, "cat", f"{image}:/other").returncode == 2, f"{what}: it is read")
    done = run(program, "cp", f"{image}.data", f"{image}:/other")
    expect(done.returncode == 2, f"{what}: it is written to: {done.stdout}{done.stderr}")
    checked = run(program, "check", image)
    expect(checked.returncode != 0 and "inode" in checked.stdout, f"{what}: the check says nothing: {checked.stdout}")
    after = pathlib.Path(image).read_bytes()
    expect(after[block * block_size + 12:][:4] == before[block * block_size + 12:][:4],
           f"{what}: the block is another one")
    for verb in (["ls", f"{image}:/"], ["cat", f"{image}:/precious"]):
        expect(run(program, *verb).returncode == 0, f"{what}: {verb[0]} of the rest fails")


def main():
    program = sys.argv[1]
    with tempfile.TemporaryDirectory(prefix="uext4-own-", dir="/dev/shm") as name:
        folder = pathlib.Path(name)
        (folder / "tree").mkdir()
        for file in ("other", "precious"):
            (folder / "tree" / file).write_bytes(b"x" * 900)
        for label, (options, field) in FORMATS.items():
            block_size = 1024 if "1024" in options else 4096
            for place, find in (("log", first_of_log), ("bitmap", first_bitmap)):
                image = folder / f"{label}-{place}.img"
                run("mke2fs", "-q", "-F", *options, "-d", folder / "tree", image, "32M")
                pathlib.Path(f"{image}.data").write_bytes(b"Z" * 900)
                block = find(image)
                run("debugfs", "-w", "-R", f"set_inode_field /other block[{field}] {block}", image)
                refused(program, image, block, f"{label}, {place}", block_size)
            # A long extent whose ends are nobody's.
            if field == 5:
                image = folder / f"{label}-middle.img"
                run("mke2fs", "-q", "-F", *options, "-d", folder / "tree", image, "32M")
                pathlib.Path(f"{image}.data").write_bytes(b"Z" * 900)
                block = first_of_log(image)
                start = block - 2
                count = len(run("debugfs", "-R", "blocks <8>", image).stdout.split()) + 4
                run("debugfs", "-w", "-R", f"set_inode_field /other block[5] {start}", image)
                run("debugfs", "-w", "-R", f"set_inode_field /other block[4] {count}", image)
                run("debugfs", "-w", "-R", f"set_inode_field /other size {count * block_size}", image)
                refused(program, image, block, f"{label}, around the log", block_size)
    for failure in FAILURES:
        print(failure)
    return 1 if FAILURES else 0


if __name__ == "__main__":
    sys.exit(main())
