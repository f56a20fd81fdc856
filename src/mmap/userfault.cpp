#include "mmap/userfault.h"

#include "base/page.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace uext4 {

namespace {

// Newer than the headers of Debian 12.
constexpr std::uint64_t continue_mode_wp = 2;
constexpr int advise_dontneed_locked = 24;
struct PoisonRequest {
    uffdio_range range;
    std::uint64_t mode;
    std::int64_t updated;
};
constexpr std::uint64_t poison_mode_dontwake = 1;
const unsigned long poison_request = _IOWR(UFFDIO, 0x08, PoisonRequest);

// EVENT_REMOVE is not asked for: a removal of pages loses nothing but what the program itself threw away, and each of
// our own would wait for its event to be read.
constexpr std::uint64_t wanted_features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM |
                                          UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_PAGEFAULT_FLAG_WP |
                                          UFFD_FEATURE_THREAD_ID | UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_EVENT_REMAP;

int open_descriptor(bool& system_calls) {
    system_calls = true;
    if (const int device = ::open("/dev/userfaultfd", O_RDWR | O_CLOEXEC); device >= 0) {
        const int fd = ::ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
        ::close(device);
        if (fd >= 0) return fd;
    }
    if (const long fd = ::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK); fd >= 0) return static_cast<int>(fd);
    system_calls = false;
    return static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY));
}

}  // namespace

Userfault::Userfault(Userfault&& other) noexcept : fd_(std::exchange(other.fd_, -1)), offer_(other.offer_) {}

Userfault& Userfault::operator=(Userfault&& other) noexcept {
    std::swap(fd_, other.fd_);
    std::swap(offer_, other.offer_);
    return *this;
}

Userfault::~Userfault() {
    if (fd_ >= 0) ::close(fd_);
}

Result<Userfault> Userfault::open() {
    bool system_calls = false;
    Userfault made(open_descriptor(system_calls));
    if (made.fd_ < 0) {
        const int error = errno;
        if (error == ENOSYS)
            return fail(EOPNOTSUPP,
                        "memory maps need userfaultfd, which this kernel does not have: "
                        "use Linux 5.19 or newer with CONFIG_USERFAULTFD, or read and write");
        return fail(EPERM,
                    "memory maps need userfaultfd ({}): run as root, give access to /dev/userfaultfd, or set "
                    "vm.unprivileged_userfaultfd to 1",
                    std::strerror(error));
    }
    uffdio_api api{};
    api.api = UFFD_API;
    api.features = wanted_features;
    if (::ioctl(made.fd_, UFFDIO_API, &api) != 0)
        return fail(EOPNOTSUPP,
                    "memory maps need userfaultfd over shared memory with minor faults and write protection "
                    "({}): use Linux 5.19 or newer",
                    std::strerror(errno));
    made.offer_.system_calls = system_calls;
    made.probe_features();
    return made;
}

