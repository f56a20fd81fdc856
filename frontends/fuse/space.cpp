#include "fuse/space.h"

#include "base/bytes.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

namespace uext4::fuse {

namespace {

constexpr std::uint64_t MiB = std::uint64_t{1} << 20;
// A kernel lets wait of one mount's writes a hundredth of what it lets wait of all, a fifth of the memory, if nobody
// told it otherwise.
std::uint64_t most_that_waits() {
    return static_cast<std::uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE)) /
           500;
}

// Bytes that are left, at most; the last of a small file system a part of all. (Asked before the sandbox is there.)
const std::uint64_t little = std::max(64 * MiB, most_that_waits());
constexpr std::uint64_t hardly_any = 8 * MiB, hardly_any_of = 32;
constexpr double taken_in_a_second = 4e9;  // bytes, by a processor that writes to the kernel's memory only
const std::size_t processors = std::max(std::thread::hardware_concurrency(), 1u);  // asked before the sandbox is there
// For each byte of a file whose pages are all dropped, to be read again.
constexpr double seconds_to_read_again = 20e-3 / MiB;
constexpr std::uint64_t most_steps = 64;  // that a file with holes is called in by

std::uint64_t bytes_of_all(Server& server) {
    const Volume& volume = server.fs().volume();
    return volume.geometry().blocks_count * volume.geometry().block_size;
}

bool is_hardly_any(Server& server, std::uint64_t left) {
    return left < std::min(hardly_any, bytes_of_all(server) / hardly_any_of);
}

std::chrono::steady_clock::duration seconds(double count) {
    return std::chrono::duration_cast<std::chrono::steady_clock::duration>(std::chrono::duration<double>(count));
}

// Half of the time in which a kernel could take so much: after as long it asks, and after as long more it sends.
double time_to_ask(Server& server, std::uint64_t left) {
    if (is_hardly_any(server, left)) return 0;
    const std::size_t writers = std::clamp(server.inodes().written_to(), std::size_t{1}, processors);
    return static_cast<double>(left) / taken_in_a_second / 2 / static_cast<double>(writers);
}

// The kernel counts how long it may believe something in ticks, and began within one: n of them last up to n + 1.
double in_whole_ticks(double time) {
    static const double tick = [] {
        timespec length{};
        ::clock_getres(CLOCK_MONOTONIC_COARSE, &length);
        return static_cast<double>(length.tv_sec) + static_cast<double>(length.tv_nsec) / 1e9;
    }();
    return std::max(std::floor(time / tick) - 1, 0.0) * tick;
}

// Space that fallocate(2) has made there.
bool has_blocks_behind_the_end(Server& server, Inode& inode) {
    const std::uint64_t end = round_up(inode.size_hint(), server.fs().volume().geometry().block_size);
    bool found = false;
    const Result<void> listed = server.fs().extents(inode, end, ~std::uint64_t{0}, [&](const Mapping&) {
        found = true;
        return false;
    });
    return found || !listed;
}

// What the kernel writes into one with holes may need space: the data of such a file, in bytes, if it is mostly holes,
// else nothing. (Blocks of its map count as well: a few holes look like none.)
std::optional<std::uint64_t> of_one_with_holes(Server& server, Inode& inode) {
    constexpr std::uint64_t sector = 512;
    if (inode.is_inline()) return {};
    const Result<struct stat> now = server.attributes(inode);
    const std::uint64_t size = inode.size_hint();
    if (!now) return size;
    const std::uint64_t allocated = static_cast<std::uint64_t>(now->st_blocks) * sector;
    if (allocated < size) return allocated < size - allocated ? allocated : 0;
    if (has_blocks_behind_the_end(server, inode)) return size;
    return {};
}

std::uint64_t page_size() {
    static const auto bytes = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
    return bytes;
}

// Of what the kernel has of the file: bytes that find space, or are kept. The reserve for root is not counted: the
// kernel sends by itself as well, meanwhile.
std::uint64_t sure_to_find_a_place(Server& server, Inode& inode) {
    return round_down(bytes_available(server.fs().volume()) / 2 + server.fs().unreserved_dirty_bytes(inode) / 2,
                      page_size());
}

struct Range {
    std::uint64_t begin = 0, end = 0;
};

// Of the file's first `size` bytes, in whole pages. What lies between the last ones of very many counts as one of them.
std::vector<Range> holes_of(Server& server, Inode& inode, std::uint64_t size) {
    constexpr std::size_t most_ranges = 64, most_runs = 1 << 16;
    const std::uint64_t page = page_size();
    std::vector<Range> holes;
    std::uint64_t had = 0;
    std::size_t runs = 0;
    const auto add = [&](std::uint64_t begin, std::uint64_t end) {
        begin = round_down(begin, page), end = round_up(end, page);
        if (!holes.empty() && holes.back().end >= begin) holes.back().end = end;
        else holes.push_back({begin, end});
    };
    const Result<void> listed = server.fs().extents(inode, 0, size, [&](const Mapping& run) {
        if (run.offset > had) add(had, std::min(run.offset, size));
        had = std::min(run.end(), size);
        return holes.size() < most_ranges && ++runs < most_runs && had < size;
    });
    if (!listed) return {{0, round_up(size, page)}};
    if (had < size) add(had, size);
    return holes;
}

// One at a time: the others count on the same space.
class CallingIn {
public:
    CallingIn(Server& server, const InodeRef& inode)
        : server_(server),
          inode_(inode),
          node_(node_of(inode->number())),
          turn_(server.call_in_lock()),
          failures_(server.inodes().failures(node_)),
          holes_(of_one_with_holes(server, *inode).has_value()) {}

