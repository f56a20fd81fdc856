"""Two recoveries of one image compared: trees, times, blocks, free space."""

import os
import pathlib
import re
import sys

for folder in ("mount", "trees"):
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / folder))
import mounting  # noqa: E402
import views  # noqa: E402
from mounting import check  # noqa: E402

# What the superblock counts.
COUNTS = ("Free blocks", "Free inodes", "Filesystem state", "First orphan inode", "Orphans")


def superblock(image):
    """{field: value} of dumpe2fs -h."""
    lines = mounting.run("dumpe2fs", "-h", image).stdout.splitlines()
    return {line.split(":", 1)[0]: line.split(":", 1)[1].strip() for line in lines if ":" in line}


def recovered_by_us(scratch, image, name="ours"):
    copy = mounting.copy_image(image, scratch.path(name))
    mounting.run(scratch.program, "replay", copy)
    mounting.clean(copy)
    return copy


def recovered_by_the_kernel(scratch, image, options="", name="kernels"):
    copy = mounting.copy_image(image, scratch.path(name))
    directory = scratch.kernel_mount(copy, options=options)
    scratch.kernel_umount(directory)
    mounting.clean(copy)
    return copy


def kernel_table(scratch, image):
    directory = scratch.kernel_mount(image, options="ro")
    table = views.of_host(directory)
    scratch.kernel_umount(directory)
    return table


def same(scratch, ours, kernels, what, cut=frozenset(), who="the program"):
    """Equal trees with all that stat tells, and equal free space, in an image that the kernel recovered and in one that
    `who` did. Whoever finishes a truncation of the files in `cut` has to write the time at which it did, and may leave the
    blocks of its extent tree on fewer levels: those are free instead. Returns the table."""
    expected, got = kernel_table(scratch, kernels), kernel_table(scratch, ours)
    table = {path: dict(entry) for path, entry in got.items()}
    by_kernel, by_us = superblock(kernels), superblock(ours)
    sectors = int(by_kernel["Block size"]) // 512
    narrower = 0
    for path in cut & expected.keys() & got.keys():
        fewer = (expected[path].pop("blocks") - got[path].pop("blocks")) // sectors
        check(abs(fewer) <= 2, f"{what}: {path!r} has {fewer} blocks less by {who} than by the kernel")
        narrower += fewer
        for side in (expected, got):
            side[path].pop("mtime")
            side[path].pop("ctime")
    views.same(expected, got, f"{what}: recovered by the kernel and by {who}")
    by_kernel["Free blocks"] = str(int(by_kernel["Free blocks"]) + narrower)
    for field in COUNTS:
        check(by_kernel.get(field) == by_us.get(field),
              f"{what}: {field}: {by_kernel.get(field)} after the kernel, {by_us.get(field)} after {who}")
    return table


# e2fsck finishes what an orphan file names, but empties the file only when it checks everything.
ORPHAN_FILE_LEFT = re.compile(r"e2fsck |Pass \d|Orphan file \(inode \d+\) block \d+ is not clean|Clear\? no|"
                              r"Failed to initialize orphan file|Recreate\? no|Free (blocks|inodes) count wrong|Fix\? no|"
                              r"\S+: \*+ WARNING: Filesystem still has errors|\S+: \d+/\d+ files|\s*$")
# e2fsck 1.47.0 clears an orphan with inline data, also one of the kernel's making, and leaves its attribute block marked.
INLINE_ORPHAN_LEFT = re.compile(r"Block bitmap differences: ( +-(\d+|\(\d+--\d+\)))+$")


def clean_after_journal_only(image):
    """e2fsck finds nothing in an image whose log and orphans were seen to by `e2fsck -E journal_only`, but for the numbers
    of finished orphans in an orphan file, and blocks of attributes that it leaves marked itself."""
    result = mounting.run("e2fsck", "-fn", image, accept=(0, 4))
    if result.returncode == 0:
        return
    features = superblock(image)["Filesystem features"]
    check("orphan_file" in features or "inline_data" in features, f"e2fsck -fn {image}:\n{result.stdout}")
    for line in result.stdout.splitlines():
        known = ORPHAN_FILE_LEFT.match(line) or ("inline_data" in features and INLINE_ORPHAN_LEFT.match(line))
        check(known, f"e2fsck -fn {image}: {line}\n{result.stdout}")


def remove(*images):
    for image in images:
        os.unlink(image)
