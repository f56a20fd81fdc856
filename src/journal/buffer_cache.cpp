#include "journal/buffer.h"

#include "sync/atomic_point.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <list>
#include <unordered_map>

namespace uext4 {

namespace {

constexpr std::size_t shard_count = 16;

// How many buffers one miss looks at for a victim: pinned ones must not make every miss walk the whole shard.
constexpr std::size_t clock_steps = 64;

struct Cached {
    std::unique_ptr<Buffer> buffer;
    std::list<Buffer*>::iterator place;  // in the shard's order
};

struct Shard {
    Mutex lock{Rank::Leaf, "BufferCache::shard"};
    std::unordered_map<std::uint64_t, Cached> buffers;
    std::list<Buffer*> order;  // the clock's hand is at the front
};

}  // namespace

struct BufferCache::State {
    State(BlockDevice& d, std::uint32_t bs, std::uint64_t n, std::uint64_t l)
        : device(d), block_size(bs), blocks(n), limit(l) {}
    BlockDevice& device;
    std::uint32_t block_size;
    std::uint64_t blocks, limit;
    std::atomic<std::uint64_t> bytes{0};
    std::function<void(const Error&)> on_unreadable;
    BlockPool contents{block_size};  // outlives the buffers
    std::array<Shard, shard_count> shards;

