#!/usr/bin/env python3
"""Permissions, flags, owners, links themselves, and names whose bytes are odd.

Judged by e2fsck. Usage: attributes_test.py PROGRAM
"""

import json
import os
import re
import stat
import subprocess

from verbs import FINE, IMPOSSIBLE, NO, NOBODY, Verbs, check, in_terminal, mounting, prepare


MODES = ("=", "+", "-", "u=g", "u+g-x", "g=u+x", "u=rw+x-w", "a=,u+r", "+X,u+x+X", "o+t", "a=t", "u+s,u=", "g+s,g=x",
         "o=u,g=o", "u+", "u==r", "=7", "+7", "-111", "a=rx", "g=", "u-s", "=,ug+s", "go-u", "a+rwXst")


def changes(scratch, verbs):
    """Permissions and flags are changed by the same words as by chmod(1) and chattr(1)."""
    host = scratch.path("changes")
    host.mkdir()
    (host / "file").touch()
    (host / "directory").mkdir()
    verbs("cp", "-a", host, ":/changes")
    lines, expected = "", []
    for path in ("file", "directory"):
        for change in MODES:
            lines += f"chmod 02754 /changes/{path}\nchmod {change} /changes/{path}\nstat /changes/{path}\n"
            os.chmod(host / path, 0o2754)
            mounting.run("chmod", change, host / path, umask=0)
            expected.append(stat.filemode(os.stat(host / path).st_mode)[1:])
    shown = subprocess.run([verbs.program, "shell", verbs.image], input=lines, text=True, check=True, capture_output=True).stdout
    found = re.findall(r"mode: .(.*)", shown)
    words = [f"{change} of a {path}" for path in ("file", "directory") for change in MODES]
    wrong = [(w, f, e) for w, f, e in zip(words, found, expected, strict=True) if f != e]
    check(not wrong, f"chmod: what, as it is, as it is with chmod(1): {wrong}")
    verbs("chattr", "+dA", ":/changes/file")
    verbs("chattr", "=", ":/changes/file")
    check(set(verbs("lsattr", ":/changes/file").split()[0]) <= {"-", "e"}, f"chattr =: {verbs('lsattr', ':/changes/file')}")


def links_themselves(verbs):
    """-h is what it is in chown(1), and never a way to ask for help that ends well and changes nothing."""
    verbs("ln", "-s", "file", ":/to file")
    before = verbs.status("/file")
    verbs("chown", "-h", "11:12", ":/to file")
    verbs("touch", "-h", ":/to file")
    verbs("setfattr", "-h", "-n", "trusted.a", "-v", "a", ":/to file")
    check(verbs("getfattr", "-h", ":/to file") == 'trusted.a="a"\n', "an attribute of a link")
    link = verbs.status("/to file")
    check((link["uid"], link["gid"]) == (11, 12) and link["mtime"] > before["mtime"], f"{link}")
    check(verbs.status("/file") == before, "-h changed what the link leads to")
    verbs("chown", "13:14", ":/to file")
    check(verbs.status("/file")["uid"] == 13 and verbs.status("/to file")["uid"] == 11, "without -h a link is followed")
    check("--no-dereference" in verbs("chown", "--help"), "chown --help")


def owners(scratch, verbs):
    """Who runs a verb owns what it makes."""
    for words, path in ((("mkdir", ":/by nobody"), "/by nobody"), (("touch", ":/touched"), "/touched"),
                        (("mknod", ":/fifo", "p"), "/fifo"), (("ln", "-s", "text", ":/link"), "/link"),
                        (("mkdir", "--owner", "7:8", ":/of 7"), "/of 7"), (("cp", "/etc/hostname", ":/copied"), "/copied")):
        verbs(*words, user=NOBODY)
        status = verbs.status(path)
        expected = (7, 8) if path == "/of 7" else (NOBODY, NOBODY)
        check((status["uid"], status["gid"]) == expected, f"{path} belongs to {status['uid']}:{status['gid']}")


ODD_NAMES = (b"\xff", b"\xfe", b"\x01\x1b[31m", b"a\\b", "\u00fc".encode(), b"\xc2\x9b31m")


