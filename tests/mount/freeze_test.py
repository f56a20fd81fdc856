#!/usr/bin/env python3
"""A mount that is frozen: the image is clean, changes wait for the thaw, what makes durable does not, and it does not nest.

Usage: freeze_test.py PROGRAM
"""

import errno
import fcntl
import os
import select
import shutil
import subprocess
import sys
import time

import mounting
import scattered
from mounting import check

PATIENCE = 20  # seconds for what should take a fraction of one

# In a process of its own: a call that waits in the kernel can only be killed.
SYNC = """
import ctypes, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
if sys.argv[2] == "syncfs":
    sys.exit(0 if ctypes.CDLL(None).syncfs(fd) == 0 else 1)
os.fsync(fd)
"""

IOC_FREEZE, IOC_THAW = 0x5540, 0x5541  # _IO('U', ...)
IOC_MARK, IOC_ARRIVED = 0x80045544, 0x40045545  # _IOR and _IOW, of an int

# Its status is the errno.
ARRIVED = f"""
import fcntl, os, sys
try:
    fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), {IOC_ARRIVED}, bytes.fromhex(sys.argv[2]))
except OSError as error:
    sys.exit(error.errno)
"""

# More than a server would have threads.
WAITING = 60

CHANGE = """
import os, sys
top, number = sys.argv[1], int(sys.argv[2])
kind = number % 5
if kind == 0: os.mkdir(f"{top}/made {number}")
elif kind == 1: os.rename(f"{top}/there/{number}", f"{top}/moved {number}")
elif kind == 2: os.unlink(f"{top}/there/{number}")
elif kind == 3: os.truncate(f"{top}/there/{number}", 3)
else:
    fd = os.open(f"{top}/there/{number}", os.O_WRONLY)
    os.pwrite(fd, b"written", 0)
    os.fsync(fd)
"""

# Copies until it is killed.
COPY = """
import os, sys
source = os.open(f"{sys.argv[1]}/source", os.O_RDONLY)
target = os.open(f"{sys.argv[1]}/target {sys.argv[2]}", os.O_RDWR | os.O_CREAT)
os.write(1, b"o")
while True:
    os.copy_file_range(source, target, 4 << 20, 0, 0)
"""

# A change of bytes, of space or of names, to a file of 64 KiB, that was written to just before or not.
TIMED = """
import ctypes, os, sys
path, change, first = sys.argv[1:]
fd = os.open(path, os.O_RDWR)
if first == "written": os.pwrite(fd, b"y", 0)
if change.startswith("fallocate"):
    mode = int(change.split()[1])
    done = ctypes.CDLL(None).fallocate(fd, mode, ctypes.c_long(0), ctypes.c_long(8192 + (mode == 0) * 65536))
    sys.exit(0 if done == 0 else 1)
elif change == "truncate": os.truncate(path, 5000)
elif change == "ftruncate": os.ftruncate(fd, 5000)
elif change == "copy": os.copy_file_range(fd, fd, 4096, 0, 8192)
elif change == "part": os.copy_file_range(fd, fd, 100, 0, 8190)
elif change == "chmod": os.chmod(path, 0o600)
elif change == "setxattr": os.setxattr(path, "user.a", b"b")
elif change == "link": os.link(path, path + " again")
elif change == "rename": os.rename(path, path + " moved"), os.rename(path + " moved", path)
elif change == "utime": os.utime(path)
elif change == "direct":
    import mmap
    os.pwritev(os.open(path, os.O_RDWR | os.O_DIRECT), [mmap.mmap(-1, 4096)], 0)
"""
CHANGES = [f"fallocate {mode}" for mode in (0, 1, 3, 16, 17)] + [
    "truncate", "ftruncate", "copy", "part", "chmod", "setxattr", "link", "rename", "utime", "direct"]

# So many that more are under way than a server has threads for them.
COPIES = 48

