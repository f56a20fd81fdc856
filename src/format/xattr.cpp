#include "format/xattr.h"

#include "format/checksum.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace uext4::format {

namespace {

constexpr std::uint32_t pad4(std::uint32_t n) { return (n + 3) & ~3u; }

struct Prefix {
    XattrIndex index;
    std::string_view text;
    bool whole;  // the name is the prefix alone
};
constexpr Prefix prefixes[] = {{XattrIndex::posix_acl_access, "system.posix_acl_access", true},
                               {XattrIndex::posix_acl_default, "system.posix_acl_default", true},
                               {XattrIndex::richacl, "system.richacl", true},
                               {XattrIndex::user, "user.", false},
                               {XattrIndex::trusted, "trusted.", false},
                               {XattrIndex::security, "security.", false},
                               {XattrIndex::system, "system.", false},
                               {XattrIndex::hurd, "gnu.", false}};

}  // namespace

std::optional<std::pair<XattrIndex, std::string_view>> split_xattr_name(std::string_view full) {
    for (const Prefix& p : prefixes) {
        if (p.whole ? full == p.text : full.starts_with(p.text)) return std::pair(p.index, full.substr(p.text.size()));
    }
    return std::nullopt;
}

std::string full_xattr_name(XattrIndex index, std::string_view name) {
    for (const Prefix& p : prefixes)
        if (p.index == index) return std::string(p.text) + std::string(name);
    return fmt::format("index{}.{}", static_cast<unsigned>(index), name);
}

Result<std::vector<XattrItem>> parse_xattrs(ConstBytes area, std::uint32_t first, const std::string& where) {
    std::vector<XattrItem> out;
    std::size_t at = first;
    std::size_t lowest_value = area.size();
    for (;;) {
        if (at + 4 > area.size())
            return fail(EUCLEAN, "{}: the list of attributes does not end within its {} bytes", where, area.size());
        if (view_as<Le32>(area, at) == 0) break;
        if (at + sizeof(XattrEntry) > area.size())
            return fail(EUCLEAN, "{}: the list of attributes does not end within its {} bytes", where, area.size());
        const auto& e = view_as<XattrEntry>(area, at);
        const std::size_t next = at + sizeof(XattrEntry) + pad4(e.name_len);
        if (next + 4 > area.size())
            return fail(EUCLEAN, "{}: attribute {}: e_name_len is {}, expected at most {}", where, out.size(),
                        e.name_len, area.size() - at - sizeof(XattrEntry));
        XattrItem item;
        item.index = static_cast<XattrIndex>(e.name_index);
        item.name = {reinterpret_cast<const char*>(area.data()) + at + sizeof(XattrEntry), e.name_len};
        if (item.name.find('\0') != std::string_view::npos)
            return fail(EUCLEAN, "{}: attribute {}: its name contains a zero byte, expected none", where, out.size());
        item.entry_offset = static_cast<std::uint32_t>(at);
        item.value_inode = e.value_inode;
        item.value_size = e.value_size;
        item.hash = e.hash;
        if (item.value_size > xattr_max_value)
            return fail(EUCLEAN, "{}: attribute {}: e_value_size is {}, expected at most {}", where, out.size(),
                        item.value_size, xattr_max_value);
        if (!item.value_inode && item.value_size) {
            const std::size_t offset = e.value_offset;
            if (offset > area.size() || pad4(item.value_size) > area.size() - offset)
                return fail(EUCLEAN,
                            "{}: attribute {}: e_value_offs is {} for {} bytes, expected to end within {} bytes", where,
                            out.size(), offset, item.value_size, area.size());
            item.value = area.subspan(offset, item.value_size);
            lowest_value = std::min(lowest_value, offset);
        }
        out.push_back(item);
        at = next;
    }
    if (lowest_value < at + 4)
        return fail(EUCLEAN,
                    "{}: attribute values begin at byte {}, expected behind the list of names, which ends at {}", where,
                    lowest_value, at + 4);
    return out;
}

namespace {

std::uint32_t hash_name(std::string_view name, CharSign sign) {
    std::uint32_t hash = 0;
    for (char c : name) {
        const std::uint32_t value = sign == CharSign::with ? static_cast<std::uint32_t>(static_cast<signed char>(c))
                                                           : static_cast<unsigned char>(c);
        hash = std::rotl(hash, 5) ^ value;
    }
    return hash;
}

}  // namespace

