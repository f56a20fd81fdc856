#include "inode/inode_table.h"

#include "format/checksum.h"
#include "inode/attributes.h"
#include "inode/inline_area.h"
#include "sync/atomic_point.h"
#include "sync/holding.h"

#include <sys/random.h>
#include <chrono>

#include <algorithm>
#include <cstring>
#include <list>
#include <unordered_map>

namespace uext4 {

namespace {

// So many more than the limit there may be before it is looked for some to evict.
constexpr std::size_t slack = 1024;

struct Slot {
    explicit Slot(InodeNr number) : place{number}, node(place.begin()) {}

    std::unique_ptr<Inode> inode;  // null while it is read from disk
    // The slot's node of the list of idle inodes, kept here while the inode is referenced: giving up a reference, which
    // a destructor does, asks for no memory.
    std::list<InodeNr> place;
    std::list<InodeNr>::iterator node;

    bool is_idle() const { return place.empty(); }
};

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
    Mutex lock{Rank::Journal, "InodeTable::lock"};
    CondVar loaded{"inode read"};
    std::unordered_map<std::uint64_t, Slot> slots;
    std::list<InodeNr> idle;  // unreferenced, oldest first
    // Deleted, still referenced, and their numbers given to new inodes already.
    std::unordered_map<Inode*, std::unique_ptr<Inode>> departed;
    std::size_t limit = 32768;
    std::size_t vain_until = 0;             // with fewer slots than this there is nothing to evict: it was looked for
    std::atomic<bool> times_crowd{false};   // there are too many, and times of some are to be stored,
    std::atomic<bool> cached_crowd{false};  // or some have folios, or are behind
    std::atomic<bool> behind{false};        // far too many, as commits and what stores times do not keep up
    std::size_t without_times = 0;  // so many idle ones were looked at one after the other whose times are stored
    std::function<void(InodeRef)> deleter;

    // Why an inode that nobody uses has to stay.
    enum class Stays { not_at_all, for_times, for_more };
    // Nothing is to be written back; and nothing that it knows of its transactions is of use beyond `durable`.
    static Stays stays(Inode& inode, Tid durable) {
        if (!inode.map_lock.try_lock()) return Stays::for_more;
        const bool times = inode.times_pending();
        const bool ok = !inode.places().has_pending() && inode.last_tid() <= durable && !inode.cut_unfinished.load() &&
                        (!inode.is_regular() || inode.size() == inode.disk_size());
        inode.map_lock.unlock();
        if (!ok || !inode.pages().idle()) return Stays::for_more;
        return times ? Stays::for_times : Stays::not_at_all;
    }
    static bool clean(Inode& inode, Tid durable) { return stays(inode, durable) == Stays::not_at_all; }
    // Looks at no folio: a large file has many.
    static bool unwritten(Inode& inode) {
        if (!inode.map_lock.try_lock()) return true;
        const bool here = inode.times_pending() || inode.places().has_pending() ||
                          (inode.is_regular() && inode.size() != inode.disk_size());
        inode.map_lock.unlock();
        return here || inode.pages().has_unwritten();
    }

    // Whoever made the slot reads the inode from disk.
    static Holdable reading(const Slot& slot, InodeNr number) { return {&slot, "inode that is read", number.value}; }

    bool crowded() const { return slots.size() > std::max(limit + slack, vain_until); }

    InodeRef reference(Slot& slot) {
        if (slot.is_idle()) slot.place.splice(slot.place.begin(), idle, slot.node);
        slot.inode->references_.fetch_add(1, std::memory_order_relaxed);
        return InodeRef(slot.inode.get());
    }
};

InodeTable::InodeTable(FsContext& fs) : state_(new State{fs}) {}
InodeTable::~InodeTable() = default;

void InodeTable::set_deleter(std::function<void(InodeRef)> queue) { state_->deleter = std::move(queue); }
void InodeTable::set_limit(std::size_t inodes) { state_->limit = inodes; }

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
    const Slot* being_read = nullptr;
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
        being_read = &s.slots.emplace(number.value, Slot(number)).first->second;
        note_held(s.reading(*being_read, number), SourceLocation::current());
    }
    auto read = [&]() -> Result<std::unique_ptr<Inode>> {
        const Allocator::InodePlace place = TRY(s.fs.allocator.place_of(number));
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
    note_given_up(being_read);
    s.loaded.notify_all();
    if (!inode) {
        s.slots.erase(number.value);
        guard.unlock();
        return fail(report(s.fs, inode.error()));
    }
    Slot& slot = s.slots.at(number.value);
    slot.inode = std::move(*inode);
    InodeRef found = s.reference(slot);
    const bool crowded = s.crowded();
    guard.unlock();
    if (crowded) shrink(Evict::without_folios);
    return judged(std::move(found));
}

