#!/usr/bin/env python3
"""./dev installs python3 where it is missing and says so; where it may not, it says what to do.

Runs ./dev with only a few commands in PATH: apt-get, sudo and id are made here, and write down how they are called.
Usage: dev_test.py SOURCE
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

# What a Debian without python3 has, as far as ./dev calls it.
ESSENTIAL = ("sh", "readlink", "dirname", "env")
INSTALLS = 'case "$*" in *" install "*) ln -s {python} "{folder}/python3";; esac'


class Machine:
    """A folder that is all of PATH."""

    def __init__(self, dev, folder, uid=0):
        self.dev, self.folder = dev, folder
        self.called = folder / "called"
        for name in ESSENTIAL:
            (folder / name).symlink_to(shutil.which(name))
        self.program("id", f"echo {uid}", noted=False)

    def program(self, name, body, noted=True):
        note = f'echo "{name} $*" >>"{self.called}"\n' if noted else ""
        path = self.folder / name
        path.write_text(f"#!/bin/sh\nPATH={self.folder}:{os.environ['PATH']}\n{note}{body}\n", encoding="ascii")
        path.chmod(0o755)

    def apt_get(self, installs=True, status=0):
        body = INSTALLS.format(python=sys.executable, folder=self.folder) if installs else ""
        self.program("apt-get", f"echo 'the package manager talks'\n{body}\nexit {status}")

    def start(self):
        done = subprocess.run([self.dev, "help"], env={"PATH": str(self.folder)}, capture_output=True, text=True, check=False,
                              timeout=120)
        calls = self.called.read_text(encoding="ascii").splitlines() if self.called.exists() else []
        return done, calls


def require(what, holds, seen):
    if not holds:
        raise SystemExit(f"{what}: {seen!r}")


def helped(what, done):
    require(what, done.returncode == 0 and done.stdout.startswith("./dev VERB"), (done.returncode, done.stdout, done.stderr))


def main():
    dev = pathlib.Path(sys.argv[1]).resolve() / "dev"

    def machine(**options):
        return Machine(dev, pathlib.Path(tempfile.mkdtemp(dir=scratch)), **options)

    with tempfile.TemporaryDirectory() as scratch:
        there = machine()
        (there.folder / "python3").symlink_to(sys.executable)
        there.apt_get()
        done, calls = there.start()
        helped("with python3", done)
        require("with python3 nothing is installed, and nothing said", not calls and not done.stderr, (calls, done.stderr))

        root = machine()
        root.apt_get()
        done, calls = root.start()
        helped("root without python3", done)
        require("that it is installed is said, on standard error", done.stderr == "./dev: installing python3, which is missing\n",
                done.stderr)
        require("the lists, then python3", [call.split()[-1] for call in calls] == ["update", "python3"], calls)

        user = machine(uid=1000)
        user.apt_get()
        user.program("sudo", 'shift\nexec "$@"')
        done, calls = user.start()
        helped("a user with sudo", done)
        require("sudo asks for no password", all(call.startswith("sudo -n ") for call in calls if "sudo" in call)
                and sum("apt-get" in call and "sudo" in call for call in calls) == 2, calls)

        for name, sudo in (("a user whose sudo wants a password", True), ("a user without sudo", False)):
            refused = machine(uid=1000)
            refused.apt_get()
            if sudo:
                refused.program("sudo", "exit 1")
            done, calls = refused.start()
            require(f"{name} is told", done.returncode == 2 and "python3 is missing. Install it" in done.stderr,
                    (done.returncode, done.stderr))
            require(f"{name} installs nothing", not any("apt-get" in call for call in calls), calls)

        for name, status, installs in (("apt-get fails", 100, False), ("apt-get says it is done and is not", 0, False)):
            failing = machine()
            failing.apt_get(installs=installs, status=status)
            done, _ = failing.start()
            require(name, done.returncode == 2 and "could not install it" in done.stderr and "package manager talks" in done.stderr,
                    (done.returncode, done.stderr))
        done, _ = machine().start()
        require("there is no apt-get", done.returncode == 2 and "could not install it" in done.stderr, (done.returncode, done.stderr))
    print("./dev installs python3, or says what to do")


if __name__ == "__main__":
    main()
