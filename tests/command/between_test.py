#!/usr/bin/env python3
"""Copies between images and inside of one: whoever runs them, nothing is lost, and nothing passes through the host.

Judged by e2fsck. Usage: between_test.py PROGRAM
"""

import os
import pathlib
import re
import subprocess

from verbs import FINE, IMPOSSIBLE, NO, NOBODY, Verbs, check, in_terminal, mounting

LONG = "".join(chr(ord("a") + i * i % 26) for i in range(60_000))
IN_INODES = ("-t", "ext4", "-O", "ea_inode")


def pair(scratch, name, *options):
    """Two images that nobody may write."""
    images = []
    for side in ("from", "to"):
        verbs = Verbs(scratch, scratch.image(f"{name} {side}", "16M", *(options or ("-t", "ext4"))))
        os.chown(verbs.image, NOBODY, NOBODY)
        images.append(verbs)
    return images


def sides(a, b):
    """Where copies from `a` go: the other image, and the image itself."""
    return ((b, f"{b.image}:"), (a, f"{a.image}:"))


def owner(status):
    return status["uid"], status["gid"], status["mode"]


def owners_and_modes(scratch):
    a, b = pair(scratch, "owners")
    a("mkdir", ":/etc")
    a("cp", "/etc/hostname", ":/etc/f4")
    a("chown", "65537:100000", ":/etc/f4")
    a("chmod", "6755", ":/etc/f4")
    a("ln", "-s", "f4", ":/etc/link")
    a("chown", "-h", "65537:5", ":/etc/link")
    for there, place in sides(a, b):
        for number, (words, expected, of_link) in enumerate((
                ((), (65537, 100000, "-rwsr-sr-x"), (65537, 5)),
                (("--map-owner", "65537:12"), (12, 100000, "-rwsr-sr-x"), (12, 5)),
                (("--owner", "3:4"), (3, 4, "-rwsr-sr-x"), (3, 4)),
                (("--mode", "2711"), (65537, 100000, "-rwx--s--x"), (65537, 5)))):
            a("cp", "-a", *words, ":/etc/f4", f"{place}/same{number}", user=NOBODY)
            found = owner(there.status(f"/same{number}"))
            check(found == expected, f"cp -a {words} to {place}: {found}")
            a("cp", "-a", *words, ":/etc/link", f"{place}/link{number}", user=NOBODY)
            found = owner(there.status(f"/link{number}"))[:2]
            check(found == of_link, f"cp -a {words} of a link to {place}: {found}")
        a("cp", "--map-owner", "65537:12", ":/etc/f4", f"{place}/plain", user=NOBODY)
        check(owner(there.status("/plain")) == (12, NOBODY, "-rwxr-xr-x"), f"cp: {there.status('/plain')}")
        mounting.clean(there.image)


def nodes(scratch):
    a, b = pair(scratch, "nodes")
    a("mkdir", ":/dev")
    for name, *words in (("null", "c", "1", "3"), ("disk", "b", "259", "1000000"), ("fifo", "p"), ("socket", "s")):
        a("mknod", "--mode", "620", "--owner", "7:8", f":/dev/{name}", *words)
    for there, place in sides(a, b):
        a("cp", "-a", ":/dev", f"{place}/nodes", user=NOBODY)
        for name in ("null", "disk", "fifo", "socket"):
            old, new = (v.status(path) for v, path in ((a, f"/dev/{name}"), (there, f"/nodes/{name}")))
            kept = [key for key in old if key not in ("name", "inode", "btime", "ctime")]
            check([old[key] for key in kept] == [new.get(key) for key in kept], f"{old} {new}")
        mounting.clean(there.image)


