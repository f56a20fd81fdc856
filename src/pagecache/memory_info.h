// How much memory the process may still take without pressing others: what the machine has (MemAvailable), and what the
// control groups of the process leave it (version 2: memory.max and memory.high; version 1: memory.limit_in_bytes).
// One caller at a time.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace uext4 {

class MemoryInfo {
public:
    virtual ~MemoryInfo() = default;
    // Bytes; nothing where it is not known.
    virtual std::optional<std::uint64_t> available() = 0;
    // From now on no file can be opened: keep those that are needed open.
    virtual void keep_files_open() {}
};

// From the files of the kernel. `proc` and `cgroup`: where they are; tests have files of their own.
class SystemMemoryInfo : public MemoryInfo {
public:
    explicit SystemMemoryInfo(std::string proc = "/proc", std::string cgroup = "/sys/fs/cgroup");
    ~SystemMemoryInfo() override;
    SystemMemoryInfo(const SystemMemoryInfo&) = delete;
    std::optional<std::uint64_t> available() override;
    void keep_files_open() override;

private:
    // One file, read anew each time, from its start.
    struct File {
        std::string path;
        int kept = -1;  // open for good
        std::string text() const;
        void keep_open();
    };
    // One control group, or one above it.
    struct ControlGroup {
        std::vector<File> limits;  // the smallest counts
        File usage, statistics;
        std::string reclaimable;  // the field of `statistics`: bytes that the kernel gives up before it fails
        std::optional<std::uint64_t> available() const;
    };
    void find_groups(const std::string& proc, const std::string& cgroup);

    File machine_;
    std::vector<ControlGroup> groups_;
};

}  // namespace uext4
