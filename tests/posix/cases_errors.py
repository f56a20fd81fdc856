"""Errors that POSIX names, call by call and by several users, beyond what random sequences reach."""

import os
import shutil
import socket
import stat
import subprocess

from answers import ANN, BEN, CAT, LIBC, libc

LONG = "n" * 255
TOO_LONG = "n" * 256


def touch(path, mode=0o644, content=b""):
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)
    os.write(fd, content)
    os.close(fd)
    os.chmod(path, mode)


CALLS = {
    "open": lambda path: os.close(os.open(path, os.O_RDONLY)),
    "create": lambda path: os.close(os.open(path, os.O_CREAT | os.O_RDWR)),
    "create excl": lambda path: os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR)),
    "directory": lambda path: os.close(os.open(path, os.O_DIRECTORY)),
    "create directory": lambda path: os.close(os.open(path, os.O_CREAT | os.O_DIRECTORY | os.O_RDWR)),
    "nofollow": lambda path: os.close(os.open(path, os.O_NOFOLLOW)),
    "truncating": lambda path: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK)),
    "o_path": lambda path: os.close(os.open(path, os.O_PATH)),
    "stat": lambda path: stat.S_IFMT(os.stat(path).st_mode),
    "lstat": lambda path: stat.S_IFMT(os.lstat(path).st_mode),
    "access": lambda path: os.access(path, os.R_OK),
    "chmod": lambda path: os.chmod(path, 0o755),
    "chown": lambda path: os.chown(path, -1, -1),
    "lchown": lambda path: os.lchown(path, -1, -1),
    "truncate": lambda path: os.truncate(path, 10),
    "negative truncate": lambda path: libc("truncate", os.fsencode(path), -1),
    "utime": lambda path: os.utime(path, (1e9, 1e9)),
    "lutime": lambda path: os.utime(path, (1e9, 1e9), follow_symlinks=False),
    "readlink": os.readlink,
    "listdir": lambda path: sorted(os.listdir(path)),
    "statvfs": lambda path: os.statvfs(path).f_namemax,
    "getxattr": lambda path: os.getxattr(path, "user.none"),
    "setxattr": lambda path: os.setxattr(path, "user.one", b"1"),
    "lsetxattr": lambda path: os.setxattr(path, "user.one", b"1", follow_symlinks=False),
    "link from": lambda path: os.link(path, "linked", follow_symlinks=False),
    "link to": lambda path: os.link("here", path),
    "symlink": lambda path: os.symlink("to", path),
    "mkfifo": os.mkfifo,
    "mknod": lambda path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3)),
    "mkdir": os.mkdir,
    "rename from": lambda path: os.rename(path, "renamed"),
    "rename to": lambda path: os.rename("here", path),
    "rename a directory to": lambda path: os.rename("dir", path),
    "exchange": lambda path: libc("renameat2", -100, os.fsencode(path), -100, b"here", 2),
    "unlink": os.unlink,
    "rmdir": os.rmdir,
    "chdir": os.chdir,
    "socket": lambda path: bind(path),
    "exec": lambda path: subprocess.run([b"./" + os.fsencode(path)], check=False).returncode,
}


def bind(path):
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path)


def ground():
    """A fresh folder with something of everything; returns where to go back to."""
    os.mkdir("ground")
    os.chdir("ground")
    touch("here", content=b"here")
    touch("file", content=b"file")
    os.mkdir("dir")
    os.mkdir("full")
    touch("full/inner")
    os.symlink("nowhere", "dangling")
    os.symlink("file", "to_file")
    os.symlink("dir", "to_dir")
    os.symlink("loop_b", "loop_a")
    os.symlink("loop_a", "loop_b")
    os.mkfifo("fifo")
    os.mknod("device", stat.S_IFCHR | 0o644, os.makedev(1, 3))


PATHS = {
    "nothing": "nothing", "empty": "", "missing folder": "missing/x", "below a file": "file/x", "file/": "file/",
    "dir/": "dir/", "dir": "dir", "dir/.": "dir/.", "dir/..": "dir/..", "full": "full", "full/": "full/", "file": "file",
    "to_file": "to_file", "to_file/": "to_file/", "to_dir/": "to_dir/", "to_dir": "to_dir", "dangling": "dangling",
    "dangling/": "dangling/", "loop": "loop_a", "below a loop": "loop_a/x", "loop/": "loop_a/", "255": LONG, "256": TOO_LONG,
    "dir/256": "dir/" + TOO_LONG, "256/x": TOO_LONG + "/x", "4095": "./" * 2045 + "file" + "x", "4096": "./" * 2047 + "xx",
    "5000": "x/" * 2500, "missing/": "missing/", "missing/.": "missing/.", ".": ".", "..": "..", "not utf-8": b"\xff\xfe\n",
    "fifo/x": "fifo/x", "to_file/x": "to_file/x", "newline": "a\nb",
}


def errors(answers):
    start = os.getcwd()
    for name, call in CALLS.items():
        for label, path in PATHS.items():
            if name in ("open", "create", "truncating") and "fifo" in label:
                continue
            if name == "socket" and len(path) > 100:
                continue
            ground()
            answers.call(f"{name}, {label}", call, path)
            os.chdir(start + "/ground")
            answers.tell(f"{name}, {label}, left", sorted(ascii(one)[:12] for one in os.listdir(os.fsencode("."))))
            os.chdir("..")
            shutil.rmtree("ground")


