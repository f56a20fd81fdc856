// A device that loses its cache when a flush fails, whichever flush that is: what a sync, a freeze or the unmount
// acknowledged is there, before the failure and behind it, and what is not there was told of.
#include "tests/faults/faulty_mount.h"

#include <functional>
#include <set>

namespace uext4::faults {
namespace {

struct Cell {
    const char *name, *format, *options;
};
const Cell cells[] = {
    {"Ordered", "-b 4096", "data=ordered"},
    {"Journal", "-b 4096", "data=journal"},
    {"SmallBlocks", "-b 1024 -O orphan_file", "data=ordered"},
};
void PrintTo(const Cell& cell, std::ostream* out) { *out << cell.name; }

constexpr std::size_t piece = 4096, pieces = 6;

// A file in pieces, each of one letter, and names.
class Promises {
public:
    explicit Promises(FaultyMount& m) : m_(m) {}

    // What is done; none of it needs to succeed.
    void overwrite(std::size_t at, char letter) {
        auto file = m_.fs->open_path("/f", O_RDWR, 0, root);
        if (!file) return;
        may_[at].insert(letter);
        const auto n = (*file)->write(at * piece, filled(piece, letter));
        if (n && *n == piece) last_[at] = letter;
        else failed_ = true;
        if (result((*file)->sync(true))) hold({});
    }
    void name(const std::string& path) {
        auto file = m_.fs->open_path(path, O_CREAT | O_RDWR, 0644, root);
        failed_ = failed_ || !file;
        if (file && result((*file)->sync(false))) names_.insert(path);
    }
    void two_names_at_once(const std::string& one, const std::string& other) {
        const bool made = m_.fs->open_path(one, O_CREAT | O_RDWR, 0644, root).has_value() &&
                          m_.fs->open_path(other, O_CREAT | O_RDWR, 0644, root).has_value();
        failed_ = failed_ || !made;
        if (result(m_.fs->sync()) && made) hold({one, other});
    }
    void checkpoint() { result(m_.fs->volume().fs().journal.checkpoint_all()); }
    void freeze() {
        if (result(m_.fs->freeze())) {
            hold({});
            result(m_.fs->thaw());
        }
    }
    void unmount() {
        if (result(m_.fs->unmount()) && !failed_) hold({});
        m_.fs.reset();
    }
    bool was_told() const { return told_; }

    void judge(const std::shared_ptr<MemoryDevice>& image, const std::string& when) const {
        auto fs = FileSystem::mount_device(std::shared_ptr<BlockDevice>(image->clone()), {});
        ASSERT_TRUE(fs) << when << ": " << fs.error().what;
        const std::string bytes = read_all(**fs, "/f");
        ASSERT_EQ(bytes.size(), piece * pieces) << when << ": " << bytes.substr(0, 200);
        for (std::size_t i = 0; i < bytes.size(); ++i)
            ASSERT_TRUE(may_[i / piece].contains(bytes[i])) << when << ": byte " << i << " is " << bytes[i];
        for (const std::string& path : names_) ASSERT_TRUE((*fs)->resolve(path, root)) << when << ": " << path;
        ASSERT_TRUE((*fs)->unmount()) << when;
        expect_sound(image, when);
    }

private:
    // What there is, is durable.
    void hold(const std::set<std::string>& names) {
        for (std::size_t i = 0; i < pieces; ++i) may_[i] = {last_[i]};
        names_.insert(names.begin(), names.end());
    }
    bool result(const Result<void>& done) {
        told_ = told_ || !done;
        return done.has_value();
    }

    FaultyMount& m_;
    std::vector<std::set<char>> may_ = std::vector<std::set<char>>(pieces, {'a'});
    std::string last_ = std::string(pieces, 'a');
    std::set<std::string> names_;
    bool failed_ = false, told_ = false;
};

class LostCache : public testing::TestWithParam<std::tuple<Cell, bool>> {};

TEST_P(LostCache, TakesNothingThatWasAcknowledged) {
    const auto& [cell, for_good] = GetParam();
    const auto image = fresh_image(cell.format);
    {
        FaultyMount m(image);
        ASSERT_TRUE(m.mount(cell.options));
        ASSERT_TRUE(m.open("/f")->write(0, filled(piece * pieces, 'a')));
        ASSERT_TRUE(m.fs->unmount());
    }
    std::uint64_t skip = 0;
    for (bool hit = true; hit; ++skip) {
        ASSERT_LT(skip, 200u);
        const std::string what = fmt::format("{}, flush {}", cell.name, skip);
        FaultyMount m(image->clone());
        ASSERT_TRUE(m.mount(cell.options));
        const auto fault = m.faulty->fail_flushes(EIO, for_good ? DeviceFault::for_good : 1, skip);
        Promises promises(m);
        for (int round = 0; round < 2; ++round) {
            promises.overwrite(round, static_cast<char>('b' + round));
            promises.name(fmt::format("/one{}", round));
            promises.checkpoint();
            promises.overwrite(2 + round, static_cast<char>('d' + round));
            promises.two_names_at_once(fmt::format("/two{}", round), fmt::format("/three{}", round));
            promises.freeze();
            promises.overwrite(4 + round, static_cast<char>('f' + round));
        }
        promises.judge(m.durable(), what + ", cut");
        promises.unmount();
        hit = m.faulty->hits(fault) != 0;
        m.faulty->clear();
        EXPECT_EQ(promises.was_told(), hit) << what;
        promises.judge(m.memory, what + ", unmounted");
        if (HasFailure()) return;
    }
    EXPECT_GE(skip, 20u) << "the device never failed";
}

INSTANTIATE_TEST_SUITE_P(Faults, LostCache, testing::Combine(testing::ValuesIn(cells), testing::Bool()),
                         [](const auto& one) {
                             return fmt::format("{}{}", std::get<0>(one.param).name,
                                                std::get<1>(one.param) ? "ForGood" : "Once");
                         });

}  // namespace
}  // namespace uext4::faults