    bool send_from(std::uint64_t from) {
        if (refused_before()) return false;
        const std::uint64_t first = holes_ ? 0 : round_down(inode_->size_hint(), page_size());
        return (from >= first || send(from, first - from)) && send_behind(std::max(from, first));
    }
    bool send_what_needs_space(bool in_holes) {
        if (refused_before()) return false;
        const std::uint64_t size = inode_->size_hint();
        if (in_holes && holes_ && !send_holes(holes_of(server_, *inode_, size))) return false;
        return send_behind(round_down(size, page_size()));
    }

private:
    // That is only in the kernel's cache.
    bool refused_before() { return server_.inodes().lost(node_) == ENOSPC; }
    // False: some of it was refused.
    bool send(std::uint64_t at, std::uint64_t length) {
        fuse_lowlevel_notify_inval_inode(server_.session(), node_, static_cast<off_t>(at), static_cast<off_t>(length));
        return server_.inodes().failures(node_) == failures_;
    }

    bool send_holes(const std::vector<Range>& holes) {
        std::uint64_t all = 0;
        for (const Range& hole : holes) all += hole.end - hole.begin;
        for (const Range& hole : holes)
            for (std::uint64_t at = hole.begin; at < hole.end;) {
                const std::uint64_t sure = sure_to_find_a_place(server_, *inode_);
                if (sure == 0 && server_.inodes().failure(node_) != 0) return false;
                // Where it is full, who wrote there had to ask. And a large file has not so much in the kernel's cache.
                const std::uint64_t step = std::max({sure, page_size(), round_down(all / most_steps, page_size())});
                const std::uint64_t length = sure == 0 ? hole.end - at : std::min(step, hole.end - at);
                if (!send(at, length)) return false;
                at += length;
            }
        return true;
    }

    bool send_behind(std::uint64_t at) {
        constexpr std::uint64_t plenty = 4096 * MiB;  // more than a kernel has of one file, most likely
        constexpr std::uint64_t steps_behind_the_end = 8;
        const std::uint64_t page = page_size();
        for (std::uint64_t behind = 0; behind < steps_behind_the_end;) {
            const std::uint64_t sure = sure_to_find_a_place(server_, *inode_);
            const std::uint64_t size = inode_->size_hint();
            if (sure >= plenty) break;
            if (sure == 0 && server_.inodes().failure(node_) != 0) return false;
            if (sure == 0 && holes_) break;  // it is full, and who wrote there had to ask
            // A large file takes more at once: it has holes, and not so much in the kernel's cache.
            const std::uint64_t length =
                std::max({sure, page, size > at ? round_down((size - at) / most_steps, page) : 0});
            if (!send(at, length)) return false;
            // Where nothing can be taken, what came at the end shows that there is more.
            if (sure == 0 && inode_->size_hint() == size) return true;
            at += length;
            if (inode_->size_hint() < at) ++behind;  // behind a hole there may be more
        }
        return send(at, 0);
    }

    Server& server_;
    const InodeRef& inode_;
    fuse_ino_t node_;
    std::lock_guard<std::mutex> turn_;
    std::uint64_t failures_;
    bool holes_;
};

}  // namespace

std::uint64_t bytes_available(const Volume& volume) {
    return volume.counts().available_blocks * volume.geometry().block_size;
}

std::uint64_t bytes_left(Server& server) {
    return server.is_space_spoken_for() ? 0 : bytes_available(server.fs().volume());
}

bool is_little(std::uint64_t bytes) { return bytes < little; }

bool is_short_of_space(Server& server) { return is_little(bytes_left(server)); }

double shorter_if_short_of_space(Server& server, double last) {
    if (last != growing_timeout) return last;
    return std::min(last, in_whole_ticks(time_to_ask(server, bytes_left(server))));
}

Wanted to_be_called_in(Server& server, fuse_ino_t node, OpenFile& file) {
    // While frozen nothing is sent. And who was refused keeps the kernel's view of the file.
    if ((file.flags() & O_ACCMODE) == O_RDONLY || server.parks() || server.inodes().refused(node) != 0)
        return Wanted::nothing;
    const std::uint64_t left =
        server.is_space_spoken_for() ? 0 : file.available_blocks() * server.fs().volume().geometry().block_size;
    if (!is_little(left)) return Wanted::nothing;
    double turn = time_to_ask(server, left);
    if (in_whole_ticks(turn) == 0) turn *= 2;  // it asks before each write
    const bool end = server.inodes().take_turn_to_send(node, InodeHandles::Part::end, seconds(turn));
    // What is in holes is dropped: of a file of holes not longer ago than what it has takes to be read again.
    const std::optional<std::uint64_t> data = of_one_with_holes(server, file.inode());
    if (data &&
        server.inodes().take_turn_to_send(node, InodeHandles::Part::holes,
                                          seconds(std::max(turn, static_cast<double>(*data) * seconds_to_read_again))))
        return Wanted::holes_and_end;
    return end ? Wanted::end : Wanted::nothing;
}

bool is_worth_calling_in(Server& server, Inode& inode) {
    if (bytes_available(server.fs().volume()) == 0) return false;
    return !of_one_with_holes(server, inode) ||
           sure_to_find_a_place(server, inode) >= std::min(inode.size_hint() / most_steps, little);
}

bool call_in(Server& server, const InodeRef& inode, std::uint64_t from) {
    return CallingIn(server, inode).send_from(from);
}
bool call_in_what_needs_space(Server& server, const InodeRef& inode, Wanted wanted) {
    return CallingIn(server, inode).send_what_needs_space(wanted == Wanted::holes_and_end);
}

}  // namespace uext4::fuse
