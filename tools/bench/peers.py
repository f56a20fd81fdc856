"""The file systems that are measured: each makes, mounts and unmounts one image, and is judged by e2fsck afterwards."""

import os
import pathlib
import re
import shutil
import subprocess
import time


class Unavailable(Exception):
    """Why a peer cannot take part."""


class Broken(Exception):
    """A step failed, or e2fsck found something."""


def run(*command, what=None):
    words = [str(part) for part in command]
    result = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                            check=False)
    if result.returncode != 0:
        raise Broken(f"{what or ' '.join(words)}: status {result.returncode}\n{result.stdout[-2000:]}")
    return result.stdout


def is_mounted(directory):
    path = str(directory)
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as table:
        return any(line.split(" ")[1] == path for line in table)


def peak_of(pid):
    """Bytes of a process and of its descendants, added up."""
    folder = pathlib.Path(f"/proc/{pid}")
    status = (folder / "status").read_text(encoding="utf-8")
    children = (folder / "task" / str(pid) / "children").read_text(encoding="utf-8")
    return (int(re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)[1]) << 10) + sum(map(peak_of, children.split()))


class Peer:
    """One image in `folder`, mounted or not."""

    name = ""
    journals = True   # an fsync is durable, and there is a data=journal
    mounts = True     # or takes part only in what fills a new image
    server = None     # the process that serves the mount, where that is a program

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.image = self.folder / f"{self.name}.img"
        self.directory = self.folder / f"{self.name}.mnt"
        self.directory.mkdir(exist_ok=True)

    def check_available(self):
        """Unavailable, unless everything is there."""

    def make(self, megabytes, options):
        """A new image: 4 KiB blocks, whatever its size."""
        self.image.unlink(missing_ok=True)
        run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", *options, self.image, f"{megabytes}M")

    def make_of(self, source, megabytes, options):
        """A new image with what is in a folder, not mounted: durable, and with all attributes."""
        self.make(megabytes, options)
        self.mount()
        run("cp", "-a", f"{source}/.", self.directory)
        self.umount()

    def mount(self, options=""):
        raise NotImplementedError

    def umount(self):
        raise NotImplementedError

    def judge(self):
        """e2fsck finds nothing; the image goes."""
        run("e2fsck", "-fn", self.image, what=f"{self.name}: e2fsck -fn")
        self.image.unlink()

    def peak_memory(self):
        """Bytes that the server's processes had at most, added up; None where there is none."""
        return peak_of(self.server.pid) if self.server is not None else None

    def clear(self):
        """After a failure: no mount, no process, no image is left."""
        for command in (["umount", self.directory], ["umount", "-l", self.directory]):
            if is_mounted(self.directory):
                subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if self.server is not None:
            try:
                self.server.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.server.kill()
                self.server.wait()
            self.server = None
        self.image.unlink(missing_ok=True)

    def serve(self, *command):
        """Starts a server in the foreground and waits until its mount is there."""
        log = self.folder / f"{self.name}.log"
        with open(log, "wb") as out:
            self.server = subprocess.Popen([str(part) for part in command], stdout=out, stderr=subprocess.STDOUT,
                                           stdin=subprocess.DEVNULL)
        limit = time.monotonic() + 60
        while not is_mounted(self.directory):
            if self.server.poll() is not None or time.monotonic() > limit:
                raise Broken(f"{self.name} does not mount: {log.read_text(errors='replace')[-1000:]}")
            time.sleep(0.01)

    def end_server(self):
        run("umount", self.directory)
        if self.server.wait(timeout=300) != 0:
            raise Broken(f"{self.name}: the server ended with status {self.server.returncode}")
        self.server = None


class Uext4(Peer):
    name = "uext4"

    def __init__(self, folder, program):
        super().__init__(folder)
        self.program = program

    def check_available(self):
        if not os.path.exists("/dev/fuse"):
            raise Unavailable("there is no /dev/fuse")

    def make_of(self, source, megabytes, options):
        self.make(megabytes, options)
        run(self.program, "cp", "-a", f"{source}/.", f"{self.image}:/")

    def mount(self, options=""):
        self.serve(self.program, "mount", "-f", *(["-o", options] if options else []), self.image, self.directory)

    def umount(self):
        self.end_server()


class LibraryImage(Peer):
    """The image that the driver of the library mounts itself."""

    name = "library"


class Fuse2fs(Peer):
    name = "fuse2fs"
    journals = False

    def check_available(self):
        if not os.path.exists("/dev/fuse"):
            raise Unavailable("there is no /dev/fuse")
        if not shutil.which("fuse2fs"):
            raise Unavailable("fuse2fs is not installed (Debian package fuse2fs)")

    def mount(self, options=""):
        self.serve("fuse2fs", "-f", *(["-o", options] if options else []), self.image, self.directory)

    def umount(self):
        self.end_server()


class Kernel(Peer):
    name = "kernel"

    def check_available(self):
        if os.geteuid() != 0:
            raise Unavailable("only root may mount by the kernel")
        if not os.path.exists("/dev/loop-control"):
            raise Unavailable("there are no loop devices")
        with open("/proc/filesystems", encoding="ascii") as known:
            if "ext4" not in known.read().split():
                raise Unavailable("the kernel knows no ext4")

    def mount(self, options=""):
        # The kernel writes nothing that was not asked for while it is measured.
        words = ",".join(filter(None, ["loop", "noinit_itable", options]))
        run("mount", "-t", "ext4", "-o", words, self.image, self.directory)

    def umount(self):
        limit = time.monotonic() + 20
        while True:
            try:
                run("umount", self.directory)
                return
            except Broken:
                if time.monotonic() > limit:
                    raise
                time.sleep(0.05)


class Mke2fs(Peer):
    """mke2fs -d, which fills the image that it makes."""

    name = "mke2fs"
    mounts = False

    def make_of(self, source, megabytes, options):
        self.make(megabytes, ("-d", str(source), *options))

    def mount(self, options=""):
        """There is nothing to be mounted."""

    def umount(self):
        """There is nothing to be unmounted."""
