// Entries in the order of their names' hashes, and the cookies that name places in that order.
//
// A cookie is the hash's upper 31 bits (bit 0 is the index's own) above the minor hash's 32: below 2^63, the same in
// every layout, and independent of which other names there are. 0 and 1 stand for "." and "..". Names that share all
// 63 bits follow each other by name and take the next numbers.
#pragma once

#include "namespace/dir_layouts.h"

#include <map>
#include <string>
#include <vector>

namespace uext4 {

struct NameHash {
    std::uint32_t major = 0;  // bit 0 clear
    std::uint32_t minor = 0;
};

// The file system's hash for unindexed directories, or `version` of an index.
Result<NameHash> hash_name(const Inode& directory, std::string_view name, std::uint8_t version);
std::uint8_t default_hash_version(const Inode& directory);

class HashOrderedListing {
public:
    // Of a directory hashed by `version`, for a walk that starts at `cookie`.
    HashOrderedListing(Inode& directory, std::uint8_t version, std::uint64_t cookie)
        : directory_(directory), version_(version), cookie_(cookie) {}

    // The smallest hash that the walk needs.
    std::uint32_t first_hash() const { return static_cast<std::uint32_t>(cookie_ >> 32) << 1; }
    // "." and "..": false when the visitor wants no more.
    bool visit_dot_entries(InodeNr parent, const VisitEntry& visit) const;
    // Adds the names of a leaf; hashes outside of [low, high] count as the nearer bound, so that a misplaced name comes
    // once and disturbs no cookie but its own. What is wrong with an entry is noted.
    Result<void> add(LogicalBlock leaf, const EntryList& list, std::uint32_t low, std::uint32_t high);
    DirErrors& damage() { return damage_; }
    // Visits what was added, in order, and forgets it: false when the visitor wants no more.
    bool visit(const VisitEntry& visit);

private:
    struct Item {
        std::uint64_t key = 0;
        std::string name;
        FoundEntry found;
    };
    Inode& directory_;
    std::uint8_t version_;
    std::uint64_t cookie_;
    std::vector<Item> items_;
    DirErrors damage_;
    std::uint64_t next_free_ = 2;  // no cookie below it is given out any more
};

}  // namespace uext4
