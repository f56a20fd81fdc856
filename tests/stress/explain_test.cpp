// The checker of contested names itself: what it must accept, and what it must not.
#include "tests/stress/contested.h"

#include <gtest/gtest.h>

#include <linux/fs.h>
#include <cerrno>

namespace {

using namespace uext4::stress;

constexpr Place a{0, 0, -1}, b{1, 1, -1}, a_x{0, 0, 0};

Operation operation(std::uint64_t began, std::uint64_t returned, Act act, Place at, int result = 0, Place to = {}) {
    Operation one;
    one.began = began;
    one.returned = returned;
    one.act = act;
    one.at = at;
    one.to = to;
    one.result = result;
    return one;
}

Operation device(std::uint64_t began, std::uint64_t returned, Place at, std::uint32_t id, int result = 0) {
    Operation one = operation(began, returned, Act::make_device, at, result);
    one.object = id;
    return one;
}

Operation seen(std::uint64_t began, std::uint64_t returned, Place at, Kind kind, std::uint32_t id) {
    Operation one = operation(began, returned, Act::look, at);
    one.kind = kind;
    one.found = id;
    return one;
}

TEST(Explain, AcceptsOneAfterTheOther) {
    const Verdict verdict = explain({operation(1, 2, Act::make_directory, a), device(3, 4, a_x, 7),
                                     operation(5, 6, Act::rmdir, a, -ENOTEMPTY), operation(7, 8, Act::rename, a, 0, b),
                                     seen(9, 10, {1, 1, 0}, Kind::device, 7)});
    EXPECT_EQ(verdict.problem, "");
    ASSERT_EQ(verdict.ends.size(), 1u);
    EXPECT_EQ(verdict.ends[0].entries.at(1).entries.at(1).entries.at(0).object, 7u);
}

TEST(Explain, AcceptsEitherOrderOfWhatOverlaps) {
    EXPECT_EQ(explain({device(1, 9, a, 7), operation(2, 8, Act::unlink, a)}).problem, "");
    EXPECT_EQ(explain({device(1, 9, a, 7), operation(2, 8, Act::unlink, a, -ENOENT)}).problem, "");
    EXPECT_EQ(explain({device(1, 9, a, 7), operation(2, 8, Act::unlink, a)}).ends[0].entries[0].entries.size(), 0u);
}

TEST(Explain, RefusesANameMadeTwice) {
    EXPECT_NE(explain({device(1, 9, a, 7), device(2, 8, a, 8)}).problem, "");
    EXPECT_EQ(explain({device(1, 9, a, 7), device(2, 8, a, 8, -EEXIST)}).problem, "");
}

TEST(Explain, RefusesANameRemovedTwice) {
    EXPECT_NE(explain({device(1, 2, a, 7), operation(3, 9, Act::unlink, a), operation(4, 8, Act::unlink, a)}).problem,
              "");
}

TEST(Explain, RefusesALostName) {
    EXPECT_NE(explain({device(1, 2, a, 7), operation(3, 4, Act::look, a, -ENOENT)}).problem, "");
    EXPECT_NE(explain({device(1, 2, a, 7), seen(3, 4, a, Kind::device, 8)}).problem, "");
}

TEST(Explain, RefusesANameThatAnExchangeLeavesNowhere) {
    Operation exchange = operation(5, 10, Act::rename, a, 0, b);
    exchange.flags = RENAME_EXCHANGE;
    const std::vector<Operation> start{device(1, 2, a, 7), device(3, 4, b, 8), exchange};
    auto with = [&](Operation one) {
        std::vector<Operation> all = start;
        all.push_back(one);
        return explain(all).problem;
    };
    EXPECT_EQ(with(seen(6, 7, a, Kind::device, 7)), "");
    EXPECT_EQ(with(seen(6, 7, a, Kind::device, 8)), "");
    EXPECT_NE(with(operation(6, 7, Act::look, a, -ENOENT)), "");
    EXPECT_NE(with(seen(11, 12, a, Kind::device, 7)), "");
}

TEST(Explain, ALinkMayBeMadeOfWhatWasFoundAndThenRemovedIfAnotherNameIsLeft) {
    // Found by the name a, which is removed before the new name is made; b keeps the object alive.
    const Place c{0, 2, -1};
    EXPECT_EQ(explain({device(1, 2, a, 7), operation(3, 4, Act::link, a, 0, b), operation(5, 10, Act::link, a, 0, c),
                       operation(6, 7, Act::unlink, a), operation(8, 9, Act::look, c, -ENOENT)})
                  .problem,
              "");
    EXPECT_NE(explain({device(1, 2, a, 7), operation(5, 10, Act::link, a, 0, c), operation(6, 7, Act::unlink, a),
                       operation(8, 9, Act::look, c, -ENOENT)})
                  .problem,
              "");
}

TEST(Explain, NothingIsMadeInADirectoryThatIsGone) {
    EXPECT_NE(explain({operation(1, 2, Act::make_directory, a), operation(3, 9, Act::rmdir, a), device(4, 8, a_x, 7)})
                  .problem,
              "");
    EXPECT_EQ(explain({operation(1, 2, Act::make_directory, a), operation(3, 9, Act::rmdir, a),
                       device(4, 8, a_x, 7, -ENOENT)})
                  .problem,
              "");
}

TEST(Explain, ADirectoryDoesNotGoBelowItself) {
    EXPECT_EQ(explain({operation(1, 2, Act::make_directory, a), operation(3, 4, Act::rename, a, -EINVAL, a_x)}).problem,
              "");
    EXPECT_NE(explain({operation(1, 2, Act::make_directory, a), operation(3, 4, Act::rename, a, 0, a_x)}).problem, "");
}

}  // namespace
