"""An ext4 image in memory whose fields are changed by name, with its checksums made right again (or left wrong).

Enough of the format to damage one field at a time: superblocks, descriptors, bitmaps, inodes, extents, indirect blocks,
directories, attributes. Nothing of the library under test is used.
"""

import struct

SUPER = {
    "inodes_count": (0x0, 4), "blocks_count": (0x4, 4), "r_blocks_count": (0x8, 4), "free_blocks_count": (0xC, 4),
    "free_inodes_count": (0x10, 4), "first_data_block": (0x14, 4), "log_block_size": (0x18, 4),
    "log_cluster_size": (0x1C, 4), "blocks_per_group": (0x20, 4), "clusters_per_group": (0x24, 4),
    "inodes_per_group": (0x28, 4), "mtime": (0x2C, 4), "magic": (0x38, 2), "state": (0x3A, 2), "errors": (0x3C, 2), "rev_level": (0x4C, 4),
    "first_ino": (0x54, 4), "inode_size": (0x58, 2), "block_group_nr": (0x5A, 2), "compat": (0x5C, 4),
    "incompat": (0x60, 4), "ro_compat": (0x64, 4), "uuid": (0x68, 16), "reserved_gdt_blocks": (0xCE, 2),
    "journal_inum": (0xE0, 4), "journal_dev": (0xE4, 4), "last_orphan": (0xE8, 4), "hash_seed": (0xEC, 16),
    "def_hash_version": (0xFC, 1), "jnl_backup_type": (0xFD, 1), "desc_size": (0xFE, 2), "jnl_blocks": (0x10C, 68),
    "free_blocks_count_hi": (0x158, 4), "min_extra_isize": (0x15C, 2), "want_extra_isize": (0x15E, 2),
    "flags": (0x160, 4), "mmp_block": (0x168, 8), "usr_quota_inum": (0x240, 4), "grp_quota_inum": (0x244, 4),
    "journal_uuid": (0xD0, 16), "overhead_clusters": (0x248, 4), "lpf_ino": (0x268, 4), "prj_quota_inum": (0x26C, 4), "checksum_seed": (0x270, 4),
    "orphan_file_inum": (0x280, 4), "checksum": (0x3FC, 4),
}
GROUP = {
    "block_bitmap": (0x0, 4), "inode_bitmap": (0x4, 4), "inode_table": (0x8, 4), "free_blocks_count": (0xC, 2),
    "free_inodes_count": (0xE, 2), "used_dirs_count": (0x10, 2), "flags": (0x12, 2), "exclude_bitmap": (0x14, 4),
    "block_bitmap_csum": (0x18, 2), "inode_bitmap_csum": (0x1A, 2), "itable_unused": (0x1C, 2), "checksum": (0x1E, 2),
    "block_bitmap_hi": (0x20, 4), "inode_bitmap_hi": (0x24, 4), "inode_table_hi": (0x28, 4),
    "free_blocks_count_hi": (0x2C, 2), "free_inodes_count_hi": (0x2E, 2), "used_dirs_count_hi": (0x30, 2),
    "itable_unused_hi": (0x32, 2), "block_bitmap_csum_hi": (0x38, 2), "inode_bitmap_csum_hi": (0x3A, 2),
}
INODE = {
    "mode": (0x0, 2), "uid": (0x2, 2), "size": (0x4, 4), "atime": (0x8, 4), "ctime": (0xC, 4), "mtime": (0x10, 4),
    "dtime": (0x14, 4), "gid": (0x18, 2), "links_count": (0x1A, 2), "blocks": (0x1C, 4), "flags": (0x20, 4),
    "version": (0x24, 4), "block": (0x28, 60), "generation": (0x64, 4), "file_acl": (0x68, 4), "size_high": (0x6C, 4),
    "faddr": (0x70, 4),
    "blocks_high": (0x74, 2), "file_acl_high": (0x76, 2), "checksum_lo": (0x7C, 2), "extra_isize": (0x80, 2),
    "checksum_hi": (0x82, 2), "projid": (0x9C, 4),
}
XATTR_ENTRY = {"name_len": (0, 1), "name_index": (1, 1), "value_offs": (2, 2), "value_inum": (4, 4),
               "value_size": (8, 4), "hash": (12, 4)}
