#include "capi/call.h"
#include "capi/handles.h"
#include "capi/text.h"

#include <cstring>
#include <utility>

using namespace uext4;
using namespace uext4::capi;

namespace {

constexpr std::size_t batch = 128;

// What cannot be read is told behind all that can.
void read_ahead(uext4_dir& dir) {
    std::vector<uext4_dir::Entry> found;
    Result<void> read = dir.fs->fs->read_directory(*dir.inode, dir.position, [&](const DirectoryEntry& e) {
        found.push_back({std::string(e.name), e.inode.value, e.next_cookie, e.type});
        return found.size() < batch;
    });
    dir.ended = found.empty();
    for (auto& e : found) dir.ahead.push_back(std::move(e));
    if (!read && dir.damage) dir.damage = fail(std::move(read.error()));
}

}  // namespace

extern "C" {

int uext4_opendir(uext4_fs* fs, const char* path, uext4_dir** out) try {
    const Call call;
    const CallerString name(path);
    if (!fs || !name || !out) return invalid("uext4_opendir: NULL");
    const Credentials who = identity(fs);
    Result<InodeRef> inode = fs->fs->resolve(*name, who);
    if (!inode) return report(inode.error());
    if (!(*inode)->is_directory()) return report(Error{ENOTDIR, fmt::format("'{}' is no directory", *name)});
    if (Result<void> may = check_access(**inode, who, access_read); !may) return report(may.error());
    auto dir = std::make_unique<uext4_dir>();
    dir->fs = fs;
    dir->inode = std::move(*inode);
    fs->open_handles.fetch_add(1);
    *out = dir.release();
    return 0;
}
UEXT4_NOTHING_THROWN

struct dirent* uext4_readdir(uext4_dir* dir) try {
    const Call call;
    if (!dir) {
        errno = -invalid("uext4_readdir: NULL");
        return nullptr;
    }
    if (dir->ahead.empty() && !dir->ended) read_ahead(*dir);
    if (dir->ahead.empty()) {
        if (const Result<void> told = std::exchange(dir->damage, {}); !told) errno = -report(told.error());
        return nullptr;
    }
    const uext4_dir::Entry entry = std::move(dir->ahead.front());
    dir->ahead.pop_front();
    dir->position = entry.next;
    dir->current = {};
    dir->current.d_ino = entry.inode;
    dir->current.d_off = static_cast<off_t>(entry.next);
    dir->current.d_reclen = sizeof(dirent);
    dir->current.d_type = entry.type;
    const std::size_t n = std::min(entry.name.size(), sizeof dir->current.d_name - 1);
    std::memcpy(dir->current.d_name, entry.name.data(), n);
    return &dir->current;
} catch (const std::exception& e) {
    errno = -thrown(e);
    return nullptr;
}

long uext4_telldir(uext4_dir* dir) { return dir ? static_cast<long>(dir->position) : -1; }

void uext4_seekdir(uext4_dir* dir, long position) {
    if (!dir) return;
    dir->position = static_cast<std::uint64_t>(position);
    dir->ahead.clear();
    dir->ended = false;
    dir->damage = {};
}

int uext4_closedir(uext4_dir* dir) try {
    const Call call(Cancelled::goes_on);
    if (!dir) return invalid("uext4_closedir: NULL");
    uext4_fs* fs = dir->fs;
    delete dir;
    fs->open_handles.fetch_sub(1);
    return 0;
}
UEXT4_NOTHING_THROWN

}  // extern "C"
