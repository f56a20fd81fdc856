// What every inode needs of its file system; owned by the volume, outlives all inodes.
#pragma once

#include "alloc/allocator.h"
#include "base/result.h"
#include "extent_status/logged_data_blocks.h"
#include "format/superblock.h"
#include "journal/journal.h"
#include "pagecache/page_cache.h"

#include <atomic>
#include <functional>
#include <optional>
#include <string>

namespace uext4 {

enum class AtimePolicy : std::uint8_t { relatime, strict, never };

struct FsOptions {
    bool read_only = false;
    bool data_journal = false;  // every regular file's data is journaled
    AtimePolicy atime = AtimePolicy::relatime;
    bool nodiratime = false;
    bool xattr_user = true;
    bool acl = true;
    bool auto_da_alloc = true;
    bool grpid = false;  // BSD group inheritance
    std::uint64_t reserved_uid = 0, reserved_gid = 0;
    // Seconds since 1970. What is stamped gets this time instead of the clock's, and equal operations on equal images
    // give equal images: nothing depends on chance, on the clock or on a background thread.
    std::optional<std::int64_t> fixed_time;
};

struct FsContext {
    const format::Geometry& geometry;
    BlockDevice& device;
    BufferCache& buffers;
    Journal& journal;
    Allocator& allocator;
    PageCache& pages;
    FsOptions options;
    std::function<void(const std::string&)> log;            // one sentence, for the operator
    std::function<void(const Error&)> corruption_callback;  // EUCLEAN was met: errors= policy
    std::atomic<bool> read_only{false};                     // by option, or after an abort
    std::atomic<std::uint64_t> inode_memory{0};             // memory of all inodes there are, about
    std::atomic<std::int64_t> times_pending{0};             // inodes whose times are to be stored
    std::uint64_t super_offset = format::super_offset;      // of the superblock that is used: a backup, when asked for
    // Features it got since it was opened (added_features.h); `geometry` has those from before.
    std::atomic<std::uint32_t> added_compat{0}, added_ro_compat{0};
    LoggedDataBlocks logged_data_blocks{journal};

    std::uint32_t block_size() const { return geometry.block_size; }
};

// An error passes through here on its way out: damage is told to the file system.
inline Error report_corruption(const FsContext& fs, Error error) {
    if (error.code == EUCLEAN && fs.corruption_callback) fs.corruption_callback(error);
    return error;
}

template <class T>
Result<T> with_report(const FsContext& fs, Result<T> result) {
    if (!result) result.error() = report_corruption(fs, std::move(result.error()));
    return result;
}

}  // namespace uext4