XATTR_HEADER = {"magic": (0, 4), "refcount": (4, 4), "blocks": (8, 4), "hash": (12, 4), "checksum": (16, 4)}
EXTENTS, INDEX, INLINE, HUGE, EA_INODE = 0x80000, 0x1000, 0x10000000, 0x40000, 0x200000
METADATA_CSUM, GDT_CSUM, BIT64, CSUM_SEED = 0x400, 0x10, 0x80, 0x2000


def _table(polynomial):
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (polynomial if n & 1 else 0)
        table.append(n)
    return table


_CRC32C, _CRC16 = _table(0x82F63B78), _table(0xA001)


def crc32c(seed, data):
    table = _CRC32C
    for byte in data:
        seed = table[(seed ^ byte) & 0xFF] ^ seed >> 8
    return seed


def crc16(seed, data):
    for byte in data:
        seed = _CRC16[(seed ^ byte) & 0xFF] ^ seed >> 8
    return seed


def le32(number):
    return struct.pack("<I", number & 0xFFFFFFFF)


class Fields:
    """Named little-endian fields at a place of the image; `seal` makes the checksum over them right again."""

    def __init__(self, image, at, names, seal=lambda: None):
        self.image, self.at, self.names, self.seal = image, at, names, seal

    def __getitem__(self, name):
        offset, width = self.names[name]
        raw = self.image.data[self.at + offset:self.at + offset + width]
        return int.from_bytes(raw, "little") if width <= 8 else bytes(raw)

    def raw_set(self, name, value):
        offset, width = self.names[name]
        raw = (value % (1 << 8 * width)).to_bytes(width, "little") if isinstance(value, int) else bytes(value)
        assert len(raw) == width, name
        self.image.data[self.at + offset:self.at + offset + width] = raw

    def __setitem__(self, name, value):
        self.raw_set(name, value)
        self.seal()


