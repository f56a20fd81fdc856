#include "fuse/space.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

namespace uext4::fuse {

namespace {

constexpr std::uint64_t MiB = std::uint64_t{1} << 20;
// Bytes that are left, at most; the second of a small file system a part of all.
constexpr std::uint64_t little = 64 * MiB, hardly_any = 8 * MiB, hardly_any_of = 32;
constexpr double taken_in_a_second = 4e9;  // bytes, by a kernel that writes to its memory only
// For each byte of a file whose pages are all dropped, to be read again.
constexpr double seconds_to_read_again = 20e-3 / MiB;

std::uint64_t bytes_left(Server& server) {
    const Volume& volume = server.fs().volume();
    return volume.counts().available_blocks * volume.geometry().block_size;
}

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

// What the kernel writes into it may need space. (Blocks of its map count as well: a few holes look like none.)
bool has_holes(Inode& inode, const struct stat& now) {
    constexpr std::uint64_t sector = 512;
    return !inode.is_inline() && static_cast<std::uint64_t>(now.st_blocks) * sector < inode.size_hint();
}

}  // namespace

bool is_short_of_space(Server& server) { return bytes_left(server) < little; }

double shorter_if_short_of_space(Server& server, double last) {
    if (last != growing_timeout) return last;
    const std::uint64_t left = bytes_left(server);
    if (is_hardly_any(server, left)) return 0;
    return std::min(last, static_cast<double>(left) / taken_in_a_second);
}

std::optional<off_t> to_be_sent_from(Server& server, fuse_ino_t node, OpenFile& file) {
    // While frozen nothing is sent. And who was refused keeps the kernel's view of the file.
    if ((file.flags() & O_ACCMODE) == O_RDONLY || server.parks() || server.inodes().refused(node) != 0) return {};
    const std::uint64_t left = file.blocks_left() * server.fs().volume().geometry().block_size;
    if (left >= little) return {};
    const double turn = is_hardly_any(server, left) ? 0 : static_cast<double>(left) / taken_in_a_second;
    const Result<struct stat> now = server.attributes(file.inode());
    const std::uint64_t size = file.inode().size_hint();
    if (now && !has_holes(file.inode(), *now)) {
        const auto page = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
        if (!server.inodes().take_turn_to_send(node, seconds(turn))) return {};
        return static_cast<off_t>(size / page * page);
    }
    const double again = static_cast<double>(size) * seconds_to_read_again;
    if (!server.inodes().take_turn_to_send(node, seconds(std::max(turn, again)))) return {};
    return 0;
}

}  // namespace uext4::fuse
