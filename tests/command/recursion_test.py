#!/usr/bin/env python3
"""chmod, chown, touch, lsattr and getfattr on trees and with references, as coreutils do it on a tree of the host.

Usage: recursion_test.py PROGRAM
"""

import json
import os
import re
import shutil
import subprocess

from verbs import FINE, IMPOSSIBLE, NO, check, mounting, prepare


def make_tree(top):
    """Below "tree" links in, out of and around it; beside it what they lead to."""
    (top / "tree" / "in").mkdir(parents=True)
    (top / "tree" / "file").write_text("x")
    (top / "tree" / "in" / "below").write_text("x")
    (top / "outside").mkdir()
    (top / "outside" / "inner").write_text("x")
    (top / "alone").write_text("x")
    os.symlink("../outside", top / "tree" / "to outside")
    os.symlink("../alone", top / "tree" / "to alone")
    os.symlink("file", top / "tree" / "to file")
    os.symlink("tree", top / "named")
    for path in top.rglob("*"):
        if not path.is_symlink():
            os.chmod(path, 0o750 if path.is_dir() else 0o640)
    os.chmod(top / "tree" / "in", 0o2750)
    os.chmod(top / "tree" / "file", 0o740)


def state_of(top):
    out = {}
    for path in sorted([top, *top.rglob("*")]):
        status = os.lstat(path)
        mode = None if path.is_symlink() else oct(status.st_mode & 0o7777)
        out[str(path.relative_to(top))] = (mode, status.st_uid, status.st_gid)
    return out


CHMOD = ("-R 700 tree", "-R u+x,g-w tree", "-R a+rX tree", "-R 0755 tree", "-R 00755 tree", "-R g+s tree", "-R -x tree", "-R 711 named",
         "755 tree/in tree/file", "--reference=tree/file alone tree/in", "-R --reference tree/file outside", "711 named", "o= tree/file alone",
         "2755 tree/in", "755 tree/in", "-R -L 711 tree", "-R -H 711 named", "-R -P 711 named", "-R -P 711 tree", "-R -L -P 711 tree")
# What chmod(1) has no words for before coreutils 9.5.
SAID_OTHERWISE = {"-R -L 711 tree": "find -L tree -exec chmod 711 {} +", "-R -H 711 named": "chmod -R 711 named", "-R -P 711 named": "true",
                  "-R -P 711 tree": "chmod -R 711 tree", "-R -L -P 711 tree": "chmod -R 711 tree"}
CHOWN = ("-R 7:8 tree", "-R :9 tree", "-R -h 7:8 tree", "-R -P 7:8 named", "-R -H 7:8 named", "-R -H 7:8 tree", "-R -L 7:8 tree", "-R -L 7:8 named",
         "-R -H -h 7:8 tree", "-R -L -h 7:8 tree", "-h 7:8 named", "7:8 named", "7 tree alone", "--reference=alone tree", "-R -L -P 7:8 tree")


def changes(scratch, verbs):
    """Modes and owners of a tree are those that chmod(1) and chown(1) give it."""
    host = scratch.path("changed")
    for verb, cases in (("chmod", CHMOD), ("chown", CHOWN)):
        for number, case in enumerate(cases):
            shutil.rmtree(host, ignore_errors=True)
            host.mkdir()
            make_tree(host)
            os.chown(host / "alone", 20, 30)
            folder = f"/{verb}{number}"
            verbs("cp", "-a", host, f":{folder}")
            words = case.split()
            command = ("sh", "-c", SAID_OTHERWISE[case]) if verb == "chmod" and case in SAID_OTHERWISE else (verb, *words)
            mounting.run(*command, cwd=host, umask=0)
            first = next(i for i, word in enumerate(words) if not word.startswith("-"))
            is_place = {i for i, word in enumerate(words) if i >= first and not re.fullmatch(r"[0-9:]+|[ugoa]*[-+=].*", word)}
            placed = [f"{verbs.image}:{folder}/{word}" if i in is_place else word.replace("=", f"={verbs.image}:{folder}/", 1)
                      if word.startswith("--reference=") else word for i, word in enumerate(words)]
            mounting.run(verbs.program, verb, *placed)
            back = scratch.path("back")
            shutil.rmtree(back, ignore_errors=True)
            verbs("cp", "-a", f":{folder}", back)
            expected, got = state_of(host), state_of(back)
            check(got == expected, f"{verb} {case}: " + str({path: (got.get(path), state) for path, state in expected.items() if got.get(path) != state}))
    mounting.clean(verbs.image)


