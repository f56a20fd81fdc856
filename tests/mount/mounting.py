"""What tests of the mount share: scratch folders, images, mounts by the program and by the kernel, trees compared.

Everything a test starts is taken away when its Scratch is left, whether the test passed or not. A server is ended by its
process id, never by name.
"""

import ctypes
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import time
import traceback

IOC_SERVER = 0x80045542  # UEXT4_IOC_SERVER: _IOR('U', 0x42, int)
TIOCSPTLCK, TIOCGPTPEER = 0x40045431, 0x5441
IOC_SHUTDOWN = 0x8004587D  # the kernel's ext4: _IOR('X', 125, u32)
SHUTDOWN_FLUSH_LOG = 1
SHUTDOWN_NO_FLUSH = 2
CLONE_NEWNS = 0x20000
SKIPPED = 77
KERNEL = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
# From which kernel on FUSE passes on: O_TMPFILE; the wish for a birth time (statx).
KERNEL_OF_UNNAMED, KERNEL_OF_BIRTHS = (6, 2), (6, 6)


class Failure(Exception):
    """A check did not hold."""


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(SKIPPED)


def need_kernel(version, what):
    if KERNEL < version:
        skip(f"Linux {KERNEL[0]}.{KERNEL[1]} passes no {what} to FUSE, {version[0]}.{version[1]} does")


def check(condition, text):
    if not condition:
        raise Failure(text)


def expect_failure(holds, fault):
    """For what is known to be wrong: passes while it is, and fails once it is not, so that the mark is taken away."""
    check(not holds, f"{os.path.basename(sys.argv[0])} is expected to fail and does not. Mended: {fault}. "
                     "Use check() instead of expect_failure().")
    print(f"expected to fail, and does: {fault}")


def is_long():
    return os.environ.get("UEXT4_LONG") == "1"


def run(*command, accept=(0,), **options):
    """Runs a command; Failure with its output unless its status is one of `accept`. Returns the completed process."""
    words = [str(part) for part in command]
    result = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                            check=False, **options)
    check(result.returncode in accept, f"{' '.join(words)}: status {result.returncode}\n{result.stdout}")
    return result


def holders(directory):
    """Who is in a mount, as far as /proc tells: working directories, open files, maps."""
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        for link in [process / "cwd", process / "root", *process.glob("fd/*"), *process.glob("map_files/*")]:
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if target == str(directory) or target.startswith(f"{directory}/"):
                found.append(f"{link} is {target}")
    return found


def need(*programs):
    for program in programs:
        if shutil.which(program) is None:
            skip(f"{program} is not installed")


def need_mount():
    """What each of these tests cannot do without."""
    if not os.path.exists("/dev/fuse"):
        skip("there is no /dev/fuse")
    if os.geteuid() != 0:
        skip("only root may mount here")
    need("mke2fs", "e2fsck", "mount", "umount")


def no_own_mounts():
    """Why own_mounts() would skip the test; None where it would not."""
    return None if is_mounted("/") else "the root folder is no mount point (a chroot): mounts cannot be kept apart"


def own_mounts():
    """From here on this process has a namespace of mounts of its own, and none of its mounts is seen outside."""
    if (reason := no_own_mounts()) is not None:
        skip(reason)
    system = ctypes.CDLL(None, use_errno=True)
    if system.unshare(CLONE_NEWNS) != 0:
        skip(f"no namespace of mounts: {os.strerror(ctypes.get_errno())}")
    run("mount", "--make-rprivate", "/")


def open_terminal():
    """(its controlling end, the terminal). Where /dev has none, of a devpts that is mounted for this moment."""
    try:
        return os.openpty()
    except OSError:
        pass
    folder = pathlib.Path(tempfile.mkdtemp(prefix="uext4_test_pts_"))
    mounted = subprocess.run(["mount", "-t", "devpts", "-o", "newinstance,ptmxmode=0666", "devpts", folder],
                             capture_output=True, text=True, check=False)
    try:
        if mounted.returncode != 0:
            skip(f"no terminals here: {mounted.stderr.strip()}")
        control = os.open(folder / "ptmx", os.O_RDWR | os.O_NOCTTY)
        fcntl.ioctl(control, TIOCSPTLCK, struct.pack("i", 0))
        return control, fcntl.ioctl(control, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)
    finally:
        if mounted.returncode == 0:
            run("umount", "-l", folder)  # what is open stays
        folder.rmdir()


