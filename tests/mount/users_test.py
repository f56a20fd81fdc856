#!/usr/bin/env python3
"""Mounts by root serve every user with that user's rights; mounts by somebody else, through fusermount3, serve that user.

Usage: users_test.py PROGRAM
"""

import os
import pwd
import subprocess
import time

import mounting
from mounting import check, run

# fusermount3 wants the user to have a name.
USER, OTHER = pwd.getpwnam("nobody").pw_uid, 61235


def act_as(uid, script, *arguments, groups=()):
    """Runs Python code as a plain user; (status, output). In a fork: the interpreter itself may be out of a user's reach."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writable, 1)
        os.dup2(writable, 2)
        try:
            os.setgroups(list(groups))
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            exec(script, {"os": os, "subprocess": subprocess, "arguments": list(map(str, arguments))})  # pylint: disable=W0122
            os._exit(0)
        except SystemExit as end:
            os._exit(end.code or 0)
        except BaseException as error:  # whatever it is, it is told and ends the child
            os.write(2, repr(error).encode())
            os._exit(1)
    os.close(writable)
    with open(readable, "rb") as pipe:
        output = pipe.read().decode(errors="replace")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), output


def may(uid, script, *arguments, groups=()):
    status, output = act_as(uid, script, *arguments, groups=groups)
    check(status == 0, f"user {uid} may not: {script}: {output}")


def may_not(uid, script, *arguments, groups=(), error="PermissionError"):
    status, output = act_as(uid, script, *arguments, groups=groups)
    check(status == 1 and error in output, f"user {uid} may: {script}: {status} {output}")


READ = "open(arguments[0]).read()"
WRITE = "open(arguments[0], 'a').write('x')"
MAKE = "open(arguments[0], 'x').close()"


def into_cached_pages(scratch, top):
    """Who is to take set-id bits writes through the kernel's cache, which holds its pages locked until it is answered:
    what was read of them before is neither waited for nor stale afterwards, whether clean or still to be written."""
    script = """
