#include "inode/inode_xattrs.h"

#include <cstring>

namespace uext4 {

namespace {

constexpr std::size_t magic_size = 4;

std::size_t area_offset(Inode& inode) {
    const ConstBytes raw = std::as_const(inode).raw();
    if (raw.size() <= format::classic_inode_size) return raw.size();
    return format::classic_inode_size + inode.disk().extra_isize;
}

}  // namespace

Bytes inode_xattr_area(Inode& inode) {
    const std::size_t at = area_offset(inode);
    const Bytes raw = inode.raw();
    if (at + magic_size + 8 > raw.size()) return {};
    return raw.subspan(at + magic_size);
}

Result<std::vector<format::XattrItem>> parse_inode_xattrs(Inode& inode) {
    const Bytes area = inode_xattr_area(inode);
    if (area.empty() || view_as<Le32>(ConstBytes(inode.raw()), area_offset(inode)) != format::xattr_magic)
        return std::vector<format::XattrItem>();
    return with_report(inode.fs(), format::parse_xattrs(area, 0, fmt::format("inode {}: attributes", inode.number())));
}

Result<std::vector<format::XattrToStore>> copy_inode_xattrs(Inode& inode) {
    std::vector<format::XattrToStore> out;
    for (const auto& item : TRY(parse_inode_xattrs(inode)))
        out.push_back({item.index,
                       std::string(item.name),
                       {item.value.begin(), item.value.end()},
                       item.value_inode,
                       item.value_inode ? item.value_size : 0,
                       0,
                       item.hash});
    return out;
}

bool store_inode_xattrs(Inode& inode, std::vector<format::XattrToStore>& items) {
    const Bytes area = inode_xattr_area(inode);
    if (area.empty()) return items.empty();
    // Entries in inodes carry no hash, except those whose value is an inode: their hash is kept as it is.
    std::vector<std::byte> scratch(area.size());
    std::vector<std::uint32_t> kept;
    for (const auto& item : items) kept.push_back(item.stored_hash);
    if (!format::layout_xattrs(scratch, 0, items, false)) return false;
    std::size_t at = 0;
    for (std::size_t i = 0; i < items.size(); ++i) {
        auto& e = view_as<format::XattrEntry>(Bytes(scratch), at);
        if (items[i].value_inode && items[i].value_hash == 0) e.hash = kept[i];
        at += sizeof(format::XattrEntry) + round_up(e.name_len, 4);
    }
    std::memcpy(area.data(), scratch.data(), area.size());
    view_as<Le32>(inode.raw(), area_offset(inode)) = items.empty() ? 0u : format::xattr_magic;
    return true;
}

}  // namespace uext4
