#!/usr/bin/env python3
"""mount(8) and umount(8) with the type fuse.uext4, by hand and from a line of fstab.

The helpers lie where mount(8) looks for them only while this runs. Usage: helpers_test.py PROGRAM
"""

import os
import pathlib
import signal

import mounting
from mounting import check

HELPERS = (pathlib.Path("/sbin/mount.fuse.uext4"), pathlib.Path("/sbin/umount.fuse.uext4"))


class Helpers:
    """Links to the program, in the folder of mount(8)."""

    def __init__(self, program):
        self.program, self.made = program, []

    def __enter__(self):
        for helper in HELPERS:
            try:
                os.symlink(self.program, helper)
            except FileExistsError:
                self.__exit__()
                mounting.skip(f"{helper} is there already")
            except OSError as error:
                self.__exit__()
                mounting.skip(f"{helper}: {error.strerror}")
            self.made.append(helper)

    def __exit__(self, *unused):
        for helper in self.made:
            helper.unlink()


def umount(scratch, directory, *options, name=None):
    """By umount(8), which has waited for the server when it returns. Of a whole path umount(8) asks only statfs(2), which
    knows of no subtype, and calls no helper, unless it has noted options of its own for the mount."""
    server = scratch.server_of(directory)
    shown = mounting.run("umount", *options, name or directory.name, cwd=directory.parent).stdout
    scratch.servers.pop(directory, None)
    check(not mounting.is_mounted(directory), f"{directory} is still mounted")
    if "-l" not in options:
        ended = not os.path.exists(f"/proc/{server}") or scratch.has_ended(server)
        check(ended, f"umount {options} {name} did not wait for the server")
    return shown


def mount(scratch, directory, *words):
    shown = mounting.run("mount", *words).stdout
    scratch.servers[directory] = 0
    check(mounting.is_mounted(directory), f"mount {words}: not mounted\n{shown}")
    scratch.servers[directory] = scratch.server_of(directory)
    return shown


def options_of(directory):
    with open("/proc/self/mounts", encoding="utf-8") as table:
        return next(set(line.split(" ")[3].split(",")) for line in table if line.split(" ")[1] == str(directory))


def by_hand(scratch, image, directory):
    mount(scratch, directory, "-t", "fuse.uext4", image, directory)
    (directory / "file").write_bytes(b"by mount(8)" * 100000)
    umount(scratch, directory, name=image)
    mounting.run(scratch.program, "check", image)
    check("mounted on" in mount(scratch, directory, "-v", "-t", "fuse.uext4", image, directory, "-o",
                                "ro,noexec,noatime,nofail,_netdev,x-systemd.automount,X-a=b,defaults"), "mount -v")
    check({"ro", "noexec"} <= options_of(directory), f"{options_of(directory)}")
    # What root does not ask for by mount(8) is not so, which never passes `dev` and `suid` on.
    check(not {"nosuid", "nodev"} & options_of(directory), f"{options_of(directory)}")
    check((directory / "file").stat().st_size == 1100000, "what was written")
    check("unmounted" in umount(scratch, directory, "-v"), "umount -v")
    mount(scratch, directory, "-r", "-n", "-t", "fuse.uext4", image, directory)
    check("ro" in options_of(directory), "mount -r")
    umount(scratch, directory, "-n", "-r")
    for options, flags in (("dev,suid", set()), ("nodev", {"nodev"}), ("nosuid,noatime", {"nosuid"}), ("user", {"nosuid", "nodev", "noexec"}),
                           ("user,exec", {"nosuid", "nodev"}), ("exec,users", {"nosuid", "nodev", "noexec"}), ("owner,suid", {"nodev"}),
                           ("group", {"nosuid", "nodev"})):
        for words in (("mount", "-t", "fuse.uext4"), (HELPERS[0],)):
            mounting.run(*words, image, directory, "-o", options)
            scratch.servers[directory] = scratch.server_of(directory)
            told = {"nosuid", "nodev", "noexec"} & options_of(directory)
            check(told == flags, f"{words} -o {options}: {told}")
            scratch.umount(directory)
    mount(scratch, directory, "-s", "-t", "fuse.uext4", image, directory, "-o", "nonsense,commit=9,words=3")
    umount(scratch, directory, "-l")


