#!/usr/bin/env python3
"""SIGINT, SIGTERM and SIGHUP in the middle of verbs that write: the image is clean, and the exit is by the signal.

A pipe stops each verb at a place that the test knows: a source that has no more bytes for now, or an output that takes
no more lines.
Usage: interrupt_test.py PROGRAM
"""

import array
import fcntl
import itertools
import os
import pathlib
import pty
import signal
import subprocess
import termios
import time

from verbs import Verbs, check, mounting, prepare

CHUNK = 1 << 20
TEXT = bytes(range(32, 96))


def wait_until(what, condition):
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    check(False, f"{what} did not come")


def is_clean(image):
    """No journal to replay, and e2fsck finds nothing."""
    header = mounting.run("dumpe2fs", "-h", image).stdout
    check("needs_recovery" not in header, f"the journal is not empty:\n{header}")
    mounting.clean(image)


def ended_by(process, number, says):
    error = process.communicate(timeout=60)[1]
    check(process.returncode == -number, f"{process.args}: {process.returncode}, not -{number}\n{error}")
    for text in says:
        check(text in error, f"{process.args}: {error!r} does not say {text!r}")
    check(len(error.splitlines()) == 1, f"{process.args}: one line is enough\n{error}")


def start(verbs, *words, **options):
    words = [f"{verbs.image}{word}" if str(word).startswith(":") else str(word) for word in words]
    return subprocess.Popen([verbs.program, *words], stderr=subprocess.PIPE, text=True, **options)


