// Problem A: sixteen threads around the size that fits an inode, through every door, on a file and its neighbours, with
// attributes that take the room beside them, while files lose their cache, also in the middle of what holds their
// Inode.
//
// Of every other file nothing is ever taken away: what was stored there is there, for every reader afterwards, and when
// it was synced after a power cut as well. Of the rest a byte is what was stored or nothing.
#include "settled_image.h"

#include <sys/xattr.h>

#include <array>
#include <atomic>
#include <random>
#include <thread>

namespace uext4::problems {
namespace {

constexpr unsigned files = 8, threads = 16;
constexpr std::size_t reach = 700;  // a little more than what fits
bool is_kept(unsigned file) { return file % 2 != 0; }
// Kept files do not shrink: they stay at the edge when they grow no further.
std::size_t reach_of(unsigned file) { return is_kept(file) ? 90 + file * 30 : reach; }

// Every file has one byte for each place: what is in it is that byte or nothing.
char byte_of(unsigned file, std::size_t at) { return static_cast<char>((at * 7 + file * 31) % 250 + 1); }
std::string bytes_at(unsigned file, std::size_t at, std::size_t size) {
    std::string out(size, 0);
    for (std::size_t i = 0; i < size; ++i) out[i] = byte_of(file, at + i);
    return out;
}
std::string path_of(unsigned file) { return fmt::format("/file{}", file); }

class InlineEdge : public SettledImage, public testing::WithParamInterface<std::tuple<const char*, const char*>> {
protected:
    void SetUp() override { make(std::get<0>(GetParam()), std::string(std::get<1>(GetParam())) + ",cache=1M"); }

    void wrong(const std::string& what) {
        failed_ = true;
        ADD_FAILURE() << what;
    }
    template <class T>
    bool fine(const Result<T>& result, const char* what, int allowed = 0) {
        if (result) return true;
        if (result.error().code != allowed) wrong(fmt::format("{}: {}", what, result.error().what));
        return false;
    }
    // What is in a kept file for good, and what of it a power cut leaves. Marked before whoever asks looks at the file.
    using Marks = std::array<std::atomic<bool>, 3 * page>;
    void mark(unsigned file, std::size_t at, std::size_t size) {
        if (!is_kept(file)) return;
        for (std::size_t i = at; i < at + size; ++i) stored_[file][i] = true;
    }
    static std::vector<std::size_t> marked(const Marks& marks) {
        std::vector<std::size_t> out;
        for (std::size_t i = 0; i < marks.size(); ++i)
            if (marks[i]) out.push_back(i);
        return out;
    }
    void sync(OpenFile& file, unsigned number, bool data_only) {
        const std::vector<std::size_t> before = marked(stored_[number]);
        if (!fine(file.sync(data_only), "fsync")) return;
        for (const std::size_t at : before) synced_[number][at] = true;
    }
    void look(FileSystem& in, unsigned file, const char* when) { look(in, file, when, stored_[file]); }
    void look(FileSystem& in, unsigned file, const char* when, const Marks& marks) {
        const std::vector<std::size_t> there = marked(marks);
        auto opened = in.open_path(path_of(file), O_RDONLY, 0, root);
        if (!fine(opened, "open")) return;
        std::string bytes(3 * page, 0);
        auto n = (*opened)->read(0, std::as_writable_bytes(std::span(bytes)));
        if (!fine(n, "read")) return;
        for (std::size_t i = 0; i < *n; ++i)
            if (bytes[i] && bytes[i] != byte_of(file, i))
                return wrong(fmt::format("{}: file {} has byte {} at {}", when, file, bytes[i] & 255, i));
        for (const std::size_t at : there)
            if (!bytes[at]) return wrong(fmt::format("{}: file {} has lost its byte at {}", when, file, at));
        compared_ += there.size();
    }
    void store(OpenFile& file, unsigned number, std::size_t at) {
        auto mapped = file.map(0, page, PROT_READ | PROT_WRITE, MAP_SHARED);
        if (!mapped) {
            no_maps_ = true;
            return;
        }
        auto* memory = static_cast<volatile char*>(*mapped);
        const bool inside = at < file.inode().size_hint();
        // Past the last page there is nothing to store to; a byte behind the end, in the page, is lost.
        const bool no_store = refused([&] { memory[at] = byte_of(number, at); });
        if (inside && !no_store) mark(number, at, 1);
        const bool no_load = refused([&] {
            const char now = memory[at];
            if (now == byte_of(number, at)) return;
            if (now || (is_kept(number) && inside))
                wrong(fmt::format("a map of file {} has {} at {}", number, now, at));
        });
        if (is_kept(number) && inside && (no_store || no_load)) wrong(fmt::format("a map refuses byte {}", at));
        unmap(*mapped, page);
    }
    void attribute(unsigned file, std::mt19937& random) {
        auto inode = fs->resolve(path_of(file), root);
        if (!fine(inode, "resolve")) return;
        const std::string name = fmt::format("user.{}", random() % 3);
        const auto size = static_cast<std::size_t>(random() % 90);
        if (random() % 3 == 0) fine(fs->remove_xattr(**inode, name, root, true), "removexattr", ENODATA);
        else fine(fs->set_xattr(**inode, name, bytes_of(std::string(size, 'v')), 0, root, true), "setxattr");
        auto value = fs->get_xattr(**inode, name, root, true);
        if (fine(value, "getxattr", ENODATA))
            for (const std::byte b : *value)
                if (b != std::byte{'v'}) return wrong("an attribute has other bytes");
    }
    // Reclaim while the file's Inode is held: what it takes of the file is read anew by whoever holds it.
    void reclaim_inside(OpenFile& file) {
        Inode& inode = file.inode();
        fine(fs->maps().with_inode_lock_shared(inode,
                                               [&]() -> Result<void> {
                                                   const std::uint64_t before = inode.pages().cached_folios();
                                                   inode.pages().cache().reclaim();
                                                   if (inode.is_inline() && inode.pages().cached_folios() < before)
                                                       ++reclaimed_inside_;
                                                   return {};
                                               }),
             "reclaim with Inode held");
    }
    void step(std::mt19937& random);
    void make_anew();
    void take_away(OpenFile& file, unsigned number, std::size_t at, std::size_t size, unsigned how);

