// Problem H: the folio in which a file ends, for blocks smaller than a page and pages smaller than a folio. Whatever is
// stored behind the end, it is zeros when the file grows, and zeros on the device after a sync and between any two
// calls (P4, docs/adr/0010).
#include "settled_image.h"

#include <random>

namespace uext4::problems {
namespace {

struct Sizes {
    std::uint32_t block, folio;
    const char* features = "";  // as mke2fs has them
    const char* name = "";
    bool has(std::string_view feature) const { return std::string_view(features).contains(feature); }
    bool extents() const { return !has("^extents"); }
    bool clusters() const { return has("bigalloc"); }
    std::size_t unit() const { return clusters() ? 16384 : block; }  // of what can be collapsed
};

class Straddle : public SettledImage, public testing::WithParamInterface<std::tuple<Sizes, const char*>> {
protected:
    static constexpr std::size_t reach = 300 << 10;
    static constexpr std::size_t mapped = 320 << 10;
    Sizes sizes() const { return std::get<0>(GetParam()); }
    void SetUp() override {
        folio_bytes = sizes().folio;
        make(fmt::format("-b {} -J size=8 {}", sizes().block, sizes().features), std::get<1>(GetParam()));
    }
    // Near a multiple of one of the three sizes, where it goes wrong if it does.
    std::size_t place(std::mt19937& random) const {
        const std::size_t unit[] = {sizes().block, page, sizes().folio, 512};
        const std::size_t u = unit[random() % 4];
        const auto near = static_cast<std::int64_t>(random() % 7) - 3;
        const std::int64_t at = static_cast<std::int64_t>(random() % (reach / u) * u) + near * (random() % 2 ? 1 : 37);
        return static_cast<std::size_t>(std::clamp<std::int64_t>(at, 0, reach));
    }
    // No block of the file has anything behind its end, in a file system that has just been recovered.
    void no_byte_behind_the_end(const MemoryDevice& image) {
        std::shared_ptr<MemoryDevice> copy = image.clone();
        auto recovered = FileSystem::mount_device(copy, {});
        ASSERT_TRUE(recovered) << recovered.error().what;
        auto file = (*recovered)->open_path("/f", O_RDWR, 0, root);
        ASSERT_TRUE(file);
        const std::uint64_t end = (*file)->inode().size_hint();
        raw_tail_is_zero(**recovered, *copy, **file);
        ok((*file)->truncate(reach + mapped));
        const std::string behind = read(**file, mapped, end);
        EXPECT_EQ(behind.find_first_not_of('\0'), std::string::npos) << "behind the end at " << end;
        file->reset();
        ok((*recovered)->unmount());
    }
    void raw_tail_is_zero(FileSystem& of, MemoryDevice& device, OpenFile& file);
    unsigned tails_ = 0;
};

// What the device has behind the end.
void Straddle::raw_tail_is_zero(FileSystem& of, MemoryDevice& device, OpenFile& file) {
    const std::uint64_t end = file.inode().size_hint(), bs = sizes().block;
    if (end % bs == 0) return;
    BlockNr block;
    ok(of.extents(file.inode(), end / bs * bs, bs, [&](const Mapping& m) {
        if (m.state == BlockState::mapped) block = m.block + (end / bs * bs - m.offset) / bs;
        return false;
    }));
    if (!block) return;
    FsContext& fs = of.volume().fs();
    // Until then it is in the log.
    if (file.inode().journals_data() || fs.logged_data_blocks.has(block, 1)) ok(fs.journal.checkpoint_all());
    ++tails_;
    std::vector<std::byte> bytes(bs);
    ok(device.read(block.value * bs, bytes));
    for (std::size_t i = end % bs; i < bs; ++i)
        ASSERT_EQ(bytes[i], std::byte{0}) << "byte " << i << " of the last block, the file ends at " << end;
}

// Random changes of one file, and what its bytes must be.
class StraddleAtRandom : public Straddle {
protected:
    void round(int first, int steps);
    void step(int i);
    void change_a_range(bool first, std::size_t at, std::size_t n);
    void shift(std::size_t at, std::size_t n);
    void store();
    void put(std::size_t at, const std::string& bytes) {
        grow(at + bytes.size());
        model.replace(at, bytes.size(), bytes);
    }
    void grow(std::size_t end) {
        if (model.size() < end) model.resize(end);
    }
    void zero(std::size_t at, std::size_t n) {
        if (at >= model.size()) return;
        n = std::min(n, model.size() - at);
        model.replace(at, n, n, '\0');
    }
    std::mt19937 random{first_seed()};
    std::unique_ptr<OpenFile> file, direct;
    char* view = nullptr;
    std::string model;
    unsigned shifts = 0, inside = 0;  // steps that shifted something, and that began in the inode
};

void StraddleAtRandom::change_a_range(bool first, std::size_t at, std::size_t n) {
    // Files without extents have holes alone.
    if (!sizes().extents() || random() % 4 == 0) {
        ok(file->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, n));
        zero(at, n);
    } else if (first) {
        const bool keeps = random() % 2;
        ok(file->fallocate(keeps ? FALLOC_FL_KEEP_SIZE : 0, at, n));
        if (!keeps) grow(at + n);
    } else {
        ok(file->fallocate(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, at, n));
        zero(at, n);
    }
}

// Whole blocks taken out or put in, but for what would reach the end, or make the file too long.
void StraddleAtRandom::shift(std::size_t at, std::size_t n) {
    const std::size_t unit = sizes().unit();
    n = std::max(n / unit, std::size_t{1}) * unit;
    if (model.size() > unit) at %= model.size();
    at = at / unit * unit;
    if (random() % 2) {
        const bool possible = at + n < model.size();
        EXPECT_EQ(file->fallocate(FALLOC_FL_COLLAPSE_RANGE, at, n).has_value(), possible);
        if (possible) model.erase(at, n), ++shifts;
    } else if (model.size() + n <= reach) {
        const bool possible = at < model.size();
        EXPECT_EQ(file->fallocate(FALLOC_FL_INSERT_RANGE, at, n).has_value(), possible);
        if (possible) model.insert(at, n, '\0'), ++shifts;
    }
}

// Behind the end, in its page: lost. Before it: kept.
void StraddleAtRandom::store() {
    const std::size_t last = model.size() + random() % 3000;
    const std::size_t to = random() % 2 ? last : random() % model.size();
    const bool within = to / page <= (model.size() - 1) / page;
    EXPECT_EQ(refused([&] { view[to] = 'B'; }), !within);
    if (to < model.size()) model[to] = 'B';
}

void StraddleAtRandom::step(int i) {
    const unsigned what = random() % 15;
    // As long as the contents are in the inode: near the end of what it has room for.
    const bool small = file->inode().has_flag(format::inode_flag::inline_data) && random() % 16 != 0;
    const std::size_t at = small ? random() % 130 : place(random), n = random() % (small ? 40 : 9000) + 1;
    inside += small && !model.empty();
    SCOPED_TRACE(fmt::format("step {}, {} at {} + {}, size {}", i, what, at, n, model.size()));
    if (what < 2) {
        ok(file->truncate(at));
        model.resize(at);
    } else if (what < 4) {
        const std::string bytes = pattern(n, static_cast<unsigned>(i));
        write(*file, bytes, at);
        put(at, bytes);
    } else if (what < 7 && !model.empty()) {
        store();
    } else if (what == 7 || what == 8) {
        if (!small) change_a_range(what == 7, at, n);
    } else if (what == 9) {
        ok(file->sync(random() % 2));
        raw_tail_is_zero(*fs, *memory, *file);
    } else if (what == 10) {
        // What is written and not committed yet is on the device, too.
        ok(write_back(file->inode()));
        if (random() % 3 == 0) no_byte_behind_the_end(*memory->clone());
    } else if (what == 11 && !small) {
        const std::size_t from = at / page * page, whole = (n / page + 1) * page;
        const Aligned bytes(pattern(whole, static_cast<unsigned>(i)));
        write(*direct, bytes.text(whole), from);
        if (random() % 3 == 0) no_byte_behind_the_end(*memory->clone());
        put(from, bytes.text(whole));
    } else if (what == 12) {
        ok(fs->volume().fs().journal.commit_all());
    } else if (what > 12 && sizes().extents() && !small) {
        shift(at, n);
    }
}

// A new file, which with inline_data begins in its inode.
void StraddleAtRandom::round(int first, int steps) {
    model.clear();
    file = open("/f"), direct = open("/f", O_RDWR | O_DIRECT);
    ok(fs->sync());
    view = map(*file, mapped);
    if (!view) return;
    for (int i = first; i < first + steps && !HasFailure(); ++i) {
        step(i);
        if (i % 8 == 0) {
            EXPECT_EQ(file->inode().size_hint(), model.size());
            EXPECT_TRUE(read(*file, reach + mapped) == model) << "step " << i;
        }
        if (i % 100 == 99) {
            no_byte_behind_the_end(*durable());
            no_byte_behind_the_end(*memory->clone());
        }
    }
    EXPECT_TRUE(std::string(view, model.size()) == model);
    unmap(view, mapped);
    file.reset(), direct.reset();
}

TEST_P(StraddleAtRandom, NothingComesFromBehindTheEnd) {
    const int steps = long_run() ? 20000 : 1200, rounds = sizes().has("inline_data") ? 12 : 1;
    for (int i = 0; i < rounds && !HasFailure(); ++i) {
        round(i * steps / rounds, steps / rounds);
        NEED_MAP(view);
        if (i + 1 < rounds) ok(fs->unlink(**fs->root(), "f", root, true));
    }
    EXPECT_GT(tails_, 0u);
    EXPECT_EQ(shifts > 0, sizes().extents());
    EXPECT_EQ(inside > 0, sizes().has("inline_data"));
    settle();
}

// Zeroed, its last block is unwritten, and still the last one where a cut finds it.
TEST_P(Straddle, WhatIsWrittenToAZeroedEndIsNotBehindIt) {
    const std::uint64_t bs = sizes().block;
    auto file = open("/f");
    write(*file, pattern(bs + 100, 3));
    for (const int keeps : {0, FALLOC_FL_KEEP_SIZE}) {
        ok(file->truncate(bs + 100));
        ok(file->sync(false));
        if (sizes().extents()) ok(file->fallocate(FALLOC_FL_ZERO_RANGE | keeps, bs, bs));
        else ok(file->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, bs, bs));
        write(*file, pattern(200, 4), bs);
        ok(write_back(file->inode()));
        no_byte_behind_the_end(*memory->clone());
    }
    file.reset();
    settle();
}

