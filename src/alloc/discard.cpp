#include "alloc/allocator_state.h"
#include "sync/atomic_point.h"

namespace uext4 {

void Allocator::set_discard(bool on, bool at_once) {
    State& s = *state_;
    s.discards.store(on);
    s.discards_at_once.store(at_once);
    if (on && !at_once && !s.discard_thread.joinable())
        s.discard_thread = Thread("uext4-discard", [raw = state_.get()] { raw->run_discards(); });
}

// It counts as pending until it can be had: who finds nothing pending has seen all of it.
void AllocatorState::complete_free(BlockNr first, std::uint64_t blocks) {
    return_to_free(first, blocks, false);
    atomic_point("Allocator::pending", &pending_free);
    pending_free.fetch_sub(static_cast<std::int64_t>(divide_up(blocks, ratio())));
}

void Allocator::finish_discards() {
    State& s = *state_;
    MutexLock guard(s.discard_lock);
    // Not those that are queued from now on, which may never end.
    const std::uint64_t last = s.discards_done + s.to_discard.size() + (s.discard_busy ? 1 : 0);
    const std::uint64_t last_trim = s.trims.begun();
    while (s.discards_done < last && !s.stop) s.discard_done.wait(s.discard_lock);
    while (const auto trim = s.trims.oldest(last_trim)) s.discard_done.wait(s.discard_lock, *trim);
}

namespace {

// A group's free space is held while this lives: who finds no space meanwhile waits for that (finish_discards).
class TrimsGroup {
public:
    explicit TrimsGroup(AllocatorState& s) : s_(s) {
        MutexLock guard(s_.discard_lock);
        number_ = s_.trims.begin("trim of a group", SourceLocation::current());
    }
    ~TrimsGroup() {
        MutexLock guard(s_.discard_lock);
        s_.trims.end(number_);
        s_.discard_done.notify_all();
    }
    TrimsGroup(const TrimsGroup&) = delete;
    TrimsGroup& operator=(const TrimsGroup&) = delete;

private:
    AllocatorState& s_;
    std::uint64_t number_ = 0;
};

}  // namespace

// Not grantable until the device has forgotten it.
void AllocatorState::discard(BlockNr first, std::uint64_t blocks) {
    Result<void> r = buffers.device().discard(first.value * geometry.block_size, blocks * geometry.block_size);
    if (!r && (r.error().code == EOPNOTSUPP || r.error().code == ENOTSUP)) no_discard.store(true);
    complete_free(first, blocks);
}

// Freed clusters whose transaction is durable. On the thread that commits: does not wait for a lock that is held long.
void AllocatorState::free_durable(BlockNr first, std::uint64_t blocks) {
    if (!discards.load() || no_discard.load()) {
        complete_free(first, blocks);
        return;
    }
    if (discards_at_once.load()) {
        discard(first, blocks);
        return;
    }
    MutexLock guard(discard_lock);
    to_discard.emplace_back(first, blocks);
    discard_work.notify_all();
}

void AllocatorState::run_discards() {
    MutexLock guard(discard_lock);
    for (;;) {
        while (to_discard.empty() && !stop) discard_work.wait(discard_lock);
        if (to_discard.empty()) return;
        const auto [first, blocks] = to_discard.front();
        to_discard.pop_front();
        discard_busy = true;
        guard.unlock();
        discard(first, blocks);
        guard.lock();
        discard_busy = false;
        ++discards_done;
        discard_done.notify_all();
    }
}

Result<std::uint64_t> Allocator::trim(std::uint64_t min_blocks) {
    State& s = *state_;
    s.sum_counts();
    std::uint64_t trimmed = 0;
    for (std::uint64_t n = 0; n < s.geometry.group_count; ++n) {
        const GroupNr number(n);
        Group& group = s.group(number);
        const TrimsGroup trims(s);
        std::vector<std::pair<std::uint32_t, std::uint32_t>> runs;
        DelallocReservation held;  // what is discarded cannot be promised meanwhile
        {
            MutexLock guard(group.lock);
            if (!s.load_blocks(number, group)) continue;
            const std::uint32_t limit = s.clusters_in(number);
            for (std::uint32_t i = 0; i < limit;) {
                std::uint32_t k = i;
                while (k < limit && !group.blocks->test(k)) ++k;
                Result<DelallocReservation> hold;
                if (k > i && std::uint64_t{k - i} * s.ratio() >= min_blocks &&
                    (hold = reserve_without_avoided(k - i, true))) {
                    held.merge(std::move(*hold));
                    runs.emplace_back(i, k - i);
                    // Busy while it is discarded.
                    group.blocks->mark_used(i, k - i);
                    group.blocks->free -= k - i;
                    group.blocks->memory_only += k - i;
                }
                i = k + 1;
            }
            s.groups[n].free_hint.store(group.blocks->free);
        }
        Result<void> failed;
        for (const auto& [index, count] : runs) {
            const BlockNr first = s.cluster_block(number, index);
            const std::uint64_t blocks = std::uint64_t{count} * s.ratio();
            if (failed) {
                Result<void> r =
                    s.buffers.device().discard(first.value * s.geometry.block_size, blocks * s.geometry.block_size);
                if (r) trimmed += blocks * s.geometry.block_size;
                else failed = std::move(r);
            }
            held.consume(count);
            s.return_to_free(first, blocks, false);
        }
        if (!failed) return fail(failed.error());
    }
    return trimmed;
}

}  // namespace uext4
