#include "inode/inode_table.h"

#include "format/checksum.h"
#include "inode/attributes.h"
#include "inode/inline_data.h"
#include "inode/inode_lists.h"
#include "sync/atomic_point.h"
#include "sync/resource_tracking.h"

#include <sys/random.h>
#include <chrono>

#include <algorithm>
#include <array>
#include <cstring>
#include <unordered_map>

namespace uext4 {

namespace {

// So many more than the limit there may be before one is evicted.
constexpr std::size_t slack = 1024;
// So many leave memory at a time: every thread that wants an inode waits for the lock meanwhile.
constexpr std::size_t at_a_time = 64;

// An inode made when the inodes were smaller says that it uses nothing beyond 128 bytes: it uses what new ones do from
// now on, so that its times and attributes have room. The fields that Linux takes for used then are what they are on
// disk, and behind them there is nothing.
void adopt_extra_size(const format::Geometry& g, std::vector<std::byte>& raw) {
    constexpr std::size_t adopted = 32;
    if (raw.size() < format::classic_inode_size + adopted || g.want_extra_isize == 0) return;
    auto& extra = view_as<Le16>(Bytes(raw), offsetof(format::InodeDisk, extra_isize));
    if (extra != 0) return;
    std::fill(raw.begin() + format::classic_inode_size + adopted, raw.end(), std::byte{});
    extra = static_cast<std::uint16_t>(g.want_extra_isize);
}

}  // namespace

struct InodeTable::State {
    FsContext& fs;
    mutable Mutex lock{Rank::Journal, "InodeTable::lock"};
    CondVar loaded{"inode read"};
    std::unordered_map<std::uint64_t, InodeSlot> slots UEXT4_GUARDED_BY(lock);
    InodeLists lists UEXT4_GUARDED_BY(lock);
    // Deleted, still referenced, and their numbers given to new inodes already.
    std::unordered_map<Inode*, std::unique_ptr<Inode>> departed UEXT4_GUARDED_BY(lock);
    std::size_t limit UEXT4_GUARDED_BY(lock) = 32768;
    std::uint64_t looked_at UEXT4_GUARDED_BY(lock) = 0, visited UEXT4_GUARDED_BY(lock) = 0;
    Tid commit_asked UEXT4_GUARDED_BY(lock) = 0;  // the newest transaction that was asked to be committed
    std::function<void(InodeRef)> deleter UEXT4_GUARDED_BY(lock);
    // Changed under the lock, read without it: what was so when the lists were looked at last.
    std::atomic<bool> times_crowd{false};   // there are too many, until times of some are stored,
    std::atomic<bool> cached_crowd{false};  // or some are evicted with their folios, or are behind
    std::atomic<bool> behind{false};        // far too many, as commits and what stores times do not keep up

    // The system is asked once: to ask for each inode costs more than the rest of a small one.
    const std::uint64_t generation_seed = random_seed();
    std::atomic<std::uint64_t> generations{0};  // that were made

    static std::uint64_t random_seed() {
        std::uint64_t seed = 0;
        if (::getrandom(&seed, sizeof seed, GRND_NONBLOCK) != sizeof seed)
            seed = static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
        return seed;
    }

    // With a fixed time, the same for the same inode of the same image.
    std::uint32_t new_generation(InodeNr number) {
        if (fs.options.fixed_time) {
            std::uint32_t crc = ~0u;
            for (const std::uint32_t word : fs.geometry.hash_seed) crc = format::crc32c_le<std::uint32_t>(crc, word);
            return format::crc32c_le<std::uint64_t>(crc, number.value);
        }
        // The step and the mixing of SplitMix64 (Steele, Lea and Flood, 2014).
        std::uint64_t z = generation_seed + generations.fetch_add(1, std::memory_order_relaxed) * 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return static_cast<std::uint32_t>(z >> 32);
    }

