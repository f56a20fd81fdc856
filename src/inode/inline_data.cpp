#include "inode/inline_data.h"

#include "inode/inode_xattrs.h"

#include <algorithm>
#include <cstring>

namespace uext4 {

namespace {

constexpr std::size_t in_block = 60;

const format::XattrItem* find_data(const std::vector<format::XattrItem>& items) {
    for (const auto& item : items)
        if (item.index == format::XattrIndex::system && item.name == "data") return &item;
    return nullptr;
}

}  // namespace

std::uint64_t max_inline_size(Inode& inode) {
    Result<std::vector<format::XattrItem>> items = parse_inode_xattrs(inode);
    const std::size_t area = inode_xattr_area(inode).size();
    if (!items || area == 0) return 0;
    // What the other attributes take, the entry of system.data, and the end of the list.
    std::size_t taken = 4 + sizeof(format::XattrEntry) + 4;
    for (const auto& item : *items) {
        if (item.index == format::XattrIndex::system && item.name == "data") continue;
        taken += sizeof(format::XattrEntry) + round_up(item.name.size(), 4) +
                 (item.value_inode ? 0 : round_up(item.value_size, 4));
    }
    return taken > area ? in_block : in_block + (area - taken);
}

namespace {

Result<std::vector<std::byte>> inline_contents(Inode& inode) {
    const Bytes root = inode.i_block();
    std::vector<std::byte> out(root.begin(), root.end());
    const std::vector<format::XattrItem> items = TRY(parse_inode_xattrs(inode));
    const format::XattrItem* data = find_data(items);
    if (!data) return fail(EUCLEAN, "inode {}: inline data without its attribute", inode.number());
    out.insert(out.end(), data->value.begin(), data->value.end());
    if (inode.disk_size() > out.size())
        return fail(EUCLEAN, "inode {}: i_size is {}, but the inode holds {} bytes", inode.number(), inode.disk_size(),
                    out.size());
    return out;
}

}  // namespace

bool has_inline_xattr(Inode& inode) {
    const Result<std::vector<format::XattrItem>> items = parse_inode_xattrs(inode);
    return !items || find_data(*items);  // what is damaged there, the reader says
}

Result<std::vector<std::byte>> read_inline_data(Inode& inode) {
    return with_report(inode.fs(), inline_contents(inode));
}

Result<void> write_inline_data(Handle& handle, Inode& inode, ConstBytes contents) {
    std::vector<std::byte> rest;
    if (contents.size() > in_block) rest.assign(contents.begin() + in_block, contents.end());
    std::vector<format::XattrToStore> items = TRY(copy_inode_xattrs(inode));
    bool found = false;
    for (auto& item : items) {
        if (item.index != format::XattrIndex::system || item.name != "data") continue;
        item.value = rest;
        found = true;
    }
    if (!found) items.push_back({format::XattrIndex::system, "data", rest, 0, 0, 0, 0});
    if (!store_inode_xattrs(inode, items))
        return fail(ENOSPC, "inode {}: {} bytes do not fit in the inode", inode.number(), contents.size());
    const Bytes root = inode.i_block();
    std::memset(root.data(), 0, root.size());
    std::memcpy(root.data(), contents.data(), std::min(contents.size(), in_block));
    return inode.store(handle);
}

Result<void> clear_inline_data(Handle& handle, Inode& inode) {
    std::vector<format::XattrToStore> items = TRY(copy_inode_xattrs(inode));
    std::erase_if(items,
                  [](const auto& item) { return item.index == format::XattrIndex::system && item.name == "data"; });
    if (!store_inode_xattrs(inode, items))
        return fail(EUCLEAN, "inode {}: its attributes do not fit any more", inode.number());
    const Bytes root = inode.i_block();
    std::memset(root.data(), 0, root.size());
    std::uint32_t flags = inode.flags() & ~format::inode_flag::inline_data;
    if (inode.fs().geometry.has_incompat(format::incompat::extents)) {
        flags |= format::inode_flag::extents;
        initialise_extent_root(root);
    }
    inode.set_flags(flags);
    inode.extent_status().invalidate();
    return inode.store(handle);
}

Result<void> init_inline_data(Inode& inode) {
    std::vector<format::XattrToStore> items = TRY(copy_inode_xattrs(inode));
    items.push_back({format::XattrIndex::system, "data", {}, 0, 0, 0, 0});
    if (!store_inode_xattrs(inode, items)) return fail(ENOSPC, "inode {}: no room for inline data", inode.number());
    const Bytes root = inode.i_block();
    std::memset(root.data(), 0, root.size());
    inode.set_flags((inode.flags() & ~format::inode_flag::extents) | format::inode_flag::inline_data);
    return {};
}

}  // namespace uext4
