"""Extended attributes: in inodes, in blocks, with values in inodes of their own."""

from damage import Damage, field, flip


def header(path, **fields):
    def change(image):
        block = image.inode(path).attribute_header()
        for name, value in fields.items():
            block[name] = value(block[name]) if callable(value) else value
    return change


def in_block(path, name, **fields):
    def change(image):
        item = image.inode(path).block_entry(name)
        for key, value in fields.items():
            item[key] = value(item[key]) if callable(value) else value
    return change


def in_body(path, name, **fields):
    def change(image):
        item = image.inode(path).body_entry(name)
        for key, value in fields.items():
            item[key] = value(item[key]) if callable(value) else value
    return change


def renamed(path, name, new):
    """In the block; the hashes are wrong then as well."""
    def change(image):
        item = image.inode(path).block_entry(name)
        image.data[item.at + 16:item.at + 16 + len(new)] = new
        item.seal()
    return change


def body_renamed(path, name, new):
    def change(image):
        item = image.inode(path).body_entry(name)
        image.data[item.at + 16:item.at + 16 + len(new)] = new
        item.seal()
    return change


def value_inode(image):
    return image.inode("/dir/f4").body_entry("large")["value_inum"]


def of_value(**fields):
    return lambda image: field(value_inode(image), **fields)(image)


def value_changed(image):
    image.flip(image.inode(value_inode(image)).block_of(0) * image.block_size + 5)


def second_names_first(image):
    """Both attributes name one value; the other one belongs to nobody."""
    image.inode("/dir/f5").body_entry("large")["value_inum"] = value_inode(image)


def names_a_file(image):
    image.inode("/dir/f4").body_entry("large")["value_inum"] = image.inode("/big").number


def overlapping(image):
    inode = image.inode("/dir/f1")
    inode.body_entry("small")["value_offs"] = inode.body_entry("second")["value_offs"]


def swapped(image):
    """Two entries of the same length change their places."""
    inode = image.inode("/dir/f2")
    one, two = inode.block_entry("one"), inode.block_entry("two")
    length = 16 + 4
    a, b = bytes(image.data[one.at:one.at + length]), bytes(image.data[two.at:two.at + length])
    image.data[one.at:one.at + length], image.data[two.at:two.at + length] = b, a
    inode.seal_attributes()