    // Of an inode without references: no other thread changes what this looks at. No folio is looked at: a large file
    // has many.
    static InodeState standing_of(Inode& inode) {
        const bool unwritten = inode.extent_status().has_pending() || inode.truncate_incomplete.load() ||
                               (inode.is_regular() && inode.size() != inode.disk_size()) ||
                               inode.pages().has_dirty_or_writeback_unlocked();
        if (unwritten) return InodeState::dirty;
        return inode.times_pending() ? InodeState::times_pending : InodeState::clean;
    }

    // The thread that made the slot reads the inode from disk.
    static HeldResource reading(const InodeSlot& slot, InodeNr number) {
        return {&slot, "inode that is read", number.value};
    }

    std::size_t over() const UEXT4_REQUIRES(lock) { return slots.size() - std::min(slots.size(), limit); }
    bool crowded() const UEXT4_REQUIRES(lock) { return over() > slack; }

    InodeSlot& add(InodeNr number) UEXT4_REQUIRES(lock) {
        return slots.try_emplace(number.value, number).first->second;
    }
    InodeRef reference(InodeSlot& slot) UEXT4_REQUIRES(lock) {
        lists.add_reference(slot);
        slot.inode->references_.fetch_add(1, std::memory_order_relaxed);
        return InodeRef(slot.inode.get());
    }
    std::unique_ptr<Inode> take(InodeSlot& slot) UEXT4_REQUIRES(lock) {
        std::unique_ptr<Inode> inode = std::move(slot.inode);
        lists.remove(slot);
        slots.erase(slot.number.value);
        return inode;
    }
    // How many of those whose times wait have to be stored until enough can leave memory.
    std::size_t times_to_store() const UEXT4_REQUIRES(lock) {
        const std::size_t leaving = lists.evictable_count() + lists.committing_count();
        return crowded() && over() > leaving ? std::min(over() - leaving, lists.times_pending_count()) : 0;
    }
    // What keeps more than the limit in memory is noted. The transaction whose commit is to be asked for, or 0: one for
    // so many inodes that it is worth it, and one at a time.
    Tid judge(Tid durable) UEXT4_REQUIRES(lock) {
        const std::size_t evictable = lists.evictable_count(), committing = lists.committing_count();
        const bool is_behind =
            over() > 2 * slack && evictable == 0 && committing + lists.times_pending_count() >= slack;
        behind.store(is_behind, std::memory_order_relaxed);
        times_crowd.store(times_to_store() != 0, std::memory_order_relaxed);
        cached_crowd.store(is_behind || (crowded() && evictable != 0), std::memory_order_relaxed);
        if (!crowded() || committing < slack || commit_asked > durable) return 0;
        return commit_asked = lists.newest_tid();
    }
};

InodeTable::InodeTable(FsContext& fs) : state_(new State{fs}) {}
InodeTable::~InodeTable() = default;

void InodeTable::set_delete_callback(std::function<void(InodeRef)> queue) {
    MutexLock guard(state_->lock);
    state_->deleter = std::move(queue);
}
void InodeTable::set_limit(std::size_t inodes) {
    MutexLock guard(state_->lock);
    state_->limit = inodes;
}
std::uint64_t InodeTable::scanned_inodes() const {
    MutexLock guard(state_->lock);
    return state_->looked_at;
}

std::uint64_t InodeTable::visited_inodes() const {
    MutexLock guard(state_->lock);
    return state_->visited;
}

InodeRef InodeTable::find(InodeNr number) {
    MutexLock guard(state_->lock);
    auto it = state_->slots.find(number.value);
    if (it == state_->slots.end() || !it->second.inode) return {};
    return state_->reference(it->second);
}

Result<InodeRef> InodeTable::get(InodeNr number, bool allow_unlinked) {
    State& s = *state_;
    const format::Geometry& g = s.fs.geometry;
    if (!g.valid_inode(number)) return fail(EUCLEAN, "inode {}: the file system has {}", number, g.inodes_count);
    auto judged = [&](InodeRef inode) -> Result<InodeRef> {
        atomic_point("Inode::deleted", &inode->deleted);
        atomic_point("Inode::has_links", &*inode);
        if (inode->deleted.load() || (!inode->has_links_hint() && !allow_unlinked))
            return fail(ESTALE, "inode {} is not in use", number);
        return inode;
    };
    InodeSlot* being_read = nullptr;
    {
        MutexLock guard(s.lock);
        for (;;) {
            auto it = s.slots.find(number.value);
            if (it == s.slots.end()) break;
            if (it->second.inode) {
                InodeRef found = s.reference(it->second);
                guard.unlock();
                return judged(std::move(found));
            }
            s.loaded.wait(s.lock, s.reading(it->second, number));
        }
        being_read = &s.add(number);
        note_held(s.reading(*being_read, number), SourceLocation::current());
    }
    auto read = [&]() -> Result<std::unique_ptr<Inode>> {
        const Allocator::InodeLocation place = TRY(s.fs.allocator.locate_inode(number));
        BufferRef buffer = TRY(s.fs.buffers.read(place.block, "inode table"));
        std::vector<std::byte> raw(g.inode_size);
        {
            MutexLock guard(buffer->lock);
            std::memcpy(raw.data(), buffer->data().data() + place.offset, raw.size());
        }
        const bool unused = view_as<Le16>(ConstBytes(raw), offsetof(format::InodeDisk, mode)) == 0 &&
                            view_as<Le16>(ConstBytes(raw), offsetof(format::InodeDisk, links_count)) == 0;
        if (unused && number.value >= g.first_inode) return fail(ESTALE, "inode {} is not in use", number);
        // Decided before the inode is in the table: the last reference to one without links would delete it.
        const bool unlinked = view_as<Le16>(ConstBytes(raw), offsetof(format::InodeDisk, links_count)) == 0;
        if (unlinked && !allow_unlinked) return fail(ESTALE, "inode {} is not in use", number);
        if (!unused && !format::inode_checksum_ok(g, number, raw))
            return fail(EUCLEAN, "inode {}: bad checksum", number);
        TRY(format::validate_inode(g, number, raw));
        if (!unused) adopt_extra_size(g, raw);
        auto inode = std::make_unique<Inode>(s.fs, *this, number, std::move(raw));
        if (inode->has_flag(format::inode_flag::inline_data) && inode->uses_extents())
            return fail(EUCLEAN, "inode {}: i_flags is {:#x}: both inline_data and extents", number, inode->flags());
        const std::uint64_t limit = g.nameable_bytes(inode->will_use_extents());
        if (inode->is_regular() && inode->disk_size() > limit)
            return fail(EUCLEAN, "inode {}: i_size is {}, at most {}", number, inode->disk_size(), limit);
        return inode;
    };
    Result<std::unique_ptr<Inode>> inode = read();
    MutexLock guard(s.lock);
    note_released(being_read);
    s.loaded.notify_all();
    if (!inode) {
        s.slots.erase(number.value);
        guard.unlock();
        return fail(report_corruption(s.fs, inode.error()));
    }
    being_read->inode = std::move(*inode);
    being_read->inode->slot_ = being_read;
    InodeRef found = s.reference(*being_read);
    const bool crowded = s.crowded();
    guard.unlock();
    if (crowded) evict(Evict::without_folios);
    return judged(std::move(found));
}

Result<InodeRef> InodeTable::create(Handle& handle, const NewInode& what) {
    State& s = *state_;
    const format::Geometry& g = s.fs.geometry;
    const InodeNr number = TRY(s.fs.allocator.allocate_inode(handle, what.parent, S_ISDIR(what.mode)));
    auto inode = std::make_unique<Inode>(s.fs, *this, number, std::vector<std::byte>(g.inode_size));
    format::InodeDisk& d = inode->disk();
    if (g.inode_size > format::classic_inode_size) d.extra_isize = static_cast<std::uint16_t>(g.want_extra_isize);
    inode->set_mode(what.mode);
    inode->set_owner(what.uid, what.gid);
    d.generation = s.new_generation(number);
    const format::Timestamp stamp = current_time(s.fs);
    inode->set_atime(stamp);
    inode->set_mtime(stamp);
    inode->set_ctime(stamp);
    if (UEXT4_INODE_HAS(inode->raw(), crtime))
        format::encode_time(stamp, d.crtime, UEXT4_INODE_HAS(inode->raw(), crtime_extra) ? &d.crtime_extra : nullptr);
    namespace f = format::inode_flag;
    std::uint32_t flags =
        what.inherited_flags & (f::secrm | f::unrm | f::compr | f::sync | f::nodump | f::noatime | f::nocompr |
                                f::journal_data | f::notail | f::dirsync | f::dax | f::projinherit);
    if (S_ISREG(what.mode)) flags &= ~(f::dirsync | f::topdir | f::projinherit);
    else if (!S_ISDIR(what.mode)) flags &= f::nodump | f::noatime;
    const bool maps = S_ISREG(what.mode) || S_ISDIR(what.mode) || S_ISLNK(what.mode);
    if (maps && g.has_incompat(format::incompat::extents)) {
        flags |= f::extents;
        initialise_extent_root(inode->i_block());
    }
    inode->set_flags(flags);
    if (S_ISCHR(what.mode) || S_ISBLK(what.mode)) format::encode_device(d, what.rdev);
    if ((S_ISREG(what.mode) || S_ISDIR(what.mode)) && g.has_incompat(format::incompat::inline_data) &&
        g.inode_size > format::classic_inode_size && !(S_ISREG(what.mode) && (flags & f::dax))) {
        if (Result<void> started = init_inline_data(*inode); !started && started.error().code != ENOSPC)
            return fail(started.error());
    }
    Inode* raw = inode.get();
    InodeRef made;
    std::unique_ptr<Inode> gone;
    bool crowded = false;
    {
        MutexLock guard(s.lock);
        auto old = s.slots.find(number.value);
        // Whoever is reading it from disk will find it unused.
        while (old != s.slots.end() && !old->second.inode) {
            s.loaded.wait(s.lock, s.reading(old->second, number));
            old = s.slots.find(number.value);
        }
        if (old != s.slots.end()) {
            // The number's former inode is still in memory; it may be looked at by somebody for a moment.
            const Inode& holder = *old->second.inode;
            if (!holder.deleted.load() && !(old->second.is_idle() && holder.links() == 0))
                return fail(EUCLEAN, "inode {} was free and is in use", number);
            if (old->second.is_idle()) {
                gone = s.take(old->second);
            } else {
                Inode* former = old->second.inode.get();
                std::unique_ptr<Inode>& place = s.departed[former];
                former->slot_ = nullptr;
                place = s.take(old->second);
            }
        }
        InodeSlot& slot = s.add(number);
        slot.inode = std::move(inode);
        raw->slot_ = &slot;
        made = s.reference(slot);
        crowded = s.crowded();
    }
    if (crowded) evict(Evict::without_folios);
    MutexLock map(raw->map_lock);
    if (Result<void> stored = raw->store(handle); !stored) {
        raw->deleted.store(true);
        if (Result<void> undone = s.fs.allocator.free_inode(handle, number, S_ISDIR(what.mode)); !undone)
            s.fs.log(fmt::format("inode {} is taken and not used: {}", number, undone.error().what));
        return fail(stored.error());
    }
    return made;
}

Result<void> InodeTable::free_inode(Handle& handle, Inode& inode) {
    {
        MutexLock map(inode.map_lock);
        inode.disk().dtime = static_cast<std::uint32_t>(current_time(inode.fs()).sec);
        inode.set_links(0);
        inode.set_size(0);
        inode.set_disk_size(0);
        TRY(inode.store(handle));
    }
    atomic_point("Inode::deleted", &inode.deleted);
    inode.deleted.store(true);
    return state_->fs.allocator.free_inode(handle, inode.number(), inode.is_directory());
}

void InodeRef::reset() {
    Inode* inode = std::exchange(inode_, nullptr);
    if (!inode) return;
    InodeTable::State& s = *inode->table_.state_;
    atomic_point("Inode::references", &inode->references_);
    if (inode->references_.load(std::memory_order_relaxed) > 1) {
        std::uint32_t seen = inode->references_.load();
        while (seen > 1)
            if (inode->references_.compare_exchange_weak(seen, seen - 1)) return;
    }
    std::unique_ptr<Inode> gone;
    MutexLock guard(s.lock);
    if (inode->references_.load() == 1 && inode->links() == 0 && !inode->deleted.load() && s.deleter &&
        !inode->fs_.read_only.load()) {
        // This reference goes to the deleter.
        auto deleter = s.deleter;
        guard.unlock();
        deleter(InodeRef(inode));
        return;
    }
    if (inode->references_.fetch_sub(1) != 1) return;
    if (!inode->slot_) {
        const auto departed = s.departed.find(inode);
        gone = std::move(departed->second);
        s.departed.erase(departed);
    } else if (inode->deleted.load()) {
        gone = s.take(*inode->slot_);
    } else {
        s.lists.release(*inode->slot_, InodeTable::State::standing_of(*inode), inode->last_tid());
    }
    guard.unlock();
}

void InodeTable::shrink_to_limit() {
    // An error is told to the threads that wait for what the commit was to make durable.
    if (state_->behind.load(std::memory_order_relaxed)) (void)state_->fs.journal.commit_all();
    while (evict(Evict::any)) {
    }
}

bool InodeTable::is_overcommitted() const { return state_->behind.load(std::memory_order_relaxed); }

// True: there may be more to evict.
bool InodeTable::evict(Evict what) {
    State& s = *state_;
    std::array<std::unique_ptr<Inode>, at_a_time> gone;
    std::size_t evicted = 0;
    // An inode whose change is not durable stays: read again, it would not know that an fsync has to commit.
    const Tid durable = s.fs.journal.durable_tid();
    MutexLock guard(s.lock);
    s.lists.note_durable(durable);
    for (std::size_t n = 0; n < at_a_time && s.over() != 0; ++n) {
        InodeSlot* const oldest = what == Evict::any ? s.lists.evictable() : s.lists.evictable_without_folios();
        if (!oldest) break;
        ++s.looked_at;
        if (what == Evict::without_folios && oldest->inode->pages().cached_folios() != 0)
            s.lists.defer_eviction(*oldest);
        else gone[evicted++] = s.take(*oldest);
    }
    const Tid wanted = s.judge(durable);
    guard.unlock();
    if (wanted) s.fs.journal.request_commit(wanted);
    return evicted == at_a_time;
}

bool InodeTable::has_excess(Excess which) const {
    return (which == Excess::cached ? state_->cached_crowd : state_->times_crowd).load(std::memory_order_relaxed);
}

std::vector<InodeRef> InodeTable::oldest_times_pending(std::size_t most) {
    State& s = *state_;
    std::vector<InodeRef> found;
    if (!s.times_crowd.load(std::memory_order_relaxed)) return found;
    found.reserve(most);
    MutexLock guard(s.lock);
    for (std::size_t left = std::min(most, s.times_to_store()); left > 0; --left) {
        ++s.looked_at;
        found.push_back(s.reference(*s.lists.oldest_times_pending()));
    }
    if (found.empty()) s.times_crowd.store(false, std::memory_order_relaxed);
    return found;
}

void InodeTable::for_each(const std::function<void(InodeRef)>& visit) {
    State& s = *state_;
    std::vector<std::uint64_t> numbers;
    {
        MutexLock guard(s.lock);
        s.lists.for_each_dirty([&](const InodeSlot& slot) { numbers.push_back(slot.number.value); });
        s.visited += numbers.size();
    }
    for (std::uint64_t number : numbers)
        if (InodeRef inode = find(InodeNr(number))) visit(std::move(inode));
}

void InodeTable::evict_all() {
    State& s = *state_;
    std::unordered_map<std::uint64_t, InodeSlot> gone;
    MutexLock guard(s.lock);
    gone.swap(s.slots);
    s.lists.clear();
    guard.unlock();
}

}  // namespace uext4