// No block is free, but some will be when their freeing is durable: the append waits for one, and moves.
class StraddleOnAFullImage : public Straddle {};

TEST_P(StraddleOnAFullImage, AnAppendWaitsForABlock) {
    const std::uint64_t bs = sizes().block;
    auto file = open("/f");
    write(*file, pattern(bs + 100, 3));
    write(*open("/spare"), pattern(64 * bs, 5));
    ok(fs->sync());
    {
        auto fill = open("/fill");
        std::uint64_t at = 0;
        for (const std::size_t step : {std::size_t{1} << 20, std::size_t{64} << 10, std::size_t{bs}}) {
            for (const std::string bytes = pattern(step, 6);;) {
                const auto n = fill->write(at, bytes_of(bytes));
                if (!n) break;
                at += *n;
            }
            ok(fs->sync());
        }
    }
    ASSERT_LT(fs->volume().counts().free_blocks, 4u);
    ok(open("/spare")->truncate(0));
    const auto& space = fs->volume().fs().allocator;
    ASSERT_TRUE(space.has_pending_free());
    const std::uint64_t given_back = space.free_count_generation();
    write(*file, pattern(50, 4), bs + 100);
    ASSERT_EQ(space.free_count_generation(), given_back);
    ok(write_back(file->inode()));
    EXPECT_GT(space.free_count_generation(), given_back);
    no_byte_behind_the_end(*memory->clone());
    file.reset();
    settle();
}

