// The states that a power cut can leave, from a recording.
#pragma once

#include "device/overlay_device.h"
#include "tests/crash/recorder.h"

#include <functional>
#include <random>
#include <unordered_set>

namespace uext4::crash {

enum class CutKind : std::uint8_t { prefix, subset, torn, lying };
inline constexpr int cut_kinds = 4;
const char* cut_name(CutKind kind);

struct CrashState {
    CutKind kind = CutKind::prefix;
    std::string what;       // for messages
    std::size_t cut = 0;    // no request from here on was begun
    std::size_t acked = 0;  // no request from here on was acknowledged
    std::shared_ptr<BlockDevice> image;
    std::uint64_t hash = 0;  // of all its bytes
    // The write that is torn in it, if one is; of the recording.
    const RecordedWrite* torn = nullptr;
};

// Images seen, by a hash of all their bytes that is kept up to date by what changes.
class SeenImages {
public:
    // The hash of a whole image, and its parts.
    struct Sums {
        std::vector<std::uint64_t> parts;
        std::uint64_t total = 0;
    };
    static Sums sums_of(BlockDevice& device);
    // After a write to [offset, offset + length).
    static void update(Sums& sums, BlockDevice& device, std::uint64_t offset, std::uint64_t length);
    bool insert(std::uint64_t total) { return seen_.insert(total).second; }
    std::size_t size() const { return seen_.size(); }

private:
    std::unordered_set<std::uint64_t> seen_;
};

struct StateCounts {
    unsigned prefix_percent = 100;                   // of the prefixes of a recording
    std::size_t subsets = 20, torn = 12, lying = 3;  // tried per recording
    std::size_t most = ~std::size_t{0};              // distinct states in all
    bool ends_recordings = true;                     // `most` also ends the recording that it is reached in
};

// Calls visit for each state whose image was not seen before, until it returns false. The state lives during the call.
// Torn writes: sectors of 512 bytes, in any mix; only the file system's superblock is kept whole, because its checksum
// covers two sectors by the format.
Result<void> for_each_state(const Recording& recording, const StateCounts& counts, std::mt19937_64& random,
                            SeenImages& seen, const std::function<Result<bool>(const CrashState&)>& visit);

}  // namespace uext4::crash
