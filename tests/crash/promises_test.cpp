#include "tests/crash/promises.h"

#include "tests/crash/recorder.h"

#include <gtest/gtest.h>
#include <linux/falloc.h>
#include <sys/stat.h>

namespace uext4::crash {
namespace {

constexpr std::size_t sector = 512;

Tree tree_with(const std::string& contents) {
    Node top;
    top.inode = 2;
    top.mode = S_IFDIR | 0755;
    Node file;
    file.inode = 12;
    file.mode = S_IFREG | 0644;
    file.links = 1;
    file.contents = contents;
    return {{"", top}, {"/f", file}};
}

// A file that was written over, twice, and made longer; nothing was synced.
Recording written() {
    Recording r;
    r.format = "4k";
    r.mode = "ordered";
    r.trees = {tree_with(std::string(1000, 'a')), tree_with(std::string(1000, 'b')),
               tree_with(std::string(900, 'b') + std::string(300, 'c'))};
    for (std::size_t i = 0; i < r.trees.size(); ++i) r.files.push_back({{2, 0}, {12, 1}});
    for (int i = 0; i < 2; ++i) {
        Step step;
        step.operation.kind = Operation::Kind::Write;
        step.operation.path = "/f";
        step.begin = step.end = 0;
        step.done = true;
        r.steps.push_back(step);
    }
    return r;
}

std::string judged(const std::string& contents) { return broken_promise(written(), 1, 1, tree_with(contents)); }

TEST(Promises, ASectorIsOfOneState) {
    const std::string a(sector, 'a'), b(sector, 'b'), half_c = std::string(900 - sector, 'b') + std::string(124, 'c');
    EXPECT_EQ(judged(a + std::string(1000 - sector, 'a')), "");
    EXPECT_EQ(judged(a + std::string(1000 - sector, 'b')), "");
    EXPECT_EQ(judged(b + std::string(1000 - sector, 'a')), "");
    EXPECT_EQ(judged(a + half_c + std::string(1200 - 2 * sector, 'c')), "");
    EXPECT_NE(judged(std::string(100, 'a') + std::string(900, 'b')), "");
    EXPECT_NE(judged(b + std::string(100, 'a') + std::string(900 - sector - 100, 'b') + std::string(300, 'c')), "");
}

TEST(Promises, NoByteIsOfNoState) {
    EXPECT_NE(judged(std::string(1000, 'x')), "");
    EXPECT_NE(judged(std::string(1000, '\0')), "");
    EXPECT_NE(judged(std::string(900, 'b') + std::string(300, 'a')), "");
    EXPECT_NE(judged(std::string(1100, 'b')), "");
    EXPECT_NE(judged(""), "");
}

// What was to be synced had gone to the device before: the sync makes no request, and so begins where the log ends.
TEST(Promises, ASyncThatMakesNoRequest) {
    Recording r = written();
    r.trees.push_back(r.trees.back());
    r.files.push_back(r.files.back());
    Step sync;
    sync.operation.kind = Operation::Kind::Fsync;
    sync.operation.path = "/f";
    sync.begin = sync.end = 1;
    sync.done = true;
    r.steps.push_back(sync);
    EXPECT_EQ(broken_promise(r, 1, 1, r.trees.back()), "");
    EXPECT_NE(broken_promise(r, 1, 1, r.trees.front()), "");
}

// The file is changed in each step, at a time of its own; the last step is a sync of it.
Recording changed(Operation::Kind sync, int mode = 0) {
    Recording r = written();
    r.trees.push_back(r.trees.back());
    r.files.push_back(r.files.back());
    Step last = r.steps.back();
    last.operation.kind = sync;
    last.operation.mode = mode;
    last.begin = last.end = 1;
    r.steps.push_back(last);
    for (std::size_t i = 0; i < r.trees.size(); ++i) {
        Node& file = r.trees[i].at("/f");
        file.mtime = file.ctime = {.tv_sec = 1750000000 + static_cast<time_t>(i), .tv_nsec = 0};
    }
    return r;
}

std::string judged_with_times_of(const Recording& r, std::size_t modified, std::size_t changed) {
    Tree got = r.trees.back();
    got.at("/f").mtime = r.trees[modified].at("/f").mtime;
    got.at("/f").ctime = r.trees[changed].at("/f").ctime;
    return broken_promise(r, 1, 1, got);
}

TEST(Promises, ASyncOfMoreThanDataHasTheTimes) {
    for (const auto& [kind, mode] : {std::pair(Operation::Kind::Fsync, 0),
                                     {Operation::Kind::WriteSync, 0},
                                     {Operation::Kind::WriteSync, Operation::direct},
                                     {Operation::Kind::Msync, 0},
                                     {Operation::Kind::Sync, 0}}) {
        const Recording r = changed(kind, mode);
        EXPECT_EQ(judged_with_times_of(r, 3, 3), "");
        EXPECT_NE(judged_with_times_of(r, 2, 2), "") << describe(r.steps.back().operation);
        EXPECT_NE(judged_with_times_of(r, 0, 3), "") << describe(r.steps.back().operation);
    }
    for (const auto& [kind, mode] :
         {std::pair(Operation::Kind::Fdatasync, 0), {Operation::Kind::WriteSync, Operation::data_alone}}) {
        const Recording r = changed(kind, mode);
        for (std::size_t i = 0; i < r.trees.size(); ++i) EXPECT_EQ(judged_with_times_of(r, i, i), "");
    }
}

TEST(Promises, TimesAreOfOneState) {
    const Recording r = changed(Operation::Kind::Commit);
    for (std::size_t i = 0; i < 3; ++i)
        for (std::size_t j = 0; j < 3; ++j) EXPECT_EQ(judged_with_times_of(r, i, j).empty(), i == j) << i << " " << j;
}

TEST(Promises, TimesOfADirectoryAreThoseOfItsNames) {
    Recording r = changed(Operation::Kind::Commit);
    for (std::size_t i = 0; i < r.trees.size(); ++i) r.trees[i].at("").mtime = {1750000000 + static_cast<time_t>(i), 0};
    r.trees[1].emplace("/g", r.trees[1].at("/f")).first->second.inode = 13;
    r.files[1][13] = 2;
    Tree got = r.trees[1];
    EXPECT_EQ(broken_promise(r, 1, 1, got), "");
    got.at("").mtime = r.trees[2].at("").mtime;
    EXPECT_NE(broken_promise(r, 1, 1, got), "");
}

// None that it gets after the cut.
TEST(Promises, TimesAreOfNoLaterState) { EXPECT_NE(judged_with_times_of(changed(Operation::Kind::Commit), 3, 3), ""); }

constexpr std::size_t block = 1024;

// Blocks of one letter each; `.`: a hole.
std::string blocks(const std::string& letters) {
    std::string out;
    for (const char c : letters) out += std::string(block, c == '.' ? '\0' : c);
    return out;
}

// A collapse, or an insert, of two blocks behind the first one; `transactions` of it.
std::string shifted(int mode, const std::string& got, unsigned transactions, bool synced = false) {
    Recording r;
    r.format = "small-log";
    r.mode = "ordered";
    r.workload.in_several_transactions = true;
    r.trees = {tree_with(blocks("abcdefg")),
               tree_with(blocks(mode == FALLOC_FL_COLLAPSE_RANGE ? "adefg" : "a..bcdefg"))};
    r.files = {{{2, 0}, {12, 1}}, {{2, 0}, {12, 1}}};
    Step step;
    step.operation = {Operation::Kind::Fallocate, "/f", {}, block, 2 * block, mode};
    step.done = true;
    step.last_transaction = transactions - 1;
    r.steps.push_back(step);
    if (synced) {
        step.operation = {Operation::Kind::Fsync, "/f"};
        r.steps.push_back(step);
        r.trees.push_back(r.trees.back());
        r.files.push_back(r.files.back());
    }
    return broken_promise(r, 1, 1, tree_with(blocks(got)));
}

TEST(Promises, AShiftIsCutBetweenTwoBlocks) {
    constexpr int collapse = FALLOC_FL_COLLAPSE_RANGE, insert = FALLOC_FL_INSERT_RANGE;
    for (const char* may : {"abcdefg", "ab.defg", "a..defg", "ad..efg", "ade..fg", "adef..g", "adefg"}) {
        EXPECT_EQ(shifted(collapse, may, 3), "") << may;
        const bool whole = std::string(may) == "abcdefg" || std::string(may) == "adefg";
        EXPECT_EQ(shifted(collapse, may, 1).empty(), whole) << may;
        EXPECT_EQ(shifted(collapse, may, 3, true).empty(), std::string(may) == "adefg") << may;
    }
    for (const char* never :
         {"a.cdefg", "adcdefg", "ad.defg", "adedefg", "adefefg", "ae..efg", "ad..ef", "..defg", "ad..e.g", "adefg.."})
        EXPECT_NE(shifted(collapse, never, 3), "") << never;
    for (const char* may : {"abcdefg", "abcdefg..", "abcdef..g", "ab..cdefg", "a..bcdefg"}) {
        EXPECT_EQ(shifted(insert, may, 3), "") << may;
        const bool whole = std::string(may) == "abcdefg" || std::string(may) == "a..bcdefg";
        EXPECT_EQ(shifted(insert, may, 1).empty(), whole) << may;
        EXPECT_EQ(shifted(insert, may, 3, true).empty(), std::string(may) == "a..bcdefg") << may;
    }
    for (const char* never : {"abcdefgg.", "abcdeffg.", "..abcdefg", "ab..cdef.", "ab..cdeg", "abcdefg."})
        EXPECT_NE(shifted(insert, never, 3), "") << never;
}

}  // namespace
}  // namespace uext4::crash
