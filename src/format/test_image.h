// Images for the tests of the format: made by mke2fs, changed by debugfs, read whole.
#pragma once

#include "format/group_desc.h"
#include "format/inode.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace uext4::format {

// What a shell command prints; its errors go where the test's go, unless the command says otherwise.
inline std::string output_of(const std::string& command) {
    std::string out;
    FILE* pipe = ::popen(command.c_str(), "r");
    if (!pipe) return out;
    std::array<char, 4096> part{};
    while (const std::size_t n = std::fread(part.data(), 1, part.size(), pipe)) out.append(part.data(), n);
    ::pclose(pipe);
    return out;
}

class TestImage {
public:
    // `options`: of mke2fs. `size`: as mke2fs takes it.
    explicit TestImage(const std::string& options, const std::string& size = "64M") {
        static std::atomic<int> serial{0};
        folder_ = fmt::format("/dev/shm/uext4_format_{}_{}", ::getpid(), serial++);
        std::filesystem::create_directories(folder_);
        run(fmt::format("mke2fs -q -F {} {} {} 2>&1", options, path(), size));
        load();
    }
    TestImage(const TestImage&) = delete;
    TestImage& operator=(const TestImage&) = delete;
    ~TestImage() {
        std::error_code ignored;
        std::filesystem::remove_all(folder_, ignored);
    }

    std::string path() const { return folder_ + "/image"; }
    const std::string& folder() const { return folder_; }

    // Runs a tool on the image; the test fails when it fails.
    void run(const std::string& command) {
        ASSERT_EQ(std::system((command + " > " + folder_ + "/log").c_str()), 0) << command << '\n'
                                                                                << output_of("cat " + folder_ + "/log");
    }
    // One debugfs request; writes reload the image.
    std::string ask(const std::string& request) const {
        return output_of(fmt::format("debugfs -R '{}' {} 2>/dev/null", request, path()));
    }
    void change(const std::string& requests) {
        std::ofstream(folder_ + "/requests") << requests << '\n';
        run(fmt::format("debugfs -w -f {}/requests {} 2>&1", folder_, path()));
        load();
    }
    void load() {
        std::ifstream file(path(), std::ios::binary);
        bytes_.resize(std::filesystem::file_size(path()));
        file.read(reinterpret_cast<char*>(bytes_.data()), static_cast<std::streamsize>(bytes_.size()));
        const auto parsed = Geometry::parse(super(), bytes_.size());
        ASSERT_TRUE(parsed) << parsed.error().what;
        geometry_ = *parsed;
    }

    const SuperBlock& super() const { return view_as<SuperBlock>(ConstBytes(bytes_), super_offset); }
    const Geometry& geometry() const { return geometry_; }
    Bytes block(BlockNr n) { return Bytes(bytes_).subspan(n.value * geometry_.block_size, geometry_.block_size); }
    GroupDescView group(GroupNr n) {
        const auto place = geometry_.descriptor_place(n);
        return GroupDescView(block(place.block).subspan(place.offset), geometry_.desc_size);
    }
    Bytes inode(InodeNr n) {
        const std::uint64_t at = group(geometry_.group_of(n)).inode_table().value * geometry_.block_size +
                                 std::uint64_t{geometry_.index_in_group(n)} * geometry_.inode_size;
        return Bytes(bytes_).subspan(at, geometry_.inode_size);
    }
    // The physical block of a file's block, by the judge's word; 0 for none.
    BlockNr block_of(const std::string& file, std::uint64_t logical) const {
        return BlockNr(std::strtoull(ask(fmt::format("bmap {} {}", file, logical)).c_str(), nullptr, 10));
    }
    InodeNr number_of(const std::string& file) const {
        const std::string text = ask("stat " + file);
        return text.starts_with("Inode: ") ? InodeNr(std::strtoull(text.c_str() + 7, nullptr, 10)) : InodeNr();
    }
    std::uint32_t seed_of(InodeNr n) {
        return inode_seed(geometry_, n, view_as<Le32>(inode(n), offsetof(InodeDisk, generation)));
    }

private:
    std::string folder_;
    std::vector<std::byte> bytes_;
    Geometry geometry_;
};

}  // namespace uext4::format
