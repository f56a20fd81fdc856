#include "base/seam.h"
#include "device/flush_order_device.h"
#include "journal/journal_state.h"

#include <algorithm>

namespace uext4 {

namespace {

// Transactions go home together up to this much: the flushes cost the same for one small transaction as for many.
constexpr std::size_t pass_bytes = 8u << 20;

}  // namespace

void JournalState::checkpoint_oldest() {
    Tid last = 0;
    std::size_t blocks = 0;
    for (const auto& [tid, checkpoint] : checkpoints) {
        if (last && (blocks + checkpoint.buffers.size()) * block_size > pass_bytes) break;
        // A block that the running transaction has changed cannot go home as it is.
        const Transaction* const now = running.get();
        const bool held_up =
            now && std::ranges::any_of(checkpoint.buffers, [now](const auto& entry) {
                const bool is_changed = entry.second->transaction_.load() == now->tid;
                const bool is_freed = now->freed_blocks.contains(entry.first);
                return (is_changed && UEXT4_SEAM(home_is_committed)) || (is_freed && UEXT4_SEAM(home_is_not_freed));
            });
        if (held_up) break;
        last = tid;
        blocks += checkpoint.buffers.size();
    }
    if (!last) {
        // The running transaction is committed first, which moves the block to its own list.
        commit_running();
        return;
    }
    const auto end = checkpoints.upper_bound(last);
    // Copied under the lock, when no handle can have joined them: what is copied is a committed image (B5). A block is
    // on the list of one transaction only, the newest that is durable.
    std::vector<LogImage> images;
    std::vector<BufferRef> written;
    std::size_t copies = 0;
    for (auto it = checkpoints.begin(); it != end; ++it) {
        for (const auto& [number, buffer] : it->second.buffers) {
            // File contents are changed by the next commit only (J2), which is this thread's.
            const bool as_it_is = buffer->kind() == BlockKind::journaled_data;
            images.push_back({BlockNr(number), as_it_is ? ConstBytes(buffer->data()) : ConstBytes(), false, 0});
            written.push_back(buffer);
            if (!as_it_is) ++copies;
        }
    }
    LargeBuffer bytes(copies * block_size);
    std::size_t at = 0;
    for (std::size_t i = 0; i < images.size(); ++i) {
        if (!images[i].bytes.empty()) continue;
        const Bytes copy(bytes.data() + at, block_size);
        std::ranges::copy(written[i]->data(), copy.begin());
        images[i].bytes = copy;
        at += block_size;
    }
    std::ranges::sort(images, {}, [](const LogImage& i) { return i.block.value; });
    checkpoint_writing = true;
    release_lock();
    Result<void> home = write_in_place(images);
    if (home && !options.barrier) home = flush_completed_writes(device);
    retake_lock();
    checkpoint_writing = false;
    ++checkpoint_writes_done;
    changed.notify_all();
    if (home && !aborted.load()) {
        std::vector<BlockNr> data_blocks;
        std::uint64_t freed = 0, passed = 0;
        for (auto it = checkpoints.begin(); it != end; it = checkpoints.erase(it)) {
            for (const auto& [number, buffer] : it->second.buffers) {
                buffer->checkpoint_tid_ = 0;
                checkpoint_of_block.erase(number);
                if (buffer->kind() == BlockKind::journaled_data) {
                    buffer->set_kind(BlockKind::unchecked);
                    data_blocks.emplace_back(number);
                }
            }
            freed += it->second.log_blocks;
            ++passed;
        }
        const bool empty = checkpoints.empty();
        const std::uint32_t start = empty ? head : checkpoints.begin()->second.log_start;
        const std::uint32_t sequence = empty ? log_sequence : checkpoints.begin()->second.sequence;
        tail_update_pending = true;
        if (!UEXT4_SEAM(tail_counts)) newest_tid_out_of_log.store(last);
        release_lock();
        written.clear();
        for (BlockNr block : data_blocks) buffers.invalidate(block);
        // J4: the blocks are home and flushed; only then the tail moves.
        home = write_super(start, sequence);
        retake_lock();
        tail_update_pending = false;
        if (home) {
            newest_tid_out_of_log.store(last);
            log_free += freed;
            counters.checkpoints += passed;
        }
    }
    if (!home) {
        release_lock();
        abort(home.error());
        retake_lock();
    }
    changed.notify_all();
}

Result<void> JournalState::empty_log() {
    const std::uint32_t sequence = log_sequence;
    release_lock();
    Result<void> r = write_super(0, sequence);
    retake_lock();
    return r;
}

}  // namespace uext4
