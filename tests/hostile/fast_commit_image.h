// Images that a crash left with fast commits, made without the kernel: what is done to a copy is told as fast commits
// to the image.
#pragma once

#include "tests/fixtures/fast_commit_fixture.h"
#include "tests/hostile/seed_image.h"

#include <functional>
#include <string>

namespace uext4::hostile {

class FastCommitImage {
public:
    // `clean`: unmounted, with the feature fast_commit. Nothing changes in it.
    explicit FastCommitImage(const MemoryDevice& clean);

    // Done to the copy, and durable there.
    void change(const std::function<void(FileSystem&)>& operations);

    // ---- tags of what the copy holds now. Paths are the copy's.
    void inode(const std::string& path);
    // With its contents, which fast commits do not hold.
    void ranges(const std::string& path);
    void name(format::FastCommitTagType type, const std::string& parent, std::uint32_t number, std::string_view text);
    std::uint32_t number(const std::string& path);
    test::FastCommitWriter& writer() { return writer_; }

    // The image with the area and the marks that ask for recovery.
    std::shared_ptr<MemoryDevice> crashed() const;
    const std::shared_ptr<MemoryDevice>& changed() const { return changed_; }

    static constexpr std::uint32_t tid = 100000;

private:
    std::vector<std::byte> raw_inode(std::uint32_t number);

    std::shared_ptr<MemoryDevice> image_, changed_;
    format::Geometry geometry_;
    test::FastCommitWriter writer_;
};

// The bytes of the area on a device, and where they lie.
struct FastCommitArea {
    std::vector<std::uint64_t> blocks;  // of the device, in the order of the log; the first that is used first
    std::uint32_t block_size = 0;

    static FastCommitArea find(const std::shared_ptr<MemoryDevice>& device);
    std::vector<std::byte> read(BlockDevice& device) const;
    void write(BlockDevice& device, ConstBytes bytes) const;
    void seal(BlockDevice& device) const;
};

// A clean file system for these, and what is done in `everything_of()`: all kinds of tags in three fast commits.
std::shared_ptr<MemoryDevice> clean_fast_commit_image(std::string_view features);
FastCommitImage everything_of(const MemoryDevice& clean);

}  // namespace uext4::hostile