def start_in_terminal(*command):
    """(process id, the controlling end) of a command with a terminal of its own."""
    control, terminal = open_terminal()
    pid = os.fork()
    if pid == 0:
        os.close(control)
        os.login_tty(terminal)
        os.execv(command[0], [str(word) for word in command])
    os.close(terminal)
    return pid, control


def may_be_run_by_all(program):
    """Whether every user may run it: all folders above it may be entered."""
    path = pathlib.Path(program)
    return os.stat(path).st_mode & 0o005 == 0o005 and all(os.stat(above).st_mode & 0o001 for above in path.parents)


def mounts_below(folder):
    """The innermost first."""
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as mounts:
        points = [re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), line.split()[1]) for line in mounts]
    return [point for point in reversed(points) if pathlib.Path(point).is_relative_to(folder)]


def is_mounted(directory):
    path = str(directory)
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as table:
        return any(line.split(" ")[1] == path for line in table)


def clean(image):
    """e2fsck finds nothing at all."""
    run("e2fsck", "-fn", image)


def has_orphans(image):
    """Whether the superblock names an orphan, or says that the orphan file may hold some."""
    told = run("dumpe2fs", "-h", image).stdout
    features = next((line for line in told.splitlines() if line.startswith("Filesystem features:")), "")
    return any(line.startswith("First orphan inode:") for line in told.splitlines()) or "orphan_present" in features


# What e2fsck -fn says of a file that was removed while it was open, and of the space that it still has.
ORPHAN_LINES = re.compile(r"(e2fsck |Pass \d|Inode \d+ was part of the orphaned inode list|Deleted inode \d+ has zero dtime|"
                          r"(Block|Inode) bitmap differences: [-\d() ]*$|Fix\? no|IGNORED|Free (blocks|inodes) count wrong|"
                          r"\S+: \*+ WARNING: Filesystem still has errors|\S+: \d+/\d+ files|"
                          r"Padding at end|Orphan file|Feature orphan_present is set|Clear\? no|Failed to initialize orphan file|Recreate\? no|"
                          # A truncation under way has left less than its tree could hold.
                          r"Inode \d+ extent tree \(at level \d\) could be|\s*$)")


def clean_but_orphans(image):
    """e2fsck finds nothing, or nothing but orphans where the superblock says that there are some: a log that e2fsck has
    replayed by itself leaves them to the next mount. The preening that finishes them may change nothing else."""
    result = run("e2fsck", "-fn", image, accept=range(256))
    if result.returncode == 0:
        return
    check(has_orphans(image), f"e2fsck -fn {image}, without any orphan:\n{result.stdout}")
    for line in result.stdout.splitlines():
        check(ORPHAN_LINES.match(line), f"e2fsck -fn {image}, beside its orphans: {line}\n{result.stdout}")
    finished = run("e2fsck", "-p", image, accept=(0, 1)).stdout
    check("orphan" in finished.lower() or "truncating" in finished.lower(), f"e2fsck -p {image} finished nothing:\n{finished}")
    clean(image)


def copy_image(source, target):
    run("cp", "--sparse=always", "--reflink=auto", source, target)
    return target


