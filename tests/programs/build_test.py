#!/usr/bin/env python3
"""This project is cloned and built by CMake and Ninja in a mount, as its README says: the lower layers; with UEXT4_LONG=1
all of the release build.

After a new mount nothing is left to do, so that no time and no dependency was lost. Usage: build_test.py PROGRAM
"""

import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "mount"))
import mounting  # noqa: E402  (lies in the folder beside)
from mounting import check, run  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGETS = () if mounting.is_long() else ("uext4_device",)
# Compilers write in the mount, and take nothing from a cache outside.
ENVIRONMENT = {**os.environ, "CCACHE_DISABLE": "1", "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory",
               "GIT_CONFIG_VALUE_0": "*"}


def build(project):
    words = ["--target", *TARGETS] if TARGETS else []
    return run("cmake", "--build", "--preset", "release", *words, cwd=project, env=ENVIRONMENT).stdout


def test(scratch):
    mounting.need("git", "cmake", "ninja")
    if not (ROOT / ".git").exists():
        mounting.skip("the sources are no git repository, from which to clone")
    image = scratch.image("image", "3G" if mounting.is_long() else "512M")
    directory = scratch.mount(image)
    project = directory / "project"
    run("git", "clone", "-q", ROOT, project, env=ENVIRONMENT)
    run("cmake", "--preset", "release", cwd=project, env=ENVIRONMENT)
    built = build(project)
    check("Linking CXX static library" in built, f"nothing was built:\n{built}")
    archives = sorted(path.name for path in project.glob("build/release/**/*.a"))
    check("no work to do" in build(project), "a second build has something to do")
    for name in archives:
        run("ar", "t", next(project.glob(f"build/release/**/{name}")))
    if mounting.is_long():
        run(project / "build" / "release" / "bin" / "uext4", "version")
    scratch.umount(directory)
    mounting.clean(image)
    directory = scratch.mount(image)
    check("no work to do" in build(project), "after a new mount a build has something to do")
    check(sorted(path.name for path in project.glob("build/release/**/*.a")) == archives, "other archives than before")
    run("git", "-C", project, "status", "--porcelain", env=ENVIRONMENT)
    scratch.umount(directory)
    mounting.clean(image)


if __name__ == "__main__":
    mounting.main(test)