def attributes(scratch):
    a, b = pair(scratch, "attributes", *IN_INODES)
    a("cp", "/etc/hostname", ":/f")
    a("ln", "-s", "f", ":/link")
    names = {"user.short": "a", "user.long": LONG, "trusted.t": "b", "security.s": "c"}
    for name, value in names.items():
        a("setfattr", "-n", name, "-v", value, ":/f")
    a("setfattr", "-h", "-n", "trusted.of_link", "-v", "d", ":/link")
    # An ACL: rwx for its owner, r-x for user 65537, a mask, nothing for the others.
    acl = "0x0200000001000700ffffffff020005000100010004000500ffffffff10000500ffffffff20000000ffffffff"
    a("setfattr", "-n", "system.posix_acl_access", "-v", acl, ":/f")
    a("setfattr", "-n", "security.capability", "-v", "0x0100000200040000000000000000000000000000", ":/f")
    shown = a("getfattr", ":/f")
    check(all(name in shown for name in (*names, "posix_acl_access", "security.capability")), shown)
    for there, place in sides(a, b):
        for name in ("f", "link"):
            a("cp", "-a", f":/{name}", f"{place}/{name} again", user=NOBODY)
            check(there("getfattr", "-h", f":/{name} again") == a("getfattr", "-h", f":/{name}"),
                  f"other attributes: {there('getfattr', '-h', f':/{name} again')[:2000]}")
        check(there.status("/f again")["mode"] == a.status("/f")["mode"], "another mode")
        mounting.clean(there.image)
    # Where there is no room for one, that is told of the file.
    small = Verbs(scratch, scratch.image("without inodes for values", "16M", "-t", "ext4", "-O", "^ea_inode"))
    a("cp", "-a", ":/f", f"{small.image}:/", status=IMPOSSIBLE, says=f"uext4 cp: {small.image}:/f: user.long: ")
    check(small("cat", ":/f") == a("cat", ":/f"), "the contents are lost with an attribute")
    check(small.status("/f")["mode"] == a.status("/f")["mode"], "the permissions are lost with an attribute")
    kept = small("getfattr", ":/f")
    check(all(name in kept for name in ("user.short", "trusted.t", "security.s")), f"other attributes are lost: {kept}")
    mounting.clean(small.image)
    to_the_host(scratch, a, small)


def to_the_host(scratch, a, small):
    """An attribute that cannot be set for another reason than the host's rules is no success."""
    directory = scratch.mount(small.image)
    a("cp", "-a", ":/f", directory / "out", status=NO, says=f"uext4 cp: {directory / 'out'}: user.long: ")
    check((directory / "out").read_text(encoding="utf-8") == a("cat", ":/f"), "the contents are lost with an attribute")
    check(os.getxattr(directory / "out", "trusted.t") == b"b", "the attributes beside one that cannot be set are lost")
    a("cp", "-a", ":/link", directory)
    scratch.umount(directory)
    mounting.clean(small.image)


COPIED = 0x2003C0FF & ~0x4000  # s u c S i a d A t D T P, as bits of the inode; j is looked at by itself
JOURNAL = 0x4000


def flags_of(verbs, path):
    told = subprocess.run(["debugfs", "-R", f"stat \"{path}\"", str(verbs.image)], capture_output=True, text=True, check=True)
    return int(re.search(r"Flags: 0x([0-9a-f]+)", told.stdout)[1], 16) & (COPIED | JOURNAL)


