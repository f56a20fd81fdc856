// The lists by what keeps an inode in memory.
#include "inode/inode_lists.h"
#include "inode/inode.h"

#include <gtest/gtest.h>

#include <deque>
#include <random>
#include <set>

namespace uext4 {
namespace {

struct Slots {
    std::deque<InodeSlot> slots;
    InodeLists lists;
    explicit Slots(std::uint64_t count) {
        for (std::uint64_t n = 1; n <= count; ++n) slots.emplace_back(InodeNr(n));
        for (InodeSlot& slot : slots) lists.add_reference(slot);
    }
    std::vector<std::uint64_t> taken() {
        std::vector<std::uint64_t> numbers;
        while (InodeSlot* slot = lists.evictable()) {
            numbers.push_back(slot->number.value);
            lists.remove(*slot);
        }
        return numbers;
    }
    std::vector<std::uint64_t> to_write() const {
        std::vector<std::uint64_t> numbers;
        lists.for_each_dirty([&](const InodeSlot& slot) { numbers.push_back(slot.number.value); });
        return numbers;
    }
};
using Numbers = std::vector<std::uint64_t>;

TEST(InodeLists, WhatIsDurableLeavesInTheOrderOfItsRelease) {
    Slots s(4);
    for (const std::size_t i : {2, 0, 3, 1}) s.lists.release(s.slots[i], InodeState::clean, 0);
    s.lists.add_reference(s.slots[3]);
    EXPECT_EQ(s.lists.evictable_count(), 3u);
    EXPECT_EQ(s.taken(), (Numbers{3, 1, 2}));
    EXPECT_EQ(s.to_write(), Numbers{4});
}

TEST(InodeLists, ATransactionsMembersLeaveOnceItIsDurable) {
    Slots s(5);
    s.lists.release(s.slots[0], InodeState::clean, 7);
    s.lists.release(s.slots[1], InodeState::clean, 6);  // joins those of 7
    s.lists.release(s.slots[2], InodeState::clean, 8);
    s.lists.release(s.slots[3], InodeState::dirty, 8);
    s.lists.release(s.slots[4], InodeState::times_pending, 0);
    EXPECT_EQ(s.lists.evictable(), nullptr);
    EXPECT_EQ(s.lists.committing_count(), 3u);
    EXPECT_EQ(s.lists.newest_tid(), 8u);
    s.lists.note_durable(6);
    EXPECT_EQ(s.lists.evictable(), nullptr);
    s.lists.note_durable(7);
    EXPECT_EQ(s.lists.committing_count(), 1u);
    EXPECT_EQ(s.taken(), (Numbers{1, 2}));
    s.lists.note_durable(9);
    EXPECT_EQ(s.taken(), Numbers{3});
    EXPECT_EQ(s.lists.newest_tid(), 0u);
    EXPECT_EQ(s.to_write(), (Numbers{4, 5}));
    EXPECT_EQ(s.lists.times_pending_count(), 1u);
}

// While nobody says what is durable, more transactions than there are buckets are told of.
TEST(InodeLists, ManyTransactionsShareTheNewestBucket) {
    Slots s(20);
    for (std::size_t i = 0; i < 20; ++i) s.lists.release(s.slots[i], InodeState::clean, i + 1);
    EXPECT_EQ(s.lists.committing_count(), 20u);
    s.lists.note_durable(19);
    EXPECT_EQ(s.taken(), (Numbers{1, 2, 3}));
    s.lists.add_reference(s.slots[10]);
    EXPECT_EQ(s.lists.committing_count(), 16u);
    s.lists.release(s.slots[10], InodeState::clean, 21);
    s.lists.note_durable(20);
    EXPECT_EQ(s.lists.evictable_count(), 16u);
    s.lists.note_durable(21);
    EXPECT_EQ(s.lists.evictable_count(), 17u);
}

TEST(InodeLists, WhatIsSetAsideIsOlderThanTheRest) {
    Slots s(3);
    for (InodeSlot& slot : s.slots) s.lists.release(slot, InodeState::clean, 0);
    s.lists.defer_eviction(*s.lists.evictable_without_folios());
    EXPECT_EQ(s.lists.evictable_without_folios()->number, InodeNr(2));
    EXPECT_EQ(s.lists.evictable_count(), 3u);
    EXPECT_EQ(s.taken(), (Numbers{1, 2, 3}));
    EXPECT_EQ(s.lists.evictable_count(), 0u);
}

// Against a model that looks at everything.
TEST(InodeLists, AnswerAsAModelDoes) {
    constexpr std::size_t count = 50;
    std::mt19937 random(1);
    Slots s(count);
    struct Model {
        InodeState standing = InodeState::in_use;
        Tid last = 0;
    };
    std::vector<Model> model(count);
    Tid durable = 0, running = 1;
    for (int step = 0; step < 100000; ++step) {
        const std::size_t i = random() % count;
        switch (random() % 6) {
            case 0:
                s.lists.add_reference(s.slots[i]);
                model[i].standing = InodeState::in_use;
                break;
            case 1:
            case 2: {
                if (model[i].standing != InodeState::in_use) break;
                static constexpr std::array standings{InodeState::dirty, InodeState::times_pending, InodeState::clean};
                if (random() % 2 == 0) model[i].last = running;
                model[i].standing = standings[random() % 3];
                s.lists.release(s.slots[i], model[i].standing, model[i].last);
                break;
            }
            case 3: running += random() % 2; break;
            case 4:
                durable = std::min(running - 1, durable + random() % 3);
                s.lists.note_durable(durable);
                break;
            default: {
                InodeSlot* const slot = random() % 2 == 0 ? s.lists.evictable() : s.lists.evictable_without_folios();
                if (!slot) break;
                const Model& m = model[slot->number.value - 1];
                ASSERT_EQ(m.standing, InodeState::clean);
                ASSERT_LE(m.last, durable);
                if (slot == s.lists.evictable_without_folios() && random() % 2 == 0) s.lists.defer_eviction(*slot);
                else s.lists.add_reference(*slot), model[slot->number.value - 1].standing = InodeState::in_use;
            }
        }
        const auto number = [&](auto is) { return static_cast<std::size_t>(std::ranges::count_if(model, is)); };
        ASSERT_EQ(s.lists.times_pending_count(),
                  number([](const Model& m) { return m.standing == InodeState::times_pending; }));
        ASSERT_EQ(s.lists.evictable_count() + s.lists.committing_count(),
                  number([](const Model& m) { return m.standing == InodeState::clean; }));
        ASSERT_EQ(s.to_write().size(), number([](const Model& m) { return m.standing != InodeState::clean; }));
    }
}

}  // namespace
}  // namespace uext4
