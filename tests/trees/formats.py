"""The feature sets that trees are written in."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Format:
    """One way to make an image. `options` are those of mke2fs."""

    options: tuple
    big_values: bool = False   # holds extended attributes of more than a block
    seconds: bool = False      # inodes of 128 bytes: times are signed 32-bit seconds
    block: int = 4096
    room: str = "1400M"        # image of the long test; clusters make groups larger, and each has its share of inodes


FORMATS = {
    "default": Format(("-t", "ext4")),
    "ext2": Format(("-t", "ext2")),
    "ext3": Format(("-t", "ext3")),
    "blocks of 1024": Format(("-t", "ext4"), block=1024),
    "blocks of 2048": Format(("-t", "ext4"), block=2048),
    "inline_data": Format(("-t", "ext4", "-O", "inline_data", "-I", "256")),
    "no extents": Format(("-t", "ext4", "-O", "^extents,^64bit")),
    "bigalloc": Format(("-t", "ext4", "-O", "bigalloc", "-C", "16384"), room="4G"),
    "meta_bg": Format(("-t", "ext4", "-O", "meta_bg,^resize_inode")),
    "uninit_bg": Format(("-t", "ext4", "-O", "^metadata_csum,^64bit,uninit_bg")),
    "ea_inode and large_dir": Format(("-t", "ext4", "-O", "ea_inode,large_dir"), big_values=True),
    "no journal": Format(("-t", "ext4", "-O", "^has_journal")),
    "inodes of 128 bytes": Format(("-t", "ext4", "-I", "128"), seconds=True),
    "revision 0": Format(("-t", "ext2", "-r", "0"), seconds=True),
    "orphan_file": Format(("-t", "ext4", "-O", "orphan_file")),
    "ea_inode, inline_data, blocks of 1024": Format(("-t", "ext4", "-O", "ea_inode,inline_data", "-I", "512"),
                                                    big_values=True, block=1024),
}