def flags(scratch):
    """With -a all flags that the target can hold: those that forbid changes when nothing is left to be changed."""
    a, b = pair(scratch, "flags")
    a("mkdir", "-p", ":/t/d/e", ":/t/z")
    for name in ("f", "d/f", "d/e/log", "j", "plain", "z/last"):
        a("cp", "/etc/hostname", f":/t/{name}")
    a("ln", "-s", "f", ":/t/link")
    a("ln", ":/t/f", ":/t/z/second")
    a("ln", ":/t/z/last", ":/t/d/other")
    flagged = {"/t": "d", "/t/f": "isuS", "/t/d": "aDT", "/t/d/f": "aAdt", "/t/d/e": "iP", "/t/d/e/log": "a", "/t/j": "jc", "/t/plain": "d",
               "/t/z/last": "i"}
    for path, bits in flagged.items():
        a("chattr", f"+{bits}", f":{path}")
    subprocess.run(["debugfs", "-w", "-R", "sif /t/link flags 0xc0", str(a.image)], capture_output=True, check=True)
    paths = ("/t", "/t/f", "/t/d", "/t/d/f", "/t/d/e", "/t/d/e/log", "/t/j", "/t/plain", "/t/z", "/t/z/last", "/t/z/second",
             "/t/d/other", "/t/link")
    before = {path: flags_of(a, path) for path in paths}
    check(before["/t/f"] == 0x1B and before["/t/j"] == 0x4004 and before["/t/d/e"] == 0x20000010 and before["/t/plain"] == 0x40,
          f"{before}")
    for there, place in sides(a, b):
        # What the folder hands on is not the source's.
        there("mkdir", ":/into")
        there("chattr", "+A", ":/into")
        a("cp", "-a", ":/t", f"{place}/into", user=NOBODY)
        for path, old in before.items():
            check(flags_of(there, f"/into{path}") == old, f"cp -a to {place}{path}: {flags_of(there, f'/into{path}'):x}, not {old:x}")
        check(there.status("/into/t/f")["inode"] == there.status("/into/t/z/second")["inode"], "a link to what is immutable")
        old, new = (v.status(path) for v, path in ((a, "/t/d/f"), (there, "/into/t/d/f")))
        check((old["mtime"], old["mode"]) == (new["mtime"], new["mode"]), f"{old} {new}")
        for mode in ((), ("-r",)):
            there("mkdir", ":/without")
            a("cp", *mode, ":/t/f", ":/t/d/f", ":/t/j", f"{place}/without")
            for name in ("f", "j"):
                check(flags_of(there, f"/without/{name}") == 0, f"cp {mode} has copied flags of {name}")
            there("rm", "-r", ":/without")
        replaced(a, there, place)
        mounting.clean(there.image)
    # To the host nothing of it goes, as with cp(1).
    out = scratch.path("flags out")
    a("cp", "-a", ":/t", out)
    (out / "f").write_text("changed")
    # What the target cannot hold is told, and what it can is kept: memory as storage does not go with contents in an inode.
    inline = Verbs(scratch, scratch.image("flags inline", "16M", "-t", "ext4", "-O", "inline_data", "-I", "256"))
    a("cp", "/etc/hostname", ":/x")
    a("chattr", "+xdi", ":/x")
    a("cp", "-a", ":/x", f"{inline.image}:/", status=IMPOSSIBLE, says=f"uext4 cp: {inline.image}:/x: flag x: ")
    check(flags_of(inline, "/x") == 0x50 and inline("cat", ":/x") == a("cat", ":/x"), f"{flags_of(inline, '/x'):x}")
    mounting.clean(inline.image)


def replaced(a, there, place):
    """What may not be changed stays, and is named; of another file the flags become the source's with -a alone."""
    for name, bits in (("immutable", "i"), ("append", "a")):
        for links in (1, 2):
            there("cp", "/etc/passwd", f":/{name}")
            if links == 2:
                there("ln", f":/{name}", ":/other name")
            there("chattr", f"+{bits}", f":/{name}")
            for mode in ((), ("-r",), ("-a",)):
                a("cp", *mode, ":/t/plain", f"{place}/{name}", status=NO, says=f"uext4 cp: {there.image}:/{name}: ")
                check(there("cat", f":/{name}") == pathlib.Path("/etc/passwd").read_text(encoding="utf-8"), f"cp {mode}: {name}")
                check(there.status(f"/{name}")["links"] == links, f"cp {mode}: {there.status(f'/{name}')}")
            there("chattr", f"-{bits}", f":/{name}")
            there("rm", f":/{name}", *([":/other name"] if links == 2 else []))
    there("cp", "/etc/passwd", ":/there")
    there("chattr", "+At", ":/there")
    a("cp", ":/t/plain", f"{place}/there")
    check(flags_of(there, "/there") == 0x8080, f"cp has changed the flags: {flags_of(there, '/there'):x}")
    a("cp", "-a", ":/t/plain", f"{place}/there")
    check(flags_of(there, "/there") == 0x40, f"cp -a has left other flags: {flags_of(there, '/there'):x}")
    # Of two sources for one name the last one counts, whatever the first one is.
    there("mkdir", ":/twice")
    a("cp", "-a", ":/t/d/e/log", ":/t/plain", f"{place}/twice")
    a("cp", "-a", ":/t/d/f", ":/t/f", ":/t/d/e/.", ":/t/z/.", f"{place}/twice", status=NO, says="/twice/log: ")
    check(flags_of(there, "/twice/f") == 0x1B and flags_of(there, "/twice/log") == 0x20, "sources of one name")
    check(flags_of(there, "/twice") == 0, f"the last one's flags: {flags_of(there, '/twice'):x}")