class Inode(Fields):
    def __init__(self, image, number):
        group, index = divmod(number - 1, image.super["inodes_per_group"])
        at = image.group(group)["inode_table"] * image.block_size + index * image.inode_size
        super().__init__(image, at, INODE, self.reseal)
        self.number = number

    def raw(self):
        return self.image.data[self.at:self.at + self.image.inode_size]

    def set_bytes(self, offset, value):
        self.image.data[self.at + offset:self.at + offset + len(value)] = value
        self.reseal()

    def clear(self):
        self.image.data[self.at:self.at + self.image.inode_size] = bytes(self.image.inode_size)

    def file_seed(self):
        return crc32c(crc32c(self.image.seed, le32(self.number)), le32(self["generation"]))

    def reseal(self):
        image = self.image
        if not image.sums:
            return
        self.raw_set("checksum_lo", 0)
        high = image.inode_size > 128 and self["extra_isize"] >= 4
        if high:
            self.raw_set("checksum_hi", 0)
        crc = crc32c(self.file_seed(), self.raw())
        self.raw_set("checksum_lo", crc & 0xFFFF)
        if high:
            self.raw_set("checksum_hi", crc >> 16)

    # ---- extents: the root and the blocks below it, as (byte place, block number or None)
    def nodes(self):
        todo, out = [(self.at + 0x28, None)], []
        while todo:
            at, block = todo.pop(0)
            out.append((at, block))
            _, entries, _, depth = struct.unpack_from("<HHHH", self.image.data, at)
            for i in range(entries if depth else 0):
                _, low, high = struct.unpack_from("<IIH", self.image.data, at + 12 + 12 * i)
                child = low | high << 32
                todo.append((child * self.image.block_size, child))
        return out

    def runs(self):
        """(logical, physical, count) of what is mapped: by extents, or by the direct and single indirect pointers."""
        data, size = self.image.data, self.image.block_size
        if self["flags"] & INLINE:
            return []
        if self["flags"] & EXTENTS:
            out = []
            for at, _ in self.nodes():
                _, entries, _, depth = struct.unpack_from("<HHHH", data, at)
                for i in range(0 if depth else entries):
                    logical, count, high, low = struct.unpack_from("<IHHI", data, at + 12 + 12 * i)
                    out.append((logical, low | high << 32, count - 32768 if count > 32768 else count))
            return out
        pointers = list(struct.unpack_from("<13I", data, self.at + 0x28))
        indirect = pointers.pop()
        if indirect:
            pointers += struct.unpack_from(f"<{size // 4}I", data, indirect * size)
        return [(i, p, 1) for i, p in enumerate(pointers) if p]

    def block_of(self, logical):
        for first, physical, count in self.runs():
            if first <= logical < first + count:
                return physical + logical - first
        raise KeyError(f"inode {self.number}: block {logical}")

    def seal_node(self, block):
        """Of an extent node; None is the root."""
        if block is None:
            return self.reseal()
        image = self.image
        at = block * image.block_size
        tail = 12 + 12 * ((image.block_size - 12) // 12)
        if image.sums and tail + 4 <= image.block_size:
            image.put32(at + tail, crc32c(self.file_seed(), image.data[at:at + tail]))

    def change_node(self, index, offset, form, value):
        """In the index-th node, breadth first."""
        at, block = self.nodes()[index]
        struct.pack_into(form, self.image.data, at + offset, value)
        self.seal_node(block)

    def seal_directory(self, logical, node=None):
        """`node`: the pairs' offset in an index block (32 in the root)."""
        image = self.image
        if not image.sums:
            return
        at, size = self.block_of(logical) * image.block_size, image.block_size
        if node is None:
            image.put32(at + size - 4, crc32c(self.file_seed(), image.data[at:at + size - 12]))
            return
        limit, count = struct.unpack_from("<HH", image.data, at + node)
        if node + limit * 8 + 8 > size or count > limit:
            return
        crc = crc32c(self.file_seed(), image.data[at:at + node + count * 8])
        crc = crc32c(crc, image.data[at + node + limit * 8:at + node + limit * 8 + 4] + bytes(4))
        image.put32(at + node + limit * 8 + 4, crc)

    def entries(self):
        """(name, inode, byte place, record length, logical block) of all records, those in an index read as empty."""
        image, size = self.image, self.image.block_size
        if self["flags"] & INLINE:
            areas = [(self.at + 0x28 + 4, 56, 0)]
        else:
            areas = [(physical * size + k * size, size, logical + k)
                     for logical, physical, count in self.runs() for k in range(count)]
        out = []
        for start, length, logical in areas:
            at = start
            while at + 8 <= start + length:
                number, record, name_len = struct.unpack_from("<IHB", image.data, at)
                if record < 8:
                    break
                if number:
                    out.append((bytes(image.data[at + 8:at + 8 + name_len]).decode("latin-1"), number, at, record, logical))
                at += record
        return out

    def entry(self, name):
        return next(e for e in self.entries() if e[0] == name)

    def change_entry(self, name, offset, form, value):
        _, _, at, _, logical = self.entry(name)
        if isinstance(value, bytes):
            self.image.data[at + offset:at + offset + len(value)] = value
        else:
            struct.pack_into(form, self.image.data, at + offset, value)
        if self["flags"] & INLINE:
            self.reseal()
        elif self["flags"] & INDEX and logical == 0:
            self.seal_directory(0, 32)
        else:
            self.seal_directory(logical)

    # ---- attributes
    def body(self):
        """Where the first entry in the inode lies."""
        return self.at + 128 + self["extra_isize"] + 4

    def body_entry(self, name):
        return self._entry(self.body(), name, self.reseal)

    def block_entry(self, name):
        at = self["file_acl"] * self.image.block_size + 32
        return self._entry(at, name, self.seal_attributes)

    def _entry(self, at, name, seal):
        while self.image.data[at:at + 4] != bytes(4):
            length = self.image.data[at]
            if self.image.data[at + 16:at + 16 + length] == name.encode():
                return Fields(self.image, at, XATTR_ENTRY, seal)
            at += 16 + (length + 3) // 4 * 4
        raise KeyError(name)

    def attribute_header(self):
        return Fields(self.image, self["file_acl"] * self.image.block_size, XATTR_HEADER, self.seal_attributes)

    def seal_attributes(self):
        image, block = self.image, self["file_acl"]
        at = block * image.block_size
        if image.sums:
            image.put32(at + 16, 0)
            crc = crc32c(image.seed, struct.pack("<Q", block))
            image.put32(at + 16, crc32c(crc, image.data[at:at + image.block_size]))


class Image:
    def __init__(self, data):
        self.data = bytearray(data)
        self.super = Fields(self, 1024, SUPER, self.seal_super)
        self.block_size = 1024 << self.super["log_block_size"]
        self.inode_size = self.super["inode_size"]
        self.sums = bool(self.super["ro_compat"] & METADATA_CSUM)
        self.wide = self.super["desc_size"] if self.super["incompat"] & BIT64 else 32
        seeded = self.super["incompat"] & CSUM_SEED
        self.seed = self.super["checksum_seed"] if seeded else crc32c(0xFFFFFFFF, self.super["uuid"])
        blocks, first = self.super["blocks_count"], self.super["first_data_block"]
        self.groups = -(-(blocks - first) // self.super["blocks_per_group"])

    def put32(self, at, value):
        struct.pack_into("<I", self.data, at, value & 0xFFFFFFFF)

    def get32(self, at):
        return struct.unpack_from("<I", self.data, at)[0]

    def flip(self, at, mask=1):
        self.data[at] ^= mask

    def seal_super(self, at=1024):
        if self.super["ro_compat"] & METADATA_CSUM:
            self.put32(at + 0x3FC, crc32c(0xFFFFFFFF, self.data[at:at + 0x3FC]))

    # ---- groups (with meta_bg: those of the first descriptor block only)
    def group(self, number):
        table = (2 if self.block_size == 1024 else 1) * self.block_size
        at = table + number * self.wide
        return Fields(self, at, GROUP, lambda: self.seal_group(number))

    def seal_group(self, number):
        group = self.group(number)
        at, ro = group.at, self.super["ro_compat"]
        whole = self.data[at:at + self.wide]
        if ro & METADATA_CSUM:
            whole[0x1E:0x20] = bytes(2)
            group.raw_set("checksum", crc32c(crc32c(self.seed, le32(number)), whole) & 0xFFFF)
        elif ro & GDT_CSUM:
            crc = crc16(crc16(0xFFFF, self.super["uuid"]), le32(number))
            crc = crc16(crc, whole[:0x1E])
            group.raw_set("checksum", crc16(crc, whole[0x20:]) if self.wide > 32 else crc)

    def seal_bitmap(self, number, kind):
        group = self.group(number)
        if not self.sums:
            return
        bits = self.super["clusters_per_group"] if kind == "block" else self.super["inodes_per_group"]
        at = group[f"{kind}_bitmap"] * self.block_size
        crc = crc32c(self.seed, self.data[at:at + bits // 8])
        group.raw_set(f"{kind}_bitmap_csum", crc & 0xFFFF)
        if self.wide > 32:
            group.raw_set(f"{kind}_bitmap_csum_hi", crc >> 16)
        group.seal()

    def set_bit(self, number, kind, index, value):
        at = self.group(number)[f"{kind}_bitmap"] * self.block_size + index // 8
        self.data[at] = self.data[at] | 1 << index % 8 if value else self.data[at] & ~(1 << index % 8)
        self.seal_bitmap(number, kind)

    def bit(self, number, kind, index):
        at = self.group(number)[f"{kind}_bitmap"] * self.block_size + index // 8
        return self.data[at] >> index % 8 & 1

    # ---- inodes
    def inode(self, what):
        """By number, or by path."""
        if isinstance(what, int):
            return Inode(self, what)
        here = Inode(self, 2)
        for name in what.split("/"):
            here = Inode(self, here.entry(name)[1]) if name else here
        return here
