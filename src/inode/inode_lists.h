// Lists of the inodes in memory by what keeps them there. An inode joins one when its last reference goes, and is
// looked at again only to evict it or to store its times.
//
// The caller of every method holds the inode table's lock. No method waits or asks for memory.
//
// Invariants
//   L1  A slot is in one list, or in none while its inode is read from disk.
//   L2  A referenced inode is in the list `in_use`; an unreferenced one is in the list of its standing.
//   L3  The lists of transactions are in ascending order of their numbers. A slot is in the list of its inode's last
//       transaction or of a newer one, so it becomes evictable after everything of it is durable.
#pragma once

#include "base/numbers.h"
#include "journal/journal.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace uext4 {

class Inode;
class SlotList;

// Why an inode stays in memory.
enum class InodeState : std::uint8_t {
    loading,        // a thread reads it from disk
    in_use,         // it is referenced
    dirty,          // its data, the mapping of its data or its size is not stored
    times_pending,  // only its times are not stored
    clean,          // everything is stored, in transactions that may not be durable
};

class InodeSlot {
public:
    explicit InodeSlot(InodeNr number);
    ~InodeSlot();
    InodeSlot(const InodeSlot&) = delete;
    InodeSlot& operator=(const InodeSlot&) = delete;

    const InodeNr number;
    std::unique_ptr<Inode> inode;  // null while it is read from disk
    InodeState state() const { return state_; }
    bool is_idle() const { return state_ != InodeState::loading && state_ != InodeState::in_use; }

private:
    friend class SlotList;
    friend class InodeLists;
    InodeState state_ = InodeState::loading;
    bool has_folios_ = false;   // settled: it is in the list `with_folios`
    std::uint64_t bucket_ = 0;  // settled: the bucket that it joined
    InodeSlot* previous_ = nullptr;
    InodeSlot* next_ = nullptr;
};

// Oldest first.
class SlotList {
public:
    InodeSlot* front() const { return first_; }
    static InodeSlot* after(const InodeSlot& slot) { return slot.next_; }
    bool empty() const { return !first_; }
    void push_back(InodeSlot& slot);
    void remove(InodeSlot& slot);
    void append(SlotList& other);  // `other` is empty then

private:
    InodeSlot* first_ = nullptr;
    InodeSlot* last_ = nullptr;
};

class InodeLists {
public:
    // Its first reference is made.
    void add_reference(InodeSlot& slot);
    // Its last reference goes. `last`: the newest transaction that has a change of it.
    void release(InodeSlot& slot, InodeState standing, Tid last);
    // It leaves memory.
    void remove(InodeSlot& slot);

    // Everything up to this transaction is durable.
    void note_durable(Tid durable);
    // The one that was released first of those that may be evicted, or null.
    InodeSlot* evictable() const { return with_folios_.empty() ? evictable_.front() : with_folios_.front(); }
    // The same without those that defer_eviction() has put aside.
    InodeSlot* evictable_without_folios() const { return evictable_.front(); }
    // It has folios, and must not be evicted by a thread that cannot wait for them.
    void defer_eviction(InodeSlot& slot);

    std::size_t evictable_count() const { return evictables_ + deferred_; }
    std::size_t committing_count() const;  // settled and not evictable
    std::size_t times_pending_count() const { return times_count_; }
    Tid newest_tid() const;  // the transaction with which all that are settled become evictable, or 0
    InodeSlot* oldest_times_pending() const { return times_.front(); }

    // Those that a walk over what has to be written back visits.
    template <class Visit>
    void for_each_dirty(Visit visit) const {
        for (const SlotList* list : {&in_use_, &unwritten_, &times_})
            for (const InodeSlot* slot = list->front(); slot; slot = SlotList::after(*slot)) visit(*slot);
    }
    void clear() { *this = {}; }

private:
    // Those that become evictable together.
    struct Bucket {
        Tid tid = 0;
        std::uint64_t number = 0;
        std::size_t count = 0;
        SlotList slots;
    };
    // Two transactions at most are not durable at a time. Where note_durable() was not called for long, the newest
    // bucket takes what finds none of its own.
    static constexpr std::size_t max_buckets = 4;
    Bucket& bucket_for(Tid tid);
    Bucket& bucket(std::uint64_t number) { return buckets_[number % max_buckets]; }
    const Bucket& bucket(std::uint64_t number) const { return buckets_[number % max_buckets]; }

    SlotList in_use_, unwritten_, times_, evictable_, with_folios_;
    std::size_t times_count_ = 0, evictables_ = 0, deferred_ = 0;
    // Buckets first_ to next_ - 1 are there; the slots of earlier ones are evictable.
    std::array<Bucket, max_buckets> buckets_;
    std::uint64_t first_ = 1, next_ = 1;
    Tid durable_ = 0;
};

}  // namespace uext4
