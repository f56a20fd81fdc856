// Random operations on files against a model of their bytes, through every door of the library, over formats and modes;
// each image is judged by e2fsck at the end. UEXT4_OPERATIONS and UEXT4_SEED make longer and other runs.
#include "api/file_system.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/falloc.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <random>

namespace uext4 {
namespace {

const Credentials root = Credentials::root();

struct Cell {
    const char* format;
    const char* options;
};
void PrintTo(const Cell& cell, std::ostream* out) { *out << cell.format << " " << cell.options; }

class Exercise : public testing::TestWithParam<Cell> {
protected:
    void SetUp() override {
        path = fmt::format("/dev/shm/uext4-exercise-{}", ::getpid());
        ASSERT_EQ(std::system(fmt::format("mke2fs -q -F {} {} 128M >/dev/null 2>&1", GetParam().format, path).c_str()),
                  0);
        mount();
    }
    void TearDown() override {
        file.reset();
        direct.reset();
        fs.reset();
        ::unlink(path.c_str());
    }
    void mount() {
        auto mounted = FileSystem::mount(path, std::string("cache=4M,") + GetParam().options,
                                         [](const std::string& line) { ADD_FAILURE() << line; });
        ASSERT_TRUE(mounted) << mounted.error().what;
        fs = std::move(*mounted);
        auto opened = fs->open_path("/f", O_RDWR | O_CREAT, 0644, root);
        ASSERT_TRUE(opened) << opened.error().what;
        file = std::move(*opened);
        auto direct_opened = fs->open_path("/f", O_RDWR | O_DIRECT, 0644, root);
        ASSERT_TRUE(direct_opened) << direct_opened.error().what;
        direct = std::move(*direct_opened);
    }
    void unmount() {
        file.reset();
        direct.reset();
        auto closed = fs->unmount();
        ASSERT_TRUE(closed) << closed.error().what;
        fs.reset();
        ASSERT_EQ(std::system(fmt::format("e2fsck -fn {0} >{0}.log 2>&1 || {{ cat {0}.log; false; }}", path).c_str()),
                  0);
        ::unlink((path + ".log").c_str());
    }
    std::size_t any(std::size_t below) { return below ? random() % below : 0; }
    std::size_t any_length() {
        switch (random() % 4) {
            case 0: return 1 + any(100);
            case 1: return 1 + any(5000);
            case 2: return 4096 * (1 + any(4));
            default: return 1 + any(70000);
        }
    }

    void compare(std::size_t from, std::size_t length, const char* door, OpenFile& through) {
        std::vector<std::byte> got(length);
        auto n = through.read(from, got);
        ASSERT_TRUE(n) << door << ": " << n.error().what;
        const std::size_t expected = from < model.size() ? std::min(length, model.size() - from) : 0;
        ASSERT_EQ(*n, expected) << door << " at " << from << " of " << model.size();
        for (std::size_t i = 0; i < expected; ++i)
            ASSERT_EQ(got[i], model[from + i]) << door << ": byte " << from + i << " of " << model.size()
                                               << ", read from " << from << " for " << length;
    }
    void put(std::size_t at, const std::vector<std::byte>& bytes) {
        if (model.size() < at + bytes.size()) model.resize(at + bytes.size());
        std::copy(bytes.begin(), bytes.end(), model.begin() + static_cast<std::ptrdiff_t>(at));
    }
    std::vector<std::byte> bytes(std::size_t n) {
        std::vector<std::byte> out(n);
        for (auto& b : out) b = static_cast<std::byte>(random() % 255 + 1);
        return out;
    }

    void step(std::size_t most) {
        const std::size_t unit = 65536;
        const unsigned what = random() % 40;
        if (what < 10) {
            trace = "write";
            const std::size_t at = any(3) ? any(std::min(most, model.size() + 3000)) : model.size();
            const auto in = bytes(std::min(any_length(), most + 1 - std::min(at, most)));
            auto n = file->write(at, in);
            ASSERT_TRUE(n) << n.error().what;
            ASSERT_EQ(*n, in.size());
            put(at, in);
        } else if (what < 18) {
            trace = "read";
            compare(any(model.size() + 100), any_length(), "read", *file);
        } else if (what < 22) {
            trace = "truncate";
            const std::size_t size = any(3) ? any(model.size() + 1) : any(most);
            auto cut = file->truncate(size);
            ASSERT_TRUE(cut) << cut.error().what;
            model.resize(size);
        } else if (what < 24) {
            trace = "fsync";
            auto synced = file->sync(random() % 2);
            ASSERT_TRUE(synced) << synced.error().what;
        } else if (what < 26) {
            trace = "direct write";
            const std::size_t at = any(most / 512) * 512, n = 512 * (1 + any(60));
            auto* memory = static_cast<std::byte*>(std::aligned_alloc(4096, round_up(n, 4096)));
            const auto in = bytes(n);
            std::copy(in.begin(), in.end(), memory);
            auto done = direct->write(at, ConstBytes(memory, n));
            std::free(memory);
            ASSERT_TRUE(done) << done.error().what;
            put(at, in);
        } else if (what < 28) {
            trace = "direct read";
            const std::size_t at = any(most / 512) * 512, n = 512 * (1 + any(60));
            auto* memory = static_cast<std::byte*>(std::aligned_alloc(4096, round_up(n, 4096)));
            auto done = direct->read(at, Bytes(memory, n));
            ASSERT_TRUE(done) << done.error().what;
            for (std::size_t i = 0; i < *done; ++i)
                if (memory[i] != model[at + i]) {
                    ADD_FAILURE() << "direct read: byte " << at + i << " is " << int(memory[i]) << ", not "
                                  << int(model[at + i]) << "; " << n << " at " << at << " of " << model.size();
                    break;
                }
            std::free(memory);
        } else if (what < 37) {
            range(what - 28, most, unit);
        } else if (what == 37 && random() % 8 == 0) {
            trace = "remount";
            ASSERT_NO_FATAL_FAILURE(unmount());
            ASSERT_NO_FATAL_FAILURE(mount());
        } else if (what == 38 && random() % 4 == 0) {
            trace = "attribute";
            auto inode = fs->resolve("/f", root);
            ASSERT_TRUE(inode);
            auto set = fs->set_xattr(**inode, fmt::format("user.a{}", any(3)), bytes(any(120)), 0, root, true);
            ASSERT_TRUE(set || set.error().code == ENOSPC) << set.error().what;
        } else {
            trace = "seek";
            const std::size_t at = any(model.size() + 1);
            auto data = file->seek(at, SEEK_DATA);
            if (data && *data > at)
                for (std::size_t i = at; i < std::min<std::size_t>(*data, model.size()); ++i)
                    ASSERT_EQ(model[i], std::byte{0}) << "seek over data at " << i;
        }
    }

