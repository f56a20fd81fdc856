#!/usr/bin/env python3
"""Damage below what a verb looks at: the rest is listed and copied, what is damaged is named, and the exit code says so.

Usage: damage_test.py PROGRAM
"""

import json
import os
import pathlib
import re
import subprocess
import tempfile

from verbs import IMPOSSIBLE, Verbs, check, mounting


def debugfs(image, request):
    return subprocess.run(["debugfs", "-R", request, str(image)], capture_output=True, text=True, check=True).stdout


def spoil(image, at):
    with open(image, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 0xFF]))


def spoil_inode(image, path):
    """Its checksum is wrong then: the time of its last access is another."""
    block, offset = re.search(r"block (\d+), offset (0x[0-9a-f]+)", debugfs(image, f"imap {path}")).groups()
    spoil(image, int(block) * 4096 + int(offset, 16) + 8)


def damaged(scratch):
    """In /t a name without an inode, one of an inode with a bad checksum, a directory with a damaged block, sound ones."""
    verbs = Verbs(scratch, scratch.image("damaged", "16M", "-t", "ext4", "-b", "4096"))
    verbs("mkdir", ":/t", ":/t/d", ":/t/z")
    for name in ("a", "b", "c", "e", "d/lost", "z/sound"):
        verbs("cp", "/etc/hostname", f":/t/{name}")
    numbers = {name: verbs.status(f"/t/{name}")["inode"] for name in ("a", "b", "c", "d", "e", "z")}
    mounting.clean(verbs.image)
    subprocess.run(["debugfs", "-w", "-R", "clri /t/b", str(verbs.image)], capture_output=True, check=True)
    spoil_inode(verbs.image, "/t/c")
    spoil(verbs.image, int(debugfs(verbs.image, "blocks /t/d").split()[0]) * 4096 + 30)
    return verbs, numbers


