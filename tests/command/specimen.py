"""An image of files of all kinds, made by the kernel, and the same command on it and on the kernel's mount of it."""

import os
import re
import socket
import stat
import struct
import subprocess

from verbs import FINE, Verbs, check, mounting

NO_ID = (1 << 32) - 1
# Of user 7, beside those of the permissions 654: version, then tag, permissions and id of each entry.
ACCESS_LIST = struct.pack("<I" + "HHI" * 5, 2, 1, 6, NO_ID, 2, 5, 7, 4, 5, NO_ID, 16, 5, NO_ID, 32, 4, NO_ID)
NULL, DISK = os.makedev(1, 3), os.makedev(254, 1023)


def make_kinds(top):
    kinds = top / "kinds"
    kinds.mkdir()
    (kinds / "directory").mkdir()
    os.chmod(kinds / "directory", 0o1777)
    (kinds / "file").write_text("contents")
    os.chown(kinds / "file", 1000, 4000000000)
    os.chmod(kinds / "file", 0o4711)
    os.symlink("file", kinds / "link")
    os.symlink("directory", kinds / "to directory")
    os.symlink("nothing", kinds / "nowhere")
    os.mkfifo(kinds / "pipe", 0o644)
    os.mknod(kinds / "null", stat.S_IFCHR | 0o666, NULL)
    os.mknod(kinds / "disk", stat.S_IFBLK | 0o660, DISK)
    for name, mode in (("null", 0o666), ("disk", 0o660), ("pipe", 0o644)):
        os.chmod(kinds / name, mode)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(kinds / "socket"))
    os.chmod(kinds / "socket", 0o600)
    (kinds / "listed").touch()
    os.chmod(kinds / "listed", 0o654)
    os.setxattr(kinds / "listed", "system.posix_acl_access", ACCESS_LIST)


def make_sizes(top):
    sizes = top / "sizes"
    sizes.mkdir()
    (sizes / "empty").touch()
    for size in (3, 1023, 1024, 1025, 10239, 10240, 100000, 1048576, 1500000):
        (sizes / str(size)).write_bytes(b"x" * size)
    with open(sizes / "sparse", "wb") as file:
        file.truncate(5 << 30)
        file.write(b"begin")
    os.link(sizes / "100000", top / "another name")
    for name in (".hidden", "-minus", "a b", "it's", "\u00fc"):
        (sizes / name).write_text(name)


def make_times(top):
    times = top / "times"
    times.mkdir()
    now = 1_000_000_000 * int(os.stat(times).st_mtime)
    second = 1_000_000_000
    for name, when in (("2001", 981_173_106 * second + 789), ("1960", -300_000_000 * second), ("2100", 4_102_444_800 * second),
                       ("an hour ago", now - 3600 * second), ("a day ago", now - 90_000 * second), ("summer", 1_753_000_000 * second),
                       ("five months ago", now - 150 * 86400 * second), ("seven months ago", now - 215 * 86400 * second),
                       ("in an hour", now + 3600 * second), ("ten days ago", now - (10 * 86400 + 300) * second)):
        (times / name).write_text(name)
        os.utime(times / name, ns=(when + 5 * second, when))


def make_depth(top):
    deep = top / "deep"
    (deep / "a" / "b" / "c").mkdir(parents=True)
    (deep / "z").mkdir()
    (deep / ".hidden").touch()
    os.symlink("/deep/a/b", deep / "absolute")
    os.symlink("loop", deep / "loop")
    os.utime(deep / "z", (1, 1))


class Specimen:
    def __init__(self, scratch):
        self.scratch = scratch
        self.verbs = Verbs(scratch, scratch.image("specimen", "32M", "-t", "ext4"))
        top = scratch.kernel_mount(self.verbs.image)
        for make in (make_kinds, make_sizes, make_times, make_depth):
            make(top)
        scratch.kernel_umount(top)
        # Of a name that no pattern of a test is meant to match.
        self.directory = scratch.kernel_mount(self.verbs.image, name="~", options="ro")
        self.paths = [f"/{path.relative_to(self.directory)}" for path in self.directory.rglob("*")]

    def of_kernel(self, words, places, zone, behind=(), accept=(0,)):
        """What a program of the host prints on the kernel's mount, its paths as paths of the image."""
        command = [*words, *(f"{self.directory}{place}" if place != "/" else str(self.directory) for place in places), *behind]
        result = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "LC_ALL": "C", "TZ": zone})
        check(result.returncode in accept, f"{command}: {result}")
        text = result.stdout.decode(errors="surrogateescape")
        return re.sub(f"{re.escape(str(self.directory))}/?", "/", text)

    def same(self, words, oracle, places, zone="UTC0", behind=(), in_order=True):
        """The program prints what `oracle` prints."""
        command = [self.verbs.program, words[0], *words[1:], *(f"{self.verbs.image}:{place}" for place in places), *behind]
        result = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "TZ": zone})
        check(result.returncode == FINE and result.stderr == b"", f"{command}: {result}")
        got, expected = result.stdout.decode(errors="surrogateescape"), self.of_kernel(oracle, places, zone, behind)
        if not in_order:
            got, expected = sorted(got.splitlines()), sorted(expected.splitlines())
        check(got == expected, f"{' '.join(map(str, command))} with TZ={zone}\n--- prints\n{got}\n--- expected\n{expected}")