    void range(unsigned which, std::size_t most, std::size_t unit) {
        const std::size_t at = any(most), n = any_length();
        const int modes[] = {0,
                             FALLOC_FL_KEEP_SIZE,
                             FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                             FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                             FALLOC_FL_ZERO_RANGE,
                             FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                             FALLOC_FL_COLLAPSE_RANGE,
                             FALLOC_FL_INSERT_RANGE,
                             FALLOC_FL_UNSHARE_RANGE};
        const int mode = modes[which];
        trace = fmt::format("fallocate {:#x}", mode);
        if (mode == FALLOC_FL_COLLAPSE_RANGE || mode == FALLOC_FL_INSERT_RANGE) {
            const std::size_t from = any(model.size() / unit + 1) * unit;
            if (from + unit >= model.size() || model.size() + unit > most + 200000) return;
            auto done = file->fallocate(mode, from, unit);
            if (!done && done.error().code == EOPNOTSUPP) return;
            ASSERT_TRUE(done) << done.error().what;
            const auto where = model.begin() + static_cast<std::ptrdiff_t>(from);
            if (mode == FALLOC_FL_COLLAPSE_RANGE) model.erase(where, where + static_cast<std::ptrdiff_t>(unit));
            else model.insert(where, unit, std::byte{0});
            return;
        }
        auto done = file->fallocate(mode, at, n);
        if (!done && done.error().code == EOPNOTSUPP) return;
        ASSERT_TRUE(done) << done.error().what;
        const bool keep = mode & FALLOC_FL_KEEP_SIZE;
        if (!keep && model.size() < at + n) model.resize(at + n);
        if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
            for (std::size_t i = at; i < std::min(model.size(), at + n); ++i) model[i] = std::byte{0};
    }

    std::string path, trace;
    std::unique_ptr<FileSystem> fs;
    std::unique_ptr<OpenFile> file, direct;
    std::vector<std::byte> model;
    std::mt19937 random{1};
};

std::uint64_t setting(const char* name, std::uint64_t otherwise) {
    const char* text = ::getenv(name);
    return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

TEST_P(Exercise, AgreesWithTheModel) {
    const std::uint64_t operations = setting("UEXT4_OPERATIONS", 2500), seed = setting("UEXT4_SEED", 1);
    const bool tracing = ::getenv("UEXT4_TRACE") != nullptr;
    random.seed(static_cast<unsigned>(seed));
    for (std::uint64_t i = 0; i < operations; ++i) {
        // Small files most of the time at first: the inline size and its neighbourhood.
        const std::size_t most = (i / 200) % 3 == 0 ? 400 : 600000;
        const std::size_t before = model.size();
        ASSERT_NO_FATAL_FAILURE(step(most)) << "operation " << i;
        if (tracing) fmt::print(stderr, "{} {} {} -> {}\n", i, trace, before, model.size());
        if (HasFailure()) FAIL() << "operation " << i << ": " << trace << ", seed " << seed;
        if (i % 50 == 49) {
            compare(0, model.size() + 10, "all", *file);
            if (HasFailure()) FAIL() << "seen after operation " << i << ": " << trace << ", seed " << seed;
        }
    }
    unmount();
    mount();
    compare(0, model.size() + 10, "after a remount", *file);
    unmount();
}

INSTANTIATE_TEST_SUITE_P(
    Cells, Exercise,
    testing::Values(
        Cell{"-t ext4 -b 4096", ""}, Cell{"-t ext4 -b 1024", ""}, Cell{"-t ext4 -O inline_data -b 4096", ""},
        Cell{"-t ext4 -O inline_data -b 1024 -I 256", ""}, Cell{"-t ext3 -b 4096", ""}, Cell{"-t ext3 -b 1024", ""},
        Cell{"-t ext4 -O bigalloc -C 16384 -b 4096", ""}, Cell{"-t ext4 -O bigalloc -b 1024 -C 16384", ""},
        Cell{"-t ext4 -b 4096", "data=journal"}, Cell{"-t ext4 -b 1024", "data=journal"},
        Cell{"-t ext4 -O inline_data -b 4096", "data=journal"},
        Cell{"-t ext4 -O inline_data -b 1024 -I 256", "data=journal"}, Cell{"-t ext3 -b 4096", "data=journal"},
        Cell{"-t ext3 -b 1024", "data=journal"}, Cell{"-t ext4 -O bigalloc -C 16384 -b 4096", "data=journal"},
        Cell{"-t ext4 -O bigalloc -b 1024 -C 16384", "data=journal"}, Cell{"-t ext4 -O ^has_journal -b 4096", ""}));

}  // namespace
}  // namespace uext4
