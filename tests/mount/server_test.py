#!/usr/bin/env python3
"""The server's process: signals end it clean, the foreground stays, what the starting program left open is closed.

Usage: server_test.py PROGRAM
"""

import contextlib
import fcntl
import mmap
import os
import pathlib
import select
import signal
import subprocess
import time

import mounting
import scattered
from mounting import check

LIMIT = 30  # seconds for what should take a fraction of one


def await_end(pid, what):
    limit = time.monotonic() + LIMIT
    while os.path.exists(f"/proc/{pid}/stat"):
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as status:
            if status.read().rsplit(")", 1)[1].split()[0] in "ZX":
                return
        check(time.monotonic() < limit, f"{what}: the server {pid} does not end")
        time.sleep(0.01)


def ended_by(scratch, number):
    """A signal in the middle of work that nobody has synced: the mount is gone, the image clean and complete."""
    name = next((known.name for known in signal.Signals if known == number), f"signal {number}")
    image = scratch.image("image", "64M", "-t", "ext4", "-b", "4096")
    directory = scratch.mount(image)
    for count in range(200):
        (directory / f"file{count}").write_bytes(b"unsynced %d" % count * 500)
    held = open(directory / "file0", "rb")
    pid = scratch.servers.pop(directory)
    os.kill(pid, number)
    try:
        await_end(pid, name)
    finally:
        held.close()
    check(not mounting.is_mounted(directory), f"{name}: the mount stays")
    mounting.clean(image)
    superblock = mounting.run("dumpe2fs", "-h", image).stdout
    check("needs_recovery" not in superblock, f"{name}: the journal was not emptied")
    check(f"Last mounted on:          {directory}\n" in superblock, f"{name}: where it was mounted is not told: {superblock}")
    directory = scratch.mount(image, options="ro")
    for count in range(200):
        check((directory / f"file{count}").read_bytes() == b"unsynced %d" % count * 500, f"file{count} is not complete")
    scratch.umount(directory)
    print(f"{name}: ended clean", flush=True)


def ended_behind_all_that_was_written(scratch):
    """A signal while the kernel has more to send than it sends at a time, and the server is slow to take it."""
    image = scratch.image("image", "512M", "-t", "ext4", "-b", "4096")
    directory = scratch.mount(image)
    with scattered.held(directory / "file"):
        pid = scratch.servers.pop(directory)
        server = os.pidfd_open(pid)
        os.kill(pid, signal.SIGTERM)
        limit = time.monotonic() + 2 * LIMIT
        while not select.select([server], [], [], 0.001)[0]:
            check(time.monotonic() < limit, "the server does not end")
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(server, signal.SIGSTOP)
                time.sleep(0.1)
                signal.pidfd_send_signal(server, signal.SIGCONT)
        os.close(server)
    check(not mounting.is_mounted(directory), "the mount stays")
    mounting.clean(image)
    scattered.judge(scratch.program, image, "file", "ended by a signal")
    print("ended behind all that was written", flush=True)