def told(verbs):
    """-v, -c and -f; what fails ends nothing."""
    verbs("mkdir", ":/told")
    verbs("touch", ":/told/a", ":/told/b")
    verbs("chmod", "600", ":/told/a", ":/told/b")
    check(verbs("chmod", "-v", "644", ":/told/a") == "mode of '/told/a' changed from 0600 (rw-------) to 0644 (rw-r--r--)\n", "chmod -v")
    check(verbs("chmod", "-c", "644", ":/told/a", ":/told/b") == "mode of '/told/b' changed from 0600 (rw-------) to 0644 (rw-r--r--)\n", "chmod -c")
    check(verbs("chmod", "-v", "644", ":/told/a") == "mode of '/told/a' retained as 0644 (rw-r--r--)\n", "chmod -v")
    verbs("chown", "1:2", ":/told/a")
    check(verbs("chown", "-v", "3", ":/told/a") == "changed ownership of '/told/a' from 1:2 to 3:2\n", "chown -v")
    for words in (("chmod", "600"), ("chown", "9:9"), ("chattr", "+d"), ("touch", "-d", "@7")):
        verbs(*words, ":/told/a", ":/told/missing/x", ":/told/b", status=NO, says=":/told/missing")
    for name in ("a", "b"):
        status = verbs.status(f"/told/{name}")
        check((status["mode_octal"], status["uid"]) == ("0600", 9) and status["mtime"].startswith("1970-01-01"), f"{status}")
        check("d" in verbs("lsattr", f":/told/{name}").split()[0], "chattr")
    result = subprocess.run([verbs.program, "chmod", "-f", "600", f"{verbs.image}:/none"], capture_output=True, text=True, check=False)
    check((result.returncode, result.stderr) == (NO, ""), f"chmod -f: {result}")
    for words, says in ((("chmod", "644"), "place"), (("chown", "root", ":/told"), "root"), (("chmod", "u+q", ":/told"), "u+q")):
        verbs(*words, status=IMPOSSIBLE, says=says)


def touches(scratch, verbs):
    """Times as touch(1) sets them."""
    host = scratch.path("touched")
    host.mkdir()
    os.environ["TZ"] = "EST5EDT,M3.2.0,M11.1.0"
    (host / "reference").touch()
    (host / "file").touch()
    times = 981_173_106_000_000_789, 1_281_173_106_000_000_001
    os.utime(host / "reference", ns=times)
    verbs("cp", "-a", host, ":/touched")
    os.utime(host / "reference", ns=times)  # the copy has read it
    for words in (("-d", "2026-01-31 23:59:58.5"), ("-d", "2026-07-31"), ("-d", "2026-07-31T12:00:00Z"), ("-d", "2026-07-31 12:00 +0530"),
                  ("-d", "2026-07-31T12:00:00.123456789+05:30"), ("-d", "@1000000000"), ("-d", "@-5.25"), ("-d", "@1.000000001"),
                  ("-d", "2026-01-31 12:00:00 1 month ago"), ("-d", "2026-03-31 +1 day"), ("-d", "2026-03-07 12:00 1 day"),
                  ("-d", "2026-03-07 12:00 24 hours"), ("-d", "2026-01-05 10:00 2 weeks ago"), ("-d", "2024-02-29 1 year"), ("-d", "2026-01-01 10:00:00 UTC"),
                  ("-t", "202601312359.58"), ("-t", "7001010000"), ("-t", "6801010000"), ("-a", "-d", "@7"), ("-m", "-d", "@8"), ("-a", "-m", "-d", "@9"),
                  ("-r", "reference"), ("-a", "-r", "reference"), ("-r", "reference", "-d", "+1 day"), ("-r", "reference", "-d", "2 hours ago")):
        mounting.run("touch", *words, host / "file")if "-r" not in words else mounting.run("touch", *words, "file", cwd=host)
        verbs("touch", *(f"{verbs.image}:/touched/reference" if word == "reference" else word for word in words), ":/touched/file")
        status, expected = verbs("stat", "-c", "%.9X %.9Y", ":/touched/file"), os.stat(host / "file")
        wanted = " ".join(f"{'-' * (ns < 0)}{abs(ns) // 10**9}.{abs(ns) % 10**9:09}" for ns in (expected.st_atime_ns, expected.st_mtime_ns)) + "\n"
        check(status == wanted, f"touch {words}: {status} is not {wanted}")
    verbs("touch", "-r", host / "reference", ":/touched/file", ":/touched/new")
    check(verbs("stat", "-c", "%.9Y", ":/touched/new") == "1281173106.000000001\n", "the times of a file of the host")
    mounting.run(verbs.program, "touch", "-r", ":/touched/reference", f"{verbs.image}:/touched/new")
    check(verbs("stat", "-c", "%.9X", ":/touched/new") == "981173106.000000789\n", "a reference in the image of the last place")
    for text in ("now", "today", "yesterday", "tomorrow", "2 days ago", "1 hour", "12:34", "yesterday 12:34"):
        mounting.run("touch", "-d", text, host / "file")
        verbs("touch", "-d", text, ":/touched/file")
        difference = int(verbs("stat", "-c", "%Y", ":/touched/file")) - int(os.stat(host / "file").st_mtime)
        check(0 <= difference < 60 or "12:34" in text and difference == 0, f"touch -d {text}: {difference} seconds")
    for words, says in ((("-d", "soon"), "soon"), (("-d", "2026-02-30"), "2026-02-30"), (("-d", "2026-13-01"), "13"), (("-d", ""), "''"),
                        (("-t", "13010000"), "13010000"), (("-t", "1"), "'1'"), (("-d", "25:00"), "25:00"), (("-t", "01010000", "-d", "now"), "-t")):
        verbs("touch", *words, ":/touched/file", status=IMPOSSIBLE, says=says)
    verbs("touch", "-c", ":/touched/none")
    verbs("stat", ":/touched/none", status=NO)
    verbs("touch", "-h", ":/touched/none", status=NO, says="/touched/none")
    verbs("ln", "-s", "target", ":/touched/link")
    verbs("touch", ":/touched/link")
    check(verbs.status("/touched/target")["size"] == 0, "what a link leads to is made")
    verbs("touch", "-h", "-d", "@5", ":/touched/link")
    check(verbs("stat", "-c", "%Y", ":/touched/link") == "5\n" and verbs("stat", "-c", "%Y", ":/touched/target") != "5\n", "touch -h")
    os.environ["TZ"] = "UTC0"
    mounting.clean(verbs.image)


