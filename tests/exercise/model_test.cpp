// The model sees what it is there to see.
#include "tests/exercise/model.h"

#include "tests/exercise/filled.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

namespace uext4::exercise {
namespace {

TEST(Model, AKillMayLeaveTheLastSyncOrAnythingSince) {
    ModelFile file;
    file.write(0, filled(100, 1));
    file.made_durable();
    file.write(50, filled(10, 2));
    file.resize(200);
    EXPECT_EQ(file.refuted_by(filled(100, 1)), "");
    auto mixed = filled(150, 1);
    for (std::size_t i = 55; i < 60; ++i) mixed[i] = std::byte{2};
    std::fill(mixed.begin() + 100, mixed.end(), std::byte{0});
    EXPECT_EQ(file.refuted_by(mixed), "");
}

TEST(Model, AKillMayNotTakeWhatWasSyncedOfARange) {
    ModelFile file;
    file.write(0, filled(100, 1));
    file.made_durable();
    file.write(0, filled(200, 2));
    file.made_durable(50, 120);
    auto mixed = filled(120, 2);
    EXPECT_EQ(file.refuted_by(mixed), "");
    mixed[49] = std::byte{1};
    EXPECT_EQ(file.refuted_by(mixed), "");
    mixed[50] = std::byte{1};
    EXPECT_NE(file.refuted_by(mixed), "");
    EXPECT_NE(file.refuted_by(filled(119, 2)), "");
    // What was cut off before does not come back, and nothing behind the end is promised.
    file.resize(80);
    file.made_durable(70, 120);
    EXPECT_NE(file.refuted_by(filled(81, 2)), "");
    EXPECT_EQ(file.refuted_by(filled(80, 2)), "");
}

TEST(Model, AKillMayNotTakeWhatWasSynced) {
    ModelFile file;
    file.write(0, filled(100, 1));
    file.made_durable();
    EXPECT_NE(file.refuted_by(filled(99, 1)), "");
    EXPECT_NE(file.refuted_by({}), "");
    auto lost = filled(100, 1);
    lost[99] = std::byte{0};
    EXPECT_NE(file.refuted_by(lost), "");
    file.write(0, filled(10, 2));
    EXPECT_NE(file.refuted_by(lost), "");
    auto foreign = filled(100, 1);
    foreign[5] = std::byte{3};
    EXPECT_NE(file.refuted_by(foreign), "");
    EXPECT_NE(file.refuted_by(filled(101, 1)), "");
}

TEST(Model, AHoleMayShowZerosOnlyWhereTheFileWasShorter) {
    ModelFile file;
    file.write(0, filled(10, 1));
    file.made_durable();
    file.write(20, filled(10, 2));
    auto grown = filled(30, 0);
    std::fill(grown.begin(), grown.begin() + 10, std::byte{1});
    EXPECT_EQ(file.refuted_by(grown), "");
    grown[0] = std::byte{0};
    EXPECT_NE(file.refuted_by(grown), "");
}

TEST(Model, IsTheSameAfterItWasSaved) {
    const std::string path = fmt::format("/dev/shm/uext4-model-{}", ::getpid());
    Model model;
    model.seed = 3, model.segment = 4, model.done = 5, model.killed = true;
    model.file[0].write(0, filled(100, 1));
    model.file[0].collapse(10, 20);
    model.file[1].insert(0, 7);
    model.save(path);
    Model again;
    EXPECT_TRUE(again.load(path));
    ::unlink(path.c_str());
    EXPECT_FALSE(Model().load(path));
    EXPECT_EQ(again.seed + again.segment + again.done, 12u);
    EXPECT_TRUE(again.killed);
    EXPECT_EQ(again.file[0].bytes(), model.file[0].bytes());
    EXPECT_EQ(again.file[0].refuted_by({}), "");
    EXPECT_EQ(again.file[1].bytes(), filled(7, 0));
}

}  // namespace
}  // namespace uext4::exercise
