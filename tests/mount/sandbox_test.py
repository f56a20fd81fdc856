#!/usr/bin/env python3
"""What is left to the processes that parse an image, seen from outside: /proc/PID/task/*/status of a mount and of verbs,
at any time and at each read of the image.

Usage: sandbox_test.py PROGRAM
"""

import contextlib
import ctypes
import os
import pathlib
import select
import shutil
import signal
import stat
import struct
import subprocess
import threading
import time

import mounting
import users_test as users
from mounting import check

LIMIT = 30  # seconds
FAN_CLASS_CONTENT, FAN_CLOEXEC, FAN_REPORT_TID = 0x4, 0x1, 0x100
FAN_MARK_ADD, FAN_ACCESS_PERM, FAN_ALLOW, AT_FDCWD = 0x1, 0x20000, 0x1, -100
SYS_ADMIN, SYS_PTRACE, DAC_READ_SEARCH = 21, 19, 2
SUPERVISOR = 1 << SYS_ADMIN | 1 << SYS_PTRACE | 1 << DAC_READ_SEARCH
# To look at files: DAC_READ_SEARCH; of sources also trusted attributes (SYS_ADMIN); set-id bits stay where a file of
# others is written (FSETID).
SOURCES = sum(1 << number for number in (2, 21))
TARGETS = sum(1 << number for number in (2, 4))
# Of the process that makes and changes files of the host, with -a: CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID,
# SYS_ADMIN, MKNOD, SETFCAP.
CHANGES = sum(1 << number for number in (0, 1, 2, 3, 4, 21, 27, 31))


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
        # A user may not give up what no program of theirs could gain; NoNewPrivs takes its worth away.
        check_sets(who, fields, kept, bounds=fields["Uid"].startswith("0\t"))
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
    check(list(beside.values()).count("uext4-supervise") == 1, f"there is no supervisor: {beside}")
    check(os.cpu_count() < 2 or "uext4-placement" in beside.values(), f"nobody places the server: {beside}")
    for child, name in beside.items():
        if name != "uext4-supervise":
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
        check(process.stdout.read(1) != b"", "a shell prints nothing")
        workers = below(process.pid)
        check(len(workers) == 1, f"a shell works in {workers}")
        await_names(workers[0], {"uext4-commit", "uext4-flush", "uext4-delete"})
        # Who reads what is typed has nothing of the image.
        image_number = image.stat().st_ino
        held = [os.stat(f"/proc/{process.pid}/fd/{fd}").st_ino for fd in os.listdir(f"/proc/{process.pid}/fd")]
        check(image_number not in held, "the process that reads a shell's commands has the image open")
    with running(scratch.program, "shell", image) as process:
        process.stdin.write(f"cp -a /file host:{scratch.path('out')}\ncat /file\n".encode())
        process.stdin.flush()
        check(process.stdout.read(1) != b"", "a shell prints nothing")
        worker, beside = below(process.pid)
        check_process(worker, TARGETS & own_capabilities())
        check_process(beside, CHANGES & own_capabilities())
        held = [os.stat(f"/proc/{beside}/fd/{fd}").st_ino for fd in os.listdir(f"/proc/{beside}/fd")]
        check(image_number not in held, "the process that changes files of the host has the image open")
    print("verbs: nothing left but rights over files where they copy", flush=True)


