// Caches that grow with what the machine has, and give back; with a source of memory that the test sets.
#include "pagecache/cache_memory_limit.h"

#include "pagecache/file_cache.h"
#include "pagecache/memory_chunk.h"
#include "pagecache/page_cache.h"

#include <gtest/gtest.h>

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <memory>
#include <optional>
#include <vector>

namespace uext4 {
namespace {

constexpr std::uint32_t size = 65536;
constexpr std::uint64_t mib = std::uint64_t{1} << 20, most = 32 * mib;

constexpr std::int64_t unknown = -1;

// What it has for the caches and for what is not used yet.
struct Machine {
    std::atomic<std::int64_t> memory;
    std::atomic<int> asked = 0;
};

class FakeMemory : public MemoryInfo {
public:
    explicit FakeMemory(Machine& machine) : machine_(machine) {}
    void set_user(const CacheMemoryLimit& budget) { budget_ = &budget; }
    std::optional<std::uint64_t> available() override {
        ++machine_.asked;
        const std::int64_t memory = machine_.memory;
        if (memory == unknown) return std::nullopt;
        return std::max<std::int64_t>(0, memory - static_cast<std::int64_t>(budget_->total()));
    }

private:
    Machine& machine_;
    const CacheMemoryLimit* budget_ = nullptr;
};

std::unique_ptr<CacheMemoryLimit> budget_of(Machine& machine, bool watches) {
    auto memory = std::make_unique<FakeMemory>(machine);
    FakeMemory& of_all = *memory;
    auto budget = std::make_unique<CacheMemoryLimit>(std::move(memory), watches);
    of_all.set_user(*budget);
    return budget;
}

std::uint64_t resident_bytes() {
    std::uint64_t all = 0, resident = 0;
    std::ifstream("/proc/self/statm") >> all >> resident;
    return resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

// A cache with one file.
struct Mount {
    explicit Mount(CacheMemoryLimit& budget) { cache.join_memory_limit(budget); }
    ~Mount() { cache.leave_memory_limit(); }
    void fill(std::uint64_t bytes) {
        for (const std::uint64_t end = next + bytes / size; next < end; ++next) {
            if (cache.needs_reclaim()) cache.reclaim();
            Result<LockedFolio> folio = file.lock(next, true);
            ASSERT_TRUE(folio && *folio);
            (*folio)->data[0] = std::byte{1};
        }
    }
    PageCache cache{most, size, 4096};
    FileCache file{cache, 1};
    std::uint64_t next = 0;
};

class Budget : public testing::Test {
protected:
    Machine machine{800 * mib};
    std::unique_ptr<CacheMemoryLimit> made = budget_of(machine, false);
    CacheMemoryLimit& budget = *made;
};

TEST_F(Budget, IsAQuarterOfWhatIsAvailable) {
    Mount one(budget);
    ASSERT_NO_FATAL_FAILURE(one.fill(400 * mib));
    EXPECT_LE(one.cache.used_bytes(), 200 * mib + size);
    EXPECT_GE(one.cache.used_bytes(), 170 * mib) << "all that it may have is used";
    EXPECT_EQ(one.cache.dirty_limit(), most / 4) << "what is dirty goes by what the cache was made with";
    EXPECT_LE(machine.asked, 120) << "not for each folio";
}

TEST_F(Budget, TakesNothingAndAsksNothingBeforeItIsUsed) {
    const std::uint64_t before = resident_bytes();
    Mount one(budget);
    ASSERT_NO_FATAL_FAILURE(one.fill(mib));
    EXPECT_EQ(machine.asked, 0);
    EXPECT_LE(resident_bytes(), before + 4 * mib);
}

TEST_F(Budget, GivesBackWhatTheMachineNeeds) {
    Mount one(budget);
    ASSERT_NO_FATAL_FAILURE(one.fill(180 * mib));
    ASSERT_GE(one.cache.used_bytes(), 170 * mib);
    const std::uint64_t before = resident_bytes();
    machine.memory = 220 * mib;  // others have taken the rest
    budget.recheck();
    EXPECT_LE(one.cache.used_bytes(), 56 * mib);
    one.cache.release_idle_memory();
    EXPECT_LE(resident_bytes(), before - 90 * mib);
    // Never less than what may be dirty.
    machine.memory = 0;
    for (int i = 0; i < 8; ++i) budget.recheck();
    EXPECT_EQ(one.cache.limit(), most / 4);
    machine.memory = 4000 * mib;
    budget.recheck();
    EXPECT_GE(one.cache.limit(), 1000 * mib);
}

// What nobody uses goes by halves, so that a file that is written anew finds most of its memory; and it can be used
// again.
TEST_F(Budget, GivesBackIdleMemoryByHalves) {
    Mount one(budget);
    ASSERT_NO_FATAL_FAILURE(one.fill(160 * mib));
    for (std::uint64_t i = 0; i < one.next; ++i) {
        Result<LockedFolio> folio = one.file.lock(i, false);
        ASSERT_TRUE(folio && *folio);
        std::ranges::fill(folio->bytes(), std::byte{1});
    }
    const std::uint64_t before = resident_bytes();
    one.file.remove(0, ~std::uint64_t{0});
    EXPECT_GE(resident_bytes(), before - 8 * mib);
    one.cache.release_idle_memory();
    EXPECT_NEAR(static_cast<double>(before - resident_bytes()), 80.0 * mib, 8.0 * mib);
    for (int i = 0; i < 8; ++i) one.cache.release_idle_memory();
    EXPECT_GE(before - resident_bytes(), 144 * mib) << "a quarter of what the cache was made with stays";
    ASSERT_NO_FATAL_FAILURE(one.fill(160 * mib));
    EXPECT_EQ(one.cache.used_bytes(), 160 * mib);
}

// Memory that comes and goes a little does not throw out what is cached.
TEST_F(Budget, IsNotMovedByALittle) {
    Mount one(budget);
    ASSERT_NO_FATAL_FAILURE(one.fill(180 * mib));
    budget.recheck();
    const std::uint64_t before = budget.limit();
    machine.memory -= 80 * mib;
    budget.recheck();
    EXPECT_EQ(budget.limit(), before);
}

TEST_F(Budget, IsSharedByAllMounts) {
    Mount one(budget);
    ASSERT_NO_FATAL_FAILURE(one.fill(300 * mib));
    {
        Mount other(budget);
        ASSERT_NO_FATAL_FAILURE(other.fill(300 * mib));
        EXPECT_LE(one.cache.used_bytes() + other.cache.used_bytes(), 208 * mib);
        EXPECT_GE(one.cache.used_bytes(), 80 * mib) << "each has its part";
        EXPECT_GE(other.cache.used_bytes(), 80 * mib);
        // A mount that uses little leaves the rest.
        other.file.remove(0, ~std::uint64_t{0});
        ASSERT_NO_FATAL_FAILURE(one.fill(300 * mib));
        EXPECT_GE(one.cache.used_bytes(), 150 * mib);
    }
    EXPECT_EQ(budget.total(), one.cache.used_bytes()) << "what a mount had is nobody's when it has gone";
}

TEST_F(Budget, IsTheUsualSizeWhereNothingIsKnown) {
    machine.memory = unknown;
    Mount one(budget);
    ASSERT_NO_FATAL_FAILURE(one.fill(300 * mib));
    EXPECT_LE(one.cache.used_bytes(), CacheMemoryLimit::default_limit + size);
    EXPECT_GE(one.cache.used_bytes(), CacheMemoryLimit::default_limit - 16 * mib);
}

// The thread that watches gives back what nobody uses, and ends with the last cache.
TEST(WatchedBudget, GivesBackByItself) {
    Machine machine{2000 * mib};
    const std::unique_ptr<CacheMemoryLimit> made = budget_of(machine, true);
    CacheMemoryLimit& budget = *made;
    {
        Mount one(budget);
        ASSERT_NO_FATAL_FAILURE(one.fill(200 * mib));
        EXPECT_GE(one.cache.used_bytes(), 190 * mib);
        machine.memory = 0;
        while (one.cache.used_bytes() > 60 * mib) this_thread::sleep(std::chrono::milliseconds(20));
    }
    EXPECT_EQ(budget.total(), 0U);
}

// While a cache grows the thread has chunks with pages ready for it; when no cache grows any more they go.
TEST(WatchedBudget, PreparesChunksWhileCachesGrow) {
    Machine machine{2000 * mib};
    const std::unique_ptr<CacheMemoryLimit> made = budget_of(machine, true);
    CacheMemoryLimit& budget = *made;
    EXPECT_EQ(budget.take_populated_chunk(), nullptr);  // no thread prepares any yet
    {
        Mount one(budget);
        ASSERT_NO_FATAL_FAILURE(one.fill(100 * mib));
        while (budget.populated_chunks() == 0) this_thread::sleep(std::chrono::milliseconds(1));
        std::byte* const chunk = budget.take_populated_chunk();
        ASSERT_NE(chunk, nullptr);
        std::vector<unsigned char> pages(memory_chunk_bytes / 4096);
        ASSERT_EQ(::mincore(chunk, memory_chunk_bytes, pages.data()), 0);
        EXPECT_EQ(std::ranges::count_if(pages, [](unsigned char page) { return (page & 1) == 0; }), 0);
        unmap_memory_chunk(chunk);
        ASSERT_NO_FATAL_FAILURE(one.fill(20 * mib));
        while (budget.populated_chunks() != 0) this_thread::sleep(std::chrono::milliseconds(20));
    }
    EXPECT_EQ(budget.populated_chunks(), 0U);
}

// What is prepared counts: it does not go above what all caches may have.
TEST(WatchedBudget, PreparesNothingAboveItsLimit) {
    Machine machine{400 * mib};
    const std::unique_ptr<CacheMemoryLimit> made = budget_of(machine, true);
    CacheMemoryLimit& budget = *made;
    Mount one(budget);
    ASSERT_NO_FATAL_FAILURE(one.fill(99 * mib));
    for (int round = 0; round < 20; ++round) {
        EXPECT_LE(budget.total() + budget.populated_chunks() * memory_chunk_bytes, budget.limit() + memory_chunk_bytes);
        this_thread::sleep(std::chrono::milliseconds(5));
    }
}

}  // namespace
}  // namespace uext4