def flags(verbs):
    """lsattr lists what is in directories; -d does not, -R goes on below, -a shows hidden names."""
    verbs("mkdir", "-p", ":/flags/in")
    verbs("touch", ":/flags/a", ":/flags/.hidden", ":/flags/in/b")
    verbs("ln", "-s", "a", ":/flags/link")
    verbs("chattr", "-R", "+d", ":/flags")

    def paths(*words):
        lines = verbs("lsattr", *words).splitlines()
        check(all("d" in line.split()[0] for line in lines if " " in line and not line.endswith("..")), f"{lines}")
        return [line.split(" ", 1)[1] if " " in line else line for line in lines]

    check(paths(":/flags") == ["/flags/a", "/flags/in"], f"{paths(':/flags')}")
    check(paths("-d", ":/flags", ":/flags/a") == ["/flags", "/flags/a"], f"{paths('-d', ':/flags')}")
    check(paths("-R", ":/flags") == ["/flags/a", "/flags/in", "", "/flags/in:", "/flags/in/b", ""], f"{paths('-R', ':/flags')}")
    check([path for path in paths("-a", ":/flags") if not path.endswith("..")] == ["/flags/.", "/flags/.hidden", "/flags/a", "/flags/in"], "lsattr -a")
    check([entry["path"] for entry in json.loads(verbs("lsattr", "--json", ":/flags"))] == ["/flags/a", "/flags/in"], "lsattr --json")
    check(json.loads(verbs("lsattr", "--json", ":/flags/a"))["path"] == "/flags/a", "lsattr --json of a file")


def values(verbs):
    verbs("setfattr", "-n", "user.x", "-v", "1", ":/flags/a", ":/flags/in/b")
    expected = '# file: /flags/a\nuser.x="1"\n\n# file: /flags/in/b\nuser.x="1"\n\n'
    check(verbs("getfattr", ":/flags/a", ":/flags", ":/flags/in/b") == expected, verbs("getfattr", ":/flags/a", ":/flags/in/b"))
    check(verbs("getfattr", "-R", ":/flags") == expected, verbs("getfattr", "-R", ":/flags"))
    check(verbs("getfattr", "-d", ":/flags/a") == 'user.x="1"\n', "getfattr -d")
    check(verbs("getfattr", "--only-values", "-n", "user.x", ":/flags/a") == "1", "getfattr --only-values")
    found = json.loads(verbs("getfattr", "--json", "-R", ":/flags"))
    check([(entry["path"], entry["attributes"][0]["value"]) for entry in found] == [("/flags/a", "1"), ("/flags/in/b", "1")], f"{found}")


def shell(verbs):
    lines = ("cd /told\nchmod -R 700 .\nchmod -v -x a\nchmod --reference=a b\ntouch -d @77 a\ntouch -r a b\nstat -c '%Y %a' b\n"
             "chown -R 5:6 /told\nfind -uid 5 -name b\n")
    result = subprocess.run([verbs.program, "shell", verbs.image], input=lines, text=True, capture_output=True, check=False)
    check(result.returncode == FINE and "77 600\n" in result.stdout and "/told/./b\n" not in result.stdout and "/told/b\n" in result.stdout, f"{result}")


def test(scratch):
    verbs = prepare(scratch)
    changes(scratch, verbs)
    told(verbs)
    touches(scratch, verbs)
    flags(verbs)
    values(verbs)
    shell(verbs)
    mounting.clean(verbs.image)


if __name__ == "__main__":
    mounting.main(test)
