"""The verbs of ./dev."""

import argparse
import subprocess
import sys

from . import build, fuzzing, linting, packages, running, testing, usage
from .host import ROOT, GiveUp, output_on_stderr, say

HELP = """./dev VERB [...]

  run [IMAGE [DIR]]   build, then mount an image (a new one by default) and say how to use and stop it
  test                build everything and run the tests; --long, --sanitizers, -k REGEX
  build               the release program and libraries: build/release/bin, build/release/lib
  lint                format, layers, lock annotations, clang-tidy
  bench [...]         speed beside the kernel and fuse2fs: --json FILE|-, --workload NAME, --runs N, --list, --floors,
                      --library
  explore [...]       the schedule explorer
  crash [...]         the crash-state generator
  fuzz [TARGET ...]   fuzz targets, or `all`; without one, list them: --seconds N, --report FILE
  help                this text

Every verb looks at its words, then installs the Debian packages it needs (as root or with sudo) and builds what it uses.
`./dev VERB --help` tells more; bench, explore and crash pass their arguments on."""


def show_help(_arguments):
    say(HELP)
    return 0


def build_verb(arguments):
    argparse.ArgumentParser(prog="./dev build", description="Builds the release program and libraries: "
                            "build/release/bin, build/release/lib.").parse_args(arguments)
    packages.ensure("products")
    say(f"built {build.build_products()}")
    return 0


def bench(arguments):
    script = ROOT / "tools" / "bench" / "bench.py"
    sys.path.insert(0, str(script.parent))
    from bench import parse  # only this verb needs it
    tools = []
    if not parse(arguments).list:  # what is wrong, and --help, end here
        with output_on_stderr():
            packages.ensure("products", "tests")
            try:
                packages.ensure("bench")
            except GiveUp as reason:
                say(str(reason))  # bench.py leaves that peer out, and says so
            program = build.build_products()
        tools = ["--program", str(program), "--driver", str(program.parent / "uext4-bench-driver")]
        tools += ["--library-driver", str(program.parent / "uext4-bench-library")]
        if build.has_target("release", "bin/uext4-bench-micro"):
            tools += ["--micro", str(program.parent / "uext4-bench-micro")]
    return subprocess.run([sys.executable, "-B", str(script), *tools, *arguments], cwd=ROOT, check=False).returncode


def run_tool(name, purpose, arguments):
    listed = ROOT / "tests" / name / "usage.inc"
    if {"--help", "-h"} & set(arguments):
        say(usage.text_of(listed))
        return 0
    usage.judge(listed, arguments)
    with output_on_stderr():
        packages.ensure("products", "tests")
        tool = build.build_tool("debug", f"uext4-{name}", purpose)
    return subprocess.run([str(tool), *arguments], cwd=ROOT, check=False).returncode


def explore(arguments):
    return run_tool("explore", "the schedule explorer", arguments)


def crash(arguments):
    return run_tool("crash", "the crash-state generator", arguments)


VERBS = {
    "run": running.run, "test": testing.test, "build": build_verb, "lint": linting.lint, "bench": bench,
    "explore": explore, "crash": crash, "fuzz": fuzzing.fuzz, "help": show_help, "--help": show_help, "-h": show_help,
}


def main(arguments):
    if not arguments:
        say(HELP)
        return 2
    verb = VERBS.get(arguments[0])
    if verb is None:
        print(f"./dev: there is no verb {arguments[0]}; ./dev help lists them", file=sys.stderr)
        return 2
    try:
        return verb(arguments[1:])
    except GiveUp as reason:
        print(f"./dev {arguments[0]}: {reason}", file=sys.stderr)
        return reason.status
    except KeyboardInterrupt:
        return 130
