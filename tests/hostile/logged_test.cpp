// What is changed inside a logged block, its sums made right, is what recovery brings home: hostile contents get behind
// a log that does not lie. And what the sums do not fit is not.
#include "format/inode.h"
#include "journal/journal.h"
#include "tests/hostile/logged_blocks.h"
#include "tests/hostile/places.h"
#include "tests/hostile/visit.h"

#include <gtest/gtest.h>

#include <set>

namespace uext4::hostile {
namespace {

class Logged : public testing::TestWithParam<SeedKind> {
protected:
    Result<RecoveryReport> recovered(const std::shared_ptr<MemoryDevice>& device) {
        return recover(*device, 1024, device->size() / 1024, runs_);
    }
    // The block in which it lies, once it is home.
    static std::vector<std::byte> block_of(MemoryDevice& device, std::uint64_t byte) {
        std::vector<std::byte> out(1024);
        EXPECT_TRUE(device.read(byte / 1024 * 1024, out));
        return out;
    }
    const std::vector<BlockRun> runs_ = log_of(seed(GetParam()).copy());
};

INSTANTIATE_TEST_SUITE_P(Images, Logged,
                         testing::Values(SeedKind::dirty_v3, SeedKind::dirty_v2, SeedKind::dirty_v1,
                                         SeedKind::dirty_bare),
                         [](const auto& kind) { return std::string(seed_name(kind.param)); });

TEST_P(Logged, EveryStructureIsInTheLogAndOutsideOfIt) {
    std::set<std::string> inside, outside;
    for (const Place& place : places_of(GetParam()))
        (place.at != place.home ? inside : outside).insert(place.structure);
    // The superblock has the list of orphans where there is no file of them.
    const bool listed = GetParam() != SeedKind::dirty_v2;
    EXPECT_EQ(inside.contains("superblock"), listed);
    for (const char* name : {"logged_block", "group_desc", "block_bitmap", "inode_bitmap", "inode", "extent_header",
                             "extent_leaf", "dir_entry", "index_pair", "xattr_entry"})
        EXPECT_TRUE(inside.contains(name)) << name;
    for (const char* name : {"superblock", "group_desc", "inode", "extent_leaf", "dir_entry", "journal_super"})
        EXPECT_TRUE(outside.contains(name)) << name;
}

TEST_P(Logged, AChangeWithItsSumsRightComesHome) {
    unsigned logged = 0;
    for (const Place& place : places_of(GetParam())) {
        if (place.at == place.home) continue;
        ++logged;
        auto device = seed(GetParam()).copy();
        const format::FieldDescription& field = place.fields.front();
        const std::uint64_t value = read_field(*device, place, field) ^ 0x11;
        write_field(*device, place, field, value);
        if (place.seal) place.seal(*device);
        const auto changed = block_of(*device, place.at);
        const auto report = recovered(device);
        ASSERT_TRUE(report) << place.structure << ": " << report.error().what;
        EXPECT_GT(report->blocks, 10u);
        EXPECT_EQ(block_of(*device, place.home), changed) << place.structure << " at " << place.home;
    }
    EXPECT_GT(logged, 40u);
}

TEST_P(Logged, AChangeThatTheSumsDoNotFitIsRefused) {
    for (const Place& place : places_of(GetParam())) {
        if (!place.log_seal) continue;
        auto device = seed(GetParam()).copy();
        write_field(*device, place, place.fields.front(), read_field(*device, place, place.fields.front()) ^ 0x11);
        const auto before = block_of(*device, place.home);
        const auto report = recovered(device);
        // The old sum is over a transaction, and one at the end that it does not fit was never whole.
        if (GetParam() == SeedKind::dirty_v1 && report)
            EXPECT_NE(block_of(*device, place.home), block_of(*device, place.at));
        else EXPECT_FALSE(report) << place.structure;
    }
}

// The structure's own checksum is right as well: the inode that comes home is read, and has the size.
TEST_P(Logged, AnInodeInTheLogLies) {
    auto fs = mount_seed(seed(GetParam()).copy(), "ro");
    ASSERT_TRUE(fs) << fs.error().what;
    const auto number = (*(*fs)->resolve("/late", Credentials::root()))->number();
    for (const Place& place : places_of(GetParam())) {
        if (place.structure != "inode" || place.words.front() != fmt::format("inode {}", number)) continue;
        ASSERT_NE(place.at, place.home);
        auto device = seed(GetParam()).copy();
        for (const auto& field : place.fields)
            if (field.name == "i_size_lo") write_field(*device, place, field, 8999);
        if (place.seal) place.seal(*device);
        auto lied = mount_seed(device, "ro");
        ASSERT_TRUE(lied) << lied.error().what;
        const auto late = (*lied)->resolve("/late", Credentials::root());
        ASSERT_TRUE(late) << late.error().what;
        EXPECT_EQ((*late)->size_hint(), 8999u);
        return;
    }
    FAIL() << "no place for inode " << number.value;
}

}  // namespace
}  // namespace uext4::hostile