def run(verbs, *words):
    command = [str(verbs.program), *(f"{verbs.image}{w}" if w.startswith(":") else str(w) for w in words)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    check(result.returncode == IMPOSSIBLE, f"{command}: {result}")
    return result.stdout, result.stderr


def names(verbs, numbers, said, verb, *which):
    for name in which:
        line = rf"^uext4 {verb}: {re.escape(str(verbs.image))}:/t/{name}: .*\b{numbers[name]}\b"
        check(re.search(line, said, re.M), f"{verb} does not tell of {name}: {said}")
    check(len(re.findall(rf"^uext4 {verb}: ", said, re.M)) == len(which), f"{verb} tells more: {said}")


def listings(verbs, numbers):
    out, said = run(verbs, "ls", "-l", ":/t")
    rows = {line.split()[-1]: line.split() for line in out.splitlines()[1:]}  # behind the total
    check(sorted(rows) == ["a", "b", "c", "d", "e", "z"], f"ls -l: {out}")
    for name in ("b", "c"):
        check(rows[name] == ["??????????", "?", "?", "?", "?", "?", name], f"ls -l: {out}")
    check(rows["e"][0].startswith("-rw") and rows["e"][1] == "1", f"ls -l: {out}")
    names(verbs, numbers, said, "ls", "b", "c")

    out, said = run(verbs, "ls", "-li", ":/t")
    rows = {line.split()[-1]: line.split() for line in out.splitlines()[1:]}
    for name in ("b", "c"):
        check(rows[name] == [str(numbers[name]), "??????????", "?", "?", "?", "?", "?", name], f"ls -li: {out}")

    out, said = run(verbs, "ls", "--json", ":/t")
    rows = {row["name"]: row for row in json.loads(out)}
    check(sorted(rows) == ["a", "b", "c", "d", "e", "z"] and rows["e"]["links"] == 1, f"ls --json: {out}")
    for name in ("b", "c"):
        check(sorted(rows[name]) == ["error", "inode", "name"] and rows[name]["inode"] == numbers[name] and
              str(numbers[name]) in rows[name]["error"], f"ls --json: {rows[name]}")

    out, said = run(verbs, "tree", ":/t")
    check([line[4:].split()[0] for line in out.splitlines()[1:]] == ["a", "b", "c", "d", "e", "z", "`--"], f"tree: {out}")
    names(verbs, numbers, said, "tree", "b", "c", "d")

    out, said = run(verbs, "tree", "--json", ":/")
    top = {row["name"]: row for row in json.loads(out)}
    rows = {row["name"]: row for row in top["t"]["entries"]}
    check(sorted(rows) == ["a", "b", "c", "d", "e", "z"], f"tree --json: {out}")
    check([name for name in rows if "error" in rows[name]] == ["b", "c", "d"], f"tree --json: {out}")
    check([row["name"] for row in rows["z"]["entries"]] == ["sound"], f"tree --json: {out}")

    # What is sound is found, and counts.
    out, said = run(verbs, "find", ":/t", "-type", "f")
    check(out.splitlines() == ["/t/a", "/t/e", "/t/z/sound"], f"find: {out}")
    names(verbs, numbers, said, "find", "b", "c", "d")
    out, said = run(verbs, "du", ":/t")
    check([line.split()[1] for line in out.splitlines()] == ["/t/d", "/t/z", "/t"], f"du: {out}")
    names(verbs, numbers, said, "du", "b", "c", "d")
    out, said = run(verbs, "ls", "-R", ":/t")
    check(out.splitlines()[:9] == ["/t:", "a", "b", "c", "d", "e", "z", "", "/t/d:"] and out.endswith("/t/z:\nsound\n"), f"ls -R: {out}")
    names(verbs, numbers, said, "ls", "b", "c", "d")
    out, said = run(verbs, "chmod", "-R", "700", ":/t")
    names(verbs, numbers, said, "chmod", "b", "c", "d")
    check(all(verbs.status(f"/t/{name}")["mode_octal"] == "0700" for name in ("a", "d", "e", "z", "z/sound")), "chmod -R")

    out, said = run(verbs, "ls", ":/t/d")
    names(verbs, numbers, said, "ls", "d")


def others(scratch, verbs):
    """Every other verb says the same with the same code."""
    out = scratch.path("out")
    for words in (("stat",), ("cat",), ("rm",), ("lsattr",), ("chmod", "600")):
        for name in ("b", "c"):
            said = run(verbs, *words, f":/t/{name}")[1]
            check(f"uext4 {words[0]}: {verbs.image}:/t/{name}: " in said, f"{words} {name}: {said}")
    said = run(verbs, "cp", "-r", ":/t", str(out))[1]
    for name in ("b", "c", "d"):
        check(f"uext4 cp: {verbs.image}:/t/{name}: " in said, f"cp: {said}")
    check(sorted(path.name for path in pathlib.Path(out).iterdir()) == ["a", "d", "e", "z"], "cp: not all that is sound")
    # Into another image, which stays sound, and with all that goes with -a.
    other = Verbs(scratch, scratch.image("sound", "16M", "-t", "ext4"))
    for words in (("-r", ":/t", f"{other.image}:/r"), ("-a", ":/t", f"{other.image}:/a")):
        said = run(verbs, "cp", *words)[1]
        for name in ("b", "c", "d"):
            check(f"uext4 cp: {verbs.image}:/t/{name}: " in said, f"cp: {said}")
        check(other("ls", f":/{words[0][1]}").split() == ["a", "d", "e", "z"], "cp: not all that is sound")
        check(other("ls", f":/{words[0][1]}/z").split() == ["sound"], "cp: not all that is sound")
    mounting.clean(other.image)


def large(scratch):
    """Of a directory whose last block is damaged, what comes before is listed and copied."""
    verbs = Verbs(scratch, scratch.image("large", "16M", "-t", "ext4", "-b", "1024", "-O", "^dir_index"))
    many = scratch.path("many")
    many.mkdir()
    for i in range(100):
        (many / f"a name of some length {i:03}").touch()
    verbs("cp", "-r", many, ":/many")
    spoil(verbs.image, int(debugfs(verbs.image, "blocks /many").split()[-1]) * 1024 + 30)
    out = scratch.path("of many")
    for count in (len(run(verbs, "ls", ":/many")[0].splitlines()), len(json.loads(run(verbs, "ls", "--json", ":/many")[0])),
                  len(run(verbs, "tree", ":/many")[0].splitlines()) - 1,
                  len(list(out.iterdir())) if run(verbs, "cp", "-r", ":/many", str(out)) else 0):
        check(50 < count < 100, f"{count} names of 100")
    other = Verbs(scratch, scratch.image("of many in an image", "16M", "-t", "ext4"))
    run(verbs, "cp", "-r", ":/many", f"{other.image}:/")
    check(50 < len(other("ls", ":/many").splitlines()) < 100, "an image does not get what is known of a directory")
    mounting.clean(other.image)


def circle(scratch):
    """A directory that contains itself."""
    verbs = Verbs(scratch, scratch.image("circle", "16M", "-t", "ext4"))
    verbs("mkdir", "-p", ":/a/b", ":/z")
    subprocess.run(["debugfs", "-w", "-R", "ln /a /a/b/again", str(verbs.image)], capture_output=True, check=True)
    out, said = run(verbs, "tree", str(verbs.image))
    check("again" in out and "`-- z" in out and "contains itself" in said, f"tree: {out}{said}")
    other = Verbs(scratch, scratch.image("no circle", "16M", "-t", "ext4"))
    for words in (("-r", ":/", f"{other.image}:/"), ("-r", ":/a", ":/copy")):
        said = run(verbs, "cp", *words)[1]
        check(f"uext4 cp: {verbs.image}:" in said and "contains itself" in said, f"cp: {said}")
    for place in (f"{other.image}:/a/b", ":/copy/b"):
        check(verbs("ls", place) == "again\n", "what is in a circle is not copied once")
    mounting.clean(other.image)


def inside_out(scratch):
    """A directory that lies in two others: what is copied into it would go on for ever."""
    verbs = Verbs(scratch, scratch.image("inside out", "16M", "-t", "ext4"))
    verbs("mkdir", ":/a", ":/a/one", ":/t")
    subprocess.run(["debugfs", "-w", "-R", "ln /t /a/t", str(verbs.image)], capture_output=True, check=True)
    said = run(verbs, "cp", "-r", ":/a", ":/t")[1]
    check(f"{verbs.image}:/a/t/a: is what this copy has made" in said, f"cp: {said}")
    check(verbs("ls", ":/t/a").split() == ["one", "t"], "cp: not all that was there before")


def a_name_for_elsewhere(scratch):
    """A directory of elsewhere has a name in a tree that is removed: what is in it stays."""
    for above in ("/", "/a", "/other"):
        image = scratch.image("elsewhere", "8M", "-t", "ext4", "-b", "1024")
        verbs = Verbs(scratch, image)
        verbs("mkdir", "-p", ":/a/b", ":/other")
        for place in (":/keep", ":/a/keep", ":/other/keep"):
            verbs("cp", "/etc/hostname", place)
        number = verbs.status(above)["inode"]
        subprocess.run(["debugfs", "-w", "-R", f"ln <{number}> /a/b/name", str(image)], capture_output=True, check=True)
        verbs("rm", "-r", ":/a/b", status=IMPOSSIBLE)
        check(verbs("ls", ":/a/b").split() == ["name"], "it is not this name that stopped it")
        for place in (":/keep", ":/a/keep", ":/other/keep"):
            check(verbs("cat", place) == pathlib.Path("/etc/hostname").read_text(), f"{above}: {place} is gone")


def counts(scratch):
    """A descriptor that counts wrong keeps nobody from what its group has."""
    for features, field, said in (("metadata_csum", "free_inodes_count", 60000), ("metadata_csum", "free_blocks_count", 60000),
                                  ("^metadata_csum,^uninit_bg", "itable_unused", None)):
        image = scratch.image("counts", "16M", "-t", "ext4", "-b", "1024", "-O", features)
        verbs = Verbs(scratch, image)
        verbs("cp", "/etc/hostname", ":/file")
        for request in (f"set_bg 0 {field} 60000", "set_bg 0 checksum calc"):
            subprocess.run(["debugfs", "-w", "-R", request, str(image)], capture_output=True, check=True)
        check(verbs("cat", ":/file") == pathlib.Path("/etc/hostname").read_text(), f"{field}: the contents differ")
        if said is None:
            mounting.clean(image)
            verbs("check", str(image))
            continue
        out = subprocess.run([verbs.program, "check", image], capture_output=True, text=True, check=False).stdout
        check(f"the descriptor says {said}" in out, f"check: {out}")
        # Other groups give what this one does not.
        with_room = scratch.mount(image, options="errors=continue")
        (with_room / "new").write_bytes(b"new")
        check((with_room / "new").read_bytes() == b"new" and (with_room / "file").exists(), "the mount differs")
        scratch.umount(with_room)


def descriptors(scratch):
    """A descriptor with a wrong checksum keeps nobody from reading; nothing is written by it."""
    for features in ("metadata_csum", "^metadata_csum,uninit_bg"):
        verbs = Verbs(scratch, scratch.image("descriptors", "16M", "-t", "ext4", "-b", "1024", "-O", features))
        verbs("cp", "/etc/hostname", ":/file")
        spoil(verbs.image, 2048 + 0x1E)  # bg_checksum of group 0
        what = "group 0: descriptor: bad checksum"
        for words in (("ls", ":/"), ("stat", ":/file"), ("tree", ":/")):
            verbs(*words, says=what)
        check(verbs("cat", ":/file") == pathlib.Path("/etc/hostname").read_text(encoding="utf-8"), "other contents")
        top = scratch.mount(verbs.image, options="ro")
        check((top / "file").read_text(encoding="utf-8") == pathlib.Path("/etc/hostname").read_text(encoding="utf-8"),
              "other contents on a mount")
        scratch.umount(top)
        before = pathlib.Path(verbs.image).read_bytes()
        check(what in run(verbs, "rm", ":/file")[1], "rm does not say why it cannot")
        after = pathlib.Path(verbs.image).read_bytes()
        check(before[2048:4096] == after[2048:4096], "a descriptor was written")


def record_of(image, name, block_size):
    """Where the entry of that name lies in the image, and in which block."""
    found = re.search(rb"[\x01-\x08]" + re.escape(name.encode()) + rb"(?![0-9])", image.read_bytes())
    at = found.start() - 7
    return at, at // block_size


def the_rest_of_a_directory(scratch):
    """What is damaged in a directory hides nothing else of it, from the verbs and on a mount."""
    names = {f"name{number:03}" for number in range(300)}
    for features in ("^metadata_csum,^dir_index", "^metadata_csum", "metadata_csum,^dir_index", "metadata_csum"):
        for what in ("number", "zero byte", "bit"):
            image = scratch.image("rest", "16M", "-t", "ext4", "-b", "1024", "-O", f"^has_journal,{features}")
            top = scratch.mount(image)
            for name in names:
                (top / name).write_bytes(name.encode())
            scratch.umount(top)
            at, block = record_of(image, "name150", 1024)
            spoilt = {"number": (at, b"\xff\xff\xff\x7f"), "zero byte": (at + 9, b"\0"), "bit": (at + 8, b"N")}[what]
            with open(image, "r+b") as file:
                file.seek(block * 1024)
                beside = file.read(1024)
                held = {name for name in names if name.encode() in beside}
                file.seek(spoilt[0])
                file.write(spoilt[1])
            # A checksum that is wrong says nothing of which entry it is.
            lost = held if features.startswith("metadata_csum") else {"name150"}
            if what == "bit" and lost != held:
                continue  # a name like any other
            kept = names - lost
            verbs = Verbs(scratch, image)
            where = f"{features}, {what}"
            seen = set(run(verbs, "ls", ":/")[0].split())
            check(kept <= seen, f"{where}: ls does not list {sorted(kept - seen)}")
            with tempfile.TemporaryDirectory(dir=scratch.folder) as out:
                run(verbs, "cp", "-a", ":/", out)
                check(set(os.listdir(out)) >= kept, f"{where}: cp -a")
            top = scratch.mount(image, options="errors=continue,ro")
            told = subprocess.run(["ls", "-f", top], capture_output=True, text=True, check=False)
            check(set(told.stdout.split()) >= kept, f"{where}: ls on a mount lists {len(told.stdout.split())}")
            check(told.returncode != 0 and "cleaning" in told.stderr, f"{where}: ls on a mount says {told}")
            for name in sorted(kept):
                check((top / name).read_bytes() == name.encode(), f"{where}: {name}")
            scratch.umount(top)


def slashes(scratch):
    """A name with a slash leads nowhere, out of an image or into another."""
    verbs = Verbs(scratch, scratch.image("slash", "16M", "-t", "ext4", "-O", "^metadata_csum,^dir_index"))
    other = Verbs(scratch, scratch.image("no slash", "16M", "-t", "ext4"))
    verbs("mkdir", ":/t")
    for name in ("first", "named-here", "second"):
        verbs("cp", "/etc/hostname", f":/t/{name}")
    data = pathlib.Path(verbs.image).read_bytes()
    pathlib.Path(verbs.image).write_bytes(data.replace(b"named-here", b"named/here"))
    for place in (str(scratch.path("no slash out")), f"{other.image}:/t", ":/again"):
        said = run(verbs, "cp", "-r", ":/t", place)[1]
        check(f"uext4 cp: {verbs.image}:/t: " in said, f"cp: {said}")
    for found in (verbs("tree", ":/again"), other("tree", ":/t")):
        check("here" not in found, f"a name with a slash is somewhere: {found}")
    mounting.clean(other.image)


def lost_orphans(scratch):
    """A damaged block of the orphan file, while there may be orphans: what only reads goes on, and says so."""
    verbs = Verbs(scratch, scratch.image("orphans", "16M", "-t", "ext4", "-b", "4096", "-O", "orphan_file"))
    verbs("cp", "/etc/hostname", ":/f")
    first = int(debugfs(verbs.image, "blocks <12>").split()[0])
    subprocess.run(["debugfs", "-w", "-R", "feature orphan_present", str(verbs.image)], capture_output=True, check=True)
    spoil(verbs.image, first * 4096 + 4092)
    what = f"orphan file: block 0: bad magic or checksum (inode 12, block {first})"
    for words in (("ls", ":/"), ("cat", ":/f"), ("stat", ":/f"), ("info", str(verbs.image)), ("tree", ":/")):
        verbs(*words, says=what)
    check(verbs("cat", ":/f") == pathlib.Path("/etc/hostname").read_text(encoding="utf-8"), "other contents")
    check(what in run(verbs, "rm", ":/f")[1], "rm does not say why it cannot")


def test(scratch):
    verbs, numbers = damaged(scratch)
    listings(verbs, numbers)
    others(scratch, verbs)
    large(scratch)
    lost_orphans(scratch)
    circle(scratch)
    inside_out(scratch)
    a_name_for_elsewhere(scratch)
    counts(scratch)
    descriptors(scratch)
    the_rest_of_a_directory(scratch)
    slashes(scratch)


if __name__ == "__main__":
    mounting.main(test)
