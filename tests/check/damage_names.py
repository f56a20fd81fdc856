"""Directories: entries, "." and "..", blocks, indexes."""

import struct

from damage import Damage, field, flip, superblock

INDEX, ENCRYPT, ENCRYPT_FEATURE = 0x1000, 0x800, 0x10000


def entry(directory, name, offset, form, value):
    """0: inode, 4: record length, 6: name length, 7: type, 8: name."""
    def change(image):
        made = value(image) if callable(value) else value
        image.inode(directory).change_entry(name, offset, form, made)
    return change


def names(directory, name, other):
    """The entry names another inode."""
    return entry(directory, name, 0, "<I", other if isinstance(other, int) else lambda i: i.inode(other).number)


def pair(directory, logical, node, index, value, block=False):
    """The hash (or the block) of a pair in an index block."""
    def change(image):
        inode = image.inode(directory)
        at = inode.block_of(logical) * image.block_size + node + 8 * index + (4 if block else 0)
        image.put32(at, value(image) if callable(value) else value)
        inode.seal_directory(logical, node)
    return change


def short(directory, logical, node, offset, value, form="<H", place=None):
    """Limit (0) and count (2) of an index block, or bytes of the root's info."""
    def change(image):
        inode = image.inode(directory)
        at = inode.block_of(logical) * image.block_size + (place if place is not None else node) + offset
        struct.pack_into(form, image.data, at, value)
        inode.seal_directory(logical, node)
    return change


def encrypt(image, *paths):
    superblock(incompat=lambda f: f | ENCRYPT_FEATURE)(image)
    for path in paths:
        field(path, flags=lambda f: f | ENCRYPT)(image)


def hash_of_pair(directory, index):
    return lambda i: i.get32(i.inode(directory).block_of(0) * i.block_size + 32 + 8 * index)


def block_place(directory, logical, offset):
    return lambda image: image.inode(directory).block_of(logical) * image.block_size + offset


def swap_leaves(image):
    """Two leaves change places: their names lie where their hashes do not."""
    inode = image.inode("/hashed")
    size = image.block_size
    a, b = inode.block_of(1) * size, inode.block_of(2) * size
    first, second = bytes(image.data[a:a + size]), bytes(image.data[b:b + size])
    image.data[a:a + size], image.data[b:b + size] = second, first


def other_name(image):
    """A name whose hash belongs into another leaf."""
    inode = image.inode("/hashed")
    for i in range(4):
        at = next(e for e in inode.entries() if e[0].startswith("a-name") and e[4] == 1)
        inode.change_entry(at[0], 8, "", b"z%d" % i)


def duplicate(directory, one, two):
    return lambda i: i.inode(directory).change_entry(two, 8, "", one.encode())


def tail(image):
    """The record that holds the checksum is none."""
    image.data[block_place("/hashed", 1, image.block_size - 12)(image) + 7] = 0


def hole(image):
    """The directory's second block is nowhere."""
    image.inode("/hashed").set_bytes(0x28 + 4, bytes(4))


