#!/usr/bin/env python3
"""find finds and prints what find(1) does on the kernel's mount of the same image.

Usage: find_test.py PROGRAM
"""

import json
import subprocess

from specimen import Specimen
from verbs import IMPOSSIBLE, NO, check, mounting

EXPRESSIONS = (
    "", "-print", "-name *e*", "-name .*", "-iname A*", "-name [0-9]*", "-path */a/*", "-ipath */A/*", "-wholename */b",
    "-lname dir*", "-lname *", "-type f", "-type d", "-type l", "-type c,b", "-type p,s,l", "-not -type f", "! -type f",
    "-size 0", "-size +1", "-size -2", "-size 2", "-size 3c", "-size +1023c", "-size -1025c", "-size 1k", "-size -1k", "-size +10k",
    "-size 10k", "-size 1M", "-size -1M", "-size +1M", "-size -1G", "-size +4G", "-size 2w", "-size 195b", "-empty", "-empty -type d",
    "-mtime 0", "-mtime 1", "-mtime +1", "-mtime -1", "-mtime 10", "-mtime -200", "-mtime +200", "-mmin -30", "-mmin +50", "-mmin 61",
    "-atime +100", "-amin -100", "-ctime 0", "-ctime -1", "-ctime +0", "-cmin -600",
    "-newer @/times/2001", "-newer @/deep/z", "-anewer @/times/summer", "-cnewer @/times/2001", "-newermt 2025-01-01",
    "-uid 1000", "-uid -5", "-uid +0", "-gid 4000000000", "-gid 0 -type p", "-links 2", "-links +2", "-links -2 -type f",
    "-inum 2", "-inum -20", "-perm 644", "-perm 4711", "-perm -111", "-perm -u+s", "-perm /6000", "-perm /o+w", "-perm /222", "-perm -0",
    "-perm /0", "-perm u=rw,go=r", "-maxdepth 0", "-maxdepth 1", "-mindepth 2", "-mindepth 1 -maxdepth 2", "-depth -type d",
    "-type f -name *0 -size +1k", "-type f -a -name *0", "-name a -o -name z", "-name a -or -name z -and -type f",
    "( -name a -o -name z ) -type d", "! ( -type d -o -type f )", "-not ( -name a -o -not -type d )", "-true", "-false", "! -false -name z",
    "-name deep -prune -o -print", "-name deep -prune -o -name sizes -prune -o -type f -print", "-name z , -name a", "-type d -print , -name z -print",
    "-name sizes -prune", "-print0", "-type f -print0", "-ls", "-type l -ls", "-user 1000", "-group 0 -type l")
FORMATS = (r"%p\n", r"%f|%h|%P|%H|%d\n", r"%s %b %k %n %i\n", r"%m %#m %M %y %Y\n", r"%U %G\n", r"%l\n", r"%T@ %A@\n", r"%t|%a\n",
           r"%TY-%Tm-%Td %TH:%TM:%TS|%TT|%T+|%TZ|%Tj|%Tb|%TA\n", r"[%10s][%-10s][%-30f][%5m][%05m]\n", r"%%\101\t\0\\|", r"%p\n\cnever")


def expression_of(text, top):
    return [word.replace("@", top) if word.startswith("@/") else word for word in text.split()]


def tests(specimen):
    image = f"{specimen.verbs.image}:"
    for number, text in enumerate(EXPRESSIONS):
        if text == "-user 1000" or text.startswith("-group"):
            continue  # find(1) takes numbers that are no names as well
        for places in (["/"],) if number % 5 else (["/"], ["/deep", "/sizes/3", "/kinds/to directory"]):
            compare(specimen, (), places, expression_of(text, image), expression_of(text, str(specimen.directory)))
    for text in ("-user 1000", "-group 0 -type p", "-type f -user 0"):
        compare(specimen, (), ["/"], text.split(), text.split())
    for follow in ("-H", "-L", "-P"):
        for text in ("-type d", "-type l", "-type f", "-newer @/times/2001"):
            # In a circle find(1) says so and fails.
            for places in (["/kinds"], ["/kinds/to directory", "/kinds/link"]):
                compare(specimen, (follow,), places, expression_of(text, image), expression_of(text, str(specimen.directory)))


def formats(specimen):
    for zone in ("UTC0", "EST5EDT,M3.2.0,M11.1.0"):
        for text in FORMATS:
            compare(specimen, (), ["/kinds/directory", "/sizes/3", "/deep/a"], ["-printf", text], ["-printf", text], zone)
            compare(specimen, (), ["/times/2001", "/times/1960", "/kinds/file", "/kinds/link", "/kinds/nowhere", "/kinds/null", "/deep/loop"], ["-printf", text], ["-printf", text], zone)


