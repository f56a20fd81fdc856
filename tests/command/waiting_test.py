#!/usr/bin/env python3
"""An image that another process has open: each verb waits for it, says for which process, and refuses in the end.

Nothing here is timed: what waits is let go when it has said that it waits. Usage: waiting_test.py PROGRAM
"""

import contextlib
import fcntl
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys

from verbs import IMPOSSIBLE, NOBODY, Verbs, check, mounting

LONG = "600"
F_OFD_SETLK = 37


def readers(image, folder):
    """Verbs that read, by what they open the image with."""
    return (("ls", image), ("tree", image), ("stat", f"{image}:/file"), ("cat", f"{image}:/file"), ("df", image),
            ("info", image), ("check", image), ("journal", image), ("label", image), ("fiemap", f"{image}:/file"),
            ("lsattr", f"{image}:/file"), ("getfattr", f"{image}:/file"), ("cp", f"{image}:/file", folder / "out"),
            ("cp", "-a", f"{image}:/", folder / "tree"), ("shell", image))


def writers(image, folder):
    return (("mkdir", f"{image}:/new"), ("rm", f"{image}:/none"), ("rmdir", f"{image}:/none"),
            ("mv", f"{image}:/file", f"{image}:/b"), ("ln", f"{image}:/file", f"{image}:/b"),
            ("ln", "-s", "text", f"{image}:/b"), ("mknod", f"{image}:/b", "p"), ("touch", f"{image}:/b"),
            ("chmod", "600", f"{image}:/file"), ("chown", "1", f"{image}:/file"), ("chattr", "+d", f"{image}:/file"),
            ("setfattr", "-n", "user.a", "-v", "b", f"{image}:/file"), ("truncate", "-s", "1", f"{image}:/file"),
            ("label", image, "new"), ("replay", image), ("cp", "/etc/hostname", f"{image}:/b"),
            ("cp", "-a", folder / "source", f"{image}:/b"), ("mount", image, folder / "mnt"))


@contextlib.contextmanager
def held_by_shell(program, image, writes=True, **identity):
    """A shell has the image open: the process that works on it, and a function that ends the shell."""
    with subprocess.Popen([program, "shell", image], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, **identity) as shell:
        shell.stdin.write(b"rm -f none\nls\n" if writes else b"ls\n")
        shell.stdin.flush()
        check(shell.stdout.readline() != b"", f"the shell lists nothing: {shell.poll()}")
        worker = int(pathlib.Path(f"/proc/{shell.pid}/task/{shell.pid}/children").read_text(encoding="ascii"))
        try:
            yield worker, lambda: (shell.stdin.close(), shell.wait())
        finally:
            if not shell.stdin.closed:
                shell.stdin.close()
            shell.wait()


@contextlib.contextmanager
def held_by_another_program(image, by_process):
    """A program that is not ours locks the image: by its open file, or by its process."""
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        fd = os.open(image, os.O_RDWR)
        if by_process:
            fcntl.lockf(fd, fcntl.LOCK_EX)
        else:
            fcntl.fcntl(fd, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 100, 8, 0))
        os.write(told, b"x")
        signal.pause()
    os.read(ready, 1)
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(told)


def refusal(program, words, **identity):
    result = subprocess.run([str(word) for word in (program, words[0], "--wait", "0", *words[1:])], text=True,
                            stdin=subprocess.DEVNULL, capture_output=True, check=False, **identity)
    check(result.returncode == IMPOSSIBLE, f"{words} --wait 0: {result}")
    check("wait" not in result.stderr, f"{words} --wait 0 waits: {result.stderr}")
    return result.stderr


def refused_at_once(scratch, verbs):
    """With --wait 0, by all verbs, with the process that is in the way; one that reads is in the way of who writes."""
    image, folder = verbs.image, scratch.folder
    for writes in (True, False):
        with held_by_shell(verbs.program, image, writes) as (worker, _):
            for words in (*(readers(image, folder) if writes else ()), *writers(image, folder)):
                stderr = refusal(verbs.program, words)
                wanted = f"{image}: process {worker} (uext4) has it open"
                check(stderr.startswith(f"uext4 {words[0]}: ") and wanted in stderr, f"{words}: {stderr}")
    print("refused at once: done", flush=True)


