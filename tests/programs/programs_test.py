#!/usr/bin/env python3
"""Programs that lean on a file system do their work in a mount: git, tar, SQLite, rsync.

Usage: programs_test.py PROGRAM
"""

import os
import pathlib
import sqlite3
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "mount"))
import mounting  # noqa: E402  (lies in the folder beside)
from mounting import check, run  # noqa: E402


def make_sources(top):
    """A tree of a few hundred files, directories, links."""
    for folder in range(12):
        directory = top / f"folder{folder}" / "inner"
        directory.mkdir(parents=True)
        for number in range(30):
            (directory / f"file{number}").write_text(f"line {folder}\n" * (number * number + 1), encoding="ascii")
        os.symlink("inner/file1", directory.parent / "symlink")
        os.link(directory / "file2", directory.parent / "hard link")
    (top / "program").write_text("#!/bin/sh\n", encoding="ascii")
    (top / "program").chmod(0o755)


def without_inodes(found):
    """The tree as a copy has it: numbers of inodes and sizes of directories are the copy's own."""
    return {path: {key: value for key, value in entry.items()
                   if key != "inode" and not (key == "size" and entry["mode"].startswith("0o4"))}
            for path, entry in found.items()}


def git(top):
    repository = top / "repository"
    repository.mkdir()
    make_sources(repository)
    environment = {**os.environ, "HOME": str(repository), "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}
    for name in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{name}_NAME": "Test", f"GIT_{name}_EMAIL": "test@example.org"}

    def call(*words):
        return run("git", "-C", repository, *words, env=environment).stdout

    call("init", "-q")
    # Without these git asks the disk for nothing, and there would be little to test.
    call("config", "core.fsync", "all")
    call("config", "core.fsyncMethod", "fsync")
    for round_ in range(5):
        (repository / "changing").write_text(f"round {round_}\n" * 1000, encoding="ascii")
        call("add", "-A")
        call("commit", "-q", "-m", f"round {round_}")
    call("checkout", "-q", "-b", "other", "HEAD~2")
    (repository / "of other").write_text("other\n", encoding="ascii")
    call("add", "-A")
    call("commit", "-q", "-m", "other")
    call("gc", "-q", "--prune=now")
    call("fsck", "--full", "--strict")
    check(call("status", "--porcelain") == "", "git sees changes where there are none")
    check(call("rev-list", "--all", "--count").strip() == "6", "git has lost commits")
    run("git", "clone", "-q", repository, top / "clone", env={**environment, "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"})


def tar(top, outside):
    """Into the mount, and out of it again."""
    sources = outside / "sources"
    sources.mkdir()
    make_sources(sources)
    expected = without_inodes(mounting.tree(sources, xattrs=False))
    run("tar", "-C", sources, "--format=posix", "-cf", outside / "in.tar", ".")
    inside = top / "untarred"
    inside.mkdir()
    run("tar", "-C", inside, "-xpf", outside / "in.tar")
    mounting.same_tree(expected, without_inodes(mounting.tree(inside, xattrs=False)), "tar into the mount")
    run("tar", "-C", inside, "--format=posix", "-cf", top / "out.tar", ".")
    back = outside / "back"
    back.mkdir()
    run("tar", "-C", back, "-xpf", top / "out.tar")
    mounting.same_tree(expected, without_inodes(mounting.tree(back, xattrs=False)), "tar out of the mount")
    return expected


def rsync(top, outside, expected):
    # rsync leaves a time alone that differs by less than a second, unless told to look at nanoseconds.
    run("rsync", "-aH", "--modify-window=-1", f"{outside}/sources/", top / "rsynced")
    mounting.same_tree(expected, without_inodes(mounting.tree(top / "rsynced", xattrs=False)), "rsync into the mount")
    (outside / "sources" / "program").write_text("#!/bin/sh\nexit 1\n", encoding="ascii")
    os.unlink(outside / "sources" / "folder3" / "symlink")
    run("rsync", "-aH", "--delete", "--inplace", f"{outside}/sources/", top / "rsynced")
    again = run("rsync", "-aHic", "--delete", f"{outside}/sources/", top / "rsynced").stdout
    check(again == "", f"rsync has something left to do:\n{again}")


def sqlite(top, mode):
    path = top / f"database.{mode}"
    writer = sqlite3.connect(path, isolation_level=None)
    got = writer.execute(f"PRAGMA journal_mode={mode}").fetchone()[0]
    check(got == mode, f"SQLite takes journal mode {got}, not {mode}")
    writer.execute("PRAGMA synchronous=FULL")
    writer.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT)")
    reader = sqlite3.connect(path)
    total = 0
    for round_ in range(20):
        writer.execute("BEGIN")
        writer.executemany("INSERT INTO t (text) VALUES (?)", ((f"{round_} {n} " * 20,) for n in range(200)))
        writer.execute("ROLLBACK" if round_ % 5 == 4 else "COMMIT")
        total += 0 if round_ % 5 == 4 else 200
        check(reader.execute("SELECT count(*) FROM t").fetchone()[0] == total, f"{mode}: another count than {total}")
    writer.execute("DELETE FROM t WHERE id % 3 = 0")
    reader.close()
    writer.execute("VACUUM")
    writer.close()
    return path


def intact(path):
    database = sqlite3.connect(path)
    check(database.execute("PRAGMA integrity_check").fetchone()[0] == "ok", f"{path}: the database is damaged")
    rows = database.execute("SELECT count(*) FROM t").fetchone()[0]
    database.close()
    return rows


def test(scratch):
    mounting.need("git", "tar", "rsync")
    outside = scratch.path("outside")
    outside.mkdir()
    image = scratch.image("image", "256M")
    directory = scratch.mount(image)
    git(directory)
    rsync(directory, outside, tar(directory, outside))
    databases = [sqlite(directory, mode) for mode in ("delete", "wal")]
    rows = [intact(path) for path in databases]
    expected = mounting.tree(directory)
    scratch.umount(directory)
    mounting.clean(image)
    directory = scratch.mount(image)
    mounting.same_tree(expected, mounting.tree(directory), "before and after")
    check([intact(path) for path in databases] == rows, "the databases have other rows after a new mount")
    run("git", "-c", "safe.directory=*", "-C", directory / "repository", "fsck", "--full")
    scratch.umount(directory)
    mounting.clean(image)


if __name__ == "__main__":
    mounting.main(test)