// Tried on a page of its own: no feature bit tells of the first.
void Userfault::probe_features() {
    const int memory = ::memfd_create("uext4-probe", MFD_CLOEXEC);
    if (memory < 0) return;
    if (::ftruncate(memory, page_size) != 0) {
        ::close(memory);
        return;
    }
    void* alias = ::mmap(nullptr, page_size, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    const MapSpec wanted{.length = page_size, .protection = PROT_READ | PROT_WRITE, .file = memory};
    const Result<void*> map = map_registered(wanted);
    if (alias != MAP_FAILED && map && allow_access(*map, wanted)) {
        *static_cast<volatile char*>(alias) = 1;
        const auto address = reinterpret_cast<std::uintptr_t>(*map);
        const Result<bool> shown = try_install(address, page_size, true);
        offer_.continue_protected = shown && *shown;
        const Result<bool> poisoned = try_poison(address);
        offer_.poison = poisoned && *poisoned && try_clear(address);
    }
    if (map) {
        unregister(*map, page_size);
        ::munmap(*map, page_size);
    }
    if (alias != MAP_FAILED) ::munmap(alias, page_size);
    ::close(memory);
}

// The kernel fills memory of its own accord, as it is mapped, where the program has called mlockall(MCL_FUTURE); and
// another thread may still hold the address of a map that was there before. What is accessed before it is watched is
// served from the memory file as it lies there, and never asked for again.
Result<void*> Userfault::map_registered(const MapSpec& wanted) {
    void* memory = ::mmap(nullptr, wanted.length, PROT_NONE, wanted.shared ? MAP_SHARED : MAP_PRIVATE, wanted.file,
                          static_cast<off_t>(wanted.offset));
    if (memory == MAP_FAILED)
        return fail(errno, "memory map of {} bytes at {}: {}", wanted.length, wanted.offset, std::strerror(errno));
    // What a locked map is made longer by is filled before its event tells where it has gone: neither could end.
    ::munlock(memory, wanted.length);
    // The threads that serve faults are not there in a child.
    ::madvise(memory, wanted.length, MADV_DONTFORK);
    if (Result<void> watched = register_range(memory, wanted.length, wanted.shared); !watched) {
        ::munmap(memory, wanted.length);
        return fail(watched.error());
    }
    return memory;
}

Result<void> Userfault::allow_access(void* address, const MapSpec& wanted) {
    if (::mprotect(address, wanted.length, wanted.protection) == 0) return {};
    return fail(errno, "memory map of {} bytes at {}: {}", wanted.length, wanted.offset, std::strerror(errno));
}

Result<void> Userfault::forbid_access(void* address, std::size_t length) {
    if (::mprotect(address, length, PROT_NONE) == 0) return {};
    return fail(errno, "unmap of {} bytes at {}: {}", length, fmt::ptr(address), std::strerror(errno));
}

Result<void> Userfault::register_range(void* address, std::size_t length, bool stores) {
    uffdio_register request{};
    request.range = {reinterpret_cast<std::uintptr_t>(address), length};
    request.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR;
    if (stores) request.mode |= UFFDIO_REGISTER_MODE_WP;
    if (::ioctl(fd_, UFFDIO_REGISTER, &request) == 0) return {};
    return fail(errno, "memory map of {} bytes: userfaultfd refuses to watch it: {}", length, std::strerror(errno));
}

void Userfault::unregister(void* address, std::size_t length) {
    uffdio_range range{reinterpret_cast<std::uintptr_t>(address), length};
    ::ioctl(fd_, UFFDIO_UNREGISTER, &range);
}

// A range that the program has divided, by an mprotect of a part, is taken page by page.
Result<bool> Userfault::try_install(std::uintptr_t address, std::size_t length, bool protect) {
    const std::uintptr_t end = address + length;
    std::size_t step = length;
    bool shown = false;
    while (address < end) {
        uffdio_continue request{};
        request.range = {address, std::min<std::size_t>(step, end - address)};
        request.mode = UFFDIO_CONTINUE_MODE_DONTWAKE | (protect ? continue_mode_wp : 0);
        if (::ioctl(fd_, UFFDIO_CONTINUE, &request) == 0) {
            address += request.range.len;
            shown = true;
            continue;
        }
        const int error = errno;
        if (request.mapped > 0) {
            address += static_cast<std::uintptr_t>(request.mapped);
            shown = true;
        } else if (error == EEXIST) {
            address += page_size;
            shown = true;
        } else if (error == EAGAIN) {
            return false;
        } else if (error == ENOENT && step > page_size) {
            step = page_size;
        } else if (error == ENOENT && (shown || address + page_size < end)) {
            address += page_size;
        } else {
            return fail(error, "a page of a memory map cannot be installed: {}", std::strerror(error));
        }
    }
    return true;
}

bool Userfault::try_protect(std::uintptr_t address, std::size_t length, bool on) {
    const std::uintptr_t end = address + length;
    for (std::size_t step = length; address < end;) {
        uffdio_writeprotect request{};
        request.range = {address, std::min<std::size_t>(step, end - address)};
        request.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : UFFDIO_WRITEPROTECT_MODE_DONTWAKE;
        if (::ioctl(fd_, UFFDIO_WRITEPROTECT, &request) != 0) {
            if (errno == EAGAIN) return false;
            // Divided, or with parts that are no longer there, which have nothing to protect.
            if (step > page_size) {
                step = page_size;
                continue;
            }
        }
        address += request.range.len;
    }
    return true;
}

// Whatever says something of the page makes way: what is visible, then the mark that its stores fault. In between it
// faults as a page that was never seen.
bool Userfault::try_clear(std::uintptr_t address) {
    void* memory = reinterpret_cast<void*>(address);
    if (::madvise(memory, page_size, advise_dontneed_locked) != 0) ::madvise(memory, page_size, MADV_DONTNEED);
    return try_protect(address, page_size, false);
}

Result<bool> Userfault::try_poison(std::uintptr_t address) {
    if (!try_clear(address)) return false;
    PoisonRequest request{{address, page_size}, poison_mode_dontwake, 0};
    // Beyond the memory file's end the kernel refuses by itself.
    if (::ioctl(fd_, poison_request, &request) == 0 || errno == EFAULT) return true;
    if (errno == EAGAIN) return false;
    return fail(errno, "a page of a memory map cannot be made to refuse: {}", std::strerror(errno));
}

// The kernel looks for such events before it looks at the range, which here is none.
bool Userfault::has_no_pending_events() const {
    uffdio_writeprotect nothing{};
    return ::ioctl(fd_, UFFDIO_WRITEPROTECT, &nothing) == 0 || errno != EAGAIN;
}

void Userfault::wake(std::uintptr_t address, std::size_t length) {
    uffdio_range range{address, length};
    ::ioctl(fd_, UFFDIO_WAKE, &range);
}

}  // namespace uext4
