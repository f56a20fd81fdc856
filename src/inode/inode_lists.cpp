#include "inode/inode_lists.h"

#include "inode/inode.h"

#include <algorithm>
#include <utility>

namespace uext4 {

InodeSlot::InodeSlot(InodeNr n) : number(n) {}
InodeSlot::~InodeSlot() = default;

void SlotList::push_back(InodeSlot& slot) {
    slot.previous_ = last_;
    slot.next_ = nullptr;
    (last_ ? last_->next_ : first_) = &slot;
    last_ = &slot;
}

void SlotList::remove(InodeSlot& slot) {
    (slot.previous_ ? slot.previous_->next_ : first_) = slot.next_;
    (slot.next_ ? slot.next_->previous_ : last_) = slot.previous_;
    slot.previous_ = slot.next_ = nullptr;
}

void SlotList::append(SlotList& other) {
    if (other.empty()) return;
    other.first_->previous_ = last_;
    (last_ ? last_->next_ : first_) = other.first_;
    last_ = other.last_;
    other.first_ = other.last_ = nullptr;
}

void InodeLists::add_reference(InodeSlot& slot) {
    if (slot.state_ == InodeState::in_use) return;
    remove(slot);
    slot.state_ = InodeState::in_use;
    in_use_.push_back(slot);
}

void InodeLists::release(InodeSlot& slot, InodeState standing, Tid last) {
    remove(slot);
    slot.state_ = standing;
    switch (standing) {
        case InodeState::loading: break;
        case InodeState::in_use: in_use_.push_back(slot); break;
        case InodeState::dirty: unwritten_.push_back(slot); break;
        case InodeState::times_pending:
            times_.push_back(slot);
            ++times_count_;
            break;
        case InodeState::clean:
            slot.has_folios_ = false;
            if (last <= durable_) {
                slot.bucket_ = 0;
                evictable_.push_back(slot);
                ++evictables_;
            } else {
                Bucket& joined = bucket_for(last);
                slot.bucket_ = joined.number;
                joined.slots.push_back(slot);
                ++joined.count;
            }
            break;
    }
}

void InodeLists::remove(InodeSlot& slot) {
    switch (std::exchange(slot.state_, InodeState::loading)) {
        case InodeState::loading: break;
        case InodeState::in_use: in_use_.remove(slot); break;
        case InodeState::dirty: unwritten_.remove(slot); break;
        case InodeState::times_pending:
            times_.remove(slot);
            --times_count_;
            break;
        case InodeState::clean:
            if (slot.has_folios_) {
                with_folios_.remove(slot);
                --deferred_;
            } else if (slot.bucket_ < first_) {
                evictable_.remove(slot);
                --evictables_;
            } else {
                Bucket& joined = bucket(slot.bucket_);
                joined.slots.remove(slot);
                --joined.count;
            }
            break;
    }
}

InodeLists::Bucket& InodeLists::bucket_for(Tid tid) {
    if (first_ != next_) {
        Bucket& newest = bucket(next_ - 1);
        if (tid <= newest.tid) return newest;
        if (next_ - first_ == max_buckets) {
            newest.tid = tid;
            return newest;
        }
    }
    Bucket& made = bucket(next_);
    made.tid = tid;
    made.number = next_++;
    return made;
}

void InodeLists::note_durable(Tid durable) {
    durable_ = std::max(durable_, durable);
    while (first_ != next_ && bucket(first_).tid <= durable_) {
        Bucket& over = bucket(first_++);
        evictables_ += std::exchange(over.count, 0);
        evictable_.append(over.slots);
    }
}

void InodeLists::defer_eviction(InodeSlot& slot) {
    evictable_.remove(slot);
    --evictables_;
    with_folios_.push_back(slot);
    ++deferred_;
    slot.has_folios_ = true;
}

std::size_t InodeLists::committing_count() const {
    std::size_t count = 0;
    for (std::uint64_t number = first_; number != next_; ++number) count += bucket(number).count;
    return count;
}

Tid InodeLists::newest_tid() const { return first_ == next_ ? 0 : bucket(next_ - 1).tid; }

}  // namespace uext4
