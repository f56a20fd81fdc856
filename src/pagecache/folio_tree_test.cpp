#include "pagecache/folio_tree.h"

#include "pagecache/file_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

namespace uext4 {
namespace {

using Mark = FolioTree::Tag;
constexpr Mark marks[] = {Mark::present, Mark::dirty, Mark::writeback};

struct Marked {
    bool dirty = false, writeback = false;
    bool has(Mark mark) const { return mark == Mark::present || (mark == Mark::dirty ? dirty : writeback); }
};

class Tree : public testing::Test {
protected:
    void TearDown() override {
        while (!model.empty()) take(model.begin()->first);
        EXPECT_EQ(tree.next(Mark::present, 0), std::nullopt);
    }
    void add(std::uint64_t index) {
        auto folio = std::make_unique<Folio>();
        folio->index = index;
        tree.add(std::move(folio));
        model[index] = {};
    }
    void take(std::uint64_t index) {
        const std::unique_ptr<Folio> folio = tree.remove(index);
        ASSERT_EQ(folio != nullptr, model.erase(index) == 1);
        if (folio) {
            EXPECT_EQ(folio->index, index);
        }
    }
    void mark(std::uint64_t index, Mark which, bool on) {
        if (on) tree.set(which, index);
        else tree.clear(which, index);
        (which == Mark::dirty ? model[index].dirty : model[index].writeback) = on;
    }
    std::optional<std::uint64_t> next(Mark mark, std::uint64_t from) const {
        for (auto it = model.lower_bound(from); it != model.end(); ++it)
            if (it->second.has(mark)) return it->first;
        return std::nullopt;
    }
    void expect_same(std::uint64_t at) const {
        const Folio* folio = tree.find(at);
        ASSERT_EQ(folio != nullptr, model.contains(at)) << at;
        if (folio) {
            ASSERT_EQ(folio->index, at);
        }
        for (const Mark m : marks) {
            ASSERT_EQ(tree.next(m, at), next(m, at)) << at << " mark " << static_cast<int>(m);
            const auto n = std::ranges::count_if(model, [m](const auto& one) { return one.second.has(m); });
            ASSERT_EQ(tree.count(m), static_cast<std::uint64_t>(n));
        }
    }

    FolioTree tree;
    std::map<std::uint64_t, Marked> model;
};

TEST_F(Tree, SaysWhatAMapAndSetsSay) {
    constexpr std::uint64_t bases[] = {0, 0, 0, 250, 4090, 1u << 20, (1ull << 32) - 5, 1ull << 51, ~0ull - 40};
    for (unsigned seed = 0; seed < 20; ++seed) {
        std::mt19937_64 random(seed);
        const unsigned most = 1 + static_cast<unsigned>(random() % std::size(bases));
        for (int n = 0; n < 3000; ++n) {
            const std::uint64_t index = bases[random() % most] + random() % 40;
            const bool there = model.contains(index);
            switch (random() % 8) {
                case 0:
                case 1:
                case 2:
                    if (!there) add(index);
                    break;
                case 3: ASSERT_NO_FATAL_FAILURE(take(index)); break;
                case 4:
                    if (there) mark(index, Mark::dirty, true);
                    break;
                case 5:
                    if (there) mark(index, Mark::dirty, false);
                    break;
                default:
                    if (there) mark(index, Mark::writeback, random() % 2 != 0);
                    break;
            }
            ASSERT_NO_FATAL_FAILURE(expect_same(bases[random() % most] + random() % 40)) << "seed " << seed;
            if (n % 100 == 0) {
                ASSERT_NO_FATAL_FAILURE(expect_same(0));
                ASSERT_NO_FATAL_FAILURE(expect_same(~0ull));
            }
        }
        while (!model.empty()) ASSERT_NO_FATAL_FAILURE(take(model.begin()->first));
    }
}

TEST_F(Tree, BeginsWhereItsFirstFolioIs) {
    add(~0ull);
    expect_same(~0ull);
    expect_same(0);
    add(0);
    expect_same(0);
    expect_same(1);
    mark(~0ull, Mark::dirty, true);
    EXPECT_EQ(tree.next(Mark::dirty, 0), ~0ull);
}

}  // namespace
}  // namespace uext4
