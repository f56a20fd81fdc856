// A cache of 16 MiB under much more data, mapped, buffered and direct at once: contents are right, and the process
// needs no more memory than the cache and 64 MiB, however much the log could hold.
#include "memory_use.h"
#include "settled_image.h"

#include <optional>
#include <random>
#include <thread>
#include <tuple>

namespace uext4::problems {
namespace {

// A sanitizer keeps memory of its own, and what was freed for a while: the size of the process is not the program's.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define UEXT4_SANITIZED 1
#endif
#endif
#ifdef UEXT4_SANITIZED
constexpr bool memory_is_measured = false;
#else
constexpr bool memory_is_measured = true;
#endif

constexpr std::size_t mib = 1 << 20, chunk = 64 << 10;
constexpr std::size_t cache_mib = 16, allowed_mib = cache_mib + 64;

class SmallCache : public testing::TestWithParam<const char*> {
protected:
    static constexpr unsigned files = 4;
    std::size_t total() const { return (long_run() ? 1024 : 128) * mib; }
    std::size_t chunks() const { return total() / files / chunk; }

    void SetUp() override {
        path_ = fmt::format("/dev/shm/uext4-cache-{}", ::getpid());
        ::unlink(path_.c_str());
        // A log that could hold more than the process may.
        const Said made =
            say(fmt::format("mke2fs -q -F -t ext4 -b 4096 -J size=64 {} {}M", path_, total() / mib * 5 / 4 + 64));
        ASSERT_EQ(made.status, 0) << made.text;
        use_.emplace();
        mount();
    }
    void mount() {
        auto mounted = FileSystem::mount(path_, fmt::format("{},cache={}M", GetParam(), cache_mib));
        ASSERT_TRUE(mounted) << mounted.error().what;
        fs = std::move(*mounted);
    }
    void TearDown() override {
        fs.reset();
        ::unlink(path_.c_str());
    }
    static void fill(std::string& out, unsigned file, std::size_t number, unsigned generation) {
        const std::uint64_t seed = (std::uint64_t{file} << 40 | number << 16 | generation) * 0x9e3779b97f4a7c15;
        std::mt19937_64 random(seed);
        auto* words = reinterpret_cast<std::uint64_t*>(out.data());
        for (std::size_t i = 0; i < chunk / 8; ++i) words[i] = random();
    }
    void work(unsigned file);
    void check_all();