def children(pid):
    """Processes and their names."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int((entry / "stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[1]) == pid:
                found[int(entry.name)] = (entry / "comm").read_text(encoding="utf-8").strip()
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def helpers_ignore(scratch, number):
    """A signal to the processes beside the server ends none of them."""
    image = scratch.image("image", "64M", "-t", "ext4", "-b", "4096")
    directory = scratch.mount(image)
    helpers = children(scratch.servers[directory])
    for pid in list(helpers):
        helpers |= children(pid)
    check("uext4-supervise" in helpers.values(), f"there is no supervisor: {helpers}")
    for pid in helpers:
        os.kill(pid, number)
    time.sleep(0.1)
    (directory / "file").write_bytes(b"written")
    left = children(scratch.servers[directory])
    check(left.items() <= helpers.items() and "uext4-supervise" in left.values(), f"{helpers} became {left}")
    scratch.umount(directory)
    mounting.clean(image)
    print(f"signal {number} to the processes beside the server: ignored", flush=True)


def without_supervisor(scratch):
    """Its helper killed, a server that is ended by a signal still has all written that the kernel holds."""
    image = scratch.image("image", "64M", "-t", "ext4", "-b", "4096")
    contents = os.urandom(5_000_000)
    for options in ("", "nosandbox"):
        directory = scratch.mount(image, options=options)
        pid = scratch.servers.pop(directory)
        supervisor = next(child for child, name in children(pid).items() if name == "uext4-supervise")
        os.kill(supervisor, signal.SIGKILL)
        held, mapped = (os.open(directory / f"{name} {options}", os.O_CREAT | os.O_RDWR) for name in ("held", "mapped"))
        try:
            os.write(held, contents)
            os.truncate(mapped, len(contents))
            with mmap.mmap(mapped, len(contents)) as memory:
                memory[:] = contents
                os.kill(pid, signal.SIGTERM)
                await_end(pid, f"SIGTERM without the supervisor, {options or 'default'}")
        finally:
            for fd in (held, mapped):
                with contextlib.suppress(OSError):  # the mount is dead by now
                    os.close(fd)
        # What a server in the sandbox may not take away is dead.
        if mounting.is_mounted(directory):
            check(options == "", "the mount stays")
            mounting.run(scratch.program, "umount", directory)
        mounting.clean(image)
        for name in (f"held {options}", f"mapped {options}"):
            got = subprocess.run([scratch.program, "cat", f"{image}:/{name}"], check=True, capture_output=True).stdout
            check(got == contents, f"{name}: {len(got)} bytes, not what was written")
    print("SIGTERM without the supervisor: ended clean, everything written", flush=True)


def asked_for_groups_while_it_ends(scratch):
    """Whoever takes the mount away waits for writes of the kernel's cache, and the server, before it gets to them, for
    the groups of a user who changes a file with a set-id bit."""
    image = scratch.image("image", "256M", "-t", "ext4", "-b", "4096")
    directory = scratch.mount(image)
    pid = scratch.servers.pop(directory)
    name = directory / "changed"
    name.touch()
    nobody, other = 65534, 100
    os.chown(name, nobody, other)
    content = os.urandom(64 << 20)
    with open(directory / "cached", "wb") as cached, open(name, "rb") as changed:
        user = os.fork()
        if user == 0:
            try:
                os.setgroups([other])
                os.setresgid(nobody, nobody, nobody)
                os.setresuid(nobody, nobody, nobody)
                while True:
                    for mode in (0o2755, 0o2775):
                        os.fchmod(changed.fileno(), mode)
            except OSError:
                os._exit(0)  # the mount is gone
        try:
            limit = time.monotonic() + LIMIT
            while (name.stat().st_mode & 0o7777) not in (0o2755, 0o2775):
                check(time.monotonic() < limit, "the user changes nothing")
                time.sleep(0.01)
            cached.write(content)
            cached.flush()
            os.kill(pid, signal.SIGTERM)
            await_end(pid, "SIGTERM beside questions for groups")
        except mounting.Failure:
            os.kill(pid, signal.SIGKILL)  # and with it who waits for the supervisor
            raise
        finally:
            os.kill(user, signal.SIGKILL)
            os.waitpid(user, 0)
    mounting.clean(image)
    found = subprocess.run([scratch.program, "cat", f"{image}:/cached"], stdout=subprocess.PIPE, check=True).stdout
    check(found == content, f"{len(found)} bytes, or others")
    print("SIGTERM beside questions for groups: ended clean, everything written", flush=True)


def killed_while_it_waits_for_the_kernel(scratch):
    """SIGKILL while a thread of the server waits until the kernel has written to it: nobody is left waiting for it. Also
    while the mount is being taken away, and after that, when it has no name any more."""
    image = scratch.image("image", "256M", "-t", "ext4", "-b", "4096")
    for asked_to_end in (False, True):
        for milliseconds in (0, 1, 2, 5, 15, 30, 60) if asked_to_end else (5, 15, 30, 60):
            directory = scratch.mount(image)
            pid = scratch.servers.pop(directory)
            connection = mounting.Connection(scratch, directory)
            told, tell = os.pipe()
            user = os.fork()
            if user == 0:
                try:
                    fd = os.open(directory / "file", os.O_CREAT | os.O_RDWR)
                    os.pwrite(fd, os.urandom(1 << 20) * 80, 0)
                    os.write(tell, b"w")
                    os.lseek(fd, 0, os.SEEK_DATA)
                finally:
                    os._exit(0)
            os.read(told, 1)
            if asked_to_end:
                os.kill(pid, signal.SIGTERM)
            time.sleep(milliseconds / 1000)
            os.kill(pid, signal.SIGKILL)
            try:
                await_end(user, f"SIGKILL after {milliseconds} ms: a program that uses the mount")
            except mounting.Failure:
                connection.abort()
                raise
            finally:
                os.waitpid(user, 0)
                os.close(told)
                os.close(tell)
                connection.close()
            await_end(pid, "SIGKILL")
            if asked_to_end:
                subprocess.run(["umount", "-l", directory], check=False, stderr=subprocess.DEVNULL)  # if not yet
                continue
            check(mounting.is_mounted(directory), "a server that was killed takes its mount along")
            mounting.run(scratch.program, "umount", directory)
    print("SIGKILL while the server waits for the kernel: nobody else waits", flush=True)


def works_from_the_start(scratch):
    """The threads for what may block are there before the first request: nothing of theirs runs on the one that reads."""
    image = scratch.image("image", "64M", "-t", "ext4", "-b", "4096")
    directory = scratch.mount(image)
    tasks = pathlib.Path(f"/proc/{scratch.servers[directory]}/task")
    # A thread names itself when it first runs.
    limit = time.monotonic() + LIMIT
    names = set()
    while not {"uext4-fuse", "uext4-freeze"} <= names:
        names = {(task / "comm").read_text(encoding="utf-8").strip() for task in tasks.iterdir()}
        check(time.monotonic() < limit, f"the server's threads are {names}")
    for task in tasks.iterdir():
        fields = dict(line.split(":", 1) for line in (task / "status").read_text(encoding="utf-8").splitlines())
        check(int(fields["CapEff"], 16) == 0 and fields["Seccomp"].strip() == "2",
              f"thread {fields['Name']}: capabilities {fields['CapEff']}, Seccomp {fields['Seccomp']}")
    scratch.umount(directory)
    print("workers: there from the start, with no capability, filtered", flush=True)


def sandboxed(scratch):
    """The process that parses the image has no capability and a filter of system calls, unless asked not to."""
    image = scratch.image("image", "64M", "-t", "ext4", "-b", "4096")
    for options, filtered in (("", "2"), ("nosandbox", "0")):
        directory = scratch.mount(image, options=options)
        status = pathlib.Path(f"/proc/{scratch.servers[directory]}/status").read_text(encoding="ascii")
        fields = dict(line.split(":", 1) for line in status.splitlines())
        check(fields["Seccomp"].strip() == filtered, f"{options or 'default'}: Seccomp is {fields['Seccomp']}")
        check((int(fields["CapEff"], 16) == 0) == (filtered == "2") or os.getuid() != 0,
              f"{options or 'default'}: capabilities {fields['CapEff']}")
        (directory / "file").write_bytes(b"x" * 100000)
        scratch.umount(directory)
        mounting.clean(image)
    print("sandboxed: no capability, a filter", flush=True)


def in_the_foreground(scratch):
    image = scratch.image("image", "64M", "-t", "ext4", "-b", "4096")
    directory = scratch.path("mnt")
    for number in (None, signal.SIGTERM, signal.SIGINT):
        server = subprocess.Popen([scratch.program, "mount", "-f", str(image), str(directory)])
        try:
            limit = time.monotonic() + LIMIT
            while not mounting.is_mounted(directory):
                check(server.poll() is None and time.monotonic() < limit, "a server in the foreground does not come up")
                time.sleep(0.01)
            check(scratch.server_of(directory) == server.pid, "the foreground is another process")
            (directory / f"by {number}").write_bytes(b"written")
            if number is None:
                mounting.run(scratch.program, "umount", directory)
            else:
                server.send_signal(number)
            check(server.wait(LIMIT) == 0, f"a server in the foreground ends with {server.returncode}")
        finally:
            if server.poll() is None:
                server.kill()
                server.wait()
                subprocess.run(["umount", "-l", str(directory)], check=False)
        mounting.clean(image)
    print("foreground: stays, and ends with 0", flush=True)


def await_nothing_held(process, *files):
    """The processes beside the server close what they have a moment after their start."""
    limit = time.monotonic() + LIMIT
    while True:
        held = {}
        for fd in os.listdir(f"/proc/{process}/fd"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                held[int(fd)] = os.readlink(f"/proc/{process}/fd/{fd}")
        wrong = {fd: link for fd, link in held.items() if link in map(str, files)}
        wrong |= {fd: held[fd] for fd in range(3) if held.get(fd, "/dev/null") != "/dev/null"}
        directory = os.readlink(f"/proc/{process}/cwd")
        if not wrong and directory == "/":
            return
        check(time.monotonic() < limit, f"{process} in {directory} has {wrong} open")
        time.sleep(0.01)


def descriptors_are_left(scratch):
    """Of what the program was started with, a mount keeps the image that it was given, and nothing else: neither the
    server nor a process beside it holds somebody's pipe, file or lock."""
    image = scratch.image("image", "64M", "-t", "ext4", "-b", "4096")
    directory = scratch.path("mnt")
    directory.mkdir(exist_ok=True)
    theirs = scratch.path("theirs")
    theirs.write_bytes(b"")
    for by_descriptor in (False, True):
        for options in ("", "nosandbox"):
            readable, writable = os.pipe()
            pipe = f"pipe:[{os.fstat(readable).st_ino}]"  # the server has some of its own
            with open(theirs, "r+b") as file, open(image, "r+b") as source:
                fcntl.flock(file, fcntl.LOCK_EX)
                name = f"/dev/fd/{source.fileno()}" if by_descriptor else image
                words = ("-o", options, name) if options else (name,)
                mounting.run(scratch.program, "mount", *words, directory,
                             pass_fds=(writable, file.fileno(), source.fileno()))
            os.close(writable)
            scratch.servers[directory] = pid = scratch.server_of(directory)
            for process in (pid, *children(pid)):
                await_nothing_held(process, theirs, pipe, None if process == pid else image)
            check(os.read(readable, 1) == b"", "the pipe has no end")
            os.close(readable)
            with open(theirs, "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (directory / f"{by_descriptor}{options}").write_bytes(b"written")
            scratch.umount(directory)
    mounting.clean(image)
    print("descriptors: none of somebody else's stays open", flush=True)


def usable_at_once(scratch):
    """When the program returns the mount answers, and when umount returns the image is free and complete."""
    image = scratch.image("image", "64M", "-t", "ext4", "-b", "4096")
    for count in range(20):
        directory = scratch.mount(image)
        (directory / f"round{count}").write_bytes(b"x" * 100000)
        check(len(os.listdir(directory)) == count + 2, f"round {count}: {os.listdir(directory)}")
        scratch.umount(directory)
        mounting.run(scratch.program, "mkdir", "-p", f"{image}:/lost+found")  # takes the image's lock
    mounting.clean(image)
    print("twenty mounts: usable and free at once", flush=True)


def root_syncs_all(scratch):
    """An fsync of the root makes durable what the kernel still holds of open and of mapped files."""
    image = scratch.image("image", "64M", "-t", "ext4")
    for _ in range(3):
        directory = scratch.mount(image)
        written = os.open(directory / "written", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.write(written, b"w" * 200000)
        stored = os.open(directory / "stored", os.O_RDWR | os.O_CREAT)
        os.ftruncate(stored, 100000)
        os.fsync(stored)
        memory = mmap.mmap(stored, 100000)
        os.close(stored)
        memory[:] = b"m" * 100000
        root = os.open(directory, os.O_RDONLY)
        os.fsync(root)
        os.close(root)
        scratch.kill(directory)
        with contextlib.suppress(OSError):
            os.close(written)
        for name, content in (("written", b"w" * 200000), ("stored", b"m" * 100000)):
            found = subprocess.run([scratch.program, "cat", f"{image}:/{name}"], stdout=subprocess.PIPE, check=True).stdout
            check(found == content, f"{name}: {len(found)} bytes, or others, after an fsync of the root")
        memory.close()


def unmounted_by_others(scratch):
    """umount(8) works as well; the server then ends by itself and leaves the image clean."""
    image = scratch.image("image", "64M", "-t", "ext4", "-b", "4096")
    directory = scratch.mount(image)
    (directory / "file").write_bytes(b"x" * 1000000)
    pid = scratch.servers.pop(directory)
    mounting.run("umount", directory)
    await_end(pid, "umount(8)")
    mounting.clean(image)
    check("needs_recovery" not in mounting.run("dumpe2fs", "-h", image).stdout, "umount(8): the journal was not emptied")
    mounting.run(scratch.program, "umount", directory, accept=(1, 2))
    print("umount(8): ended clean", flush=True)


def test(scratch):
    mounting.need("dumpe2fs")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM,
                   signal.SIGIO, signal.SIGPWR, signal.SIGTRAP, signal.SIGSTKFLT, signal.SIGRTMIN, signal.SIGRTMAX):
        ended_by(scratch, number)
    for _ in range(3):
        ended_behind_all_that_was_written(scratch)
    for number in (signal.SIGTERM, signal.SIGTRAP, signal.SIGRTMIN + 1):
        helpers_ignore(scratch, number)
    without_supervisor(scratch)
    for _ in range(3):
        asked_for_groups_while_it_ends(scratch)
    killed_while_it_waits_for_the_kernel(scratch)
    works_from_the_start(scratch)
    sandboxed(scratch)
    in_the_foreground(scratch)
    descriptors_are_left(scratch)
    usable_at_once(scratch)
    root_syncs_all(scratch)
    unmounted_by_others(scratch)


if __name__ == "__main__":
    mounting.main(test)