// Somebody else left it: a map of the last page shows zeros, and so does the file when it has grown in any way.
TEST_P(Straddle, WhatTheImageHasBehindTheEndIsNotSeen) {
    constexpr std::size_t end = 9000;
    const std::string kept = pattern(end, 7);
    const std::uint64_t bs = sizes().block, first = end / bs * bs, longer = 3 * end;
    const std::string name = std::string("data=") + (std::get<1>(GetParam()) + 5);
    const auto grow_by_truncate = [&](OpenFile& file) { ok(file.truncate(longer)); };
    const auto grow_by_write = [&](OpenFile& file) { write(file, "z", longer - 1); };
    const auto grow_by_fallocate = [&](OpenFile& file) { ok(file.fallocate(0, 0, longer)); };
    // Beside a block of the same folio that is dirty, and in the block in which the file ends.
    const auto grow_in_the_last_block = [&](OpenFile& file) {
        write(file, kept.substr(0, bs));
        write(file, "z", end + 100);
        ok(file.truncate(longer));
    };
    const std::function<void(OpenFile&)> ways[] = {grow_by_truncate, grow_by_write, grow_by_fallocate,
                                                   grow_in_the_last_block};
    for (const bool mapped_first : {false, true})
        for (const auto& grow : ways) {
            if (&grow == &ways[2] && !sizes().extents()) continue;
            {
                auto file = open("/f", O_CREAT | O_TRUNC | O_RDWR);
                write(*file, kept);
                ok(file->sync(false));
                BlockNr block;
                ok(fs->extents(file->inode(), first, bs, [&](const Mapping& m) {
                    if (m.state == BlockState::mapped) block = m.block + (first - m.offset) / bs;
                    return false;
                }));
                ASSERT_TRUE(block);
                file.reset();
                ok(fs->unmount());
                const std::string stray(bs - end % bs, 'S');
                ok(memory->write(block.value * bs + end % bs, bytes_of(stray)));
                mount(name);
            }
            auto file = open("/f", O_RDWR);
            if (mapped_first) {
                char* view = map(*file, longer);
                NEED_MAP(view);
                EXPECT_EQ(std::string(view + end, page - end % page), std::string(page - end % page, '\0'));
                unmap(view, longer);
            }
            grow(*file);
            std::string now = read(*file, longer);
            ASSERT_EQ(now.size(), longer);
            for (const std::size_t at : {end + 100, now.size() - 1})
                if (now[at] == 'z') now[at] = '\0';
            EXPECT_TRUE(now == kept + std::string(longer - end, '\0')) << "at " << now.find('S');
        }
    settle();
}