def from_fstab(scratch, image, directory):
    table = scratch.path("fstab")
    table.write_text(f"{image} {directory} fuse.uext4 noauto,nofail,user,x-systemd.device-timeout=5,comment=a,ro 0 0\n")
    mount(scratch, directory, "-T", table, directory)
    check({"ro", "noexec", "nosuid", "nodev"} <= options_of(directory), f"{options_of(directory)}")
    umount(scratch, directory, name=directory)
    table.write_text(f"{image} {directory} fuse.uext4 defaults 0 0\n")
    mount(scratch, directory, "-T", table, image)
    check("rw" in options_of(directory), f"{options_of(directory)}")
    umount(scratch, directory)
    table.write_text(f"{image} {directory} fuse.uext4 defaults,unheard_of 0 0\n")
    result = mounting.run("mount", "-T", table, directory, accept=(32,))
    check("unheard_of" in result.stdout and not mounting.is_mounted(directory), result.stdout)


def refused(scratch, image, directory):
    """What cannot be done ends with mount(8)'s codes, and what is only tried mounts nothing."""
    for words, code in (((image, directory, "-o", "unheard_of"), 32), ((image, directory, "-o", "commit=x"), 32),
                        ((image, "/nowhere"), 32), (("/nowhere", directory), 32), ((image,), 1), ((), 1),
                        ((image, directory, "-t", "xfs"), 1), ((image, directory, "-N", "/proc/1/ns/mnt"), 1),
                        ((image, directory, "-q"), 1), ((image, directory, "-f", "-o", "unheard_of"), 32),
                        ((image, directory, "-f", "-t", "fuse.uext4", "-o", "ro"), 0),
                        (("/nowhere", directory, "-o", "nofail"), 0), (("/nowhere", directory, "-v", "-o", "nofail"), 0),
                        ((image, "/nowhere", "-o", "nofail"), 32), (("/etc/passwd", directory, "-o", "nofail"), 32),
                        ((image, directory, "-fsnv", "-o", "unheard_of"), 0)):
        result = mounting.run(HELPERS[0], *words, accept=range(256))
        check(result.returncode == code, f"{words}: {result.returncode}, not {code}\n{result.stdout}")
        check(not mounting.is_mounted(directory), f"{words}: mounted")
        check("mounted on" not in result.stdout, f"{words}: {result.stdout}")
    for words, code in (((directory,), 32), ((), 1), ((directory, "-N", "/proc/1/ns/mnt"), 1)):
        result = mounting.run(HELPERS[1], *words, accept=range(256))
        check(result.returncode == code, f"{words}: {result.returncode}, not {code}\n{result.stdout}")
    mount(scratch, directory, "-t", "fuse.uext4", image, directory)
    with open(directory / "held", "w", encoding="ascii"):
        result = mounting.run("umount", "-r", directory.name, cwd=directory.parent, accept=(32,))
        check("read-only" in result.stdout, result.stdout)
    # One that does not answer.
    server = scratch.servers[directory]
    os.kill(server, signal.SIGSTOP)
    try:
        mounting.run(HELPERS[1], directory, "-f")
    finally:
        os.kill(server, signal.SIGCONT)
    scratch.kill(directory)


def test(scratch):
    image, directory = scratch.image("image", "64M"), scratch.path("mnt")
    directory.mkdir()
    with Helpers(scratch.program):
        by_hand(scratch, image, directory)
        from_fstab(scratch, image, directory)
        mounting.clean(image)
        refused(scratch, image, directory)


if __name__ == "__main__":
    mounting.main(test)
