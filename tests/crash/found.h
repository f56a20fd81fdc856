// An image whose writes are recorded, and what a recovery makes of each prefix of them.
#pragma once

#include "check/check.h"
#include "tests/crash/recorder.h"
#include "tests/root.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <string>

namespace uext4::crash {

inline ConstBytes bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

inline constexpr Format with_clusters{"clusters", "-b 4096 -O bigalloc -C 16384 -J size=4", "10M"};

class Found : public testing::Test {
protected:
    void SetUp() override { make(formats[0]); }
    void make(const Format& format) {
        auto made = make_image(format, fmt::format("/dev/shm/uext4-found-{}", ::getpid()));
        ASSERT_TRUE(made) << made.error().what;
        image = *made;
    }
    void mount() {
        before = image->clone();
        device = std::make_shared<RecordingDevice>(image);
        auto mounted = FileSystem::mount_device(device, mount_options("ordered"));
        ASSERT_TRUE(mounted) << mounted.error().what;
        fs = std::move(*mounted);
    }
    std::unique_ptr<OpenFile> open(const std::string& path, int flags = O_CREAT | O_RDWR) {
        auto file = fs->open_path(path, flags, 0644, root);
        EXPECT_TRUE(file) << file.error().what;
        return file ? std::move(*file) : nullptr;
    }
    // What `visit` says of the image after each prefix of what was written, recovered.
    void each_prefix(const std::function<void(FileSystem&, std::size_t)>& visit) {
        const auto log = device->log();
        for (std::size_t cut = 0; cut <= log.size(); ++cut) {
            std::shared_ptr<MemoryDevice> copy = before->clone();
            ASSERT_TRUE(RecordingDevice::replay(log, cut, *copy));
            auto recovered = FileSystem::mount_device(copy, mount_options("ordered"));
            ASSERT_TRUE(recovered) << cut << ": " << recovered.error().what;
            visit(**recovered, cut);
            ASSERT_TRUE((*recovered)->unmount());
            VolumeOptions look = mount_options("ordered");
            look.fs.read_only = true;
            auto closed = FileSystem::mount_device(copy, look);
            ASSERT_TRUE(closed) << cut << ": " << closed.error().what;
            auto report = check((*closed)->volume());
            ASSERT_TRUE(report);
            EXPECT_TRUE(report->clean()) << cut << ": " << report->problems.front().message;
        }
    }

    std::shared_ptr<MemoryDevice> image, before;
    std::shared_ptr<RecordingDevice> device;
    std::unique_ptr<FileSystem> fs;
};

}  // namespace uext4::crash
