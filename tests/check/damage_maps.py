"""Where the bytes of a file lie: extent trees, indirect blocks; symlinks."""

import struct

from damage import Damage, field, flip

EXTENTS = 0x80000


def node(path, index, offset, form, value):
    return lambda image: image.inode(path).change_node(index, offset, form, value)


def leaf_index(image, path):
    inode = image.inode(path)
    return next(k for k, (at, _) in enumerate(inode.nodes()) if image.data[at + 6] == 0)


def in_leaf(path, offset, form, value):
    """In the first leaf, `value` may be made from the image."""
    def change(image):
        made = value(image) if callable(value) else value
        image.inode(path).change_node(leaf_index(image, path), offset, form, made)
    return change


def leaf_place(image, path):
    inode = image.inode(path)
    return inode.nodes()[leaf_index(image, path)][0]


def pointer(path, index, value):
    """In i_block."""
    def change(image):
        made = value(image) if callable(value) else value
        image.inode(path).set_bytes(0x28 + 4 * index, struct.pack("<I", made))
    return change


def below(path, index, value, slot=12):
    """In the indirect block that i_block[slot] names."""
    def change(image):
        block = struct.unpack_from("<I", image.inode(path)["block"], 4 * slot)[0]
        image.put32(block * image.block_size + 4 * index, value(image) if callable(value) else value)
    return change


def block_of(path, logical=0):
    return lambda image: image.inode(path).block_of(logical)


def first_leaf_of(path):
    return lambda image: image.inode(path).nodes()[leaf_index(image, path)][1]


def last_of_first_leaf(image):
    inode, index = image.inode("/sparse"), leaf_index(image, "/sparse")
    count = struct.unpack_from("<H", image.data, inode.nodes()[index][0] + 2)[0]
    inode.change_node(index, 12 * count + 4, "<H", 900)


def swapped(image):
    """Two extents swap their places."""
    at = leaf_place(image, "/sparse")
    a, b = bytes(image.data[at + 12:at + 24]), bytes(image.data[at + 24:at + 36])
    image.data[at + 12:at + 36] = b + a
    image.inode("/sparse").seal_node(image.inode("/sparse").nodes()[leaf_index(image, "/sparse")][1])


