#include "fuse/inode_handles.h"

#include "format/constants.h"

#include <utility>

namespace uext4::fuse {

namespace {
constexpr std::uint64_t root_node = 1;  // FUSE_ROOT_ID
}

std::uint64_t node_of(InodeNr number) { return number.value == format::special_inode::root ? root_node : number.value; }

InodeNr number_of(std::uint64_t node) { return InodeNr(node == root_node ? format::special_inode::root : node); }

void InodeHandles::add(const InodeRef& inode) {
    const std::lock_guard guard(lock_);
    Known& known = known_[node_of(inode->number())];
    if (!known.inode) known.inode = inode;
    ++known.lookups;
}

InodeRef InodeHandles::find(std::uint64_t node) {
    const std::lock_guard guard(lock_);
    const auto it = known_.find(node);
    return it == known_.end() ? InodeRef() : it->second.inode;
}

void InodeHandles::forget(std::uint64_t node, std::uint64_t count) {
    InodeRef last;  // dropped after the lock: it may queue a deletion
    const std::lock_guard guard(lock_);
    const auto it = known_.find(node);
    if (it == known_.end()) return;
    if (it->second.lookups > count) {
        it->second.lookups -= count;
        return;
    }
    last = std::move(it->second.inode);
    known_.erase(it);
}

void InodeHandles::note_write(std::uint64_t node) {
    const std::lock_guard guard(lock_);
    if (const auto it = known_.find(node); it != known_.end()) it->second.written = true;
}

bool InodeHandles::take_note_of_write(std::uint64_t node) {
    const std::lock_guard guard(lock_);
    const auto it = known_.find(node);
    return it != known_.end() && std::exchange(it->second.written, false);
}

void InodeHandles::clear() {
    std::unordered_map<std::uint64_t, Known> all;
    {
        const std::lock_guard guard(lock_);
        all.swap(known_);
    }
}

}  // namespace uext4::fuse
