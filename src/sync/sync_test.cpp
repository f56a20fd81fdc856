#include "sync/condition.h"
#include "sync/mutex.h"
#include "sync/rank.h"
#include "sync/thread.h"

#include <gtest/gtest.h>

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <memory>
#include <vector>

namespace uext4 {
namespace {

using namespace std::chrono_literals;

TEST(Rank, EveryRankHasANameAndANote) {
    for (std::size_t i = 0; i < rank_count; ++i) {
        EXPECT_STRNE(rank_name(static_cast<Rank>(i)), "?");
        EXPECT_STRNE(rank_note(static_cast<Rank>(i)), "");
    }
    EXPECT_STREQ(rank_name(Rank::Leaf), "Leaf");
    EXPECT_STREQ(rank_name(Rank::Map), "Map");
    EXPECT_STREQ(rank_name(static_cast<Rank>(200)), "?");
}

#if UEXT4_CHECKS

TEST(Rank, HeldLocksAreListedWithTheirPlace) {
    Mutex group(Rank::Group, "group", 3);
    SharedMutex rw(Rank::Inode, "rw", 12);
    ReadLock outer(rw);
    {
        MutexLock inner(group);
        const auto held = held_ranks();
        ASSERT_EQ(held.size(), 2u);
        EXPECT_EQ(held[0].rank, Rank::Inode);
        EXPECT_TRUE(held[0].shared);
        EXPECT_EQ(held[0].order, 12u);
        EXPECT_EQ(held[1].rank, Rank::Group);
        EXPECT_EQ(held[1].address, &group);
        EXPECT_NE(held_ranks_text().find("sync_test.cpp"), std::string::npos);
        EXPECT_TRUE(holds_rank(Rank::Group));
    }
    EXPECT_FALSE(holds_rank(Rank::Group));
    EXPECT_EQ(held_ranks().size(), 1u);
    assert_nothing_held_at_or_below(Rank::Folio);
}

TEST(Rank, LocksAreGivenUpInAnyOrder) {
    Mutex a(Rank::Map, "a"), b(Rank::Journal, "b");
    UniqueLock first(a), second(b);
    first.reset();
    EXPECT_EQ(held_ranks().size(), 1u);
    second.reset();
    EXPECT_TRUE(held_ranks().empty());
}

TEST(Rank, ManyAreHeldAtOnce) {
    std::vector<std::unique_ptr<Mutex>> mutexes;
    for (std::uint64_t i = 0; i < 60; ++i) mutexes.push_back(std::make_unique<Mutex>(Rank::Folio, "folio", i));
    for (int round = 0; round < 2; ++round) {
        std::vector<UniqueLock> held;
        for (auto& mutex : mutexes) held.emplace_back(*mutex);
        // Every other one first, then what is left, from the front.
        for (std::size_t i = 0; i < held.size(); i += 2) held[i].reset();
        const auto left = held_ranks();
        ASSERT_EQ(left.size(), 30u);
        for (std::size_t i = 0; i < left.size(); ++i) {
            EXPECT_EQ(left[i].address, mutexes[2 * i + 1].get());
            EXPECT_EQ(left[i].order, 2 * i + 1);
        }
        held.clear();
        EXPECT_TRUE(held_ranks().empty());
    }
}

TEST(Rank, AscendingKeysOfOneRank) {
    Mutex a(Rank::Group, "a", 1), b(Rank::Group, "b", 2);
    MutexLock first(a), second(b);
    EXPECT_EQ(held_ranks().size(), 2u);
}

TEST(Rank, AKeyPerAcquisition) {
    SharedMutex child(Rank::Inode, "child", 5), parent(Rank::Inode, "parent", 90);
    auto first = UniqueWriteLock::lock_ordered(parent, 0);
    auto second = UniqueWriteLock::lock_ordered(child, 1);
    EXPECT_TRUE(first.owns() && second.owns());
}

TEST(Rank, AWaitKeepsTheKeyOfTheAcquisition) {
    Mutex mutex(Rank::Inode, "m", 7);
    CondVar condition;
    mutex.lock_ordered(3);
    condition.wait_for(mutex, 1ms);
    const auto held = held_ranks();
    mutex.unlock();
    ASSERT_EQ(held.size(), 1u);
    EXPECT_EQ(held[0].order, 3u);
}

TEST(Rank, TriedLocksMayBeOuter) {
    Mutex inner(Rank::Leaf, "inner"), outer(Rank::Folio, "outer");
    MutexLock hold(inner);
    EXPECT_TRUE(UniqueLock::try_lock(outer).owns());
}

using RankDeathTest = testing::Test;

TEST(RankDeathTest, OuterAfterInnerAborts) {
    testing::FLAGS_gtest_death_test_style = "threadsafe";
    Mutex inner(Rank::Map, "the map"), outer(Rank::Inode, "the inode");
    EXPECT_DEATH(
        {
            MutexLock first(inner);
            MutexLock second(outer);
        },
        "wanted Inode \"the inode\".*sync_test.cpp(.|\n)*outer to what is held(.|\n)*Map \"the map\".*sync_test.cpp");
}

TEST(RankDeathTest, SameRankWithoutAscendingKeyAborts) {
    testing::FLAGS_gtest_death_test_style = "threadsafe";
    Mutex a(Rank::Group, "a", 1), b(Rank::Group, "b", 2), c(Rank::Leaf, "c"), d(Rank::Leaf, "d");
    EXPECT_DEATH(
        {
            MutexLock first(b);
            MutexLock second(a);
        },
        "without an ascending order key");
    EXPECT_DEATH(
        {
            MutexLock first(c);
            MutexLock second(d);
        },
        "without an ascending order key");
}

TEST(RankDeathTest, TwiceTheSameAborts) {
    testing::FLAGS_gtest_death_test_style = "threadsafe";
    SharedMutex a(Rank::Inode, "a", 1);
    EXPECT_DEATH(
        {
            UniqueReadLock first(a);
            UniqueReadLock second(a);
        },
        "already held");
}

TEST(RankDeathTest, TheInnermostCountsNotTheLatest) {
    testing::FLAGS_gtest_death_test_style = "threadsafe";
    Mutex leaf(Rank::Leaf, "leaf"), folio(Rank::Folio, "folio"), map(Rank::Map, "map");
    EXPECT_DEATH(
        {
            MutexLock first(leaf);
            UniqueLock second = UniqueLock::try_lock(folio);
            UniqueLock third(map);
        },
        "outer to what is held");
}

TEST(RankDeathTest, PseudoLocksAreChecked) {
    testing::FLAGS_gtest_death_test_style = "threadsafe";
    EXPECT_DEATH(
        {
            RankGuard handle(Rank::Transaction);
            RankGuard user(Rank::UserMemory);
        },
        "UserMemory");
}

TEST(RankDeathTest, WaitingWhileAQueueIsHeldAborts) {
    testing::FLAGS_gtest_death_test_style = "threadsafe";
    Mutex queue(Rank::Journal, "queue"), leaf(Rank::Leaf, "leaf");
    CondVar condition;
    EXPECT_DEATH(
        {
            MutexLock first(queue);
            MutexLock second(leaf);
            condition.wait_for(leaf, 1ms);
        },
        "while this is held");
}

TEST(RankDeathTest, AssertionsOfHolding) {
    testing::FLAGS_gtest_death_test_style = "threadsafe";
    SharedMutex rw(Rank::Inode, "rw");
    rw.lock_shared();
    rw.assert_held_shared();
    EXPECT_DEATH(rw.assert_held(), "not held exclusively");
    rw.unlock_shared();
    EXPECT_DEATH(rw.assert_held_shared(), "not held");
    RankGuard buffer(Rank::Buffer);
    assert_nothing_held_at_or_below(Rank::Journal);
    EXPECT_DEATH(assert_nothing_held_at_or_below(Rank::Buffer), "nothing of rank Buffer");
}

#endif  // UEXT4_CHECKS

TEST(Mutex, ExcludesAndTries) {
    Mutex mutex(Rank::Leaf, "counter");
    long counter = 0;
    {
        std::vector<Thread> threads;
        for (int i = 0; i < 4; ++i)
            threads.emplace_back("adder", [&] {
                for (int n = 0; n < 10000; ++n) {
                    MutexLock guard(mutex);
                    ++counter;
                }
            });
    }
    EXPECT_EQ(counter, 40000);
    MutexLock guard(mutex);
    Thread other("other", [&] {
        const bool got = mutex.try_lock();
        EXPECT_FALSE(got);
        if (got) mutex.unlock();
    });
}

TEST(Mutex, MovableLocksCarryTheDuty) {
    Mutex mutex(Rank::Leaf, "m");
    UniqueLock a(mutex);
    UniqueLock b(std::move(a));
    EXPECT_FALSE(a.owns());  // NOLINT(bugprone-use-after-move): what is left of it is what is asked
    EXPECT_TRUE(b.owns());
    EXPECT_FALSE(UniqueLock::try_lock(mutex).owns());
    b = UniqueLock();
    EXPECT_TRUE(UniqueLock::try_lock(mutex).owns());
}

TEST(SharedMutex, ReadersShareWritersDoNot) {
    SharedMutex rw(Rank::Inode, "rw");
    ReadLock mine(rw);
    Thread other("other", [&] {
        const bool shared = rw.try_lock_shared();
        EXPECT_TRUE(shared);
        if (shared) rw.unlock_shared();
        const bool exclusive = rw.try_lock();
        EXPECT_FALSE(exclusive);
        if (exclusive) rw.unlock();
    });
}

TEST(SharedMutex, AStreamOfReadersDoesNotStarveAWriter) {
    SharedMutex rw(Rank::Inode, "rw");
    std::atomic<bool> stop{false};
    std::atomic<int> reading{0};
    std::vector<Thread> readers;
    for (int i = 0; i < 3; ++i)
        readers.emplace_back("reader", [&] {
            while (!stop.load()) {
                ReadLock guard(rw);
                ++reading;
                this_thread::sleep(200us);
            }
        });
    while (reading.load() < 10) this_thread::yield();
    int written = 0;
    for (; written < 20; ++written) WriteLock guard(rw);
    stop.store(true);
    EXPECT_EQ(written, 20);
}

TEST(CondVar, ProducerAndConsumer) {
    Mutex mutex(Rank::Leaf, "queue");
    CondVar filled("filled"), drained("drained");
    int value = 0, sum = 0;
    {
        Thread consumer("consumer", [&] {
            for (int i = 1; i <= 1000; ++i) {
                MutexLock guard(mutex);
                filled.wait(mutex, [&] { return value != 0; });
                sum += std::exchange(value, 0);
                drained.notify_one();
            }
        });
        for (int i = 1; i <= 1000; ++i) {
            MutexLock guard(mutex);
            drained.wait(mutex, [&] { return value == 0; });
            value = i;
            filled.notify_all();
        }
    }
    EXPECT_EQ(sum, 500500);
}

TEST(CondVar, TimedWaits) {
    Mutex mutex(Rank::Leaf, "m");
    CondVar condition;
    MutexLock guard(mutex);
    const auto start = monotonic_now();
    EXPECT_FALSE(condition.wait_for(mutex, 20ms, [] { return false; }));
    EXPECT_GE(monotonic_now() - start, 20ms);
    EXPECT_TRUE(condition.wait_for(mutex, 20ms, [] { return true; }));
    EXPECT_FALSE(condition.wait_for(mutex, -5ms));
}

TEST(Thread, HasANameAndNoSignals) {
    std::string seen;
    sigset_t mask;
    sigemptyset(&mask);
    char native[16] = "";
    Thread thread("a rather long thread name", [&] {
        seen = this_thread::name();
        pthread_getname_np(pthread_self(), native, sizeof native);
        pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    });
    EXPECT_TRUE(thread.joinable());
    thread.join();
    EXPECT_FALSE(thread.joinable());
    thread.join();
    EXPECT_EQ(seen, "a rather long thread name");
    EXPECT_TRUE(sigismember(&mask, SIGINT));
    EXPECT_TRUE(sigismember(&mask, SIGALRM));
    EXPECT_FALSE(sigismember(&mask, SIGSEGV));
    sigset_t here;
    pthread_sigmask(SIG_SETMASK, nullptr, &here);
    EXPECT_FALSE(sigismember(&here, SIGALRM));
    EXPECT_STREQ(this_thread::name(), "main");
}

TEST(Thread, StartReportsInsteadOfThrowing) {
    std::atomic<int> ran{0};
    auto thread = Thread::start("t", [&] { ran += 1; });
    ASSERT_TRUE(thread.has_value());
    *thread = Thread("u", [&] { ran += 2; });  // the first is joined
    thread->join();
    EXPECT_EQ(ran.load(), 3);
}

}  // namespace
}  // namespace uext4
