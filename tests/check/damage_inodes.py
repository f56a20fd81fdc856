"""Fields of inodes: files, devices, links, the file system's own."""

from damage import Damage, field, flip, superblock

HUGE, EXTENTS, INDEX, INLINE, EA_INODE, ENCRYPT, VERITY, CASEFOLD, IMAGIC = (
    0x40000, 0x80000, 0x1000, 0x10000000, 0x200000, 0x800, 0x100000, 0x40000000, 0x2000)


def add(flag):
    return lambda flags: flags | flag


def drop(flag):
    return lambda flags: flags & ~flag


def used_without_bit(image):
    """A free inode that is filled like one in use."""
    image.inode(600).set_bytes(0, bytes(image.inode("/small").raw()[:128]))
    image.inode(600).reseal()


DAMAGES = [
    Damage("default", "i_links_count", "inode </dir/f3>: i_links_count is 7, expected 1", field("/dir/f3", links_count=7)),
    Damage("ext2", "i_links_count of a directory", "inode </a>: i_links_count is 9, expected 3", "sif /a links_count 9"),
    Damage("ext3", "i_links_count 1 of a directory", "inode </a>: i_links_count is 1", field("/a", links_count=1)),
    Damage("default", "i_links_count 1 of a directory, dir_nlink", "inode </a>: i_links_count is 1", field("/a", links_count=1)),
    Damage("default", "i_links_count 1 of a directory that has no name", "inode </a/b>: in use, but no directory names it",
           lambda i: (field("/a/b", links_count=1)(i), i.inode("/a").change_entry("b", 0, "<I", 0))),
    Damage("default", "no links", "inode </small>: in use without a link|names inode </small>", field("/small", links_count=0)),
    Damage("default", "i_links_count of the root", "inode 2: i_links_count is", field(2, links_count=lambda n: n + 1)),
    Damage("default", "size too small", "inode </big>: i_size is 4096", field("/big", size=4096)),
    Damage("ext2", "size too small, indirect", "inode </big>: i_size is 1024", field("/big", size=1024)),
    Damage("ext2", "size too large for indirect blocks", "inode </big>: i_size", field("/big", size_high=100)),
    Damage("default", "size too large for extents", "inode </big>: i_size", field("/big", size_high=1 << 20)),
    Damage("nocsum", "size of a directory", "directory </dir>: .*size", field("/dir", size=1000)),
    Damage("default", "size of a directory, a block less", "(directory|inode) </hashed>", field("/hashed", size=8192)),
    Damage("default", "size of a directory, a block more", "(directory|inode) </dir>", field("/dir", size=8192)),
    Damage("default", "size of a directory, upper half", "inode </dir>: i_size's upper half is 1", field("/dir", size_high=1)),
    Damage("ext3", "size of a directory, upper half, by debugfs", "inode </dir>: i_size's upper half is 1",
           "sif /dir size 4294968320"),
    Damage("large_dir", "size of a directory, upper half", "inode </dir>: i_size is 42949", field("/dir", size_high=1)),
    Damage("default", "size of a symlink, upper half", "inode </link>: i_size's upper half is 1", field("/link", size_high=1)),
    Damage("default", "size of a fifo, upper half", "inode </fifo>: i_size's upper half is 2", field("/fifo", size_high=2)),
    Damage("default", "size of a fifo", "inode </fifo>: i_size is 5", field("/fifo", size=5)),
    Damage("default", "i_blocks", "inode </big>: i_blocks is 8, it has", field("/big", blocks=8)),
    Damage("ext3", "i_blocks by debugfs", "inode </big>: i_blocks is 8, it has", "sif /big blocks 8"),
    Damage("default", "i_blocks, upper 16 bits", "inode </big>: i_blocks", field("/big", blocks_high=3)),
    Damage("nocsum", "i_blocks, upper 16 bits", "inode </dir/f3>: i_blocks", field("/dir/f3", blocks_high=1)),
    Damage("bigalloc", "i_blocks with clusters", "inode </big>: i_blocks is 8, it has", field("/big", blocks=8)),
    Damage("ext3", "i_blocks, upper 16 bits without huge_file", "inode </small>: i_blocks' upper half is 3",
           field("/small", blocks_high=3)),
    Damage("ext2", "i_blocks, upper 16 bits of the root", "inode 2: i_blocks' upper half is 3", field(2, blocks_high=3)),
    Damage("hurd", "i_frag", "inode </small>: i_frag is 3", "sif /small frag 3"),
    Damage("hurd", "i_fsize", "inode </a>: i_fsize is 3", "sif /a fsize 3"),
    Damage("hurd", "upper half of a mode", "", field("/small", file_acl_high=3), "it is only the translator's"),
    Damage("hurd", "a translator's block outside", "inode </a>: block 77777 is outside", "sif /a translator 77777"),
    Damage("hurd", "a translator's block of a bitmap", "inode </small>: block 3 belongs to something else",
           "sif /small translator 3"),
    Damage("hurd", "a translator's block that is not marked", "block bitmap: 1 cluster in use and not marked",
           "sif /a translator 3900"),
    Damage("default", "i_faddr of a file", "inode </small>: i_faddr is 5", "sif /small faddr 5"),
    Damage("hurd", "i_faddr of a directory", "inode </a>: i_faddr is 5", "sif /a faddr 5"),
    Damage("default", "i_faddr of the root", "inode 2: i_faddr is 5", "sif <2> faddr 5"),
    Damage("default", "i_faddr of the journal", "", "sif <8> faddr 5", "no directory names it"),
    Damage("default", "i_blocks of a fifo", "inode </fifo>: i_blocks is 8", field("/fifo", blocks=8)),
    Damage("default", "i_blocks of a symlink", "inode </link>: i_blocks is 8", field("/link", blocks=8)),
    Damage("default", "flag huge_file", "inode </big>: i_blocks", field("/big", flags=add(HUGE))),
    Damage("ext3", "flag extents without the feature", "inode </small>: .*extent", field("/small", flags=add(EXTENTS))),
    Damage("default", "flag extents lost", "inode </big>: ", field("/big", flags=drop(EXTENTS))),
    Damage("default", "flag inline_data without the feature", "inode </small>: i_flags is 0x10080000: both inline_data and extents",
           field("/small", flags=add(INLINE))),
    Damage("inline", "flags inline_data and extents", "inode </small>: i_flags is .*both inline_data and extents",
           field("/small", flags=add(EXTENTS))),
    Damage("inline", "flag inline_data lost", "inode </small>: ", field("/small", flags=drop(INLINE))),
    Damage("ext2", "flag index without an index", "directory </dir>: ", field("/dir", flags=add(INDEX))),
    Damage("nocsum", "flag index of a file", "inode </big>: i_flags .*index", field("/big", flags=add(INDEX))),
    Damage("default", "flag ea_inode of a file", "inode </big>: ", field("/big", flags=add(EA_INODE)),
           "it looks for one where an attribute names it"),
    Damage("default", "flag imagic of a file", "inode </small>: i_flags is 0x82000", field("/small", flags=add(IMAGIC))),
    Damage("ext2", "flag imagic of the root", "inode 2: i_flags is 0x2000", field(2, flags=add(IMAGIC))),
    Damage("default", "flag imagic of the journal", "", field(8, flags=add(IMAGIC)), "no directory names it"),
    Damage("default", "flag encrypt without the feature", "inode </small>: i_flags .*encrypt",
           field("/small", flags=add(ENCRYPT))),
    Damage("default", "flag verity without the feature", "inode </small>: i_flags .*verity", field("/small", flags=add(VERITY)),
           "it looks at the flag where the feature is"),
    Damage("default", "flag casefold without the feature", "inode </dir>: i_flags .*casefold",
           field("/dir", flags=add(CASEFOLD))),
    Damage("casefold", "flag casefold of a file", "inode </small>: i_flags .*casefold", field("/small", flags=add(CASEFOLD))),
    Damage("default", "flag immutable of a fifo", "", field("/fifo", flags=add(0x10)), "it is only odd"),
    Damage("default", "mode nonsense", "inode </small>: i_mode is 0o?70644", field("/small", mode=0o070644)),
    Damage("default", "mode 0", "inode </small>: i_mode", field("/small", mode=0)),
    Damage("nocsum", "mode of a file that is called a directory", "(inode|directory) </big>", field("/big", mode=0o040755)),
    Damage("nocsum", "mode of a directory that is called a file", "</a/b>", field("/a/b", mode=0o100644)),
    Damage("nocsum", "mode of a file that is called a symlink", "inode </big>: ", field("/big", mode=0o120777)),
    Damage("nocsum", "mode of a file that is called a device", "inode </big>: ", field("/big", mode=0o020644)),
    Damage("default", "time of deletion", "inode </small>: i_dtime is 55", field("/small", dtime=55)),
    Damage("ext2", "time of deletion of a directory", "inode </a>: i_dtime is 5000", "sif /a dtime @5000"),
    Damage("default", "i_extra_isize too large", "inode </small>: i_extra_isize is 200", field("/small", extra_isize=200)),
    Damage("default", "i_extra_isize too small", "inode </small>: i_extra_isize is 2", field("/small", extra_isize=2)),
    Damage("nocsum", "i_extra_isize is odd", "inode </small>: i_extra_isize is 29", field("/small", extra_isize=29)),
    Damage("default", "checksum", "inode </small>: bad checksum", flip(lambda i: i.inode("/small").at + 0x7C)),
    Damage("default", "checksum, upper half", "inode </small>: bad checksum", flip(lambda i: i.inode("/small").at + 0x82)),
    Damage("128", "checksum, 16 bits", "inode </small>: bad checksum", flip(lambda i: i.inode("/small").at + 0x7C)),
    Damage("default", "generation", "inode </sparse>|directory", field("/sparse", generation=77)),
    Damage("default", "generation of a directory", "directory </hashed>", field("/hashed", generation=77)),
    Damage("default", "i_file_acl", "inode </small>: i_file_acl is 3000000", field("/small", file_acl=3000000)),
    Damage("nocsum", "i_file_acl of a fifo names no attributes", "inode </fifo>: ", field("/fifo", file_acl=700)),
    Damage("32bit", "i_file_acl, upper half", "inode </small>: i_file_acl", field("/small", file_acl_high=4)),
    Damage("ext2", "cleared", "names inode </small>, which is not in use|inode </small>: ", "clri /small"),
    Damage("default", "a free inode in use", "", used_without_bit, "what is marked free is not looked at"),
    Damage("default", "checksum of an unused inode", "", flip(lambda i: i.inode(700).at + 0x7C, 0xFF),
           "the unused part of the table is not looked at"),
    Damage("default", "large_file missing", "inode </sparse>: .*large_file|superblock: .*large_file",
           lambda i: (superblock(ro_compat=lambda f: f & ~2)(i), field("/sparse", size_high=1)(i))),
    # ---- the file system's own
    Damage("ext3", "bad blocks inode names a block in use", "inode 1: |inode </big>",
           lambda i: field(1, block=i.inode("/big")["block"][:4] + bytes(56), mode=0, links_count=1)(i)),
    Damage("default", "root is no directory", "(inode|directory) 2", field(2, mode=0o100755)),
    Damage("default", "resize inode: no regular file", "inode 7: ", field(7, mode=0o040600)),
    Damage("1k", "resize inode: size", "inode 7: i_size", field(7, size=123)),
    Damage("1k", "resize inode: links", "", field(7, links_count=0), "nobody needs them"),
    Damage("1k", "resize inode: i_blocks", "inode 7: i_blocks", field(7, blocks=2)),
    Damage("ext3", "resize inode: a direct block", "inode 7: i_block\\[0\\]", field(7, block=lambda b: b"\x09" + b[1:])),
    Damage("1k", "resize inode: no double indirect block", "inode 7: i_block\\[13\\]",
           field(7, block=bytes(60))),
    Damage("1k", "resize inode: a pointer of the double indirect block", "inode 7: ",
           lambda i: i.put32(int.from_bytes(i.inode(7)["block"][52:56], "little") * 1024 + 4 * 3, 9999)),
    Damage("ext3", "resize inode: a pointer below", "inode 7: ", lambda i: i.put32(_below(i) + 4, 8888),
           "the kernel does, when it resizes"),
    Damage("ext3", "resize inode: a pointer below that stands for nothing", "inode 7: block \\d+: pointer 5 is 3138667520, not 0",
           lambda i: i.put32(_below(i) + 20, 3138667520)),
    Damage("1k", "resize inode: a pointer below to a block of its own", "inode 7: block \\d+: pointer 255 is 700, not 0",
           lambda i: i.put32(_below(i) + 4 * 255, 700)),
    Damage("ext3", "resize inode: a pointer of the double indirect block that stands for nothing",
           "inode 7: block \\d+: pointer 255 is 9000, not 0",
           lambda i: i.put32(int.from_bytes(i.inode(7)["block"][52:56], "little") * 1024 + 4 * 255, 9000)),
    Damage("default", "journal inode: no regular file", "journal inode 8|inode 8", field(8, mode=0o020600)),
    Damage("default", "journal inode: size of nothing", "journal inode 8|inode 8: i_size", field(8, size=0)),
    Damage("1k", "journal inode: size half", "journal|inode 8: i_size", field(8, size=lambda n: n // 2)),
    Damage("ext3", "journal inode: i_blocks", "inode 8: i_blocks", field(8, blocks=4)),
    Damage("default", "journal inode: i_blocks, upper bits", "inode 8: i_blocks", field(8, blocks_high=1)),
    Damage("default", "journal inode: links", "journal inode 8|inode 8: i_links_count", field(8, links_count=0)),
    Damage("default", "a reserved inode with a mode", "inode 9: ", field(9, mode=0o100600, links_count=1)),
    *(Damage("default", f"checksum of reserved inode {n}", f"inode {n}: bad checksum", f"sif <{n}> checksum 0x1234")
      for n in (1, 3, 4, 5, 6, 7, 9, 10)),
    Damage("default", "a reserved inode of zeros", "", lambda i: i.inode(9).clear(), "it was never written"),
    Damage("128", "checksum of a reserved inode, 16 bits", "inode 9: bad checksum", flip(lambda i: i.inode(9).at + 0x7C)),
    *(Damage("default", f"i_links_count of reserved inode {n}", f"inode {n}: i_links_count is 5", f"sif <{n}> links_count 5")
      for n in (1, 3, 4)),
    Damage("ext2", "i_links_count of a journal that is none", "inode 8: i_links_count is 5", field(8, links_count=5)),
    *(Damage("default", f"i_links_count of reserved inode {n}", "", f"sif <{n}> links_count 5", "it has no use")
      for n in (5, 6, 7, 8, 9, 10)),
    Damage("quota", "i_links_count of a quota file", "", field(3, links_count=5), "nobody needs it"),
    Damage("ext3", "owner of the bad blocks", "inode 1: it belongs to user 5, group 0", field(1, uid=5)),
    Damage("default", "group of the bad blocks", "inode 1: it belongs to user 0, group 6", field(1, gid=6)),
    *(Damage("default", f"reserved inode {n} among orphans", f"inode {n}: i_dtime is 77", field(n, dtime=77))
      for n in (1, 3, 5, 7, 8, 9)),
    Damage("default", "time of deletion of a reserved inode", "", field(9, dtime=1577836800), "it is not in use"),
    Damage("default", "a small time of deletion when the clock was there", "",
           lambda i: (superblock(mtime=10)(i), field(9, dtime=77)(i)), "it takes it for a time"),
    Damage("default", "boot loader inode with blocks", "inode 5: |</big>",
           lambda i: field(5, mode=0o100600, links_count=1, flags=EXTENTS, block=i.inode("/big")["block"])(i)),
]


def _below(image):
    """The place of the first block that the resize inode's double indirect block names."""
    double = int.from_bytes(image.inode(7)["block"][52:56], "little") * image.block_size
    return next(image.get32(double + 4 * k) for k in range(256) if image.get32(double + 4 * k)) * image.block_size
