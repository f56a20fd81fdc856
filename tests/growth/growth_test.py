#!/usr/bin/env python3
"""What an operation costs as a directory, a file or a file system grows, in blocks of the device and in instructions.

Each cost is the difference between a run with the operations and one without, both from a fresh mount with nothing
cached. Instructions are those that valgrind counts. No cost may grow faster than the logarithm of the size. UEXT4_LONG=1
takes the full sizes. With `--write FILE` the tables take the place of those in the document.

Usage: growth_test.py DRIVER [--write FILE]
"""

import json
import math
import os
import pathlib
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "mount"))
import mounting  # noqa: E402  (lies in the folder beside)
from mounting import check  # noqa: E402

LONG = mounting.is_long()
ENTRIES = (10_000, 100_000, 1_000_000) if LONG else (5_000, 20_000, 80_000)
HOLES = (10_000, 100_000, 1_310_720) if LONG else (1_000, 10_000, 40_000)  # 1,310,720 are those of 10 GiB
ORPHANS_IN_A_BLOCK = 254  # of 1 KiB
ORPHAN_BLOCKS = (1, 4, 16)
FILES = (20_000, 50_000, 200_000, 1_000_000) if LONG else (5_000, 20_000, 80_000)
FILES_OPTIONS = "cache=16M,strictatime"  # room for 4,096 inodes
INODES_BYTES = 24 << 20  # of them in memory, whatever is done
COMMITS = (100, 400, 1_600) if LONG else (50, 200, 800)
PUNCHED = 16384  # blocks, as the driver does
SIZES = ("1G", "64G", "1T", "16T")
OPERATIONS = 50
FEW = 1.0  # blocks an operation: what one operation may differ by from chance
# What a cost may exceed the logarithm's growth by: the shape of a tree changes in steps.
SLACK = 1.35
PEAK_KIB = 64 << 10  # of mounting, whatever the size


