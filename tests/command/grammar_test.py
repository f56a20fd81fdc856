#!/usr/bin/env python3
"""What words name, in every verb, and what is refused; verbs over several places go on after a failure.

Judged by e2fsck. Usage: grammar_test.py PROGRAM
"""

import os
import pathlib
import subprocess

from verbs import FINE, IMPOSSIBLE, NO, Verbs, check, digest, mounting, prepare


class Program:
    """The program in a folder of its own, with words as they are."""

    def __init__(self, scratch, folder):
        self.program, self.folder = scratch.program, folder

    def __call__(self, *words, status=FINE, says="", standard_input=None):
        result = subprocess.run([self.program, *map(str, words)], capture_output=True, text=True, check=False, cwd=self.folder,
                                input=standard_input)
        check(result.returncode == status, f"{words}: {result.returncode}, not {status}\n{result.stdout}{result.stderr}")
        for part in (says,) if isinstance(says, str) else says:
            check(part in result.stderr, f"{words}: {result.stderr!r} does not say {part!r}")
        check(status == FINE or result.stderr.startswith(f"uext4 {words[0]}: "), f"{words}: {result.stderr!r}")
        return result.stdout

    def shell(self, image, lines, status=FINE, says=""):
        result = subprocess.run([self.program, "shell", image], input=lines, capture_output=True, text=True, check=False,
                                cwd=self.folder)
        check(result.returncode == status, f"{lines!r}: {result.returncode}, not {status}\n{result.stdout}{result.stderr}")
        check(says in result.stderr, f"{lines!r}: {result.stderr!r} does not say {says!r}")
        return result.stdout


def leaving_the_image(run):
    """mv and ln stay in the image: a path of the host is refused, with the word to use, and changes nothing."""
    before = digest(run.folder / "a.img"), sorted(os.listdir(run.folder))
    for verb in ("mv", "ln"):
        run(verb, "a.img:/f", "out.txt", status=IMPOSSIBLE, says=(":/out.txt", "cp copies to the host"))
        run(verb, "a.img:/f", "/b", status=IMPOSSIBLE, says="write :/b for")
        run(verb, "a.img:/f", "a.img", status=IMPOSSIBLE, says="host")
        run(verb, "a.img:/f", "b.img:/f", status=IMPOSSIBLE, says=("a.img:/f and b.img:/f", "cp copies between images"))
        run(verb, "f", "a.img:/b", status=IMPOSSIBLE, says="write IMAGE:/path")
        run(verb, "-f", "-T", "a.img:/f", "-", status=IMPOSSIBLE, says="standard")
    run("ln", "-s", "text", "/b", status=IMPOSSIBLE, says="write IMAGE:/path")
    run("ln", "-s", "a.img:/f", ":/b", status=IMPOSSIBLE, says="write IMAGE:/b")
    check((digest(run.folder / "a.img"), sorted(os.listdir(run.folder))) == before, "what was refused was done")


def the_operand_before(run):
    """`:/b` is in the image of the operand before it."""
    run("mkdir", "a.img:/chain", ":/chain/one", ":/chain/two")
    check(run("ls", "a.img:/chain").split() == ["one", "two"], "mkdir with :/path")
    run("cp", "a.img:/f", ":/chain/f")
    run("cp", "a.img:/f", "b.img:/f", ":/g", status=NO, says="b.img:/g: No such file")  # several sources need a directory
    run("mv", "a.img:/chain/f", ":/chain/g")
    run("ln", "a.img:/chain/g", ":/chain/h")
    check(run("ls", "a.img:/chain").split() == ["g", "h", "one", "two"], "mv and ln with :/path")
    run("rm", "-r", "a.img:/chain/one", ":/chain")
    for words in (("ls", ":/"), ("rm", ":/f"), ("mv", ":/f", ":/g"), ("cp", ":/f", "out"), ("cat", ":/f"), ("truncate", "-s", "0", ":/f"),
                  ("stat", ":<2>"), ("check", ":/")):
        run(*words, status=IMPOSSIBLE, says="write IMAGE:")
    run("cp", "host", ":/g", status=IMPOSSIBLE, says="in none; write IMAGE:/g")
    check(run("ls", "b.img") == run("ls", "b.img:/"), "an image alone is its root")
    run("rm", "b.img", ":/x", status=IMPOSSIBLE, says=("b.img:/: ", "b.img:/x: "))


PREFIXES = ("nbd://server/d", "nbds://server/d", "nbd+unix:///d?socket=s", "https://server/d.img", "rbd:pool/d", "qcow2:d.qcow2",
            "vmdk:d.vmdk", "vhd:d.vhd", "vhdx:d.vhdx", "vdi:d.vdi", "exec:cat a.img", "oci:layout", "oci-archive:a.tar",
            "docker-archive:a.tar", "mtree:tree")


