#!/usr/bin/env python3
"""The shell: one mount over all commands, what it says, and how it ends.

Judged by e2fsck. Usage: shell_test.py PROGRAM
"""

import json
import os
import re
import shutil
import signal
import subprocess

from verbs import FINE, IMPOSSIBLE, NO, Verbs, check, mounting, prepare


def run(verbs, lines, status=FINE, options=()):
    """The shell over lines from a pipe: what it printed."""
    result = subprocess.run([verbs.program, "shell", *options, verbs.image], input=lines, capture_output=True, text=True,
                            check=False)
    check(result.returncode == status, f"{lines[:200]!r}: {result.returncode}, not {status}\n{result.stderr}")
    return result.stdout


def codes(verbs):
    """From a pipe: the worst exit code of all lines, or what `exit` says."""
    for lines, expected in (("ls\npwd\n", FINE), ("cat missing\nls\n", NO), ("bogus\nls\n", IMPOSSIBLE),
                            ("cd missing\n", NO), ("chmod 99 there\ncat missing\n", IMPOSSIBLE),
                            ("touch 'not closed\nls\n", IMPOSSIBLE), ('touch "not closed\nls\n', IMPOSSIBLE),
                            ("exit 5\n", 5), ("cat missing\nexit 0\nbogus\n", FINE), ("bogus\nexit\n", IMPOSSIBLE),
                            ("mkdir before\nquit 255\nmkdir after\n", 255), ("exit 256\nls\n", IMPOSSIBLE),
                            ("exit five\n", IMPOSSIBLE), ("exit 1 2\n", IMPOSSIBLE), ("exit -1\n", IMPOSSIBLE)):
        run(verbs, lines, expected)
    names = verbs("ls", ":/")
    check("not closed" not in names, "a line whose quote does not end was done")
    check("before" in names and "after" not in names, f"what stands before and after `quit`: {names}")


def mount_count(image):
    return int(re.search(r"Mount count: +(\d+)", mounting.run("dumpe2fs", "-h", image).stdout).group(1))


def one_mount(verbs):
    """All commands work on one mount, and what they did is durable when the shell has ended."""
    before = mount_count(verbs.image)
    lines = "ls\ncd there\n" + "".join(f"mkdir {n}\n" for n in range(1000)) + "ls\nrmdir 500\nls missing\n"
    shown = run(verbs, lines, NO).split()
    check(shown[-1000:] == sorted(str(n) for n in range(1000)), "what was made is not listed")
    check(mount_count(verbs.image) == before + 1, f"mounted {mount_count(verbs.image) - before} times")
    mounting.clean(verbs.image)
    check(len(verbs("ls", ":/there").split()) == 999, "what was made is not there")
    run(verbs, "ls\ncat file\ndf\ncd there\npwd\n")
    check(mount_count(verbs.image) == before + 1, "commands that only look have mounted it for writing")


def alone(verbs):
    """What looks at the image itself finds it clean, between changes as well."""
    before = mount_count(verbs.image)
    shown = run(verbs, "mkdir one\ncheck\ninfo\nmkdir two\njournal\nreplay\nls --no-replay\nls\n")
    check(": clean" in shown and "state: clean" in shown and "nothing to replay" in shown, shown)
    check(re.search(r"start 0, sequence", shown), shown)
    check(shown.count("one\n") == 2 and shown.count("two\n") == 2, shown)
    check(mount_count(verbs.image) == before + 3, "two changes with a look between them, and a replay")
    mounting.clean(verbs.image)


def looks(scratch, verbs):
    """Who looks after a change sees what a mount of their own would show, and leaves no trace."""
    big = scratch.path("big")
    big.write_bytes(os.urandom(4 << 20))
    free = json.loads(verbs("df", "--json", verbs.image))["free_blocks"]
    shown = run(verbs, f"cp host:{big} big\nfiemap big\nrm big\ndf --json\n")
    check("mapped" in shown and "reserved" not in shown and "granted" not in shown, shown)
    left = json.loads(shown[shown.index("{"):])["free_blocks"]
    check(left == free, f"{left} of {free} free blocks are back after rm")
    verbs("mkdir", ":/looked")
    verbs("cp", "/etc/hostname", ":/looked/at")
    verbs("ln", "-s", "at", ":/looked/link")
    paths = ("/looked", "/looked/at", "/looked/link")
    old = [verbs.status(path)["atime"] for path in paths]
    run(verbs, "mkdir changed\ncat looked/at\nls looked\nls -l looked\ncat looked/link\ncp looked/at copy\n")
    check([verbs.status(path)["atime"] for path in paths] == old, "looking has moved a time of access")
    run(verbs, "chmod 600 looked/at\n", IMPOSSIBLE, options=("-o", "ro"))
    run(verbs, "cp looked/at looked/again\ncp host:/etc/hostname in\ncp in host:" + str(scratch.path("out")) + "\n")
    check(scratch.path("out").read_text() == verbs("cat", ":/looked/at"), "in and out again")
    other = Verbs(scratch, scratch.image("other", "8M", "-t", "ext4"))
    run(verbs, f"mkdir more\ncp looked/at host:{other.image}:/from\ncp host:{other.image}:/from back\nls\n")
    check(verbs("cat", ":/back") == other("cat", ":/from") == verbs("cat", ":/file"), "to another image and back")