# Writes when its input ends, and then waits.
LATE = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY)
os.write(1, b"o")
sys.stdin.read()
os.write(fd, b"late" * 1000)
os.write(1, b"w")
"""

# Freezes from the middle of writing to the mount: the freeze inherits the file, as a third descriptor and as its streams.
FREEZER = """
import os, sys, threading, time
program, top = sys.argv[1:]
log = os.open(f"{top}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.set_inheritable(log, True)
def lines():
    while True:
        os.write(log, b"a line of the log\\n" * 50)
        time.sleep(0.0005)
threading.Thread(target=lines, daemon=True).start()
time.sleep(0.1)
pid = os.posix_spawn(program, [program, "freeze", top], os.environ,
                     file_actions=[(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)])
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
os.write(1, str(status).encode())
sys.stdin.read()
os._exit(status)
"""


class Frozen:
    """A mount, frozen; thawed at the latest when this is left. What waits for the thaw in the kernel ends only then."""

    def __init__(self, scratch, directory):
        self.program, self.directory, self.calls, self.frozen = scratch.program, directory, [], True
        mounting.run(self.program, "freeze", directory)

    def __enter__(self):
        return self

    def start(self, *command):
        self.calls.append(subprocess.Popen([str(word) for word in command]))
        return self.calls[-1]

    def ends(self, call, path):
        started = self.start(sys.executable, "-c", SYNC, path, call)
        try:
            check(started.wait(PATIENCE) == 0, f"{call} of {path} fails")
        except subprocess.TimeoutExpired as late:
            raise mounting.Failure(f"{call} of {path} waits for the thaw") from late

    def thaw(self):
        self.frozen = False
        mounting.run(self.program, "thaw", self.directory)

    def __exit__(self, *unused):
        if self.frozen:
            self.thaw()
        for call in self.calls:
            call.wait()


def stops_changes(scratch, options):
    image = scratch.image("image", "64M", "-t", "ext4", "-b", "4096")
    directory = scratch.mount(image, options=options)
    (directory / "file").write_bytes(b"before" * 1000)
    (directory / "late").write_bytes(b"")
    # A process of its own: a child of this one would wait for the thaw when it closes what it has inherited.
    writer = subprocess.Popen([sys.executable, "-c", LATE, directory / "late"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)
    writer.stdout.read(1)
    with Frozen(scratch, directory) as frozen:
        frozen.calls.append(writer)
        told = mounting.run(scratch.program, "freeze", directory, accept=(1,)).stdout
        check("frozen already" in told, f"a second freeze: {told}")
        mounting.clean(mounting.copy_image(image, scratch.path("copy")))
        before = image.read_bytes()
        check((directory / "file").read_bytes() == b"before" * 1000, "a frozen file is not read")
        frozen.ends("fsync", directory / "file")
        frozen.ends("fsync", directory)
        frozen.ends("syncfs", directory / "file")
        # What the kernel's cache cannot give away now is no reason to wait.
        writer.stdin.close()
        check(writer.stdout.read(1) == b"w", "a write into the kernel's cache")
        again = frozen.start(scratch.program, "freeze", directory)
        try:
            check(again.wait(PATIENCE) == 1, "a second freeze beside a write")
        except subprocess.TimeoutExpired as stuck:
            raise mounting.Failure("a second freeze beside a write waits for the thaw") from stuck
        check(image.read_bytes() == before, "the image changed while it was frozen")
        change = frozen.start("mkdir", directory / "made")
        time.sleep(0.3)
        check(change.poll() is None, "a change did not wait for the thaw")
        frozen.thaw()
        check(writer.wait(PATIENCE) == 0, "what was written while it was frozen")
        check(change.wait(PATIENCE) == 0 and os.path.isdir(directory / "made"), "what waited for the thaw failed")
    told = mounting.run(scratch.program, "thaw", directory, accept=(1,)).stdout
    check("not frozen" in told, f"a second thaw: {told}")
    scratch.umount(directory)
    mounting.clean(image)
    print(f"{options or 'default'}: frozen and thawed", flush=True)


def refusals_do_not_matter(scratch, options):
    """What was written before its file became append-only is refused when it arrives; the rest is frozen all the same."""
    image = scratch.image("image", "64M", "-t", "ext4")
    directory = scratch.mount(image, options=options)
    (directory / "kept").write_text("kept bytes")
    file = os.open(directory / "file", os.O_RDWR | os.O_CREAT)
    os.write(file, b"old" * 10000)
    os.fsync(file)
    mounting.run("chattr", "+a", directory / "file")
    os.pwrite(file, b"new", 9000)
    said = mounting.run(scratch.program, "freeze", directory).stdout
    try:
        check("what was refused" in said, f"freeze: {said}")
        judge_copy(image, scratch.path("copy"))
    finally:
        mounting.run(scratch.program, "thaw", directory)
    os.close(file)
    mounting.run("chattr", "-a", directory / "file")
    scratch.umount(directory)
    mounting.clean(image)


def judge_copy(image, copy):
    """The image as it is now has all that was acknowledged, and nothing to replay."""
    shutil.copyfile(image, copy)
    told = mounting.run("dumpe2fs", "-h", copy).stdout
    check("needs_recovery" not in told, "the frozen image needs recovery")
    mounting.clean(copy)
    listed = mounting.run("debugfs", "-R", "cat /kept", copy).stdout
    check("kept bytes" in listed, f"what was written before the freeze: {listed}")


def many_wait(scratch, options):
    """More changes wait than a server would have threads, and whoever only looks is answered all the same."""
    image = scratch.image("image", "64M", "-t", "ext4")
    top = scratch.mount(image, options=options)
    (top / "there").mkdir()
    for number in range(WAITING):
        (top / "there" / str(number)).write_text("contents")
    (top / "kept").write_text("kept bytes")
    # The kernel keeps everybody out of a directory in which a change waits.
    (top / "calm").mkdir()
    (top / "calm" / "file").write_text("contents")
    # By its descriptor: were the kernel's cache of names emptied meanwhile, a look for it would wait among the changes.
    calm = os.open(top / "calm", os.O_RDONLY | os.O_DIRECTORY)
    mounting.run(scratch.program, "freeze", top)
    said = mounting.run(scratch.program, "freeze", top, accept=range(256))
    check(said.returncode != 0 and "frozen already" in said.stdout, f"frozen twice: {said.stdout}")
    judge_copy(image, scratch.path("copy"))
    changes = [subprocess.Popen([sys.executable, "-c", CHANGE, str(top), str(number)]) for number in range(WAITING)]
    try:
        # Each of them waits, and whoever only looks is answered all the same.
        limit = time.monotonic() + 2
        while time.monotonic() < limit:
            check(os.listdir(calm) == ["file"], "a frozen directory changed")
            with open("file", encoding="ascii", opener=lambda name, flags: os.open(name, flags, dir_fd=calm)) as file:
                check(file.read() == "contents", "a file in a frozen directory changed")
            check(os.statvfs(top).f_bfree > 0, "statvfs")
            time.sleep(0.02)
        ended = [n for n, change in enumerate(changes) if change.poll() is not None]
        check(not ended, f"changes did not wait for the thaw: {ended}")
        judge_copy(image, scratch.path("copy"))
        mounting.run(scratch.program, "thaw", top)
        for number, change in enumerate(changes):
            check(change.wait(timeout=60) == 0, f"change {number} failed after the thaw")
    finally:
        if any(change.poll() is None for change in changes):
            mounting.run(scratch.program, "thaw", top, accept=range(256))
            for change in changes:
                change.kill()
                change.wait()
        os.close(calm)
    said = mounting.run(scratch.program, "thaw", top, accept=range(256))
    check(said.returncode != 0, "thawed twice")
    check(len(os.listdir(top / "there")) == WAITING - 2 * WAITING // 5, f"{len(os.listdir(top / 'there'))} names are left")
    check((top / "there" / "3").read_text() == "con", "a truncation that waited")
    check((top / "there" / "4").read_text() == "written" + "s", "a write that waited")
    scratch.umount(top)
    mounting.clean(image)
    print(f"{options}: {WAITING} changes waited, and were done", flush=True)


def what_is_unlinked_is_gone(scratch, options):
    """What one process has unlinked and closed before it freezes, though the kernel tells of that late."""
    image = scratch.image("image", "64M", "-t", "ext4", "-b", "4096")
    top = scratch.mount(image, options=options)
    root = os.open(top, os.O_RDONLY)
    try:
        for number in range(40):
            for late in (False, True):
                file = os.open(top / str(number), os.O_RDWR | os.O_CREAT)
                os.write(file, b"contents" * 500)
                if late:
                    os.unlink(top / str(number))
                os.close(file)
                if not late:
                    os.unlink(top / str(number))
            fcntl.ioctl(root, IOC_FREEZE)
            try:
                mounting.clean(mounting.copy_image(image, scratch.path("copy")))
            finally:
                fcntl.ioctl(root, IOC_THAW)
    finally:
        os.close(root)
    scratch.umount(top)
    mounting.clean(image)
    print(f"{options}: frozen without what was unlinked", flush=True)


def all_that_was_written(scratch, options):
    """The kernel has more to send than it sends at a time, and nobody has asked for any of it."""
    image = scratch.image("image", "512M", "-t", "ext4", "-b", "4096")
    top = scratch.mount(image, options=options)
    for number in range(3):
        with scattered.held(top / f"file{number}"):
            mounting.run(scratch.program, "freeze", top)
            try:
                copy = mounting.copy_image(image, scratch.path("copy"))
            finally:
                mounting.run(scratch.program, "thaw", top)
            mounting.clean(copy)
            scattered.judge(scratch.program, copy, f"file{number}", options)
            copy.unlink()
    # Two at once: one freezes, the other is told, and neither waits for the thaw.
    with scattered.held(top / "both"):
        freezes = [subprocess.Popen([scratch.program, "freeze", top], stderr=subprocess.PIPE) for _ in range(2)]
        try:
            statuses = sorted(freeze.wait(PATIENCE) for freeze in freezes)
        except subprocess.TimeoutExpired as stuck:
            raise mounting.Failure("of two freezes one waits for the thaw") from stuck
        finally:
            mounting.run(scratch.program, "thaw", top)
            for freeze in freezes:
                freeze.communicate()
        check(statuses == [0, 1], f"two freezes: {statuses}")
    scratch.umount(top)
    mounting.clean(image)
    print(f"{options}: frozen with all that was written", flush=True)


def marks_are_waited_for(scratch):
    """A mark that is made, and gone, and one that is there when somebody freezes."""
    top = scratch.mount(scratch.image("image", "64M", "-t", "ext4"))
    root, marked = os.open(top, os.O_RDONLY), os.open(top, os.O_RDONLY)

    def number_of(fd):
        return fcntl.ioctl(fd, IOC_MARK, bytes(4))

    mark = number_of(marked)
    check(number_of(marked) == mark and number_of(root) != mark, "one descriptor has one mark, of its own")
    waiting = subprocess.Popen([sys.executable, "-c", ARRIVED, top, mark.hex()])
    time.sleep(0.3)
    check(waiting.poll() is None, "a mark that is there is not waited for")
    os.close(marked)
    check(waiting.wait(PATIENCE) == 0, "a mark that is gone")
    fcntl.ioctl(root, IOC_ARRIVED, mark)
    waiting = subprocess.Popen([sys.executable, "-c", ARRIVED, top, number_of(root).hex()])
    time.sleep(0.3)
    mounting.run(scratch.program, "freeze", top)
    try:
        check(waiting.wait(PATIENCE) == errno.EBUSY, "a mark is waited for on what is frozen meanwhile")
        late = subprocess.run([sys.executable, "-c", ARRIVED, top, mark.hex()], timeout=PATIENCE, check=False)
        check(late.returncode == errno.EBUSY, "a mark is waited for on what is frozen")
    finally:
        mounting.run(scratch.program, "thaw", top)
        waiting.wait()
    os.close(root)
    scratch.umount(top)


def copies_in_the_middle(scratch, options):
    """What was under way waits where it is, on a thread of the server's: nobody else waits for such a thread."""
    image = scratch.image("image", "512M", "-t", "ext4", "-b", "4096")
    top = scratch.mount(image, options=options)
    (top / "source").write_bytes(b"s" * (4 << 20))
    (top / "clean").write_bytes(b"clean")
    copies = [subprocess.Popen([sys.executable, "-c", COPY, str(top), str(number)], stdout=subprocess.PIPE)
              for number in range(COPIES)]
    try:
        for copy in copies:
            copy.stdout.read(1)
        mounting.run(scratch.program, "freeze", top)
        for what in ("clean", "."):
            began = time.monotonic()
            sync = subprocess.Popen([sys.executable, "-c", SYNC, str(top / what), "fsync"])
            try:
                check(sync.wait(timeout=PATIENCE) == 0, f"fsync of {what}")
            except subprocess.TimeoutExpired:
                raise mounting.Failure(f"an fsync of {what} waits for the thaw, since {time.monotonic() - began} s") from None
        mounting.run(scratch.program, "thaw", top)
    finally:
        mounting.run(scratch.program, "thaw", top, accept=range(256))
        for copy in copies:
            copy.kill()
            copy.wait()
            copy.stdout.close()
    scratch.umount(top)
    mounting.clean(image)
    print(f"{options}: an fsync waits for no copy", flush=True)


def a_writer_freezes(scratch, options):
    """What a freeze inherits of the mount does not make it wait for the thaw."""
    image = scratch.image("image", "64M", "-t", "ext4")
    directory = scratch.mount(image, options=options)
    freezer = subprocess.Popen([sys.executable, "-c", FREEZER, scratch.program, directory], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    try:
        told = select.select([freezer.stdout], [], [], PATIENCE)[0]
        check(told, "a freeze with descriptors of the mount waits for the thaw")
        check(freezer.stdout.read(1) == b"0", "it is not frozen")
        mounting.clean(mounting.copy_image(image, scratch.path("copy")))
        mounting.run(scratch.program, "thaw", directory)
    finally:
        mounting.run(scratch.program, "thaw", directory, accept=(0, 1))
        freezer.stdin.close()
        freezer.wait()
    text = (directory / "log").read_text()
    # The end of the process may cut its last write(2) short, between two pages.
    if len(text) % 4096 == 0:
        text = text[:text.rfind("\n") + 1]
    lines = text.splitlines()
    strange = {line for line in lines if line != "a line of the log"}
    check(len(lines) > 50 and not strange, f"{len(lines)} lines in the log, and {strange}")
    scratch.umount(directory)
    mounting.clean(image)


def times_are_what_was_seen(scratch, options, first):
    """The kernel takes the time of a change before it asks for it, and the answer can take as long as it likes."""
    image = scratch.image("image", "64M", "-t", "ext4")
    directory = scratch.mount(image, options=options)
    for change in CHANGES:
        (directory / change).write_bytes(b"x" * 65536)
    mounting.run("sync", "-f", directory)
    time.sleep(0.1)
    with Frozen(scratch, directory) as frozen:
        changes = {change: frozen.start(sys.executable, "-c", TIMED, directory / change, change, first)
                   for change in CHANGES}
        time.sleep(1)
        frozen.thaw()
        for change, call in changes.items():
            check(call.wait(PATIENCE) == 0, f"{change} fails")

    def stamps():
        return {change: ((directory / change).stat().st_mtime_ns, (directory / change).stat().st_ctime_ns)
                for change in CHANGES}

    seen = stamps()
    scratch.umount(directory)
    mounting.clean(image)
    directory = scratch.mount(image, options=options)
    kept = stamps()
    moved = {change: (seen[change], kept[change]) for change in CHANGES if seen[change] != kept[change]}
    check(not moved, f"times have moved: {moved}")
    scratch.umount(directory)


def test(scratch):
    for options in ("", "data=journal"):
        for first in ("written", "not written"):
            times_are_what_was_seen(scratch, options, first)
    for options in ("", "data=journal"):
        a_writer_freezes(scratch, options)
    copies_in_the_middle(scratch, "data=ordered")
    marks_are_waited_for(scratch)
    for options in ("", "data=journal"):
        all_that_was_written(scratch, options)
    for options in ("data=ordered", "data=journal"):
        many_wait(scratch, options)
        refusals_do_not_matter(scratch, options)
        what_is_unlinked_is_gone(scratch, options)
    for options in ("", "data=journal", "strictatime"):
        stops_changes(scratch, options)


if __name__ == "__main__":
    mounting.main(test)