class Fifo:
    """A source whose reader waits for more."""

    def __init__(self, path):
        self.path = path
        os.mkfifo(path)

    def fill(self, size):
        """Opens it and writes; returns when the reader has taken all."""
        self.end = os.open(self.path, os.O_WRONLY)
        data = TEXT * (size // len(TEXT))
        while data:
            data = data[os.write(self.end, data):]
        wait_until("the reader", lambda: unread(self.end) == 0)

    def close(self):
        os.close(self.end)


def unread(fd):
    count = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return count[0]


def copy_in(scratch, verbs, number, sandbox):
    """Two files are complete, one is in the middle of its contents."""
    fifo = Fifo(scratch.folder / f"fifo{number}{len(sandbox)}")
    process = start(verbs, "cp", *sandbox, "/etc/passwd", "/etc/group", fifo.path, ":/there")
    fifo.fill(3 * CHUNK)
    process.send_signal(number)
    name = f"/there/{fifo.path.name}"
    ended_by(process, number, ["2 entries are complete", f"{verbs.image}:{name} is incomplete", f"{verbs.image} is clean"])
    fifo.close()
    is_clean(verbs.image)
    size = verbs.status(name)["size"]
    check(0 < size <= 3 * CHUNK, f"the incomplete file has {size} bytes")
    data = TEXT.decode("ascii") * (3 * CHUNK // len(TEXT))
    check(verbs("cat", f":{name}") == data[:size], "the contents of the incomplete file")
    check(verbs("cat", ":/there/passwd") == pathlib.Path("/etc/passwd").read_text(encoding="utf-8"), "a complete file")


def from_terminal(scratch, verbs):
    """Ctrl-C: the bar goes, one line says the rest, and the process ends by SIGINT."""
    fifo = Fifo(scratch.folder / "typed")
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(verbs.program, [verbs.program, "cp", "/etc/passwd", str(fifo.path), f"{verbs.image}:/there"])
    fifo.fill(2 * CHUNK)
    os.write(terminal, b"\x03")
    shown = b""
    while piece := read_or_end(terminal):
        shown += piece
    os.close(terminal)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    fifo.close()
    check(status == -signal.SIGINT, f"{status}\n{shown}")
    last = shown.decode().replace("^C", "").split("\r\x1b[K")[-1]
    check(last.startswith("uext4 cp: interrupted (Interrupt): 1 entry is complete, "), f"{shown}")
    check(last.count("\n") == 1, f"{shown}")
    is_clean(verbs.image)


def read_or_end(terminal):
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other side is closed
        return b""


def copy_out(scratch, verbs):
    """To a pipe that takes no more. What is a file on the host stays as far as it was written."""
    big = scratch.folder / "big"
    big.write_bytes(TEXT * (8 * CHUNK // len(TEXT)))
    verbs("cp", big, ":/big")
    pipe = scratch.folder / "pipe"
    os.mkfifo(pipe)
    process = start(verbs, "cp", ":/big", pipe)
    with open(pipe, "rb", buffering=0) as end:
        taken = end.read(CHUNK)
        wait_until("a full pipe", lambda: unread(end) > 60_000)
        process.send_signal(signal.SIGTERM)
        ended_by(process, signal.SIGTERM, ["0 entries are complete", f"{pipe} is incomplete"])
    check(big.read_bytes().startswith(taken), "what went through the pipe")
    is_clean(verbs.image)


def in_shell(scratch, verbs):
    """The command that runs ends at its safe point, then the shell; what follows does not run."""
    fifo = Fifo(scratch.folder / "shell_source")
    script = scratch.folder / "script"
    script.write_text(f"mkdir before\ncp host:{fifo.path} /from_shell\nmkdir behind\n", encoding="ascii")
    process = start(verbs, "shell", verbs.image, script)
    fifo.fill(CHUNK)
    process.send_signal(signal.SIGTERM)
    ended_by(process, signal.SIGTERM, [f"{verbs.image}:/from_shell is incomplete"])
    fifo.close()
    is_clean(verbs.image)
    names = verbs("ls", ":/").split()
    check("before" in names and "behind" not in names, f"{names}")


# Verbs that print a line for each thing, and a tree or names for them; with what is left of it, unless all was done.
MANY = 3000
LONG = "n" * 200
TALKERS = {
    "rm": lambda: ["-rv", ":/many"],
    "mkdir": lambda: ["-v", *(f":/made/{LONG}{i}" for i in range(600))],
    "chmod": lambda: ["-Rv", "700", ":/many"],
    "chown": lambda: ["-Rv", "1:1", ":/many"],
    "cp": lambda: ["-av", ":/many/.", ":/copies"],
    "mv": lambda: ["-v", *(f":/many/{LONG}{i}" for i in range(600)), ":/there"],
    "ln": lambda: ["-v", *(f":/many/{LONG}{i}" for i in range(600)), ":/made"],
}


def every_verb(scratch, verbs):
    """The output is a pipe that nobody reads until the signal is there: the verb is in its middle then, whatever the time."""
    tree = scratch.folder / "many"
    tree.mkdir()
    for i in range(MANY):
        (tree / f"{LONG}{i}").write_bytes(b"")
    image = scratch.image("talk", "64M", "-t", "ext4", "-N", "20000")
    talker = Verbs(scratch, image)
    for number, (verb, words) in zip(itertools.cycle((signal.SIGINT, signal.SIGTERM, signal.SIGHUP)), TALKERS.items()):
        mounting.run("mke2fs", "-q", "-F", "-t", "ext4", "-N", "20000", image)
        talker("mkdir", ":/made", ":/there", ":/copies")
        talker("cp", "-a", tree, ":/")
        process = start(talker, verb, *words(), stdout=subprocess.PIPE)
        wait_until(f"{verb}: a full pipe", lambda: unread(process.stdout) > 60_000)
        process.send_signal(number)
        ended_by(process, number, [f"uext4 {verb}: interrupted", " complete", f"{image} is clean"])
        is_clean(image)


def second_signal(scratch, verbs):
    """It ends the verb at once, wherever that is. The image is as after a crash: a mount recovers it."""
    image = scratch.folder / "talk"
    mounting.run("mke2fs", "-q", "-F", "-t", "ext4", "-N", "20000", image)
    talker = Verbs(scratch, image)
    talker("cp", "-a", scratch.folder / "many", ":/")
    process = start(talker, "rm", "-rv", ":/many", stdout=subprocess.PIPE)
    wait_until("a full pipe", lambda: unread(process.stdout) > 60_000)
    process.send_signal(signal.SIGINT)
    wait_until("the first signal", lambda: not caught(process.pid, signal.SIGTERM))
    process.send_signal(signal.SIGTERM)
    check(process.wait(timeout=60) == -signal.SIGTERM, f"{process.returncode}")
    process.communicate()
    talker("replay", image)
    is_clean(image)


def caught(pid, number):
    status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def ignored(scratch, verbs):
    """As under nohup(1): a signal that is ignored interrupts nothing."""
    fifo = Fifo(scratch.folder / "ignored")
    process = start(verbs, "cp", fifo.path, ":/whole",
                    preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    fifo.fill(CHUNK)
    process.send_signal(signal.SIGHUP)
    fifo.close()
    error = process.communicate(timeout=60)[1]
    check(process.returncode == 0 and not error, f"{process.returncode}: {error}")
    check(verbs.status("/whole")["size"] == CHUNK, "all of it")


def test(scratch):
    verbs = prepare(scratch)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        copy_in(scratch, verbs, number, ())
    copy_in(scratch, verbs, signal.SIGINT, ("--no-sandbox",))
    from_terminal(scratch, verbs)
    copy_out(scratch, verbs)
    in_shell(scratch, verbs)
    every_verb(scratch, verbs)
    second_signal(scratch, verbs)
    ignored(scratch, verbs)


if __name__ == "__main__":
    mounting.main(test)
