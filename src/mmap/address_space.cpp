#include "mmap/address_space.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <fstream>

namespace uext4 {

namespace {

std::optional<Placement> parsed(const std::string& line) {
    Placement p;
    char rights[5] = {};
    unsigned major_number = 0, minor_number = 0;
    std::uint64_t inode = 0;
    int path = 0;
    // start-end rights offset major:minor inode path
    if (std::sscanf(line.c_str(), "%" SCNxPTR "-%" SCNxPTR " %4s %" SCNx64 " %x:%x %" SCNu64 " %n", &p.start, &p.end,
                    rights, &p.offset, &major_number, &minor_number, &inode, &path) < 7)
        return {};
    p.protection =
        (rights[0] == 'r' ? PROT_READ : 0) | (rights[1] == 'w' ? PROT_WRITE : 0) | (rights[2] == 'x' ? PROT_EXEC : 0);
    p.shared = rights[3] == 's';
    p.device = makedev(major_number, minor_number);
    p.inode = inode;
    if (path > 0) p.path = line.substr(static_cast<std::size_t>(path));
    return p;
}

// Calls `see` with what reaches behind `page`, by address, for as long as that is true.
template <class See>
void see_placements(std::uintptr_t page, See see) {
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
        const std::optional<Placement> placed = parsed(line);
        if (placed && placed->end > page && !see(*placed)) return;
    }
}

}  // namespace

std::optional<Placement> placement_of(std::uintptr_t page) {
    std::optional<Placement> found;
    see_placements(page, [&](const Placement& placed) {
        if (placed.start <= page) found = placed;
        return false;
    });
    return found;
}

bool is_mapped(std::uintptr_t page) {
    constexpr std::size_t page_size = 4096;
    unsigned char in_core = 0;
    return ::mincore(reinterpret_cast<void*>(page), page_size, &in_core) == 0 || errno != ENOMEM;
}

bool placements_are_told() { return ::access("/proc/self/maps", R_OK) == 0; }

std::vector<Placement> placements_in(std::uintptr_t start, std::uintptr_t end) {
    std::vector<Placement> found;
    see_placements(start, [&](const Placement& placed) {
        if (placed.start >= end) return false;
        found.push_back(placed);
        return true;
    });
    return found;
}

bool is_placed_at(std::uintptr_t page, int file, std::uint64_t offset, bool shared) {
    const std::optional<Placement> placed = placement_of(page);
    struct stat status{};
    return placed && ::fstat(file, &status) == 0 && placed->inode == status.st_ino && placed->device == status.st_dev &&
           placed->shared == shared && placed->offset + (page - placed->start) == offset;
}

std::uintptr_t placed_until(std::uintptr_t page, int file, std::uint64_t offset, bool shared) {
    struct stat status{};
    if (!is_mapped(page)) return page;  // most often
    if (::fstat(file, &status) != 0) return page;
    std::uintptr_t end = page;
    see_placements(page, [&](const Placement& placed) {
        const bool goes_on = placed.start <= end && placed.inode == status.st_ino && placed.device == status.st_dev &&
                             placed.shared == shared && placed.offset + (end - placed.start) == offset + (end - page);
        if (goes_on) end = placed.end;
        return goes_on;
    });
    return end;
}

}  // namespace uext4