class Scratch:
    """A folder in memory, and all that was mounted below it."""

    def __init__(self, program):
        self.program = str(pathlib.Path(program).resolve())
        if not os.access(self.program, os.X_OK):
            skip(f"{self.program} is not built")
        base = "/dev/shm" if os.path.isdir("/dev/shm") else None
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="uext4_test_", dir=base))
        self.copied = None  # the folder of the program's copy
        if not may_be_run_by_all(self.program):
            self.copied = tempfile.mkdtemp(prefix="uext4_test_program_")
            os.chmod(self.copied, 0o755)
            self.program = shutil.copy(self.program, self.copied)
            os.chmod(self.program, 0o755)
        self.servers = {}  # mount point to process id
        self.kernel = []

    def __enter__(self):
        # Whoever stops the tests (./dev at an interrupt) sends this; what is mounted goes all the same.
        def stop(number, _frame):
            signal.signal(number, signal.SIG_IGN)
            sys.exit(128 + number)

        signal.signal(signal.SIGTERM, stop)
        # Not a child that is forked: it is ended by the signal itself. A handler of Python's runs when the next call
        # returns, and for the one that waits for more to do that may be never.
        os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
        return self

    def __exit__(self, *unused):
        for directory in list(self.kernel):
            subprocess.run(["umount", directory], check=False, stderr=subprocess.DEVNULL)
            if is_mounted(directory):
                subprocess.run(["umount", "-l", directory], check=False)
        for directory in list(self.servers):
            self.kill(directory)
        # What a test had taken over and could not end.
        for directory in mounts_below(self.folder):
            subprocess.run(["umount", "-l", directory], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.copied:
            shutil.rmtree(self.copied, ignore_errors=True)

    def path(self, name):
        return self.folder / name

    def image(self, name, size, *options):
        """A new image; `options` are those of mke2fs."""
        image = self.path(name)
        run("mke2fs", "-q", "-F", *(options or ("-t", "ext4")), image, size)
        return image

    def mount(self, image, name="mnt", options=""):
        """Mounts by the program; returns the mount point."""
        directory = self.path(name)
        directory.mkdir(exist_ok=True)
        run(self.program, "mount", *(("-o", options) if options else ()), image, directory)
        self.servers[directory] = 0
        check(is_mounted(directory), f"{image} is not mounted though the program says so")
        self.servers[directory] = self.server_of(directory)
        return directory

    @staticmethod
    def server_of(directory):
        """The process that serves a mount."""
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return struct.unpack("i", fcntl.ioctl(fd, IOC_SERVER, bytes(4)))[0]
        finally:
            os.close(fd)

    def umount(self, directory):
        pid = self.servers[directory]
        # Whoever asks for the space of all mounts of the machine (df) is in each for a moment.
        limit = time.monotonic() + 5
        while True:
            busy = run(self.program, "umount", directory, accept=(0, 2))
            if busy.returncode == 0:
                break
            check("resource busy" in busy.stdout and time.monotonic() < limit, f"umount: {busy.stdout}{holders(directory)}")
            time.sleep(0.05)
        del self.servers[directory]
        check(not is_mounted(directory), f"{directory} is still mounted")
        check(not os.path.exists(f"/proc/{pid}") or self.has_ended(pid), f"the server {pid} lives on")

    def kill(self, directory):
        """Ends the server at once, as a crash would, and takes the dead mount away."""
        pid = self.servers.pop(directory)
        if pid > 0:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if is_mounted(directory):
            subprocess.run(["umount", "-l", directory], check=False)
        limit = time.monotonic() + 20
        while pid > 0 and not self.has_ended(pid):
            check(time.monotonic() < limit, f"the server {pid} does not end")
            time.sleep(0.005)

    def within(self, seconds, directory, what, act):
        """In a process of its own, which may be held up for good: then the mount's server is killed."""
        user = os.fork()
        if user == 0:
            status = 1
            try:
                act()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        limit = time.monotonic() + seconds
        while (ended := os.waitpid(user, os.WNOHANG)) == (0, 0) and time.monotonic() < limit:
            time.sleep(0.01)
        if ended == (0, 0):
            os.kill(user, signal.SIGKILL)
            self.kill(directory)
            os.waitpid(user, 0)
        check(ended == (user, 0), f"{what}: {ended}")

    @staticmethod
    def has_ended(pid):
        """Gone, or dead with all of its threads: each of them holds the files of the process until it has left."""
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as status:
                dead = status.read().rsplit(")", 1)[1].split()[0] in "ZX"
            return dead and len(os.listdir(f"/proc/{pid}/task")) <= 1
        except (FileNotFoundError, ProcessLookupError):
            return True

    def kernel_mount(self, image, name="kernel", options=""):
        """Mounts by the kernel through a loop device; skips the test where there is none."""
        directory = self.path(name)
        directory.mkdir(exist_ok=True)
        if not os.path.exists("/dev/loop-control"):
            skip("there are no loop devices")
        result = run("mount", "-t", "ext4", "-o", "loop" + ("," + options if options else ""), image, directory,
                     accept=range(256))
        if result.returncode != 0:
            if "loop" in result.stdout and "set up" in result.stdout or "unknown filesystem" in result.stdout:
                skip(f"the kernel cannot mount here: {result.stdout.strip()}")
            raise Failure(f"the kernel does not mount {image}: {result.stdout}")
        self.kernel.append(directory)
        return directory

    def kernel_umount(self, directory):
        limit = time.monotonic() + 10
        while run("umount", directory, accept=range(256)).returncode != 0:
            check(time.monotonic() < limit, f"{directory} stays busy")
            time.sleep(0.05)
        self.kernel.remove(directory)


class Connection:
    """The kernel's end of a FUSE mount, by which a test frees those who hang when the mount has no name any more."""

    def __init__(self, scratch, directory):
        device = os.stat(directory).st_dev
        listed = scratch.path("connections")
        listed.mkdir(exist_ok=True)
        run("mount", "-t", "fusectl", "fusectl", listed)
        try:
            self.control = open(listed / str(os.minor(device)) / "abort", "w", encoding="ascii")
        finally:
            run("umount", "-l", listed)

    def abort(self):
        self.control.write("1")
        self.control.flush()

    def close(self):
        self.control.close()


def content_of(path, status):
    if stat.S_ISREG(status.st_mode):
        digest = hashlib.sha1()
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
        return digest.hexdigest()
    return os.readlink(path) if stat.S_ISLNK(status.st_mode) else ""


def tree(root, times=True, xattrs=True):
    """Everything below `root` by relative path: what two views of one file system have to agree on.

    Times are the modification times in nanoseconds. Reads no directory's link count or size apart from the rest: they
    are part of the file system as well.
    """
    root = os.fsencode(root)
    found = {}
    for folder, directories, files in os.walk(root):
        for name in directories + files + ([b"."] if folder == root else []):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            entry = {"inode": status.st_ino, "mode": oct(status.st_mode), "links": status.st_nlink,
                     "owner": (status.st_uid, status.st_gid), "size": status.st_size, "device": status.st_rdev,
                     "content": content_of(path, status)}
            if times:
                entry["mtime"] = status.st_mtime_ns
            if xattrs:
                entry["xattrs"] = sorted((key, os.getxattr(path, key, follow_symlinks=False))
                                         for key in os.listxattr(path, follow_symlinks=False))
            found[os.path.relpath(path, root)] = entry
    return found


def same_tree(expected, got, what):
    lines = []
    for path in sorted(expected.keys() | got.keys()):
        if path not in got or path not in expected:
            lines.append(f"{path!r} is only in the {'first' if path in expected else 'second'}")
        elif expected[path] != got[path]:
            lines.append(f"{path!r}: " + ", ".join(f"{key} {expected[path][key]} and {got[path][key]}"
                                                   for key in expected[path] if expected[path][key] != got[path][key]))
    check(not lines, f"{what}: {len(lines)} differ\n" + "\n".join(lines[:20]))


def main(test):
    """Runs test(Scratch); the program's path is the script's first argument. Ends the process with the test's status."""
    need_mount()
    if len(sys.argv) < 2:
        sys.exit(f"usage: {sys.argv[0]} PROGRAM")
    try:
        with Scratch(sys.argv[1]) as scratch:
            test(scratch)
    except Failure as failure:
        print(f"FAILED: {failure}")
        sys.exit(1)
    print("passed")
