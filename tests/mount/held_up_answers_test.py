#!/usr/bin/env python3
"""What the kernel does with an answer may wait for another answer: nobody hangs.

It locks the pages of a direct read's buffer, which may be a map of a file that somebody else makes it write back, with
such a lock held. It closes a file that was let go with a direct request under way, and writes back what it holds of it.
(What it has read into a page that somebody makes it drop meanwhile is lost; docs/MOUNT.md.)

Usage: held_up_answers_test.py PROGRAM
"""

import ctypes
import fcntl
import mmap
import os
import signal
import struct
import subprocess
import sys
import time

import mounting
from mounting import check

SIZE, PIECE = 1 << 20, 65_536
PATIENCE = 100
GETFLAGS, SETFLAGS, NOATIME = 0x80086601, 0x40086602, 0x80
FREEZE = 0x5540  # UEXT4_IOC_FREEZE: _IO('U', 0x40)
COARSE = 5  # CLOCK_REALTIME_COARSE, which times of files are taken from


def read_into_a_map(top, rounds, half):
    """Stores to a map of one file and reads another one into it, in a half of its own."""
    fd = os.open(top / "mapped", os.O_RDWR)
    direct = os.open(top / "read", os.O_RDONLY | os.O_DIRECT)
    memory = mmap.mmap(fd, SIZE)
    for turn in range(rounds):
        first = half * SIZE // 2
        for page in range(first, first + SIZE // 2, 4096):
            memory[page] = turn % 251
        at = first + turn % (SIZE // 2 // PIECE) * PIECE
        with memoryview(memory) as view, view[at:at + PIECE] as into:
            if os.preadv(direct, [into], 0) != PIECE:
                sys.exit("a short read")


def seek(top, rounds, _):
    fd = os.open(top / "mapped", os.O_RDWR)
    for turn in range(rounds * 4):
        os.lseek(fd, 0, os.SEEK_DATA if turn % 2 else os.SEEK_HOLE)


def write_from_a_map(top, rounds, _):
    """Direct writes from the map, syncs, truncations, and flags that make the kernel drop what it has."""
    fd = os.open(top / "mapped", os.O_RDWR)
    out = os.open(top / "written", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    memory = mmap.mmap(fd, SIZE)
    for turn in range(rounds):
        with memoryview(memory) as view, view[:PIECE] as piece:
            os.pwritev(out, [piece], 0)
        os.fsync(fd)
        flags = struct.unpack("i", fcntl.ioctl(fd, GETFLAGS, bytes(4)))[0]
        fcntl.ioctl(fd, SETFLAGS, struct.pack("i", flags ^ NOATIME))


def map_what_was_cached_before(top, rounds, number):
    """The file is open for direct requests only; its pages came by another descriptor, or before O_DIRECT was set."""
    name = top / f"cached {number}"
    name.write_bytes(b"c" * SIZE)
    reader = os.open(name, os.O_RDONLY)
    for turn in range(rounds // 20):
        os.pread(reader, SIZE, 0)
        fd = os.open(name, os.O_RDWR | os.O_DIRECT)
        if turn % 2:
            fcntl.fcntl(fd, fcntl.F_SETFL, 0)
            os.pwrite(fd, b"d" * SIZE, 0)
        memory = mmap.mmap(fd, SIZE)
        direct = os.open(top / "read", os.O_RDONLY | os.O_DIRECT)
        pid = os.fork()
        for _ in range(20):
            if pid == 0:
                os.lseek(fd, 0, os.SEEK_DATA)
            else:
                for page in range(0, SIZE, 4096):
                    memory[page] = turn % 251
                with memoryview(memory) as view, view[:SIZE // 2] as into:
                    os.preadv(direct, [into], 0)
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        memory.close()
        os.close(fd)
        os.close(direct)


def let_go_while_frozen(top, rounds, number):
    """The same, of requests that a freeze keeps waiting: they are answered one behind the other after the thaw."""
    let_go_with_writes_under_way(top, 4 * 20, number, frozen=True)


def let_go_with_writes_under_way(top, rounds, _, frozen=False):
    """Asynchronous direct writes whose descriptor is closed before they have ended, and a page that is dirtied then."""
    system = ctypes.CDLL(None, use_errno=True)
    setup, getevents, submit = 206, 208, 209  # x86-64
    count, length = (8, 65_536) if frozen else (16, 1 << 20)
    context = ctypes.c_ulong(0)
    if system.syscall(setup, count, ctypes.byref(context)) != 0:
        sys.exit("io_setup")
    buffer = mmap.mmap(-1, length)
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    root = os.open(top, os.O_RDONLY)
    held = os.open(top / "asynchronous", os.O_RDWR | os.O_CREAT)
    os.pwrite(held, bytes(length * (count + 1)), 0)
    for turn in range(max(rounds // 20, 1)):
        os.fsync(held)
        fd = os.open(top / "asynchronous", os.O_RDWR | os.O_DIRECT)
        time.sleep(0.012)  # the times of what comes are others
        thaw = None
        if frozen:
            thaw = subprocess.Popen(["sh", "-c", 'sleep 0.8; exec "$0" thaw "$1"', sys.argv[1], top])
            time.sleep(0.1)  # it has no descriptor of ours any more
            now = time.clock_gettime(COARSE)
            while time.clock_gettime(COARSE) == now:
                pass
            # All in one tick of the clock: the close has no times to send, for which it would wait.
            os.preadv(fd, [memoryview(buffer)[:4096]], 0)
            os.pwritev(fd, [memoryview(buffer)[:4096]], 0)
            os.fsync(fd)
            fcntl.ioctl(root, FREEZE)
        requests = [ctypes.create_string_buffer(struct.pack("<QIIHhIQQqQII", 0, 0, 0, 1, 0, fd, address, length,
                                                            number * length, 0, 0, 0), 64) for number in range(count)]
        pointers = (ctypes.c_void_p * count)(*[ctypes.addressof(one) for one in requests])
        if system.syscall(submit, context, count, pointers) != count:
            sys.exit("io_submit")
        os.close(fd)
        os.pwrite(held, b"x", count * length + turn)
        if frozen:
            system.sync_file_range(held, ctypes.c_longlong(count * length), ctypes.c_longlong(4096), 2)
        events = ctypes.create_string_buffer(32 * count)
        if system.syscall(getevents, context, count, count, events, None) != count:
            sys.exit("io_getevents")
        if thaw and thaw.wait() != 0:
            sys.exit("thaw")


def together(top, rounds, works):
    children = []
    for number, work in enumerate(works):
        pid = os.fork()
        if pid == 0:
            try:
                work(top, rounds, number)
            except BaseException as error:  # noqa: BLE001  (a child says why, and ends)
                print(f"{work.__name__}: {error!r}", file=sys.stderr)
                os._exit(1)
            os._exit(0)
        children.append(pid)
    limit = time.monotonic() + PATIENCE * (10 if mounting.is_long() else 1)
    states = {}
    while len(states) < len(children) and time.monotonic() < limit:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            states[pid] = status
        else:
            time.sleep(0.05)
    if len(states) < len(children):
        # Nothing but this ends requests that wait for each other in the kernel.
        subprocess.run(["umount", "-f", top], check=False)
        hang = [work.__name__ for pid, work in zip(children, works) if pid not in states]
        for pid in children:
            if pid not in states:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        raise mounting.Failure(f"hang: {hang}")
    check(not any(states.values()), f"ended with {sorted(states.values())}")


def stopped_while_held_up(scratch, image):
    """The server ends though its users go on, and hold its answers up: after two signals nobody is waited for."""
    for turn in range(24 if mounting.is_long() else 6):
        top = scratch.mount(image)
        pid = scratch.servers.pop(top)
        connection = mounting.Connection(scratch, top)
        children = []
        for number, work in enumerate([read_into_a_map, read_into_a_map, seek, write_from_a_map]):
            child = os.fork()
            if child == 0:
                try:
                    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                    work(top, 1 << 30, number)
                except BaseException:  # noqa: BLE001  (the mount is gone: what this is about)
                    pass
                os._exit(0)
            children.append(child)
        time.sleep(0.2 + 0.05 * turn)
        for _ in range(2):
            os.kill(pid, signal.SIGTERM)
            time.sleep(0.1)
        limit = time.monotonic() + 20
        while not (ended := scratch.has_ended(pid)) and time.monotonic() < limit:
            time.sleep(0.02)
        if not ended:
            connection.abort()
        for child in children:
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                pass
            os.waitpid(child, 0)
        connection.close()
        check(ended, f"the server lives on (turn {turn})")
        mounting.clean(image)
    print("stopped while answers were held up: ended", flush=True)


def test(scratch):
    image = scratch.image("image", "128M")
    top = scratch.mount(image)
    for name, byte in (("mapped", b"m"), ("read", b"r")):
        (top / name).write_bytes(byte * SIZE)
    rounds = 2000 if mounting.is_long() else 200
    together(top, rounds, [read_into_a_map, read_into_a_map, seek, write_from_a_map])
    together(top, rounds, [map_what_was_cached_before, map_what_was_cached_before])
    if os.uname().machine == "x86_64":
        together(top, rounds, [let_go_with_writes_under_way])
        together(top, rounds, [let_go_while_frozen])
    scratch.umount(top)
    mounting.clean(image)
    stopped_while_held_up(scratch, image)


if __name__ == "__main__":
    mounting.main(test)
