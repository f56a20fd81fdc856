#include "inode/logged_blocks.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

namespace uext4 {

namespace {

// Its folio goes on as it likes: later contents have a transaction of their own.
class LoggedContents final : public JournaledData {
public:
    explicit LoggedContents(ConstBytes contents) : contents_(contents.begin(), contents.end()) {}
    void copy_for_commit(BlockNr, Bytes out) override { std::ranges::copy(contents_, out.begin()); }
    bool copy_before_commit(Bytes out) const override {
        std::ranges::copy(ConstBytes(contents_).first(std::min(out.size(), contents_.size())), out.begin());
        return true;
    }

private:
    std::vector<std::byte> contents_;
};

}  // namespace

Result<void> LoggedBlocks::log(Handle& handle, BlockNr block, ConstBytes contents) {
    {
        MutexLock guard(lock_);
        const Tid out_of_log = journal_.out_of_log();
        if (blocks_.size() >= prune_at_) {
            std::erase_if(blocks_, [&](const auto& entry) { return entry.second <= out_of_log; });
            prune_at_ = std::max<std::size_t>(64, 2 * blocks_.size());
        }
        blocks_[block.value] = handle.tid();
        newest_.store(std::max(newest_.load(), handle.tid()));
    }
    return handle.journal_data(block, std::make_shared<LoggedContents>(contents));
}

// Whoever finds none goes on as if he had asked before there was one: no place for a switch.
bool LoggedBlocks::any() const { return newest_.load() > journal_.out_of_log(); }

bool LoggedBlocks::has(BlockNr first, std::uint64_t count) { return free_of(first, count) < count; }

std::uint64_t LoggedBlocks::free_of(BlockNr first, std::uint64_t count) {
    if (!any()) return count;
    MutexLock guard(lock_);
    const Tid out_of_log = journal_.out_of_log();
    for (auto it = blocks_.lower_bound(first.value); it != blocks_.end() && it->first - first.value < count;) {
        if (it->second > out_of_log) return it->first - first.value;
        it = blocks_.erase(it);
    }
    return count;
}

Tid LoggedBlocks::newest(BlockNr first, std::uint64_t count) {
    MutexLock guard(lock_);
    Tid newest = 0;
    for (auto it = blocks_.lower_bound(first.value); it != blocks_.end() && it->first - first.value < count; ++it)
        newest = std::max(newest, it->second);
    return newest;
}

Result<void> LoggedBlocks::forget(Handle& handle, BlockNr first, std::uint64_t count) {
    for (std::uint64_t passed = free_of(first, count); passed < count;
         passed += free_of(first + passed, count - passed)) {
        TRY(handle.forget(first + passed));
        MutexLock guard(lock_);
        blocks_.erase(first.value + passed);
    }
    return {};
}

}  // namespace uext4
