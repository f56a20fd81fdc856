"""./dev lint: format, clang-tidy, lock annotations, layers."""

import argparse
import concurrent.futures
import hashlib
import json
import pathlib
import subprocess
import sys

from . import build, host, packages
from .host import BUILD, ROOT, say

TIDY_OPTIONS = ("--quiet", "--extra-arg=-Wno-unknown-warning-option")
COMPILED = (".cpp", ".cc", ".c")
SUFFIXES = (".h", ".hpp", *COMPILED)


# Follows paths through the code; of tests it says little, and takes most of the time there.
PATHS = "-clang-analyzer-*"


def options_for(file):
    """clang-tidy's options for a source file of the product or of the tests."""
    parts = pathlib.Path(file).relative_to(ROOT).parts
    is_test = parts[0] == "tests" or parts[-1].endswith("_test.cpp")
    return (*TIDY_OPTIONS, f"--checks={PATHS}") if is_test else TIDY_OPTIONS


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


def headers_of(folder):
    """{source: paths it was compiled from} as ninja recorded them; empty where nothing was built yet."""
    listing = subprocess.run(["ninja", "-C", str(folder), "-t", "deps"], capture_output=True, text=True,
                             check=False).stdout
    found = {}
    for block in listing.split("\n\n"):
        names = [line.strip() for line in block.splitlines()[1:] if line.strip()]
        if names:
            paths = [str((folder / name).resolve()) for name in names]
            # A sanitizer's own list of exceptions comes before the source.
            source = next((path for path in paths if path.endswith(COMPILED)), None)
            if source:
                found[source] = paths
    return found


class Digests:
    """What a file's verdict depends on: its command, what it includes of ours, the rules and the checker."""

    def __init__(self, folder):
        self.headers = headers_of(folder)
        self.contents = {}
        version = subprocess.run(["clang-tidy-19", "--version"], capture_output=True, text=True, check=False).stdout
        self.base = version + (ROOT / ".clang-tidy").read_text(encoding="utf-8")

    def of_content(self, path):
        if path not in self.contents:
            try:
                self.contents[path] = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
            except OSError:
                self.contents[path] = "missing"
        return self.contents[path]

    def of(self, command):
        """None where nobody knows yet what the file includes: then it is checked each time."""
        paths = self.headers.get(str(pathlib.Path(command["file"]).resolve()))
        if paths is None:
            return None
        whole = hashlib.sha256((self.base + str(options_for(command["file"])) + command["command"]).encode())
        for path in sorted(paths):
            if path.startswith(str(ROOT)):
                whole.update(f"{path} {self.of_content(path)}\n".encode())
        return whole.hexdigest()


def tidy_complaints():
    folder = BUILD / "asan"  # just built, for the lock annotations: clang's own commands, each file by itself
    commands = json.loads((folder / "compile_commands.json").read_text(encoding="utf-8"))
    tracked = {str(ROOT / name) for name in sources()}
    wanted = {command["file"]: command for command in commands if command["file"] in tracked}
    digests = Digests(folder)
    seen = BUILD / "tidy"  # an empty file for each verdict "nothing to complain about"
    seen.mkdir(exist_ok=True)

    def tidy(file):
        digest = digests.of(wanted[file])
        if digest and (seen / digest).exists():
            return file, None
        result = subprocess.run(["clang-tidy-19", "-p", str(folder), *options_for(file), file], cwd=ROOT, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
        if digest and result.returncode == 0:
            (seen / digest).touch()
        return file, result

    bad = known = 0
    with concurrent.futures.ThreadPoolExecutor(host.jobs()) as pool:
        for file, result in pool.map(tidy, sorted(wanted)):
            if result is None:
                known += 1
            elif result.returncode != 0:
                bad += 1
                say(f"clang-tidy: {file}\n{result.stdout}")
    say(f"clang-tidy: {bad} of {len(wanted)} files have complaints; {known} are unchanged since they had none")
    return bad != 0 or not wanted


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
    argparse.ArgumentParser(prog="./dev lint", description="Looks at format, layers, lock annotations, and with "
                            "clang-tidy. Exit status 1: something was found.").parse_args(arguments)
    packages.ensure("products", "tests", "clang")
    steps = (("layers", layer_complaints), ("format", format_complaints), ("lock annotations", lock_complaints),
             ("clang-tidy", tidy_complaints))
    bad = []
    for name, step in steps:
        say(f"== {name}")
        if step():
            bad.append(name)
    say(f"lint: {', '.join(bad)} found fault" if bad else "lint: nothing to complain about")
    return 1 if bad else 0
