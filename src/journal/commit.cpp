#include "journal/journal_state.h"

#include "base/seam.h"
#include "device/flush_order_device.h"
#include "format/constants.h"
#include "sync/atomic_point.h"

#include <algorithm>

namespace uext4 {

// The running transaction becomes durable. Invariants J1 to J3, J5.
void JournalState::commit_running() {
    running->locked = true;
    while (running->handles > 0 && !aborted.load())
        drained.wait(lock, handles_resource("handles of transaction", running->tid), writer_location);
    if (aborted.load()) return;

    // No handle is open and none can be opened: what the blocks say now is what the transaction's handles left.
    Transaction& t = *running;
    // Handles may change a metadata block again while it is logged; file contents only in their folio.
    LargeBuffer bytes(t.buffers.size() * block_size);
    std::vector<LogImage> images;
    images.reserve(t.blocks());
    std::size_t at = 0;
    Result<void> copied;
    for (const auto& [number, buffer] : t.buffers) {
        const Bytes copy(bytes.data() + at, block_size);
        std::ranges::copy(buffer->data(), copy.begin());
        images.push_back({BlockNr(number), copy, false, 0});
        at += block_size;
    }
    for (const auto& [number, contents] : t.data) {
        // From now on the block is a buffer like any other: it goes home by a checkpoint.
        Result<BufferRef> buffer = buffers.get_for_journaled_data(BlockNr(number));
        if (!buffer) {
            copied = fail(buffer.error());
            break;
        }
        Buffer& b = **buffer;
        contents->copy_for_commit(BlockNr(number), b.data());
        b.set_kind(BlockKind::journaled_data);
        atomic_point("Buffer::uptodate", &b.uptodate_);
        b.uptodate_.store(true, std::memory_order_release);
        images.push_back({BlockNr(number), b.data(), false, 0});
        t.buffers.emplace(number, std::move(*buffer));
    }
    t.data.clear();
    committing = std::move(running);
    committing_log_blocks = has_log ? log_blocks_for(t, images.size()) : 0;
    changed.notify_all();
    std::ranges::sort(images, {}, [](const LogImage& i) { return i.block.value; });

    const std::uint32_t log_start = head;
    const std::uint64_t space = log_free;
    std::uint64_t used = 0;
    release_lock();
    if (!UEXT4_SEAM(freed_when_durable)) t.run_durable_callbacks();
    Result<void> written = copied;
    if (written && !t.empty()) {
        if (has_log) written = write_log(t, images, space, used);
        else written = write_in_place(images);
    }
    if (!written) abort(written.error());
    retake_lock();
    if (!written) {
        changed.notify_all();
        return;
    }
    if (has_log && !t.empty()) {
        log_free -= used;
        Checkpoint& home = checkpoints[t.tid];
        home.log_start = log_start;
        home.sequence = log_sequence++;
        home.log_blocks = used;
        for (auto& [number, buffer] : t.buffers) {
            remove_from_checkpoints(number);
            buffer->checkpoint_tid_ = t.tid;
            home.buffers.emplace(number, buffer);
            checkpoint_of_block.emplace(number, t.tid);
        }
        ++counters.commits;
        counters.blocks_logged += images.size();
        counters.revokes += t.revoked_blocks.size();
    } else if (!t.empty()) {
        ++counters.commits;
        counters.blocks_logged += images.size();
    }
    // Freed blocks: older images of theirs need not go home any more.
    for (const std::uint64_t number : t.freed_blocks) remove_from_checkpoints(number);
    std::unique_ptr<Transaction> done = std::move(committing);
    release_lock();
    std::vector<BlockNr> data_blocks;
    if (!has_log) {
        // Home already, and no checkpoint comes that would take file contents out of the cache.
        for (const auto& [number, buffer] : done->buffers) {
            if (buffer->kind() != BlockKind::journaled_data) continue;
            buffer->set_kind(BlockKind::unchecked);
            data_blocks.emplace_back(number);
        }
    }
    done->buffers.clear();
    for (const BlockNr block : data_blocks) buffers.invalidate(block);
    for (const std::uint64_t number : done->freed_blocks) buffers.invalidate(BlockNr(number));
    done->run_durable_callbacks();
    retake_lock();
    // Whoever waited for it finds what it freed free.
    durable_tid = done->tid;
    changed.notify_all();
}

void JournalState::remove_from_checkpoints(std::uint64_t block) {
    const auto in = checkpoint_of_block.find(block);
    if (in == checkpoint_of_block.end()) return;
    auto& buffers_of = checkpoints.at(in->second).buffers;
    const auto it = buffers_of.find(block);
    it->second->checkpoint_tid_ = 0;
    buffers_of.erase(it);
    checkpoint_of_block.erase(in);
}

// Without a log: the blocks go home at once. Sorted by block; adjoining ones in one request.
Result<void> JournalState::write_in_place(const std::vector<LogImage>& images) {
    for (std::size_t i = 0; i < images.size();) {
        std::vector<ConstBytes> parts;
        std::size_t j = i;
        while (j < images.size() && images[j].block.value == images[i].block.value + (j - i) && j - i < 512) {
            parts.push_back(images[j].bytes);
            ++j;
        }
        const std::uint64_t at = images[i].block.value * block_size;
        Result<void> written = device.writev(at, parts);
        // Half a superblock on the device would hide the log, which has all of it: it is written again, or given up.
        const bool has_super = at <= format::super_offset && format::super_offset < at + parts.size() * block_size;
        for (int again = 0; !written && has_super && again < 2; ++again) written = device.writev(at, parts);
        TRY(std::move(written));
        i = j;
    }
    return options.barrier ? flush_completed_writes(device) : Result<void>();
}

}  // namespace uext4