namespace {

std::uint32_t new_generation(const FsContext& fs, InodeNr number) {
    if (fs.options.fixed_time) {
        std::uint32_t crc = ~0u;
        for (const std::uint32_t word : fs.geometry.hash_seed) crc = format::crc32c_le<std::uint32_t>(crc, word);
        return format::crc32c_le<std::uint64_t>(crc, number.value);
    }
    std::uint32_t generation = 0;
    if (::getrandom(&generation, sizeof generation, GRND_NONBLOCK) != sizeof generation)
        generation = static_cast<std::uint32_t>(std::chrono::steady_clock::now().time_since_epoch().count());
    return generation;
}

}  // namespace

Result<InodeRef> InodeTable::create(Handle& handle, const NewInode& what) {
    State& s = *state_;
    const format::Geometry& g = s.fs.geometry;
    const InodeNr number = TRY(s.fs.allocator.allocate_inode(handle, what.parent, S_ISDIR(what.mode)));
    auto inode = std::make_unique<Inode>(s.fs, *this, number, std::vector<std::byte>(g.inode_size));
    format::InodeDisk& d = inode->disk();
    if (g.inode_size > format::classic_inode_size) d.extra_isize = static_cast<std::uint16_t>(g.want_extra_isize);
    inode->set_mode(what.mode);
    inode->set_owner(what.uid, what.gid);
    d.generation = new_generation(s.fs, number);
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
        initialise_extent_root(inode->map_root());
    }
    inode->set_flags(flags);
    if (S_ISCHR(what.mode) || S_ISBLK(what.mode)) format::encode_device(d, what.rdev);
    if ((S_ISREG(what.mode) || S_ISDIR(what.mode)) && g.has_incompat(format::incompat::inline_data) &&
        g.inode_size > format::classic_inode_size && !(S_ISREG(what.mode) && (flags & f::dax))) {
        if (Result<void> started = start_inline(*inode); !started && started.error().code != ENOSPC)
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
                s.idle.erase(old->second.node);
                gone = std::move(old->second.inode);
            } else {
                Inode* former = old->second.inode.get();
                s.departed.emplace(former, std::move(old->second.inode));
            }
            s.slots.erase(old);
        }
        Slot& slot = s.slots.emplace(number.value, Slot(number)).first->second;
        slot.inode = std::move(inode);
        made = s.reference(slot);
        crowded = s.crowded();
    }
    if (crowded) shrink(Evict::without_folios);
    MutexLock map(raw->map_lock);
    if (Result<void> stored = raw->store(handle); !stored) {
        raw->deleted.store(true);
        if (Result<void> undone = s.fs.allocator.free_inode(handle, number, S_ISDIR(what.mode)); !undone)
            s.fs.log(fmt::format("inode {} is taken and not used: {}", number, undone.error().what));
        return fail(stored.error());
    }
    return made;
}

Result<void> InodeTable::release(Handle& handle, Inode& inode) {
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
    auto it = s.slots.find(inode->number_.value);
    if (auto departed = s.departed.find(inode); departed != s.departed.end()) {
        gone = std::move(departed->second);
        s.departed.erase(departed);
        guard.unlock();
        return;
    }
    if (inode->deleted.load()) {
        gone = std::move(it->second.inode);
        s.slots.erase(it);
        guard.unlock();
        return;
    }
    s.idle.splice(s.idle.end(), it->second.place);
}

void InodeTable::shrink() {
    if (!state_->behind.exchange(false)) return shrink(Evict::any);
    (void)state_->fs.journal.commit_all();  // an error is told by who waits for what it was to make durable
    shrink(Evict::all);
}

bool InodeTable::is_behind() const { return state_->behind.load(std::memory_order_relaxed); }

void InodeTable::shrink(Evict what) {
    try {
        while (shrink_some(what)) {
        }
    } catch (const std::bad_alloc&) {  // then they stay
    }
}

