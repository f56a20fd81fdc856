"""What the tests of the command's verbs share: running one, and a terminal."""

import hashlib
import json
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "mount"))
import mounting  # noqa: E402  (lies in the folder beside)
from mounting import check  # noqa: E402

FINE, NO, IMPOSSIBLE = 0, 1, 2
NOBODY = 65534
os.environ["TZ"] = "UTC0"  # the verbs print local time


class Verbs:
    def __init__(self, scratch, image):
        self.program, self.image = scratch.program, image

    def __call__(self, *words, status=FINE, says="", user=None):
        """Runs a verb; a word that begins with ':' is a path of the image. Returns what it printed."""
        command = [self.program, *(f"{self.image}{word}" if str(word).startswith(":") else str(word) for word in words)]
        identity = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        result = subprocess.run(command, capture_output=True, text=True, check=False, **identity)
        check(result.returncode == status, f"{command}: {result.returncode}, not {status}\n{result.stdout}{result.stderr}")
        check(says in result.stderr, f"{command}: {result.stderr!r} does not say {says!r}")
        check(status == FINE or result.stderr.startswith(f"uext4 {words[0]}: "),
              f"{command}: {result.stderr!r} does not name the verb")
        return result.stdout

    def status(self, path):
        return json.loads(self("stat", "--json", f":{path}"))


def digest(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def in_terminal(*command):
    """Runs a command on a terminal of its own: its exit code and all that it showed."""
    pid, terminal = mounting.start_in_terminal(*command)
    shown = b""
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        shown += piece
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown


def prepare(scratch):
    """An image of somebody else's with a directory "there" and a file "file"."""
    mounting.need_mount()  # and root: owners are changed, and verbs run as somebody else
    os.chmod(scratch.folder, 0o755)
    verbs = Verbs(scratch, scratch.image("image", "64M", "-t", "ext4"))
    os.chown(verbs.image, NOBODY, NOBODY)
    verbs("mkdir", ":/there")
    verbs("cp", "/etc/hostname", ":/file")
    return verbs