class Readers:
    """Has each read of a file wait (fanotify) until the process that reads has been looked at."""

    def __init__(self, program, image, held=None, kept=(0,)):
        """`held(pid)`: at the first read by the program, while that waits. `kept`: capabilities that are left, one of
        these."""
        self.program, self.held, self.kept = program, held, {one & own_capabilities() for one in kept}
        self.seen = set()
        self.reads, self.wrong = 0, []
        self.group = fanotify("init", FAN_CLASS_CONTENT | FAN_CLOEXEC | FAN_REPORT_TID, os.O_RDONLY | os.O_CLOEXEC)
        fanotify("mark", self.group, FAN_MARK_ADD, ctypes.c_uint64(FAN_ACCESS_PERM), AT_FDCWD, os.fsencode(image))
        self.over, self.end = os.pipe()
        self.thread = threading.Thread(target=self.listen)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *unused):
        os.close(self.end)
        self.thread.join()
        os.close(self.group)  # whoever waits goes on
        os.close(self.over)

    def listen(self):
        while self.over not in select.select([self.group, self.over], [], [])[0]:
            events = os.read(self.group, 4096)
            while events:
                length, _, _, _, _, fd, thread = struct.unpack_from("=IBBHQii", events)
                events = events[length:]
                try:
                    self.look(thread)
                except Exception as error:  # pylint: disable=broad-exception-caught
                    self.wrong.append(f"{thread}: {error}")
                finally:
                    os.write(self.group, struct.pack("=iI", fd, FAN_ALLOW))
                    os.close(fd)

    def look(self, thread):
        pid = int(status(pathlib.Path(f"/proc/{thread}"))["Tgid"])
        if os.readlink(f"/proc/{pid}/exe") != self.program:
            return
        self.reads += 1
        if self.held and self.reads == 1:
            self.held(pid)
        kept = int(status(pathlib.Path(f"/proc/{pid}"))["CapEff"], 16)
        check(kept in self.kept, f"capabilities {kept:x}, none of {self.kept}")
        check_process(pid, kept)
        self.seen.add(kept)

    def passed(self, what):
        check(self.reads > 0, f"{what}: nothing was read")
        check(not self.wrong, f"{what}: {len(self.wrong)} of {self.reads} reads: {self.wrong[:3]}")
        check(self.seen == self.kept, f"{what}: capabilities {self.seen}, not {self.kept}")


def fanotify(call, *arguments):
    result = getattr(ctypes.CDLL(None, use_errno=True), f"fanotify_{call}")(*arguments)
    check(result >= 0, f"fanotify_{call}: {os.strerror(ctypes.get_errno())}")
    return result


def dirty(scratch, image, directory):
    """The image of a server that was killed: a log to be replayed, fast commits in it, a file without a name."""
    (directory / "folder").mkdir(exist_ok=True)
    for number in range(20):
        (directory / "folder" / f"{number}").write_bytes(b"x" * 10000 * number)
    files = [os.open(directory / name, os.O_CREAT | os.O_RDWR) for name in ("synced", "removed")]
    for fd in files:
        os.write(fd, b"y" * 100000)
        os.fsync(fd)
    (directory / "removed").unlink()
    os.fsync(files[0])
    scratch.kill(directory)
    for fd in files:
        with contextlib.suppress(OSError):
            os.close(fd)
    superblock = mounting.run("dumpe2fs", "-h", image).stdout
    check("needs_recovery" in superblock, f"{image} has nothing to recover")


def closed_before_it_reads(scratch):
    """No byte of the image is read by a process that is not closed yet: clean, with a log to be replayed, damaged."""
    total = 0
    for name, features in (("image", "^fast_commit"), ("fast", "fast_commit")):
        image = scratch.image(name, "64M", "-t", "ext4", "-b", "4096", "-O", features)
        for what in ("clean", "dirty", "read-only", "dirty again"):
            with Readers(scratch.program, image) as readers:
                directory = scratch.mount(image, options="ro" if what == "read-only" else "")
            readers.passed(f"mount of {name}, {what}")
            total += readers.reads
            if what in ("clean", "read-only"):
                scratch.umount(directory)
            if what == "clean":
                dirty(scratch, image, scratch.mount(image))
            elif what == "dirty":
                scratch.kill(directory)
            elif what == "read-only":
                mounting.run("e2fsck", "-fp", image, accept=(0, 1))
                dirty(scratch, image, scratch.mount(image))
            else:
                check((directory / "synced").stat().st_size == 100000, "what was synced is not there")
                scratch.umount(directory)
                mounting.clean(image)
    for verb in (("ls", f"{image}:/"), ("check", image), ("label", image, "new"), ("mkdir", f"{image}:/made")):
        with Readers(scratch.program, image) as readers:
            mounting.run(scratch.program, *verb)
        readers.passed(verb[0])
        total += readers.reads
    total += partition_is_closed(scratch)
    print(f"closed before it reads: {total} reads", flush=True)