// False when there is no more to do.
bool InodeTable::shrink_some(Evict what) {
    State& s = *state_;
    constexpr std::size_t most_evicted = 4096;  // at a time: the lock is everybody's
    constexpr std::size_t kept_mostly = 256;    // looked at in vain: then the others wait for the same as well
    std::vector<std::unique_ptr<Inode>> gone;
    // An inode whose change is not durable stays: read again, it would not know that an fsync has to commit.
    const Tid durable = s.fs.journal.durable_tid();
    std::size_t kept = 0, waits_for_commit = 0, waits_for_times = 0, cached = 0;
    MutexLock guard(s.lock);
    const std::size_t most_kept = what == Evict::all ? s.idle.size() + 1 : kept_mostly;
    std::size_t budget = s.idle.size();
    if (s.slots.size() > s.limit) gone.reserve(std::min(s.slots.size() - s.limit, most_evicted));
    while (s.slots.size() > s.limit && budget-- > 0 && kept < most_kept && gone.size() < most_evicted) {
        const InodeNr number = s.idle.front();
        auto it = s.slots.find(number.value);
        Inode& oldest = *it->second.inode;
        const bool has_folios = what == Evict::without_folios && oldest.pages().cached_folios() != 0;
        const State::Stays why = State::stays(oldest, durable);
        if (has_folios || why != State::Stays::not_at_all) {
            s.idle.splice(s.idle.end(), s.idle, s.idle.begin());
            ++kept;
            waits_for_times += why == State::Stays::for_times;
            waits_for_commit += !has_folios && why == State::Stays::for_more;
            cached += has_folios;
            continue;
        }
        s.idle.pop_front();
        gone.push_back(std::move(it->second.inode));
        s.slots.erase(it);
    }
    const bool in_vain = kept == most_kept;
    const bool behind = in_vain && waits_for_commit + waits_for_times != 0 && s.slots.size() > s.limit + 2 * slack;
    if (behind) s.behind.store(true, std::memory_order_relaxed);
    if (s.slots.size() <= s.limit) s.vain_until = 0;
    else if (what != Evict::any) s.vain_until = s.slots.size() + slack;
    if (in_vain && waits_for_times != 0) {
        s.times_crowd.store(true, std::memory_order_relaxed);
        s.without_times = 0;
    }
    if (what != Evict::without_folios) s.cached_crowd.store(behind, std::memory_order_relaxed);
    else if ((cached != 0 || behind) && s.vain_until != 0) s.cached_crowd.store(true, std::memory_order_relaxed);
    guard.unlock();
    if (in_vain && waits_for_commit != 0) s.fs.journal.request_commit(s.fs.journal.running());
    return gone.size() == most_evicted;
}

bool InodeTable::has_crowd(Crowd which) const {
    return (which == Crowd::cached ? state_->cached_crowd : state_->times_crowd).load(std::memory_order_relaxed);
}

std::vector<InodeRef> InodeTable::waiting_for_times(std::size_t most) {
    State& s = *state_;
    std::vector<InodeRef> found;
    if (!s.times_crowd.load(std::memory_order_relaxed)) return found;
    found.reserve(most);
    MutexLock guard(s.lock);
    const std::size_t all = s.idle.size();
    for (std::size_t budget = s.behind.load() ? all : std::min(all, 4 * most); budget-- > 0 && found.size() < most;) {
        Slot& slot = s.slots.find(s.idle.front().value)->second;
        if (State::stays(*slot.inode, ~Tid{0}) == State::Stays::for_times) {
            found.push_back(s.reference(slot));
            s.without_times = 0;
        } else {
            s.idle.splice(s.idle.end(), s.idle, s.idle.begin());
            ++s.without_times;
        }
    }
    if (s.without_times >= all) s.times_crowd.store(false, std::memory_order_relaxed);
    return found;
}

void InodeTable::for_each(const std::function<void(InodeRef)>& visit) {
    State& s = *state_;
    std::vector<std::uint64_t> numbers;
    {
        MutexLock guard(s.lock);
        for (const auto& [number, slot] : s.slots)
            if (slot.inode && (!slot.is_idle() || State::unwritten(*slot.inode))) numbers.push_back(number);
    }
    for (std::uint64_t number : numbers)
        if (InodeRef inode = find(InodeNr(number))) visit(std::move(inode));
}

void InodeTable::evict_all() {
    State& s = *state_;
    std::unordered_map<std::uint64_t, Slot> gone;
    MutexLock guard(s.lock);
    gone.swap(s.slots);
    s.idle.clear();
    guard.unlock();
}

}  // namespace uext4
