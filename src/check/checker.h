// One run of check(): what was counted so far, and the passes over it. The structures are looked at in the order of
// Checker::run().
#pragma once

#include "check/check.h"
#include "check/used_clusters.h"
#include "format/group_desc.h"
#include "format/xattr.h"

#include <array>
#include <set>
#include <unordered_map>
#include <utility>

namespace uext4 {

class Checker {
public:
    explicit Checker(Volume& volume) : volume_(volume), fs_(volume.fs()), g_(volume.geometry()) {}
    Result<CheckReport> run();

private:
    // What one inode has.
    struct Blocks {
        std::uint64_t data = 0, tree = 0;  // blocks named by its map, and blocks of the map
        std::uint64_t attributes = 0;      // blocks charged for attributes: their block, values in other inodes
        std::uint64_t value_inodes = 0;
        std::uint64_t last = 0, last_written = 0;  // logical
        bool whole = true;                         // the map could be read to its end
    };
    struct Attribute {
        std::string name;  // without its prefix
        std::uint32_t value_inode = 0, value_size = 0, hash = 0;
    };
    struct SharedBlock {
        std::uint64_t references = 0, users = 0;
    };
    struct Usage {
        std::uint64_t bytes = 0, inodes = 0;
        friend bool operator==(const Usage&, const Usage&) = default;
    };

    template <class... Args>
    void problem(const std::string& where, fmt::format_string<Args...> text, Args&&... args) {
        if (report_.problems.size() < max_problems) add_problem(where, fmt::format(text, std::forward<Args>(args)...));
    }

    // ---- check.cpp
    void add_problem(const std::string& where, std::string what);
    void new_problem(const std::string& where, std::string what);  // unless it is listed already
    void check_supers();
    // ---- groups.cpp
    std::uint64_t cluster_of(BlockNr b) const;
    void mark_used(BlockNr first, std::uint64_t count, std::uint64_t owner);
    void mark_used_for_group(std::uint32_t group, BlockNr first, std::uint64_t count);
    Result<format::GroupDescView> descriptor(GroupNr n);
    void mark_system();
    void check_group_inodes(GroupNr n);
    bool is_system_cluster(GroupNr group, std::uint32_t index) const;
    void check_bitmaps();
    // ---- inodes.cpp
    bool check_inode(InodeNr ino);  // true for a directory
    void check_free_inode(InodeNr ino);
    void check_plain_fields(const Inode& inode, bool reserved, const std::string& where);
    void check_unused_fields(const Inode& inode, const std::string& where);
    void check_flags(const Inode& inode, const std::string& where);
    void check_reserved(const Inode& inode, const std::string& where);
    void check_map(Inode& inode, Blocks& blocks, const std::string& where);
    void check_size(const Inode& inode, const Blocks& blocks, const std::string& where);
    void check_symlink(Inode& inode, bool fast, const std::string& where);
    // ---- attributes.cpp
    void check_attributes(Inode& inode, Blocks& blocks, std::vector<Attribute>& in_inodes, const std::string& where);
    void check_area(const std::vector<format::XattrItem>& items, bool in_block, std::set<std::string>& names,
                    const std::string& where);
    void check_values(const std::vector<Attribute>& in_inodes, const std::string& where);
    void check_references();
    // ---- directories.cpp
    void walk();
    // Whether such a type in an entry says something. 0 is in entries that are older than the feature.
    bool has_file_types(std::uint8_t type) const { return g_.has_filetype() && type != 0; }
    void check_first_entries(Inode& directory, const std::string& where);
    void check_index(Inode& directory, const std::string& where);
    void check_encrypted(const std::string& name, const Inode& child, const std::string& where);
    void check_links();
    // ---- paths.cpp
    void name_paths();
    // ---- own_files.cpp
    void check_journal();
    void check_mmp();
    void check_orphan_file();
    // ---- resize_inode.cpp
    void check_resize_inode(Inode& inode, const std::string& where);
    // ---- quota.cpp
    void count_usage(const Inode& inode, const Blocks& blocks);
    void check_quotas();
    void check_quota_file(Inode& file, unsigned kind, const std::string& where);

    Volume& volume_;
    FsContext& fs_;
    const format::Geometry& g_;
    format::SuperBlock super_{};
    CheckReport report_;
    BufferRef pinned_buffer_;
    UsedClusterSet used_{g_.clusters_per_group};
    std::set<std::uint64_t>
        metadata_clusters_;  // with bigalloc: of the inode at hand, whose blocks may be named one by one
    std::unordered_map<std::uint64_t, std::uint32_t> links_;
    std::unordered_map<std::uint64_t, std::uint64_t> named_;
    std::set<std::uint64_t> damaged_;  // in use, but they cannot be read: what they name is not known
    bool lost_directory_ = false;      // one of them is a directory
    std::unordered_map<std::uint64_t, SharedBlock> attribute_blocks_;
    std::unordered_map<std::uint64_t, std::uint64_t> value_references_;
    std::set<std::uint64_t> value_inodes_;
    std::array<std::unordered_map<std::uint64_t, Usage>, 3> usage_;  // user, group, project
    std::uint64_t free_inodes_ = 0;
};

}  // namespace uext4
