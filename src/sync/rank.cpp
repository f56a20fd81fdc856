#include "sync/rank.h"

#include "base/seam.h"

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <new>
#include <type_traits>
#include <utility>

namespace uext4 {

namespace {

struct RankText {
    const char* name;
    const char* note;
};
constexpr RankText rank_texts[] = {
    {"Call", "Inode::call: a whole call of a program on a file, while its memory is touched as well"},
    {"UserMemory", "touching memory of the caller that is a map of a file (pseudo-lock)"},
    {"Freeze", "shared by operations, exclusive by freeze"},
    {"Topology", "cross-directory rename"},
    {"Inode", "Inode::rw; several: ancestor first, then inode number"},
    {"Invalidate", "faults and read-in shared, truncate and punch exclusive"},
    {"Flush", "one writeback pass over an inode at a time"},
    {"Folio", "ascending index"},
    {"Writeback", "waiting for a folio's writeback to end (pseudo-lock)"},
    {"Transaction", "an open handle; waiting for log space or a commit (pseudo-lock)"},
    {"Map", "Inode::map_lock; an ea_inode's after its owner's"},
    {"Orphan", "the orphan list or file"},
    {"Group", "allocation group, ascending"},
    {"Buffer", "one metadata block; never held across an allocation"},
    {"Journal", "lists and queues of the journal; never held across a wait"},
    {"Device", "state of a device; never held across a wait but for a device request"},
    {"Leaf", "folio owner, inode table, client maps; never held across a wait"},
};
static_assert(std::size(rank_texts) == rank_count);

}  // namespace

const char* rank_name(Rank rank) {
    const auto index = static_cast<std::size_t>(rank);
    return index < rank_count ? rank_texts[index].name : "?";
}

const char* rank_note(Rank rank) {
    const auto index = static_cast<std::size_t>(rank);
    return index < rank_count ? rank_texts[index].note : "?";
}

#if UEXT4_CHECKS

namespace {

constexpr std::size_t held_limit = 1024;  // a read-ahead window of locked folios and what is above and below it
constexpr std::size_t held_mostly = 32;   // what a thread has room for from its start, which costs each thread

using HeldEntry = HeldRank;
static_assert(std::is_trivially_copyable_v<HeldEntry>);

// No destructor, so that locks may be used to the very end of a thread.
struct HeldStack {
    std::size_t count;
    std::size_t apart;  // of these first ones nothing is asked: see RankSuspension
    void* roomy;        // all of them, from when they are more than `held_mostly` until none is held
    alignas(HeldEntry) unsigned char raw[held_mostly * sizeof(HeldEntry)];
    HeldEntry* entries() { return reinterpret_cast<HeldEntry*>(roomy ? roomy : raw); }

