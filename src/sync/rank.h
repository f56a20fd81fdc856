// The lock order. A thread may block for a lock only while every lock it holds has a lower rank; of the same rank only
// with an ascending order key. Builds with UEXT4_CHECKS verify that at each acquisition, whether or not another thread
// is there to deadlock with, and abort with both source lines.
//
// docs/LOCKING.md explains the ranks; rank_name() and rank_note() are what that document is tested against.
#pragma once

#include "sync/held_resource.h"

#include <cstddef>
#include <cstdint>
#include <source_location>
#include <string>
#include <vector>

#if !defined(UEXT4_CHECKS)
#if defined(NDEBUG)
#define UEXT4_CHECKS 0
#else
#define UEXT4_CHECKS 1
#endif
#endif

namespace uext4 {

// Outer to inner.
enum class Rank : std::uint8_t {
    Call,         // Inode::call_lock: a whole call of a program on a file, while its memory is touched as well
    UserMemory,   // touching memory of the caller that is a map of a file (a pseudo-lock)
    Freeze,       // operations shared, freeze exclusive
    Topology,     // cross-directory rename
    Inode,        // Inode::rw; several: ancestor first, then inode number
    Invalidate,   // faults and read-in shared, truncate and punch exclusive
    Flush,        // one writeback pass over an inode at a time
    Folio,        // ascending index
    Writeback,    // waiting for a folio's writeback to end (a pseudo-lock)
    Transaction,  // an open handle; waiting for log space or a commit (a pseudo-lock)
    Map,          // Inode::map_lock; an ea_inode's after its owner's
    Orphan,       // the orphan list or file
    Group,        // allocation group, ascending
    Buffer,       // one metadata block
    Journal,      // from here on: never held across a wait
    Device,
    Leaf,
};
inline constexpr std::size_t rank_count = static_cast<std::size_t>(Rank::Leaf) + 1;

const char* rank_name(Rank rank);
const char* rank_note(Rank rank);  // one line: what is locked and in which order several of the rank are taken

struct HeldRank {
    Rank rank;
    bool shared;
    const void* address;  // identifies the lock object
    const char* name;     // of the lock object
    std::uint64_t order;  // key among locks of the same rank
    std::source_location where;
    std::optional<std::uint64_t> number;
    std::uint64_t inode;

    HeldResource holdable() const { return {address, name, number, inode}; }
};

// What the calling thread holds, in the order it was taken. Empty in builds without checks.
std::vector<HeldRank> held_ranks();

// The same as text, a line each: for deadlock reports.
std::string held_ranks_text();

// True if the calling thread holds a lock of this rank (always false in builds without checks).
bool holds_rank(Rank rank);

// Aborts if the calling thread holds a lock of `rank` or of any inner rank: for the entry of functions that wait.
// Nothing in builds without checks.
#if UEXT4_CHECKS
void assert_nothing_held_at_or_below(Rank rank, std::source_location where = std::source_location::current());
#else
inline void assert_nothing_held_at_or_below(Rank, std::source_location = std::source_location::current()) {}
#endif

// For those who build a lock out of other parts (a bit in a folio, say). check_rank before blocking, push_rank once it
// is held, pop_rank when it is given up, all by the same thread. A lock that was only tried needs no check_rank.
// check_wait, after pop_rank: the thread is about to sleep on a condition under this lock.
namespace rank_checker {
#if UEXT4_CHECKS
void check_rank(Rank rank, const void* address, const char* name, std::uint64_t order, std::source_location where);
void push_rank(Rank rank, const HeldResource& what, std::uint64_t order, bool shared, std::source_location where);
std::uint64_t pop_rank(Rank rank, const void* address);  // the order key it was pushed with
bool is_held(const void* address);
bool is_held_exclusive(const void* address);
// Where the calling thread took it: for the ends of scopes, which have no line of their own.
std::source_location taken_at(const void* address, std::source_location otherwise = std::source_location::current());
void check_wait(Rank rank, const void* address, const char* name, std::source_location where);
#else
inline void check_rank(Rank, const void*, const char*, std::uint64_t, std::source_location) {}
inline void push_rank(Rank, const HeldResource&, std::uint64_t, bool, std::source_location) {}
inline std::uint64_t pop_rank(Rank, const void*) { return 0; }
inline std::source_location taken_at(const void*, std::source_location otherwise = std::source_location::current()) {
    return otherwise;
}
inline void check_wait(Rank, const void*, const char*, std::source_location) {}
#endif
}  // namespace rank_checker

// Around code of the program's, called in the middle of ours: it may use another file system, whose locks are asked for
// as if nothing were held.
class [[nodiscard]] RankSuspension {
public:
#if UEXT4_CHECKS
    RankSuspension();
    ~RankSuspension();
#else
    RankSuspension() {}
    ~RankSuspension() {}
#endif
    RankSuspension(const RankSuspension&) = delete;
    RankSuspension& operator=(const RankSuspension&) = delete;

private:
    [[maybe_unused]] std::size_t before_ = 0;
};

// A pseudo-lock: nothing is locked, only the order is checked and recorded. Belongs to the thread that made it.
class [[nodiscard]] RankGuard {
public:
    explicit RankGuard([[maybe_unused]] Rank rank, [[maybe_unused]] const char* name = "guard",
                       [[maybe_unused]] std::uint64_t order = 0,
                       [[maybe_unused]] std::source_location where = std::source_location::current())
        : rank_(rank) {
        rank_checker::check_rank(rank, this, name, order, where);
        rank_checker::push_rank(rank, {this, name}, order, false, where);
    }
    ~RankGuard() { rank_checker::pop_rank(rank_, this); }
    RankGuard(const RankGuard&) = delete;
    RankGuard& operator=(const RankGuard&) = delete;

private:
    [[maybe_unused]] Rank rank_;
};

}  // namespace uext4
