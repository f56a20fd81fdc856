// What the process may take, computed from files that stand for the kernel's.
#include "pagecache/memory_info.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

namespace uext4 {
namespace {

constexpr std::uint64_t mib = std::uint64_t{1} << 20;

class Memory : public testing::Test {
protected:
    Memory() {
        std::string text = testing::TempDir() + "uext4-memory-XXXXXX";
        top = ::mkdtemp(text.data());
        put("proc/meminfo", "MemTotal:       8388608 kB\nMemFree:         1024 kB\nMemAvailable:    4194304 kB\n");
    }
    ~Memory() override { std::filesystem::remove_all(top); }
    void put(const std::string& name, const std::string& text) {
        const std::filesystem::path path = top / name;
        std::filesystem::create_directories(path.parent_path());
        std::ofstream(path) << text;
    }
    std::optional<std::uint64_t> available() {
        return SystemMemoryInfo((top / "proc").string(), (top / "cgroup").string()).available();
    }

    std::filesystem::path top;
};

TEST_F(Memory, IsWhatTheMachineHasWhereNoGroupLimitsIt) {
    EXPECT_EQ(available(), 4096 * mib);
    put("proc/self/cgroup", "0::/user/one\n");
    put("cgroup/user/one/memory.max", "max\n");
    put("cgroup/user/one/memory.high", "max\n");
    put("cgroup/user/one/memory.current", "1000000\n");
    EXPECT_EQ(available(), 4096 * mib);
}

TEST_F(Memory, IsWhatTheTightestGroupLeaves) {
    put("proc/self/cgroup", "1:cpu:/elsewhere\n0::/user/one\n");
    for (const char* group : {"cgroup/user/one", "cgroup/user"}) {
        put(std::string(group) + "/memory.max", "max\n");
        put(std::string(group) + "/memory.high", "max\n");
        put(std::string(group) + "/memory.current", std::to_string(100 * mib) + "\n");
        put(std::string(group) + "/memory.stat", "anon 1\ninactive_file 0\n");
    }
    put("cgroup/user/one/memory.max", std::to_string(900 * mib) + "\n");
    EXPECT_EQ(available(), 800 * mib);
    put("cgroup/user/one/memory.high", std::to_string(600 * mib) + "\n");
    EXPECT_EQ(available(), 500 * mib);
    // One above it.
    put("cgroup/user/memory.max", std::to_string(300 * mib) + "\n");
    EXPECT_EQ(available(), 200 * mib);
    // Contents of files that the kernel has cached are given up first.
    put("cgroup/user/memory.stat", "inactive_anon 7\ninactive_file " + std::to_string(60 * mib) + "\n");
    EXPECT_EQ(available(), 260 * mib);
    put("cgroup/user/memory.current", std::to_string(400 * mib) + "\n");
    EXPECT_EQ(available(), 0U);
}

TEST_F(Memory, IsWhatAGroupOfVersionOneLeaves) {
    put("proc/self/cgroup", "9:cpu,cpuacct:/a\n4:memory:/a/b\n0::/\n");
    put("cgroup/memory/a/b/memory.limit_in_bytes", std::to_string(512 * mib));
    put("cgroup/memory/a/b/memory.usage_in_bytes", std::to_string(112 * mib));
    put("cgroup/memory/a/b/memory.stat", "inactive_file 5\ntotal_inactive_file " + std::to_string(12 * mib) + "\n");
    EXPECT_EQ(available(), 412 * mib);
    put("cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712");
    EXPECT_EQ(available(), 4096 * mib);
}

// In a container the path may be the host's; what is there is the root.
TEST_F(Memory, FindsTheRootOfAContainer) {
    put("proc/self/cgroup", "4:memory:/docker/0123\n");
    put("cgroup/memory/memory.limit_in_bytes", std::to_string(256 * mib));
    put("cgroup/memory/memory.usage_in_bytes", "0");
    EXPECT_EQ(available(), 256 * mib);
}

TEST_F(Memory, IsNotKnownWithoutFiles) {
    std::filesystem::remove_all(top / "proc");
    EXPECT_EQ(available(), std::nullopt);
}

// Files that were opened before are read anew each time, where no file can be opened any more.
TEST_F(Memory, IsReadFromFilesThatWereKeptOpen) {
    put("proc/self/cgroup", "0::/one\n");
    put("cgroup/one/memory.max", std::to_string(900 * mib));
    put("cgroup/one/memory.current", "0");
    SystemMemoryInfo memory((top / "proc").string(), (top / "cgroup").string());
    memory.keep_files_open();
    put("cgroup/one/memory.current", std::to_string(500 * mib));  // the same file
    std::filesystem::rename(top / "proc", top / "gone");
    std::filesystem::rename(top / "cgroup", top / "gone2");
    EXPECT_EQ(memory.available(), 400 * mib);
}

}  // namespace
}  // namespace uext4
