#!/usr/bin/env python3
"""What was synced is there after the server was killed, whoever recovers the image.

A writer changes files in a mount and notes outside of it what was acknowledged; the server is killed at a random moment.
Then one copy of the image is recovered by the program, one by a mount of the kernel, one by e2fsck, and each must be
faultless and hold what was acknowledged, and all three be the same to the last time and the number of free blocks.
UEXT4_LONG=1 does it a hundred times.

Usage: kill_test.py PROGRAM
"""

import json
import os
import pathlib
import random
import signal
import sys
import time

for folder in ("mount", "recovery"):
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / folder))
import comparing  # noqa: E402
import mounting  # noqa: E402  (lies in the folder beside)
from mounting import check  # noqa: E402

FILES = 12
FORMATS = (("-t", "ext4"), ("-t", "ext4", "-b", "1024"), ("-t", "ext4", "-O", "orphan_file"))


def bytes_of(seed, length):
    return random.Random(seed).randbytes(length)


def pieces_content(pieces):
    """The content that a list of [offset, seed, length] makes, written one after the other."""
    content = bytearray()
    for offset, seed, length in pieces:
        content[offset:offset + length] = bytes_of(seed, length)
    return bytes(content)


def synced(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_synced(path, offset, content):
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        while content:
            done = os.pwrite(fd, content, offset)
            content, offset = content[done:], offset + done
        os.fsync(fd)
    finally:
        os.close(fd)


def writer(directory, log, seed):
    """Changes files until the mount dies. A line of the log before each change says what is tried, one after it that it
    was acknowledged: {"file": .., "kind": .., "pieces": what the file then consists of}."""
    choice = random.Random(seed)
    state = {}
    note = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nameless = os.open(directory / "nameless", os.O_RDWR | os.O_CREAT, 0o600)
    os.write(nameless, bytes(300000))
    os.unlink(directory / "nameless")
    step = 0
    while True:
        step += 1
        name = f"file{choice.randrange(FILES)}"
        pieces = state.get(name, [])
        size = max((offset + length for offset, _, length in pieces), default=0)
        kind = choice.choice(("append", "append", "overwrite", "replace")) if 0 < size < 400000 else "replace"
        length = choice.choice((1, 100, 4096, 5000, 40000, 100000))
        offset = choice.randrange(size) if kind == "overwrite" else size if kind == "append" else 0
        piece = [offset, seed * 1000003 + step, length]
        wanted = [piece] if kind == "replace" else pieces + [piece]
        line = {"file": name, "kind": kind, "pieces": wanted}
        os.write(note, (json.dumps({"begin": line}) + "\n").encode())
        if kind == "replace":
            write_synced(directory / f"{name}.new", 0, b"")
            os.truncate(directory / f"{name}.new", 0)
            write_synced(directory / f"{name}.new", 0, bytes_of(piece[1], length))
            os.rename(directory / f"{name}.new", directory / name)
            synced(directory)
        else:
            write_synced(directory / name, offset, bytes_of(piece[1], length))
        os.write(note, (json.dumps({"done": line}) + "\n").encode())
        state[name] = wanted
        # Things that nobody waits for, so that transactions are open when the server dies.
        scrap = directory / f"scrap{step}"
        scrap.mkdir()
        (scrap / "file").write_bytes(b"scrap" * choice.randrange(3000))
        if step > 5:
            old = directory / f"scrap{step - 5}"
            os.unlink(old / "file")
            old.rmdir()


def start_writer(directory, log, seed):
    child = os.fork()
    if child:
        return child
    status = 3
    try:
        # Relative paths stay in the mount: below the lazily unmounted path lies a folder that would take writes.
        os.chdir(directory)
        writer(pathlib.Path("."), log, seed)
    except OSError as error:
        print(f"  the writer ended: {error}", flush=True)
        status = 0
    finally:
        os._exit(status)


def read_log(log):
    """({file: pieces acknowledged}, the change under way or None)."""
    acknowledged = {}
    under_way = None
    for line in log.read_text(encoding="ascii").splitlines() if log.exists() else ():
        entry = json.loads(line)
        under_way = entry.get("begin")
        if "done" in entry:
            acknowledged[entry["done"]["file"]] = entry["done"]["pieces"]
    return acknowledged, under_way


def verify(directory, acknowledged, under_way, what):
    for name, pieces in acknowledged.items():
        expected = pieces_content(pieces)
        check((directory / name).exists(), f"{what}: {name} is missing")
        got = (directory / name).read_bytes()
        if under_way and under_way["file"] == name:
            new = pieces_content(under_way["pieces"])
            if under_way["kind"] == "replace":
                check(got in (expected, new), f"{what}: {name} is neither the old nor the new one")
                continue
            # Only what the change under way writes may be new.
            start, _, length = under_way["pieces"][-1]
            check(len(expected) <= len(got) <= max(len(expected), len(new)), f"{what}: {name} has {len(got)} bytes")
            check(got[:start] == expected[:start], f"{what}: {name} has changed before byte {start}")
            end = start + length
            check(got[end:len(expected)] == expected[end:], f"{what}: {name} has changed after byte {end}")
            continue
        check(got == expected, f"{what}: {name} has {len(got)} bytes and is not what was synced, {len(expected)} bytes")
    check(not (directory / "nameless").exists(), f"{what}: an unlinked file is back")


def one_round(scratch, number, choice):
    data = ("ordered", "journal")[number % 2]
    image = scratch.image("image", "64M", *FORMATS[number // 2 % len(FORMATS)])
    log = scratch.path("log")
    log.unlink(missing_ok=True)
    directory = scratch.mount(image, options=f"data={data}")
    child = start_writer(directory, log, number + 1)
    try:
        time.sleep(choice.uniform(0.05, 0.6))
        if os.waitpid(child, os.WNOHANG)[0]:
            child = 0
            raise mounting.Failure("the writer ended while the server was alive")
        scratch.kill(directory)
        limit = time.monotonic() + 10
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
            check(time.monotonic() < limit, "the writer hangs in a mount whose server is dead")
            time.sleep(0.01)
        child = 0
        check(os.waitstatus_to_exitcode(ended[1]) == 0, "the writer failed by itself")
    finally:
        if child:
            os.kill(child, signal.SIGKILL)
    acknowledged, under_way = read_log(log)

    ours, kernels, checkers = (mounting.copy_image(image, scratch.path(name)) for name in ("ours", "kernels", "checkers"))
    mounting.run(scratch.program, "replay", ours)
    mounting.clean(ours)
    seen = scratch.kernel_mount(kernels)
    scratch.kernel_umount(seen)
    mounting.clean(kernels)
    # Without -f: that would check and mend everything, not only the log and the orphans.
    mounting.run("e2fsck", "-y", "-E", "journal_only", checkers, accept=(0, 1))
    comparing.clean_after_journal_only(checkers)
    mounting.run("e2fsck", "-fy", checkers, accept=(0, 1))  # the superblock's counts, which no log keeps up to date
    mounting.clean(checkers)
    what = f"round {number}, data={data}"
    for recovered in (ours, kernels, checkers):
        seen = scratch.kernel_mount(recovered, options="ro")
        verify(seen, acknowledged, under_way, f"{what}, {recovered.name}")
        scratch.kernel_umount(seen)
    comparing.same(scratch, ours, kernels, what)
    comparing.same(scratch, checkers, kernels, what, who="e2fsck")
    for path in (image, ours, kernels, checkers):
        os.unlink(path)
    print(f"round {number}, data={data}: {len(acknowledged)} files, "
          f"{sum(map(len, acknowledged.values()))} pieces are as acknowledged", flush=True)
    return sum(map(len, acknowledged.values()))


def test(scratch):
    seed = int(os.environ.get("UEXT4_SEED", time.time_ns() % 1_000_000))
    print(f"UEXT4_SEED={seed}", flush=True)
    choice = random.Random(seed)
    pieces = [one_round(scratch, number, choice) for number in range(100 if mounting.is_long() else 12)]
    # A server that is killed at once has acknowledged nothing; if most were, nothing was tested.
    check(sum(map(bool, pieces)) * 2 > len(pieces), f"of {len(pieces)} rounds most acknowledged nothing: {pieces}")
    check(sum(pieces) > len(pieces), f"hardly anything was acknowledged: {pieces}")


if __name__ == "__main__":
    mounting.main(test)
