"""The workloads. Each takes a Bench (see bench.py), with a fresh image mounted, and returns {metric: value}.

A metric's name ends in its unit: `/s` and `MB/s` are better when larger, ` s` and ` ms` when smaller.
"""

import dataclasses
import pathlib
import random
import sqlite3
import statistics
import subprocess
import time
from typing import Callable


# What the kernel has in its cache, for all of them: one reading of a fifth of a second says more of the moment than of
# the peer, so the median of these counts.
WARM_READS = 5


@dataclasses.dataclass(frozen=True)
class Workload:
    name: str
    what: str
    run: Callable
    megabytes: int = 1024      # of the image
    mke2fs: tuple = ()
    options: str = ""          # of the mount
    needs_journal: bool = False
    fills: bool = False        # a new image: peers that mount nothing take part
    by_name_only: bool = False  # it takes too long for a run of all
    left_out: tuple = ()        # peers that would take hours


# What is to be five times as fast as fuse2fs; at full scale, as a small directory flatters who searches it entry by entry.
FIVE_TIMES = ("create /s", "stat cold /s", "unlink /s", "untar + sync s", "rm -r s")
MOST_MICROSECONDS = {"crc32c/4096": 0.6}


# What the library is to reach of the kernel's system calls, in one process.
LIBRARY_FLOORS = {"create /s": 2.5, "stat /s": 2, "stat of one path /s": 2, "unlink /s": 2.5, "create 100 B /s": 3,
                  "read cold MB/s": 0.7, "read warm MB/s": 1}


def floor(metric, peer):
    """The least that the ratio to this peer is to be; None where nothing is asked."""
    if peer == "fuse2fs":
        return 5 if metric in FIVE_TIMES else 1
    if peer == "mke2fs":
        return 1
    return 0.5 if metric.startswith("append ") and metric.endswith("fsync /s") else None


def rate(answer):
    return answer["operations"] / answer["seconds"]


def speed(answer):
    return answer["bytes"] / answer["seconds"] / 1e6


def sequential(bench):
    size = bench.scaled(1 << 30, 1 << 20)
    found = {"write new MB/s": speed(bench.step("new_file", size)),
             "overwrite MB/s": speed(bench.step("overwrite", size))}
    bench.remount()
    found["read cold MB/s"] = speed(bench.step("read", 0))
    found["read warm MB/s"] = statistics.median(speed(bench.step("read", 0)) for _ in range(WARM_READS))
    return found


def random_pages(bench):
    bench.step("new_file", bench.scaled(256 << 20, 1 << 20))
    bench.step("read", 0)
    count = bench.scaled(400_000, 50)
    return {"read 4 KiB cached /s": statistics.median(rate(bench.step("random_read", count)) for _ in range(WARM_READS)),
            "write 4 KiB + fsync /s": rate(bench.step("random_write", bench.scaled(50_000, 50)))}


def append(bench):
    return {"append 4 KiB + fsync /s": rate(bench.step("append_pages", bench.scaled(4000, 10))),
            "append 100 bytes + fsync /s": rate(bench.step("append_lines", bench.scaled(4000, 10)))}


def metadata(bench):
    count = bench.scaled(10_000, 20)
    found = {"create /s": rate(bench.step("create", count))}
    bench.remount()
    found["stat cold /s"] = rate(bench.step("stat", count))
    found["unlink /s"] = rate(bench.step("unlink", count))
    return found


def timed(*command):
    start = time.monotonic()
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - start


def tree(bench):
    archive = bench.archive()
    found = {"untar + sync s": timed("tar", "-xf", archive, "-C", bench.directory) + bench.sync()}
    bench.remount()
    found["du cold s"] = timed("du", "-s", bench.directory)
    folders = [path for path in pathlib.Path(bench.directory).iterdir() if path.name != "lost+found"]
    found["rm -r s"] = timed("rm", "-r", *folders)
    return found


def small(bench):
    count = bench.scaled(50_000, 20)
    found = {"create 100 B + sync /s": rate(bench.step("create", count, 100))}
    bench.remount()
    found["read cold /s"] = rate(bench.step("read_each", count, 100))
    return found


def mapped(bench):
    bench.step("new_file", bench.scaled(256 << 20, 1 << 20))
    return {"store 4 KiB + msync /s": rate(bench.step("map_random", bench.scaled(50_000, 50)))}


def delete_large(bench):
    bench.step("new_file", bench.scaled(2 << 30, 4 << 20))
    return {"delete + sync ms": bench.step("remove_file", 0)["seconds"] * 1000}


def together(bench):
    count = bench.scaled(20_000, 20)
    one = rate(bench.step("create", count))
    return {"one creating /s": one, "two creating /s": rate(bench.step("create_together", count, 2))}


def database(bench, mode):
    count = bench.scaled(2000, 10)
    base = sqlite3.connect(pathlib.Path(bench.directory) / f"{mode}.db", isolation_level=None)
    base.execute(f"pragma journal_mode={mode}")
    base.execute(f"pragma synchronous={'normal' if mode == 'wal' else 'full'}")
    base.execute("create table t(id integer primary key, text)")
    start = time.monotonic()
    for number in range(count):
        base.execute("insert into t values (?, ?)", (number, "x" * 100))
    seconds = time.monotonic() - start
    base.close()
    return count / seconds


