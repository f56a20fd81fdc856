"""What the file system keeps in files of its own: journal, orphans, quota; and the block against a second mount."""

import struct

from damage import Damage, field, flip, superblock
from ext4_image import crc32c

UNREAD = "where nothing is to be recovered, it does not read it"


def journal(offset, form, value, sealed=True):
    def change(image):
        at = image.inode(image.super["journal_inum"]).block_of(0) * image.block_size
        struct.pack_into(form, image.data, at + offset, value)
        if sealed and image.sums:
            crc = crc32c(0xFFFFFFFF, image.data[at:at + 0xFC] + bytes(4) + image.data[at + 0x100:at + 1024])
            struct.pack_into(">I", image.data, at + 0xFC, crc)
    return change


def orphans(offset, form, value, sealed=True):
    """In the first block of the orphan file."""
    def change(image):
        inode = image.inode(image.super["orphan_file_inum"])
        block = inode.block_of(0)
        at = block * image.block_size
        struct.pack_into(form, image.data, at + offset % image.block_size, value)
        if sealed:
            crc = crc32c(inode.file_seed(), struct.pack("<Q", block))
            image.put32(at + image.block_size - 4, crc32c(crc, image.data[at:at + image.block_size - 8]))
    return change


def orphan_inode(**fields):
    return lambda image: field(image.super["orphan_file_inum"], **fields)(image)


def listed(*chain):
    """The orphan list: inodes by path, the last names itself again."""
    def change(image):
        numbers = [image.inode(p).number if isinstance(p, str) else p for p in chain]
        image.super["last_orphan"] = numbers[0]
        for number, following in zip(numbers, numbers[1:]):
            image.inode(number)["dtime"] = following
    return change


def mmp(offset, form, value, sealed=True):
    def change(image):
        at = image.super["mmp_block"] * image.block_size
        struct.pack_into(form, image.data, at + offset, value)
        if sealed:
            image.put32(at + 1020, crc32c(image.seed, image.data[at:at + 1020]))
    return change


def quota(kind, **fields):
    return lambda image: field(image.super[f"{kind}_quota_inum"], **fields)(image)


def in_quota(kind, logical, offset, form, value):
    def change(image):
        inode = image.inode(image.super[f"{kind}_quota_inum"])
        struct.pack_into(form, image.data, inode.block_of(logical) * image.block_size + offset, value)
    return change


def usage(image):
    """What root uses, in the first leaf of the tree (blocks of 1 KiB: header, four of the tree, leaves)."""
    inode = image.inode(image.super["usr_quota_inum"])
    at = inode.block_of(1) * image.block_size + 1024 + 16
    struct.pack_into("<Q", image.data, at + 24, 5)


