"""Superblocks, group descriptors, bitmaps."""

from damage import Damage, field, flip, group, superblock

UNINIT_INODES, UNINIT_BLOCKS = 1, 2
SUMMED = "a mount sums the descriptors up"


def set_bits(number, kind, first, count, value):
    def change(image):
        for index in range(first, first + count):
            image.set_bit(number, kind, index, value)
    return change


def free_of(path):
    """The bits of a file's first blocks are lost."""
    def change(image):
        block = image.inode(path).block_of(0) - image.super["first_data_block"]
        number, index = divmod(block, image.super["blocks_per_group"])
        ratio = image.super["blocks_per_group"] // image.super["clusters_per_group"]
        image.set_bit(number, "block", index // ratio, 0)
    return change


def inode_bit(path, value):
    def change(image):
        number, index = divmod(image.inode(path).number - 1, image.super["inodes_per_group"])
        image.set_bit(number, "inode", index, value)
    return change


def used_group(image):
    """A group whose blocks are in use and whose bitmap was written, not the first."""
    return next(n for n in range(1, image.groups) if not image.group(n)["flags"] & UNINIT_BLOCKS)


def in_group(choose, **fields):
    return lambda image: group(choose(image), **fields)(image)


def padding(kind, per_group):
    """A bit past the last one that stands for something is 0."""
    def change(image):
        at = image.group(0)[f"{kind}_bitmap"] * image.block_size + image.super[per_group] // 8
        image.data[at] = 0
        image.seal_bitmap(0, kind)
    return change


def last_group_padding(image):
    number = image.groups - 1
    blocks = image.super["blocks_count"] - image.super["first_data_block"] - number * image.super["blocks_per_group"]
    image.set_bit(number, "block", blocks + 5, 0)


def every_group(**fields):
    def change(image):
        for number in range(image.groups):
            group(number, **fields)(image)
    return change


def shares_bitmap(image):
    image.group(1)["block_bitmap"] = image.group(0)["block_bitmap"]


def shares_table(image):
    image.group(2)["inode_table"] = image.group(1)["inode_table"]


def table_in_file(image):
    image.group(1)["inode_bitmap"] = image.inode("/big").block_of(0)


def unused_too_many(image):
    """More of the table is called unused than is."""
    image.group(0)["itable_unused"] = image.super["inodes_per_group"] - 8


def free_inode(**fields):
    """In the first inode that was never in use."""
    def change(image):
        group(0, itable_unused=lambda n: n - 1)(image)
        inode = image.inode(image.super["inodes_per_group"] - image.group(0)["itable_unused"])
        for name, value in fields.items():
            inode.raw_set(name, value)
        if "links_count" in fields:
            inode.seal()
    return change


def backup_super(**fields):
    """In the superblock of group 1."""
    from ext4_image import Fields, SUPER
    def change(image):
        at = (image.super["first_data_block"] + image.super["blocks_per_group"]) * image.block_size
        copy = Fields(image, at, SUPER)
        for name, value in fields.items():
            copy.raw_set(name, value)
        image.seal_super(at)
    return change


def backup_descriptor(image):
    block = image.super["first_data_block"] + image.super["blocks_per_group"] + 1
    image.put32(block * image.block_size, 7)


DAMAGES = [
    # ---- superblock
    Damage("default", "s_free_blocks_count", "superblock: s_free_blocks_count is 12", superblock(free_blocks_count=12),
           SUMMED),
    Damage("1k", "s_free_blocks_count_hi", "superblock: s_free_blocks_count", superblock(free_blocks_count_hi=1), SUMMED),
    Damage("default", "s_free_inodes_count", "superblock: s_free_inodes_count is 7", superblock(free_inodes_count=7),
           SUMMED),
    Damage("ext2", "s_free_inodes_count of ext2", "superblock: s_free_inodes_count", superblock(free_inodes_count=7), SUMMED),
    Damage("bigalloc", "s_free_blocks_count in clusters", "superblock: s_free_blocks_count",
           superblock(free_blocks_count=lambda n: n // 4), SUMMED),
    Damage("default", "checksum", "superblock: .*checksum", flip(lambda i: 1024 + 0x3FC)),
    Damage("default", "s_inodes_count", "superblock: s_inodes_count", superblock(inodes_count=lambda n: n + 8)),
    Damage("1k", "s_blocks_count past the device", "superblock: s_blocks_count", superblock(blocks_count=1 << 20)),
    Damage("default", "s_blocks_per_group", "superblock: s_(blocks|clusters)_per_group", superblock(blocks_per_group=12)),
    Damage("default", "s_clusters_per_group without bigalloc", "^superblock: s_clusters_per_group is 24576, expected",
           superblock(clusters_per_group=24576)),
    Damage("nocsum", "no s_clusters_per_group", "^superblock: s_clusters_per_group is 0, expected", superblock(clusters_per_group=0)),
    Damage("default", "s_inode_size", "superblock: s_inode_size", superblock(inode_size=300)),
    Damage("default", "s_first_ino", "superblock: s_first_ino", superblock(first_ino=3)),
    Damage("default", "s_r_blocks_count", "superblock: s_r_blocks_count", superblock(r_blocks_count=1 << 20)),
    Damage("default", "s_r_blocks_count, over a half", "superblock: s_r_blocks_count", superblock(r_blocks_count=2100)),
    Damage("nocsum", "s_first_data_block", "superblock: s_first_data_block", superblock(first_data_block=7)),
    Damage("default", "s_reserved_gdt_blocks", "superblock: s_reserved_gdt_blocks",
           superblock(reserved_gdt_blocks=5000)),
    Damage("meta_bg", "s_reserved_gdt_blocks without resize_inode", "", superblock(reserved_gdt_blocks=3),
           "with meta_bg no group has such blocks"),
    Damage("default", "s_desc_size", "superblock: s_desc_size", superblock(desc_size=100)),
    Damage("nocsum", "s_log_cluster_size", "superblock: s_log_cluster_size", superblock(log_cluster_size=3)),
    Damage("default", "no s_log_cluster_size", "^superblock: s_log_cluster_size is 0, expected", superblock(log_cluster_size=0)),
    Damage("ext2", "a journal without the feature", "superblock: s_journal_inum is 8", superblock(journal_inum=8)),
    Damage("default", "a device of the journal, and a file", "superblock: s_journal_uuid names another device",
           superblock(journal_uuid=bytes(range(16)))),
    Damage("ext3", "attributes without the feature", "lacks ext_attr", "feature -ext_attr"),
    Damage("default", "flags of hashes, both", "", superblock(flags=3),
           "both kinds of characters at once"),
    Damage("default", "s_want_extra_isize", "^superblock: s_want_extra_isize is 300, expected at most 128", superblock(want_extra_isize=300),
           "the kernel does, and mounts nothing with it"),
    Damage("default", "s_min_extra_isize", "^superblock: s_min_extra_isize is 129, expected at most 128", superblock(min_extra_isize=129),
           "the kernel does, and mounts nothing with it"),
    Damage("default", "s_overhead_clusters", "", superblock(overhead_clusters=77),
           "it is recomputed at each mount"),
    Damage("1k", "label of a backup", "", backup_super(uuid=bytes(16)),
           "it is looked at only where the first one is damaged"),
    Damage("1k", "descriptors of a backup", "", backup_descriptor,
           "they are looked at only where the first are damaged"),
    # ---- descriptors
    Damage("default", "free blocks", "group 0: .*the descriptor says 5 free clusters, expected", group(0, free_blocks_count=5)),
    Damage("1k", "free blocks, upper half", "group 1: the descriptor says \\d+ free clusters?, expected", group(1, free_blocks_count_hi=1)),
    Damage("1k", "free inodes", "group 1: .*the descriptor says 5 free inodes, expected", group(1, free_inodes_count=5)),
    Damage("1k", "free inodes, upper half", "group 2: .*inodes", group(2, free_inodes_count_hi=1)),
    Damage("default", "directories", "group 0: the descriptor says 2 directories, expected", group(0, used_dirs_count=2)),
    Damage("1k", "directories, upper half", "group 3: .*directories", group(3, used_dirs_count_hi=1)),
    Damage("1k", "checksum", "group 2: descriptor: bad checksum", flip(lambda i: i.group(2).at + 0x1E)),
    Damage("uninit_bg", "checksum (crc16)", "group 2: descriptor: bad checksum", flip(lambda i: i.group(2).at + 0x1E)),
    Damage("uninit_bg", "contents (crc16)", "group 3: descriptor: bad checksum", flip(lambda i: i.group(3).at + 0x0C)),
    Damage("meta_bg", "checksum with meta_bg", "group 5: descriptor: bad checksum", flip(lambda i: i.group(5).at + 0x1E)),
    Damage("1k", "block bitmap out of range", "group 1: .* lies at block 4000000|group 1: bg_block_bitmap",
           group(1, block_bitmap=4000000)),
    Damage("1k", "inode bitmap out of range", "group 1: .* lies at block|group 1: bg_inode_bitmap", group(1, inode_bitmap=0)),
    Damage("1k", "inode table out of range", "group 1: .* lies at block|group 1: bg_inode_table",
           group(1, inode_table=16380)),
    Damage("1k", "block bitmap, upper half", "group 1: .* lies at block|group 1: bg_block_bitmap", group(1, block_bitmap_hi=9)),
    Damage("nocsum", "a block bitmap in a superblock", "group 1: its structure at block 1 overlaps",
           group(1, block_bitmap=1)),
    Damage("nocsum", "a bitmap of two groups", "group 1: its structure at block", shares_bitmap),
    Damage("nocsum", "a table of two groups", "group 2: its structure at block", shares_table),
    Damage("nocsum", "an inode bitmap in a file", "inode </big>: block|inode </big>:", table_in_file),
    Damage("1k", "block_uninit of a group in use", "group 0: block bitmap: .*BLOCK_UNINIT",
           group(0, flags=lambda f: f | UNINIT_BLOCKS)),
    Damage("uninit_bg", "block_uninit of a group in use", "group \\d+: block bitmap: .*BLOCK_UNINIT",
           in_group(used_group, flags=lambda f: f | UNINIT_BLOCKS)),
    Damage("1k", "inode_uninit of a group in use", "group 0: .*the descriptor says \\d+ free inodes?, expected",
           group(0, flags=lambda f: f | UNINIT_INODES)),
    Damage("uninit_bg", "inode_uninit of a group in use", "group 0: .*the descriptor says \\d+ free inodes?, expected",
           group(0, flags=lambda f: f | UNINIT_INODES)),
    Damage("1k", "flags that do not exist", "", group(1, flags=lambda f: f | 0x40),
           "it looks at known flags only"),
    Damage("default", "bg_itable_unused of more than all", "group 0: bg_itable_unused is 60000",
           group(0, itable_unused=lambda n: 60000)),
    Damage("1k", "bg_itable_unused covers inodes in use", "group 0: bg_itable_unused is \\d+, but inode \\d+", unused_too_many),
    Damage("uninit_bg", "bg_itable_unused covers inodes in use", "group 0: bg_itable_unused is \\d+, but inode \\d+", unused_too_many),
    Damage("1k", "no group is uninit any more", "group \\d: (inode|block) bitmap: bad checksum", every_group(flags=0)),
    Damage("nocsum", "flags without the feature", "", group(1, flags=UNINIT_BLOCKS),
           "they mean nothing then"),
    Damage("nocsum", "inode_uninit without the feature", "group 0: bg_flags is 0x1: INODE_UNINIT, but inode \\d+ is in use",
           group(0, flags=UNINIT_INODES)),
    Damage("nocsum", "inode_uninit without the feature, of a group that is empty", "", group(3, flags=UNINIT_INODES),
           "no name leads there"),
    Damage("1k", "checksum of the block bitmap", "group 0: block bitmap: bad checksum", group(0, block_bitmap_csum=7)),
    Damage("1k", "checksum of the inode bitmap", "group 0: inode bitmap: bad checksum", group(0, inode_bitmap_csum=7)),
    Damage("1k", "upper half of a bitmap's checksum", "group 0: block bitmap: bad checksum",
           group(0, block_bitmap_csum_hi=7)),
    Damage("32bit", "checksum of a bitmap, 16 bits", "group 0: inode bitmap: bad checksum", group(0, inode_bitmap_csum=7)),
    # ---- bitmaps
    Damage("default", "bits lost", "group 0: block bitmap: 1 cluster in use and not marked", free_of("/big")),
    Damage("nocsum", "bits lost, no checksums", "group \\d: block bitmap: 1 cluster in use and not marked", free_of("/big")),
    Damage("bigalloc", "a cluster's bit lost", "group 0: block bitmap: 1 cluster in use and not marked", free_of("/big")),
    Damage("default", "bits too many", "group 0: block bitmap: 3 clusters marked, but without an owner",
           set_bits(0, "block", 4000, 3, 1)),
    Damage("ext3", "a bit lost by debugfs", "block bitmap: 1 cluster in use and not marked", "freeb 12"),
    Damage("ext2", "bits too many by debugfs", "without an owner", "setb 16000 3"),
    Damage("default", "an inode's bit lost", "inode </big>|names inode </big>, which is not in use", inode_bit("/big", 0)),
    Damage("1k", "an inode's bit lost by debugfs", "names inode </small>, which is not in use", "freei /small"),
    Damage("default", "an inode's bit too many", "inode 500:", set_bits(0, "inode", 499, 1, 1)),
    Damage("ext2", "an inode's bit too many by debugfs", "inode 200:", "seti <200>"),
    Damage("nocsum", "links of an inode that is free", "inode 500: i_links_count is 2, but the bitmap has it as free",
           field(500, mode=0o100644, links_count=2)),
    Damage("1k", "checksum of an inode that is free", "inode \\d+: bad checksum \\(not in use\\)", free_inode(dtime=5)),
    Damage("default", "links of an inode that is free", "inode \\d+: i_links_count is 1, but the bitmap has it as free",
           free_inode(mode=0o100644, links_count=1)),
    Damage("default", "a reserved inode's bit lost", "inode bitmap: reserved inode 9 is not marked",
           set_bits(0, "inode", 8, 1, 0)),
    Damage("default", "padding of the block bitmap", "group 0: block bitmap: .*padding", last_group_padding),
    Damage("ext2", "padding of the inode bitmap", "group 0: inode bitmap: .*padding", padding("inode", "inodes_per_group")),
    Damage("1k", "padding of an inode bitmap with checksums", "group 0: inode bitmap: .*padding",
           padding("inode", "inodes_per_group")),
]
