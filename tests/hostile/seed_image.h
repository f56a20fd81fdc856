// Small file systems that hold every structure of the format, made to be damaged.
#pragma once

#include "api/file_system.h"
#include "tests/doubles/memory_device.h"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace uext4::hostile {

enum class SeedKind : std::uint8_t {
    checksums,  // metadata_csum, orphan_file, hashed directory with inner nodes, extent tree of depth 2, attributes
    bare,       // the same without checksums: damage gets past the first look
    inline_data,
    indirect,       // ext3: indirect blocks, list of orphans
    bigalloc,       // clusters of 4 blocks
    protected_mmp,  // multiple-mount protection
    dirty_v3,       // a log to recover, csum v3, with revokes
    dirty_bare,     // a log to recover, without checksums
    fast_commits,   // a log of which nothing but fast commits is to be replayed
    dirty_v2,       // a log to recover, csum v2
    dirty_v1,       // the same with a sum over each transaction, in a file system without checksums
    ciphered,       // only to be read: encrypted names, directories in which case does not count
    few_names,      // checksums and bare with an index of one level: faster to look through
    few_names_bare,
};
inline constexpr std::size_t seed_kind_count = static_cast<std::size_t>(SeedKind::few_names_bare) + 1;
std::string_view seed_name(SeedKind kind);
// Whether a log of ordinary transactions is to be replayed.
constexpr bool has_log_to_replay(SeedKind kind) {
    return kind == SeedKind::dirty_v3 || kind == SeedKind::dirty_bare || kind == SeedKind::dirty_v2 ||
           kind == SeedKind::dirty_v1;
}

struct Seed {
    SeedKind kind{};
    std::shared_ptr<MemoryDevice> image;
    // A copy that a case may damage and change; costs memory only where it is written.
    std::shared_ptr<MemoryDevice> copy() const { return image->clone(); }
};

// Made once a process by mke2fs and by us, then kept. Blocks of 1 KiB, 12 MiB in all. Aborts when mke2fs cannot run.
const Seed& seed(SeedKind kind);

// As FileSystem::mount_device(), without background threads; lines of the log are appended to `said`.
Result<std::unique_ptr<FileSystem>> mount_seed(std::shared_ptr<BlockDevice> device, std::string_view options,
                                               std::vector<std::string>* said = nullptr);

}  // namespace uext4::hostile
