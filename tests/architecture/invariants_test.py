#!/usr/bin/env python3
"""docs/INVARIANTS.md has every numbered rule of a header in src, in the file that it names, and no other.

Functions that the table of block states names exist in src/extent_status.

Usage: invariants_test.py ROOT
"""

import pathlib
import re
import sys

IN_HEADER = re.compile(r"^//   ([A-Z]\d+)  \S")
IN_TABLE = re.compile(r"^\| ([A-OQ-Z]\d+) \| `([a-z_]+\.h)` \|")
FUNCTION = re.compile(r"`([A-Z]\w+)::(\w+)`")


def rules_of_headers(root):
    found = {}
    for header in sorted(root.glob("src/*/*.h")):
        for line in header.read_text(encoding="utf-8").splitlines():
            if match := IN_HEADER.match(line):
                found.setdefault(match[1], []).append(header.name)
    return found


def complaints_about(headers, document, sources):
    complaints = [f"rule {rule} stands in several headers: {', '.join(names)}" for rule, names in headers.items() if len(names) > 1]
    told = {}
    for line in document.splitlines():
        if match := IN_TABLE.match(line):
            told[match[1]] = match[2]
    for rule, names in headers.items():
        if told.get(rule) != names[0]:
            complaints.append(f"rule {rule} of {names[0]}: docs/INVARIANTS.md names {told.get(rule, 'nothing')}")
    complaints += [f"rule {rule}: no header has it" for rule in told if rule not in headers]
    for line in document.split("## Page cache")[0].splitlines():
        for name, method in FUNCTION.findall(line) if line.startswith("|") else ():
            if not re.search(rf"\b{name}::{method}\(", sources):
                complaints.append(f"{name}::{method} of docs/INVARIANTS.md is not in src/extent_status")
    return complaints


def self_test():
    headers = {"A1": ["a.h"]}
    row = "| A1 | `a.h` | A rule. | a test |\n"
    wrong = {
        "a rule that is missing": ({"A1": ["a.h"], "A2": ["a.h"]}, row),
        "a rule that no header has": ({}, row),
        "another header": ({"A1": ["b.h"]}, row),
        "a rule in two headers": ({"A1": ["a.h", "b.h"]}, row),
        "a function that is missing": (headers, row + "| `Gone::away` |\n"),
    }
    if complaints_about(headers, row, ""):
        return ["self-test: a good document was refused"]
    return [f"self-test: {what} was not found" for what, (rules, text) in wrong.items() if not complaints_about(rules, text, "")]


def main():
    root = pathlib.Path(sys.argv[1])
    sources = "\n".join(path.read_text(encoding="utf-8") for path in sorted(root.glob("src/extent_status/*")) if path.suffix in (".h", ".cpp"))
    complaints = self_test() + complaints_about(rules_of_headers(root), (root / "docs/INVARIANTS.md").read_text(encoding="utf-8"), sources)
    for complaint in complaints:
        print(complaint)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
