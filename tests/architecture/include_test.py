#!/usr/bin/env python3
"""Checks the shape of the source tree.

Fails on: an include that points upward or sideways, a circle between layers, a product that includes a test, a folder
that is no known layer, a file of the product over 450 lines or of a test over 700, a file or folder called `util`, and
paths of somebody's machine. Before it judges the tree it builds small broken trees and makes sure that each of these is
found.

Usage: include_test.py [ROOT]   (default: the tree this file is in)
"""

import pathlib
import re
import subprocess
import sys
import tempfile

# Lower layers first. Layers in one tuple stand side by side and may not include each other.
ORDER = [
    ("base",), ("sync",), ("format",), ("device",), ("journal", "pagecache"), ("alloc",), ("extent",),
    ("extent_status",), ("inode",), ("mmap",), ("file",), ("namespace",), ("volume",), ("check",), ("api",),
    ("sandbox",), ("capi", "cli", "fuse"),
]
HEIGHT = {layer: height for height, layers in enumerate(ORDER) for layer in layers}
HEIGHT["include"] = HEIGHT["api"]  # include/uext4 is the face of the api layer
# The program is one: its mount command starts the FUSE server and nothing includes the program.
ALLOWED_SIDEWAYS = {("cli", "fuse"), ("cli", "capi"), ("include", "api"), ("api", "include")}
FRONTENDS = ("sandbox", "capi", "cli", "fuse")

MAX_LINES = 700          # of a test
MAX_PRODUCT_LINES = 450  # of src, frontends and include, without their tests
LONGER_PRODUCT_FOLDERS = {"frontends/fuse"}
SOURCE_SUFFIXES = {".h", ".hpp", ".cpp", ".cc", ".c"}
TEXT_SUFFIXES = SOURCE_SUFFIXES | {".py", ".md", ".txt", ".cmake", ".json", ".in", ".sh", ".yml", ".yaml", ""}
# Written in pieces so that this file does not contain what it looks for.
MACHINE_PATHS = [re.compile(pattern) for pattern in (
    r"/wo" r"rk/(main|shared)\b", r"/tmp/br" r"ief", r"/tmp/bash_" r"jobs", r"(?<![\w.])/ro" r"ot/[\w.]",
    r"(?<![\w.])/ho" r"me/[a-z][\w-]*/", r"(?<![\w.])/Us" r"ers/[A-Za-z]")]
BANNED_NAMES = {"util", "utils", "utility", "utilities"}
INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')
UNNAMED_INCLUDE = re.compile(r'^\s*#\s*include\s+[^"<\s]')  # of a macro: nobody can tell which


def layer_of(path):
    """The layer a file belongs to (a relative path), None for what lies outside the layers."""
    parts = path.parts
    if parts[0] in ("src", "frontends") and len(parts) > 2:
        return parts[1]
    return "include" if parts[:2] == ("include", "uext4") else None


def limit_of(path):
    """Lines that a file may have."""
    is_product = path.parts[0] in ("src", "frontends", "include") and not path.stem.endswith("_test")
    return MAX_PRODUCT_LINES if is_product and path.parent.as_posix() not in LONGER_PRODUCT_FOLDERS else MAX_LINES


def included_layer(root, path, name, quoted):
    """The layer that an include names, None if it is a system header."""
    parts = pathlib.PurePosixPath(name).parts
    if quoted and (root / path.parent / name).is_file():
        resolved = (root / path.parent / name).resolve()
        try:
            return layer_of(resolved.relative_to(root.resolve()))
        except ValueError:
            return None
    if parts[0] == "uext4":
        return "include"
    if len(parts) > 1 and any((root / above / name).is_file() for above in ("src", "frontends")):
        return parts[0]  # in angle brackets as well: the compiler looks in the same folders
    if len(parts) > 2 and parts[0] in ("src", "frontends") and (root / name).is_file():
        return parts[1]
    if quoted and len(parts) > 1 and parts[0] in HEIGHT:
        return parts[0]
    if quoted and len(parts) > 1 and ((root / "src" / parts[0]).is_dir() or (root / "frontends" / parts[0]).is_dir()):
        return parts[0]
    return None


