#include "mmap/address_space.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cinttypes>
#include <cstdio>
#include <fstream>

namespace uext4 {

std::optional<Placement> placement_of(std::uintptr_t page) {
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
        Placement p;
        char rights[5] = {};
        unsigned major_number = 0, minor_number = 0;
        std::uint64_t inode = 0;
        int path = 0;
        // start-end rights offset major:minor inode path
        if (std::sscanf(line.c_str(), "%" SCNxPTR "-%" SCNxPTR " %4s %" SCNx64 " %x:%x %" SCNu64 " %n", &p.start,
                        &p.end, rights, &p.offset, &major_number, &minor_number, &inode, &path) < 7)
            continue;
        if (page < p.start) return {};
        if (page >= p.end) continue;
        p.protection = (rights[0] == 'r' ? PROT_READ : 0) | (rights[1] == 'w' ? PROT_WRITE : 0) |
                       (rights[2] == 'x' ? PROT_EXEC : 0);
        p.shared = rights[3] == 's';
        p.device = makedev(major_number, minor_number);
        p.inode = inode;
        if (path > 0) p.path = line.substr(static_cast<std::size_t>(path));
        return p;
    }
    return {};
}

bool is_placed_at(std::uintptr_t page, int file, std::uint64_t offset, bool shared) {
    const std::optional<Placement> placed = placement_of(page);
    struct stat status{};
    return placed && ::fstat(file, &status) == 0 && placed->inode == status.st_ino && placed->device == status.st_dev &&
           placed->shared == shared && placed->offset + (page - placed->start) == offset;
}

}  // namespace uext4