    void make_roomy() {
        void* room = std::malloc(held_limit * sizeof(HeldEntry));
        if (!room) std::abort();
        std::memcpy(room, raw, count * sizeof(HeldEntry));
        roomy = room;
    }
    void none_is_held() {
        std::free(roomy);
        roomy = nullptr;
    }
};
constinit thread_local HeldStack held_stack{};

std::string describe(Rank rank, const void* address, const char* name, std::uint64_t order,
                     const std::source_location& where) {
    return fmt::format("{} \"{}\" {} order {} at {}:{} ({})", rank_name(rank), name, address, order, where.file_name(),
                       where.line(), where.function_name());
}

[[noreturn]] void violation(const std::string& sentence) {
    const std::string text =
        fmt::format("lock order: {}\nheld by this thread, outermost first:\n{}", sentence, held_ranks_text());
    std::fputs(text.c_str(), stderr);
    std::fflush(stderr);
    std::abort();
}

}  // namespace

namespace rank_checker {

void check_rank(Rank rank, const void* address, const char* name, std::uint64_t order, std::source_location where) {
    const HeldEntry* entries = held_stack.entries();
    for (std::size_t i = held_stack.count; i-- > 0;) {
        const HeldEntry& held = entries[i];
        if (i < held_stack.apart && held.address != address) continue;
        if (held.rank < rank) continue;
        if (held.rank == rank && held.order < order && held.address != address) continue;
        const char* why = held.address == address ? "is already held"
                          : held.rank == rank     ? "is of a rank that is held, without an ascending order key"
                                                  : "is outer to what is held";
        if (!UEXT4_SEAM(lock_order_ends)) return;
        violation(fmt::format("wanted {}\n  {}:\n  {}", describe(rank, address, name, order, where), why,
                              describe(held.rank, held.address, held.name, held.order, held.where)));
    }
}

void push_rank(Rank rank, const HeldResource& what, std::uint64_t order, bool shared, std::source_location where) {
    HeldStack& stack = held_stack;
    if (stack.count == held_limit)
        violation(fmt::format("more than {} locks held, now {}", held_limit,
                              describe(rank, what.address, what.name, order, where)));
    if (stack.count == held_mostly && !stack.roomy) stack.make_roomy();
    new (&stack.entries()[stack.count++])
        HeldEntry{rank, shared, what.address, what.name, order, where, what.number, what.inode};
}

std::uint64_t pop_rank(Rank rank, const void* address) {
    HeldStack& stack = held_stack;
    HeldEntry* entries = stack.entries();
    for (std::size_t i = stack.count; i-- > 0;) {
        if (entries[i].address != address || entries[i].rank != rank) continue;
        const std::uint64_t order = entries[i].order;
        std::memmove(static_cast<void*>(entries + i), entries + i + 1, (stack.count - i - 1) * sizeof(HeldEntry));
        if (--stack.count == 0 && stack.roomy) stack.none_is_held();
        return order;
    }
    violation(fmt::format("{} {} is given up by a thread that does not hold it", rank_name(rank), address));
}

bool is_held(const void* address) {
    const HeldEntry* entries = held_stack.entries();
    for (std::size_t i = held_stack.count; i-- > 0;)
        if (entries[i].address == address) return true;
    return false;
}

bool is_held_exclusive(const void* address) {
    const HeldEntry* entries = held_stack.entries();
    for (std::size_t i = held_stack.count; i-- > 0;)
        if (entries[i].address == address && !entries[i].shared) return true;
    return false;
}

std::source_location taken_at(const void* address, std::source_location otherwise) {
    const HeldEntry* entries = held_stack.entries();
    for (std::size_t i = held_stack.count; i-- > 0;)
        if (entries[i].address == address) return entries[i].where;
    return otherwise;
}

void check_wait(Rank rank, const void* address, const char* name, std::source_location where) {
    // A wait for a device request ends by itself; any other may need the lists and queues that these ranks guard.
    if (rank == Rank::Device) return;
    const HeldEntry* entries = held_stack.entries();
    for (std::size_t i = held_stack.count; i-- > held_stack.apart;)
        if (entries[i].rank >= Rank::Journal && UEXT4_SEAM(lock_order_ends))
            violation(fmt::format(
                "a wait under {}\n  while this is held:\n  {}", describe(rank, address, name, 0, where),
                describe(entries[i].rank, entries[i].address, entries[i].name, entries[i].order, entries[i].where)));
}

}  // namespace rank_checker

RankSuspension::RankSuspension() : before_(std::exchange(held_stack.apart, held_stack.count)) {}
RankSuspension::~RankSuspension() { held_stack.apart = before_; }

std::vector<HeldRank> held_ranks() { return {held_stack.entries(), held_stack.entries() + held_stack.count}; }

bool holds_rank(Rank rank) {
    const HeldEntry* entries = held_stack.entries();
    for (std::size_t i = held_stack.apart; i < held_stack.count; ++i)
        if (entries[i].rank == rank) return true;
    return false;
}

void assert_nothing_held_at_or_below(Rank rank, std::source_location where) {
    const HeldEntry* entries = held_stack.entries();
    for (std::size_t i = held_stack.apart; i < held_stack.count; ++i)
        if (entries[i].rank >= rank && UEXT4_SEAM(lock_order_ends))
            violation(fmt::format("nothing of rank {} or inner may be held at {}:{} ({})", rank_name(rank),
                                  where.file_name(), where.line(), where.function_name()));
}

#else

std::vector<HeldRank> held_ranks() { return {}; }
bool holds_rank(Rank) { return false; }

#endif

std::string HeldResource::text() const {
    std::string text = fmt::format("\"{}\"", name);
    if (number) text += fmt::format(" {}", *number);
    if (inode != 0) text += fmt::format(" of inode {}", inode);
    return text;
}

std::string held_ranks_text() {
    std::string text;
    for (const HeldRank& held : held_ranks())
        text += fmt::format("  {} \"{}\" {} order {}{} at {}:{}\n", rank_name(held.rank), held.name, held.address,
                            held.order, held.shared ? " shared" : "", held.where.file_name(), held.where.line());
    if (text.empty()) text = "  nothing\n";
    return text;
}

}  // namespace uext4