def waits_and_goes_on(scratch, verbs):
    """Who waits says so after a second, and how long at most; and is done when the image is free."""
    image, folder = verbs.image, scratch.folder
    for words, default in ((("ls", image), 2), (("mkdir", f"{image}:/default"), 10), (("mount", "-f", image, folder / "mnt"), 10)):
        with held_by_shell(verbs.program, image) as (worker, _):
            said, end = first_line(verbs.program, words)
            check(f"process {worker} (uext4) has it open" in said and f"at most {default} seconds" in said and
                  "--wait" in said, f"{words}: {said}")
            end(signal.SIGKILL)
    for words in (("cat", f"{image}:/file"), ("cp", "/etc/hostname", f"{image}:/waited"), ("shell", image),
                  ("mount", image, folder / "mnt")):
        with held_by_shell(verbs.program, image) as (_, let_go):
            said, end = first_line(verbs.program, (words[0], "--wait", LONG, *words[1:]))
            check(f"at most {LONG} seconds" in said, f"{words}: {said}")
            let_go()
            check(end() == 0, f"{words} has failed after it waited")
    scratch.servers[folder / "mnt"] = scratch.server_of(folder / "mnt")
    scratch.umount(folder / "mnt")
    verbs("cat", ":/waited")
    # The time is over: the error says so, and for which process it was in vain.
    with held_by_shell(verbs.program, image) as (worker, _):
        result = subprocess.run([verbs.program, "ls", "--wait=0.25", image], capture_output=True, text=True, check=False)
        check(result.returncode == IMPOSSIBLE and f"process {worker} (uext4) has it open" in result.stderr and
              "waited 0.25 seconds" in result.stderr and len(result.stderr.splitlines()) == 1, f"{result}")
    print("waits and goes on: done", flush=True)


def first_line(program, words):
    """What a verb says first, and a function that returns its status, after a signal if one is given."""
    process = subprocess.Popen([str(word) for word in (program, *words)], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    said = process.stderr.readline()

    def end(number=None):
        if number:
            process.send_signal(number)
        process.stderr.close()
        return process.wait()
    return said, end


def other_holders(scratch, verbs):
    """Programs that know nothing of uext4, a mount, and a block device."""
    image = verbs.image
    name = pathlib.Path(f"/proc/{os.getpid()}/comm").read_text(encoding="utf-8").strip()
    for by_process in (False, True):
        with held_by_another_program(image, by_process) as child:
            for words in (("ls", image), ("mkdir", f"{image}:/x")):
                check(f"process {child} ({name}) has it open" in refusal(verbs.program, words), f"{by_process} {words}")
    directory = scratch.mount(image)
    server = scratch.servers[directory]
    for words in (("ls", image), ("mkdir", f"{image}:/x"), ("mount", image, scratch.folder / "mnt")):
        check(f"process {server} (uext4-server) has it open" in refusal(verbs.program, words), f"mounted: {words}")
    scratch.umount(directory)
    made = subprocess.run(["losetup", "-f", "--show", image], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        print(f"no loop device: {made.stderr.strip()}")
        return
    loop = made.stdout.strip()
    try:
        with held_by_shell(verbs.program, loop) as (worker, _):
            stderr = refusal(verbs.program, ("mkdir", f"{loop}:/x"))
            check(f"process {worker} (uext4) has the device open" in stderr, stderr)
            check(f"process {worker} (uext4) has it open" in refusal(verbs.program, ("ls", f"{image}:/")), "through a loop")
    finally:
        mounting.run("losetup", "-d", loop)
    print("other holders: done", flush=True)


def plain_users(scratch, verbs):
    """Who may look into no process in the sandbox, not even of their own, is told all the same."""
    program = shutil.copy(verbs.program, scratch.path("uext4"))
    identity = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    with held_by_shell(program, verbs.image, **identity) as (worker, _):
        for words in (("ls", verbs.image), ("mkdir", f"{verbs.image}:/x")):
            check(f"process {worker} (uext4) has it open" in refusal(program, words, **identity), f"{words}")
    print("plain users: done", flush=True)


def wrong_words(verbs):
    for words in (("ls", verbs.image), ("mkdir", f"{verbs.image}:/x"), ("mount", verbs.image, "/mnt")):
        for text in ("-1", "x", "", "nan", "inf", "1e99", "5s", "0x5"):
            result = subprocess.run([verbs.program, words[0], f"--wait={text}", *map(str, words[1:])], text=True,
                                    capture_output=True, check=False)
            check(result.returncode == IMPOSSIBLE and "--wait" in result.stderr, f"{words} {text!r}: {result}")


def test(scratch):
    os.chmod(scratch.folder, 0o755)
    verbs = Verbs(scratch, scratch.image("image", "32M", "-t", "ext4"))
    os.chown(verbs.image, NOBODY, NOBODY)
    verbs("cp", "/etc/hostname", ":/file")
    (scratch.folder / "mnt").mkdir()
    (scratch.folder / "source").mkdir()
    refused_at_once(scratch, verbs)
    waits_and_goes_on(scratch, verbs)
    other_holders(scratch, verbs)
    plain_users(scratch, verbs)
    wrong_words(verbs)
    mounting.clean(verbs.image)


if __name__ == "__main__":
    sys.exit(mounting.main(test))
