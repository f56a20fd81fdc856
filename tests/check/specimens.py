"""Small sound images of many formats, populated, in which single damages are made."""

import os
import subprocess

SMALL = ("-b", "1024", "-g", "4096", "-N", "1024")
FORMATS = {
    "default": ("-t", "ext4", "-b", "4096"),
    "1k": ("-t", "ext4", *SMALL),
    "ext2": ("-t", "ext2", *SMALL),
    "ext3": ("-t", "ext3", *SMALL),
    "hurd": ("-t", "ext2", "-o", "hurd"),
    "128": ("-t", "ext4", "-I", "128", "-b", "1024", "-N", "1024"),
    "32bit": ("-t", "ext4", *SMALL, "-O", "^64bit"),
    "uninit_bg": ("-t", "ext4", *SMALL, "-O", "^metadata_csum,uninit_bg"),
    "nocsum": ("-t", "ext4", *SMALL, "-O", "^metadata_csum,^uninit_bg,^64bit"),
    "inline": ("-t", "ext4", "-b", "4096", "-O", "inline_data"),
    "bigalloc": ("-t", "ext4", "-b", "4096", "-O", "bigalloc", "-C", "16384"),
    "orphan_file": ("-t", "ext4", "-b", "4096", "-O", "orphan_file"),
    "ea_inode": ("-t", "ext4", "-b", "4096", "-O", "ea_inode"),
    "large_dir": ("-t", "ext4", "-b", "1024", "-N", "1024", "-O", "large_dir"),
    "meta_bg": ("-t", "ext4", "-b", "1024", "-g", "512", "-N", "1024", "-O", "meta_bg,^resize_inode"),
    "mmp": ("-t", "ext4", "-b", "4096", "-O", "mmp"),
    "quota": ("-t", "ext4", "-b", "4096", "-O", "quota,project"),
    "sparse_super2": ("-t", "ext4", *SMALL, "-O", "sparse_super2,^resize_inode"),
    "fast_commit": ("-t", "ext4", "-b", "4096", "-O", "fast_commit,stable_inodes"),
    "no journal": ("-t", "ext4", *SMALL, "-O", "^has_journal"),
    "casefold": ("-t", "ext4", "-b", "4096", "-O", "casefold"),
}
EXTENDED = {"mmp": ("mmp_update_interval=1",), "quota": ("quotatype=usrquota:grpquota:prjquota",)}
SIZE = "16M"
# The identity and the hashes of names are the same in each run: whether a changed name falls into another leaf is not luck.
SAME = "6b1f3c52-8d0e-4a77-9c15-2f4e6a8b0d31"
NAME = "a-name-of-forty-characters-or-so-{:07}"
DEEP = 520  # long names: with blocks of 1 KiB an index of two levels


def run(*command):
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, errors="replace", check=False)


def populate(tree, deep):
    (tree / "dir").mkdir(parents=True)
    (tree / "a" / "b" / "c").mkdir(parents=True)
    (tree / "hashed").mkdir()
    for i in range(20):
        (tree / "dir" / f"f{i}").write_text("x" * i * 7)
    for i in range(130):
        (tree / "hashed" / NAME.format(i)).write_bytes(b"")
    for i in range(DEEP if deep else 0):
        (tree / "deep").mkdir(exist_ok=True)
        (tree / "deep" / f"{i:0240}").write_bytes(b"")
    (tree / "big").write_bytes(os.urandom(300000))
    with open(tree / "sparse", "wb") as sparse:
        for i in range(360):
            sparse.seek(i * 8192)
            sparse.write(b"data" * 1024)
    (tree / "link").symlink_to("big")
    (tree / "long").symlink_to("t" * 100)
    (tree / "small").write_text("a few bytes")
    os.link(tree / "big", tree / "hard")
    os.mkfifo(tree / "fifo")
    os.setxattr(tree / "dir" / "f1", "user.small", b"value")
    os.setxattr(tree / "dir" / "f1", "user.second", b"valu2")
    for name, value in ("one", b"1" * 300), ("two", b"2" * 120), ("three", b"3" * 50):
        os.setxattr(tree / "dir" / "f2", f"user.{name}", value)
    os.setxattr(tree / "dir" / "f3", "user.other", b"v" * 300)
    if os.geteuid() == 0:  # a short target, and a block all the same
        (tree / "dir" / "described").symlink_to("short")
        os.setxattr(tree / "dir" / "described", "trusted.t", b"t" * 200, follow_symlinks=False)


def make(folder, name, tree):
    """A sound image, or the reason why there is none."""
    image = folder / f"{name.replace(' ', '_')}.img"
    options = ",".join(["lazy_itable_init=0", f"hash_seed={SAME}", *EXTENDED.get(name, ())])
    made = run("mke2fs", "-q", "-F", "-U", SAME, *FORMATS[name], "-E", options, "-d", tree, image, SIZE)
    if made.returncode != 0:
        return image, f"mke2fs: {made.stderr}"
    if name == "ea_inode":
        (folder / "value").write_bytes(b"value of an inode's own" * 400)
        run("debugfs", "-w", "-R", f"ea_set -f {folder}/value /dir/f4 user.large", image)
        run("debugfs", "-w", "-R", f"ea_set -f {folder}/value /dir/f5 user.large", image)
    if name == "quota":  # several owners; e2fsck counts what they have
        for i in range(20):
            run("debugfs", "-w", "-R", f"sif /dir/f{i} uid {i % 7 * 70001}", image)
            run("debugfs", "-w", "-R", f"sif /dir/f{i} projid {i % 5 * 300}", image)
    run("e2fsck", "-fyD", image)  # makes indexes of the directories
    sound = run("e2fsck", "-fn", image)
    return image, f"e2fsck -fn: {sound.stdout}" if sound.returncode else ""