DAMAGES = [
    Damage("default", "magic of a block", "inode </dir/f2>: attribute block \\d+: h_magic", header("/dir/f2", magic=7)),
    Damage("default", "references of a block, too many", "attribute block \\d+: h_refcount is 2", header("/dir/f2", refcount=2)),
    Damage("ext3", "references of a block, too many", "attribute block \\d+: h_refcount is 3", header("/dir/f2", refcount=3)),
    Damage("default", "references of a block, none", "inode </dir/f2>: attribute block \\d+: h_refcount is 0", header("/dir/f2", refcount=0)),
    Damage("nocsum", "references of a block, too few", "attribute block \\d+: h_refcount is 1",
           lambda i: (field("/small", file_acl=i.inode("/dir/f2")["file_acl"], blocks=lambda n: n + 2)(i))),
    Damage("default", "number of blocks", "inode </dir/f2>: attribute block \\d+: h_blocks", header("/dir/f2", blocks=2)),
    Damage("default", "checksum of a block", "inode </dir/f2>: attribute block \\d+: bad checksum",
           flip(lambda i: i.inode("/dir/f2")["file_acl"] * 4096 + 16)),
    Damage("default", "hash of a block", "", header("/dir/f2", hash=99),
           "it is only for finding blocks that are alike"),
    Damage("default", "hash of an entry", "inode </dir/f2>: attribute .*hash", in_block("/dir/f2", "one", hash=7)),
    Damage("ext3", "a value that changed", "inode </dir/f2>: attribute .*hash",
           lambda i: i.flip(i.inode("/dir/f2")["file_acl"] * 1024 + i.inode("/dir/f2").block_entry("one")["value_offs"])),
    Damage("default", "offset of a value in a block", "inode </dir/f2>: attribute block.*e_value_offs", in_block("/dir/f2", "one", value_offs=4000)),
    Damage("default", "size of a value in a block", "inode </dir/f2>: attribute block.*e_value_(offs|size)", in_block("/dir/f2", "one", value_size=5000)),
    Damage("default", "a value over the entries", "inode </dir/f2>: attribute", in_block("/dir/f2", "two", value_offs=40)),
    Damage("ext3", "two values at one place", "inode </dir/f2>: attribute", in_block("/dir/f2", "two", value_offs=lambda n: n + 8)),
    Damage("default", "order of the names", "", swapped, "it searches, and never minds the order"),
    Damage("default", "the same name twice", "inode </dir/f2>: attribute", renamed("/dir/f2", "two", b"one")),
    Damage("default", "a name without letters", "inode </dir/f2>: ", in_block("/dir/f2", "one", name_len=0)),
    Damage("default", "a prefix that does not exist", "", in_block("/dir/f2", "one", name_index=99),
           "it is another namespace to it"),
    Damage("default", "name too long in a block", "inode </dir/f2>: attribute", in_block("/dir/f2", "one", name_len=255)),
    Damage("default", "a value in an inode without the feature", "inode </dir/f2>: attribute", in_block("/dir/f2", "one", value_inum=12)),
    Damage("nocsum", "two inodes, one's block is the other's data", "inode (</small>|</big>): ",
           lambda i: field("/small", file_acl=i.inode("/big").block_of(0), blocks=lambda n: n + 2)(i)),
    Damage("default", "magic in an inode", "",
           lambda i: i.inode("/dir/f1").set_bytes(128 + i.inode("/dir/f1")["extra_isize"], b"\1\2\3\4"),
           "it has no attributes then"),
    Damage("default", "offset of a value in an inode", "inode </dir/f1>: attributes.*e_value_offs", in_body("/dir/f1", "small", value_offs=300)),
    Damage("default", "size of a value in an inode", "inode </dir/f1>: attributes.*e_value_(offs|size)", in_body("/dir/f1", "small", value_size=400)),
    Damage("default", "two values at one place in an inode", "inode </dir/f1>: attributes", overlapping),
    Damage("default", "a value over the entries in an inode", "inode </dir/f1>: attributes", in_body("/dir/f1", "small", value_offs=4)),
    Damage("default", "name too long in an inode", "inode </dir/f1>: attributes", in_body("/dir/f1", "small", name_len=250)),
    Damage("default", "the same name twice in an inode", "inode </dir/f1>: attribute", body_renamed("/dir/f1", "second", b"small\0"),
           "it looks for it in blocks only"),
    Damage("default", "a hash in an inode", "inode </dir/f1>: attribute", in_body("/dir/f1", "small", hash=77)),
    Damage("inline", "inline data without its attribute", "inode </small>: inline data without its attribute",
           lambda i: (i.flip(i.inode("/small").body() + 16), i.inode("/small").reseal())),
    Damage("inline", "length of inline data", "inode </small>: i_size is 500", field("/small", size=500),
           "it looks at directories only"),
    Damage("ea_inode", "a value that changed", "inode \\d+: attribute value with a bad hash", value_changed,
           "it does not read the value"),
    Damage("ea_inode", "hash of a value", "inode \\d+: attribute value with a bad hash", of_value(atime=5)),
    Damage("ea_inode", "references of a value", "inode \\d+: .*references", of_value(version=9)),
    Damage("ea_inode", "references of a value, upper half", "inode \\d+: .*references", of_value(ctime=1)),
    Damage("ea_inode", "references of a value, none", "inode \\d+: .*references", of_value(version=0)),
    Damage("ea_inode", "size of a value", "inode \\d+: attribute value", of_value(size=5), "it does not read the value"),
    Damage("ea_inode", "flag of a value", "inode \\d+: ", of_value(flags=lambda f: f & ~0x200000)),
    Damage("ea_inode", "links of a value", "inode \\d+: ", of_value(links_count=0)),
    Damage("ea_inode", "a value out of range", "inode </dir/f4>: attribute|inode 900000", in_body("/dir/f4", "large", value_inum=900000)),
    Damage("ea_inode", "a value that is a file", "inode </big>: ", names_a_file),
    Damage("ea_inode", "one value for two, and one for nobody", "inode \\d+: .*references", second_names_first),
    Damage("ea_inode", "size in the entry", "inode \\d+: attribute value", in_body("/dir/f4", "large", value_size=90),
           "it does not compare them"),
    Damage("ea_inode", "hash in the entry", "inode </dir/f4>: attribute .*hash", in_body("/dir/f4", "large", hash=90)),
    Damage("ea_inode", "feature lost", "inode </dir/f4>: ", lambda i: i.super.__setitem__("incompat", i.super["incompat"] & ~0x400),
           "it sets it again"),
]
