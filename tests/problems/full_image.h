// A small image that is filled until there are few free blocks or none, in every format and mode, by root and by a user
// for whom some blocks are reserved.
#pragma once

#include "settled_image.h"

#include <algorithm>
#include <map>
#include <string>
#include <tuple>
#include <vector>

namespace uext4::problems {

struct Format {
    const char* name;
    const char* mke2fs;
    std::uint64_t block;
    bool extents, shifts;  // collapse and insert are possible
    bool inlined = false;  // contents may be in the inode
};
inline constexpr Format formats[] = {{"k4", "-b 4096 -J size=4", 4096, true, true},
                                     {"k1", "-b 1024 -J size=1", 1024, true, true},
                                     {"inlined", "-b 4096 -J size=4 -I 256 -O inline_data", 4096, true, true, true},
                                     {"indirect", "-b 1024 -J size=1 -O ^extents,^64bit", 1024, false, false},
                                     {"bigalloc", "-b 1024 -J size=1 -O bigalloc -C 8192", 1024, true, false}};

class FullImage : public SettledImage, public testing::WithParamInterface<std::tuple<Format, const char*, bool>> {
public:
    class Doors;  // doors.h

protected:
    Format format() const { return std::get<0>(GetParam()); }
    std::string mode() const { return std::get<1>(GetParam()); }
    bool journaled() const { return mode().ends_with("journal"); }
    bool privileged() const { return std::get<2>(GetParam()); }
    // Among formats, and among the four ways in which each of them is tried.
    unsigned format_index() const {
        const auto* found = std::ranges::find(formats, std::string_view(format().name), &Format::name);
        return static_cast<unsigned>(found - std::begin(formats));
    }
    unsigned way_index() const { return 2 * journaled() + privileged(); }
    const Credentials& who() const { return privileged() ? root : user; }

    static int code(const auto& result) { return result ? 0 : result.error().code; }
    void no_space_or_done(const auto& result, const char* what) {
        if (!result) {
            EXPECT_EQ(result.error().code, ENOSPC) << what << ": " << result.error().what;
        }
    }
    std::uint64_t left() {
        const SpaceCounts counts = fs->volume().counts();
        return privileged() ? counts.free_blocks : counts.available_blocks;
    }
    void fill_until(std::uint64_t free) {
        const std::uint64_t bs = format().block;
        auto fill = open("/fill");
        std::uint64_t at = 0;
        for (int turn = 0; turn < 200 && left() > free; ++turn) {
            const std::uint64_t want = left() - free > 40 ? left() - free - 20 : 1;
            const bool done = format().extents ? fill->fallocate(FALLOC_FL_KEEP_SIZE, at, want * bs, &who()).has_value()
                                               : fill->write(at, bytes_of(pattern(want * bs, 5)), &who()).has_value();
            if (!done) break;
            at += (want + 2) * bs;
            ok(fs->sync());
        }
    }

    // To the last one, that of a tree too: single blocks, far from each other.
    void fill_the_rest(const Credentials& by) {
        auto fill = open("/fill");
        for (std::uint64_t at = std::uint64_t{1} << 30; fill->write(at, bytes_of(pattern(page, 5)), &by); at += page) {
        }
        ok(fs->sync());
    }

    // What an fsync has acknowledged: -1 where anything may be.
    struct File {
        std::vector<int> bytes;
    };
    void unknown(const std::string& path, std::uint64_t at, std::uint64_t size) { note(path, at, size, nullptr); }
    void note(const std::string& path, std::uint64_t at, std::uint64_t size, const char* bytes) {
        auto& known = files[path].bytes;
        if (known.size() < at + size) known.resize(at + size, -1);
        for (std::uint64_t i = 0; i < size; ++i) known[at + i] = bytes ? static_cast<unsigned char>(bytes[i]) : -1;
    }

    // A write, acknowledged by fsync. Bytes written.
    std::size_t write_and_sync(const std::string& path, std::uint64_t at, std::size_t size, int flags = 0) {
        auto file = open(path, O_RDWR | flags, who());
        if (!file) return 0;
        const std::string bytes = pattern(size, ++seed);
        Aligned memory(bytes);
        unknown(path, at, size);
        auto n = file->write(at, memory.bytes().first(size));
        no_space_or_done(n, "write");
        auto synced = file->sync(false);
        EXPECT_TRUE(synced) << path << " " << at << ": " << synced.error().what;
        if (n && synced) note(path, at, *n, bytes.data());
        return n ? *n : 0;
    }

    unsigned seed = 0;
    std::map<std::string, File> files;
};

inline auto every_full_image() {
    return testing::Combine(testing::ValuesIn(formats), testing::Values("data=ordered", "data=journal"),
                            testing::Bool());
}
// Those in which there is what is tested: `has` says so of a format, and of who fills the image (root: true).
inline auto full_images(bool (*has)(const Format&, bool)) {
    std::vector<FullImage::ParamType> out;
    for (const Format& format : formats)
        for (const char* mode : {"data=ordered", "data=journal"})
            for (const bool privileged : {false, true})
                if (has(format, privileged)) out.emplace_back(format, mode, privileged);
    return testing::ValuesIn(out);
}
inline std::string name_of(const testing::TestParamInfo<FullImage::ParamType>& p) {
    return fmt::format("{}_{}_{}", std::get<0>(p.param).name, std::get<1>(p.param) + 5,
                       std::get<2>(p.param) ? "root" : "user");
}

}  // namespace uext4::problems
