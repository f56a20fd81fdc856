// P8, measured on the image: whenever the power goes during writes, and during what makes room or takes it otherwise,
// the space that is free afterwards is what was free before or after an operation, by the bitmaps, and no block is
// taken that no file has.
#include "settled_image.h"

#include <vector>

namespace uext4::problems {
namespace {

enum class Space { less, same, more };  // free afterwards, against before

class NothingLeaks : public SettledImage, public testing::WithParamInterface<std::tuple<const char*, const char*>> {
protected:
    void SetUp() override {
        // Little more than the journal and what is written: it is copied for each cut.
        make(std::get<0>(GetParam()), std::get<1>(GetParam()), format_has("-b 1024") ? "5M" : "9M");
        ok(fs->unmount());
        fs.reset();
        mount(std::get<1>(GetParam()), false);
        durable_states = {{recorder->log().size(), free_after_recovery(*memory, true)}};
    }
    // Four times as often in long runs. A block that nobody has shows in the counts as well, and e2fsck sees the end.
    static bool judged(std::size_t n, std::size_t each) { return n % (long_run() ? each / 4 : each) == 0; }
    bool format_has(const char* feature) const { return std::string_view(std::get<0>(GetParam())).contains(feature); }
    // By the bitmaps of an image that has been recovered.
    std::uint64_t free_after_recovery(const MemoryDevice& image, bool checked) {
        std::shared_ptr<MemoryDevice> copy = image.clone();
        VolumeOptions options;
        options.background = false;
        auto recovered = FileSystem::mount_device(copy, options);
        EXPECT_TRUE(recovered) << recovered.error().what;
        if (!recovered) return 0;
        auto told = (*recovered)->statistics();
        ok(told);
        ok((*recovered)->unmount());
        if (checked && told) judge(*copy, told->f_bfree);
        return told ? told->f_bfree : 0;
    }
    // One operation, durable at the end: only then is there another count, and it is on the side that it has to be.
    template <class Change>
    void step(const char* what, OpenFile& file, Space expected, Change change) {
        SCOPED_TRACE(what);
        change();
        // The data is on the device and has no name there yet, and what is freed is not known there to be: nothing is
        // taken, and nothing given.
        if (file.inode().is_regular()) ok(write_back(file.inode()));
        EXPECT_EQ(free_after_recovery(*memory, judged(durable_states.size(), 4)), durable_states.back().free);
        ok(file.sync(false));
        is_durable(expected);
    }
    void is_durable(Space expected) {
        const std::uint64_t before = durable_states.back().free,
                            now = free_after_recovery(*memory, judged(durable_states.size() + 2, 4));
        EXPECT_EQ(now < before    ? Space::less
                  : now == before ? Space::same
                                  : Space::more,
                  expected)
            << before << " became " << now;
        durable_states.push_back({recorder->log().size(), now});
    }
    // Who goes on sees as many free blocks as who recovers.
    void told_is_recovered() {
        auto told = fs->statistics();
        ok(told);
        EXPECT_EQ(told ? told->f_bfree : 0, durable_states.back().free);
    }
    // What has been done until now, cut after each request: it was free before or after the operation that is cut.
    void cut_everywhere() {
        const auto log = recorder->log();
        std::shared_ptr<MemoryDevice> image = initial->clone();
        std::size_t done = 0;  // the newest state whose requests have all been made
        for (std::size_t n = 0; n < log.size(); ++n) {
            ASSERT_TRUE(RecordingDevice::apply(log[n], *image));
            while (done + 1 < durable_states.size() && durable_states[done + 1].requests <= n + 1) ++done;
            if (log[n].kind == RecordedWrite::Kind::Flush) continue;  // it changes nothing here
            const std::uint64_t free = free_after_recovery(*image, judged(n, 32));
            const bool under_way = durable_states[done].requests < n + 1 && done + 1 < durable_states.size();
            EXPECT_TRUE(free == durable_states[done].free || (under_way && free == durable_states[done + 1].free))
                << "after " << n << " requests, in step " << done << ": " << free;
        }
    }
    struct Durable {
        std::size_t requests;  // after so many
        std::uint64_t free;
    };
    std::vector<Durable> durable_states;
};

TEST_P(NothingLeaks, WheneverThePowerGoes) {
    auto file = open("/f");
    for (unsigned i = 0; i < 5; ++i)
        step("append", *file, Space::less, [&] { write(*file, pattern(9 * page, i), i * 11 * page); });
    file.reset();
    told_is_recovered();
    cut_everywhere();
    settle();
}

// With clusters of four pages a hole may be room in a cluster that is there already, and what is punched all that a
// cluster has. An operation of several transactions could pass through other counts, but these have one each.
TEST_P(NothingLeaks, WheneverThePowerGoesWhileRangesChange) {
    const bool clusters = format_has("bigalloc"), extents = !format_has("^extents");
    auto file = open("/f");
    step("written", *file, Space::less, [&] {
        for (unsigned i = 0; i < 5; ++i) write(*file, pattern(9 * page, i), i * 11 * page);
    });
    const auto punch = [&](std::uint64_t first, std::uint64_t pages) {
        ok(file->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, first * page, pages * page));
    };
    step("a hole in a cluster filled", *file, clusters ? Space::same : Space::less,
         [&] { write(*file, pattern(2 * page, 6), 9 * page); });
    if (extents) {
        step("preallocated behind the end", *file, Space::less,
             [&] { ok(file->fallocate(FALLOC_FL_KEEP_SIZE, 60 * page, 16 * page)); });
        step("written to there", *file, Space::same, [&] { write(*file, pattern(page, 7), 61 * page); });
    }
    step("punched", *file, Space::more, [&] { punch(12, 8); });
    step("all punched that a cluster has", *file, Space::more, [&] { punch(22, 2); });
    step("a part of a cluster punched", *file, clusters ? Space::same : Space::more, [&] { punch(33, 1); });
    step("a hole filled", *file, Space::less, [&] { write(*file, pattern(8 * page, 8), 12 * page); });
    if (extents) {
        const auto shift = [&](int mode) { ok(file->fallocate(mode, 4 * page, 4 * page)); };
        step("collapsed", *file, Space::more, [&] { shift(FALLOC_FL_COLLAPSE_RANGE); });
        step("inserted", *file, Space::same, [&] { shift(FALLOC_FL_INSERT_RANGE); });
    }
    step("cut", *file, Space::more, [&] { ok(file->truncate(40 * page + 100)); });
    step("emptied", *file, Space::more, [&] { ok(file->truncate(0)); });
    file.reset();
    told_is_recovered();
    cut_everywhere();
    settle();
}

TEST_P(NothingLeaks, WheneverThePowerGoesWhileFilesComeAndGo) {
    auto top = fs->root();
    ASSERT_TRUE(top);
    auto names = open("/", O_RDONLY | O_DIRECTORY);
    auto small = open("/small"), other = open("/other");
    step("a few bytes", *small, format_has("inline_data") ? Space::same : Space::less,
         [&] { write(*small, pattern(50, 1)); });
    step("a few more", *small, Space::same, [&] { write(*small, pattern(50, 2), 50); });
    // Out of the inode, where they were in it.
    step("many", *small, Space::less, [&] { write(*small, pattern(9 * page, 3), 100); });
    // So many pieces that the map has a block of its own.
    step("pieces", *other, Space::less, [&] {
        for (unsigned i = 0; i < 8; ++i) write(*other, pattern(page, i), i * 9 * page);
    });
    // Whoever recovers deletes what was open without a name, so that there is no third count.
    step("removed while open", *names, Space::more, [&] { ok(fs->unlink(**top, "other", root, true)); });
    step("closed", *names, Space::same, [&] {
        other.reset();
        fs->volume().wait_for_deletions();
        ok(fs->sync());
    });
    told_is_recovered();
    auto fresh = open("/fresh");
    step("another file", *fresh, Space::less, [&] { write(*fresh, pattern(page, 4)); });
    fresh.reset(), small.reset();
    step("in the first one's place", *names, Space::more,
         [&] { ok(fs->rename(**top, "fresh", **top, "small", 0, root, true)); });
    step("removed", *names, Space::more, [&] { ok(fs->unlink(**top, "small", root, true)); });
    fs->volume().wait_for_deletions();
    told_is_recovered();
    names.reset(), top->reset();
    cut_everywhere();
    settle();
}

INSTANTIATE_TEST_SUITE_P(Formats, NothingLeaks,
                         testing::Combine(testing::Values("-b 4096 -J size=4", "-b 1024 -J size=2",
                                                          "-b 1024 -J size=2 -O ^extents,^64bit",
                                                          "-b 4096 -J size=4 -O bigalloc -C 16384",
                                                          "-b 4096 -J size=4 -I 256 -O inline_data"),
                                          testing::Values("data=ordered", "data=journal")));

}  // namespace
}  // namespace uext4::problems