def partition_is_closed(scratch):
    """The table of a disk is read by a process that is closed, before the image in it is."""
    image, disk, total = scratch.image("image", "64M", "-t", "ext4", "-b", "4096"), scratch.path("disk"), 0
    with open(disk, "wb") as file:
        file.truncate(70 << 20)
    for label in ("gpt", "dos"):
        mounting.run("sfdisk", "--no-tell-kernel", "-q", disk, input=f"label: {label}\n2048,{64 << 11}\n")
        with open(disk, "r+b") as file:
            file.seek(1 << 20)
            file.write(image.read_bytes())
        with Readers(scratch.program, disk) as readers:
            directory = scratch.mount(f"{disk}@1")
            scratch.umount(directory)
        readers.passed(f"mount of a partition, {label}")
        total += readers.reads
        for verb in (("ls", f"{disk}@1:/"), ("mkdir", f"{disk}@1:/made")):
            with Readers(scratch.program, disk) as readers:
                mounting.run(scratch.program, *verb)
            readers.passed(verb[0])
            total += readers.reads
    missing = mounting.run(scratch.program, "ls", f"{disk}@7:/", accept=range(256))
    check(missing.returncode == 2 and "there is no partition 7" in missing.stdout, f"partition 7: {missing.stdout}")
    return total


def refused(scratch, image, expected, act=None):
    """A mount that fails says so in the foreground, and leaves neither a mount nor a process."""
    directory = scratch.path("mnt")
    directory.mkdir(exist_ok=True)
    words = [scratch.program, "mount", image, directory]
    if act:
        code, output = act(*words)
    else:
        result = mounting.run(*words, accept=range(256))
        code, output = result.returncode, result.stdout
    check(code == 2 and expected in output, f"{image}: status {code}, not '{expected}': {output}")
    check(not mounting.is_mounted(directory), f"{image}: it is mounted")
    limit = time.monotonic() + LIMIT
    while left := [process for process in pathlib.Path("/proc").glob("[0-9]*") if runs(process, scratch.program)]:
        check(time.monotonic() < limit, f"{image}: processes are left: {left}")
        time.sleep(0.01)


def runs(process, program):
    with contextlib.suppress(OSError):
        return os.readlink(process / "exe") == program
    return False


def failures_are_told(scratch):
    """By the process that is closed, to whoever waits in the foreground."""
    for name, where, expected in (("no superblock", 1, "magic"), ("no root", None, "inode 2")):
        image = scratch.image("image", "64M", "-t", "ext4", "-b", "4096")
        if where is None:
            mounting.run("debugfs", "-w", "-R", "clri <2>", image)
        else:
            with open(image, "r+b") as file:
                file.write(bytes(4096))
        for options in ("", "nosandbox"):
            refused(scratch, image, expected, lambda *words, o=options: told(*words[:2], *(("-o", o) if o else ()), *words[2:]))
        with Readers(scratch.program, image) as readers:
            refused(scratch, image, expected)
        readers.passed(name)
    image = scratch.image("image", "64M", "-t", "ext4", "-b", "4096")
    with Readers(scratch.program, image, held=lambda pid: os.kill(pid, signal.SIGKILL)):
        refused(scratch, image, "ended by signal 9")
    print("failures are told in the foreground", flush=True)


def told(*words):
    result = mounting.run(*words, accept=range(256))
    return result.returncode, result.stdout


