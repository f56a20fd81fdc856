// A way through the index of a hashed directory, from the root to one leaf.
#pragma once

#include "namespace/dir_layouts.h"
#include "namespace/hash_order.h"
#include "namespace/index_node.h"

namespace uext4 {

class IndexPath {
public:
    struct Frame {
        DirBuffer block;
        std::uint32_t offset = 0;    // of the pairs
        std::uint32_t position = 0;  // of the pair that was followed
        IndexView view() const { return {block.data(), offset}; }
    };

    // The way to the leaf in which a name of that hash lies; of several (equal hashes) the first. The directory's rw is
    // held.
    static Result<IndexPath> to(Inode& directory, std::uint32_t hash);
    // As above, for a name: its hash by the index's own version.
    static Result<IndexPath> to_name(Inode& directory, std::string_view name, NameHash& hash);
    static Result<std::uint8_t> hash_version(Inode& directory);

    std::uint8_t version() const { return version_; }
    std::vector<Frame>& frames() { return frames_; }
    LogicalBlock leaf() const;
    // Where the leaf's hash range starts: with bit 0 set, inside a run of equal hashes.
    std::uint32_t range_start() const;
    // Where the next leaf's range starts; nothing for the last leaf.
    std::optional<std::uint32_t> next_start() const;
    // The leaf, validated. EUCLEAN when it is one of the index's own blocks.
    Result<DirBuffer> read_leaf(Inode& directory) const;
    // To the next leaf; false at the end.
    Result<bool> advance(Inode& directory);

private:
    static Result<IndexPath> from_root(Inode& directory, DirBuffer root, std::uint32_t hash);
    Result<DirBuffer> read_below(Inode& directory, LogicalBlock block, DirBlock what) const;
    Result<void> descend(Inode& directory, std::optional<std::uint32_t> hash);
    std::uint8_t version_ = 0;
    std::uint32_t levels_ = 0;  // below the root
    std::vector<Frame> frames_;
};

}  // namespace uext4