def unprivileged(answers):
    for name, call in CALLS.items():
        if name != "chdir":
            for path in ("anns", "anns_dir", "anns_dir/x", "readonly", "closed/x", "sticky/anns", "sticky/new", "roots", "to_closed",
                         "anns_full", "execute_only/x"):
                answers.call(f"{name}, {path}", call, path)


def rights(answers):
    for user in (ANN, BEN, CAT):
        os.mkdir("rights")
        os.chmod("rights", 0o777)
        os.chdir("rights")
        for path, mode in (("anns", 0o640), ("readonly", 0o444), ("roots", 0o600), ("here", 0o666)):
            touch(path, mode)
            if path != "roots":
                os.chown(path, ANN.uid, ANN.gid)
        for path, mode in (("anns_dir", 0o755), ("closed", 0o700), ("sticky", 0o1777), ("dir", 0o777), ("anns_full", 0o775),
                           ("execute_only", 0o711)):
            os.mkdir(path)
            os.chmod(path, mode)
            touch(path + "/x", 0o666)
            if path.startswith("anns"):
                os.chown(path, ANN.uid, ANN.gid)
        touch("sticky/anns", 0o666)
        os.chown("sticky/anns", ANN.uid, ANN.gid)
        os.symlink("closed/x", "to_closed")
        answers.by(user, unprivileged)
        os.chdir("..")
        shutil.rmtree("rights")


def busy_text(answers):
    shutil.copy("/bin/true", "program")
    os.chmod("program", 0o755)
    fd = os.open("program", os.O_RDWR)
    answers.call("exec of what is open for writing", subprocess.call, ["./program"])
    os.close(fd)
    shutil.copy("/bin/sleep", "sleeper")
    os.chmod("sleeper", 0o755)
    with subprocess.Popen(["./sleeper", "20"]) as running:
        answers.open("write what runs", "sleeper", os.O_WRONLY)
        answers.open("truncate what runs by open", "sleeper", os.O_RDONLY | os.O_TRUNC)
        answers.tell("what runs is whole", os.stat("sleeper").st_size == os.stat("/bin/sleep").st_size)
        answers.call("truncate what runs", os.truncate, "sleeper", 0)
        answers.call("unlink what runs", os.unlink, "sleeper")
        running.terminate()
    os.mkdir("noexec", 0o755)
    touch("script", 0o755, b"#!/nowhere/to/be/found\n")
    answers.call("no interpreter", subprocess.call, ["./script"])
    touch("garbage", 0o755, b"\x7fELFnot")
    answers.call("no program", subprocess.call, ["./garbage"])
    touch("setuid", 0o644)
    os.chown("setuid", ANN.uid, ANN.gid)
    os.chmod("setuid", 0o6755)
    os.truncate("setuid", 5)
    answers.tell("setuid after root's truncate", oct(os.stat("setuid").st_mode))
    os.chmod("setuid", 0o6777)
    answers.by(BEN, lambda mine: mine.call("write", os.truncate, "setuid", 3))
    answers.tell("setuid after another's truncate", oct(os.stat("setuid").st_mode))
    os.chmod("setuid", 0o6755)
    os.chown("setuid", BEN.uid, -1)
    answers.tell("setuid after chown", oct(os.stat("setuid").st_mode))


def links(answers):
    os.mkdir("many")
    touch("many/0")
    made = 0
    try:
        for made in range(1, 65010):
            os.link("many/0", f"many/{made}")
    except OSError as error:
        answers.tell("links until", (made, error.errno))
    answers.tell("links", os.stat("many/0").st_nlink)
    answers.call("rename over one of many", os.rename, "many/1", "many/2")
    answers.tell("links of one of many", os.stat("many/0").st_nlink)
    os.unlink("many/3")
    answers.tell("links after unlink", os.stat("many/0").st_nlink)


def long_links(answers):
    for length in (58, 59, 60, 61, 255, 1023, 1024, 4094, 4095, 4096):
        answers.call(f"symlink of {length}", os.symlink, "t" * length, f"l{length}")
        if os.path.islink(f"l{length}"):
            answers.tell(f"target of {length}", (len(os.readlink(f"l{length}")), os.lstat(f"l{length}").st_size))
            answers.call(f"through {length}", os.stat, f"l{length}")
    answers.call("empty target", os.symlink, "", "empty")
    buffer = bytearray(10)
    import ctypes
    raw = (ctypes.c_char * 10).from_buffer(buffer)
    answers.tell("readlink into a short buffer", LIBC.readlink(b"l60", raw, 10))
    del raw
    for depth in range(45):
        os.symlink("chain%d" % (depth + 1), "chain%d" % depth)
    touch("chain45")
    answers.call("40 links", lambda: os.close(os.open("chain5", os.O_RDONLY)))
    answers.call("41 links", lambda: os.close(os.open("chain4", os.O_RDONLY)))


CASES = (errors, rights, busy_text, links, long_links)
