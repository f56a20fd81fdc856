// What a private map shows: the file's bytes, and its own where something was stored.
#include "tests/exercise/private_pages.h"

#include "tests/exercise/filled.h"

#include <gtest/gtest.h>

namespace uext4::exercise {
namespace {

constexpr std::size_t page = 4096;
std::vector<std::byte> shown(const PrivatePages& own, std::size_t at, std::vector<std::byte> file, Bytes got) {
    own.cover(at, file, got);
    return file;
}

TEST(PrivatePages, KeepTheirBytesWhenTheFileChanges) {
    PrivatePages own;
    const auto before = filled(4 * page, 1), after = filled(4 * page, 2);
    own.store(page + 10, filled(5, 9), page, before);
    auto wanted = filled(3 * page, 2);
    std::fill(wanted.begin() + page, wanted.begin() + 2 * page, std::byte{1});
    std::fill(wanted.begin() + page + 10, wanted.begin() + page + 15, std::byte{9});
    EXPECT_EQ(shown(own, 0, filled(3 * page, 2), after), wanted);
    EXPECT_EQ(shown(own, page + 12, filled(3, 2), after), filled(3, 9));
    EXPECT_EQ(shown(own, page + 15, filled(3, 2), after), filled(3, 1));
}

TEST(PrivatePages, GoWhenTheFileEndsBeforeThem) {
    PrivatePages own;
    const auto file = filled(3 * page, 1);
    own.store(page - 1, filled(2, 9), 0, file);
    own.cut(page / 2);
    EXPECT_EQ(shown(own, page - 1, filled(2, 2), file).front(), std::byte{9});
    EXPECT_EQ(shown(own, page - 1, filled(2, 2), file).back(), std::byte{2});
    own.cut(0);
    EXPECT_EQ(shown(own, page - 1, filled(2, 2), file), filled(2, 2));
}

TEST(PrivatePages, HaveUnknownBytesBehindTheEndTheyWereCopiedAt) {
    PrivatePages own;
    own.store(10, filled(5, 9), 0, filled(100, 1));
    auto wanted = filled(page, 7);
    std::fill(wanted.begin(), wanted.begin() + 100, std::byte{1});
    std::fill(wanted.begin() + 10, wanted.begin() + 15, std::byte{9});
    EXPECT_EQ(shown(own, 0, filled(page, 2), filled(page, 7)), wanted);
}

}  // namespace
}  // namespace uext4::exercise