fd = os.open(arguments[0], os.O_RDWR)
if os.pread(fd, 20000, 0) != open(arguments[1], "rb").read(): raise SystemExit("another content")
os.pwrite(fd, b"y" * 5000, 1000)
if os.pread(fd, 5000, 1000) != b"y" * 5000: raise SystemExit("not what was written")
"""
    path, expected = top / "cached", scratch.path("expected")
    for size, clean in ((1000, True), (10000, True), (1000, False), (10000, False)):
        path.unlink(missing_ok=True)
        path.write_bytes(b"x" * size)
        os.chmod(path, 0o6777)
        expected.write_bytes(b"x" * size)
        os.chmod(expected, 0o644)
        if clean:
            with open(path, "rb") as file:
                os.fsync(file)
        child = os.fork()
        if child == 0:
            os._exit(act_as(USER, script, path, expected)[0])
        limit = time.monotonic() + 60
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < limit:
            time.sleep(0.01)
        if ended[0] == 0:  # it hangs in the kernel, where no signal ends it or the server
            subprocess.run(["umount", "-f", top], check=False)
        check(ended[0] == child and ended[1] == 0, f"a write to {size} cached bytes: {ended}")
        check(os.stat(path).st_mode & 0o6000 == 0, f"a write to {size} cached bytes keeps set-id bits")
        check(path.read_bytes() == (b"x" * size)[:1000] + b"y" * 5000 + (b"x" * size)[6000:], "another content")


def served_by_root(scratch):
    image = scratch.image("image", "64M", "-t", "ext4", "-b", "4096")
    top = scratch.mount(image)
    os.chmod(top, 0o755)
    (top / "secret").write_text("secret")
    os.chmod(top / "secret", 0o600)
    (top / "public").write_text("public")
    (top / "of a group").write_text("group")
    os.chown(top / "of a group", 0, 777)
    os.chmod(top / "of a group", 0o640)
    (top / "by a list").write_text("list")
    os.chmod(top / "by a list", 0o600)
    run("setfacl", "-m", f"u:{USER}:rw", top / "by a list")
    (top / "tmp").mkdir()
    os.chmod(top / "tmp", 0o1777)
    may(USER, READ, top / "public")
    may_not(USER, WRITE, top / "public")
    may_not(USER, READ, top / "secret")
    may_not(USER, READ, top / "of a group")
    may(USER, READ, top / "of a group", groups=(777,))
    may(USER, WRITE, top / "by a list")
    may_not(OTHER, READ, top / "by a list")
    may_not(USER, MAKE, top / "new")
    may(USER, MAKE, top / "tmp" / "mine")
    status = os.stat(top / "tmp" / "mine")
    check((status.st_uid, status.st_gid) == (USER, USER), f"what a user makes belongs to {status.st_uid}:{status.st_gid}")
    may_not(OTHER, "os.unlink(arguments[0])", top / "tmp" / "mine")
    may_not(USER, "os.chown(arguments[0], 0, 0)", top / "tmp" / "mine")
    may_not(OTHER, "os.chmod(arguments[0], 0o777)", top / "tmp" / "mine")
    may_not(USER, "os.setxattr(arguments[0], 'trusted.x', b'x')", top / "tmp" / "mine")
    may_not(USER, "os.mknod(arguments[0], 0o20666, os.makedev(1, 3))", top / "tmp" / "device")
    # A write by somebody else takes set-id bits away.
    (top / "set-id").write_text("x")
    os.chmod(top / "set-id", 0o6777)
    may(USER, "open(arguments[0], 'r+').write('y')", top / "set-id")
    check(os.stat(top / "set-id").st_mode & 0o6000 == 0, "a write keeps set-id bits")
    into_cached_pages(scratch, top)
    # Of a program that was copied, and with the mode that the kernel remembers: it is what an exec goes by.
    for number, change in enumerate(("dd if=/dev/zero of=$0 bs=1 count=1 conv=notrunc status=none", "echo >> $0",
                                     "fallocate -l 1M $0")):
        program = top / f"program-{number}"
        mounting.run("cp", "/usr/bin/id", program)
        mounting.run("chmod", "6777", program)
        mounting.run("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "sh", "-c", change, program)
        check("s" not in mounting.run("stat", "-c", "%A", program).stdout, f"{change}: keeps set-id bits")
    scratch.umount(top)
    mounting.clean(image)
    print("a mount by root: every user has that user's rights", flush=True)


def prepared(scratch, name, uid):
    """An image and a mount point that belong to a user."""
    image = scratch.image(name, "64M", "-t", "ext4", "-b", "4096", "-E", f"root_owner={uid}:{uid}")
    os.chown(image, uid, uid)
    point = scratch.path(f"{name}-mounted")
    point.mkdir()
    os.chown(point, uid, uid)
    return image, point


CALL = "raise SystemExit(subprocess.run(arguments, check=False).returncode)"


def served_by_a_user(scratch):
    image, point = prepared(scratch, "user", USER)
    may(USER, CALL, scratch.program, "mount", image, point)
    scratch.servers[point] = 0
    check(mounting.is_mounted(point), "a user's mount is not there")
    may(USER, "open(arguments[0] + '/file', 'w').write('mine')", point)
    may(USER, "assert os.stat(arguments[0] + '/file').st_uid == os.getuid()", point)
    may_not(OTHER, READ, point / "file")
    try:
        os.listdir(point)
        raise mounting.Failure("root sees the mount of a user")
    except PermissionError:
        pass
    may(USER, CALL, scratch.program, "umount", point)
    scratch.servers.pop(point)
    check(not mounting.is_mounted(point), "a user's mount stays")
    mounting.clean(image)
    for option in ("suid", "dev"):
        status, output = act_as(USER, CALL, scratch.program, "mount", "-o", option, image, point)
        check(status == 2 and option in output, f"a user's mount with {option}: {status} {output}")
    # An image or a mount point of somebody else.
    status, output = act_as(OTHER, CALL, scratch.program, "mount", image, point)
    check(status == 2, f"a mount over somebody else's directory: {status} {output}")
    print("a mount by a user: serves that user alone", flush=True)


def allow_other(scratch, configuration, allowed):
    """allow_other by a user: as /etc/fuse.conf says."""
    image, point = prepared(scratch, f"allow-{allowed}", USER)
    own = scratch.path("fuse.conf")
    own.write_text(configuration, encoding="ascii")
    os.chmod(own, 0o644)
    run("mount", "--bind", own, "/etc/fuse.conf")
    try:
        status, output = act_as(USER, CALL, scratch.program, "mount", "-o", "allow_other", image, point)
        check(status == (0 if allowed else 2), f"allow_other with {configuration!r}: {status}: {output}")
        if allowed:
            scratch.servers[point] = 0
            may(USER, "open(arguments[0], 'x').write('mine')", point / "file")
            may(OTHER, READ, point / "file")
            may_not(OTHER, WRITE, point / "file")
            may(USER, CALL, scratch.program, "umount", point)
            scratch.servers.pop(point)
        check(not mounting.is_mounted(point), "the mount stays")
    finally:
        run("umount", "/etc/fuse.conf")
    mounting.clean(image)


def own_namespace(scratch):
    """Mounts of this process are its own from here on, and /dev/fuse is everybody's, as distributions have it."""
    mounting.own_mounts()
    devices = scratch.path("devices")
    devices.mkdir()
    run("mount", "-t", "tmpfs", "-o", "mode=755", "none", devices)
    os.mknod(devices / "fuse", 0o20666, os.makedev(10, 229))
    os.chmod(devices / "fuse", 0o666)
    run("mount", "--bind", devices / "fuse", "/dev/fuse")
    run("umount", "-l", devices)


def test(scratch):
    mounting.need("fusermount3", "setfacl")
    own_namespace(scratch)
    os.chmod(scratch.folder, 0o755)
    served_by_root(scratch)
    served_by_a_user(scratch)
    allow_other(scratch, "user_allow_other\n", True)
    allow_other(scratch, "# nothing\n", False)
    print("allow_other: as /etc/fuse.conf allows", flush=True)


if __name__ == "__main__":
    mounting.main(test)