DAMAGES = [
    Damage("default", "magic of the journal", "journal superblock: h_magic", journal(0, ">I", 7)),
    Damage("default", "kind of the journal's superblock", "journal superblock: h_blocktype", journal(4, ">I", 1)),
    Damage("default", "block size of the journal", "journal superblock: s_blocksize", journal(12, ">I", 1024)),
    Damage("default", "length of the journal", "journal superblock: s_maxlen is 900000", journal(16, ">I", 900000)),
    Damage("ext3", "length of the journal, too short", "journal superblock: s_maxlen is 5", journal(16, ">I", 5), UNREAD),
    Damage("default", "first block of the journal", "journal superblock: s_first", journal(20, ">I", 9000), UNREAD),
    Damage("ext3", "start past the journal", "journal superblock: s_start", journal(28, ">I", 90000), UNREAD),
    Damage("default", "checksum of the journal", "", journal(0xFC, ">I", 7, False),
           "without s_feature_incompat of checksums there is none"),
    Damage("default", "an error in the journal", "journal superblock: s_errno", journal(32, ">I", 0xFFFFFFFB)),
    Damage("default", "users of the journal", "journal superblock: s_nr_users is 9999", journal(0x40, ">I", 9999)),
    Damage("default", "features of the journal that nobody knows", "journal superblock: .*feature", journal(40, ">I", 0x1000)),
    Damage("ext3", "read-only features of the journal that nobody knows", "journal superblock: .*feature", journal(44, ">I", 0x1000)),
    Damage("default", "s_journal_inum of another file", "journal|superblock: s_journal_inum", superblock(journal_inum=13)),
    Damage("default", "s_journal_inum out of range", "superblock: s_journal_inum", superblock(journal_inum=1 << 25)),
    Damage("default", "a device as well as an inode", "", superblock(journal_dev=0x801), "the inode comes first"),
    Damage("default", "feature without an inode", "superblock: s_journal_inum|superblock: .*journal", superblock(journal_inum=0)),
    Damage("default", "the journal's extents overlap", "inode 8: extent root: entry 1: blocks 10",
           lambda i: i.inode(8).change_node(0, 12, "<I", 9)),
    Damage("default", "the journal's extent is shared", "inode </big>: .*are the file system's own",
           lambda i: i.inode("/big").change_node(0, 20, "<I", i.inode(8).block_of(100))),
    Damage("default", "backup of the journal's blocks", "", superblock(jnl_blocks=bytes(68)), "the inode comes first"),
    # ---- orphans
    Damage("default", "list: out of range", "orphan list: inode 5000000", superblock(last_orphan=5000000), UNREAD),
    Damage("default", "list: reserved inode", "orphan list: inode 5 ", superblock(last_orphan=5), UNREAD),
    Damage("default", "list: a free inode", "orphan list: inode 700", superblock(last_orphan=700), UNREAD),
    Damage("ext2", "list: a loop of one", "orphan list: inode </small>", listed("/small", "/small")),
    Damage("ext2", "list: a loop of two", "orphan list: inode", listed("/small", "/big", "/small")),
    Damage("default", "list: a file with names", "", listed("/small", 0), "a truncation that a crash interrupted"),
    Damage("default", "list: next one out of range", "orphan list: inode 77777", listed("/small", 77777)),
    Damage("orphan_file", "magic of a block", "orphan file: block 0: bad magic", orphans(-8, "<I", 7, False)),
    Damage("orphan_file", "checksum of a block", "orphan file: block 0: bad magic or checksum", orphans(-4, "<I", 7, False)),
    *(Damage("orphan_file", f"checksum of a block while there may be orphans, {what}", expected,
             lambda i: (orphans(-4, "<I", 7, False)(i), superblock(ro_compat=lambda f: f | 0x10000)(i),
                        field("/small", links_count=7)(i)))
      for what, expected in (("named", r"^orphan file: block 0: bad magic or checksum \(inode \d+, block \d+\)$"),
                             ("and another damage", "^(/.*: )?inode </small>: i_links_count is 7"))),
    Damage("orphan_file", "an entry without the feature orphan_present", "orphan file: block 0 slot 0: inode 600", orphans(0, "<I", 600)),
    Damage("orphan_file", "an entry out of range", "orphan file: block 0 slot 2: inode 70000000",
           lambda i: (orphans(8, "<I", 70000000)(i), superblock(ro_compat=lambda f: f | 0x10000)(i))),
    Damage("orphan_file", "size 0", "orphan file|inode \\d+: i_size", orphan_inode(size=0)),
    Damage("orphan_file", "size of half a block", "orphan file|inode \\d+: i_size", orphan_inode(size=lambda n: n + 100)),
    Damage("orphan_file", "mode", "orphan file|inode \\d+", orphan_inode(mode=0o040600)),
    Damage("orphan_file", "number out of range", "orphan file|superblock: s_orphan_file_inum", superblock(orphan_file_inum=1 << 25)),
    Damage("orphan_file", "number 0", "orphan file|superblock: s_orphan_file_inum", superblock(orphan_file_inum=0)),
    Damage("orphan_file", "number of another file", "orphan file", superblock(orphan_file_inum=13)),
    Damage("orphan_file", "a hole", "orphan file: block \\d+ is a hole", orphan_inode(size=lambda n: n * 2)),
    # ---- mmp
    Damage("mmp", "magic", "mmp block \\d+: mmp_magic", mmp(0, "<I", 7)),
    Damage("mmp", "checksum", "mmp block \\d+: .*checksum", mmp(1020, "<I", 7, False)),
    Damage("mmp", "block out of range", "superblock: s_mmp_block", superblock(mmp_block=1 << 30)),
    Damage("mmp", "block in the superblock", "superblock: s_mmp_block", superblock(mmp_block=0)),
    # ---- quota
    Damage("quota", "user file is no file", "quota .*inode 3|inode 3: ", quota("usr", mode=0o040600)),
    Damage("quota", "group file has no links", "", quota("grp", links_count=0), "nobody needs them"),
    Damage("quota", "project file's i_blocks", "inode \\d+: i_blocks", quota("prj", blocks=0)),
    Damage("quota", "user file's i_size", "inode 3: i_size|quota", quota("usr", size=100)),
    Damage("quota", "user file's i_size, upper half", "user quota file, inode 3: i_size is 4294", quota("usr", size_high=1)),
    Damage("quota", "group file is too short", "group quota file, inode 4: i_size is 2048, it says",
           quota("grp", size=2048)),
    Damage("quota", "magic", "user quota file, inode 3: magic is 0x7", in_quota("usr", 0, 0, "<I", 7),
           "it leaves out what is no quota file"),
    Damage("quota", "version", "group quota file, inode 4: version is 9", in_quota("grp", 0, 4, "<I", 9)),
    Damage("quota", "usage", "user quota file, inode 3: user 0 has \\d+ bytes in \\d+ inodes, it says \\d+ in 5", usage),
    Damage("quota", "owner of a file", "user quota file, inode 3: user 55 has", field("/big", uid=55)),
    Damage("quota", "group of a file", "group quota file, inode 4: group 55 has", field("/big", gid=55)),
    Damage("quota", "project of a file", "project quota file, inode \\d+: project 5 has", field("/big", projid=5)),
    Damage("quota", "a tree that names itself", "user quota file, inode 3: block 1 is named twice", in_quota("usr", 0, 1024, "<I", 1)),
    Damage("quota", "a tree that leads out of the file", "user quota file, inode 3: a tree names block 9000", in_quota("usr", 0, 1024, "<I", 9000)),
    Damage("quota", "number of another file", "superblock: s_usr_quota_inum", superblock(usr_quota_inum=20)),
    Damage("quota", "number out of range", "superblock: s_grp_quota_inum", superblock(grp_quota_inum=1 << 25)),
    Damage("default", "a number without the feature", "", superblock(usr_quota_inum=3), "without the feature it is no number"),
    Damage("quota", "flags of the user file", "", quota("usr", flags=lambda f: f & ~0x10), "immutable or not"),
]