    std::string path_;
    std::optional<MemoryUse> use_;
    std::unique_ptr<FileSystem> fs;
    std::vector<std::vector<unsigned>> generations_;
};

// One thread a file: every chunk once by some door, in an order of its own, and many a second time; looks in between.
void SmallCache::work(unsigned number) {
    std::vector<unsigned>& generation = generations_[number];
    std::mt19937 random(first_seed() * 10 + number);
    auto cached = fs->open_path(fmt::format("/f{}", number), O_CREAT | O_RDWR, 0644, root);
    auto direct = fs->open_path(fmt::format("/f{}", number), O_RDWR | O_DIRECT, 0644, root);
    ASSERT_TRUE(cached && direct);
    ASSERT_TRUE((*cached)->truncate(chunks() * chunk));
    auto whole = (*cached)->map(0, chunks() * chunk, PROT_READ | PROT_WRITE, MAP_SHARED);
    ASSERT_TRUE(whole) << whole.error().what;
    auto* memory = static_cast<char*>(*whole);
    Aligned buffer(chunk);
    std::string bytes(chunk, 0);
    std::vector<std::size_t> order(chunks());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::ranges::shuffle(order, random);
    for (std::size_t i = 0; i < order.size() + order.size() / 2; ++i) {
        // What follows a place in the file mostly comes next, as in a stream.
        const std::size_t c = i < order.size() ? (i % 64 < 48 ? i : order[i]) : order[i - order.size()];
        fill(bytes, number, c, ++generation[c]);
        switch (random() % 3) {
            case 0: ASSERT_EQ((*cached)->write(c * chunk, bytes_of(bytes)).value_or(0), chunk); break;
            case 1:
                bytes.copy(reinterpret_cast<char*>(buffer.bytes().data()), chunk);
                ASSERT_EQ((*direct)->write(c * chunk, buffer.bytes()).value_or(0), chunk);
                break;
            default: std::memcpy(memory + c * chunk, bytes.data(), chunk);
        }
        const std::size_t seen = i < order.size() ? random() % (i + 1) : random() % chunks();
        std::string wanted(chunk, 0);
        if (generation[seen]) fill(wanted, number, seen, generation[seen]);
        switch (random() % 3) {
            case 0: ASSERT_EQ((*cached)->read(seen * chunk, buffer.bytes()).value_or(0), chunk); break;
            case 1: ASSERT_EQ((*direct)->read(seen * chunk, buffer.bytes()).value_or(0), chunk); break;
            default: std::memcpy(buffer.bytes().data(), memory + seen * chunk, chunk);
        }
        ASSERT_TRUE(buffer.text(chunk) == wanted) << "file " << number << " chunk " << seen;
        if (i % 500 == 499) {
            ASSERT_TRUE((*cached)->sync(false));
        }
    }
    ASSERT_TRUE(ClientMaps::unmap(memory, chunks() * chunk));
}

void SmallCache::check_all() {
    std::string bytes(chunk, 0), wanted(chunk, 0);
    for (unsigned f = 0; f < files; ++f) {
        auto file = fs->open_path(fmt::format("/f{}", f), O_RDONLY, 0, root);
        ASSERT_TRUE(file);
        for (std::size_t c = 0; c < chunks(); ++c) {
            ASSERT_EQ((*file)->read(c * chunk, std::as_writable_bytes(std::span(bytes))).value_or(0), chunk);
            if (generations_[f][c]) fill(wanted, f, c, generations_[f][c]);
            else wanted.assign(chunk, 0);
            ASSERT_TRUE(bytes == wanted) << "file " << f << " chunk " << c;
        }
    }
}

// The kernel's tables of pages count: one for every 2 MiB that was ever looked at would be 160 MiB here.
TEST_P(SmallCache, IsEnoughForAMappedFileThatIsReadFarApart) {
    constexpr std::size_t apart = 2 * mib, looks = 40000;
    auto file = fs->open_path("/sparse", O_CREAT | O_RDWR, 0644, root);
    ASSERT_TRUE(file && (*file)->truncate(looks * apart));
    auto memory = (*file)->map(0, page, PROT_READ, MAP_SHARED);
    if (!memory) GTEST_SKIP() << memory.error().what;
    std::string bytes(1, '?');
    for (std::size_t i = 0; i < looks; ++i) {
        // Some of them again, when their table may be gone.
        const std::size_t at = (i % 4 == 3 ? i / 4 : i) * apart + i % 512 * page;
        ASSERT_EQ((*file)->read(at, std::as_writable_bytes(std::span(bytes))).value_or(0), 1U) << at;
        ASSERT_EQ(bytes[0], 0);
    }
    for (std::size_t i = 0; i < looks; i += 100) {
        bytes[0] = static_cast<char>(i % 251 + 1);
        ASSERT_EQ((*file)->write(i * apart, bytes_of(bytes)).value_or(0), 1U);
    }
    for (std::size_t i = 1; i < looks; i += 100)
        ASSERT_EQ((*file)->read(i * apart, std::as_writable_bytes(std::span(bytes))).value_or(0), 1U);
    for (std::size_t i = 0; i < looks; i += 100) {
        ASSERT_EQ((*file)->read(i * apart, std::as_writable_bytes(std::span(bytes))).value_or(0), 1U);
        ASSERT_EQ(bytes[0], static_cast<char>(i % 251 + 1)) << i;
    }
    const std::size_t peak = use_->peak_mib();
    fmt::print("{} looks, {} MiB apart, cache of {} MiB: peak {} MiB\n", looks, apart / mib, cache_mib, peak);
    if (memory_is_measured) {
        EXPECT_LE(peak, allowed_mib);
    }
    ASSERT_TRUE(ClientMaps::unmap(*memory, page));
}

// Each call has a buffer where its bytes come from several places, or from a file: they are small where calls are many.
TEST_P(SmallCache, IsEnoughForManyCallsAtOnce) {
    constexpr unsigned callers = 80;
    const std::string bytes = pattern(mib, 7);
    const ConstBytes halves[] = {bytes_of(bytes).first(mib / 2), bytes_of(bytes).subspan(mib / 2)};
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < callers; ++t)
        threads.emplace_back([&, t] {
            auto file = fs->open_path(fmt::format("/c{}", t % 8), O_CREAT | O_RDWR, 0644, root);
            ASSERT_TRUE(file);
            for (int turn = 0; turn < 3; ++turn) {
                ASSERT_EQ((*file)->write(t / 8 % 4 * mib, halves).value_or(0), mib);
                ASSERT_EQ(fs->copy_range(**file, t / 8 % 4 * mib, **file, 4 * mib, mib).value_or(0), mib);
            }
        });
    for (std::thread& thread : threads) thread.join();
    for (unsigned f = 0; f < 8; ++f) {
        auto file = fs->open_path(fmt::format("/c{}", f), O_RDONLY, 0, root);
        std::string seen(mib, 0);
        for (const std::size_t at : {std::size_t{0}, 4 * mib}) {
            ASSERT_EQ((*file)->read(at, std::as_writable_bytes(std::span(seen))).value_or(0), mib);
            ASSERT_TRUE(seen == bytes) << f;
        }
    }
    const std::size_t peak = use_->peak_mib();
    fmt::print("{} calls at once, cache of {} MiB: peak {} MiB\n", callers, cache_mib, peak);
    if (memory_is_measured) {
        EXPECT_LE(peak, allowed_mib);
    }
}

TEST_P(SmallCache, IsEnough) {
    {
        auto probe = fs->open_path("/probe", O_CREAT | O_RDWR, 0644, root);
        ASSERT_TRUE(probe && (*probe)->truncate(page));
        auto memory = (*probe)->map(0, page, PROT_READ, MAP_SHARED);
        if (!memory) GTEST_SKIP() << memory.error().what;
        ASSERT_TRUE(ClientMaps::unmap(*memory, page));
    }
    generations_.assign(files, std::vector<unsigned>(chunks()));
    std::vector<std::thread> threads;
    for (unsigned f = 0; f < files; ++f) threads.emplace_back([this, f] { work(f); });
    for (std::thread& thread : threads) thread.join();
    auto closed = fs->unmount();
    ASSERT_TRUE(closed) << closed.error().what;
    fs.reset();
    mount();
    check_all();
    closed = fs->unmount();
    ASSERT_TRUE(closed) << closed.error().what;
    fs.reset();
    const std::size_t peak = use_->peak_mib();
    fmt::print("{} MiB of data, cache of {} MiB: peak {} MiB\n", total() / mib, cache_mib, peak);
    if (memory_is_measured) {
        EXPECT_LE(peak, allowed_mib);
    }
    const Said checked = say("e2fsck -fn " + path_);
    EXPECT_EQ(checked.status, 0) << checked.text;
}

// Threads that only write, in large pieces, fill transactions faster than they go home; the log would hold all of it.
class SmallCacheLargeLog : public testing::TestWithParam<std::tuple<const char*, unsigned>> {
protected:
    static constexpr unsigned threads = 8;
    static std::size_t each() { return (long_run() ? 64 : 24) * mib; }