def trees(scratch):
    """Links, holes, times, directories, and sources that are named."""
    tree = scratch.path("tree")
    (tree / "deep" / "er").mkdir(parents=True)
    (tree / "one").write_text("one")
    os.link(tree / "one", tree / "deep" / "two")
    os.symlink("one", tree / "link")
    os.link(tree / "link", tree / "deep" / "link too", follow_symlinks=False)
    with open(tree / "holes", "wb") as file:
        file.seek(5 << 20)
        file.write(b"in the middle" * 1000)
        file.truncate(1 << 40)
    os.chmod(tree / "deep" / "er", 0)
    os.utime(tree / "deep", ns=(10**18 + 3, 978307323 * 10**9 + 4))
    a, b = pair(scratch, "trees")
    a("cp", "-a", tree, ":/")
    a("mkdir", ":/also", ":/also/below")
    a("cp", "/etc/hostname", ":/also/one")
    a("ln", ":/also/one", ":/also/two")
    a("ln", ":/also/one", ":/also/below/one")
    paths = ("", "/one", "/deep", "/deep/two", "/deep/er", "/link", "/deep/link too", "/holes")
    before = {path: a.status(f"/tree{path}") for path in paths}
    for there, place in sides(a, b):
        a("cp", "-a", ":/tree", f"{place}/copy", user=NOBODY)
        for path, old in before.items():
            new = there.status(f"/copy{path}")
            kept = [key for key in old if key not in ("name", "inode", "btime", "ctime")]
            check([old[key] for key in kept] == [new[key] for key in kept], f"{path}: {old} {new}")
        for one, other in (("/one", "/deep/two"), ("/link", "/deep/link too")):
            check(there.status(f"/copy{one}")["inode"] == there.status(f"/copy{other}")["inode"], f"{one} is no link")
        of = [v("fiemap", f":{path}").splitlines() for v, path in ((a, "/tree/holes"), (there, "/copy/holes"))]
        check([line.split()[0] for line in of[0]] == [line.split()[0] for line in of[1]], f"{of}")
        # By name: links stay links over several sources, also where two of them are called alike.
        there("mkdir", ":/named")
        a("cp", "-a", ":/also/one", ":/also/two", ":/also/below/one", "/etc/passwd", f"{place}/named", user=NOBODY)
        check(there("ls", ":/named").split() == ["one", "passwd", "two"], there("ls", ":/named"))
        check(there.status("/named/one")["links"] == 2, f"{there.status('/named/one')}")
        a("cp", ":/tree/link", f"{place}/followed", user=NOBODY)
        check(there("cat", ":/followed") == "one" and there.status("/followed")["mode"] == "-rw-r--r--", "a link followed")
        number = there.status("/followed")["inode"]
        a("cp", ":/tree/holes", f"{place}<{number}>", user=NOBODY)
        check(there.status("/followed")["size"] == 1 << 40, "contents for a number")
        mounting.clean(there.image)


