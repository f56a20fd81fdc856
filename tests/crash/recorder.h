// A workload, run once on a recorded device, with what the tree was after each step.
#pragma once

#include "tests/crash/operation.h"
#include "tests/crash/tree.h"
#include "tests/doubles/memory_device.h"
#include "tests/doubles/recording_device.h"

#include <algorithm>
#include <memory>
#include <vector>

namespace uext4::crash {

class Session;

// A way to make an image.
struct Format {
    const char* name;
    const char* mke2fs;
    const char* size;
    bool samples_pairs = false;    // not every sequence of two operations, in a long run neither
    bool large_values = false;     // attributes that a block does not hold are inodes
    std::uint32_t log_blocks = 0;  // of the log no more is used, so that a change takes several transactions
};
inline constexpr Format formats[] = {
    {"4k", "-b 4096 -J size=4", "10M"},
    {"1k", "-b 1024 -J size=1", "4M"},
    {"inline-4k", "-b 4096 -J size=4 -O inline_data -I 256", "10M"},
    {"inline-1k", "-b 1024 -J size=1 -O inline_data -I 256", "4M"},
    {"bigalloc", "-b 1024 -C 4096 -O bigalloc -J size=1", "4M"},
    {"ea-inode", "-b 1024 -J size=1 -O ea_inode -I 256", "4M", true, true},
    {"indirect", "-b 1024 -J size=1 -O ^extents,^64bit,^metadata_csum,^flex_bg,^huge_file,^extra_isize -I 128", "4M",
     true},
    {"orphan-file", "-b 4096 -J size=4 -O orphan_file", "10M", true},
    // Many groups: each has a bitmap of its own that a change of a file all over the image joins.
    {"small-log", "-b 1024 -g 256 -J size=1", "44M", true, false, 350},
    {"small-log-indirect", "-b 1024 -g 256 -J size=1 -O ^extents,^64bit,^metadata_csum", "44M", true, false, 450},
};

// Linux takes no log of fewer than 1024 blocks.
inline bool kernel_mounts(const std::string& format) {
    return std::ranges::none_of(formats, [&](const Format& f) { return f.name == format && f.log_blocks != 0; });
}

// What may happen between two steps without anybody asking.
enum class Between : std::uint8_t { nothing, commit, write_back, both };
const char* between_name(Between between);

struct Step {
    Operation operation;
    std::size_t begin = 0, end = 0;  // of the log, when it was asked for and when it was acknowledged
    bool done = false;               // it returned no error
    // The transaction that a change would have joined when it began and when it ended: no commit shows what lay between
    // if they are the same.
    std::uint64_t first_transaction = 0, last_transaction = 0;

    bool in_one_transaction() const { return first_transaction == last_transaction; }
};

struct Recording {
    std::string format, mode;
    Between between = Between::nothing;
    bool poisons = false;  // what was freed is overwritten with a pattern as soon as a commit has made it free
    Workload workload;
    unsigned first_serial = 0;  // of its steps: what they write, and the time
    std::shared_ptr<const MemoryDevice> initial;
    std::vector<RecordedWrite> log;
    std::vector<Step> steps;
    std::vector<Tree> trees;  // before the first step, and after each
    // The same number for the same file, where inode numbers may be used again. Parallel to `trees`.
    std::vector<std::map<std::uint64_t, unsigned>> files;

    // Of threads: one for each, with its steps and what its directory was after each; the log is here alone.
    std::vector<Recording> threads;
    std::string directory;       // of a thread
    bool other_numbers = false;  // inodes may have other numbers than here, where the steps are done again

    bool journals_data() const { return mode == "journal"; }
};

// An image whose unused blocks are not zero, so that a stale block shows. The same each time.
Result<std::shared_ptr<MemoryDevice>> make_image(const Format& format, const std::string& scratch);
VolumeOptions mount_options(const std::string& mode);

// Mounts what lies on the device, does the steps of the workload that `into` names, each with the tree behind it, and
// unmounts; the log is all of that. Steps that the tree does not allow are no errors; a device or a structure that
// fails is.
Result<void> record_on(std::shared_ptr<BlockDevice> device, Recording& into);

// Does the setup on a copy, then records the steps on it.
class Recorder {
public:
    Recorder(std::shared_ptr<MemoryDevice> image, std::string format, std::string mode)
        : image_(std::move(image)), format_(std::move(format)), mode_(std::move(mode)) {}
    Result<Recording> record(const Workload& workload, Between between, bool poisons = false);

private:
    Result<std::shared_ptr<MemoryDevice>> prepared(const std::vector<Operation>& setup);

    std::shared_ptr<MemoryDevice> image_;
    std::string format_, mode_;
    std::map<std::string, std::shared_ptr<MemoryDevice>> prepared_;  // by what was done
};

}  // namespace uext4::crash
