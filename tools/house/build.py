"""Configuring and building the presets of CMakePresets.json."""

import contextlib
import fcntl
import subprocess

from . import host
from .host import BUILD, ROOT, GiveUp, say

PROGRAM = BUILD / "release" / "bin" / "uext4"


@contextlib.contextmanager
def locked(preset):
    """Two builds in one folder would destroy each other's work: the second waits."""
    BUILD.mkdir(exist_ok=True)
    with open(BUILD / f".{preset}.lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Waiting for another build of {preset} to end.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def configure(preset):
    """Configures build/<preset>; quiet unless it fails."""
    result = subprocess.run(["cmake", "--preset", preset], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, check=False)
    if result.returncode != 0:
        say(result.stdout)
        raise GiveUp(f"configuring preset {preset} failed", 1)


def build(preset, *targets):
    """Configures and builds the targets (files or names; all by default) of a preset."""
    with locked(preset):
        say(f"Building {preset}")
        configure(preset)
        host.run(["ninja", "-C", BUILD / preset, "-j", host.jobs(), *targets], what=f"building preset {preset}")


def has_target(preset, target):
    """True if the configured preset knows how to make a target, e.g. bin/uext4."""
    result = subprocess.run(["ninja", "-C", str(BUILD / preset), "-t", "query", target], capture_output=True,
                            check=False)
    return result.returncode == 0


def build_products():
    """Builds the release program and libraries; returns the program's path. Gives up if they cannot be made."""
    with locked("release"):
        configure("release")
    if not has_target("release", "bin/uext4"):
        raise GiveUp("the program `uext4` is not part of this tree yet (no target makes bin/uext4), "
                     "so there is nothing to build")
    build("release")
    return PROGRAM


def tool_path(preset, name):
    return BUILD / preset / "bin" / name


def build_tool(preset, name, purpose):
    """Builds bin/<name> of a preset and returns its path; gives up if the tree has no such tool."""
    with locked(preset):
        configure(preset)
    if not has_target(preset, f"bin/{name}"):
        raise GiveUp(f"{purpose} is not part of this tree yet: no target makes bin/{name}")
    build(preset, f"bin/{name}")
    return tool_path(preset, name)