def deep(scratch):
    """As deep as a path can name, and deeper."""
    a, b = pair(scratch, "deep")
    path = "/dd" * 1300
    lines = [f"mkdir -p {path}", f"cp host:/etc/hostname {path}/file"]
    subprocess.run([a.program, "shell", a.image], input="\n".join(lines), text=True, check=True)
    for there, place in sides(a, b):
        a("cp", "-a", ":/dd", f"{place}/e", user=NOBODY)
        check(there("cat", f":/e{path[3:]}/file") == a("cat", f":{path}/file"), "what is deep")
        mounting.clean(there.image)
    # A name that makes it longer than any path.
    number = a.status(path)["inode"]
    a("mkdir", f":<{number}>/{'n' * 200}")
    a("cp", "-a", ":/dd", f"{b.image}:/longer", status=NO, says="File name too long")
    check(b("cat", f":/longer{path[3:]}/file") == a("cat", f":{path}/file"), "what is beside it")
    mounting.clean(b.image)


def itself(scratch):
    """In a tree as well nothing is copied onto itself."""
    a, _ = pair(scratch, "itself")
    a("mkdir", "-p", ":/t/x")
    a("cp", "/etc/hostname", ":/t/f")
    a("ln", ":/t/f", ":/t/x/f")
    a("ln", "-s", "q", ":/t/l")
    a("ln", ":/t/l", ":/t/x/l")
    a("ln", "-s", "x/m", ":/t/m")
    a("cp", "/etc/hostname", ":/t/x/m")
    a("cp", "/etc/hostname", ":/t/x/n")
    for mode in ("-r", "-a"):
        a("cp", mode, ":/t/x/.", ":/t", status=NO, says=f"{a.image}:/t/x/./f and {a.image}:/t/f are the same")
        for path in ("/t/f", "/t/x/m", "/t/n"):
            check(a.status(path)["size"] > 0, f"cp {mode}: {path} is empty")
        check(a.status("/t/l")["inode"] == a.status("/t/x/l")["inode"], "a link of two names is replaced")
        a("rm", ":/t/n")
    a("cp", "-a", ":/t", ":/t/x/new", status=NO, says="into itself")
    # What the first source makes is there for the second.
    a("mkdir", ":/late", ":/late/u")
    a("cp", "/etc/hostname", ":/u")
    a("cp", ":/t/f", ":/late/f", ":/late", status=NO, says=f"{a.image}:/late/f and ")
    check(a.status("/late/f")["size"] > 0, "a copy is copied onto itself")
    mounting.clean(a.image)


def other_spellings(scratch):
    """An image is the same, however it is named."""
    a, _ = pair(scratch, "spellings")
    folder, name = os.path.split(a.image)
    link = scratch.path("linked")
    link.symlink_to(a.image)
    a("cp", "/etc/hostname", ":/f")
    for number, image in enumerate((f"{folder}/./{name}", str(link))):
        a("cp", f"{image}:/f", f":/copy{number}")
        a("cp", "-a", ":/f", f"{image}:/kept{number}")
        check(a("cat", f":/copy{number}") == a("cat", ":/f") == a("cat", f":/kept{number}"), image)
        a("cp", f"{image}:/f", ":/f", status=NO, says="are the same")
    mounting.clean(a.image)


