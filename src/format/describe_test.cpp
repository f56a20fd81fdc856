#include "format/describe.h"

#include "format/superblock.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace uext4::format {
namespace {

TEST(Describe, FieldsAscendInsideTheirStructure) {
    std::set<std::string_view> names;
    for (std::size_t i = 0; i < structure_count; ++i) {
        const auto structure = static_cast<Structure>(i);
        EXPECT_TRUE(names.insert(structure_name(structure)).second) << structure_name(structure);
        EXPECT_FALSE(fields_of(structure).empty());
        std::uint32_t end = 0;
        std::set<std::string_view> fields;
        for (const FieldDescription& f : fields_of(structure)) {
            const std::string where = std::string(structure_name(structure)) + "." + std::string(f.name);
            EXPECT_GE(f.offset, end) << where;
            EXPECT_GT(f.size, 0u) << where;
            EXPECT_TRUE(f.kind == FieldKind::bytes || f.size == 1 || f.size == 2 || f.size == 4 || f.size == 8)
                << where;
            EXPECT_TRUE(fields.insert(f.name).second) << where;
            end = f.offset + f.size;
        }
        EXPECT_LE(end, structure_size(structure)) << structure_name(structure);
    }
}

TEST(Describe, SuperblockHasNoGap) {
    std::uint32_t end = 0;
    for (const FieldDescription& f : fields_of(Structure::superblock)) {
        EXPECT_EQ(f.offset, end) << f.name;
        end = f.offset + f.size;
    }
    EXPECT_EQ(end, sizeof(SuperBlock));
}

TEST(Describe, FieldsAreFoundByName) {
    const FieldDescription* field = find_field(Structure::group_desc, "bg_checksum");
    ASSERT_NE(field, nullptr);
    EXPECT_EQ(field->offset, 0x1Eu);
    EXPECT_EQ(field->size, 2u);
    EXPECT_EQ(find_field(Structure::journal_super, "s_maxlen")->kind, FieldKind::big);
    EXPECT_EQ(find_field(Structure::inode, "i_nothing"), nullptr);
}

}  // namespace
}  // namespace uext4::format
