#!/usr/bin/env python3
"""`uext4 check`: sound images of many formats are called clean, and damage is named. Usage: check_test.py PROGRAM"""

import json
import os
import pathlib
import re
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
    **{f"bigalloc of 1 KiB blocks, {c}": ["-t", "ext4", "-b", "1024", "-O", "bigalloc", "-C", str(c)]
       for c in (2048, 4096, 8192, 16384)},
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
    "leaked block": ("setb 6000 3", "without an owner"),
    "block count": ("sif /big blocks 8", "i_blocks is 8"),
    "size of a device": ("sif /fifo size 5", "i_size is 5"),
    "time of deletion": ("sif /dir/f5 dtime 55", "i_dtime is 55"),
    "a feature that attributes need": ("feature -ext_attr", "lacks ext_attr"),
}
MORE_KIB = 64 << 10  # of 16 TiB with nothing in them than of 1 TiB


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
    if answer.returncode != 2 or "backup superblocks that look sound: sb=8193, sb=24577, sb=40961." not in answer.stderr:
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


def left_open(program, path):
    """A mount that was killed leaves a log with nothing in it, and counters of old: they are the recovery's to write."""
    failures = []
    counters = ["ssv free_blocks_count 5", "ssv free_inodes_count 3"]
    cases = [(f"{name}: {wrong}", options, [opened, wrong], "")
             for name, options, opened in (("journal", [], "feature needs_recovery"), ("no journal", ["-O", "^has_journal"], "ssv state 0"))
             for wrong in counters]
    cases += [(f"closed: {wrong}", [], [wrong], f"superblock: s_{wrong.split()[1]} is") for wrong in counters]
    cases += [("journal: a descriptor as well", [], ["feature needs_recovery", counters[0], "set_bg 0 free_blocks_count 7", "set_bg 0 checksum calc"],
               "group 0: .*the descriptor says 7 free clusters, expected"),
              ("journal: a link count as well", [], ["feature needs_recovery", counters[1], "sif <11> links_count 7"],
               "inode 11: i_links_count is 7")]
    for label, options, commands, expected in cases:
        run("mke2fs", "-q", "-F", "-t", "ext4", *options, path, "16M")
        for command in commands:
            run("debugfs", "-w", "-R", command, path)
        oracle, answer = run("e2fsck", "-fn", path), run(program, "check", path)
        if not label.startswith("closed") and (oracle.returncode != 0) != bool(expected):
            failures.append(f"{label}: e2fsck ends with {oracle.returncode}: {oracle.stdout[-300:]}")
        if answer.returncode != bool(expected) or not re.search(expected, answer.stdout):
            failures.append(f"{label}: check ends with {answer.returncode}: {answer.stdout[-300:]}{answer.stderr}")
    return failures


def sizes_of_inodes(program, path):
    """What the kernel mounts neither for reading nor for writing, nobody opens; and it says why."""
    failures = []
    for options, field, value, fits in (([], "min", 9999, False), ([], "want", 300, False), ([], "want", 129, False),
                                        ([], "min", 128, True), (["-I", "512"], "want", 300, True),
                                        (["-I", "128"], "want", 300, True), (["-O", "^extra_isize"], "min", 9999, True)):
        run("mke2fs", "-q", "-F", "-t", "ext4", *options, path, "16M")
        run("debugfs", "-w", "-R", f"ssv {field}_extra_isize {value}", path)
        before, said = path.read_bytes(), f"superblock: s_{field}_extra_isize is {value}"
        answer, made = run(program, "check", path), run(program, "mkdir", f"{path}:/new")
        if (answer.returncode, made.returncode) != ((0, 0) if fits else (1, 2)):
            failures.append(f"{options} {field} {value}: check ends with {answer.returncode}, mkdir with {made.returncode}")
        if not fits and (said not in answer.stdout or said not in made.stderr or path.read_bytes() != before):
            failures.append(f"{options} {field} {value}: {answer.stdout}{answer.stderr}{made.stderr}")
    return failures