def locks(verbs):
    """Others may read the image until the first change, and nobody after it, to the end."""
    with subprocess.Popen([verbs.program, "shell", verbs.image], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as shell:
        def say(line, until):
            shell.stdin.write(line)
            shell.stdin.flush()
            while shell.stdout.readline() != until:
                pass

        say("pwd\n", "/\n")
        verbs("ls", verbs.image)
        verbs("touch", ":/else", status=IMPOSSIBLE, says="has it open")
        say("mkdir -p locked/inner\nls locked\n", "inner\n")
        verbs("ls", verbs.image, status=IMPOSSIBLE, says="has it open for writing")
        say("check\npwd\n", "/\n")
        verbs("ls", verbs.image)
        say("mkdir locked/second\npwd\n", "/\n")
        # A signal that asks for the end leaves a clean image behind.
        shell.send_signal(signal.SIGTERM)
        check(shell.wait() == -signal.SIGTERM, f"{shell.returncode} after SIGTERM")
    check(verbs("ls", ":/locked").split() == ["inner", "second"], "what was made before SIGTERM")
    mounting.clean(verbs.image)


class Driver:
    """A shell that is given one line after the other, and whoever works for it."""

    def __init__(self, verbs):
        self.process = subprocess.Popen([verbs.program, "shell", verbs.image], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.process.kill()
        self.process.communicate()

    def say(self, line):
        """What it prints."""
        self.process.stdin.write(f"{line}\ncd /\npwd\n")
        self.process.stdin.flush()
        shown = ""
        while (told := self.process.stdout.readline()) != "/\n":
            check(told, f"the shell has ended: {shown}")
            shown += told
        return shown

    def workers(self):
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children", encoding="ascii") as children:
            return [int(number) for number in children.read().split()]

    def end(self):
        self.process.communicate(timeout=60)
        return self.process.returncode


def replaced(scratch, verbs):
    """What a line names is what has the name then, whatever an earlier one has found there."""
    folder = scratch.path("folder")
    folder.mkdir()
    file = folder / "file"
    with Driver(verbs) as shell:
        for content in (b"one", b"two", b"three"):
            file.unlink(missing_ok=True)
            file.write_bytes(content)
            check(shell.say(f"cp host:{file} replaced") == "", "a source that was replaced")
            check(content.decode() in shell.say("cat replaced\nls"), f"not {content}")
        for number in range(3):
            check(shell.say(f"cp replaced host:{folder}/alone{number}") == "", "a new file in a folder")
        for mode in ("", "-r"):
            lines = "".join(f"cp {mode} replaced host:{folder}/out{number}\n" for number in range(200))
            check(shell.say(lines) == "", "many new files")
            worker = shell.workers()
            check(shell.say(f"cp {mode} replaced host:{folder}/out0\ncp {mode} replaced host:{folder}/out199") == "", "once more")
            check(worker == shell.workers(), "another process for what the one at work was given with the lines before")
            for number in range(200):
                (folder / f"out{number}").unlink()
        folder.rename(scratch.path("moved"))
        folder.mkdir()
        check(shell.say(f"cp replaced host:{folder}/out") == "", "a folder that was replaced")
        check((folder / "out").read_bytes() == b"three", "into the new one")
        check(shell.say(f"mkdir -p a/b\ncp -r a host:{folder}\ncp replaced host:{folder}/a/b/c") == "", "a folder just made")
        check((folder / "a/b/c").read_bytes() == b"three", "into one that was just made")
        # A pipe beside what was written, and one that has taken its name; a file by a way upwards.
        # What was copied out is nobody's when the line is done.
        shutil.copy("/bin/true", folder / "true")
        check(shell.say(f"cp host:{folder}/true true\ncp -r true host:{folder}/program") == "", "a program")
        check(subprocess.run([folder / "program"], check=False).returncode == 0, "a program that was copied out")
        pipe = folder / "pipe"
        for mode in ("", "", "-r", "-r"):
            check(shell.say(f"cp {mode} replaced host:{folder}/beside") == "", "a new file")
            (folder / "beside").unlink()
            pipe.unlink(missing_ok=True)
            os.mkfifo(pipe)
            with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
                try:
                    check(shell.say(f"cp {mode} replaced host:{pipe}") == "", f"a pipe {mode}")
                    check(reader.communicate(timeout=20)[0] == b"three", f"through a pipe {mode}")
                finally:
                    reader.kill()
        for mode in ("", "-r"):
            (folder / "c").write_bytes(b"longer than the new contents")
            check(shell.say(f"cp {mode} replaced host:{folder}/new\ncp {mode} replaced host:{folder}/a/../c") == "", "upwards")
            check((folder / "c").read_bytes() == b"three", "a file by a way upwards")
        check(shell.end() == FINE, "codes")


def ended_worker(verbs):
    """What works on the image may end at any time: that is told, and the next command goes on."""
    with Driver(verbs) as shell:
        shell.say("mkdir kept\ncheck")
        for _ in range(2):
            shell.say("touch kept/one")
            (worker,) = shell.workers()
            os.kill(worker, signal.SIGKILL)
            told = shell.say("touch kept/two")
            check("ended by signal 9" in told, told)
        shown = shell.say("ls kept")
        check(shown.split() in ([], ["two"], ["one"], ["one", "two"]), f"not what was made: {shown}")
        check(shell.end() == IMPOSSIBLE, "an end by a signal is no error")
    mounting.clean(verbs.image)


def told_to_end(verbs):
    """A signal ends the shell whenever it comes: while it waits for a line, and just before."""
    for number in range(30):
        with subprocess.Popen([verbs.program, "shell", verbs.image], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              text=True) as shell:
            shell.stdin.write("pwd\n")
            shell.stdin.flush()
            check(shell.stdout.readline() == "/\n", "pwd")
            ending = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)[number % 3]
            shell.send_signal(ending)
            try:
                check(shell.wait(30) == -ending, f"{shell.returncode} after {ending}")
            finally:
                shell.kill()


def typed(verbs):
    """On a terminal a command that fails ends nothing, what was typed is durable, and `exit` says the code."""
    pid, terminal = mounting.start_in_terminal(verbs.program, "shell", verbs.image)
    shown = b""

    def until(text, start):
        nonlocal shown
        while text not in shown[start:]:
            piece = os.read(terminal, 4096)
            check(piece, f"the shell has ended: {shown!r}")
            shown += piece

    until(b"> ", 0)
    for line, answer in ((b"cat missing", b"No such file or directory"), (b"nothing", b"unknown command"), (b"mkdir typed", b"> "),
                         (b"ls -l", b" typed"), (b"cd typed", b"typed> ")):
        start = len(shown)
        os.write(terminal, line + b"\n")
        until(answer, start)
    os.write(terminal, b"exit 7\n")
    try:
        while piece := os.read(terminal, 4096):
            shown += piece
    except OSError:  # the other side is closed
        pass
    os.close(terminal)
    check(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7, f"exit 7: {shown!r}")
    check("typed" in verbs("ls", ":/"), "what was typed is lost")


def words(verbs):
    """Words that look like options or like nothing are the names that they are."""
    run(verbs, "mkdir -p -- -dash 'a b' \"it's\" a\\\\b '#c' /there/inner\ntouch -- -dash/-f # said nothing\nmkdir -p -- -r\n")
    names = verbs("ls", ":/").split("\n")
    check({"-dash", "-r", "a b", "it's", "a\\b", "#c"} <= set(names), f"{names}")
    check(verbs("ls", ":/-dash") == "-f\n", "a file in a directory whose name begins with a minus")
    run(verbs, "rm -r -- -dash -r\n")
    run(verbs, "cd there\nrm -r ''\nrm -rf \"\"\n", NO)
    run(verbs, "cd there\ncp '' ..\ncat ''\nmkdir ''\nmv '' x\n", NO)
    check("inner" in verbs("ls", ":/there"), "an empty name was taken for the working directory")


def from_a_file(scratch, verbs):
    """Commands of a file or fifo that is named, with the exit codes of a pipe's; and what is neither."""
    commands = scratch.path("commands.txt")
    commands.write_text("mkdir from-a-file\ncd from-a-file\npwd")
    result = subprocess.run([verbs.program, "shell", verbs.image, commands], input="", capture_output=True, text=True, check=False)
    check(result.stdout == "/from-a-file\n" and result.returncode == FINE, f"{result}")
    check("from-a-file" in verbs("ls", ":/"), "a file's commands were not done")
    for content, expected in (("rm -r from-a-file\n", FINE), ("cat missing\nls\n", NO), ("bogus\n", IMPOSSIBLE)):
        commands.write_text(content)
        code = subprocess.run([verbs.program, "shell", verbs.image, commands], capture_output=True, check=False).returncode
        check(code == expected, f"{content!r} of a file: {code}, not {expected}")
    verbs("shell", verbs.image, scratch.path("nothing"), status=IMPOSSIBLE, says="No such file")
    verbs("shell", verbs.image, scratch.folder, status=IMPOSSIBLE, says="cannot be read")
    fifo = scratch.path("fifo")
    os.mkfifo(fifo)
    with subprocess.Popen([verbs.program, "shell", verbs.image, fifo], stdout=subprocess.PIPE, text=True) as shell:
        with open(fifo, "w", encoding="ascii") as pipe:
            pipe.write("cd there\npwd\n")
        told = shell.communicate(timeout=60)[0]
    check(told == "/there\n" and shell.returncode == FINE, f"by a fifo: {told!r}")


def test(scratch):
    verbs = prepare(scratch)
    codes(verbs)
    one_mount(verbs)
    alone(verbs)
    words(verbs)
    from_a_file(scratch, verbs)
    looks(scratch, verbs)
    locks(verbs)
    replaced(scratch, verbs)
    ended_worker(verbs)
    told_to_end(verbs)
    typed(verbs)
    mounting.clean(verbs.image)


if __name__ == "__main__":
    mounting.main(test)
