#!/usr/bin/env python3
"""`uext4 check`: sound images of many formats are called clean, and damage is named. Usage: check_test.py PROGRAM"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from ext4_image import Image

FORMATS = {
    "default": ["-t", "ext4", "-b", "4096"],
    "ext2": ["-t", "ext2"],
    "ext3": ["-t", "ext3"],
    "1k": ["-t", "ext4", "-b", "1024"],
    "inline": ["-t", "ext4", "-O", "inline_data"],
    "bigalloc": ["-t", "ext4", "-b", "4096", "-O", "bigalloc", "-C", "16384"],
    "meta_bg": ["-t", "ext4", "-O", "meta_bg,^resize_inode"],
    "nocsum": ["-t", "ext4", "-O", "^metadata_csum,uninit_bg"],
    "orphan_file": ["-t", "ext4", "-O", "orphan_file"],
    "128": ["-t", "ext4", "-I", "128"],
    "ea_inode": ["-t", "ext4", "-O", "ea_inode"],
}
DAMAGE = {
    "link count": ("sif /dir/f3 links_count 7", "i_links_count is 7"),
    "cleared inode": ("clri /dir/f4", "not in use"),
    "freed block": ("freeb 1000 20", "in use and not marked"),
    "leaked block": ("setb 6000 3", "belong to nobody"),
    "block count": ("sif /big blocks 8", "i_blocks is 8"),
    "size of a device": ("sif /fifo size 5", "i_size is 5"),
    "time of deletion": ("sif /dir/f5 dtime 55", "i_dtime is 55"),
    "a feature that attributes need": ("feature -ext_attr", "lacks ext_attr"),
}


def run(*command):
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)


def by_a_backup(program, image, tree):
    """Everything is told as the backup superblock says it, and that the first one is gone."""
    run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-L", "a label", "-d", tree, image, "48M")
    whole = json.loads(run(program, "info", "--json", image).stdout)
    with open(image, "r+b") as file:
        file.seek(1024)
        file.write(bytes(1024))
    failures = []
    answer = run(program, "check", image)
    if answer.returncode != 2 or "option sb= reads a backup" not in answer.stderr:
        failures.append(f"without a superblock: check ends with {answer.returncode}: {answer.stdout} {answer.stderr}")
    shown = run(program, "info", "--json", "-o", "sb=8193", image)
    for key in ("uuid", "label", "features_compat", "features_incompat", "features_ro_compat", "state"):
        if shown.returncode != 0 or json.loads(shown.stdout)[key] != whole[key]:
            failures.append(f"sb=8193: {key} is not {whole[key]}: {shown.stdout} {shown.stderr}")
    label = run(program, "label", "-o", "sb=8193", image)
    if label.stdout != "a label\n":
        failures.append(f"sb=8193: the label is {label.stdout!r} {label.stderr}")
    answer = run(program, "check", "-o", "sb=8193", image)
    if answer.returncode != 1 or "superblock: s_magic is 0x0000" not in answer.stdout:
        failures.append(f"sb=8193: check ends with {answer.returncode}: {answer.stdout} {answer.stderr}")
    return failures


def unreadable(program, path, tree):
    """An inode whose checksum is wrong is the one problem: that it takes part in nothing is no news."""
    failures = []
    for options in ([], ["-b", "1024"], ["-O", "bigalloc"], ["-O", "quota"]):
        for place in ("/big", "/dir", "/dir/f7", "/link", "/fifo"):
            run("mke2fs", "-q", "-F", "-t", "ext4", *options, "-d", tree, path, "48M")
            if "quota" in options:
                run("e2fsck", "-fy", path)  # mke2fs does not count what it copies
            image = Image(path.read_bytes())
            inode = image.inode(place)
            image.flip(inode.at + 8)  # the time of the last access
            path.write_bytes(image.data)
            problems = json.loads(run(program, "check", "--json", path).stdout)["problems"]
            if [p["where"] for p in problems] != [f"inode {inode.number}"] or "bad checksum (in use" not in problems[0]["what"]:
                failures.append(f"{options} {place}: bad checksum: {problems[:6]}")
    return failures


def main():
    program = sys.argv[1]
    failures = []
    with tempfile.TemporaryDirectory(prefix="uext4-check-", dir="/dev/shm") as name:
        folder = pathlib.Path(name)
        tree = folder / "tree"
        (tree / "dir").mkdir(parents=True)
        for i in range(200):
            (tree / "dir" / f"f{i}").write_text("x" * i * 7)
        (tree / "big").write_bytes(os.urandom(3000000))
        (tree / "link").symlink_to("t" * 100)
        os.link(tree / "big", tree / "hard")
        os.mkfifo(tree / "fifo")
        os.setxattr(tree / "big", "user.x", b"v" * 300)
        for label, options in FORMATS.items():
            image = folder / f"{label}.img"
            made = run("mke2fs", "-q", "-F", *options, "-d", tree, image, "48M")
            if made.returncode != 0:
                failures.append(f"{label}: mke2fs: {made.stderr}")
                continue
            for step in ("as made", "after writing"):
                if step == "after writing":
                    run(program, "cp", "-a", tree, f"{image}:/copy")
                    run(program, "rm", "-r", f"{image}:/dir")
                answer = run(program, "check", image)
                if answer.returncode != 0:
                    failures.append(f"{label} {step}: {answer.stdout[-600:]}{answer.stderr[-300:]}")
        for label, (command, expected) in DAMAGE.items():
            image = folder / "damaged.img"
            run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-O", "^metadata_csum,^64bit", "-d", tree, image, "48M")
            if label == "freed block":
                first = run("debugfs", "-R", "blocks /big", image).stdout.split()[0]
                command = f"freeb {first} 5"
            run("debugfs", "-w", "-R", command, image)
            answer = run(program, "check", image)
            if answer.returncode != 1 or expected not in answer.stdout:
                failures.append(f"{label}: status {answer.returncode}, '{expected}' expected: {answer.stdout[-400:]}{answer.stderr[-300:]}")
        failures += by_a_backup(program, folder / "backup.img", tree)
        failures += unreadable(program, folder / "unreadable.img", tree)
    for failure in failures:
        print(failure)
    print(f"{len(FORMATS)} formats, {len(DAMAGE)} kinds of damage, {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
