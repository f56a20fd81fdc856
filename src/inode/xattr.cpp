#include "inode/xattr.h"

#include "inode/acl.h"
#include "inode/added_features.h"
#include "inode/attributes.h"
#include "inode/inline_data.h"
#include "inode/inode_xattrs.h"
#include "inode/value_inode.h"
#include "inode/xattr_block.h"

#include <algorithm>

namespace uext4 {

namespace {

using format::XattrIndex;
using format::XattrToStore;

struct Name {
    XattrIndex index;
    std::string_view suffix;
};

// What no caller sees: contents in the inode, and lists that neither Linux nor we go by.
bool is_hidden(XattrIndex index) { return index == XattrIndex::system || index == XattrIndex::richacl; }

Result<Name> parse_name(std::string_view name) {
    const auto split = format::split_xattr_name(name);
    if (!split) return fail(EOPNOTSUPP, "attribute '{}': no such namespace", name);
    if (split->second.size() > 255) return fail(ERANGE, "attribute name of {} bytes", split->second.size());
    if (is_hidden(split->first)) return fail(EOPNOTSUPP, "attribute '{}': no such attribute", name);
    const bool whole = split->first == XattrIndex::posix_acl_access || split->first == XattrIndex::posix_acl_default;
    if (split->second.empty() && !whole) return fail(EINVAL, "attribute '{}': empty name", name);
    return Name{split->first, split->second};
}

bool is(const XattrToStore& item, const Name& name) { return item.index == name.index && item.name == name.suffix; }

// Above this a value goes into an inode of its own, where the feature is: as Linux has it.
std::size_t large_value(const FsContext& fs) { return fs.block_size() / 8 * 7; }

struct Found {
    bool exists = false;
    XattrToStore item;
};

// map_lock held.
Result<Found> find_item(Inode& inode, const Name& name) {
    for (const auto& item : TRY(copy_inode_xattrs(inode)))
        if (is(item, name)) return Found{true, item};
    for (const auto& item : TRY(read_xattr_block(inode)))
        if (is(item, name)) return Found{true, item};
    return Found{};
}

// The owner's i_blocks has the clusters of the values that its entries name, whoever else names them too.
std::int64_t blocks_of_values(const FsContext& fs, const std::vector<XattrToStore>& items) {
    const std::uint64_t ratio = fs.geometry.cluster_ratio;
    std::uint64_t blocks = 0;
    for (const auto& item : items)
        if (item.value_inode) blocks += divide_up(item.value_size, ratio * fs.block_size()) * ratio;
    return static_cast<std::int64_t>(blocks);
}

// Contents that are in the cache and not stored here yet have their room all the same: no block is promised to them.
bool takes_room_of_contents(Inode& inode) {
    return inode.is_regular() && inode.is_inline() && !inode.extent_status().has_pending() &&
           inode.size() > max_inline_size(inode);
}

// Puts `item` (nothing: only removes what has its name) where it fits: in the inode, else in the block. Nothing is
// changed when it fits nowhere (ENOSPC). Returns value inodes that lost a reference. map_lock held.
Result<std::vector<std::uint32_t>> place(Handle& handle, Inode& inode, const Name& name, const XattrToStore* item,
                                         bool may_use_reserve) {
    std::vector<XattrToStore> body = TRY(copy_inode_xattrs(inode))
    , block = TRY(read_xattr_block(inode));
    FsContext& fs = inode.fs();
    const std::int64_t charged = blocks_of_values(fs, body) + blocks_of_values(fs, block);
    std::vector<std::uint32_t> surplus;
    for (const auto& old : body)
        if (is(old, name) && old.value_inode) surplus.push_back(old.value_inode);
    std::erase_if(body, [&](const auto& i) { return is(i, name); });
    const bool was_in_block = std::erase_if(block, [&](const auto& i) { return is(i, name); }) != 0;
    // system.data stays first: its place does not change with the others'.
    const auto contents =
        std::ranges::find_if(body, [](const auto& i) { return i.index == XattrIndex::system && i.name == "data"; });
    if (contents != body.end()) std::rotate(body.begin(), contents, contents + 1);
    TRY(inode.get_write_access(handle));  // nothing fails for a read when something has changed
    const ConstBytes area = inode_xattr_area(inode);
    const std::vector<std::byte> before(area.begin(), area.end());
    const std::int64_t charge =
        blocks_of_values(fs, body) + blocks_of_values(fs, block) + (item ? blocks_of_values(fs, {*item}) : 0);
    std::vector<XattrToStore> grown = body;
    if (item) grown.push_back(*item);
    bool to_block = false, in_body = store_inode_xattrs(inode, grown);
    if (in_body && item && takes_room_of_contents(inode)) {
        std::ranges::copy(before, inode_xattr_area(inode).begin());
        in_body = false;
    }
    if (!in_body) {
        if (!item) return fail(EUCLEAN, "inode {}: its attributes do not fit any more", inode.number());
        block.push_back(*item);
        if (!xattr_block_fits(fs, block))
            return fail(ENOSPC, "inode {}: no room for attribute '{}' of {} bytes", inode.number(), name.suffix,
                        item->value.size());
        to_block = true;
    }
    if (Result<void> given = item ? enable_ext_attr(fs, handle) : Result<void>(); !given) {
        std::ranges::copy(before, inode_xattr_area(inode).begin());
        return fail(given.error());
    }
    if (to_block || was_in_block) {
        // The block may need space, so it goes first; the inode's own part cannot fail then.
        const Result<std::vector<std::uint32_t>> lost =
            write_xattr_block(handle, inode, std::move(block), may_use_reserve);
        if (!lost) {
            std::ranges::copy(before, inode_xattr_area(inode).begin());
            return fail(lost.error());
        }
        surplus.insert(surplus.end(), lost->begin(), lost->end());
    }
    if (to_block && !store_inode_xattrs(inode, body))
        return fail(EUCLEAN, "inode {}: its attributes do not fit any more", inode.number());
    inode.set_ctime(current_time(inode.fs()));
    inode.bump_version();
    TRY(inode.add_blocks(handle, charge - charged));  // stores it
    return surplus;
}

// What the entries of the inode's block refer to: held in memory, so that its copying finds them there; one that is not
// sound matters where the block is shared, and is copied. map_lock held by nobody here.
Result<std::vector<InodeRef>> pin_values(Inode& inode) {
    std::vector<std::uint32_t> numbers;
    bool shared = false;
    {
        MutexLock map(inode.map_lock);
        for (const auto& item : TRY(read_xattr_block(inode)))
            if (item.value_inode) numbers.push_back(item.value_inode);
        if (!numbers.empty()) shared = !TRY(is_xattr_block_unshared(inode));
    }
    std::vector<InodeRef> out;
    for (std::uint32_t number : numbers) {
        Result<InodeRef> value = inode.table().get(InodeNr(number));
        if (value) out.push_back(std::move(*value));
        else if (shared) return fail(value.error());
    }
    return out;
}

Result<XattrToStore> in_value_inode(Handle& handle, Inode& inode, const Name& name, ConstBytes value,
                                    bool may_use_reserve) {
    const ValueInode made = TRY(create_value_inode(handle, inode.table(), inode, value, may_use_reserve));
    return XattrToStore{name.index,
                        std::string(name.suffix),
                        {},
                        static_cast<std::uint32_t>(made.number.value),
                        static_cast<std::uint32_t>(value.size()),
                        made.hash,
                        0};
}

// A link's target in the inode is known by its few blocks, those of values are counted with them, and e2fsck then takes
// the text for block numbers and clears the link.
bool may_have_value_inodes(Inode& inode) {
    return !inode.is_symlink() || inode.is_inline() || inode.size_hint() >= sizeof inode.disk().block;
}

// An owner's map_lock comes before those of its values: one that is a value itself could wait for its own.
Result<void> is_no_value(const Inode& inode) {
    if (!inode.has_flag(format::inode_flag::ea_inode)) return {};
    return fail(EUCLEAN, "inode {}: holds an attribute value, and has one itself", inode.number());
}

// The one routine that changes attributes: without `value` it removes.
Result<void> change(Handle& handle, Inode& inode, const Name& name, const ConstBytes* value, XattrMode mode,
                    bool may_use_reserve) {
    if (value && value->size() > format::xattr_max_value)
        return fail(E2BIG, "attribute value of {} bytes", value->size());
    FsContext& fs = inode.fs();
    if (fs.geometry.has_incompat(format::incompat::ea_inode)) TRY(is_no_value(inode));
    std::optional<InodeNr> former;  // where the value is that goes
    {
        MutexLock map(inode.map_lock);
        const Found found = TRY(find_item(inode, name));
        if (found.exists && mode == XattrMode::create && value)
            return fail(EEXIST, "inode {}: attribute '{}' exists", inode.number(), name.suffix);
        if (!found.exists && (!value || mode == XattrMode::replace))
            return fail(ENODATA, "inode {}: no attribute '{}'", inode.number(), name.suffix);
        // The value that is there already is not written again, and no time moves. As in the kernel, a value in an
        // inode of its own is not compared.
        if (found.exists && value && !found.item.value_inode && std::ranges::equal(found.item.value, *value)) return {};
        if (found.exists && found.item.value_inode) former = InodeNr(found.item.value_inode);
    }
    if (name.index == XattrIndex::security) inode.nosec.store(false, std::memory_order_relaxed);
    const std::vector<InodeRef> pinned = TRY(pin_values(inode));
    PinnedValueInode held;
    if (former) held = TRY(pin_for_drop(handle, inode.table(), *former));
    const bool may_move = fs.geometry.has_incompat(format::incompat::ea_inode) && value && !value->empty() &&
                          may_have_value_inodes(inode);
    XattrToStore item{name.index, std::string(name.suffix), {}, 0, 0, 0, 0};
    bool moved = may_move && value->size() > large_value(fs);
    if (moved) item = TRY(in_value_inode(handle, inode, name, *value, may_use_reserve));
    else if (value) item.value.assign(value->begin(), value->end());
    for (;;) {
        Result<std::vector<std::uint32_t>> placed = [&] {
            MutexLock map(inode.map_lock);
            return place(handle, inode, name, value ? &item : nullptr, may_use_reserve);
        }();
        if (placed) {
            for (std::uint32_t number : *placed)
                TRY(drop_value_inode_reference(handle, inode.table(), InodeNr(number)));
            return {};
        }
        if (moved) (void)drop_value_inode_reference(handle, inode.table(), InodeNr(item.value_inode));
        if (moved || !may_move || placed.error().code != ENOSPC) return fail(placed.error());
        // A small value that finds no room goes where large ones do: its entry takes less.
        item = TRY(in_value_inode(handle, inode, name, *value, may_use_reserve));
        moved = true;
    }
}

}  // namespace

Result<std::optional<std::vector<std::byte>>> find_xattr_raw(Inode& inode, std::string_view full) {
    const Name name = TRY(parse_name(full));
    // No lock of the caller's keeps others from replacing the value: who looks whether a file may be opened holds none.
    // An inode that an entry names stays for as long as the owner's map_lock is held, but has to be in memory before.
    Result<InodeRef> value{InodeRef()};
    std::uint32_t number = 0, version = 0;
    for (;;) {
        {
            MutexLock map(inode.map_lock);
            Found found = TRY(find_item(inode, name));
            if (!found.exists) return std::nullopt;
            if (!found.item.value_inode) return std::move(found.item.value);
            TRY(is_no_value(inode));
            const bool as_before = number == found.item.value_inode && version == inode.disk().version_lo;
            if (!value && as_before) return fail(value.error());
            number = found.item.value_inode;
            version = inode.disk().version_lo;  // goes on with each change
            if (value && *value && (*value)->number().value == number && !(*value)->deleted.load())
                return read_value_inode(*value, found.item.value_size);
        }
        value = open_value_inode(inode.table(), InodeNr(number));
    }
}

Result<void> set_xattr_raw(Handle& handle, Inode& inode, std::string_view full, ConstBytes value, XattrMode mode,
                           bool may_use_reserve) {
    const Name name = TRY(parse_name(full));
    return change(handle, inode, name, &value, mode, may_use_reserve);
}

Result<void> remove_xattr_raw(Handle& handle, Inode& inode, std::string_view full, bool may_use_reserve) {
    const Name name = TRY(parse_name(full));
    return change(handle, inode, name, nullptr, XattrMode::either, may_use_reserve);
}

namespace {

std::optional<AclKind> acl_kind(std::string_view name) {
    if (name == "system.posix_acl_access") return AclKind::access;
    if (name == "system.posix_acl_default") return AclKind::default_;
    return std::nullopt;
}

}  // namespace

Result<std::optional<std::vector<std::byte>>> find_xattr(Inode& inode, std::string_view name) {
    if (const auto kind = acl_kind(name)) {
        if (!inode.fs().options.acl || inode.is_symlink()) return fail(EOPNOTSUPP, "ACLs are off");
        const std::optional<format::Acl> acl = TRY(get_acl(inode, *kind));
        if (!acl) return std::nullopt;
        return format::encode_xattr_acl(*acl);
    }
    return find_xattr_raw(inode, name);
}

Result<std::vector<std::byte>> get_xattr(Inode& inode, std::string_view name) {
    std::optional<std::vector<std::byte>> value = TRY(find_xattr(inode, name));
    if (!value) return fail(ENODATA, "inode {}: no attribute '{}'", inode.number(), name);
    return std::move(*value);
}

Result<void> set_xattr(Handle& handle, Inode& inode, std::string_view name, ConstBytes value, XattrMode mode,
                       bool may_use_reserve, const Credentials* who) {
    if (const auto kind = acl_kind(name)) {
        if (!inode.fs().options.acl || inode.is_symlink()) return fail(EOPNOTSUPP, "ACLs are off");
        if (kind == AclKind::default_ && !inode.is_directory() && !value.empty())
            return fail(EACCES, "inode {}: only a directory has a default ACL", inode.number());
        // No bytes take it away.
        const format::Acl acl = value.empty() ? format::Acl() : TRY(format::decode_xattr_acl(value));
        // XATTR_CREATE and XATTR_REPLACE mean nothing here, as in the kernel.
        if (value.empty() && !TRY(get_acl(inode, *kind))) return {};
        return set_acl(handle, inode, *kind, acl, may_use_reserve, who);
    }
    return set_xattr_raw(handle, inode, name, value, mode, may_use_reserve);
}

Result<void> remove_xattr(Handle& handle, Inode& inode, std::string_view name, bool may_use_reserve) {
    if (const auto kind = acl_kind(name)) {
        if (!inode.fs().options.acl || inode.is_symlink()) return fail(EOPNOTSUPP, "ACLs are off");
        if (!TRY(get_acl(inode, *kind))) return {};
        return set_acl(handle, inode, *kind, {}, may_use_reserve);
    }
    return remove_xattr_raw(handle, inode, name, may_use_reserve);
}

Result<std::vector<std::string>> list_xattrs(Inode& inode) {
    std::vector<std::string> out;
    MutexLock map(inode.map_lock);
    auto add = [&](const std::vector<XattrToStore>& items) {
        for (const auto& item : items)
            if (!is_hidden(item.index) && format::full_xattr_name(item.index, item.name).find("index") != 0)
                out.push_back(format::full_xattr_name(item.index, item.name));
    };
    add(TRY(copy_inode_xattrs(inode)));
    add(TRY(read_xattr_block(inode)));
    return out;
}

// In the kernel's order: what is wrong with the name itself is told after what is forbidden.
Result<void> check_can_change_xattrs(const Inode& inode) {
    if (inode.has_flag(format::inode_flag::immutable) || inode.has_flag(format::inode_flag::append))
        return fail(EPERM, "inode {} is immutable or append-only", inode.number());
    return {};
}

Result<void> check_xattr_access(Inode& inode, const Credentials& who, std::string_view name, bool write) {
    if (write) TRY(check_can_change_xattrs(inode));
    if (name.starts_with("security.")) {
        if (!write) return {};
        if (name == "security.capability")
            return who.capabilities.setfcap ? Result<void>() : fail(EPERM, "file capabilities need CAP_SETFCAP");
        return who.capabilities.sys_admin ? Result<void>() : fail(EPERM, "security attributes need CAP_SYS_ADMIN");
    }
    if (name.starts_with("system.")) {
        const auto kind = acl_kind(name);
        if (kind && inode.is_symlink()) return {};                          // has none
        if (kind == AclKind::default_ && !inode.is_directory()) return {};  // refused, or nothing to do
        if (kind && write && !is_owner_or_capable(inode, who))
            return fail(EPERM, "inode {} belongs to user {}", inode.number(), inode.uid());
        return {};
    }
    if (name.starts_with("trusted.")) {
        if (who.capabilities.sys_admin) return {};
        return write ? fail(EPERM, "trusted attributes need CAP_SYS_ADMIN")
                     : fail(ENODATA, "inode {}: no attribute '{}'", inode.number(), name);
    }
    const bool user = name.starts_with("user.");
    if (user) {
        if (!inode.is_regular() && !inode.is_directory())
            return write ? fail(EPERM, "inode {}: no user attributes on this kind of file", inode.number())
                         : fail(ENODATA, "inode {}: no attribute '{}'", inode.number(), name);
        if (inode.is_directory() && (inode.mode() & S_ISVTX) && write && !is_owner_or_capable(inode, who))
            return fail(EPERM, "inode {}: a sticky directory of somebody else", inode.number());
    }
    TRY(check_access(inode, who, write ? access_write : access_read));
    if (user && !inode.fs().options.xattr_user) return fail(EOPNOTSUPP, "user attributes are off");
    return {};
}

Result<void> free_all_xattrs(Handle& handle, Inode& inode) {
    // One value inode a step, with its entry, so that a handle has room for it and a crash in between leaves no entry
    // without its value.
    const unsigned step = xattr_credits(inode) + Allocator::inode_credits() + 8 * Inode::store_credits();
    for (;;) {
        const std::vector<InodeRef> pinned = TRY(pin_values(inode));
        std::vector<std::uint32_t> surplus;
        bool done = false;
        PinnedValueInode held;  // all that is read comes before the entry goes
        {
            MutexLock map(inode.map_lock);
            std::vector<XattrToStore> body = TRY(copy_inode_xattrs(inode))
            , block = TRY(read_xattr_block(inode));
            const std::int64_t charged = blocks_of_values(inode.fs(), body) + blocks_of_values(inode.fs(), block);
            TRY(inode.get_write_access(handle));
            const auto has_value = [](const XattrToStore& i) { return i.value_inode != 0; };
            if (auto it = std::ranges::find_if(body, has_value); it != body.end()) {
                held = TRY(pin_for_drop(handle, inode.table(), InodeNr(it->value_inode)));
                surplus.push_back(it->value_inode);
                const std::int64_t charge = blocks_of_values(inode.fs(), {*it});
                body.erase(it);
                if (!store_inode_xattrs(inode, body))
                    return fail(EUCLEAN, "inode {}: its attributes do not fit any more", inode.number());
                TRY(inode.add_blocks(handle, -charge));
            } else if (auto last = std::ranges::find_if(block, has_value);
                       last != block.end() && TRY(is_xattr_block_unshared(inode))) {
                held = TRY(pin_for_drop(handle, inode.table(), InodeNr(last->value_inode)));
                const std::int64_t charge = blocks_of_values(inode.fs(), {*last});
                block.erase(last);
                surplus = TRY(write_xattr_block(handle, inode, std::move(block), true));
                TRY(inode.add_blocks(handle, -charge));
            } else {
                surplus = TRY(write_xattr_block(handle, inode, {}, true));
                std::erase_if(body,
                              [](const XattrToStore& i) { return i.index != XattrIndex::system || i.name != "data"; });
                (void)store_inode_xattrs(inode, body);
                TRY(inode.add_blocks(handle, -charged));
                done = true;
            }
        }
        for (std::uint32_t number : surplus) TRY(drop_value_inode_reference(handle, inode.table(), InodeNr(number)));
        if (done) return {};
        if (!handle.extend(step)) TRY(handle.restart(step));
    }
}

unsigned xattr_credits(Inode& inode, std::size_t size) {
    unsigned credits = 2 * Allocator::mark_used_credits() + 4 + Inode::store_credits();
    if (inode.fs().geometry.has_incompat(format::incompat::ea_inode))
        credits += static_cast<unsigned>(divide_up(size, std::size_t{inode.fs().block_size()})) +
                   2 * (Allocator::inode_credits() + 16) + 8;
    return credits;
}

}  // namespace uext4