    void SetUp() override {
        const auto& [mode, log_mib] = GetParam();
        path_ = fmt::format("/dev/shm/uext4-large-log-{}", ::getpid());
        ::unlink(path_.c_str());
        const Said made = say(fmt::format("mke2fs -q -F -t ext4 -b 4096 -E lazy_journal_init=1 -J size={} {} {}M",
                                          log_mib, path_, threads * each() / mib * 5 / 4 + log_mib + 32));
        ASSERT_EQ(made.status, 0) << made.text;
        use_.emplace();
        auto mounted = FileSystem::mount(path_, fmt::format("{},cache={}M", mode, cache_mib));
        ASSERT_TRUE(mounted) << mounted.error().what;
        fs = std::move(*mounted);
    }
    void TearDown() override {
        fs.reset();
        ::unlink(path_.c_str());
    }
    static std::string piece(unsigned file, std::size_t number) {
        std::string bytes(mib, static_cast<char>('a' + file));
        for (std::size_t at = 0; at < mib; at += page) bytes.replace(at, 16, fmt::format("{:16}", number * mib + at));
        return bytes;
    }
    void work(unsigned number);

    std::string path_;
    std::optional<MemoryUse> use_;
    std::unique_ptr<FileSystem> fs;
};

// Every piece is written, every fourth once more in units that are no blocks; then all is seen through a map and
// synced.
void SmallCacheLargeLog::work(unsigned number) {
    auto file = fs->open_path(fmt::format("/f{}", number), O_CREAT | O_RDWR, 0644, root);
    ASSERT_TRUE(file);
    for (std::size_t at = 0; at < each(); at += mib) {
        const std::string bytes = piece(number, at / mib);
        ASSERT_EQ((*file)->write(at, bytes_of(bytes)).value_or(0), mib);
        if (at / mib % 4 == 3) {
            ASSERT_EQ((*file)->write(at + 100, bytes_of(bytes).subspan(100, mib / 2)).value_or(0), mib / 2);
        }
    }
    ASSERT_TRUE((*file)->sync(false));
    auto whole = (*file)->map(0, each(), PROT_READ | PROT_WRITE, MAP_SHARED);
    ASSERT_TRUE(whole) << whole.error().what;
    auto* memory = static_cast<char*>(*whole);
    for (std::size_t at = 0; at < each(); at += mib) {
        const std::string bytes = piece(number, at / mib);
        ASSERT_EQ(std::memcmp(memory + at, bytes.data(), mib), 0) << "file " << number << " piece " << at / mib;
        std::memcpy(memory + at, bytes.data(), mib / 2);
    }
    ASSERT_TRUE((*file)->sync(false));
    ASSERT_TRUE(ClientMaps::unmap(memory, each()));
}

TEST_P(SmallCacheLargeLog, HoldsNoMoreThanASmallOne) {
    {
        auto probe = fs->open_path("/probe", O_CREAT | O_RDWR, 0644, root);
        ASSERT_TRUE(probe && (*probe)->truncate(page));
        auto memory = (*probe)->map(0, page, PROT_READ, MAP_SHARED);
        if (!memory) GTEST_SKIP() << memory.error().what;
        ASSERT_TRUE(ClientMaps::unmap(*memory, page));
    }
    std::vector<std::thread> workers;
    for (unsigned f = 0; f < threads; ++f) workers.emplace_back([this, f] { work(f); });
    for (std::thread& worker : workers) worker.join();
    auto closed = fs->unmount();
    ASSERT_TRUE(closed) << closed.error().what;
    fs.reset();
    // The pieces that the threads themselves hold are not the file system's.
    const std::size_t peak = use_->peak_mib() - threads;
    fmt::print("{} MiB of data, cache of {} MiB: peak {} MiB\n", threads * each() / mib, cache_mib, peak);
    if (memory_is_measured) {
        EXPECT_LE(peak, allowed_mib);
    }
    const Said checked = say("e2fsck -fn " + path_);
    EXPECT_EQ(checked.status, 0) << checked.text;
}

INSTANTIATE_TEST_SUITE_P(Modes, SmallCacheLargeLog,
                         testing::Combine(testing::Values("data=ordered", "data=journal"), testing::Values(64U, 256U)),
                         [](const auto& of) {
                             return fmt::format("{}_{}M", std::get<0>(of.param) + 5, std::get<1>(of.param));
                         });
INSTANTIATE_TEST_SUITE_P(Modes, SmallCache, testing::Values("data=ordered", "data=journal"),
                         [](const auto& mode) { return std::string(mode.param).substr(5); });

}  // namespace
}  // namespace uext4::problems