DAMAGES = [
    Damage("default", "magic of the root", "inode </big>: extent root: eh_magic", node("/big", 0, 0, "<H", 0xF30B)),
    Damage("default", "magic of a leaf", "inode </sparse>: extent node in block \\d+: eh_magic", in_leaf("/sparse", 0, "<H", 7)),
    Damage("default", "depth of the root", "inode </big>: extent root", node("/big", 0, 6, "<H", 1)),
    Damage("1k", "depth of a node", "inode </sparse>: extent node in block \\d+: eh_depth", node("/sparse", 1, 6, "<H", 3),
           "it goes by the depth of the root"),
    Damage("default", "depth above 5", "inode </sparse>: extent root: eh_depth", node("/sparse", 0, 6, "<H", 6)),
    Damage("default", "eh_max of the root", "inode </big>: extent root: eh_max", node("/big", 0, 4, "<H", 9)),
    Damage("default", "eh_max of a leaf", "inode </sparse>: extent node in block \\d+: eh_max", in_leaf("/sparse", 4, "<H", 900)),
    Damage("default", "eh_entries past eh_max", "inode </sparse>: extent node in block \\d+: eh_entries",
           in_leaf("/sparse", 2, "<H", 700)),
    Damage("default", "eh_entries 0 in an inner node", "inode </sparse>: extent root: eh_entries", node("/sparse", 0, 2, "<H", 0)),
    Damage("1k", "an extent lost", "inode </sparse>: i_blocks|without an owner",
           in_leaf("/sparse", 2, "<H", lambda i: i.data[leaf_place(i, "/sparse") + 2] - 1)),
    Damage("default", "order of the extents", "inode </sparse>: extent node in block \\d+: entry 1", swapped),
    Damage("default", "overlap", "inode </sparse>: extent node in block \\d+: entry 1: blocks", in_leaf("/sparse", 12 + 4, "<H", 3)),
    Damage("default", "length 0", "inode </sparse>: extent node in block \\d+: entry 2: ee_len is 0",
           in_leaf("/sparse", 36 + 4, "<H", 0)),
    Damage("default", "out of range", "inode </big>: extent root: entry 0: ee_start is 4100",
           in_leaf("/big", 12 + 8, "<I", 4100)),
    Damage("default", "out of range, upper half", "inode </big>: extent root: entry 0: ee_start", in_leaf("/big", 12 + 6, "<H", 5)),
    Damage("default", "in the file system's own blocks", "inode </big>: extent .*file system's own",
           in_leaf("/big", 12 + 8, "<I", 1)),
    Damage("1k", "in the inode table", "inode </small>: ",
           in_leaf("/small", 12 + 8, "<I", lambda i: i.group(0)["inode_table"] + 2)),
    Damage("default", "shared with another file", "inode (</big>|</small>): block \\d+ belongs to something else",
           in_leaf("/small", 12 + 8, "<I", block_of("/big"))),
    Damage("default", "shared within a file", "inode </sparse>: block \\d+ belongs to something else|inode </sparse>: block",
           in_leaf("/sparse", 12 + 8, "<I", lambda i: i.inode("/sparse").block_of(2))),
    Damage("bigalloc", "shared with another file", "inode (</big>|</small>): block \\d+ belongs to something else",
           in_leaf("/small", 12 + 8, "<I", block_of("/big"))),
    Damage("bigalloc", "not aligned with its cluster", "inode </big>: extent .*clusters",
           in_leaf("/big", 12 + 8, "<I", lambda i: i.inode("/big").block_of(0) + 1)),
    Damage("default", "ee_block past i_size", "inode </small>: ", in_leaf("/small", 12, "<I", 40)),
    Damage("default", "called unwritten in a directory", "(inode|directory) </dir>", in_leaf("/dir", 12 + 4, "<H", 32769)),
    Damage("default", "called unwritten in a symlink", "inode </long>", in_leaf("/long", 12 + 4, "<H", 32769), "it reads the block all the same"),
    Damage("default", "checksum of a leaf", "inode </sparse>: extent node in block \\d+: et_checksum",
           flip(lambda i: leaf_place(i, "/sparse") + 12 + 12 * 340)),
    Damage("1k", "checksum of an inner node", "inode </sparse>: extent node in block \\d+: et_checksum",
           flip(lambda i: i.inode("/sparse").nodes()[1][0] + 12 + 12 * 84)),
    Damage("default", "key of an index entry", "inode </sparse>: extent node in block \\d+: entry 0: blocks",
           node("/sparse", 0, 24, "<I", 690)),
    Damage("default", "leaf of an index entry", "inode </sparse>: ", node("/sparse", 0, 12 + 4, "<I", 9000)),
    Damage("default", "a leaf twice", "inode </sparse>: ",
           lambda i: i.inode("/sparse").change_node(0, 24 + 4, "<I", first_leaf_of("/sparse")(i))),
    Damage("default", "a leaf in another file's data", "inode </sparse>: extent node in block",
           lambda i: i.inode("/sparse").change_node(0, 12 + 4, "<I", i.inode("/big").block_of(3))),
    Damage("default", "a leaf of another file", "inode </small>: ",
           lambda i: i.inode("/small").set_bytes(0x28, i.inode("/sparse")["block"])),
    Damage("1k", "ends past its parent's next", "inode </sparse>: extent node",
           last_of_first_leaf),
    Damage("ext2", "direct pointer out of range", "inode </big>: i_block\\[3\\] is 70000", pointer("/big", 3, 70000)),
    Damage("ext2", "direct pointer to metadata", "inode </big>: i_block\\[0\\]", pointer("/big", 0, 2)),
    Damage("ext3", "direct pointer into another file", "inode (</small>|</big>): block \\d+ belongs",
           pointer("/small", 0, block_of("/big"))),
    Damage("ext2", "direct pointer lost", "inode </big>: i_blocks|without an owner", pointer("/big", 2, 0)),
    Damage("ext2", "indirect block out of range", "inode </big>: i_block\\[12\\]", pointer("/big", 12, 99999)),
    Damage("ext2", "indirect block lost", "inode </big>: i_blocks|without an owner", pointer("/big", 12, 0)),
    Damage("ext3", "indirect block in another file's data", "inode </sparse>: indirect block|inode </sparse>: block",
           lambda i: i.inode("/sparse").set_bytes(0x28 + 48, struct.pack("<I", i.inode("/big").block_of(5)))),
    Damage("ext3", "pointer below out of range", "inode </big>: indirect block \\d+: pointer 5 is 77777", below("/big", 5, 77777)),
    Damage("ext3", "pointer below twice", "inode </big>: block \\d+ belongs to something else",
           below("/big", 5, lambda i: i.inode("/big").block_of(14))),
    Damage("ext3", "double indirect block names itself", "inode </sparse>: ",
           lambda i: below("/sparse", 3, lambda i: struct.unpack_from("<I", i.inode("/sparse")["block"], 52)[0], 13)(i)),
    Damage("ext2", "triple indirect block is the double one", "inode </sparse>: ",
           lambda i: pointer("/sparse", 14, struct.unpack_from("<I", i.inode("/sparse")["block"], 52)[0])(i)),
    Damage("ext2", "pointer by debugfs", "inode </small>: ", "sif /small block[0] 50000"),
    # ---- symlinks
    Damage("default", "length of a short one", "inode </link>: ", field("/link", size=9)),
    Damage("default", "a short one of nothing", "inode </link>: ", field("/link", size=0)),
    Damage("default", "length of a long one", "inode </long>: ", field("/long", size=80)),
    Damage("default", "a long one of more than a block", "inode </long>: ", field("/long", size=9000)),
    Damage("default", "a zero byte in a long one", "inode </long>: ", lambda i: i.flip(i.inode("/long").block_of(0) * 4096 + 7, ord("t"))),
    Damage("ext2", "a short one with a zero byte", "inode </link>: ", field("/link", block=b"b\0g" + bytes(57))),
    Damage("default", "a long one called short", "inode </long>: ", field("/long", size=40)),
    Damage("ext2", "a long one without blocks", "inode </long>: ", field("/long", block=bytes(60), blocks=0)),
    Damage("default", "a short one with extents", "inode </link>: ", field("/link", flags=lambda f: f | EXTENTS)),
    Damage("inline", "an inline one's length", "inode </long>: ", field("/long", size=3000)),
    Damage("default", "a long one without an end", "inode </long>: ", field("/long", size=4096)),
]
