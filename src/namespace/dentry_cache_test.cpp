// The table of names, and that no operation leaves a name in it that the directory has no more.
#include "namespace/dentry_cache.h"

#include "namespace/directory.h"
#include "tests/fixtures/namespace_fs.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <linux/fs.h>

#include <atomic>
#include <string>
#include <thread>

namespace uext4 {
namespace {

constexpr InodeNr dir(12), other(13);

TEST(NameCache, KnowsWhatWasNotedUntilItIsForgotten) {
    DentryCache names(1024);
    EXPECT_EQ(names.find(dir, "a"), std::nullopt);
    names.erase(dir, "a");
    names.insert(dir, "a", InodeNr(20));
    names.insert(dir, "none", InodeNr());
    EXPECT_EQ(names.find(dir, "a"), InodeNr(20));
    EXPECT_EQ(names.find(dir, "none"), InodeNr()) << "that there is none is known as well";
    EXPECT_EQ(names.find(other, "a"), std::nullopt);
    EXPECT_EQ(names.find(dir, "aa"), std::nullopt);
    names.erase(other, "a");
    EXPECT_EQ(names.find(dir, "a"), InodeNr(20));
    names.erase(dir, "a");
    EXPECT_EQ(names.find(dir, "a"), std::nullopt);
    EXPECT_EQ(names.find(dir, "none"), InodeNr());
}

TEST(NameCache, KeepsNamesThatFitAndNoOthers) {
    DentryCache names(1024);
    const std::string fits(DentryCache::max_name, 'x'), longer(DentryCache::max_name + 1, 'x');
    for (const std::string& name :
         {fits, longer, std::string("."), std::string(".."), std::string(), std::string("a\0", 2)})
        names.insert(dir, name, InodeNr(20));
    EXPECT_EQ(names.find(dir, fits), InodeNr(20));
    EXPECT_EQ(names.find(dir, longer), std::nullopt);
    EXPECT_EQ(names.find(dir, "."), std::nullopt);
    EXPECT_EQ(names.find(dir, ".."), std::nullopt);
    EXPECT_EQ(names.find(dir, "a"), std::nullopt);
}

TEST(NameCache, IsNeverWrongWhenNamesTakeEachOthersPlaces) {
    DentryCache names(4);
    for (std::uint64_t i = 1; i <= 1000; ++i) {
        names.insert(dir, "name" + std::to_string(i), InodeNr(i));
        for (std::uint64_t j = 1; j <= i; ++j)
            if (const auto found = names.find(dir, "name" + std::to_string(j))) ASSERT_EQ(found->value, j);
    }
    std::size_t kept = 0;
    for (std::uint64_t j = 1; j <= 1000; ++j) kept += names.find(dir, "name" + std::to_string(j)).has_value();
    EXPECT_LE(kept, 4U);
    EXPECT_GE(kept, 1U);
    for (std::uint64_t j = 1; j <= 1000; ++j) names.erase(dir, "name" + std::to_string(j));
    for (std::uint64_t j = 1; j <= 1000; ++j) EXPECT_EQ(names.find(dir, "name" + std::to_string(j)), std::nullopt);
}

// Names that differ in a few bytes only do not drive each other out.
TEST(NameCache, KeepsNearlyAllOfAThirdOfItsPlaces) {
    constexpr std::uint64_t places = 32768, count = places / 3;
    for (const char* form : {"name{}", "a-long-prefix-of-the-name-{}", "{}.c", "IMG_{:06}.jpeg", "{:032x}"}) {
        DentryCache names(places);
        for (std::uint64_t i = 0; i < count; ++i)
            names.insert(InodeNr(12 + i % 3), fmt::format(fmt::runtime(form), i), InodeNr(20 + i));
        std::uint64_t kept = 0;
        for (std::uint64_t i = 0; i < count; ++i)
            kept += names.find(InodeNr(12 + i % 3), fmt::format(fmt::runtime(form), i)).has_value();
        EXPECT_GE(kept, count * 97 / 100) << form;
    }
}

// Each thread has a directory of its own, and all have the same four places.
TEST(NameCache, IsNeverWrongAmongThreads) {
    DentryCache names(4);
    std::atomic<int> wrong = 0;
    const auto work = [&](InodeNr mine) {
        for (std::uint64_t i = 1; i <= 20000; ++i) {
            const std::string name = "n" + std::to_string(i % 7);
            names.insert(mine, name, InodeNr(i));
            if (const auto found = names.find(mine, name); found && *found != InodeNr(i)) ++wrong;
            names.erase(mine, name);
            if (names.find(mine, name)) ++wrong;
        }
    };
    std::thread one(work, dir), two(work, other);
    one.join();
    two.join();
    EXPECT_EQ(wrong, 0);
}

// Every operation on names, with what it changes looked up before: what is found after it is what the directory says.
TEST(NamesThatAreKnown, FollowEveryOperation) {
    TestFs fs("-b 1024 -O dir_index,extents");
    InodeRef one = fs.make_directory(fs.root(), "one"), two = fs.make_directory(fs.root(), "two");
    const auto number_of = [&](const InodeRef& directory, std::string_view name) {
        const Result<InodeRef> found = fs.names().find(*directory, name, nullptr);
        EXPECT_TRUE(found) << found.error().what;
        const auto stored = Directory(*directory).find(name);
        const std::uint64_t known = found && *found ? (*found)->number().value : 0;
        EXPECT_EQ(known, stored && *stored ? (*stored)->inode.value : 0) << name;
        return known;
    };
    const auto rename = [&](std::string_view from, const InodeRef& to_dir, std::string_view to, unsigned flags) {
        const Result<void> done =
            fs.names().rename(*one, from, *to_dir, to, flags, fs.who(), true, [](Inode&) { return Result<void>(); });
        EXPECT_TRUE(done) << done.error().what;
    };
    EXPECT_EQ(number_of(one, "a"), 0U);
    const std::uint64_t a = value_of(fs.make_file(*one, "a"))->number().value;
    EXPECT_EQ(number_of(one, "a"), a);
    EXPECT_EQ(number_of(two, "linked"), 0U);
    ASSERT_TRUE(fs.names().link(*value_of(fs.names().lookup(*one, "a", nullptr)), *two, "linked", fs.who(), true));
    EXPECT_EQ(number_of(two, "linked"), a);

    EXPECT_EQ(number_of(one, "b"), 0U);
    rename("a", one, "b", 0);
    EXPECT_EQ(number_of(one, "a"), 0U);
    EXPECT_EQ(number_of(one, "b"), a);
    const std::uint64_t c = value_of(fs.make_file(*two, "c"))->number().value;
    EXPECT_EQ(number_of(two, "c"), c);
    rename("b", two, "c", RENAME_EXCHANGE);
    EXPECT_EQ(number_of(one, "b"), c);
    EXPECT_EQ(number_of(two, "c"), a);
    EXPECT_EQ(number_of(two, "d"), 0U);
    rename("b", two, "d", RENAME_WHITEOUT);
    EXPECT_NE(number_of(one, "b"), c);
    EXPECT_EQ(number_of(two, "d"), c);
    rename("b", two, "d", 0);
    EXPECT_EQ(number_of(one, "b"), 0U);
    EXPECT_NE(number_of(two, "d"), c);

    ASSERT_TRUE(fs.names().unlink(*two, "linked", fs.who(), true));
    EXPECT_EQ(number_of(two, "linked"), 0U);
    const std::uint64_t sub = fs.make_directory(two, "sub")->number().value;
    EXPECT_EQ(number_of(two, "sub"), sub);
    ASSERT_TRUE(fs.names().rmdir(*two, "sub", fs.who(), true));
    EXPECT_EQ(number_of(two, "sub"), 0U);
    const std::uint64_t again = value_of(fs.make_file(*two, "sub"))->number().value;
    EXPECT_EQ(number_of(two, "sub"), again);
}

}  // namespace
}  // namespace uext4
