#!/usr/bin/env python3
"""What is left to the processes that parse an image, seen from outside: /proc/PID/task/*/status of a mount and of verbs.

Usage: sandbox_test.py PROGRAM
"""

import contextlib
import os
import pathlib
import stat
import subprocess
import time

import mounting
from mounting import check

LIMIT = 30  # seconds
SYS_ADMIN, SYS_PTRACE, DAC_READ_SEARCH = 21, 19, 2
SUPERVISOR = 1 << SYS_ADMIN | 1 << SYS_PTRACE | 1 << DAC_READ_SEARCH
# Over files: CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, LINUX_IMMUTABLE, SYS_ADMIN, MKNOD, SETFCAP.
FILES = sum(1 << number for number in (0, 1, 2, 3, 4, 9, 21, 27, 31))


def own_capabilities():
    """Those that the test has, and could have passed on."""
    fields = status(pathlib.Path("/proc/self"))
    return int(fields["CapEff"], 16)


def status(task):
    text = (task / "status").read_text(encoding="utf-8")
    return {name: value.strip() for name, value in (line.split(":", 1) for line in text.splitlines())}


def threads(pid):
    """{name/TID: its status} of all threads there are."""
    found = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = status(task)
            found[f"{fields['Name']}/{task.name}"] = fields
    return found


def below(pid):
    """The processes that a process has started, and theirs."""
    found = []
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text(encoding="ascii").split():
            found += [int(child), *below(child)]
    return found


def check_sets(who, fields, kept, bounds=True):
    """The thread has these capabilities, permitted and effective, and can pass on, or come by, no others."""
    expected = {"CapInh": 0, "CapPrm": kept, "CapEff": kept, "CapAmb": 0} | ({"CapBnd": kept} if bounds else {})
    for name, value in expected.items():
        check(int(fields[name], 16) == value, f"{who}: {name} is {fields[name]}, not {value:016x}")


def check_filtered(who, fields):
    check(fields["NoNewPrivs"] == "1" and fields["Seccomp"] == "2",
          f"{who}: NoNewPrivs {fields['NoNewPrivs']}, Seccomp {fields['Seccomp']}")


def check_process(pid, kept=0):
    all_threads = threads(pid)
    for who, fields in all_threads.items():
        check_sets(who, fields, kept)
        check_filtered(who, fields)
    return {who.split("/")[0] for who in all_threads}


def await_names(pid, wanted, kept=0, seen=frozenset()):
    """Looks until threads of all these names were among those looked at: a thread names itself when it first runs."""
    limit = time.monotonic() + LIMIT
    while not wanted <= seen:
        check(time.monotonic() < limit, f"the threads of {pid} are {seen}")
        seen = seen | check_process(pid, kept)
    return seen


def await_filter(pid):
    """A process closes itself a moment after its start."""
    limit = time.monotonic() + LIMIT
    while (fields := status(pathlib.Path(f"/proc/{pid}")))["Seccomp"] != "2":
        check(fields["State"][0] not in "ZX" and time.monotonic() < limit, f"{fields['Name']}: no filter")
        time.sleep(0.001)


def busy(directory):
    """Work that has every thread do something: large writes, deletions, syncs, a directory that grows."""
    for number in range(50):
        (directory / f"file{number}").write_bytes(os.urandom(200_000))
    fd = os.open(directory / "file0", os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    for number in range(50):
        (directory / f"file{number}").unlink()


def mount_is_closed(scratch):
    """Every thread of the server and of the processes beside it, those there from the start and those started later."""
    image = scratch.image("image", "256M", "-t", "ext4", "-b", "4096")
    directory = scratch.mount(image)
    pid = scratch.servers[directory]
    seen = await_names(pid, {"uext4-commit", "uext4-delete", "uext4-flush", "uext4-fuse", "uext4-freeze", "uext4-stop"})
    busy(directory)
    check_process(pid)
    beside = {}
    for child in below(pid):
        beside[child] = status(pathlib.Path(f"/proc/{child}"))["Name"]
    check(list(beside.values()).count("uext4") == 1, f"there is no supervisor: {beside}")
    check(os.cpu_count() < 2 or "uext4-placement" in beside.values(), f"nobody places the server: {beside}")
    for child, name in beside.items():
        if name != "uext4":
            await_filter(child)
            check_process(child)
            continue
        # It never sees a byte of the image, and unmounts: it may have to start fusermount3, which is to be privileged.
        for who, fields in threads(child).items():
            check_sets(f"supervisor {who}", fields, SUPERVISOR)
    works_as_root(directory)
    scratch.umount(directory)
    mounting.clean(image)
    print(f"mount: {len(seen)} kinds of threads and {len(beside)} processes beside, with nothing left", flush=True)


def works_as_root(directory):
    """What takes rights is still done: the kernel has checked them before it asks the server."""
    file = directory / "of root"
    file.write_bytes(b"x")
    os.chown(file, 1234, 5678)
    os.setxattr(file, "trusted.name", b"value")
    os.mknod(directory / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    found = os.stat(file)
    check((found.st_uid, found.st_gid) == (1234, 5678), "chown was not done")
    check(os.getxattr(file, "trusted.name") == b"value", "a trusted attribute is lost")
    check(os.stat(directory / "device").st_rdev == os.makedev(1, 3), "mknod was not done")


@contextlib.contextmanager
def running(*command, **options):
    process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def closed_after_a_while(process, kept):
    """A verb closes itself once its image is open; it is looked at there, and when it waits for somebody to read on."""
    await_filter(process.pid)
    check_process(process.pid, kept)
    check(process.stdout.read(1) != b"", f"{process.args}: nothing is printed")
    return check_process(process.pid, kept)


def verbs_are_closed(scratch):
    image = scratch.image("image", "64M", "-t", "ext4", "-b", "4096")
    file = scratch.path("file")
    file.write_bytes(os.urandom(8 << 20))
    mounting.run(scratch.program, "cp", file, f"{image}:/file")
    with running(scratch.program, "cat", f"{image}:/file") as process:
        closed_after_a_while(process, 0)
    with running(scratch.program, "shell", image) as process:
        # A command that changes something starts all the threads of a mount.
        process.stdin.write(b"mkdir /directory\ncat /file\n")
        process.stdin.flush()
        kept = FILES & own_capabilities()
        seen = closed_after_a_while(process, kept)
        await_names(process.pid, {"uext4-commit", "uext4-flush", "uext4-delete"}, kept, seen)
    print("verbs: nothing left but rights over files where they copy", flush=True)


def test(scratch):
    mount_is_closed(scratch)
    verbs_are_closed(scratch)


if __name__ == "__main__":
    mounting.main(test)