std::uint32_t xattr_entry_hash(std::string_view name, ConstBytes value, CharSign sign) {
    std::uint32_t hash = hash_name(name, sign);
    for (std::size_t at = 0; at < value.size(); at += 4) {
        std::byte word[4] = {};
        std::memcpy(word, value.data() + at, std::min<std::size_t>(4, value.size() - at));
        hash = std::rotl(hash, 16) ^ view_as<Le32>(ConstBytes(word, 4)).get();
    }
    return hash;
}

std::uint32_t xattr_entry_hash_inode(std::string_view name, std::uint32_t value_hash, CharSign sign) {
    return std::rotl(hash_name(name, sign), 16) ^ value_hash;
}

std::uint32_t xattr_block_hash(const std::vector<std::uint32_t>& entry_hashes) {
    std::uint32_t hash = 0;
    for (std::uint32_t h : entry_hashes) {
        if (h == 0) return 0;
        hash = std::rotl(hash, 16) ^ h;
    }
    return hash;
}

namespace {
std::uint32_t block_checksum(const Geometry& g, BlockNr block, ConstBytes contents) {
    const Le32 zero(0);
    constexpr std::size_t at = offsetof(XattrBlockHeader, checksum);
    std::uint32_t crc = crc32c_le<std::uint64_t>(g.checksum_seed, block.value);
    crc = crc32c(crc, contents.first(at));
    crc = crc32c(crc, bytes_of(zero));
    return crc32c(crc, contents.subspan(at + 4));
}
}  // namespace

bool xattr_block_checksum_ok(const Geometry& g, BlockNr block, ConstBytes contents) {
    return !g.metadata_csum() || view_as<XattrBlockHeader>(contents).checksum == block_checksum(g, block, contents);
}

void set_xattr_block_checksum(const Geometry& g, BlockNr block, Bytes contents) {
    if (g.metadata_csum()) view_as<XattrBlockHeader>(contents).checksum = block_checksum(g, block, contents);
}

std::uint32_t xattr_value_hash(const Geometry& g, ConstBytes value) { return crc32c(g.checksum_seed, value); }

std::uint32_t xattr_space(const XattrToStore& item) {
    return static_cast<std::uint32_t>(sizeof(XattrEntry)) + pad4(static_cast<std::uint32_t>(item.name.size())) +
           (item.value_inode ? 0 : pad4(static_cast<std::uint32_t>(item.value.size())));
}

bool layout_xattrs(Bytes area, std::uint32_t first, std::vector<XattrToStore>& items, bool with_hashes) {
    std::size_t needed = first + 4;
    for (const XattrToStore& item : items) needed += xattr_space(item);
    if (needed > area.size()) return false;
    std::memset(area.data() + first, 0, area.size() - first);
    std::size_t at = first, value_at = area.size();
    for (XattrToStore& item : items) {
        auto& e = view_as<XattrEntry>(area, at);
        e.name_len = static_cast<std::uint8_t>(item.name.size());
        e.name_index = static_cast<std::uint8_t>(item.index);
        e.value_inode = item.value_inode;
        e.value_offset = std::uint16_t{0};
        if (item.value_inode) {
            e.value_size = item.value_size;
        } else {
            e.value_size = static_cast<std::uint32_t>(item.value.size());
            if (!item.value.empty()) {
                value_at -= pad4(static_cast<std::uint32_t>(item.value.size()));
                std::memcpy(area.data() + value_at, item.value.data(), item.value.size());
                e.value_offset = static_cast<std::uint16_t>(value_at);
            }
        }
        item.stored_hash = 0;
        if (item.value_inode) item.stored_hash = xattr_entry_hash_inode(item.name, item.value_hash);
        else if (with_hashes) item.stored_hash = xattr_entry_hash(item.name, item.value);
        e.hash = item.stored_hash;
        std::memcpy(area.data() + at + sizeof(XattrEntry), item.name.data(), item.name.size());
        at += sizeof(XattrEntry) + pad4(e.name_len);
    }
    return true;
}

}  // namespace uext4::format
