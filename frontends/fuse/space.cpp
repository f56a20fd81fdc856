#include "fuse/space.h"

#include <fcntl.h>

#include <algorithm>
#include <chrono>

namespace uext4::fuse {

namespace {

using namespace std::chrono_literals;
constexpr std::uint64_t MiB = std::uint64_t{1} << 20;
// Bytes that are left, at most; of a small file system a part of all.
constexpr std::uint64_t little = 64 * MiB, hardly_any = 8 * MiB;
// What the kernel takes meanwhile is about what may be kept here.
constexpr auto seldom = 200ms, often = 20ms;
constexpr std::uint64_t soon_emptied = MiB;  // bytes of a file whose pages are dropped and read again in no time

bool is_less(const SpaceCounts& counts, std::uint64_t left, std::uint64_t block_size, std::uint64_t bytes) {
    const std::uint64_t part = counts.blocks * block_size / (little / bytes * 8);
    return left * block_size < std::min(bytes, part);
}

}  // namespace

bool is_short_of_space(Server& server) {
    const Volume& volume = server.fs().volume();
    const SpaceCounts counts = volume.counts();
    return is_less(counts, counts.available_blocks, volume.geometry().block_size, little);
}

double shorter_if_short_of_space(Server& server, double last) {
    return last == growing_timeout && is_short_of_space(server) ? 0 : last;
}

bool is_to_send(Server& server, fuse_ino_t node, OpenFile& file) {
    // While frozen nothing is sent. And who was refused keeps the kernel's view of the file.
    if ((file.flags() & O_ACCMODE) == O_RDONLY || server.parks() || server.inodes().refused(node) != 0) return false;
    const Volume& volume = server.fs().volume();
    const SpaceCounts counts = volume.counts();
    const std::uint64_t left = file.blocks_left(), block_size = volume.geometry().block_size;
    if (!is_less(counts, left, block_size, little)) return false;
    if (!is_less(counts, left, block_size, hardly_any)) return server.inodes().take_turn_to_send(node, seldom);
    const bool small = file.inode().size_hint() <= soon_emptied;
    return server.inodes().take_turn_to_send(node, small ? 0ms : often);
}

}  // namespace uext4::fuse
