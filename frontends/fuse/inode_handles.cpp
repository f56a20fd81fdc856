#include "fuse/inode_handles.h"

#include "format/constants.h"

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <utility>

namespace uext4::fuse {

namespace {
constexpr std::uint64_t root_node = 1;  // FUSE_ROOT_ID
}

std::uint64_t node_of(InodeNr number) { return number.value == format::special_inode::root ? root_node : number.value; }

namespace {
// Well within what the kernel was told (cache_timeout).
constexpr std::uint16_t long_ago = 30;

std::uint16_t minutes() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return static_cast<std::uint16_t>(now.tv_sec / 60);
}

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

// Replies that are under way together may arrive in any order.
void InodeHandles::note_told(std::uint64_t node, Known& known, const struct stat& attributes) {
    if (!S_ISREG(attributes.st_mode)) return;
    const auto it = writers_.find(node);
    if (it == writers_.end()) {
        known.told_for_long = true;
        return;
    }
    std::optional<std::int64_t>& told = it->second.told_blocks;
    if (!known.told_while_written) told = attributes.st_blocks;
    else if (told != attributes.st_blocks) told.reset();
    known.told_while_written = true;
}

InodeHandles::Known* InodeHandles::find(std::uint64_t node) {
    const auto it = known_.find(node);
    return it == known_.end() ? nullptr : &it->second;
}

InodeHandles::More* InodeHandles::more(std::uint64_t node) {
    Known* const known = find(node);
    return known && known->has_more ? &more_.at(node) : nullptr;
}

InodeHandles::More* InodeHandles::more_for_known(std::uint64_t node) {
    Known* const known = find(node);
    if (!known) return nullptr;
    More& found = more_[node];
    known->has_more = true;
    return &found;
}

void InodeHandles::add(const Inode& inode, const struct stat& attributes, pid_t asker) {
    const std::uint64_t node = node_of(inode.number());
    const std::lock_guard guard(lock_);
    Known& known = known_[node];
    ++known.lookups;
    known.note(attributes, asker);
    known.told_at = minutes();
    note_told(node, known, attributes);
}

void InodeHandles::add_root() {
    const std::lock_guard guard(lock_);
    known_[root_node].lookups = 1;
}

bool InodeHandles::knows(std::uint64_t node) {
    const std::lock_guard guard(lock_);
    return known_.contains(node);
}

bool InodeHandles::remembers(std::uint64_t node) {
    const std::lock_guard guard(lock_);
    Known* const known = find(node);
    if (!known || writers_.contains(node)) return false;
    return known->told_for_long && !known->may_change && !known->had_several_names &&
           static_cast<std::uint16_t>(minutes() - known->told_at) < long_ago;
}

void InodeHandles::take_back(std::uint64_t node) {
    {
        const std::lock_guard guard(lock_);
        if (Known* const known = find(node)) known->may_change = true;
    }
    forget(node, 1);
}

bool InodeHandles::keep_unlinked(const InodeRef& inode) {
    const std::lock_guard guard(lock_);
    const std::uint64_t node = node_of(inode->number());
    Known* const known = find(node);
    if (!known) return false;
    unlinked_[node] = inode;
    known->is_unlinked = true;
    return true;
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
    if (it->second.has_more) more_.erase(node);
    if (it->second.is_unlinked) {
        const auto found = unlinked_.find(node);
        last = std::move(found->second);
        unlinked_.erase(found);
    }
    known_.erase(it);
}

bool InodeHandles::Known::take_names() {
    const bool may_have_all = end_told;
    end_told = dropped = false;
    stale = stale || piece_told;
    return may_have_all;
}

void InodeHandles::note_piece_told(std::uint64_t node) {
    const std::lock_guard guard(lock_);
    if (Known* const known = find(node)) known->piece_told = true;
}

bool InodeHandles::is_stale(std::uint64_t node) {
    const std::lock_guard guard(lock_);
    Known* const known = find(node);
    return known && known->stale;
}

void InodeHandles::note_end_told(std::uint64_t node) {
    const std::lock_guard guard(lock_);
    Known* const known = find(node);
    if (!known) return;
    known->end_told = true;
    known->dropped = known->piece_told = known->stale = false;
}

bool InodeHandles::take_names(std::uint64_t node) {
    const std::lock_guard guard(lock_);
    Known* const known = find(node);
    return known && known->take_names();
}

bool InodeHandles::may_drop_names(std::uint64_t node) {
    const std::lock_guard guard(lock_);
    Known* const known = find(node);
    if (!known || !known->end_told || (known->dropped && known->piece_told)) return false;
    known->dropped = true;
    known->piece_told = false;
    return true;
}

void InodeHandles::note_damage(std::uint64_t node, int error) {
    const std::lock_guard guard(lock_);
    More* const found = error == 0 ? more(node) : more_for_known(node);
    if (!found) return;
    found->damage = error;
    if (error != 0) find(node)->stale = true;
}

int InodeHandles::damage(std::uint64_t node) {
    const std::lock_guard guard(lock_);
    const More* const found = more(node);
    return found ? found->damage : 0;
}

InodeHandles::Told InodeHandles::take_told(std::uint64_t node, pid_t changer) {
    const std::lock_guard guard(lock_);
    Known* const known = find(node);
    if (!known) return {};
    const Told told{known->take_names(), known->several_askers || (known->asker != 0 && known->asker != changer)};
    known->several_askers = false;
    known->asker = 0;
    return told;
}

double InodeHandles::attributes_last(std::uint64_t node, const struct stat& attributes, pid_t asker) {
    const std::lock_guard guard(lock_);
    Known* const known = find(node);
    if (known) known->note(attributes, asker);
    if (known ? known->had_several_names : has_several_names(attributes)) return 0;
    if (!S_ISREG(attributes.st_mode)) return cache_timeout;
    const bool grows = writers_.contains(node);
    if (known) note_told(node, *known, attributes);
    return grows ? growing_timeout : cache_timeout;
}

bool InodeHandles::take_turn_to_send(std::uint64_t node, Part part, std::chrono::steady_clock::duration interval) {
    const auto now = std::chrono::steady_clock::now();
    const std::lock_guard guard(lock_);
    const auto it = writers_.find(node);
    if (it == writers_.end()) return false;
    auto& sent = it->second.sent[static_cast<std::size_t>(part)];
    if (now - sent < interval) return false;
    sent = now;
    return true;
}

bool InodeHandles::note_write(std::uint64_t node) {
    const std::lock_guard guard(lock_);
    Known* const known = find(node);
    if (!known) return false;
    known->written = true;
    if (More* const found = more(node)) found->last_time.reset();  // by a descriptor that was open
    const bool told = known->told_for_long;
    known->told_for_long = false;
    return told;
}

void InodeHandles::opened(std::uint64_t node, bool to_write) {
    const std::lock_guard guard(lock_);
    // Who closed it before had to send.
    if (to_write)
        if (Writers& writers = writers_[node]; writers.count++ == 0)
            writers.sent.fill(std::chrono::steady_clock::now());
    if (Known* const known = find(node)) known->may_change = true;
}

void InodeHandles::closed_to_write(std::uint64_t node) {
    const std::lock_guard guard(lock_);
    const auto it = writers_.find(node);
    if (it == writers_.end() || --it->second.count != 0) return;
    writers_.erase(it);
    // Whoever lacked space was told, and starts anew.
    if (More* const found = more(node); found && found->lost.error() == ENOSPC) found->lost.cut(0);
}

std::size_t InodeHandles::written_to() {
    const std::lock_guard guard(lock_);
    return writers_.size();
}

bool InodeHandles::has_writers(std::uint64_t node) {
    const std::lock_guard guard(lock_);
    return writers_.contains(node);
}

bool InodeHandles::told_other_blocks(std::uint64_t node, std::optional<std::int64_t> blocks) {
    const std::lock_guard guard(lock_);
    Known* const known = find(node);
    if (!known || !known->told_while_written) return false;
    const auto it = writers_.find(node);
    if (it != writers_.end()) {
        if (blocks && it->second.told_blocks == blocks) return false;
        if (it->second.unseen == most_unseen) return false;
        ++it->second.unseen;
    }
    known->told_while_written = false;
    return true;
}

void InodeHandles::note_look(std::uint64_t node) {
    const std::lock_guard guard(lock_);
    if (const auto it = writers_.find(node); it != writers_.end()) it->second.unseen = 0;
}

bool InodeHandles::take_note_of_write(std::uint64_t node, const timespec& mtime) {
    const std::lock_guard guard(lock_);
    Known* const known = find(node);
    if (!known) return false;
    const More* const found = more(node);
    const std::optional<timespec> last = found ? found->last_time : std::nullopt;
    const bool late =
        last && (mtime.tv_sec > last->tv_sec || (mtime.tv_sec == last->tv_sec && mtime.tv_nsec > last->tv_nsec));
    const bool written = known->written;
    known->written = false;
    return written && !late;
}

void InodeHandles::forbid_times_after(std::uint64_t node, const timespec& last) {
    const std::lock_guard guard(lock_);
    if (More* const found = more_for_known(node)) found->last_time = last;
}

void InodeHandles::note_failure(std::uint64_t node, int error) {
    const std::lock_guard guard(lock_);
    // 0 makes no record.
    More* const found = error == 0 ? more(node) : more_for_known(node);
    if (!found) return;
    found->failure = error;
    if (error != 0) ++found->failures;
}

std::uint64_t InodeHandles::failures(std::uint64_t node) {
    const std::lock_guard guard(lock_);
    const More* const found = more(node);
    return found ? found->failures : 0;
}

int InodeHandles::failure(std::uint64_t node) {
    const std::lock_guard guard(lock_);
    const More* const found = more(node);
    return found ? found->failure : 0;
}

bool InodeHandles::note_lost(std::uint64_t node, std::uint64_t offset, std::uint64_t length, int error) {
    const std::lock_guard guard(lock_);
    More* const found = more_for_known(node);
    if (!found) return true;
    const bool first = found->lost.error() == 0;
    found->lost.add(offset, length, error);
    if (error == ENOSPC) ++found->refused;
    return first;
}

void InodeHandles::note_written(std::uint64_t node, std::uint64_t offset, std::uint64_t length) {
    const std::lock_guard guard(lock_);
    if (More* const found = more(node)) found->lost.written(offset, length);
}

void InodeHandles::note_cut(std::uint64_t node, std::uint64_t size) {
    const std::lock_guard guard(lock_);
    if (Known* const known = find(node)) known->may_change = true;
    if (More* const found = more(node)) found->lost.cut(size);
}

int InodeHandles::lost(std::uint64_t node) {
    const std::lock_guard guard(lock_);
    const More* const found = more(node);
    return found ? found->lost.error() : 0;
}

std::uint64_t InodeHandles::refused(std::uint64_t node) {
    const std::lock_guard guard(lock_);
    const More* const found = more(node);
    return found && found->refused != found->dropped ? found->refused : 0;
}

void InodeHandles::note_dropped(std::uint64_t node, std::uint64_t refused) {
    const std::lock_guard guard(lock_);
    if (More* const found = more(node)) found->dropped = std::max(found->dropped, refused);
}

void InodeHandles::note_cached_read(std::uint64_t node, std::uint64_t offset, std::uint64_t length) {
    constexpr std::size_t most_pieces = 256;
    const std::lock_guard guard(lock_);
    if (!writers_.contains(node)) return;
    More* const found = more_for_known(node);
    if (!found) return;
    found->read.add(offset, length);
    if (found->read.pieces() > most_pieces) found->read.add(0, ~std::uint64_t{0});
}

bool InodeHandles::take_cached_read(std::uint64_t node, std::uint64_t offset, std::uint64_t length) {
    const std::lock_guard guard(lock_);
    More* const found = more(node);
    return found && found->read.remove(offset, length);
}

void InodeHandles::clear() {
    std::unordered_map<std::uint64_t, InodeRef> last;
    const std::lock_guard guard(lock_);
    last.swap(unlinked_);
    more_.clear();
    known_.clear();
}

}  // namespace uext4::fuse
