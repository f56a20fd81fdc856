#include "mmap/proc_maps.h"

#include "base/page.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <span>

namespace uext4 {

namespace {

std::optional<ProcMap> parsed(const std::string& line) {
    ProcMap p;
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

// Linux 6.11, newer than the headers of Debian 12: the map at an address, or the next, without those before it.
struct PlacementQuery {
    std::uint64_t size, flags, address;                          // asked for
    std::uint64_t start, end, rights, page_size, offset, inode;  // the answer
    std::uint32_t major_number, minor_number;
    std::uint32_t name_size, build_id_size;
    std::uint64_t name, build_id;
};
static_assert(sizeof(PlacementQuery) == 104);
constexpr std::uint64_t query_readable = 1, query_writable = 2, query_executable = 4, query_shared = 8;
constexpr std::uint64_t query_or_next = 0x10, query_of_files = 0x20;
const unsigned long query_request = _IOWR('f', 17, PlacementQuery);

enum class Of { anything, files };

// 0, or the error.
int query(int maps, std::uintptr_t page, Of of, std::span<char> name, ProcMap& out) {
    PlacementQuery q{};
    q.size = sizeof q;
    q.flags = query_or_next | (of == Of::files ? query_of_files : 0);
    q.address = page;
    q.name = name.empty() ? 0 : reinterpret_cast<std::uintptr_t>(name.data());
    q.name_size = static_cast<std::uint32_t>(name.size());
    if (::ioctl(maps, query_request, &q) != 0) return errno;
    out = {.start = q.start,
           .end = q.end,
           .protection = (q.rights & query_readable ? PROT_READ : 0) | (q.rights & query_writable ? PROT_WRITE : 0) |
                         (q.rights & query_executable ? PROT_EXEC : 0),
           .shared = (q.rights & query_shared) != 0,
           .offset = q.offset,
           .device = makedev(q.major_number, q.minor_number),
           .inode = q.inode,
           .path = q.name_size > 0 ? name.data() : ""};
    return 0;
}

// Of this process, as the descriptor of a parent tells of the parent's maps: its number is left alone then, which may
// be another file's by now. So it is where the program has closed it.
struct Kept {
    pid_t process = 0;
    int descriptor = -1;
};
std::atomic<Kept> kept{};
static_assert(std::atomic<Kept>::is_always_lock_free);
// What it is, for as long as it is open: also by whom it is opened meanwhile.
std::atomic<dev_t> kept_device{0};
std::atomic<ino_t> kept_inode{0};

bool is_open(const Kept& there) {
    struct stat status{};
    return ::fstat(there.descriptor, &status) == 0 && status.st_dev == kept_device.load() &&
           status.st_ino == kept_inode.load();
}

// Below 0: the error, negated.
int maps_descriptor() {
    const pid_t process = ::getpid();
    Kept there = kept.load();
    if (there.process == process && is_open(there)) return there.descriptor;
    const int opened = ::open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    struct stat status{};
    if (opened < 0 || ::fstat(opened, &status) != 0) return -errno;
    kept_device.store(status.st_dev);
    kept_inode.store(status.st_ino);
    if (kept.compare_exchange_strong(there, {process, opened})) return opened;
    ::close(opened);
    return there.descriptor;
}

// The others mean that there is no /proc, or not for us.
bool may_come_right(int error) { return error == EMFILE || error == ENFILE || error == ENOMEM || error == EINTR; }

// Calls `see` with the lines of the text, as see_placements() does. False: it could not be read.
template <class See>
bool see_lines(int file, std::uintptr_t page, Of of, See see) {
    std::string text;
    bool any = false;
    for (off_t read = 0;;) {
        char part[4096];
        const ssize_t n = ::pread(file, part, sizeof part, read);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return false;
        if (n == 0) return any;
        read += n;
        text.append(part, static_cast<std::size_t>(n));
        std::size_t at = 0;
        for (std::size_t end = 0; (end = text.find('\n', at)) != std::string::npos; at = end + 1) {
            const std::optional<ProcMap> placed = parsed(text.substr(at, end - at));
            any = any || placed;
            if (!placed || placed->end <= page || (of == Of::files && placed->inode == 0)) continue;
            if (!see(*placed)) return true;
        }
        text.erase(0, at);
    }
}

enum class Sight { clear, none, blocked };  // blocked: not now

// Calls `see` with what reaches behind `page`, by address, for as long as that is true. The path is told of the first.
template <class See>
Sight see_placements(std::uintptr_t page, Of of, See see) {
    const int file = maps_descriptor();
    if (file < 0) return may_come_right(-file) ? Sight::blocked : Sight::none;
    char name[128];
    int error = 0;
    for (std::span<char> path = name; error == 0; path = {}) {
        ProcMap placed;
        error = query(file, page, of, path, placed);
        if (error == ENAMETOOLONG) error = query(file, page, of, {}, placed);
        if (error == 0 && !see(placed)) return Sight::clear;
        if (error == 0) page = placed.end;
    }
    if (error == ENOENT) return Sight::clear;
    // An older kernel, or no memory for it now, which the text may still have.
    return see_lines(file, page, of, see) ? Sight::clear : Sight::blocked;
}

}  // namespace

std::optional<ProcMap> find_proc_map(std::uintptr_t page) {
    std::optional<ProcMap> found;
    (void)see_placements(page, Of::anything, [&](const ProcMap& placed) {
        if (placed.start <= page) found = placed;
        return false;
    });
    return found;
}

bool is_mapped(std::uintptr_t page) {
    unsigned char in_core = 0;
    return ::mincore(reinterpret_cast<void*>(page), page_size, &in_core) == 0 || errno != ENOMEM;
}

Result<void> keep_proc_maps_open() {
    const int file = maps_descriptor();
    if (file >= 0 || !may_come_right(-file)) return {};
    return fail(-file, "memory maps: /proc/self/maps: {}", std::strerror(-file));
}

bool can_query_proc_maps() {
    const int file = maps_descriptor();
    return file >= 0 || may_come_right(-file);
}

std::optional<std::vector<ProcMap>> file_maps_in(std::uintptr_t start, std::uintptr_t end) {
    std::vector<ProcMap> found;
    const Sight sight = see_placements(start, Of::files, [&](const ProcMap& placed) {
        if (placed.start >= end) return false;
        found.push_back(placed);
        return true;
    });
    if (sight == Sight::blocked) return std::nullopt;
    return found;
}

bool is_file_mapped_at(std::uintptr_t page, int file, std::uint64_t offset, bool shared) {
    if (!is_mapped(page)) return false;
    const std::optional<ProcMap> placed = find_proc_map(page);
    struct stat status{};
    return placed && ::fstat(file, &status) == 0 && placed->inode == status.st_ino && placed->device == status.st_dev &&
           placed->shared == shared && placed->offset + (page - placed->start) == offset;
}

std::uintptr_t mapped_until(std::uintptr_t page, int file, std::uint64_t offset, bool shared) {
    struct stat status{};
    if (!is_mapped(page)) return page;  // most often
    if (::fstat(file, &status) != 0) return page;
    std::uintptr_t end = page;
    (void)see_placements(page, Of::anything, [&](const ProcMap& placed) {
        const bool goes_on = placed.start <= end && placed.inode == status.st_ino && placed.device == status.st_dev &&
                             placed.shared == shared && placed.offset + (end - placed.start) == offset + (end - page);
        if (goes_on) end = placed.end;
        return goes_on;
    });
    return end;
}

}  // namespace uext4
