// The handlers of FUSE's requests, by subject: operations_*.cpp.
#pragma once

#include "fuse/credentials.h"
#include "fuse/server.h"

namespace uext4::fuse {

// Fills the entries of one subject.
void add_attribute_operations(fuse_lowlevel_ops& table);
void add_name_operations(fuse_lowlevel_ops& table);
void add_directory_operations(fuse_lowlevel_ops& table);
void add_io_operations(fuse_lowlevel_ops& table);
void add_xattr_operations(fuse_lowlevel_ops& table);
void add_ioctl_operations(fuse_lowlevel_ops& table);

inline void reply_error(fuse_req_t request, const Error& error) {
    fuse_reply_err(request, error.code > 0 ? error.code : EIO);
}

inline void reply_result(fuse_req_t request, const Result<void>& result) {
    fuse_reply_err(request, result ? 0 : result.error().code > 0 ? result.error().code : EIO);
}

// The value of a Result; an error answers the request and leaves the handler.
#define UEXT4_FUSE_TRY(request, ...)                                                \
    __extension__({                                                                 \
        auto&& uext4_fuse_result_ = (__VA_ARGS__);                                  \
        if (!uext4_fuse_result_) [[unlikely]]                                       \
            return ::uext4::fuse::reply_error(request, uext4_fuse_result_.error()); \
        *::std::move(uext4_fuse_result_);                                           \
    })

inline pid_t asker_of(fuse_req_t request) { return fuse_req_ctx(request)->pid; }

// Attributes and identity of a name's inode. `directory` decides how long the name may be remembered: where names are
// compared without case, one file has many and the kernel would keep those that were removed by another spelling.
Result<fuse_entry_param> entry_of(fuse_req_t request, Server& server, Inode& directory, const InodeRef& inode);
// Tells the kernel of an inode and counts the lookup.
void reply_entry(fuse_req_t request, Server& server, Inode& directory, const InodeRef& inode);
// ENAMETOOLONG.
Result<void> check_name(std::string_view name);

}  // namespace uext4::fuse
