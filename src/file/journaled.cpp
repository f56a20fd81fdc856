#include "base/seam.h"
#include "file/file_io.h"
#include "sync/atomic_point.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>

namespace uext4 {

namespace {

// A folio's blocks in the running transaction. The commit copies them; a folio that goes before leaves its bytes here.
class JournaledFolio final : public JournaledData, public JournaledFolioOwner {
public:
    JournaledFolio(Inode& inode, Folio& folio)
        : inode_(inode), folio_(&folio), block_size_(inode.fs().block_size()), index_(folio.index) {}

    void add(BlockNr block, std::uint32_t slot) {
        MutexLock guard(lock_);
        kept_blocks_.erase(block.value);
        slots_[block.value] = slot;
        atomic_point("Folio::journaled", &folio_->journaled_blocks);
        folio_->journaled_blocks.fetch_or(BlockMask{1} << slot);
    }

    void copy_for_commit(BlockNr block, Bytes out) override {
        MutexLock guard(lock_);
        if (auto kept = kept_blocks_.find(block.value); kept != kept_blocks_.end()) {
            std::ranges::copy(kept->second, out.begin());
            kept_blocks_.erase(kept);
            return;
        }
        auto it = slots_.find(block.value);
        if (it == slots_.end()) return;
        const std::size_t at = std::size_t{it->second} * block_size_;
        if (folio_) {
            ClientMapsHook* maps = folio_->file->client_maps();
            if (folio_->mapped && maps && UEXT4_SEAM(commit_protects) && UEXT4_SEAM(commit_protects_by_itself))
                maps->write_protect(index_ * folio_->file->folio_size() + at, block_size_);
            copy_inside(out.first(block_size_), at);
            atomic_point("Folio::journaled", &folio_->journaled_blocks);
            folio_->journaled_blocks.fetch_and(~(BlockMask{1} << it->second));
        } else {
            std::memcpy(out.data(), kept_.data() + at, block_size_);
        }
        slots_.erase(it);
    }

    void detach_blocks(BlockMask blocks) {
        MutexLock guard(lock_);
        for (auto it = slots_.begin(); it != slots_.end();) {
            const BlockMask bit = BlockMask{1} << it->second;
            if (!folio_ || !(blocks & bit)) {
                ++it;
                continue;
            }
            const std::size_t at = std::size_t{it->second} * block_size_;
            std::vector<std::byte>& kept = kept_blocks_[it->first];
            kept.resize(block_size_);
            copy_inside(kept, at);
            folio_->journaled_blocks.fetch_and(~bit);
            it = slots_.erase(it);
        }
    }

    void detach(Folio& folio) override {
        MutexLock guard(lock_);
        if (folio_ != &folio) return;
        if (!slots_.empty()) {
            kept_.resize(folio.file->folio_size());
            copy_inside(kept_, 0);
        }
        folio.journaled_blocks.store(0);
        folio_ = nullptr;
    }

private:
    // The folio's bytes from `at` on. Stores through maps reach past the end of the file, and must not reach the disk;
    // who makes the file grow clears them, so they are not looked at.
    void copy_inside(Bytes out, std::size_t at) const {
        const std::uint64_t start = index_ * folio_->file->folio_size() + at, size = inode_.size_hint();
        const std::size_t keep = size > start ? std::min<std::uint64_t>(size - start, out.size()) : 0;
        std::memcpy(out.data(), folio_->data + at, keep);
        std::memset(out.data() + keep, 0, out.size() - keep);
    }

    Mutex lock_{Rank::Device, "JournaledFolio"};  // outside of what protects client maps
    Inode& inode_;                                // as long as the folio is there
    Folio* folio_;
    std::uint32_t block_size_;
    std::uint64_t index_;
    std::map<std::uint64_t, std::uint32_t> slots_;  // block -> which block of the folio
    std::vector<std::byte> kept_;
    std::map<std::uint64_t, std::vector<std::byte>> kept_blocks_;  // of a folio whose other blocks are still in it
};

}  // namespace

Result<void> journal_folio_blocks(Handle& handle, Inode& inode, LockedFolio& folio, BlockMask blocks) {
    const std::uint32_t bs = inode.fs().block_size();
    if (!folio->owner) folio->owner = std::make_shared<JournaledFolio>(inode, *folio);
    auto owner = std::static_pointer_cast<JournaledFolio>(folio->owner);
    const std::uint64_t start = folio->index * inode.pages().folio_size();
    for (std::uint32_t slot = 0; slot < std::numeric_limits<BlockMask>::digits && blocks >> slot; ++slot) {
        if (!(blocks >> slot & 1)) continue;
        const std::uint64_t at = start + std::uint64_t{slot} * bs;
        RangeIterator range(inode, at, at + bs);
        {
            MutexLock guard(inode.map_lock);
            (void)TRY(range.load_locked());
            inode.note_tid(handle.tid(), true);
        }
        if (const BlockState place = range.mapping().state; place != BlockState::mapped)
            return fail(EIO, "inode {}: journaled block {} is {}", inode.number(), at / bs, block_state_name(place));
        owner->add(range.block(), slot);
        TRY(handle.journal_data(range.block(), owner));
    }
    return {};
}

void release_journaled_blocks(LockedFolio& folio, BlockMask blocks) {
    if (folio->owner) std::static_pointer_cast<JournaledFolio>(folio->owner)->detach_blocks(blocks);
}

bool read_journaled_block(Inode& inode, BlockNr block, Bytes contents) {
    FsContext& fs = inode.fs();
    if (!inode.journals_data() && !fs.logged_data_blocks.has(block, 1)) return false;
    return fs.journal.read_journaled_data(block, 0, contents);
}

}  // namespace uext4
