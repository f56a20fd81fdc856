#include "namespace/hash_order.h"

#include "format/dir_hash.h"

#include <dirent.h>

#include <algorithm>

namespace uext4 {

namespace {

// For the order of names in cookies where the directory's hash says nothing of it, or cannot be computed; never stored.
std::uint32_t order_by_itself(std::string_view name) {
    std::uint32_t hash = 2166136261u;
    for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
    return hash;
}

}  // namespace

std::uint8_t default_hash_version(const Inode& directory) {
    const std::uint8_t version = directory.fs().geometry.default_hash;
    const auto half_md4 = static_cast<std::uint8_t>(format::HashVersion::half_md4);
    return version <= static_cast<std::uint8_t>(format::HashVersion::tea) ? version : half_md4;
}

Result<NameHash> hash_name(const Inode& directory, std::string_view name, std::uint8_t version) {
    const format::Geometry& geometry = directory.fs().geometry;
    const format::HashVersion effective = format::signed_or_not(version, geometry.hash_unsigned);
    const auto hash = format::dir_hash(name, effective, geometry.hash_seed);
    if (!hash) return fail(EOPNOTSUPP, "directory {}: hash version {} cannot be computed", directory.number(), version);
    const bool legacy = effective == format::HashVersion::legacy || effective == format::HashVersion::legacy_unsigned;
    return NameHash{hash->major & ~1u, legacy ? order_by_itself(name) : hash->minor};
}

bool HashOrderedListing::visit_dot_entries(InodeNr parent, const VisitEntry& visit) const {
    if (cookie_ == 0 && !visit({".", directory_.number(), DT_DIR, 1})) return false;
    return cookie_ > 1 || visit({"..", parent, DT_DIR, 2});
}

Result<void> HashOrderedListing::add(LogicalBlock leaf, const EntryList& list, std::uint32_t low, std::uint32_t high) {
    // Growing step by step is most of the work for a small directory.
    std::size_t count = items_.size();
    for (auto entry = list.at(0); entry; entry = list.at(entry->offset + entry->length)) ++count;
    items_.reserve(count);
    for (auto entry = list.at(0); entry; entry = list.at(entry->offset + entry->length)) {
        if (!entry->used() || entry->name == "." || entry->name == "..") continue;
        // Nobody has the key of SipHash, which is encrypted: within its leaf a name has a place of its own.
        const Result<NameHash> known = hash_name(directory_, entry->name, version_);
        NameHash hash = known ? *known : NameHash{low, order_by_itself(entry->name)};
        hash.major = std::clamp(hash.major, low & ~1u, std::max(low, high) | 1u) & ~1u;
        const std::uint64_t key = std::uint64_t{hash.major >> 1} << 32 | hash.minor;
        Result<FoundEntry> found = checked_entry(directory_, leaf, *entry);
        if (found) items_.push_back({key, std::string(entry->name), *found});
        else if (!damage_.note(std::move(found.error()))) return damage_.first_error();
    }
    return {};
}

bool HashOrderedListing::visit(const VisitEntry& visit) {
    std::ranges::sort(items_,
                      [](const Item& a, const Item& b) { return a.key != b.key ? a.key < b.key : a.name < b.name; });
    for (const Item& item : items_) {
        const std::uint64_t at = std::max(item.key, next_free_);
        next_free_ = at + 1;
        if (at < cookie_) continue;
        if (!visit({item.name, item.found.inode, item.found.type, next_free_, item.found.has_wrong_type})) return false;
    }
    items_.clear();
    return true;
}

}  // namespace uext4