def names_as_bytes(scratch):
    """Names that are no UTF-8 can be told apart in JSON; those that a terminal would obey are shown to it as text."""
    verbs = Verbs(scratch, scratch.image("bytes", "8M", "-t", "ext4"))
    source = os.fsencode(scratch.path("odd names"))
    os.mkdir(source)
    for name in ODD_NAMES:
        with open(os.path.join(source, name), "wb"):
            pass
    os.symlink(b"to \xfd", os.path.join(source, b"link"))
    os.setxattr(os.path.join(source, b"\xff"), b"user.\xfa", b"\xf9")
    os.setxattr(os.path.join(source, b"\xff"), b"user.text", b"text")
    verbs("cp", "-a", scratch.path("odd names"), ":/odd")

    def real(entry, key="name"):
        return bytes.fromhex(entry[key + "_bytes"]) if key + "_bytes" in entry else entry[key].encode()

    entries = json.loads(verbs("ls", "--json", ":/odd"))
    check({real(e) for e in entries} == {*ODD_NAMES, b"link"}, f"{entries}")
    check([real(e, "target") for e in entries if "target" in e] == [b"to \xfd"], f"{entries}")
    check([e["name_bytes"] for e in entries if e["name"] == "\ufffd"] == ["fe", "ff"], f"{entries}")
    check(sum("name_bytes" in e for e in entries) == 2, "a name in UTF-8 needs no bytes")
    tree = json.loads(verbs("tree", "--json", ":/odd"))
    check({real(e) for e in tree} == {*ODD_NAMES, b"link"}, f"{tree}")
    place = os.fsencode(f"{verbs.image}:/odd/") + b"\xff"
    attributes = json.loads(verbs("getfattr", "--json", os.fsdecode(place)))
    check({real(a): real(a, "value") for a in attributes} == {b"user.\xfa": b"\xf9", b"user.text": b"text"},
          f"{attributes}")
    # To a pipe the bytes themselves, to a terminal none that it would obey.
    plain = subprocess.run([verbs.program, "ls", f"{verbs.image}:/odd"], capture_output=True, check=True).stdout
    check(set(plain.split(b"\n")) == {*ODD_NAMES, b"link", b""}, f"{plain!r}")
    for words in (("ls",), ("ls", "-l"), ("tree",), ("ls", "--json"), ("stat",), ("check",)):
        status, shown = in_terminal(verbs.program, *words, f"{verbs.image}:/odd" if words != ("check",) else str(verbs.image))
        check(status == FINE and not re.search(rb"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f]|\xc2[\x80-\x9f]", shown), f"{words}: {shown!r}")
        if words in (("ls",), ("tree",)):
            for text in (rb"\377", rb"\376", rb"\001\033[31m", rb"a\\b", "\u00fc".encode(), rb"\302\23331m"):
                check(text + b"\r\n" in shown, f"{words}: {text!r} is not in {shown!r}")
    status, shown = in_terminal(verbs.program, "cat", os.fsdecode(b"%s:/\x1b[31m" % os.fsencode(str(verbs.image))))
    check(status == NO and rb"\033[31m" in shown and b"\x1b" not in shown, f"a message: {shown!r}")


def small_logs(scratch):
    """Whatever features an image has, its names can be moved: a log of 1,024 blocks is mke2fs's own choice."""
    for block in (1024, 2048, 4096):
        size = "24M" if block == 1024 else "64M"
        image = scratch.image(f"small{block}", size, "-t", "ext4", "-b", str(block), "-I", "256", "-O", "inline_data,ea_inode")
        verbs = Verbs(scratch, image)
        for path in (":/a", ":/b", ":/a/d", ":/b/e"):
            verbs("mkdir", path)
        for path in (":/a/f", ":/b/f", ":/a/g"):
            verbs("cp", "/etc/hostname", path)
        verbs("mv", ":/a/f", ":/b/f")
        verbs("mv", ":/a/d", ":/b/d")
        verbs("mv", ":/a/g", ":/b/e/g")
        mounting.clean(image)
        inherits(scratch, image)
        mounting.clean(image)


def inherits(scratch, image):
    """Files and directories in one with a default access list."""
    directory = scratch.mount(image)
    mounting.run("setfacl", "-d", "-m", "u:1:rwx,g:2:r", directory / "a")
    for number in range(5):
        os.mkdir(directory / "a" / f"directory {number}")
        (directory / "a" / f"file {number}").write_text("x")
        os.chmod(directory / "a" / f"file {number}", 0o640)
    scratch.umount(directory)


