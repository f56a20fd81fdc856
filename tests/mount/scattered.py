"""A file that a process holds open, written in so many places that the kernel cannot have all of it under way at once."""

import contextlib
import subprocess
import sys

import mounting

PAGE, APART, PAGES = 4096, 3 * 4096, 9000  # each place is a request of its own, and the kernel has 64 under way

WRITER = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
for number in range(int(sys.argv[3])):
    os.pwrite(fd, b"%08d" % number * (int(sys.argv[4]) // 8), number * int(sys.argv[2]))
os.write(1, b"o")
sys.stdin.read()
"""


@contextlib.contextmanager
def held(path):
    # A process of its own: a child of this one would wait for a thaw when it closes what it has inherited.
    words = [str(word) for word in (path, APART, PAGES, PAGE)]
    process = subprocess.Popen([sys.executable, "-c", WRITER, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        mounting.check(process.stdout.read(1) == b"o", "the writer did not write")
        yield
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def judge(program, image, name, what):
    """All of it is in an image that nobody has mounted."""
    got = subprocess.run([program, "cat", f"{image}:/{name}"], stdout=subprocess.PIPE, check=True).stdout
    missing = [number for number in range(PAGES)
               if got[number * APART:number * APART + PAGE] != b"%08d" % number * (PAGE // 8)]
    mounting.check(not missing, f"{what}: {len(missing)} of {PAGES} pages are not in the image, which has {len(got)} bytes")
