#include "inode/range_iterator.h"

namespace uext4 {

Result<bool> RangeIterator::look(std::uint64_t most) {
    if (done()) return false;
    MutexLock guard(inode_.map_lock);
    return look_held(most);
}

Result<bool> RangeIterator::look_held(std::uint64_t most) {
    if (done()) return false;
    run_ = TRY(inode_.places().lookup(at_, std::min(most, left())));
    if (run_.end() <= at_) return fail(EIO, "inode {}: the map goes no further than byte {}", inode_.number(), at_);
    return true;
}

Result<bool> RangeIterator::moved_held() {
    if (inode_.places().cookie() == run_.cookie) return false;
    const Mapping before = run_;
    const bool more = TRY(look_held());
    return !more || run_.place != before.place || run_.block != before.block || run_.end() < before.end();
}

}  // namespace uext4