def values_of_all_sizes(scratch):
    """Values between what an inode holds and what needs one of its own, on files and on links: e2fsck takes them, or they
    are refused."""
    for block in (1024, 4096):
        image = scratch.image(f"values{block}", "32M", "-t", "ext4", "-b", str(block), "-I", "256", "-O", "ea_inode")
        verbs = Verbs(scratch, image)
        for size in (60, 200, block // 2 - 10, block // 2 + 10, block - 100, block - 61, block - 20, block, 3 * block):
            value = "v" * size
            verbs("cp", "/etc/hostname", f":/file{size}")
            verbs("setfattr", "-n", "user.x", "-v", value, f":/file{size}")
            verbs("ln", "-s", "short", f":/short{size}")
            verbs("ln", "-s", "long" * 30, f":/long{size}")
            verbs("setfattr", "-n", "trusted.x", "-v", value, f":/long{size}")
            # Beyond a block there is no place on a short link that e2fsck does not take for damage.
            fits = size <= block - 61
            verbs("setfattr", "-n", "trusted.x", "-v", value, f":/short{size}", status=FINE if fits else IMPOSSIBLE)
            mounting.clean(image)
        mounting.run(scratch.program, "check", image)


def beside_large_ones(scratch):
    """A value that fills most of a block leaves room for others, as in the kernel."""
    image = scratch.image("beside", "32M", "-t", "ext4", "-b", "1024", "-I", "256", "-O", "ea_inode")
    verbs = Verbs(scratch, image)
    verbs("mkdir", ":/directory")
    for name, size in (("user.a", 960), ("user." + "e" * 200, 60000), ("user.c", 900)):
        verbs("setfattr", "-n", name, "-v", "v" * size, ":/directory")
    mounting.clean(image)


def of_the_hurd(scratch):
    """Where Linux has an inode's version, the Hurd has its translator."""
    image = scratch.image("hurd", "8M", "-o", "hurd", "-t", "ext2", "-I", "128")
    verbs = Verbs(scratch, image)
    verbs("mkdir", ":/directory")
    verbs("cp", "/etc/hostname", ":/directory/file")
    verbs("setfattr", "-n", "user.x", "-v", "value", ":/directory/file")
    verbs("chmod", "0700", ":/directory/file")
    verbs("mv", ":/directory/file", ":/file")
    mounting.clean(image)
    mounting.run(scratch.program, "check", image)
    for path in ("/", "/directory", "/file"):
        told = mounting.run("debugfs", "-R", f"stat {path}", image).stdout
        check("Translator: 0" in told, f"{path}: {told}")


def of_other_lists(scratch):
    """Rich access lists, which Linux does not go by: nobody sees or sets them, copies go without, and they stay."""
    image = scratch.image("rich", "16M", "-t", "ext4")
    verbs = Verbs(scratch, image)
    verbs("cp", "/etc/hostname", ":/file")
    mounting.run("debugfs", "-w", "-R", "ea_set /file system.richacl some", image)
    verbs("setfattr", "-n", "user.x", "-v", "value", ":/file")
    for words in (("setfattr", "-n", "system.richacl", "-v", "some"), ("setfattr", "-x", "system.richacl"),
                  ("getfattr", "-n", "system.richacl")):
        verbs(*words, ":/file", status=IMPOSSIBLE, says="no such attribute")
    check(verbs("getfattr", ":/file") == 'user.x="value"\n', verbs("getfattr", ":/file"))
    verbs("cp", "-a", ":/file", scratch.path("rich file"))
    verbs("cp", "-a", ":/file", ":/copy")
    for path, count in (("/file", 1), ("/copy", 0)):
        told = mounting.run("debugfs", "-R", f"ea_list {path}", image).stdout
        check(told.count("richacl") == count and told.count("user.x") == 1, f"{path}: {told}")
    mounting.clean(image)


def of_former_projects(scratch):
    """Without the feature all files belong to no project, whatever an inode had before and its directory's flag asks."""
    image = scratch.image("projects", "16M", "-t", "ext4")
    verbs = Verbs(scratch, image)
    verbs("mkdir", ":/directory")
    for name in ("moved", "linked"):
        verbs("cp", "/etc/hostname", f":/{name}")
    verbs("chattr", "+P", ":/directory")
    for path, project in (("/directory", 7), ("/moved", 5), ("/linked", 5)):
        mounting.run("debugfs", "-w", "-R", f"sif {path} projid {project}", image)
    verbs("mv", ":/moved", ":/directory/moved")
    verbs("ln", ":/linked", ":/directory/linked")
    verbs("touch", ":/directory/new")
    verbs("mkdir", ":/directory/below")
    for path, inherits_flag in (("/directory/new", False), ("/directory/below", True)):
        told = mounting.run("debugfs", "-R", f"stat {path}", image).stdout
        check(re.search(r"Project:\s+0 ", told), f"{path}: {told}")
        shown = verbs("lsattr", "-d", f":{path}").split()[0]
        check(("P" in shown) == inherits_flag, f"{path}: {shown}")
    mounting.clean(image)


def test(scratch):
    mounting.need("setfacl")
    verbs = prepare(scratch)
    changes(scratch, verbs)
    links_themselves(verbs)
    names_as_bytes(scratch)
    owners(scratch, verbs)
    mounting.clean(verbs.image)
    small_logs(scratch)
    values_of_all_sizes(scratch)
    beside_large_ones(scratch)
    of_the_hurd(scratch)
    of_other_lists(scratch)
    of_former_projects(scratch)


if __name__ == "__main__":
    mounting.main(test)