def out_of_both(scratch):
    """What one image brings to the host leads nowhere for the next one, and no image that is named is written to."""
    a, b = pair(scratch, "out of both")
    outside = scratch.path("outside")
    outside.write_text("kept")
    a("ln", "-s", outside, ":/one")
    b("cp", "/etc/hostname", ":/one")
    for image in (a, b):
        image("cp", "/etc/hostname", ":/two")
    for mode, sandbox in (("-r", ()), ("-a", ("--no-sandbox",)), ("-r", ("--no-sandbox",))):
        out = scratch.path(f"both {mode} {len(sandbox)}")
        out.mkdir()
        a("cp", mode, *sandbox, ":/one", f"{b.image}:/one", out, status=NO, says="just been made")
        check(outside.read_text() == "kept" and os.path.islink(out / "one"), f"{mode}: through a link of the first image")
        os.link(a.image, out / "two")
        a("cp", *sandbox, ":/two", f"{b.image}:/two", out, status=NO, says="the image that is copied from")
        b("cp", *sandbox, ":/two", f"{a.image}:/two", out, status=NO, says="the image that is copied from")
        check(os.path.samefile(out / "two", a.image), "the name of an image")
    # A directory of the next one as well, of the same command or of another one.
    elsewhere = scratch.path("elsewhere")
    elsewhere.mkdir()
    a("ln", "-s", elsewhere, ":/tree")
    b("mkdir", ":/tree")
    b("cp", "/etc/hostname", ":/tree/file")
    for number, sandbox in enumerate(((), ("--no-sandbox",))):
        out = scratch.path(f"trees{number}")
        out.mkdir()
        a("cp", "-r", *sandbox, ":/tree", f"{b.image}:/tree", out, status=NO, says="in the way of a directory")
        b("cp", "-r", *sandbox, ":/tree", out, status=NO, says="in the way of a directory")
        told = subprocess.run([b.program, "shell", b.image], input=f"cp -r /tree host:{out}\n", text=True, check=False,
                              capture_output=True)
        check("in the way" in told.stdout + told.stderr, f"a shell: {told}")
        check(os.path.islink(out / "tree") and not os.listdir(elsewhere), "a directory through a link of an image")
        # What is named itself may be a link.
        for target in ("link", "link/"):
            os.symlink(out, scratch.path("link"))
            b("cp", "-r", "--mode", "700", *sandbox, ":/tree/.", f"{scratch.path('')}/{target}")
            check((out / "file").exists() and os.path.islink(scratch.path("link")), f"through {target}")
            check(out.stat().st_mode & 0o777 == 0o700, f"the permissions of what {target} leads to")
            scratch.path("link").unlink()
            (out / "file").unlink()
            out.chmod(0o755)
    # Two sources that want one name: the second one is not taken for a link to the first, which stays.
    b("mkdir", ":/1", ":/2", ":/3")
    b("cp", "/etc/hostname", ":/1/h")
    b("cp", "/etc/passwd", ":/3/h")
    b("ln", ":/1/h", ":/2/h")
    b("ln", ":/1/h", ":/2/k")
    for sandbox in ((), ("--no-sandbox",)):
        out = scratch.path(f"one name {len(sandbox)}")
        out.mkdir()
        b("cp", "-a", *sandbox, ":/1/h", f"{b.image}:/2/h", f"{b.image}:/3/h", f"{b.image}:/2/k", out, status=NO,
          says="just been made")
        check(os.path.samefile(out / "h", out / "k"), "two names of one file")
        check((out / "h").read_bytes() == pathlib.Path("/etc/hostname").read_bytes(), "the first one's contents")
    for image in (a, b):
        mounting.clean(image.image)


def on_a_terminal(scratch):
    a, b = pair(scratch, "terminal")
    big = scratch.path("big")
    big.write_bytes(os.urandom(3 << 20))
    a("mkdir", ":/d")
    a("cp", big, ":/d/big")
    for _, place in sides(a, b):
        status, shown = in_terminal(a.program, "cp", "-r", f"{a.image}:/d", f"{place}/again")
        check(status == FINE and re.search(rb"\[[#.]{30}\] +\d+% of \d+ MiB  big", shown), f"no bar: {shown!r}")
        check(b"100%" in shown, f"the bar does not end: {shown!r}")


def nothing_of_the_host(scratch):
    """No folder of the host has a part in it, whatever the environment names, or does not."""
    a, b = pair(scratch, "host")
    a("cp", "/etc/hostname", ":/f")
    os.environ["TMPDIR"] = "/nonexistent"
    for _, place in sides(a, b):
        a("cp", "-a", ":/f", f"{place}/again", user=NOBODY)
    del os.environ["TMPDIR"]


def test(scratch):
    mounting.need_mount()  # and root: what nobody does is held against it
    os.chmod(scratch.folder, 0o755)
    for part in (owners_and_modes, nodes, attributes, flags, trees, deep, itself, other_spellings, out_of_both, on_a_terminal,
                 nothing_of_the_host):
        part(scratch)


if __name__ == "__main__":
    mounting.main(test)
