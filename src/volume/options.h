// Mount options, by the kernel's names where the kernel has them.
#pragma once

#include "extent_status/fs_context.h"
#include "format/superblock.h"

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace uext4 {

enum class ErrorPolicy : std::uint8_t { from_superblock, continue_, remount_ro, panic };

inline constexpr std::chrono::seconds default_commit_interval{5};

struct VolumeOptions {
    FsOptions fs;
    bool replay = true;  // read-only with a dirty journal: replay in memory; false shows it as it is
    bool discard = false;
    bool data_writeback = false;         // asked for, by who mounts or by the superblock: taken as data=ordered
    bool sync = false, dirsync = false;  // as if everything (every directory) had the flag
    bool barrier = true;
    std::chrono::milliseconds commit_interval = default_commit_interval;
    // Of contents. What may be dirty and in the log, and how many inodes stay, go by it.
    std::uint64_t cache_bytes = std::uint64_t{128} << 20;
    // cache=auto: clean contents may take more, a part of the memory that is available
    // (pagecache/cache_memory_limit.h).
    bool cache_grows = false;
    bool kernel_caches = false;        // somebody else has what was read or written before, a mount's kernel
    std::uint32_t folio_bytes = 4096;  // at least a block; tests take more
    ErrorPolicy errors = ErrorPolicy::from_superblock;
    std::optional<std::uint64_t> backup_super;  // sb=N, in units of 1 KiB: read-only
    std::uint64_t offset = 0;                   // bytes into the image
    bool background = true;                     // threads that write back and delete; tests switch them off
    std::string mounted_on;                     // what the superblock is to say of it; empty: as it is
    std::vector<std::string> given_names;       // what was asked for and is honoured, in order
    // Options of a mount only (option_table.h), in order.
    std::vector<std::string> ignored;
};

// Comma-separated; without cache= it is cache=auto. EINVAL names the option that is wrong or not known; those of a
// mount go to `others`.
Result<VolumeOptions> parse_volume_options(std::string_view text);
// As above, and EINVAL for those of a mount.
Result<VolumeOptions> parse_all_options(std::string_view text);
// What the superblock asks for (s_default_mount_opts, s_def_resuid, s_def_resgid, s_mount_opts; tune2fs -o, -u, -g,
// -E mount_opts=) comes before what was given. Returns a sentence for each that cannot be honoured, and one where
// data=writeback is taken as data=ordered.
std::vector<std::string> add_superblock_defaults(VolumeOptions& options, const format::SuperBlock& super);
// EINVAL for what was given and asks for a journal, where none is used, and for what excludes what is asked for now.
Result<void> check_options(const VolumeOptions& options, bool has_journal);
// "64M", "4096", "1G".
Result<std::uint64_t> parse_size(std::string_view text, std::string_view option = "size");

}  // namespace uext4
