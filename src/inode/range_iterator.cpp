#include "inode/range_iterator.h"

namespace uext4 {

Result<bool> RangeIterator::load(std::uint64_t most) {
    if (done()) return false;
    MutexLock guard(inode_.map_lock);
    return load_locked(most);
}

Result<bool> RangeIterator::load_locked(std::uint64_t most) {
    if (done()) return false;
    mapping_ = TRY(inode_.extent_status().lookup(at_, std::min(most, left())));
    if (mapping_.end() <= at_) return fail(EIO, "inode {}: the map goes no further than byte {}", inode_.number(), at_);
    return true;
}

Result<bool> RangeIterator::has_moved_locked() {
    if (inode_.extent_status().sequence() == mapping_.sequence) return false;
    const Mapping before = mapping_;
    const bool more = TRY(load_locked());
    return !more || mapping_.state != before.state || mapping_.block != before.block || mapping_.end() < before.end();
}

}  // namespace uext4
