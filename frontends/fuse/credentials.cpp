#include "fuse/credentials.h"

#include "fuse/server.h"

namespace uext4::fuse {

Credentials credentials_of(fuse_req_t request, bool with_groups) {
    const fuse_ctx* context = fuse_req_ctx(request);
    Credentials who = Credentials::of(context->uid, context->gid, {}, context->umask);
    if (!with_groups || who.capabilities.fsetid) return who;
    if (Server& server = server_of(request); server.asks_for_groups()) {
        who.groups = server.groups_of(context->pid);
        return who;
    }
    std::vector<gid_t> groups(64);
    for (int attempt = 0; attempt < 4; ++attempt) {
        const int count = fuse_req_getgroups(request, static_cast<int>(groups.size()), groups.data());
        if (count < 0) return who;  // the caller may be gone: without groups it gets less, not more
        const bool complete = static_cast<std::size_t>(count) <= groups.size();
        groups.resize(static_cast<std::size_t>(count));
        if (complete) break;
    }
    who.groups = std::move(groups);
    return who;
}

Credentials changer_of(fuse_req_t request, const Inode& inode, bool takes_set_ids) {
    Credentials who = credentials_of(request, (inode.mode() & S_ISGID) != 0);
    if (takes_set_ids) who.capabilities.fsetid = false;
    return who;
}

}  // namespace uext4::fuse