def without_owners(text):
    """Lines of -ls without the names of owners, which an image does not have, without what the locale decides (a letter that
    is not in ASCII) and without a time that has another form in find(1)."""
    lines = [line.split(maxsplit=6) for line in text.split("\n") if line and "\u00fc" not in line and "\\303" not in line and "in\\ an\\ hour" not in line]
    return "\n".join(" ".join([*columns[:4], *columns[6].split()]) for columns in lines)


def compare(specimen, follow, places, behind, oracle, zone="UTC0"):
    """What is found is the same; the order in which find(1) finds it is that of the directories."""
    command = [specimen.verbs.program, "find", *follow, *(f"{specimen.verbs.image}:{place}" for place in places), *behind]
    result = subprocess.run(command, capture_output=True, check=False, env={"TZ": zone})
    check(result.returncode == 0 and result.stderr == b"", f"{command}: {result}")
    got = result.stdout.decode(errors="surrogateescape")
    expected = specimen.of_kernel(["find", *follow], places, zone, oracle)
    if "-ls" in behind:
        got, expected = without_owners(got), without_owners(expected)
    split = "\0" if "-print0" in behind else "\n"
    check(sorted(got.split(split)) == sorted(expected.split(split)),
          f"find {' '.join([*follow, *places, *behind])}, TZ={zone}\n--- finds\n{got}\n--- expected\n{expected}")


def order(specimen):
    """Names in their order, directories before or, with -depth, after what is in them; -quit ends all."""
    verbs = specimen.verbs
    check(verbs("find", ":/deep", "-type", "d") == "/deep\n/deep/a\n/deep/a/b\n/deep/a/b/c\n/deep/z\n", "find")
    check(verbs("find", ":/deep", "-depth", "-type", "d") == "/deep/a/b/c\n/deep/a/b\n/deep/a\n/deep/z\n/deep\n", "find -depth")
    check(verbs("find", ":/deep", "-name", "b", "-print", "-quit") == "/deep/a/b\n", "find -quit")
    check(verbs("find", ":/deep", "-name", "b", "-quit") == "", "-quit is an action that prints nothing")
    found = json.loads(verbs("find", "--json", ":/sizes", "-name", "1024"))
    check([(entry["path"], entry["size"], entry["type"]) for entry in found] == [("/sizes/1024", 1024, "regular file")], f"{found}")
    # A path of the host, and one of another image, may say what is newer.
    check(verbs("find", ":/deep", "-name", "z", "-newer", "/etc/hostname") == "", "newer than a file of the host")
    other = specimen.scratch.image("reference", "8M", "-t", "ext4")
    shown = verbs("find", ":/times", "-newer", f"{other}:/", "-type", "f")
    check(shown == "/times/2100\n/times/in an hour\n", shown)


def refusals(specimen):
    verbs = specimen.verbs
    for words, says in ((("-exec", "rm", "{}", ";"), "'-exec'"), (("-delete",), "'-delete'"), (("-regex", "x"), "'-regex'"),
                        (("-name",), "-name"), (("-size", "x"), "-size 'x'"), (("-size", "1T"), "-size '1T'"), (("-type", "x"), "-type 'x'"),
                        (("-type", "f,"), "-type 'f,'"), (("-mtime", "a"), "-mtime 'a'"), (("-perm", "9"), "'9'"), (("(",), "ends"),
                        (("(", "-true"), "parenthesis"), (("-true", ")"), "parenthesis"), (("-o", "-true"), "-o"), (("-user", "root"), "numbers"),
                        (("!",), "ends"), (("-true", "-and"), "ends"), (("(", ")"), "between"), (("-printf", "%"), "letter"), (("-printf", "%q"), "%q"),
                        (("-newermt", "soon"), "soon"), (("-maxdepth", "x"), "-maxdepth 'x'"), (("-name", "x", "y"), "'y'"),
                        (("!",) * 300 + ("-true",), "more than")):
        verbs("find", ":/", *words, status=IMPOSSIBLE, says=says)
    verbs("find", ":/", "-newer", "/no such file", status=NO, says="/no such file")
    verbs("find", ":/", "-newer", ":/no such file", status=NO, says="no such file")
    check("-newermt" in verbs("find", "--help"), "the help lists the predicates")


def test(scratch):
    mounting.need_mount()
    mounting.need("find")
    specimen = Specimen(scratch)
    for part in (tests, formats, order, refusals):
        part(specimen)


if __name__ == "__main__":
    mounting.main(test)