def databases(bench):
    return {"WAL txn/s": database(bench, "wal"), "DELETE txn/s": database(bench, "delete")}


def journaled(bench):
    size = bench.scaled(256 << 20, 1 << 20)
    return {"write new MB/s": speed(bench.step("new_file", size)),
            "overwrite MB/s": speed(bench.step("overwrite", size)),
            "append 4 KiB + fsync /s": rate(bench.step("append_pages", bench.scaled(2000, 10)))}


def fill(bench):
    """A new image with a tree of 16,000 small files."""
    source = bench.source
    if not source.exists():
        small_files(source, bench.scaled(16_000, 40))
    return {"new image of a tree s": bench.refill(source)}


def small_files(top, count):
    """Of 0 to 20 KiB, 40 in a folder, the same ones each time."""
    pieces = random.Random(1)
    for number in range(count):
        folder = top / f"{number // 400}" / f"{number // 40 % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"file{number}").write_bytes(pieces.randbytes(pieces.choice((0, 200, 900, 3000, 5000, 12_000, 20_000))))


def growth(bench):
    answer = bench.step("growth", bench.scaled(100_000, 40), 30)
    return {f"create at {mark} /s": value for mark, value in answer["rates"].items()}


# Files in many directories, from few to more than any cache of inodes has room for.
FILES = {"files-20k": 20_000, "files-50k": 50_000, "files-200k": 200_000, "files-1m": 1_000_000}
# What the ratio to the kernel at the largest number is to be of that at the smallest.
LEAST_KEPT = 0.8


def many_files(bench):
    count = bench.scaled(FILES[bench.workload.name], 200)
    found = {"create 100 B + sync /s": rate(bench.step("spread_create", count, 100))}
    bench.remount()
    found["read cold /s"] = rate(bench.step("spread_read_each", count, 100))
    bench.remount()
    found["stat cold /s"] = rate(bench.step("spread_stat", count))
    found["rename /s"] = rate(bench.step("spread_rename", count))
    found["unlink + sync /s"] = rate(bench.step("spread_unlink_renamed", count))
    memory = bench.peer.peak_memory()
    return found if memory is None else found | {"peak memory MiB": memory / (1 << 20)}


def fallen(results):
    """The ratios to the kernel that fall as the number of files grows, a sentence each. `results`: {workload: rows}."""
    measured = [name for name in FILES if name in results]
    if len(measured) < 2:
        return []
    least, most = ({row["metric"]: row["ratio"].get("kernel") for row in results[name]}
                   for name in (measured[0], measured[-1]))
    return [f"{measured[-1]}, {metric}: {most[metric]:.2f} of the kernel, with {measured[0]} {of_few:.2f}; at least "
            f"{LEAST_KEPT} of that is wanted" for metric, of_few in least.items()
            if of_few and most.get(metric) and most[metric] < LEAST_KEPT * of_few]


def huge(bench):
    found = {"mount s": bench.remount()}
    memory = bench.peer.peak_memory()
    return found if memory is None else found | {"peak memory MiB": memory / (1 << 20)}


WORKLOADS = [
    Workload("sequential", "1 GiB in 1 MiB pieces: new file + fsync, overwrite + fsync, read", sequential, 2048),
    Workload("random", "4 KiB pieces of a cached 256 MiB file", random_pages),
    Workload("append", "4 KiB, and 100 bytes, appended, each followed by fsync", append),
    Workload("metadata", "10,000 empty files in one directory; stat after a remount", metadata),
    Workload("tree", "a tar of a real tree: unpack + sync, du after a remount, rm", tree),
    Workload("small", "50,000 files of 100 bytes; read after a remount", small, 2048, ("-N", "131072")),
    Workload("small-inline", "the same with inline_data", small, 2048, ("-N", "131072", "-I", "256", "-O", "inline_data")),
    Workload("mmap", "random 4 KiB stores into a map of 256 MiB, then msync", mapped),
    Workload("delete", "a file of 2 GiB", delete_large, 4096),
    Workload("together", "20,000 files made by one process, and by two", together),
    Workload("sqlite", "one insert a transaction", databases),
    Workload("journaled", "data=journal", journaled, options="data=journal", needs_journal=True),
    Workload("fill", "a new image of a tree of 16,000 files: uext4 cp -a, mke2fs -d, or a mount and cp -a", fill, 512, fills=True),
    Workload("huge", "a sparse image of 16 TiB: a mount, and the server's memory", huge, (16 << 20) - 1,
             ("-O", "^resize_inode")),
    Workload("growth", "creates in one directory, as it grows; at most 30 s", growth, 2048, ("-N", "131072")),
    *(Workload(name, f"{count:,} files of 100 bytes, a hundred in each directory: create, read, stat, rename, unlink",
               many_files, 600 + count * 6 // 1000, ("-N", str(count * 21 // 20 + 10_000)), by_name_only=True,
               left_out=("fuse2fs",)) for name, count in FILES.items()),
]
