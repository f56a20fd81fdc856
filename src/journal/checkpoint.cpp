#include "journal/journal_state.h"

#include <algorithm>
#include <cstring>

namespace uext4 {

void JournalState::checkpoint_oldest(MutexLock& guard) {
    auto oldest = checkpoints.begin();
    const Tid tid = oldest->first;
    // A block that a running transaction has changed cannot go home as it is: that transaction is committed first, which
    // moves the block to its own list.
    if (running) {
        for (const auto& [number, buffer] : oldest->second.buffers) {
            if (buffer->joined_.load() == running->tid || running->forgotten.contains(number)) {
                commit_running(guard);
                return;
            }
        }
    }
    // Copied under the lock, when no handle can have joined them: what is copied is a committed image (B5).
    std::vector<LogImage> images;
    std::vector<BufferRef> written;
    std::vector<std::byte> bytes(oldest->second.buffers.size() * block_size);
    std::size_t at = 0;
    for (const auto& [number, buffer] : oldest->second.buffers) {
        std::memcpy(bytes.data() + at, buffer->data().data(), block_size);
        images.push_back({BlockNr(number), at, false, 0});
        written.push_back(buffer);
        at += block_size;
    }
    std::ranges::sort(images, {}, [](const LogImage& i) { return i.home.value; });
    guard.unlock();
    Result<void> home = write_home(bytes, images);
    if (home && !options.barrier) home = device.flush();
    guard.lock();
    if (home) {
        auto it = checkpoints.find(tid);
        std::vector<BlockNr> data_blocks;
        for (const auto& [number, buffer] : it->second.buffers) {
            if (buffer->checkpoint_ == tid) buffer->checkpoint_ = 0;
            if (buffer->kind() == BlockKind::journaled_data) {
                buffer->set_kind(BlockKind::unchecked);
                data_blocks.emplace_back(number);
            }
        }
        const std::uint64_t freed = it->second.log_blocks;
        checkpoints.erase(it);
        const bool empty = checkpoints.empty();
        const std::uint32_t start = empty ? head : checkpoints.begin()->second.log_start;
        const std::uint32_t sequence = empty ? log_sequence : checkpoints.begin()->second.sequence;
        guard.unlock();
        written.clear();
        for (BlockNr block : data_blocks) buffers.drop(block);
        // J4: the blocks are home and flushed; only then the tail moves.
        home = write_super(start, sequence);
        guard.lock();
        if (home) {
            log_free += freed;
            ++counters.checkpoints;
        }
    }
    if (!home) {
        guard.unlock();
        abort(home.error());
        guard.lock();
    }
    changed.notify_all();
}

Result<void> JournalState::empty_log(MutexLock& guard) {
    const std::uint32_t sequence = log_sequence;
    guard.unlock();
    Result<void> r = write_super(0, sequence);
    guard.lock();
    return r;
}

}  // namespace uext4
