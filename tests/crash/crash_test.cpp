// Power cuts: the writes of a workload are recorded, states that a cut could leave are built from them, and each is
// recovered by us and judged by e2fsck; what was synced before the cut must be there.
#include "api/file_system.h"
#include "tests/doubles/memory_device.h"
#include "tests/doubles/recording_device.h"
#include "tests/root.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <random>

namespace uext4 {
namespace {

int sh(const std::string& command, std::string* out = nullptr) {
    std::string text;
    FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
    char buffer[4096];
    std::size_t n;
    while ((n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0) text.append(buffer, n);
    const int status = ::pclose(pipe);
    if (out) *out = text;
    return WEXITSTATUS(status);
}

struct Cell {
    const char* format;
    const char* options;
};
void PrintTo(const Cell& cell, std::ostream* out) { *out << cell.format << " " << cell.options; }

// What must be there: contents of a file at the moment of its sync, by the mark in the log.
struct Promise {
    std::string mark, path;
    std::vector<std::byte> contents;
};

class Crash : public testing::TestWithParam<Cell> {
protected:
    void SetUp() override {
        path = fmt::format("/dev/shm/uext4-crash-{}", ::getpid());
        std::string out;
        ASSERT_EQ(sh(fmt::format("mke2fs -q -F -E lazy_itable_init=0 {} {} 48M", GetParam().format, path), &out), 0)
            << out;
        auto loaded = MemoryDevice::load(path);
        ASSERT_TRUE(loaded);
        initial = std::move(*loaded);
        recorder = std::make_shared<RecordingDevice>(std::shared_ptr<BlockDevice>(initial->clone()));
    }
    void TearDown() override { ::unlink(path.c_str()); }

    std::unique_ptr<FileSystem> mount(std::shared_ptr<BlockDevice> device, const std::string& more = "") {
        auto options = parse_all_options(GetParam().options + more);
        EXPECT_TRUE(options);
        auto fs = FileSystem::mount_device(std::move(device), *options,
                                           [this](const std::string& line) { log += line + "\n"; });
        EXPECT_TRUE(fs) << fs.error().what;
        return fs ? std::move(*fs) : nullptr;
    }

    static std::vector<std::byte> pattern(std::size_t size, unsigned seed) {
        std::vector<std::byte> out(size);
        std::mt19937 random(seed);
        for (auto& b : out) b = static_cast<std::byte>(random() | 1);
        return out;
    }

    // Names come and go, files grow, shrink, are replaced; every so often one is synced.
    void workload(FileSystem& fs, unsigned seed, int operations) {
        std::mt19937 random(seed);
        std::map<std::string, std::vector<std::byte>> files;
        auto top = fs.root();
        for (int i = 0; i < operations; ++i) {
            const std::string name = fmt::format("f{}", random() % 12);
            const unsigned what = random() % 16;
            if (::getenv("UEXT4_TRACE"))
                fmt::print(stderr, "{} op {} {} size {} log {}\n", i, what, name,
                           files.contains(name) ? files[name].size() : 0, recorder->log_size());
            if (what < 8) {
                auto file = fs.open_path("/" + name, O_CREAT | O_RDWR, 0644, root);
                ASSERT_TRUE(file) << file.error().what;
                auto& model = files[name];
                const std::size_t at = what < 4 ? model.size() : random() % (model.size() + 5000);
                const auto bytes = pattern(random() % 3 ? random() % 6000 + 1 : random() % 90 + 1, random());
                auto n = (*file)->write(at, bytes);
                ASSERT_TRUE(n) << n.error().what;
                if (model.size() < at + bytes.size()) model.resize(at + bytes.size());
                std::copy(bytes.begin(), bytes.end(), model.begin() + static_cast<std::ptrdiff_t>(at));
                if (what % 2) {
                    auto synced = (*file)->sync(what == 5);
                    ASSERT_TRUE(synced) << synced.error().what;
                    const std::string mark = fmt::format("sync {}", i);
                    recorder->mark(mark);
                    promises.push_back({mark, name, model});
                }
            } else if (what < 10) {
                auto gone = fs.unlink(**top, name, root, true);
                if (gone) {
                    files.erase(name);
                    changed(name);
                }
            } else if (what < 12) {
                auto inode = fs.resolve("/" + name, root);
                if (inode) {
                    const std::size_t size = random() % (files[name].size() + 2000);
                    auto cut = fs.truncate(**inode, size, root, true);
                    ASSERT_TRUE(cut) << cut.error().what;
                    files[name].resize(size);
                    changed(name);
                }
            } else if (what < 14) {
                const std::string other = fmt::format("f{}", random() % 12);
                auto moved = fs.rename(**top, name, **top, other, 0, root, true);
                if (moved && other != name) {
                    const auto contents = files[name];
                    files.erase(name);
                    files[other] = contents;
                    changed(name);
                    changed(other);
                }
            } else if (what == 14) {
                auto dir = fs.create(**top, fmt::format("d{}", i), S_IFDIR | 0755, 0, {}, root, true);
                ASSERT_TRUE(dir) << dir.error().what;
            } else {
                auto file = fs.open_path("/" + name, O_RDWR, 0, root);
                if (!file) continue;
                auto& model = files[name];
                const std::size_t from = random() % (model.size() + 1), length = random() % 9000 + 1;
                auto punched = (*file)->fallocate(3, from, length);
                ASSERT_TRUE(punched || punched.error().code == EOPNOTSUPP) << punched.error().what;
                if (punched)
                    for (std::size_t k = from; k < std::min(model.size(), from + length); ++k) model[k] = std::byte{0};
                changed(name);
            }
        }
    }

    // The file's state is not what was promised any more: later cuts may show either.
    void changed(const std::string& name) {
        const std::string mark = fmt::format("change {}", ++changes);
        recorder->mark(mark);
        promises.push_back({mark, name, {}});
    }

    // For writes after a sync the promised prefix stays; only whole-file promises of the newest kind are compared, and
    // only when no later operation on that name began before the cut.
    void judge(const std::vector<RecordedWrite>& log_entries, std::size_t sure, std::size_t cut,
               const std::shared_ptr<MemoryDevice>& state, const std::string& what) {
        std::string out;
        ASSERT_TRUE(state->save(path));
        // e2fsck's replay of the journal, and then everything checked.
        const bool journaled = std::string(GetParam().format).find("^has_journal") == std::string::npos;
        if (journaled) {
            ASSERT_LE(sh("e2fsck -E journal_only -y " + path, &out), 1) << what << "\n" << out;
            const int status = sh("e2fsck -fn " + path, &out);
            if (status != 0 && out.find("orphan") == std::string::npos && out.find("Orphan") == std::string::npos)
                ADD_FAILURE() << what << "\n" << out;
        }
        auto fs = mount(std::shared_ptr<BlockDevice>(state->clone()));
        ASSERT_TRUE(fs) << what;
        compare(*fs, log_entries, sure, cut, what);
        auto closed = fs->unmount();
        EXPECT_TRUE(closed) << what << ": " << closed.error().what;
    }

    void recovered_by_us(const std::shared_ptr<MemoryDevice>& state, const std::string& what) {
        auto copy = std::shared_ptr<MemoryDevice>(state->clone());
        {
            auto fs = mount(copy);
            ASSERT_TRUE(fs) << what;
            auto closed = fs->unmount();
            EXPECT_TRUE(closed) << what << ": " << closed.error().what;
        }
        std::string out;
        ASSERT_TRUE(copy->save(path));
        EXPECT_EQ(sh("e2fsck -fn " + path, &out), 0) << what << "\n" << out;
    }

    void compare(FileSystem& fs, const std::vector<RecordedWrite>& entries, std::size_t sure, std::size_t cut,
                 const std::string& what) {
        // The newest promise for each name that was made before the cut; void when anything came after it.
        std::map<std::string, const Promise*> newest;
        std::size_t next = 0;
        for (std::size_t i = 0; i < entries.size() && next < promises.size(); ++i) {
            if (entries[i].kind != RecordedWrite::Kind::Mark || entries[i].label != promises[next].mark) continue;
            const Promise& p = promises[next++];
            if (i < sure) newest[p.path] = p.mark.starts_with("sync") ? &p : nullptr;
            else newest[p.path] = nullptr;  // done in part, or under way
            if (i >= cut) break;
        }
        for (const auto& [name, promise] : newest) {
            if (!promise) continue;
            auto file = fs.open_path("/" + name, O_RDONLY, 0, root);
            if (!file) {
                ADD_FAILURE() << what << ": /" << name << " was synced and is gone: " << file.error().what;
                continue;
            }
            std::vector<std::byte> got(promise->contents.size());
            auto n = (*file)->read(0, got);
            ASSERT_TRUE(n) << what << ": " << name << ": " << n.error().what;
            compared++;
            // Appends after the sync may have overwritten nothing of it in this workload only when they were at the
            // end; so zeros where data was promised are the failure looked for.
            std::size_t lost = 0;
            for (std::size_t k = 0; k < got.size(); ++k)
                if (got[k] == std::byte{0} && promise->contents[k] != std::byte{0}) ++lost;
            EXPECT_EQ(lost, 0u) << what << ": /" << name << ": " << lost << " of " << got.size()
                                << " synced bytes are zero";
            EXPECT_EQ(*n, got.size()) << what << ": /" << name << " is shorter than it was when synced";
        }
    }

    std::string path, log;
    std::unique_ptr<MemoryDevice> initial;
    std::shared_ptr<RecordingDevice> recorder;
    std::vector<Promise> promises;
    unsigned changes = 0;
    unsigned compared = 0;
};

TEST_P(Crash, EveryCutIsRecovered) {
    {
        auto fs = mount(recorder);
        ASSERT_TRUE(fs);
        workload(*fs, 11, 150);
        auto closed = fs->unmount();
        ASSERT_TRUE(closed) << closed.error().what;
    }
    const auto entries = recorder->log();
    std::mt19937 random(5);
    const std::size_t step = std::max<std::size_t>(1, entries.size() / 60);
    auto state = std::shared_ptr<MemoryDevice>(initial->clone());
    std::size_t applied = 0;
    for (std::size_t cut = 0; cut <= entries.size(); cut += 1 + random() % (2 * step)) {
        for (; applied < cut; ++applied) ASSERT_TRUE(RecordingDevice::apply(entries[applied], *state));
        const std::string what = fmt::format("cut after {} of {} entries", cut, entries.size());
        judge(entries, cut, cut, std::shared_ptr<MemoryDevice>(state->clone()), what);
        recovered_by_us(std::shared_ptr<MemoryDevice>(state->clone()), what);
        if (HasFailure()) return;
    }
    EXPECT_GT(compared, 20u);
}

// What was not flushed may be lost in part and in any order.
TEST_P(Crash, UnflushedWritesMayBeLost) {
    {
        auto fs = mount(recorder);
        ASSERT_TRUE(fs);
        workload(*fs, 12, 120);
        auto closed = fs->unmount();
        ASSERT_TRUE(closed) << closed.error().what;
    }
    const auto entries = recorder->log();
    std::mt19937 random(6);
    for (int round = 0; round < 30; ++round) {
        const std::size_t cut = random() % (entries.size() + 1);
        std::size_t flushed = 0;
        for (std::size_t i = 0; i < cut; ++i)
            if (entries[i].kind == RecordedWrite::Kind::Flush) flushed = i;
        auto state = std::shared_ptr<MemoryDevice>(initial->clone());
        for (std::size_t i = 0; i < flushed; ++i) ASSERT_TRUE(RecordingDevice::apply(entries[i], *state));
        for (std::size_t i = flushed; i < cut; ++i)
            if (entries[i].kind == RecordedWrite::Kind::Fua || random() % 2) {
                ASSERT_TRUE(RecordingDevice::apply(entries[i], *state));
            }
        const std::string what = fmt::format("round {}: {} entries, flushed up to {}", round, cut, flushed);
        judge(entries, flushed, cut, std::shared_ptr<MemoryDevice>(state->clone()), what);
        recovered_by_us(state, what);
        if (HasFailure()) return;
    }
}

// The features that a file system gets later are there as soon as what needs them.
class LateFeatures : public Crash {};

TEST_P(LateFeatures, ComeInOneTransaction) {
    {
        auto fs = mount(recorder);
        ASSERT_TRUE(fs);
        auto file = fs->open_path("/f", O_CREAT | O_RDWR, 0644, root);
        ASSERT_TRUE(file) << file.error().what;
        auto commit = [&] {
            auto done = fs->sync();
            ASSERT_TRUE(done) << done.error().what;
        };
        commit();
        auto inode = fs->resolve("/f", root);
        ASSERT_TRUE(inode);
        ASSERT_TRUE(fs->set_xattr(**inode, "user.a", pattern(900, 1), 0, root, true));
        commit();
        ASSERT_TRUE((*file)->truncate(std::uint64_t{3} << 30));
        commit();
        file->reset();
        inode->reset();
        auto closed = fs->unmount();
        ASSERT_TRUE(closed) << closed.error().what;
    }
    const auto entries = recorder->log();
    auto state = std::shared_ptr<MemoryDevice>(initial->clone());
    for (std::size_t cut = 0; cut <= entries.size(); ++cut) {
        const std::string what = fmt::format("cut after {} of {} entries", cut, entries.size());
        judge(entries, cut, cut, std::shared_ptr<MemoryDevice>(state->clone()), what);
        recovered_by_us(std::shared_ptr<MemoryDevice>(state->clone()), what);
        if (HasFailure()) return;
        if (cut < entries.size()) {
            ASSERT_TRUE(RecordingDevice::apply(entries[cut], *state));
        }
    }
    std::string told;
    ASSERT_TRUE(state->save(path));
    EXPECT_EQ(sh("dumpe2fs -h " + path, &told), 0);
    EXPECT_NE(told.find(" ext_attr"), std::string::npos) << told;
    EXPECT_NE(told.find(" large_file"), std::string::npos) << told;
}

INSTANTIATE_TEST_SUITE_P(Cells, LateFeatures,
                         testing::Values(Cell{"-t ext4 -O ^ext_attr,^large_file -b 4096", ""},
                                         Cell{"-t ext3 -O ^ext_attr,^large_file -b 1024", ""},
                                         Cell{"-t ext4 -O ^ext_attr,^large_file -b 4096", "data=journal"}));

INSTANTIATE_TEST_SUITE_P(
    Cells, Crash,
    testing::Values(Cell{"-t ext4 -b 4096", ""}, Cell{"-t ext4 -b 1024", ""}, Cell{"-t ext3 -b 4096", ""},
                    Cell{"-t ext4 -O inline_data -b 4096", ""}, Cell{"-t ext4 -O bigalloc -C 16384 -b 4096", ""},
                    Cell{"-t ext4 -O ^metadata_csum,uninit_bg -b 4096", ""}, Cell{"-t ext4 -O orphan_file -b 4096", ""},
                    Cell{"-t ext4 -b 4096", "data=journal"}, Cell{"-t ext4 -b 1024", "data=journal"},
                    Cell{"-t ext4 -O inline_data -b 4096", "data=journal"}, Cell{"-t ext3 -b 4096", "data=journal"}));

}  // namespace
}  // namespace uext4
