// Extended attributes: entries from the front, values from the back, in the inode or in a block.
#pragma once

#include "format/superblock.h"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace uext4::format {

inline constexpr std::uint32_t xattr_magic = 0xEA020000;
inline constexpr std::uint32_t xattr_max_references = 1024;
inline constexpr std::uint32_t xattr_max_value = 65536;

struct XattrBlockHeader {
    Le32 magic, refcount, blocks, hash, checksum;
    Le32 reserved[3];
};
static_assert(sizeof(XattrBlockHeader) == 32);
// Then the entries, from the byte after the magic.
struct XattrInodeHeader {
    Le32 magic;
};
struct XattrEntry {
    std::uint8_t name_len, name_index;
    Le16 value_offset;  // from the first entry (inode) or from the block's start
    Le32 value_inode;   // ea_inode: the value is that inode's contents
    Le32 value_size, hash;
};
static_assert(sizeof(XattrEntry) == 16);

enum class XattrIndex : std::uint8_t {
    none,
    user,
    posix_acl_access,
    posix_acl_default,
    trusted,
    lustre,
    security,
    system,
    richacl,
    encryption,
    hurd
};
// "user.x" -> (user, "x"); nullopt for a prefix that the format does not know.
std::optional<std::pair<XattrIndex, std::string_view>> split_xattr_name(std::string_view full);
std::string full_xattr_name(XattrIndex index, std::string_view name);

struct XattrItem {
    XattrIndex index{};
    std::string_view name;
    std::uint32_t entry_offset = 0;  // in the area given to parse
    ConstBytes value;                // empty when it lives in an inode
    std::uint32_t value_inode = 0;
    std::uint32_t value_size = 0;
    std::uint32_t hash = 0;
};
// The entries of an area: `area` starts at the first entry (inode) or at the block's header with entries at `first`;
// value offsets count from the area's start. Everything is validated; EUCLEAN names `where` and the entry.
Result<std::vector<XattrItem>> parse_xattrs(ConstBytes area, std::uint32_t first, const std::string& where);

// How bytes of a name above 127 are hashed: old writers had it as their machine's char. We and Linux of today hash
// without a sign.
enum class CharSign { without, with };
// Hash of an entry's name and value (`value` padded with zeros to 4 bytes); for a value in an inode: over its hash.
std::uint32_t xattr_entry_hash(std::string_view name, ConstBytes value, CharSign sign = CharSign::without);
std::uint32_t xattr_entry_hash_inode(std::string_view name, std::uint32_t value_hash,
                                     CharSign sign = CharSign::without);
// Hash of a block over its entries' hashes; 0 when an entry's hash is 0.
std::uint32_t xattr_block_hash(const std::vector<std::uint32_t>& entry_hashes);
bool xattr_block_checksum_ok(const Geometry& geometry, BlockNr block, ConstBytes contents);
void set_xattr_block_checksum(const Geometry& geometry, BlockNr block, Bytes contents);
// Of an ea_inode's contents, stored in its i_atime.
std::uint32_t xattr_value_hash(const Geometry& geometry, ConstBytes value);

// Lays entries and values out in `area` from `first`; false when they do not fit. Values of inodes take no room.
struct XattrToStore {
    XattrIndex index{};
    std::string name;
    std::vector<std::byte> value;
    std::uint32_t value_inode = 0, value_size = 0, value_hash = 0;  // when value_inode is set
    std::uint32_t stored_hash = 0;                                  // result of the layout
};
bool layout_xattrs(Bytes area, std::uint32_t first, std::vector<XattrToStore>& items, bool with_hashes);
std::uint32_t xattr_space(const XattrToStore& item);  // bytes of entry and value

}  // namespace uext4::format