DAMAGES = [
    Damage("default", "'.' missing", "directory </dir>: .*\"\\.\"", entry("/dir", ".", 8, "", b"x")),
    Damage("ext2", "'.' names another", "directory </dir>: '\\.' names inode </a>", names("/dir", ".", "/a")),
    Damage("default", "'..' missing", "directory </dir>: .*\"\\.\\.\"", entry("/dir", "..", 8, "", b"xx")),
    Damage("default", "'..' wrong", "directory </a/b>: '\\.\\.' names inode </dir>, not </a>", names("/a/b", "..", "/dir")),
    Damage("inline", "'..' wrong, inline", "directory </a/b>: '\\.\\.' names inode </dir>, not </a>",
           lambda i: i.inode("/a/b").set_bytes(0x28, struct.pack("<I", i.inode("/dir").number))),
    Damage("default", "'..' of the root", "directory 2: '\\.\\.' names inode", names("/", "..", "/dir")),
    Damage("default", "'..' of an indexed directory", "directory </hashed>: '\\.\\.' names inode", names("/hashed", "..", "/dir")),
    Damage("default", "'.' has another record length", "directory </dir>: ", entry("/dir", ".", 4, "<H", 16)),
    Damage("default", "type of '..'", "directory </dir>: '\\.\\.' has type", entry("/dir", "..", 7, "<B", 1)),
    Damage("default", "the same name twice", "directory </dir>: 'f12' .*twice", duplicate("/dir", "f12", "f13")),
    Damage("ext2", "the same name twice in other blocks", "directory </hashed>: .*twice",
           lambda i: _same_name_in_another_block(i)),
    Damage("default", "file type", "directory </dir>: 'f3' has type", entry("/dir", "f3", 7, "<B", 2)),
    Damage("default", "file type that does not exist", "directory </dir>: 'f3' has a type that does not exist$", entry("/dir", "f3", 7, "<B", 77)),
    Damage("inline", "file type, inline", "directory </a/b>: 'c' has type", entry("/a/b", "c", 7, "<B", 1)),
    Damage("default", "to a free inode", "directory </dir>: 'f3' names inode 900, which is not in use", names("/dir", "f3", 900)),
    Damage("default", "to a reserved inode", "directory </dir>: 'f3' names inode 8", names("/dir", "f3", 8)),
    Damage("default", "to inode out of range", "directory </dir>: .*inode number 5000000 is out of range", names("/dir", "f3", 5000000)),
    Damage("default", "to another file", "inode (</big>|</dir/f3>): ", names("/dir", "f3", "/big")),
    Damage("orphan_file", "to the orphan file", "directory </dir>: 'f3' names inode", lambda i: names("/dir", "f3", i.super["orphan_file_inum"])(i)),
    Damage("default", "record length 0", "directory </dir>: block 0, offset \\d+: record length 0", entry("/dir", "f3", 4, "<H", 0)),
    Damage("default", "record length past the block", "directory </dir>: block 0, offset \\d+: record length", entry("/dir", "f3", 4, "<H", 5000)),
    Damage("ext2", "record length is odd", "directory </dir>: block 0, offset \\d+: record length 13", entry("/dir", "f3", 4, "<H", 13)),
    Damage("default", "name longer than its record", "directory </dir>: block 0, offset \\d+: name length 200", entry("/dir", "f3", 6, "<B", 200)),
    Damage("default", "name of length 0", "directory </dir>: block 0, offset \\d+: an empty name", entry("/dir", "f3", 6, "<B", 0)),
    Damage("default", "name with a slash", "directory </dir>: block 0, offset \\d+: a name", entry("/dir", "f3", 8, "", b"a/")),
    Damage("default", "name with a zero byte", "directory </dir>: block 0, offset \\d+: a name", entry("/dir", "f3", 8, "", b"f\0")),
    Damage("inline", "record length, inline", "directory </a/b>: .*record length", entry("/a/b", "c", 4, "<H", 3)),
    Damage("default", "checksum of a block", "directory </dir>: block 0, offset \\d+: the checksum", flip(block_place("/dir", 0, 4095))),
    Damage("default", "no tail", "directory </hashed>: block 1, offset \\d+: the record that holds the checksum is missing", tail),
    Damage("ext2", "a hole", "directory </hashed>: block 1, offset 0: a hole", hole),
    Damage("default", "unconnected", "(inode|directory) </a/b>: .*(no directory names it|not connected)", "unlink /a/b"),
    Damage("ext3", "unconnected, and a file", "inode </small>: in use, but no directory names it", "unlink /small"),
    Damage("default", "two parents", "directory </a/b> is reached twice|'other': directory", "link /a/b /dir/other"),
    Damage("nocsum", "a circle that the root does not reach", "inode </a>: in use, but no|</a/b>",
           lambda i: (names("/a/b", "..", "/a/b/c")(i), names("/a/b/c", "..", "/a/b")(i),
                      entry("/a", "b", 0, "<I", 0)(i))),
    Damage("ext2", "a directory inside itself", "directory </a/b> is reached twice|directory </a>",
           lambda i: names("/a/b", "c", "/a")(i)),
    Damage("ext3", "an entry more by debugfs", "inode </small>: i_links_count is 1, expected 2", "link /small /dir/more"),
    Damage("default", "no lost+found", "", "rmdir /lost+found", "it would be made when it is needed"),
    Damage("default", "a short name in an encrypted directory", "directory </a/b>: 'Yw' is too short for an encrypted name",
           lambda i: encrypt(i, "/a/b", "/a/b/c")),
    Damage("default", "an inode in an encrypted directory", "directory </a/b>: 'Yw' names inode </a/b/c>, which is not encrypted",
           lambda i: encrypt(i, "/a/b")),
    # ---- indexes
    Damage("default", "checksum of an index", "directory </hashed>: block 0, .*checksum", lambda i: i.flip(
        block_place("/hashed", 0, 32 + 8 * struct.unpack_from("<H", i.data, block_place("/hashed", 0, 32)(i))[0] + 4)(i))),
    Damage("default", "limit of the root", "directory </hashed>: block 0, .*limit", short("/hashed", 0, 32, 0, 100)),
    Damage("nocsum", "limit of the root, no checksums", "directory </hashed>: block 0, .*limit", short("/hashed", 0, 32, 0, 100)),
    Damage("nocsum", "count of the root", "directory </hashed>: block 0, .*count", short("/hashed", 0, 32, 2, 300)),
    Damage("nocsum", "count 0", "directory </hashed>: block 0, .*count", short("/hashed", 0, 32, 2, 0)),
    Damage("1k", "a leaf lost", "directory </hashed>: block \\d: the index does not name it", short("/hashed", 0, 32, 2, 3)),
    Damage("default", "hash version", "directory </hashed>: block 0, offset 28: hash version 77",
           short("/hashed", 0, 32, 0, 77, "<B", 28)),
    Damage("default", "another hash version", "directory </hashed>: .*hash", short("/hashed", 0, 32, 0, 2, "<B", 28)),
    Damage("default", "info length", "directory </hashed>: block 0, .*info length", short("/hashed", 0, 32, 0, 9, "<B", 29)),
    Damage("default", "levels", "directory </hashed>: block 0, .*levels", short("/hashed", 0, 32, 0, 5, "<B", 30)),
    Damage("default", "reserved bytes of the root", "directory </hashed>: block 0, .*reserved", short("/hashed", 0, 32, 0, 5, "<I", 24)),
    Damage("default", "flags of the root", "directory </hashed>: block 0, .*", short("/hashed", 0, 32, 0, 1, "<B", 31)),
    Damage("1k", "order of hashes", "directory </hashed>: block 0, .*ascending order",
           lambda i: pair("/hashed", 0, 32, 2, hash_of_pair("/hashed", 1)(i) - 2)(i)),
    Damage("1k", "limit of a hash", "directory </hashed>: .*hash",
           lambda i: pair("/hashed", 0, 32, 2, hash_of_pair("/hashed", 2)(i) + 0x2000000)(i)),
    Damage("1k", "a leaf's number", "directory </hashed>: ", pair("/hashed", 0, 32, 2, 900, True)),
    Damage("1k", "a leaf twice", "directory </hashed>: ", pair("/hashed", 0, 32, 2, 1, True)),
    Damage("1k", "a leaf that is the root", "directory </hashed>: ", pair("/hashed", 0, 32, 2, 0, True)),
    Damage("nocsum", "names in the wrong leaf", "directory </hashed>: .*hash", swap_leaves),
    Damage("1k", "names with checksums in the wrong leaf", "directory </hashed>: .*hash", swap_leaves),
    Damage("default", "a name in the wrong leaf", "directory </hashed>: .*hash", other_name),
    Damage("large_dir", "limit of an inner block", "directory </deep>: block \\d+, .*limit", lambda i: short("/deep", _inner(i), 8, 0, 90)(i)),
    Damage("large_dir", "an inner block that is none", "directory </deep>: block \\d+, .*", lambda i: short("/deep", _inner(i), 8, 4, 500, place=0)(i)),
    Damage("large_dir", "order across inner blocks", "directory </deep>: .*(order|hash)",
           lambda i: pair("/deep", _inner(i), 8, 1, 0xFFFFFFF0)(i)),
    Damage("large_dir", "levels one more", "directory </deep>: ", short("/deep", 0, 32, 0, 2, "<B", 30)),
    Damage("large_dir", "levels one less", "directory </deep>: ", short("/deep", 0, 32, 0, 0, "<B", 30)),
    Damage("large_dir", "the root below itself", "directory </deep>: ", lambda i: pair("/deep", _inner(i), 8, 1, 0, True)(i)),
    Damage("default", "flag index lost", "directory </hashed>: ", field("/hashed", flags=lambda f: f & ~INDEX)),
    Damage("inline", "flag index of an inline directory", "inode </a/b>: |directory </a/b>: ", field("/a/b", flags=lambda f: f | INDEX)),
]


def _inner(image):
    """The number of the index block that the root's first pair names."""
    return image.get32(image.inode("/deep").block_of(0) * image.block_size + 32 + 4) & 0x0FFFFFFF


def _same_name_in_another_block(image):
    inode = image.inode("/hashed")
    records = [e for e in inode.entries() if e[0].startswith("a-name")]
    one, other = records[0], next(e for e in records if e[4] != records[0][4])
    inode.change_entry(other[0], 8, "", one[0].encode())
