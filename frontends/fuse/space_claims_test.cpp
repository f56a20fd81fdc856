#include "fuse/space_claims.h"

#include <gtest/gtest.h>

#include <chrono>
#include <future>

namespace uext4::fuse {
namespace {

TEST(SpaceClaims, OfWhichOneFollowsTheOtherHoldUpNobodyForGood) {
    SpaceClaims claims;
    std::uint64_t newest = claims.make();
    std::promise<void> about_to_wait;
    std::future<void> waiter = std::async(std::launch::async, [&] {
        about_to_wait.set_value();
        claims.wait_for_those_made();
    });
    about_to_wait.get_future().wait();
    // Each is made before the one before it is dropped.
    bool ended = false;
    for (int n = 0; n < 1000 && !ended; ++n) {
        const std::uint64_t next = claims.make();
        claims.drop(newest);
        newest = next;
        EXPECT_TRUE(claims.any());
        ended = waiter.wait_for(std::chrono::milliseconds(10)) == std::future_status::ready;
    }
    EXPECT_TRUE(ended);
    claims.drop(newest);
    EXPECT_FALSE(claims.any());
}

TEST(SpaceClaims, ThatWereMadeBeforeAreWaitedForInAnyOrder) {
    SpaceClaims claims;
    const std::uint64_t first = claims.make(), second = claims.make();
    std::atomic<bool> dropped = false;
    std::future<bool> waiter = std::async(std::launch::async, [&] {
        claims.wait_for_those_made();
        return dropped.load();
    });
    claims.drop(second);
    EXPECT_EQ(waiter.wait_for(std::chrono::milliseconds(20)), std::future_status::timeout);
    dropped = true;
    claims.drop(first);
    EXPECT_TRUE(waiter.get());
    claims.wait_for_those_made();
}

}  // namespace
}  // namespace uext4::fuse
