#!/usr/bin/env python3
"""The calls of POSIX and of Linux, with their errors, as several users: alike on the kernel's ext4 and on a mount.

What tests/beside cannot reach: paths that are too long, loops, programs that run, unnamed files, handles, locks, limits,
positions in directories, maps between processes. Every difference that is meant stands in MEANT and in the documents.

Usage: posix_test.py PROGRAM. UEXT4_CASE runs one.
"""

import json
import os
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "mount"), str(HERE)]
import answers as telling  # noqa: E402
import cases_errors  # noqa: E402
import cases_linux  # noqa: E402
import cases_set_ids  # noqa: E402
import cases_sharing  # noqa: E402
import cases_times  # noqa: E402
import mounting  # noqa: E402
from mounting import check  # noqa: E402

CASES = [case for module in (cases_errors, cases_times, cases_linux, cases_set_ids, cases_sharing) for case in module.CASES]
# Case and call: the kernel's answer and the mount's. Each is in docs/DIFFERENCES.md or docs/MOUNT.md.
MEANT = {
    # Times are cut to the format's range when the kernel asks again.
    "moved: time -2147483649": ("-2147483648.0", "-2147483649.0"),
    "moved: time 15032385536": ("15032385535.0", "15032385536.0"),
    "moved: time 1099511627776": ("15032385535.0", "1099511627776.0"),
    # What neither libfuse nor the kernel passes on.
    "ioctls: FIEMAP": ("'done'", "'ENOTSUP'"),
    "statx: statx attributes": ("('0x0', '0x303874')", "('0x0', '0x203000')"),
    "copies: fallocate collapse 0 4096": ("0", "'ENOTSUP'"),
    "copies: fallocate collapse 4096 4096": ("'EINVAL'", "'ENOTSUP'"),
    "copies: fallocate collapse 1 5": ("'EINVAL'", "'ENOTSUP'"),
    "copies: fallocate collapse 16492674416640 2199023255552": ("'EFBIG'", "'ENOTSUP'"),
    "copies: fallocate insert 0 4096": ("0", "'ENOTSUP'"),
    "copies: fallocate insert 4096 4096": ("0", "'ENOTSUP'"),
    "copies: fallocate insert 1 5": ("'EINVAL'", "'ENOTSUP'"),
    "copies: fallocate insert 16492674416640 2199023255552": ("'EFBIG'", "'ENOTSUP'"),
    "copies: fallocate unshare 16492674416640 2199023255552": ("'EFBIG'", "'ENOTSUP'"),
    # The kernel's part does not know the largest size of a file, nor tell where the memory of a direct request lies.
    "flags_of_io: pwrite past the largest file": ("'EFBIG'", "1"),
    "flags_of_io: fsync after it": ("None", "'EFBIG'"),
    "copies: seek far": ("'EINVAL'", "4611686018427387904"),
    "flags_of_io: direct write from odd memory": ("'EINVAL'", "4096"),
    # glibc knows the limit of links by the file system's number, which is FUSE's.
    "statx: pathconf": ("[65000, 255, 4096, 1, 1]", "[127, 255, 4096, 1, 1]"),
    # How the kernel announces this is how it announces somebody's write.
    "set_ids_of_others: ben: chown to nobody 4777": ("'EPERM'", "None"),
    **{f"capabilities: {door}.4777.root now": ("'0o104777'", "'0o100777'")
       for door in ("buffered", "twice", "direct", "appended", "allocated", "punched", "copied")},
    # The kernel's part leaves bytes behind the end of a file in its cache.
    "maps: a store behind the end, then grown": (repr(bytes(10)), repr(b"tail" + bytes(6))),
}

if mounting.KERNEL < mounting.KERNEL_OF_UNNAMED:
    MEANT["unnamed: O_TMPFILE"] = ("'done'", "'ENOTSUP'")


def answers_of(case, top):
    """In a process of its own, below `top`."""
    folder = top / case.__name__
    folder.mkdir()
    folder.chmod(0o777)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(read)
            os.chdir(folder)
            os.umask(0o022)
            mine = telling.Answers()
            case(mine)
            with os.fdopen(write, "w", encoding="utf-8") as pipe:
                json.dump(mine.told, pipe)
            status = 0
        except BaseException:  # pylint: disable=broad-exception-caught
            import traceback
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(status)
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    check(status == 0, f"{case.__name__} below {top}: status {status}")
    return json.loads(text)


def differences(case, expected, got):
    """Lines that differ and are not meant; and what was met of what is meant."""
    lines, met = [], set()
    check([label for label, _ in expected] == [label for label, _ in got],
          f"{case.__name__}: other calls were made: " + str([pair for pair in zip(expected, got) if pair[0][0] != pair[1][0]][:3]))
    for (label, one), (_, two) in zip(expected, got):
        if one == two:
            continue
        key = f"{case.__name__}: {label}"
        if MEANT.get(key) == (one, two):
            met.add(key)
        else:
            lines.append(f"{key}: the kernel {one}, the mount {two}")
    return lines, met


def test(scratch):
    options = ("-t", "ext4", "-b", "4096", "-N", "16384")
    theirs, ours = scratch.image("kernel.img", "256M", *options), scratch.image("ours.img", "256M", *options)
    kernel, mount = scratch.kernel_mount(theirs, options="user_xattr"), scratch.mount(ours)
    lines, met, told = [], set(), 0
    for case in CASES:
        if os.environ.get("UEXT4_CASE", case.__name__) != case.__name__:
            continue
        expected, got = answers_of(case, kernel), answers_of(case, mount)
        told += len(expected)
        more, also = differences(case, expected, got)
        lines += more
        met |= also
    scratch.umount(mount)
    scratch.kernel_umount(kernel)
    mounting.clean(ours)
    mounting.run(scratch.program, "check", ours)
    check(not lines, f"{len(lines)} of {told} answers differ:\n" + "\n".join(lines))
    unmet = sorted(MEANT.keys() - met) if "UEXT4_CASE" not in os.environ else []
    check(not unmet, f"these differ no longer, so they belong out of the table and the documents: {unmet}")
    print(f"{told} answers alike, {len(met)} of them but for what is meant")


mounting.main(test)