def files_of(root):
    """Relative paths of the tracked and the new files; of all files where there is no repository."""
    listing = subprocess.run(["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                             capture_output=True, text=True) if (root / ".git").exists() else None
    if listing is not None and listing.returncode == 0:
        names = [pathlib.PurePosixPath(name) for name in listing.stdout.split("\0") if name]
    else:
        names = [pathlib.PurePosixPath(path.relative_to(root).as_posix())
                 for path in sorted(root.rglob("*")) if path.is_file()]
    return sorted({pathlib.Path(name) for name in names if name.parts[0] not in ("build", ".git") and (root / name).is_file()})


def circles(edges):
    """Circles in a graph {layer: {layer: where}}, as readable lines."""
    found, state, stack = [], {}, []

    def visit(node):
        state[node] = "open"
        stack.append(node)
        for target in sorted(edges.get(node, {})):
            if state.get(target) == "open":
                ring = stack[stack.index(target):] + [target]
                steps = ", ".join(edges[a][b] for a, b in zip(ring, ring[1:]))
                found.append(f"circle between layers: {' -> '.join(ring)} ({steps})")
            elif target not in state:
                visit(target)
        stack.pop()
        state[node] = "done"

    for node in sorted(edges):
        if node not in state:
            visit(node)
    return found


def check(root):
    """All complaints about the tree at `root`, each one line."""
    complaints, edges = [], {}
    for path in files_of(root):
        for part in path.parts:
            if part.split(".")[0].lower() in BANNED_NAMES:
                complaints.append(f"{path}: `{part}` says nothing; name the subject")
        if path.suffix not in TEXT_SUFFIXES:
            continue
        try:
            lines = (root / path).read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            if path.suffix in SOURCE_SUFFIXES:
                complaints.append(f"{path}: not UTF-8")
            continue
        for number, line in enumerate(lines, 1):
            if any(pattern.search(line) for pattern in MACHINE_PATHS):
                complaints.append(f"{path}:{number}: the path of somebody's machine: {line.strip()[:100]}")
        if path.suffix not in SOURCE_SUFFIXES:
            continue
        most = limit_of(path)
        if len(lines) > most:
            complaints.append(f"{path}: {len(lines)} lines, more than {most}: a second subject moved in")
        layer = layer_of(path)
        if layer is None:
            if path.parts[0] in ("src", "frontends"):
                complaints.append(f"{path}: lies in no layer")
            continue
        if layer not in HEIGHT or (path.parts[0] == "frontends") != (layer in FRONTENDS):
            complaints.append(f"{path}: `{layer}` is no known layer of {path.parts[0]}/")
            continue
        is_test = path.stem.endswith("_test")
        for number, line in enumerate(lines, 1):
            if UNNAMED_INCLUDE.match(line):
                complaints.append(f"{path}:{number}: includes what a macro names")
            match = INCLUDE.match(line)
            if match and match[2].startswith("tests/") and not is_test:
                complaints.append(f"{path}:{number}: a product includes a test ({match[2]})")
            target = included_layer(root, path, match[2], match[1] == '"') if match else None
            if target is None or target == layer:
                continue
            where = f"{path}:{number}"
            if target not in HEIGHT:
                complaints.append(f"{where}: includes unknown layer `{target}`")
                continue
            sideways = (layer, target) in ALLOWED_SIDEWAYS
            if HEIGHT[target] >= HEIGHT[layer] and not sideways:
                direction = "up to" if HEIGHT[target] > HEIGHT[layer] else "sideways to"
                complaints.append(f"{where}: {layer} includes {direction} {target} ({match[2]})")
            if not is_test and "include" not in (layer, target):
                edges.setdefault(layer, {}).setdefault(target, where)
    return complaints + circles(edges)


def self_test():
    """Makes sure that each kind of fault is found, and that a good tree passes. Returns what is wrong."""
    good = {
        "src/base/bytes.h": "#pragma once\n#include <vector>\n",
        "src/format/inode.h": '#pragma once\n#include "base/bytes.h"\n',
        "src/api/volume.cpp": '#include "uext4/volume.h"\n#include "format/inode.h"\n',
        "include/uext4/volume.h": "#pragma once\n",
        "frontends/cli/main.cpp": '#include <uext4/volume.h>\n#include "fuse/server.h"\n',
        "frontends/fuse/server.h": "#pragma once\n",
    }
    faults = {
        "upward include": ({"src/base/up.cpp": '#include "journal/journal.h"\n'}, "base includes up to journal"),
        "upward include by a relative path": ({"src/base/up.cpp": '#include "../format/inode.h"\n'},
                                              "base includes up to format"),
        "upward include in angle brackets": ({"src/base/up.cpp": "#include <format/inode.h>\n"},
                                             "base includes up to format"),
        "upward include from the root": ({"src/base/up.cpp": '#include "src/format/inode.h"\n'},
                                         "base includes up to format"),
        "include of a macro": ({"src/base/up.cpp": "#include  HEADER\n"}, "includes what a macro names"),
        "sideways include": ({"src/journal/side.cpp": '#include "pagecache/folio.h"\n'},
                             "journal includes sideways to pagecache"),
        "circle": ({"src/base/a.h": '#include "format/inode.h"\n'}, "circle between layers: format -> base -> format"),
        "front end from a layer": ({"src/api/a.cpp": '#include "fuse/server.h"\n'}, "api includes up to fuse"),
        "product that includes a test": ({"src/base/a.h": '#include "tests/doubles/memory_device.h"\n'},
                                         "a product includes a test"),
        "unknown layer": ({"src/magic/a.cpp": "int a;\n"}, "`magic` is no known layer"),
        "include of an unknown layer": ({"src/magic/a.h": "\n", "src/api/a.cpp": '#include "magic/a.h"\n'},
                                        "includes unknown layer `magic`"),
        "file outside the layers": ({"src/a.cpp": "int a;\n"}, "lies in no layer"),
        "long file": ({"src/base/long.cpp": "// line\n" * (MAX_PRODUCT_LINES + 1)}, f"{MAX_PRODUCT_LINES + 1} lines"),
        "long test": ({"src/base/long_test.cpp": "// line\n" * (MAX_LINES + 1)}, f"{MAX_LINES + 1} lines"),
        "file called util": ({"src/base/util.h": "\n"}, "`util.h` says nothing"),
        "folder called utils": ({"tests/utils/a.py": "\n"}, "`utils` says nothing"),
        "machine path": ({"docs/a.md": "see /ho" "me/someone/notes\n"}, "path of somebody's machine"),
    }
    wrong = []

    def complaints_about(files):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for name, text in files.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(text, encoding="utf-8")
            return check(root)

    if found := complaints_about(good):
        wrong.append(f"self-test: a good tree was refused: {found}")
    for what, (files, expected) in faults.items():
        found = complaints_about(good | files)
        if not any(expected in line for line in found):
            wrong.append(f"self-test: {what} was not found; found {found}")
    if complaints_about(good | {"src/base/limit.cpp": "// line\n" * MAX_PRODUCT_LINES}):
        wrong.append(f"self-test: a file of exactly {MAX_PRODUCT_LINES} lines was refused")
    return wrong


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else __file__).resolve()
    if len(sys.argv) <= 1:
        root = root.parents[2]
    complaints = self_test() + check(root)
    for complaint in complaints:
        print(complaint)
    print(f"{len(complaints)} complaints about {len(files_of(root))} files")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