def prefixes(run):
    """Words with a prefix are of its kind in every verb, and say what to do instead; a file of that name is ./it."""
    for word in PREFIXES:
        for verb in ("ls", "cat", "rm", "mkdir", "chmod 755", "truncate -s 0", "info", "check", "label", "journal", "replay", "touch"):
            for path in ("", ":/f"):
                run(*verb.split(), word + path, status=IMPOSSIBLE, says=("not available in this build", f"written ./{word}"))
        for words in (("cp", word, "a.img:/x"), ("cp", "a.img:/f", word), ("cp", f"{word}:/f", "."), ("mv", f"{word}:/f", ":/g"),
                      ("mv", "a.img:/f", f"{word}:/f"), ("mount", word, "folder"), ("shell", word)):
            run(*words, status=IMPOSSIBLE, says=("not available in this build", f"written ./{word}"))
    (run.folder / "oci:x").write_text("of the host")
    run("cp", "./oci:x", "a.img:/of the host")
    check(run("cat", "a.img:/of the host") == "of the host", "./oci:x")
    (run.folder / "nbd:").mkdir()
    os.link(run.folder / "a.img", run.folder / "nbd:/a.img")
    check(run("cat", "./nbd:/a.img:/of the host") == "of the host", "./nbd:/a.img:/path")


def longest(run):
    """The image is the longest part before `:/` that exists; what looks like one and is none is told."""
    (run.folder / "b.img:").mkdir()
    os.link(run.folder / "a.img", run.folder / "b.img:/c")
    check("f" in run("ls", "b.img:/c:/").split(), "the longer one")
    run("ls", "b.img:/c", status=NO, says="b.img:/c: ")
    run("cp", "none.img:/f", "a.img:/x", status=IMPOSSIBLE, says="none.img: there is no such image")
    run("cp", "a.img:/f", "none.img:/f", status=IMPOSSIBLE, says="none.img: there is no such image")
    run("ls", "none.img:/f", status=IMPOSSIBLE, says="uext4 ls: none.img: No such file")
    run("cp", "a.img:f", "x", status=IMPOSSIBLE, says="a.img:/f")
    run("ls", "a.img:", status=IMPOSSIBLE, says="a.img:/")
    run("cp", "folder:/f", "a.img:/x", status=IMPOSSIBLE, says="folder: is a directory")
    run("check", "a.img:/f", status=IMPOSSIBLE, says="whole image")
    run("check", "a.img:/")
    for words in (("ls", "-"), ("rm", "-"), ("check", "-")):
        run(*words, status=IMPOSSIBLE, says="-: ")
    run("ls", "", status=IMPOSSIBLE)


def in_a_shell(run):
    """Bare words are paths of the image whatever they look like, and host: is the host."""
    (run.folder / "out").unlink(missing_ok=True)
    run.shell("a.img", "mkdir s\ncd s\nmkdir oci:x a.img: -p\ncp ../f a.img:/f\ncp ../f -\ncp a.img:/f host:out\nln -s /b text\nmv - m\n"
                       "ln -s :/x colon\nln -s host:x host\n")
    check(run("ls", "a.img:/s").split() == ["a.img:", "colon", "host", "m", "oci:x", "text"], run("ls", "a.img:/s"))
    check((run.folder / "out").read_text() == run("cat", "a.img:/f"), "cp to host:")
    for name, text in (("colon", ":/x"), ("host", "host:x"), ("text", "/b")):
        check(f"{name} -> {text}\n" in run("ls", "-l", "a.img:/s"), f"the text of {name}")
    listed = run("ls", "a.img:/s")
    check(run.shell("a.img", "cd s\nls\n") == listed and run.shell("a.img", "ls s\n") == listed, "the working directory")
    check(run.shell("a.img", "cd s\nchmod -x m\nchmod u+x m\nls -l m\n").count("-rwx") == 1, "a change with a minus")
    for line, told in (("rm host:out", "host:out: is on the host, where only cp goes"), ("mv m host:out", "cp copies to the host"),
                       ("mv m :/b", ":/b: in a shell"), ("cp host: m", "host:/etc/hostname"), ("cat host:-", "host:-: "),
                       ("cp host:nbd://x m", "not available"), ("ls host:b.img:/", "only cp goes"), ("touch -r host:out m", "cannot look at")):
        run.shell("a.img", f"cd s\n{line}\n", IMPOSSIBLE, told)
    run.shell("a.img", "cp s/m host:b.img:/from\ncp f host:other\n")
    check((run.folder / "other").exists() and "from" in run("ls", "b.img").split(), "another image")
    run("rm", "b.img:/from")
    run.shell("a.img", "rm -r s\n")
    # The options of the shell are no changes of a mode.
    result = subprocess.run([run.program, "shell", "-o", "noatime", "a.img"], input="chmod 600 f\nchmod -r f\nls -l f\n",
                            capture_output=True, text=True, check=True, cwd=run.folder)
    check("--w-------" in result.stdout, f"{result}")


