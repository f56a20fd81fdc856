#!/usr/bin/env python3
"""Compares documents with the source.

docs/INVARIANTS.md has every numbered rule of a header in src, in the file that it names, and no other. Functions that its
table of block states names exist in src/extent_status. Functions and files that docs/ARCHITECTURE.md names exist.

Usage: documents_test.py ROOT
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


def defined(name, member, sources):
    """A class, and a word that stands in a file which defines it or names both together."""
    if any(f"{name}::{member}" in text for text in sources.values()):
        return True
    definition = re.compile(rf"\b(class|struct)\b[^;{{]*\b{name}\b[^;{{]*{{")
    return any(definition.search(text) and re.search(rf"\b{member}\b", text) for text in sources.values())


def missing_names(document, sources):
    """Names in backticks: Class::member, function, folder/file."""
    missing = []
    for word in sorted(set(re.findall(r"`([^`\s]+)`", document))):
        if match := re.fullmatch(r"(\w+)::(\w+)", word):
            found = defined(match[1], match[2], sources)
        elif re.fullmatch(r"[a-z]+_[a-z_]+", word):
            found = any(re.search(rf"\b{word}\b", text) for text in sources.values())
        elif word.startswith("src/"):
            found = any(path == word or path.startswith(word + "/") for path in sources)
        else:
            continue
        if not found:
            missing.append(f"docs/ARCHITECTURE.md names {word}, which is not in src")
    return missing


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
    sources = {"src/a/a.h": "class Here { void is(); };\nvoid a_function();\n"}
    good = "`Here::is` `a_function` `src/a/a.h` `src/a`\n"
    if complaints_about(headers, row, "") or missing_names(good, sources):
        return ["self-test: a good document was refused"]
    for name in ("`Here::gone`", "`Gone::is`", "`no_function`", "`src/b`"):
        if not missing_names(name, sources):
            return [f"self-test: {name} was not found to be missing"]
    return [f"self-test: {what} was not found" for what, (rules, text) in wrong.items() if not complaints_about(rules, text, "")]


def main():
    root = pathlib.Path(sys.argv[1])
    sources = {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8")
               for path in sorted(root.glob("src/*/*")) if path.suffix in (".h", ".cpp")}
    states = "\n".join(text for path, text in sources.items() if path.startswith("src/extent_status/"))
    complaints = self_test() + complaints_about(rules_of_headers(root), (root / "docs/INVARIANTS.md").read_text(encoding="utf-8"), states)
    complaints += missing_names((root / "docs/ARCHITECTURE.md").read_text(encoding="utf-8"), sources)
    for complaint in complaints:
        print(complaint)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
