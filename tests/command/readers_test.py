#!/usr/bin/env python3
"""Verbs that look leave every byte of an image as it is, with a journal to be replayed as well, which --no-replay does not.

Usage: readers_test.py PROGRAM
"""

import json
import os
import subprocess

from verbs import FINE, IMPOSSIBLE, NO, Verbs, check, digest, mounting


def crashed(scratch):
    """An image whose server was killed after an fsync: a directory, a file and a link are in the journal alone."""
    image = scratch.image("crashed", "32M", "-t", "ext4")
    directory = scratch.mount(image)
    (directory / "dir").mkdir()
    (directory / "dir" / "file").write_text("contents" * 1000)
    os.setxattr(directory / "dir" / "file", "user.a", b"b")
    os.symlink("dir/file", directory / "link")
    for path in (directory / "dir" / "file", directory / "dir", directory):
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
    scratch.kill(directory)
    return Verbs(scratch, image)


def readers(scratch, verbs):
    before = digest(verbs.image)
    image, file, out = verbs.image, ":/dir/file", str(scratch.path("out"))
    for words in (("info", image), ("label", image), ("check", image), ("df", image), ("tree", image), ("ls", "-la", image),
                  ("ls", "-R", image), ("find", image), ("du", image), ("stat", image), ("stat", "-L", ":/link"), ("cat", file), ("fiemap", file), ("lsattr", file),
                  ("getfattr", file), ("cp", "-a", ":/dir", out)):
        inside = str(words[-1]).startswith(":") or words[0] == "cp"
        verbs(*words)
        verbs(words[0], "--no-replay", *words[1:], status=NO if inside else FINE)
        if words[0] not in ("label", "cat", "cp"):
            json.loads(verbs(words[0], "--json", *words[1:]))
        check(digest(verbs.image) == before, f"{words} changed the image")
    json.loads(verbs("journal", "--json", image))
    shown = subprocess.run([verbs.program, "shell", image], input="ls\ncd dir\ncat file\ncheck\nls --no-replay /\n", text=True,
                           capture_output=True, check=True).stdout
    check("contents" in shown and shown.endswith("lost+found\n"), shown[-200:])
    # A change that is refused before it is made, and who looks while nothing may be written.
    verbs("mkdir", "-o", "ro", ":/new", status=IMPOSSIBLE, says="read-only")
    check(digest(verbs.image) == before, "a shell that only looks, or a refusal, changed the image")
    check(json.loads(verbs("replay", "--json", image))["journal_needed_replay"], "there was nothing to replay")
    check(not json.loads(verbs("replay", "--json", image))["journal_needed_replay"], "the replay was not the last")
    mounting.clean(image)


def test(scratch):
    readers(scratch, crashed(scratch))


if __name__ == "__main__":
    mounting.main(test)