    Shard& shard(BlockNr block) { return shards[(block.value / 8) % shard_count]; }
};

BufferCache::BufferCache(BlockDevice& device, std::uint32_t block_size, std::uint64_t blocks_count, std::uint64_t limit)
    : state_(std::make_unique<State>(device, block_size, blocks_count, limit)) {}
BufferCache::~BufferCache() = default;

void BufferCache::set_read_error_callback(std::function<void(const Error&)> told) {
    state_->on_unreadable = std::move(told);
}

std::uint32_t BufferCache::block_size() const { return state_->block_size; }
std::uint64_t BufferCache::blocks_count() const { return state_->blocks; }
std::uint64_t BufferCache::cached_bytes() const { return state_->bytes.load(); }
BlockDevice& BufferCache::device() { return state_->device; }

Result<BufferRef> BufferCache::get(BlockNr block, const char* what) {
    if (block.value >= state_->blocks) return fail(EUCLEAN, "{}: block {} of {}", what, block, state_->blocks);
    return find_or_add(block, nullptr);
}

Result<BufferRef> BufferCache::get_for_journaled_data(BlockNr block) {
    if (block.value >= state_->blocks) return fail(EUCLEAN, "journaled data: block {} of {}", block, state_->blocks);
    return find_or_add(block, TRY(state_->contents.allocate()));
}

// `memory` is for the buffer if there is none yet; without, it is malloc's, with the sanitizers' eyes on its borders.
BufferRef BufferCache::find_or_add(BlockNr block, Memory&& memory) {
    State& s = *state_;
    Shard& shard = s.shard(block);
    std::vector<std::unique_ptr<Buffer>> evicted;
    MutexLock guard(shard.lock);
    if (auto it = shard.buffers.find(block.value); it != shard.buffers.end()) {
        Buffer* found = it->second.buffer.get();
        found->references_.fetch_add(1);
        found->recently_used_.store(true, std::memory_order_relaxed);
        return BufferRef(found);
    }
    // The clock: one that is unreferenced and was not used since the hand passed goes for one that comes.
    if (s.bytes.load() >= s.limit) {
        std::size_t budget = std::min(shard.order.size(), clock_steps);
        while (budget-- > 0 && evicted.size() < 2) {
            Buffer* oldest = shard.order.front();
            if (oldest->references_.load() != 0 || oldest->recently_used_.exchange(false)) {
                shard.order.splice(shard.order.end(), shard.order, shard.order.begin());
                continue;
            }
            shard.order.pop_front();
            auto it = shard.buffers.find(oldest->block().value);
            evicted.push_back(std::move(it->second.buffer));
            shard.buffers.erase(it);
            s.bytes.fetch_sub(s.block_size);
        }
    }
    auto made = std::make_unique<Buffer>();
    made->block_ = block;
    made->size_ = s.block_size;
    made->data_ = std::move(memory);
    if (!made->data_) {
        // Not by `new std::byte[]()`: unoptimised, that is a loop over the bytes.
        made->data_ = Memory(new std::byte[s.block_size]);
        std::memset(made->data_.get(), 0, s.block_size);
    }
    made->references_.store(1);
    Buffer* raw = made.get();
    shard.order.push_back(raw);
    shard.buffers.emplace(block.value, Cached{std::move(made), std::prev(shard.order.end())});
    s.bytes.fetch_add(s.block_size);
    return BufferRef(raw);
}

Result<BufferRef> BufferCache::read(BlockNr block, const char* what) {
    BufferRef buffer = TRY(get(block, what));
    // Two readers of one block meet here: the second finds what the first has read.
    atomic_point("Buffer::uptodate", &buffer->uptodate_);
    if (buffer->uptodate_.load(std::memory_order_acquire)) return buffer;
    MutexLock guard(buffer->read_lock_);
    if (buffer->uptodate_.load(std::memory_order_acquire)) return buffer;
    if (Result<void> r = state_->device.read(block.value * state_->block_size, buffer->data()); !r) {
        const Error error{r.error().code, fmt::format("{}: block {}: {}", what, block, r.error().what)};
        if (state_->on_unreadable) state_->on_unreadable(error);
        return fail(error);
    }
    buffer->set_kind(BlockKind::unchecked);
    atomic_point("Buffer::uptodate", &buffer->uptodate_);
    buffer->uptodate_.store(true, std::memory_order_release);
    return buffer;
}

BufferRef BufferCache::find(BlockNr block) {
    Shard& shard = state_->shard(block);
    MutexLock guard(shard.lock);
    auto it = shard.buffers.find(block.value);
    if (it == shard.buffers.end()) return {};
    Buffer* found = it->second.buffer.get();
    if (!found->uptodate_.load(std::memory_order_acquire)) return {};
    found->references_.fetch_add(1);
    return BufferRef(found);
}

void BufferCache::read_ahead(BlockNr first, std::uint32_t count) {
    State& s = *state_;
    if (first.value >= s.blocks) return;
    count = static_cast<std::uint32_t>(std::min<std::uint64_t>(count, s.blocks - first.value));
    std::vector<BufferRef> run;
    std::vector<std::byte> bytes;
    for (std::uint32_t i = 0; i < count;) {
        // Referenced before they are read: none can be changed, written, evicted and then filled with what was read
        // here.
        run.clear();
        while (i + run.size() < count && run.size() < 256) {
            Result<BufferRef> buffer = get(first + (i + run.size()), "read ahead");
            if (!buffer) return;
            if ((*buffer)->uptodate_.load(std::memory_order_acquire)) break;
            run.push_back(std::move(*buffer));
        }
        if (run.empty()) {
            ++i;
            continue;
        }
        bytes.resize(run.size() * s.block_size);
        if (!s.device.read((first.value + i) * s.block_size, bytes)) return;
        for (std::size_t k = 0; k < run.size(); ++k) {
            MutexLock guard(run[k]->read_lock_);
            // Somebody may have read it, filled it or changed it meanwhile: theirs is newer.
            if (run[k]->uptodate_.load()) continue;
            std::memcpy(run[k]->data().data(), bytes.data() + k * s.block_size, s.block_size);
            run[k]->set_kind(BlockKind::unchecked);
            run[k]->uptodate_.store(true, std::memory_order_release);
        }
        i += static_cast<std::uint32_t>(run.size());
    }
}

void BufferCache::invalidate(BlockNr block) {
    Shard& shard = state_->shard(block);
    std::unique_ptr<Buffer> gone;
    MutexLock guard(shard.lock);
    auto it = shard.buffers.find(block.value);
    if (it == shard.buffers.end()) return;
    Buffer* buffer = it->second.buffer.get();
    if (buffer->references_.load() != 0) {
        // Whoever still looks at it keeps the bytes for now; the next reader reads again.
        buffer->set_kind(BlockKind::unchecked);
        buffer->uptodate_.store(false, std::memory_order_release);
        return;
    }
    shard.order.erase(it->second.place);
    gone = std::move(it->second.buffer);
    shard.buffers.erase(it);
    state_->bytes.fetch_sub(state_->block_size);
}

void BufferCache::invalidate_all_clean() {
    for (Shard& shard : state_->shards) {
        std::vector<std::unique_ptr<Buffer>> gone;
        MutexLock guard(shard.lock);
        for (auto it = shard.buffers.begin(); it != shard.buffers.end();) {
            if (it->second.buffer->references_.load() != 0) {
                ++it;
                continue;
            }
            shard.order.erase(it->second.place);
            gone.push_back(std::move(it->second.buffer));
            it = shard.buffers.erase(it);
            state_->bytes.fetch_sub(state_->block_size);
        }
    }
}

}  // namespace uext4