class Driver:
    def __init__(self, program, scratch):
        self.program, self.scratch = program, scratch

    def run(self, image, work, path="/", first=0, count=0, options=None):
        done = subprocess.run([self.program, image, work, path, str(first), str(count)], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, check=False,
                              env=os.environ | ({"UEXT4_GROWTH_OPTIONS": options} if options else {}))
        check(done.returncode == 0, f"{work} {path}: {done.stderr}")
        return json.loads(done.stdout)

    def instructions(self, image, work, path="/", first=0, count=0):
        log = self.scratch.path("valgrind.log")
        done = subprocess.run(["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null",
                               f"--log-file={log}", self.program, image, work, path, str(first), str(count)],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        check(done.returncode == 0, f"{work} {path} under valgrind: {done.stderr}\n{log.read_text()}")
        return int(re.search(r"I\s+refs:\s+([\d,]+)", log.read_text()).group(1).replace(",", ""))

    def cost(self, image, work, path, first, count, again):
        """(blocks read, blocks written, instructions) of one of `count` operations. `again`: where the second, equal run
        starts, whose instructions are counted."""
        nothing, base = self.run(image, "nothing"), self.instructions(image, "nothing")
        seen = self.run(image, work, path, first, count)
        instructions = self.instructions(image, work, path, again, count)
        return ((seen["read"] - nothing["read"]) / count, (seen["written"] - nothing["written"]) / count,
                (instructions - base) / count)


def grows_slowly(what, sizes, costs):
    """Each size against the smallest."""
    for size, cost in zip(sizes[1:], costs[1:]):
        allowed = math.log2(size) / math.log2(sizes[0]) * SLACK
        for name, few, first, now in zip(("blocks read", "blocks written", "instructions"), (FEW, FEW, 0), costs[0], cost):
            check(now <= first * allowed + few, f"{what}: {name} went from {first:.2f} at {sizes[0]} to {now:.2f} at "
                  f"{size} an operation, more than {allowed:.2f} times as much")


def described(costs):
    return " | ".join(f"{read:.3g}, {written:.3g}, {round(instructions):,}" for read, written, instructions in costs)


def directories(driver, scratch):
    image = scratch.image("directories", "6G" if LONG else "512M", "-t", "ext4", "-b", "4096", "-O", "large_dir", "-N",
                          str(sum(ENTRIES) + 20_000))
    for entries in ENTRIES:
        driver.run(image, "create", f"/d{entries}", 0, entries)
    rows = []
    # Each work on other entries than the runs before it.
    for work, starts in (("create", lambda n: (n, n + OPERATIONS)), ("lookup", lambda n: (0, 0)), ("list", lambda n: (0, 0)),
                         ("unlink", lambda n: (0, 1))):
        costs = []
        for entries in ENTRIES:
            count = entries if work == "list" and not LONG else OPERATIONS * (20 if work == "list" else 1)
            first, again = starts(entries)
            costs.append(driver.cost(image, work, f"/d{entries}", first, count, again))
        grows_slowly(f"{work} in a directory", ENTRIES, costs)
        rows.append(f"| {work} | {described(costs)} |")
        print(rows[-1], flush=True)
    mounting.clean(image)
    sizes = " | ".join(f"{entries:,} entries" for entries in ENTRIES)
    return [f"| an entry, from a fresh mount: blocks read, written, instructions | {sizes} |", "|---|" + "---|" * len(ENTRIES),
            *rows]


def holes(driver, scratch):
    costs = []
    for count in HOLES:
        image = scratch.image("holes", "16G" if LONG else "1G", "-t", "ext4", "-b", "4096", "-N", "64")
        driver.run(image, "holes", "/f", 0, count)
        nothing, base = driver.run(image, "nothing"), driver.instructions(image, "nothing")
        other = mounting.copy_image(image, scratch.path("other"))
        seen = driver.run(image, "remove", "/f")
        instructions = driver.instructions(other, "remove", "/f")
        mounting.clean(image)
        costs.append(((seen["read"] - nothing["read"]) / count, (seen["written"] - nothing["written"]) / count,
                      (instructions - base) / count))
        print(f"| deleting {count:,} extents | {described(costs[-1:])} |", flush=True)
        image.unlink()
        other.unlink()
    grows_slowly("deleting a file with holes", HOLES, costs)
    sizes = " | ".join(f"{count:,} extents ({count * 8 / 1024:,.0f} MiB)" for count in HOLES)
    return [f"| an extent of a deleted file of alternating holes | {sizes} |", "|---|" + "---|" * len(HOLES),
            f"| delete | {described(costs)} |"]


def orphans(driver, scratch):
    """As many as the orphan file has slots, and half as many more, of which the list knows."""
    costs = []
    for blocks in ORPHAN_BLOCKS:
        count = blocks * ORPHANS_IN_A_BLOCK * 3 // 2
        image = scratch.image("orphans", "100M", "-t", "ext4", "-b", "1024", "-O", "orphan_file", "-N", "10000", "-E",
                              f"orphan_file_size={blocks}")
        nothing, base = driver.run(image, "nothing"), driver.instructions(image, "nothing")
        other = mounting.copy_image(image, scratch.path("other"))
        seen = driver.run(image, "orphans", "/", 0, count)
        instructions = driver.instructions(other, "orphans", "/", 0, count)
        mounting.clean(image)
        costs.append(((seen["read"] - nothing["read"]) / count, (seen["written"] - nothing["written"]) / count,
                      (instructions - base) / count))
        print(f"| O_TMPFILE {count:,} | {described(costs[-1:])} |", flush=True)
        image.unlink()
        other.unlink()
    slots = [blocks * ORPHANS_IN_A_BLOCK for blocks in ORPHAN_BLOCKS]
    grows_slowly("a file without a name", slots, costs)
    sizes = " | ".join(f"{count * 3 // 2:,} ({count:,} slots)" for count in slots)
    return [f"| a file without a name, made and deleted, of so many open at once | {sizes} |",
            "|---|" + "---|" * len(ORPHAN_BLOCKS), f"| O_TMPFILE | {described(costs)} |"]


def files(driver, scratch):
    """Files in many directories, each used once: looks at inodes to evict them or to store their times, and blocks."""
    rows = {work: [] for work in ("spread", "read", "stat", "rename", "unlink_spread")}
    for count in FILES:
        image = scratch.image("files", f"{256 + count // 160}M", "-t", "ext4", "-b", "4096", "-N", str(count * 21 // 20 + 20_000))
        for work, cells in rows.items():
            seen = driver.run(image, work, count=count, options=FILES_OPTIONS)
            check(seen["inode_bytes"] <= INODES_BYTES, f"{work} of {count} files: {seen['inode_bytes']} bytes of inodes")
            check(seen["peak_kib"] <= PEAK_KIB, f"{work} of {count} files takes {seen['peak_kib']} KiB")
            cells.append((seen["read"] / count, seen["written"] / count, seen["looks"] / count))
            # Once to evict it, once to store its times, once more if it had folios.
            check(cells[-1][2] <= 3.1, f"{work} of {count} files: {cells[-1][2]:.2f} looks at inodes for each")
            print(f"| {work} {count:,} files | {cells[-1][0]:.3g}, {cells[-1][1]:.3g}, {cells[-1][2]:.2f} |", flush=True)
        mounting.clean(image)
        image.unlink()
    for work, cells in rows.items():
        grows_slowly(f"{work} of many files", FILES, [cell[:2] + (0,) for cell in cells])
    names = {"spread": "create and write 100 bytes", "read": "read", "stat": "stat", "rename": "rename, and back",
             "unlink_spread": "unlink"}
    return ["| a file, from a fresh mount: blocks read, written, looks at inodes | " +
            " | ".join(f"{count:,} files" for count in FILES) + " |", "|---|" + "---|" * len(FILES),
            *(f"| {names[work]} | " + " | ".join(f"{read:.3g}, {written:.3g}, {looks:.2f}" for read, written, looks in cells)
              + " |" for work, cells in rows.items())]


def punches(driver, scratch):
    """Space of a journaled file is given back while transactions wait to go home."""
    costs = []
    for count in COMMITS:
        images = [scratch.image(name, "512M", "-t", "ext4", "-b", "4096", "-J", "size=128", "-N", "64") for name in "abcd"]
        without, seen = driver.run(images[0], "commits", "/f", 0, count), driver.run(images[1], "punch", "/f", 0, count)
        base, instructions = (driver.instructions(image, work, "/f", 0, count)
                              for image, work in zip(images[2:], ("commits", "punch")))
        for image in images:
            mounting.clean(image)
            image.unlink()
        costs.append(((seen["read"] - without["read"]) / PUNCHED, (seen["written"] - without["written"]) / PUNCHED,
                      (instructions - base) / PUNCHED))
        print(f"| punching after {count:,} commits | {described(costs[-1:])} |", flush=True)
    grows_slowly("a punch of journaled blocks", COMMITS, costs)
    sizes = " | ".join(f"{count:,} commits" for count in COMMITS)
    return [f"| a block of {PUNCHED:,} that are punched, after so many | {sizes} |", "|---|" + "---|" * len(COMMITS),
            f"| punch | {described(costs)} |"]


def descriptor_blocks(image):
    groups = math.ceil(image.stat().st_size / (32768 * 4096))
    return math.ceil(groups * 64 / 4096)


def mounts(driver, scratch):
    rows, found = [], []
    for size in SIZES:
        image = scratch.image("sized", size, "-t", "ext4", "-b", "4096", "-O", "sparse_super2", "-N", "65536", "-J",
                              "size=64", "-E", "lazy_itable_init=1,nodiscard")
        seen, instructions = driver.run(image, "nothing"), driver.instructions(image, "nothing")
        change = driver.run(image, "create", "/", 0, 1)
        found.append((size, seen, instructions, change, descriptor_blocks(image)))
        rows.append(f"| {size} | {seen['mount_read']} | {seen['read']} | {seen['written']} | {instructions:,} | "
                    f"{seen['peak_kib'] / 1024:.1f} MiB | {change['read']} | {change['peak_kib'] / 1024:.1f} MiB |")
        print(rows[-1], flush=True)
        image.unlink()
    first, base = found[0][1:3]
    for size, seen, instructions, change, descriptors in found:
        check(seen["mount_read"] <= first["mount_read"] + 2, f"mounting {size} reads {seen['mount_read']} blocks, "
              f"{SIZES[0]} {first['mount_read']}")
        check(instructions <= base * 1.25, f"mounting {size} takes {instructions:,} instructions, {SIZES[0]} {base:,}")
        check(change["read"] <= seen["read"] + descriptors + 16, f"the first new file in {size} reads {change['read']} blocks")
        for peak in (seen["peak_kib"], change["peak_kib"]):
            check(peak <= PEAK_KIB, f"mounting {size} takes {peak} KiB")
    return ["| size | blocks read until mounted | read in all | written in all | instructions of mount and unmount | peak memory "
            "| read in all with one new file | peak memory then |", "|---|---|---|---|---|---|---|---|", *rows]


def write(document, tables):
    path = pathlib.Path(document)
    text = path.read_text(encoding="utf-8")
    for name, lines in tables.items():
        pattern = re.compile(f"(<!-- {name} -->\n)[^<]*(<!-- end -->)")
        text, times = pattern.subn(lambda match, lines=lines: match.group(1) + "\n".join(lines) + "\n" + match.group(2), text)
        check(times == 1, f"{document}: there is no place for {name}")
    path.write_text(text, encoding="utf-8")


def test(scratch):
    mounting.need("mke2fs", "e2fsck", "valgrind")
    driver = Driver(sys.argv[1], scratch)
    tables = {part.__name__: part(driver, scratch) for part in (directories, files, holes, orphans, punches, mounts)}
    if sys.argv[2:3] == ["--write"]:
        write(sys.argv[3], tables)


mounting.main(test)
