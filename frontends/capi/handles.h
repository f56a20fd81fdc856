// What the C handles hold, and the way from Results to negative errnos.
#pragma once

#include "api/file_system.h"
#include "uext4/uext4.h"

#include <atomic>
#include <deque>
#include <exception>

// Ends each function of the C interface, whose callers know no exceptions.
#define UEXT4_NOTHING_THROWN             \
    catch (const std::exception& e) {    \
        return ::uext4::capi::thrown(e); \
    }

struct uext4_fs {
    std::unique_ptr<uext4::FileSystem> fs;
    uext4::Mutex identity_lock{uext4::Rank::Leaf, "uext4_fs::identity"};
    uext4::Credentials identity = uext4::Credentials::root();
    std::atomic<unsigned> open_handles{0};
};

struct uext4_file {
    uext4_fs* fs = nullptr;
    std::unique_ptr<uext4::OpenFile> file;
};

struct uext4_dir {
    uext4_fs* fs = nullptr;
    uext4::InodeRef inode;
    struct Entry {
        std::string name;
        std::uint64_t inode = 0, next = 0;
        std::uint8_t type = 0;
    };
    std::deque<Entry> ahead;
    std::uint64_t position = 0;  // cookie of the next entry to return
    bool ended = false;
    uext4::Result<void> damage;  // told behind what could be read
    dirent current{};
};

namespace uext4::capi {

// Remembers the sentence for the thread; the negative errno.
int report(const Error& error);
int invalid(const char* what);
Credentials identity(uext4_fs* fs);
// What the standard library threw, mostly for want of memory, as a negative errno.
int thrown(const std::exception& e) noexcept;

template <class T>
int status(const Result<T>& result) {
    return result ? 0 : report(result.error());
}
inline int status(const Result<void>& result) { return result ? 0 : report(result.error()); }

}  // namespace uext4::capi
