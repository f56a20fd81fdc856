"""Changes of a tree, as system calls or as commands of the program's shell."""

import os
import stat


def plan(table):
    """What to do with a source: (verb, argument, path) in order. Also the paths whose times change by it."""
    files = sorted(path for path, entry in table.items() if stat.S_ISREG(entry["kind"]))
    real = [path for path in files if path.startswith((b"./include/", b"./share/"))]
    steps, touched = [], set()
    gone = set(real[::5])
    steps += [("rm", None, path) for path in sorted(gone)]
    left = [path for path in real if path not in gone and b"\n" not in path]
    steps.append(("mkdir", None, b"./moved here"))
    last = None
    for number, path in enumerate(left):
        if number % 17 == 1:
            steps.append(("chmod", 0o604, path))
        if number % 19 == 2:
            steps.append(("chown", (1000 + number % 7, 70000), path))
        if number % 7 == 3:
            steps.append(("setfattr", ("user.changed", b"by the test, %d" % number), path))
        if number % 13 == 4:
            steps.append(("truncate", table[path]["size"] * (number % 3) // 2, path))
            touched.add(path)
        if number % 23 == 5:
            steps.append(("ln", b"./moved here/link to %d" % number, path))
            if path in touched:
                touched.add(b"./moved here/link to %d" % number)
        target = None
        if number % 11 == 6:
            target = last = b"./moved here/%d" % number
        elif number % 29 == 7 and last:
            target, last = last, None  # onto another file
        if target:
            steps.append(("mv", target, path))
            touched.discard(target)
            if path in touched:
                touched.add(target)
    steps += [("mv", b"./links moved", b"./links"), ("rm -r", None, b"./contents/../links moved/elsewhere"),
              ("mv", b"./attributes/names", b"./names"), ("rm", None, b"./special/fifo"),
              ("mv", b"./special/moved", b"./special/block"), ("truncate", 5 << 20, b"./contents/sparse"),
              ("truncate", 5000, b"./contents/every other block"), ("truncate", 4000, b"./contents/60 bytes"),
              ("truncate", 10, b"./contents/4096 bytes"), ("ln -s", b"to nowhere", b"./new symlink"),
              ("mv", b"./times/1901", b"./times/2005")]
    touched |= {b"./contents/sparse", b"./contents/every other block", b"./contents/60 bytes", b"./contents/4096 bytes",
                b"./new symlink"}
    crowd = [path for path in files if path.startswith(b"./crowd/")]
    steps += [("rm", None, path) for path in crowd[::2]]
    steps += [("mv", path + b" renamed", path) for path in crowd[1::20]]
    return steps, touched


def apply(root, steps):
    """By system calls."""
    top = os.fsencode(root) + b"/"
    for verb, argument, path in steps:
        full = top + path
        if verb == "rm":
            os.unlink(full)
        elif verb == "rm -r":
            for name in os.listdir(full):
                os.unlink(full + b"/" + name)
            os.rmdir(full)
        elif verb == "mkdir":
            os.mkdir(full, 0o755)
        elif verb == "chmod":
            os.chmod(full, argument)
        elif verb == "chown":
            os.chown(full, *argument)
        elif verb == "setfattr":
            os.setxattr(full, *argument)
        elif verb == "truncate":
            os.truncate(full, argument)
        elif verb == "ln":
            os.link(full, top + argument)
        elif verb == "ln -s":
            os.symlink(argument, full)
        else:
            os.rename(full, top + argument)


def quoted(path):
    return b"'" + path.replace(b"'", b"'\"'\"'") + b"'"


def commands(steps):
    """The same for `uext4 shell`, on its standard input."""
    lines = []
    for verb, argument, path in steps:
        words = [verb.encode()]
        if verb == "chmod":
            words += [b"%o" % argument, quoted(path)]
        elif verb == "chown":
            words += [b"%d:%d" % argument, quoted(path)]
        elif verb == "setfattr":
            words += [b"-n", quoted(argument[0].encode()), b"-v", quoted(argument[1]), quoted(path)]
        elif verb == "truncate":
            words += [b"-s", b"%d" % argument, quoted(path)]
        elif verb in ("ln", "mv"):
            words += [quoted(path), quoted(argument)]
        elif verb == "ln -s":
            words += [quoted(argument), quoted(path)]
        else:
            words += [quoted(path)]
        lines.append(b" ".join(words))
    return b"\n".join(lines) + b"\n"


def touched_in(table, changed, touched):
    """The paths of a changed table whose times are not those of the source: what was written, and directories."""
    inodes = {changed[path]["inode"] for path in touched if path in changed}
    return {path for path, entry in changed.items()
            if stat.S_ISDIR(entry["kind"]) or entry["inode"] in inodes or path not in table and path in touched}
