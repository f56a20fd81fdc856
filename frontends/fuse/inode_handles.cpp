#include "fuse/inode_handles.h"

#include "format/constants.h"

#include <utility>

namespace uext4::fuse {

namespace {
constexpr std::uint64_t root_node = 1;  // FUSE_ROOT_ID
}

std::uint64_t node_of(InodeNr number) { return number.value == format::special_inode::root ? root_node : number.value; }

namespace {
bool has_several_names(const struct stat& attributes) {
    return !S_ISDIR(attributes.st_mode) && attributes.st_nlink > 1;
}
}  // namespace

InodeNr number_of(std::uint64_t node) { return InodeNr(node == root_node ? format::special_inode::root : node); }

void InodeHandles::Known::note(const struct stat& attributes, pid_t by) {
    if (has_several_names(attributes)) had_several_names = true;
    if (!S_ISDIR(attributes.st_mode)) return;
    // A thread outside of the mount's namespace of processes is told as 0, like any other there.
    several_askers = several_askers || by == 0 || (asker != 0 && asker != by);
    asker = by;
}

void InodeHandles::add(const InodeRef& inode, const struct stat& attributes, pid_t asker) {
    const std::lock_guard guard(lock_);
    Known& known = known_[node_of(inode->number())];
    if (!known.inode) known.inode = inode;
    ++known.lookups;
    known.note(attributes, asker);
    if (!S_ISREG(attributes.st_mode)) return;
    (writers_.contains(node_of(inode->number())) ? known.told_while_written : known.told_for_long) = true;
}

void InodeHandles::add_root(const InodeRef& inode) {
    const std::lock_guard guard(lock_);
    known_[root_node] = Known{.inode = inode, .lookups = 1};
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

bool InodeHandles::told_to_others(std::uint64_t node, pid_t changer) {
    const std::lock_guard guard(lock_);
    const auto it = known_.find(node);
    if (it == known_.end()) return false;
    const pid_t asker = std::exchange(it->second.asker, 0);
    return std::exchange(it->second.several_askers, false) || (asker != 0 && asker != changer);
}

double InodeHandles::attributes_last(std::uint64_t node, const struct stat& attributes, pid_t asker) {
    const std::lock_guard guard(lock_);
    const auto it = known_.find(node);
    if (it != known_.end()) it->second.note(attributes, asker);
    if (it != known_.end() ? it->second.had_several_names : has_several_names(attributes)) return 0;
    if (!S_ISREG(attributes.st_mode)) return cache_timeout;
    const bool grows = writers_.contains(node);
    if (it != known_.end()) (grows ? it->second.told_while_written : it->second.told_for_long) = true;
    return grows ? growing_timeout : cache_timeout;
}

bool InodeHandles::note_write(std::uint64_t node) {
    const std::lock_guard guard(lock_);
    const auto it = known_.find(node);
    if (it == known_.end()) return false;
    it->second.written = true;
    it->second.last_time.reset();  // by a descriptor that was open
    return std::exchange(it->second.told_for_long, false);
}

void InodeHandles::opened_to_write(std::uint64_t node) {
    const std::lock_guard guard(lock_);
    ++writers_[node];
}

void InodeHandles::closed_to_write(std::uint64_t node) {
    const std::lock_guard guard(lock_);
    if (const auto it = writers_.find(node); it != writers_.end() && --it->second == 0) writers_.erase(it);
}

bool InodeHandles::has_writers(std::uint64_t node) {
    const std::lock_guard guard(lock_);
    return writers_.contains(node);
}

bool InodeHandles::told_while_written(std::uint64_t node) {
    const std::lock_guard guard(lock_);
    const auto it = known_.find(node);
    return it != known_.end() && std::exchange(it->second.told_while_written, false);
}

bool InodeHandles::take_note_of_write(std::uint64_t node, const timespec& mtime) {
    const std::lock_guard guard(lock_);
    const auto it = known_.find(node);
    if (it == known_.end()) return false;
    const std::optional<timespec>& last = it->second.last_time;
    const bool late =
        last && (mtime.tv_sec > last->tv_sec || (mtime.tv_sec == last->tv_sec && mtime.tv_nsec > last->tv_nsec));
    return std::exchange(it->second.written, false) && !late;
}

void InodeHandles::forbid_times_after(std::uint64_t node, const timespec& last) {
    const std::lock_guard guard(lock_);
    if (const auto it = known_.find(node); it != known_.end()) it->second.last_time = last;
}

void InodeHandles::note_failure(std::uint64_t node, int error) {
    const std::lock_guard guard(lock_);
    if (const auto it = known_.find(node); it != known_.end()) it->second.failure = error;
}

int InodeHandles::failure(std::uint64_t node) {
    const std::lock_guard guard(lock_);
    const auto it = known_.find(node);
    return it == known_.end() ? 0 : it->second.failure;
}

void InodeHandles::clear() {
    std::unordered_map<std::uint64_t, Known> all;
    {
        const std::lock_guard guard(lock_);
        all.swap(known_);
    }
}

}  // namespace uext4::fuse