def going_on(run):
    """What fails is told, the others are done, and the exit code is the worst."""
    run("mkdir", "a.img:/on", ":/on", ":/none/x", ":/on/1", ":/on/2", status=NO, says=("a.img:/on: ", "a.img:/none: "))
    run("mkdir", "-p", "a.img:/f/x", ":/on/3/4", status=NO, says="a.img:/f")
    run("touch", "a.img:/none/x", ":/on/t", status=NO, says="a.img:/none")
    check(run("ls", "a.img:/on").split() == ["1", "2", "3", "t"], "mkdir and touch go on")
    run("rmdir", "a.img:/on/3", ":/on/none", ":/on/1", status=NO, says=("a.img:/on/3: ", "a.img:/on/none: "))
    run("rm", "a.img:/on/none", ":/on/2", ":/on/t", status=NO, says=("a.img:/on/none: ", "a.img:/on/2: is a directory"))
    check(run("ls", "a.img:/on").split() == ["2", "3"], "rm and rmdir go on")
    run("rm", "-r", "a.img:/none", "none.img:/x", "b.img:/none", "a.img:/on", status=IMPOSSIBLE,
        says=("a.img:/none: ", "none.img: No such file", "b.img:/none: "))
    check("on" not in run("ls", "a.img:/").split(), "rm -r over images")
    run("mkdir", "a.img:/mv")
    run("mv", "a.img:/none", ":/none too", ":/of the host", ":/mv", status=NO, says=("a.img:/none: ", "a.img:/none too: "))
    check(run("ls", "a.img:/mv") == "of the host\n", "mv goes on")
    run("ln", "a.img:/none", ":/f", ":/mv", status=NO, says="a.img:/none: ")
    check(run("ls", "a.img:/mv").split("\n")[0] == "f", "ln goes on")
    run("rm", "-r", "a.img:/mv")


def inside_a_tree(run):
    """rm -r goes on in a tree: what cannot be removed stays, with the directories above it, and is told once."""
    run("mkdir", "-p", "a.img:/t/a/keep", ":/t/b/c", ":/t/z")
    for name in ("a/1", "a/keep/stays", "a/keep/goes", "b/2", "y"):
        run("cp", "host", f"a.img:/t/{name}")
    run("chattr", "+i", "a.img:/t/a/keep/stays")
    run("chattr", "+i", "a.img:/t/y")
    result = subprocess.run([run.program, "rm", "-r", "a.img:/t"], capture_output=True, text=True, check=False, cwd=run.folder)
    check(result.returncode == NO, f"{result}")
    told = sorted(result.stderr.splitlines())
    check(len(told) == 2 and told[0].startswith("uext4 rm: a.img:/t/a/keep/stays: ") and told[1].startswith("uext4 rm: a.img:/t/y: "),
          f"{told}")
    check(run("tree", "a.img:/t").split() == ["/t", "|--", "a", "|", "`--", "keep", "|", "`--", "stays", "`--", "y"],
          run("tree", "a.img:/t"))
    run("chattr", "-i", "a.img:/t/a/keep/stays")
    run("chattr", "-i", "a.img:/t/y")
    run("rm", "-r", "a.img:/t")
    check("t" not in run("ls", "a.img").split(), "rm -r of what is left")


def options(run):
    """An unknown option is the one that the message names; help VERB is VERB --help."""
    for words, named in ((("rm", "-z", "a.img:/f"), "-z"), (("rm", "a.img:/f", "--unheard"), "--unheard"), (("ls", "-lZ", "a.img"), "-Z"),
                         (("truncate", "--siez", "5", "a.img:/f"), "--siez"), (("mv", "a.img:/f", "-q", ":/g"), "-q"),
                         (("cp", "-y", "a.img:/f"), "-y"), (("info", "-q"), "-q")):
        run(*words, status=IMPOSSIBLE, says=f"uext4 {words[0]}: unknown option '{named}'")
    check(run("cat", "a.img:/f") == (run.folder / "host").read_text(), "a line with an unknown option was done")
    for verb in ("cp", "help", "mount"):
        check(run("help", verb) == run(verb, "--help"), f"help {verb}")
    check(run("help") == run("--help"), "help")
    check(run.shell("a.img", "help rm\n") == run("rm", "--help"), "help in a shell")
    result = subprocess.run([run.program, "help", "unheard"], capture_output=True, text=True, check=False)
    check(result.returncode == IMPOSSIBLE and "'unheard'" in result.stderr, f"{result}")


def test(scratch):
    prepare(scratch)
    folder = scratch.path("folder")
    folder.mkdir()
    for name in ("a.img", "b.img"):
        scratch.image(name, "16M", "-t", "ext4").rename(folder / name)
    (folder / "host").write_text("contents")
    (folder / "folder").mkdir()
    run = Program(scratch, folder)
    run("cp", "host", "a.img:/f")
    leaving_the_image(run)
    the_operand_before(run)
    prefixes(run)
    longest(run)
    in_a_shell(run)
    going_on(run)
    inside_a_tree(run)
    options(run)
    for name in ("a.img", "b.img"):
        mounting.clean(folder / name)


if __name__ == "__main__":
    mounting.main(test)