def copies_of_descriptors(program, path):
    """With more than one group, the resize inode names the blocks kept in the others. Where clusters count from 0 and the
    first superblock is in block 1, they are told from their place in group 0."""
    failures = []
    for cluster, size in ((2048, "100M"), (4096, "100M"), (8192, "100M"), (16384, "300M"), (65536, "600M")):
        path.unlink(missing_ok=True)
        run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-O", "bigalloc", "-C", cluster, path, size)
        answer, oracle = run(program, "check", path), run("e2fsck", "-fn", path)
        if (answer.returncode, oracle.returncode) != (0, 0):
            failures.append(f"clusters of {cluster}, {size}: check ends with {answer.returncode}, e2fsck with {oracle.returncode}: {answer.stdout[-300:]}")
    path.unlink(missing_ok=True)
    return failures


def names_paths(program, path, tree):
    """A problem of an inode that has a name begins with its path, and the last line says what to do."""
    run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-d", tree, path, "48M")
    for change in ("sif /dir/f3 links_count 7", "sif /dir links_count 9", "ssv free_blocks_count 5"):
        run("debugfs", "-w", "-R", change, path)
    lines = run(program, "check", path).stdout.splitlines()
    numbers = {name: Image(path.read_bytes()).inode(name).number for name in ("/dir", "/dir/f3")}
    expected = [f"/dir/f3: inode {numbers['/dir/f3']}: i_links_count is 7, expected 1",
                f"/dir: inode {numbers['/dir']}: i_links_count is 9, "]
    failures = [f"{line!r} is missing: {lines}" for line in expected if not any(l.startswith(line) for l in lines)]
    if not lines[-1].startswith("To repair it: ") or "e2fsck -f" not in lines[-1]:
        failures.append(f"the last line does not say what to do: {lines}")
    problems = json.loads(run(program, "check", "--json", path).stdout)["problems"]
    if {p["path"] for p in problems if "path" in p} != set(numbers):
        failures.append(f"paths in JSON: {problems}")
    return failures


def without_types(program, path, tree):
    """Entries whose type is 0 say nothing: they are older than the feature, or of the Hurd."""
    failures = []
    run("mke2fs", "-q", "-F", "-t", "ext4", "-O", "^filetype", "-d", tree, path, "48M")
    run("tune2fs", "-O", "filetype", path)
    cases = [("older than the feature", path.read_bytes())]
    for options in ([], ["-O", "inline_data"], ["-O", "^metadata_csum"]):
        run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", *options, "-d", tree, path, "48M")
        made = path.read_bytes()
        for directory, name in (("/", "dir"), ("/", "link"), ("/", "."), ("/", ".."), ("/dir", "f3")):
            image = Image(made)
            image.inode(directory).change_entry(name, 7, "<B", 0)
            cases.append((f"{options} {directory} {name}", bytes(image.data)))
    for label, contents in cases:
        path.write_bytes(contents)
        answer, oracle = run(program, "check", path), run("e2fsck", "-fn", path)
        if (answer.returncode, oracle.returncode) != (0, 0):
            failures.append(f"type 0, {label}: check ends with {answer.returncode}, e2fsck with {oracle.returncode}: {answer.stdout[-300:]}")
    return failures


def hashes_of_names(program, path, tree):
    """Bytes above 127 were hashed with a sign or without, by who wrote them; nothing else is right."""
    name = "caf\u00e9"
    def hashed(signed):
        value = 0
        for c in name.encode():
            value = ((value << 5 | value >> 27) ^ (c - 256 if signed and c > 127 else c)) & 0xFFFFFFFF
        return value
    other = hashed(True) ^ hashed(False)
    other = (other << 16 | other >> 16) & 0xFFFFFFFF  # through an odd number of words, or through a value's own hash
    failures = []
    for options, size in ((["-I", "128"], 300), (["-I", "256", "-O", "ea_inode"], 9000)):
        run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", *options, "-d", tree, path, "48M")
        value = path.with_suffix(".value")
        value.write_bytes(b"v" * size)
        run("debugfs", "-w", "-R", f"ea_set -f {value} /dir/f5 user.{name}", path)
        run("e2fsck", "-fy", path)  # debugfs does not charge for a value in an inode
        made = path.read_bytes()
        for label, change, wrong in (("without a sign", 0, False), ("with a sign", other, False), ("neither", 0x10, True)):
            image = Image(made)
            inode = image.inode("/dir/f5")
            entry = inode.block_entry(name) if inode["file_acl"] else inode.body_entry(name)
            entry["hash"] = entry["hash"] ^ change
            path.write_bytes(image.data)
            answer, oracle = run(program, "check", path), run("e2fsck", "-fn", path)
            said = re.search("attribute .*e_hash is", answer.stdout) is not None
            if (answer.returncode, said) != (wrong, wrong) or (oracle.returncode != 0) != wrong:
                failures.append(f"{options} {label}: check ends with {answer.returncode}, e2fsck with {oracle.returncode}: {answer.stdout[-300:]}{oracle.stdout[-300:]}")
    return failures


