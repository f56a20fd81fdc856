#include "fuse/space.h"

#include "base/bytes.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>

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

// What the kernel writes into one with holes may need space: the bytes that are allocated of such. (Blocks of its map
// count as well: a few holes look like none.) Not where all files that are written to could have such holes, and all
// of them be filled several times over with what is left.
std::optional<std::uint64_t> of_one_with_holes(Server& server, Inode& inode, std::uint64_t left) {
    constexpr std::uint64_t sector = 512, times_over = 4;
    if (inode.is_inline()) return {};
    const Result<struct stat> now = server.attributes(inode);
    const std::uint64_t allocated = now ? static_cast<std::uint64_t>(now->st_blocks) * sector : 0;
    const std::uint64_t size = inode.size_hint(), holes = size - std::min(allocated, size);
    const std::uint64_t files = std::max<std::uint64_t>(server.inodes().written_to(), 1);
    if (now && holes <= left / times_over / files) return {};
    return allocated;
}

std::uint64_t page_size() {
    static const auto bytes = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
    return bytes;
}

// Of what the kernel has of the file: bytes that find space, or are kept.
std::uint64_t sure_to_find_a_place(Server& server, Inode& inode) {
    return round_down(bytes_free(server) / 2 + server.fs().room_beyond_space(inode) / 2, page_size());
}

}  // namespace

std::uint64_t bytes_free(Server& server) {
    const Volume& volume = server.fs().volume();
    return volume.counts().available_blocks * volume.geometry().block_size;
}

std::uint64_t bytes_left(Server& server) { return server.is_space_spoken_for() ? 0 : bytes_free(server); }

bool is_little(std::uint64_t bytes) { return bytes < little; }

bool is_short_of_space(Server& server) { return is_little(bytes_left(server)); }

double shorter_if_short_of_space(Server& server, double last) {
    if (last != growing_timeout) return last;
    return std::min(last, in_whole_ticks(time_to_ask(server, bytes_left(server))));
}

std::optional<std::uint64_t> to_be_sent_from(Server& server, fuse_ino_t node, OpenFile& file) {
    // While frozen nothing is sent. And who was refused keeps the kernel's view of the file.
    if ((file.flags() & O_ACCMODE) == O_RDONLY || server.parks() || server.inodes().refused(node) != 0) return {};
    const std::uint64_t left =
        server.is_space_spoken_for() ? 0 : file.blocks_left() * server.fs().volume().geometry().block_size;
    if (!is_little(left)) return {};
    double turn = time_to_ask(server, left);
    if (in_whole_ticks(turn) == 0) turn *= 2;  // it asks before each write
    // Of a file with holes, all of which is dropped, not longer ago than what it has in the kernel's cache takes to be
    // read again.
    if (const std::optional<std::uint64_t> allocated = of_one_with_holes(server, file.inode(), left))
        turn = std::max(turn, static_cast<double>(*allocated) * seconds_to_read_again);
    if (!server.inodes().take_turn_to_send(node, seconds(turn))) return {};
    return needs_space_from(server, file.inode(), left);
}

std::uint64_t needs_space_from(Server& server, Inode& inode, std::uint64_t left) {
    return of_one_with_holes(server, inode, left) ? 0 : round_down(inode.size_hint(), page_size());
}

bool is_worth_calling_in(Server& server, Inode& inode, std::uint64_t left) {
    if (server.fs().volume().counts().available_blocks == 0) return false;
    return !of_one_with_holes(server, inode, left) ||
           sure_to_find_a_place(server, inode) >= std::min(inode.size_hint() / most_steps, little);
}

bool call_in(Server& server, const InodeRef& inode, std::uint64_t from) {
    const std::uint64_t page = page_size();
    constexpr std::uint64_t plenty = 4096 * MiB;  // more than a kernel has of one file, most likely
    constexpr std::uint64_t steps_behind_the_end = 8;
    const fuse_ino_t node = node_of(inode->number());
    InodeHandles& inodes = server.inodes();
    // One at a time: the others count on the same space.
    const std::lock_guard turn(server.call_in_lock());
    // What was refused before is only in the kernel's cache.
    if (inodes.lost(node) == ENOSPC) return false;
    const std::uint64_t failures = inodes.failures(node);
    const auto send = [&](std::uint64_t at, std::uint64_t length) {
        fuse_lowlevel_notify_inval_inode(server.session(), node, static_cast<off_t>(at), static_cast<off_t>(length));
        return inodes.failures(node) == failures;
    };
    const bool holes = of_one_with_holes(server, *inode, 0).has_value();
    const std::uint64_t first = holes ? 0 : round_down(inode->size_hint(), page);
    if (from < first && !send(from, first - from)) return false;
    std::uint64_t at = std::max(from, first);
    for (std::uint64_t behind = 0; behind < steps_behind_the_end;) {
        const std::uint64_t sure = sure_to_find_a_place(server, *inode);
        const std::uint64_t size = inode->size_hint();
        if (sure >= plenty) break;
        if (sure == 0 && inodes.failure(node) != 0) return false;
        if (sure == 0 && holes) break;  // it is full, and who wrote there had to ask
        // A large file takes more at once: it has holes, and not so much in the kernel's cache.
        const std::uint64_t length = std::max({sure, page, size > at ? round_down((size - at) / most_steps, page) : 0});
        if (!send(at, length)) return false;
        // Where nothing can be taken, what came at the end shows that there is more.
        if (sure == 0 && inode->size_hint() == size) return true;
        at += length;
        if (inode->size_hint() < at) ++behind;  // behind a hole there may be more
    }
    return send(at, 0);
}

}  // namespace uext4::fuse