    std::atomic<bool> failed_{false}, no_maps_{false};
    std::array<Marks, files> stored_{}, synced_{};
    std::atomic<std::uint64_t> compared_{0}, reclaimed_inside_{0};  // inside: while the file was in its inode
    std::atomic<std::uint64_t> steps_{0}, inline_steps_{0};
};

void InlineEdge::take_away(OpenFile& file, unsigned number, std::size_t at, std::size_t size, unsigned how) {
    if (is_kept(number)) return reclaim_inside(file);
    switch (how) {
        case 0: fine(file.truncate(at), "truncate"); break;
        case 1: fine(file.truncate(at % 80), "truncate to a little"); break;
        case 2: fine(file.fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, size), "punch"); break;
        default: fine(file.fallocate(FALLOC_FL_ZERO_RANGE, at, size), "zero range");
    }
}

void InlineEdge::step(std::mt19937& random) {
    // Half of it all is about two files.
    const unsigned number = random() % 2 ? random() % 2 : random() % files;
    const std::size_t at = random() % reach_of(number);
    const std::size_t size = random() % (is_kept(number) ? reach_of(number) - at : 120) + 1;
    auto file = fs->open_path(path_of(number), O_RDWR, 0, root);
    if (!fine(file, "open")) return;
    ++steps_;
    if ((*file)->inode().is_inline()) ++inline_steps_;
    switch (random() % 17) {
        case 0:
        case 1:
            if (fine((*file)->write(at, bytes_of(bytes_at(number, at, size))), "write")) mark(number, at, size);
            break;
        case 2:
        case 3: store(**file, number, at); break;
        case 4: take_away(**file, number, at, size, 0); break;
        case 5: take_away(**file, number, at, size, 1); break;
        case 6: attribute(number, random); break;
        case 7: attribute(number, random); break;
        case 8: sync(**file, number, random() % 2); break;
        case 9: take_away(**file, number, at, size, 2); break;
        case 10: take_away(**file, number, at, size, 3); break;
        case 11: {
            auto direct = fs->open_path(path_of(number), O_RDWR | O_DIRECT, 0, root);
            if (!fine(direct, "open")) return;
            Aligned memory(bytes_at(number, 0, page));
            // It makes the file leave its inode: of the kept ones only the last does.
            if (!is_kept(number) || number == files - 1)
                if (fine((*direct)->write(0, memory.bytes().first(512)), "direct write")) mark(number, 0, 512);
            fine((*direct)->read(0, memory.bytes()), "direct read");
            break;
        }
        case 12: {
            const unsigned other = random() % files;
            if (is_kept(other) && other != files - 1) break;  // it would leave its inode, too
            auto to = fs->open_path(path_of(other), O_RDWR, 0, root);
            if (!fine(to, "open")) return;
            if (other != number) fine((*to)->fallocate(FALLOC_FL_KEEP_SIZE, at, size), "fallocate");
            else fine((*file)->seek(at, SEEK_DATA), "seek", ENXIO);
            break;
        }
        case 13: reclaim_inside(**file); break;
        case 14: {
            const std::string bytes = bytes_at(number, at, size);
            const ConstBytes all = bytes_of(bytes), parts[] = {all.first(size / 2), {}, all.subspan(size / 2)};
            if (fine((*file)->write(at, parts), "writev")) mark(number, at, size);
            break;
        }
        case 15:
            // A kept one would leave its inode.
            if (!is_kept(number)) fine((*file)->fallocate(0, at, size), "fallocate that grows");
            else fine((*file)->seek(at, SEEK_HOLE), "seek", ENXIO);
            break;
        default: look(*fs, number, "meanwhile");
    }
}

// Files in their inodes. What has left its inode does not come back.
void InlineEdge::make_anew() {
    for (unsigned f = 0; f < files; ++f) {
        if (fs->resolve(path_of(f), root)) ok(fs->unlink(**fs->root(), path_of(f).substr(1), root, false));
        for (Marks* marks : {&stored_[f], &synced_[f]})
            for (std::atomic<bool>& byte : *marks) byte = false;
        write(*open(path_of(f)), bytes_at(f, 0, 40 + f * 20));
        mark(f, 0, 40 + f * 20);
    }
    ok(fs->sync());
    for (unsigned f = 0; f < files; ++f)
        for (const std::size_t at : marked(stored_[f])) synced_[f][at] = true;
}

TEST_P(InlineEdge, EveryDoorAtOnce) {
    const std::string quiet = pattern(60, 3);
    write(*open("/quiet"), quiet);
    // It takes the cache from everybody else.
    write(*open("/large"), pattern(4 << 20, 9));
    make_anew();
    // The cache is full of what cannot go: every write and every fault reclaims what is clean, with the Inode held.
    PageCache& cache = fs->volume().fs().pages;
    auto ballast = std::make_unique<FileCache>(cache, ~std::uint64_t{0});
    const std::uint64_t ballast_folios = cache.limit() / cache.folio_size();
    for (std::uint64_t i = 0; i < ballast_folios; ++i) {
        auto folio = ballast->lock(i, true);
        ASSERT_TRUE(folio) << folio.error().what;
        ballast->pin(*folio);
    }
    std::atomic<bool> stop{false};
    std::thread churn([&] {
        auto large = open("/large", O_RDONLY);
        std::string bytes(32 << 10, 0);  // by less than what would go past the cache
        for (std::uint64_t at = 0; !stop; at = (at + bytes.size()) % (4 << 20)) {
            fine(large->read(at, std::as_writable_bytes(std::span(bytes))), "read of the large file");
            cache.reclaim();
        }
    });
    constexpr int steps = 30;
    constexpr std::uint64_t least_reclaimed = 20;
    const unsigned rounds = long_run() ? 200 : 20;
    // On a busy machine the reader of the large file may have reclaimed before it each time.
    const auto goes_on = [&](unsigned round) {
        return round < rounds || (reclaimed_inside_ <= least_reclaimed && round < 10 * rounds);
    };
    for (unsigned round = 0; goes_on(round) && !failed_; ++round) {
        if (round != 0) make_anew();
        std::vector<std::thread> crowd;
        for (unsigned t = 0; t < threads; ++t)
            crowd.emplace_back([&, t] {
                std::mt19937 random(first_seed() * 100'000 + round * threads + t);
                for (int i = 0; i < steps && !failed_; ++i) step(random);
            });
        for (std::thread& thread : crowd) thread.join();
    }
    stop = true;
    churn.join();
    for (std::uint64_t i = 0; i < ballast_folios; ++i) {
        auto folio = ballast->lock(i, false);
        ASSERT_TRUE(folio && *folio);
        ballast->unpin(**folio);
    }
    ballast.reset();
    EXPECT_FALSE(no_maps_) << "no stores through maps";
    EXPECT_GT(reclaimed_inside_, least_reclaimed);
    EXPECT_GT(compared_, 1000u);
    EXPECT_GT(inline_steps_ * 10, steps_)
        << "of " << steps_ << " steps " << inline_steps_ << " met a file in its inode";
    for (unsigned f = 0; f < files; ++f) look(*fs, f, "afterwards");
    EXPECT_EQ(read(*open("/quiet", O_RDONLY), 200), quiet);
    const std::shared_ptr<MemoryDevice> cut = durable();
    {
        auto recovered = FileSystem::mount_device(cut, {});
        ASSERT_TRUE(recovered) << recovered.error().what;
        for (unsigned f = 0; f < files; ++f) look(**recovered, f, "after the cut", synced_[f]);
        ok((*recovered)->unmount());
    }
    settle();
}

INSTANTIATE_TEST_SUITE_P(Formats, InlineEdge,
                         testing::Combine(testing::Values("-b 4096 -I 256 -O inline_data",
                                                          "-b 1024 -I 512 -O inline_data"),
                                          testing::Values("data=ordered", "data=journal")));

}  // namespace
}  // namespace uext4::problems
