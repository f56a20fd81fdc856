#include "extent_status/logged_data_blocks.h"

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
    bool copy_uncommitted(Bytes out) const override {
        std::ranges::copy(ConstBytes(contents_).first(std::min(out.size(), contents_.size())), out.begin());
        return true;
    }

private:
    std::vector<std::byte> contents_;
};

}  // namespace

Result<void> LoggedDataBlocks::log_block(Handle& handle, BlockNr block, ConstBytes contents) {
    {
        MutexLock guard(lock_);
        const Tid out_of_log = journal_.newest_tid_out_of_log();
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
bool LoggedDataBlocks::has_any() const { return newest_.load() > journal_.newest_tid_out_of_log(); }

bool LoggedDataBlocks::has(BlockNr first, std::uint64_t count) { return count_without_image(first, count) < count; }

std::uint64_t LoggedDataBlocks::count_without_image(BlockNr first, std::uint64_t count) {
    if (!has_any()) return count;
    MutexLock guard(lock_);
    const Tid out_of_log = journal_.newest_tid_out_of_log();
    for (auto it = blocks_.lower_bound(first.value); it != blocks_.end() && it->first - first.value < count;) {
        if (it->second > out_of_log) return it->first - first.value;
        it = blocks_.erase(it);
    }
    return count;
}

Tid LoggedDataBlocks::newest_tid(BlockNr first, std::uint64_t count) {
    MutexLock guard(lock_);
    Tid newest = 0;
    for (auto it = blocks_.lower_bound(first.value); it != blocks_.end() && it->first - first.value < count; ++it)
        newest = std::max(newest, it->second);
    return newest;
}

Result<void> LoggedDataBlocks::revoke(Handle& handle, BlockNr first, std::uint64_t count) {
    for (std::uint64_t passed = count_without_image(first, count); passed < count;
         passed += count_without_image(first + passed, count - passed)) {
        TRY(handle.revoke(first + passed));
        MutexLock guard(lock_);
        blocks_.erase(first.value + passed);
    }
    return {};
}

}  // namespace uext4
