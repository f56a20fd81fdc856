"""Counting what ctest ran: test cases where a program tells them apart, otherwise whole ctest entries."""

import dataclasses
import json
import subprocess
import xml.etree.ElementTree as xml

from .host import BUILD

# Kept short in the summary; the full output is in the log above it.
REASON_LENGTH = 300
# How a script that is expected to fail, and does, begins the line which says why (tests/mount/mounting.py).
KNOWN_FAULT = "expected to fail, and does: "


@dataclasses.dataclass
class Tally:
    passed: int = 0
    failed: list = dataclasses.field(default_factory=list)   # lines
    skipped: list = dataclasses.field(default_factory=list)  # lines, each with its reason
    faults: list = dataclasses.field(default_factory=list)   # lines: what passed because a known fault is still there

    def add(self, other, prefix=""):
        self.passed += other.passed
        self.failed += [prefix + line for line in other.failed]
        self.skipped += [prefix + line for line in other.skipped]
        self.faults += [prefix + line for line in other.faults]

    def last_line(self):
        return f"{self.passed} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"


def one_line(text):
    return " ".join((text or "").split())[:REASON_LENGTH]


def listed(preset, selection):
    """Names of the ctest entries that a selection (ctest options) stands for."""
    result = subprocess.run(["ctest", "--show-only=json-v1", *selection], cwd=BUILD / preset, capture_output=True,
                            text=True, check=False)
    try:
        return [test["name"] for test in json.loads(result.stdout)["tests"]]
    except (ValueError, KeyError):
        return []


def cases(path):
    """Tally of a GoogleTest report, None if there is none: then the program did not reach its end."""
    try:
        root = xml.parse(path).getroot()
    except (OSError, xml.ParseError):
        return None
    tally = Tally()
    for case in root.iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        skipped = case.find("skipped")
        if case.find("failure") is not None:
            tally.failed.append(name)
        elif skipped is not None or case.get("result") == "skipped":
            reason = (skipped.get("message") or skipped.text) if skipped is not None else ""
            # The first line of a message is the place in the source.
            lines = [line for line in (reason or "").splitlines() if line.strip()]
            tally.skipped.append(f"{name}: {one_line(' '.join(lines[1:] or lines)) or 'no reason given'}")
        elif case.get("status") == "run" or case.get("result") == "completed":
            tally.passed += 1
    return tally


def count(preset, junit, expected):
    """Tally of one ctest run from its JUnit file and the reports of the test programs."""
    tally, seen = Tally(), set()
    try:
        entries = list(xml.parse(junit).getroot().iter("testcase"))
    except (OSError, xml.ParseError):
        entries = []
    for entry in entries:
        name, status = entry.get("name"), entry.get("status")
        seen.add(name)
        skipped = entry.find("skipped")
        if status == "run":
            inner = cases(BUILD / preset / "results" / f"{name}.xml")
            if inner is None:
                tally.passed += 1
                tally.faults += [f"{name}: {one_line(line.removeprefix(KNOWN_FAULT))}"
                                 for line in (entry.findtext("system-out") or "").splitlines()
                                 if line.startswith(KNOWN_FAULT)]
            else:
                tally.add(inner, f"{name}: ")
        elif status == "disabled" or (skipped is not None and "SKIP" in (skipped.get("message") or "")):
            output = (entry.findtext("system-out") or "").strip().splitlines()
            tally.skipped.append(f"{name}: {one_line(output[-1]) if output else 'no reason given'}")
        else:
            inner = cases(BUILD / preset / "results" / f"{name}.xml")
            if inner is not None:
                tally.add(inner, f"{name}: ")
            if inner is None or not inner.failed:
                # ctest does not say whether it was the exit status, a signal or the time; the last words may.
                output = (entry.findtext("system-out") or "").strip().splitlines()
                last = f"; its last line: {one_line(output[-1])}" if output else ""
                tally.failed.append(f"{name}: failed after {float(entry.get('time') or 0):.1f} s{last}")
    for name in expected:
        if name not in seen:
            tally.failed.append(f"{name}: did not run within the time there is")
    return tally
