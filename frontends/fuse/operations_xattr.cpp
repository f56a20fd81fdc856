// Extended attributes.
#include "fuse/operations.h"

#include <sys/xattr.h>

#include <optional>
#include <string>
#include <vector>

namespace uext4::fuse {

namespace {

// `size` 0 asks how large the answer is.
void reply_sized(fuse_req_t request, const void* data, std::size_t count, std::size_t size) {
    if (size == 0) fuse_reply_xattr(request, count);
    else if (count > size) fuse_reply_err(request, ERANGE);
    else fuse_reply_buf(request, static_cast<const char*>(data), count);
}

bool refused(Server& server, std::string_view name) {
    const FsOptions& options = server.fs().volume().options().fs;
    return (name.starts_with("user.") && !options.xattr_user) ||
           (name.starts_with("system.posix_acl_") && !options.acl);
}

// An access ACL set by somebody outside of the file's group takes the set-group-id bit away, as chmod does.
Result<void> settle_group_bit(Server& server, Inode& inode, const Credentials& who) {
    const struct stat now = TRY(server.fs().attributes(inode));
    if (!(now.st_mode & S_ISGID) || S_ISDIR(now.st_mode) || who.capabilities.fsetid || who.in_group(now.st_gid))
        return {};
    AttributeChange change;
    change.mode = static_cast<std::uint16_t>(now.st_mode & 07777 & ~S_ISGID);
    return server.fs().set_attributes(inode, change, who, false);
}

// An attribute may need a block, or have been the last in one. The kernel counts none of these: it has to ask.
class CountsBlocks {
public:
    CountsBlocks(Server& server, const Inode& inode)
        : server_(server), inode_(inode), before_(inode.block_count_512()) {}
    ~CountsBlocks() {
        if (inode_.block_count_512() != before_)
            fuse_lowlevel_notify_inval_inode(server_.session(), node_of(inode_.number()), -1, 0);
    }
    CountsBlocks(const CountsBlocks&) = delete;

private:
    Server& server_;
    const Inode& inode_;
    std::uint64_t before_;
};

void set(fuse_req_t request, fuse_ino_t node, const char* name, const char* value, std::size_t size, int flags) {
    Server& server = server_of(request);
    if (refused(server, name)) {
        fuse_reply_err(request, EOPNOTSUPP);
        return;
    }
    server.change_taking_space([&server, request, node, name = std::string(name), value = std::string(value, size),
                                flags] {
        const InodeRef inode = UEXT4_FUSE_TRY(request, server.inode(node));
        const bool access_list = name == "system.posix_acl_access";
        const Credentials who = credentials_of(request, access_list);
        const auto set = [&] {
            const CountsBlocks blocks(server, *inode);
            return server.fs().set_xattr(*inode, name, bytes_of_string(value.data(), value.size()), flags, who, false);
        };
        UEXT4_FUSE_TRY(request, set());
        server.space_taken();
        reply_result(request, access_list ? settle_group_bit(server, *inode, who) : Result<void>());
    });
}

void get(fuse_req_t request, fuse_ino_t node, const char* name, std::size_t size) {
    Server& server = server_of(request);
    if (refused(server, name)) {
        fuse_reply_err(request, EOPNOTSUPP);
        return;
    }
    const InodeRef inode = UEXT4_FUSE_TRY(request, server.inode(node));
    const std::optional<std::vector<std::byte>> value =
        UEXT4_FUSE_TRY(request, server.fs().find_xattr(*inode, name, Credentials::root(), false));
    if (value) reply_sized(request, value->data(), value->size(), size);
    else fuse_reply_err(request, ENODATA);
}

// The kernel leaves it to the file system to hide trusted.* from those who may not read it.
void list(fuse_req_t request, fuse_ino_t node, std::size_t size) {
    Server& server = server_of(request);
    const InodeRef inode = UEXT4_FUSE_TRY(request, server.inode(node));
    const std::vector<std::string> names =
        UEXT4_FUSE_TRY(request, server.fs().list_xattrs(*inode, credentials_of(request), true));
    std::string out;
    for (const std::string& name : names) {
        if (refused(server, name)) continue;
        out += name;
        out += '\0';
    }
    reply_sized(request, out.data(), out.size(), size);
}

void remove(fuse_req_t request, fuse_ino_t node, const char* name) {
    Server& server = server_of(request);
    if (refused(server, name)) {
        fuse_reply_err(request, EOPNOTSUPP);
        return;
    }
    server.change([&server, request, node, name = std::string(name)] {
        const InodeRef inode = UEXT4_FUSE_TRY(request, server.inode(node));
        const auto remove = [&] {
            const CountsBlocks blocks(server, *inode);
            return server.fs().remove_xattr(*inode, name, credentials_of(request), false);
        };
        reply_result(request, remove());
    });
}

}  // namespace

void add_xattr_operations(fuse_lowlevel_ops& table) {
    table.setxattr = set;
    table.getxattr = get;
    table.listxattr = list;
    table.removexattr = remove;
}

}  // namespace uext4::fuse
