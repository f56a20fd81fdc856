// Lists of directory entries: room, order and what is left behind.
#include "namespace/entry_list.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>
#include <vector>

namespace uext4 {
namespace {

TEST(EntryList, ClearedListIsOneFreeRecord) {
    std::vector<std::byte> bytes(100, std::byte{0xff});
    MutableEntryList list(bytes, 1024);
    list.clear();
    const auto only = list.view().at(0);
    ASSERT_TRUE(only);
    EXPECT_EQ(only->length, 100u);
    EXPECT_FALSE(only->used());
    EXPECT_FALSE(list.view().at(100));
    EXPECT_FALSE(list.view().has_names_after(0));
}

TEST(EntryList, MalformedRecordsEndTheWalk) {
    const std::vector<std::byte> zeros(64), ones(64, std::byte{0xff});
    EXPECT_FALSE(EntryList(zeros, 1024).at(0));
    EXPECT_FALSE(EntryList(ones, 1024).at(0));
    EXPECT_FALSE(EntryList(zeros, 1024).find("x"));
    EXPECT_FALSE(EntryList({}, 1024).at(0));
}

// Names are found as long as they are there, records always fill the list, and no byte of a removed name stays.
TEST(EntryList, MatchesAModel) {
    for (const std::uint32_t size : {1024u - 12, 4096u, 65536u}) {
        const std::uint32_t block_size = size < 4096 ? 1024 : size;
        std::mt19937 random(size);
        std::vector<std::byte> bytes(size);
        MutableEntryList list(bytes, block_size);
        list.clear();
        std::map<std::string, std::uint64_t> model;
        for (int step = 0; step < 5000; ++step) {
            const std::string name(1 + random() % 255, static_cast<char>('a' + random() % 26));
            if (const auto found = list.view().find(name)) {
                ASSERT_EQ(model.at(name), found->inode.value);
                list.remove(found->offset);
                model.erase(name);
                continue;
            }
            ASSERT_FALSE(model.contains(name));
            const bool fits = list.view().fits(name.size());
            ASSERT_EQ(list.insert(name, InodeNr(step + 1), 1), fits);
            if (fits) model[name] = step + 1;
        }
        std::uint32_t covered = 0;
        std::size_t used = 0;
        list.view().for_each([&](const ListedEntry& entry) {
            covered += entry.length;
            used += entry.used();
            return true;
        });
        EXPECT_EQ(covered, size);
        EXPECT_EQ(used, model.size());
        for (const auto& [name, inode] : model) list.remove(list.view().find(name)->offset);
        EXPECT_FALSE(list.view().has_names_after(0));
        for (std::size_t i = 8; i < bytes.size(); ++i) ASSERT_EQ(bytes[i], std::byte{0}) << i;
    }
}

}  // namespace
}  // namespace uext4
