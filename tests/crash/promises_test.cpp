#include "tests/crash/promises.h"

#include "tests/crash/recorder.h"

#include <gtest/gtest.h>
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

}  // namespace
}  // namespace uext4::crash