def users_mounts(scratch):
    """The same where fusermount3 mounts."""
    act = lambda *words: users.act_as(users.USER, users.CALL, *words)
    image, point = users.prepared(scratch, "user", users.USER)
    for how in (("mount",), ("mount", "-o", "ro")):
        with Readers(scratch.program, image) as readers:
            code, output = act(scratch.program, *how, image, point)
        check(code == 0, f"{how} by a user: {output}")
        scratch.servers[point] = 0
        readers.passed(f"{how} by a user")
        users.may(users.USER, "assert os.listdir(arguments[0]) == ['lost+found']", point)
        users.may(users.USER, users.CALL, scratch.program, "umount", point)
        scratch.servers.pop(point)
    # Root's directory: the image has been read, and fusermount3 says why not.
    with Readers(scratch.program, image) as readers:
        refused(scratch, image, "fusermount3: ", act)
        refused(scratch, image, "FUSE could not mount there", act)
    readers.passed("a mount in somebody else's directory")
    mounting.clean(image)
    with open(image, "r+b") as file:
        file.write(bytes(4096))
    with Readers(scratch.program, image) as readers:
        refused(scratch, image, "magic", act)
    readers.passed("a damaged image of a user's")
    print("a user's mounts: closed before they read as well", flush=True)


def copies_are_closed(scratch):
    """They keep what they need for the files that are named, and verbs over several images need none."""
    first, second = (scratch.image(name, "16M", "-t", "ext4") for name in ("first", "second"))
    file, folder, aside = scratch.path("file"), scratch.path("folder"), scratch.path("aside")
    file.write_bytes(b"contents")
    folder.mkdir()
    aside.write_bytes(b"")
    (folder / "linked").symlink_to(aside)
    for words, image, kept in ((("cp", file, f"{first}:/linked"), first, SOURCES),
                               (("cp", "-a", folder, f"{first}:/"), first, SOURCES),
                               (("cp", f"{first}:/linked", folder), first, TARGETS),
                               (("cp", f"{first}:/linked", folder / "new"), first, TARGETS),
                               (("cp", "-a", f"{first}:/linked", folder / "same"), first, TARGETS),
                               (("cp", f"{first}:/linked", f"{second}:/"), second, 0),
                               (("mkdir", f"{first}:/a", f"{second}:/b", f"{first}:/c"), second, 0)):
        with Readers(scratch.program, image, kept=[kept]) as readers:
            mounting.run(scratch.program, *words)
        readers.passed(" ".join(map(str, words)))
    check({path.read_bytes() for path in (aside, folder / "new", folder / "same")} == {b"contents"}, "not what was copied")
    # A shell's commands have what each of them names, as such a copy has, and no more for all that others name.
    for lines, kept in (("ls\nmkdir /made\ncp /linked /made\ncheck\nrm -r /made\n", {0}),
                        (f"cp host:{file} /in\ncp host:{aside} /in2\nls\n", {0, SOURCES}),
                        (f"ls\ncp /in host:{folder}/out\nls\n", {0, TARGETS}),
                        (f"cp -a host:{folder} /in3\ncp -a /in3 host:{folder}/out3\n", {0, SOURCES, TARGETS})):
        with Readers(scratch.program, first, kept=kept) as readers:
            mounting.run(scratch.program, "shell", first, input=lines)
        readers.passed(f"a shell: {lines}")
    check((folder / "out").read_bytes() == (folder / "out3/linked").read_bytes() == b"contents", "not what was copied")
    for image in (first, second):
        mounting.clean(image)
    print("copies: nothing but the files that are named", flush=True)


def test(scratch):
    os.chmod(scratch.folder, 0o755)
    scratch.program = str(shutil.copy(scratch.program, scratch.path("uext4")))  # nobody else's processes
    mount_is_closed(scratch)
    verbs_are_closed(scratch)
    closed_before_it_reads(scratch)
    failures_are_told(scratch)
    copies_are_closed(scratch)
    if shutil.which("fusermount3") is None:
        print("a user's mounts: not tried, fusermount3 is not installed")
    elif (reason := mounting.no_own_mounts()) is not None:
        print(f"a user's mounts: not tried, {reason}")
    else:
        users.own_namespace(scratch)
        users_mounts(scratch)


if __name__ == "__main__":
    mounting.main(test)
