// A file system on a device that fails on command and remembers what is durable.
#pragma once

#include "api/file_system.h"
#include "tests/crash/image_file.h"
#include "tests/crash/poisoned_file.h"
#include "tests/doubles/faulty_device.h"
#include "tests/doubles/memory_device.h"
#include "tests/doubles/recording_device.h"
#include "tests/root.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace uext4::faults {

// mke2fs makes one of each format, and the tests have copies.
inline std::shared_ptr<MemoryDevice> fresh_image(const std::string& format) {
    static std::map<std::string, std::shared_ptr<MemoryDevice>> made;
    if (const auto it = made.find(format); it != made.end()) return it->second->clone();
    const std::string path = fmt::format("/dev/shm/uext4-faults-{}", ::getpid());
    EXPECT_TRUE(crash::make_poisoned_file(path, "24M"));
    const std::string make =
        fmt::format("mke2fs -q -F -t ext4 -E lazy_itable_init=0,nodiscard {} {} 24M >/dev/null 2>&1", format, path);
    EXPECT_EQ(std::system(make.c_str()), 0) << make;
    auto image = MemoryDevice::load(path);
    ::unlink(path.c_str());
    if (!image) return nullptr;
    return (made[format] = std::move(*image))->clone();
}

class FaultyMount {
public:
    explicit FaultyMount(std::shared_ptr<MemoryDevice> image) : initial(image->clone()), memory(std::move(image)) {
        recorder = std::make_shared<RecordingDevice>(memory);
        faulty = std::make_shared<FaultyDevice>(recorder, FailedFlush::Drops);
    }

    Result<void> mount(const std::string& text = "", bool background = false) {
        VolumeOptions options = TRY(parse_all_options(text + (text.empty() ? "cache=8M" : ",cache=8M")));
        options.background = background;
        options.commit_interval = std::chrono::milliseconds(0);
        fs = TRY(FileSystem::mount_device(faulty, options, [this](const std::string& line) {
            MutexLock guard(log_lock);
            log += line + "\n";
        }));
        return {};
    }

    // What a power cut leaves that takes everything that was not flushed.
    std::shared_ptr<MemoryDevice> durable() const {
        std::shared_ptr<MemoryDevice> out = initial->clone();
        const auto entries = recorder->log();
        std::size_t flushed = 0;
        for (std::size_t i = 0; i < entries.size(); ++i)
            if (entries[i].kind == RecordedWrite::Kind::Flush) flushed = i;
        for (std::size_t i = 0; i < entries.size(); ++i) {
            if (i >= flushed && entries[i].kind != RecordedWrite::Kind::Fua) continue;
            EXPECT_TRUE(RecordingDevice::apply(entries[i], *out));
        }
        return out;
    }

    std::unique_ptr<OpenFile> open(const std::string& path, int flags = O_CREAT | O_RDWR) {
        auto file = fs->open_path(path, flags, 0644, root);
        EXPECT_TRUE(file) << file.error().what;
        return file ? std::move(*file) : nullptr;
    }
    std::size_t said(const std::string& what) {
        MutexLock guard(log_lock);
        std::size_t n = 0;
        for (std::size_t at = 0; (at = log.find(what, at)) != std::string::npos; ++at) ++n;
        return n;
    }

    std::shared_ptr<MemoryDevice> initial, memory;
    std::shared_ptr<RecordingDevice> recorder;
    std::shared_ptr<FaultyDevice> faulty;
    Mutex log_lock{Rank::Leaf, "FaultyMount::log_lock"};
    std::string log;
    std::unique_ptr<FileSystem> fs;
};

// Where on the device the file's first block is, in bytes.
inline std::uint64_t place_of(Inode& inode) {
    MutexLock guard(inode.map_lock);
    const auto placed = inode.extent_status().lookup(0, 1);
    EXPECT_TRUE(placed && placed->block);
    return placed ? placed->block.value * inode.fs().block_size() : 0;
}
inline std::vector<std::byte> filled(std::size_t size, int value) { return {size, static_cast<std::byte>(value)}; }

// The first `most` bytes.
inline std::string read_all(FileSystem& fs, const std::string& path, std::size_t most = 1 << 17) {
    auto file = fs.open_path(path, O_RDONLY, 0, root);
    if (!file) return "error: " + file.error().what;
    std::vector<std::byte> bytes(most);
    auto n = (*file)->read(0, bytes);
    if (!n) return "error: " + n.error().what;
    return {reinterpret_cast<const char*>(bytes.data()), *n};
}
inline std::string read_all(const std::shared_ptr<MemoryDevice>& image, const std::string& path,
                            std::size_t most = 1 << 17) {
    auto fs = FileSystem::mount_device(std::shared_ptr<BlockDevice>(image->clone()), {});
    if (!fs) return "error: " + fs.error().what;
    return read_all(**fs, path, most);
}

inline int code_of(const Result<void>& result) { return result ? 0 : result.error().code; }

// e2fsck's opinion of an image as it is.
inline void expect_clean(MemoryDevice& image, const std::string& what) {
    static crash::ImageFile file(fmt::format("/dev/shm/uext4-faults-checked-{}", ::getpid()));
    auto shown = file.show(image);
    ASSERT_TRUE(shown) << shown.error().what;
    std::string out;
    FILE* pipe = ::popen(("e2fsck -fn " + file.path() + " 2>&1").c_str(), "r");
    char buffer[4096];
    for (std::size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) out.append(buffer, n);
    EXPECT_EQ(WEXITSTATUS(::pclose(pipe)), 0) << what << "\n" << out;
}

// e2fsck's opinion of an image, after our recovery of a copy.
inline void expect_sound(const std::shared_ptr<MemoryDevice>& image, const std::string& what) {
    std::shared_ptr<MemoryDevice> copy = image->clone();
    auto fs = FileSystem::mount_device(copy, {});
    ASSERT_TRUE(fs) << what << ": " << fs.error().what;
    auto closed = (*fs)->unmount();
    EXPECT_TRUE(closed) << what << ": " << closed.error().what;
    fs->reset();
    expect_clean(*copy, what);
}

}  // namespace uext4::faults