constexpr const char *inlined = "-I 256 -O inline_data", *indirect = "-O ^extents,^64bit",
                     *bigalloc = "-O bigalloc -C 16384";
// Those in which the last block moves: with bigalloc it goes through the log.
std::vector<Sizes> moving() {
    std::vector<Sizes> out = {{4096, 4096},
                              {1024, 4096},
                              {2048, 16384},
                              {4096, 65536},
                              {1024, 65536},
                              {4096, 4096, inlined, "_inline"},
                              {1024, 4096, indirect, "_indirect"}};
    if (long_run()) out.insert(out.end(), {{1024, 16384, inlined, "_inline"}, {4096, 16384, indirect, "_indirect"}});
    return out;
}
std::vector<Sizes> all_sizes() {
    std::vector<Sizes> out = moving();
    out.insert(out.end(), {{4096, 4096, bigalloc, "_bigalloc"}, {1024, 65536, bigalloc, "_bigalloc"}});
    return out;
}
std::string name_of(const testing::TestParamInfo<Straddle::ParamType>& p) {
    const auto& [sizes, mode] = p.param;
    return fmt::format("{}_{}{}_{}", sizes.block, sizes.folio, sizes.name, mode + 5);
}
const auto everywhere =
    testing::Combine(testing::ValuesIn(all_sizes()), testing::Values("data=ordered", "data=journal"));
INSTANTIATE_TEST_SUITE_P(Sizes, Straddle, everywhere, name_of);
INSTANTIATE_TEST_SUITE_P(Sizes, StraddleAtRandom, everywhere, name_of);
INSTANTIATE_TEST_SUITE_P(Sizes, StraddleOnAFullImage,
                         testing::Combine(testing::ValuesIn(moving()), testing::Values("data=ordered")), name_of);

}  // namespace
}  // namespace uext4::problems
