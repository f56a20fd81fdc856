// One userfaultfd: opening, what the running kernel offers, and its requests. Linux's userfaultfd(2),
// ioctl_userfaultfd(2).
#pragma once

#include "base/result.h"

#include <linux/userfaultfd.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace uext4 {

struct UserfaultFeatures {
    bool system_calls = false;        // system calls of the program may touch maps (not UFFD_USER_MODE_ONLY)
    bool continue_protected = false;  // a page can be installed so that its first store faults (Linux 6.4)
    bool poison = false;              // a page can be made to refuse every access to it (Linux 6.6)
};

class Userfault {
public:
    Userfault() = default;
    Userfault(Userfault&& other) noexcept;
    Userfault& operator=(Userfault&& other) noexcept;
    ~Userfault();

    // EOPNOTSUPP or EPERM with a sentence that says what to do.
    static Result<Userfault> open();
    const UserfaultFeatures& features() const { return offer_; }
    // As on a kernel that offers less: for tests.
    void disable_features() { offer_.continue_protected = offer_.poison = false; }
    int descriptor() const { return fd_; }

    // What of a memory file is mapped: mmap(2)'s.
    struct MapSpec {
        std::size_t length = 0;
        int protection = 0;  // PROT_*
        bool shared = true;  // else MAP_PRIVATE
        int file = -1;
        std::uint64_t offset = 0;
    };
    // Maps memory whose faults arrive here: of a shared map also the first store to a page that is there. Nothing can
    // be accessed before that, and until allow_access().
    Result<void*> map_registered(const MapSpec& wanted);
    static Result<void> allow_access(void* address, const MapSpec& wanted);
    // An access to what is not watched any more would be served past us: nobody is let in, first. The kernel may refuse
    // that, of a part of a map, for want of memory for one more.
    static Result<void> forbid_access(void* address, std::size_t length);
    void unregister(void* address, std::size_t length);
    // These look once. False where an event of the program's munmap or mremap has to be read first: the caller asks
    // again then, without what the reader of events needs.
    //
    // The pages of the memory file become visible in the range; with `protect` their next store faults. Pages that are
    // visible already stay as they are, those that are not watched any more are left alone; an error where no page can
    // be shown. Does not wake.
    Result<bool> try_install(std::uintptr_t address, std::size_t length, bool protect);
    // Stores fault (`on`), or no longer, in pages that are visible.
    bool try_protect(std::uintptr_t address, std::size_t length, bool on);
    // Every access to the page, of a shared map, ends with SIGBUS or EFAULT, by the kernel itself, until try_clear():
    // then it faults. What was visible is not. Does not wake.
    Result<bool> try_poison(std::uintptr_t address);
    bool try_clear(std::uintptr_t address);
    // Whether no such event waits.
    bool has_no_pending_events() const;

    void wake(std::uintptr_t address, std::size_t length);

private:
    explicit Userfault(int fd) : fd_(fd) {}
    Result<void> register_range(void* address, std::size_t length, bool stores);
    void probe_features();
    int fd_ = -1;
    UserfaultFeatures offer_;
};

}  // namespace uext4
