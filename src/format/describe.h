// The fields of the disk structures as a table, for tools that show them and for tests that damage them one by one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace uext4::format {

enum class Structure : std::uint8_t {
    superblock,
    group_desc,
    inode,
    extent_header,
    extent_index,
    extent_leaf,
    extent_tail,
    dir_entry,
    dir_tail,
    index_root,
    index_node,
    index_pair,
    index_tail,
    xattr_block_header,
    xattr_inode_header,
    xattr_entry,
    journal_header,
    journal_super,
    journal_tag,
    journal_tag3,
    journal_commit,
    journal_revoke,
    journal_tail,
    fast_commit_tag,
    fast_commit_head,
    orphan_tail,
    mmp
};
inline constexpr std::size_t structure_count = static_cast<std::size_t>(Structure::mmp) + 1;

// `bytes`: text, uuids and areas that other structures live in.
enum class FieldKind : std::uint8_t { little, big, bytes };

struct FieldDescription {
    std::string_view name;     // as the format's documentation calls it
    std::uint32_t offset = 0;  // bytes from the structure's start
    std::uint32_t size = 0;    // bytes; 1, 2, 4 or 8 unless the kind is bytes
    FieldKind kind = FieldKind::little;
};

// Ascending, without overlap, within structure_size(); reserved bytes may be left out.
std::span<const FieldDescription> fields_of(Structure structure);
std::string_view structure_name(Structure structure);
// Of the fixed part: names, pairs and tails that follow are structures of their own.
std::uint32_t structure_size(Structure structure);
// Null when the structure has no field of that name.
const FieldDescription* find_field(Structure structure, std::string_view name);

}  // namespace uext4::format
