"""./dev lint: format, clang-tidy, lock annotations, layers."""

import concurrent.futures
import json
import subprocess
import sys

from . import build, host, packages
from .host import BUILD, ROOT, say

SUFFIXES = (".h", ".hpp", ".cpp", ".cc", ".c")


def sources():
    """The tracked source files, as paths from the root."""
    listing = host.run(["git", "ls-files", "-z"], capture_output=True, text=True).stdout
    return [name for name in listing.split("\0") if name.endswith(SUFFIXES) and (ROOT / name).is_file()]


def format_complaints():
    result = subprocess.run(["clang-format-19", "--dry-run", "-Werror", *sources()], cwd=ROOT, stderr=subprocess.STDOUT,
                            stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode != 0:
        say(result.stdout)
    return result.returncode != 0


def tidy_complaints():
    commands = json.loads((BUILD / "debug" / "compile_commands.json").read_text(encoding="utf-8"))
    tracked = {str(ROOT / name) for name in sources()}
    files = sorted({command["file"] for command in commands} & tracked)

    def tidy(file):
        # The commands are g++'s: clang does not know all of its warnings.
        return file, subprocess.run(["clang-tidy-19", "-p", str(BUILD / "debug"), "--quiet",
                                     "--extra-arg=-Wno-unknown-warning-option", file], cwd=ROOT, text=True,
                                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)

    bad = 0
    with concurrent.futures.ThreadPoolExecutor(host.jobs()) as pool:
        for file, result in pool.map(tidy, files):
            if result.returncode != 0:
                bad += 1
                say(f"clang-tidy: {file}\n{result.stdout}")
    say(f"clang-tidy: {bad} of {len(files)} files have complaints")
    return bad != 0 or not files


def layer_complaints():
    script = ROOT / "tests" / "architecture" / "include_test.py"
    return subprocess.run([sys.executable, str(script)], cwd=ROOT, check=False).returncode != 0


def lock_complaints():
    """Compiles everything with clang, where a broken lock annotation is an error."""
    try:
        build.build("asan")
    except host.GiveUp as reason:
        say(str(reason))
        return True
    return False


def lint(arguments):
    if arguments:
        raise host.GiveUp("lint takes no arguments")
    packages.ensure("products", "tests", "clang")
    with build.locked("debug"):
        build.configure("debug")
    steps = (("layers", layer_complaints), ("format", format_complaints), ("lock annotations", lock_complaints),
             ("clang-tidy", tidy_complaints))
    bad = []
    for name, step in steps:
        say(f"== {name}")
        if step():
            bad.append(name)
    say(f"lint: {', '.join(bad)} found fault" if bad else "lint: nothing to complain about")
    return 1 if bad else 0