def peak_of(*command):
    """The exit code, and KiB of memory."""
    with subprocess.Popen([str(c) for c in command], stdout=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, used.ru_maxrss


def large(program, path):
    """What is empty costs next to nothing, however much of it there is."""
    failures, peaks = [], []
    for size in ("1T", "16T"):
        path.unlink(missing_ok=True)
        run("truncate", "-s", size, path)
        run("mke2fs", "-q", "-F", "-t", "ext4", "-O", "sparse_super2,^resize_inode", "-E", "num_backup_sb=0,lazy_itable_init=1",
            "-i", "1048576", path)
        code, peak = peak_of(program, "check", path)
        peaks.append(peak)
        if code != 0:
            failures.append(f"{size}: check ends with {code}")
    if peaks[1] - peaks[0] > MORE_KIB:
        failures.append(f"16T: check takes {peaks[1]} KiB, and {peaks[0]} for 1T")
    path.unlink(missing_ok=True)
    return failures


def without_memory(program, path):
    """Whatever the verb, a sentence tells it and names the image."""
    failures, told = [], set()
    run("mke2fs", "-q", "-F", "-t", "ext4", "-N", "40000", "-b", "1024", path, "64M")
    names = "".join(f"mknod n{i} p\n" for i in range(12000))
    subprocess.run(["debugfs", "-w", "-f", "-", str(path)], input=names, capture_output=True, text=True, check=False)
    for verb in (["check", path], ["tree", f"{path}:/"], ["ls", f"{path}:/"], ["info", path], ["mkdir", f"{path}:/new"]):
        for limit in range(200 << 20, 4 << 20, -4 << 20):
            answer = run("prlimit", f"--as={limit}", program, *verb)
            if answer.returncode != 0 and limit == 200 << 20:
                print(f"memory that runs out is left out: {verb[0]} does not start with {limit} bytes")
                return []  # of some builds (sanitizers) the start takes more
            if answer.returncode < 0:
                failures.append(f"{verb[0]} with {limit} ends by signal {-answer.returncode}: {answer.stderr}")
            if f"uext4 {verb[0]}: std::" in answer.stderr or "length_error" in answer.stderr:
                failures.append(f"{verb[0]} with {limit}: {answer.stderr}")
            if "memory ran out" not in answer.stderr:
                continue
            told.add(verb[0])
            names_it = answer.stderr.endswith(f"uext4 {verb[0]}: {path}: memory ran out\n")
            # In the library that makes --json it may run out where nobody can tell more.
            if answer.returncode != 2 or not (names_it or answer.stderr.endswith("uext4: memory ran out\n")):
                failures.append(f"{verb[0]} with {limit} ends with {answer.returncode}: {answer.stderr}")
    if "check" not in told:
        failures.append(f"memory ran out for {told} only")
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
        failures += left_open(program, folder / "open.img")
        failures += sizes_of_inodes(program, folder / "sizes.img")
        failures += copies_of_descriptors(program, folder / "copies.img")
        failures += without_types(program, folder / "types.img", tree)
        failures += names_paths(program, folder / "paths.img", tree)
        failures += hashes_of_names(program, folder / "names.img", tree)
        failures += large(program, folder / "large.img")
        failures += without_memory(program, folder / "memory.img")
    for failure in failures:
        print(failure)
    print(f"{len(FORMATS)} formats, {len(DAMAGE)} kinds of damage, {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
