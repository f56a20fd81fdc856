// Names: directories and the operations on them. Callers (api) have taken Freeze and know that the file system is
// writable; the functions take Topology, Inode and what lies below themselves, and open their own handles.
#pragma once

#include "inode/access.h"
#include "inode/inode_table.h"
#include "inode/orphan_list.h"

#include <functional>
#include <string_view>

namespace uext4 {

struct DirectoryEntry {
    std::string_view name;
    InodeNr inode;
    std::uint8_t type = 0;          // DT_* of <dirent.h>; DT_UNKNOWN without the filetype feature
    std::uint64_t next_cookie = 0;  // cookie that continues after this entry; stable while entries come and go
    bool has_wrong_type = false;    // DT_UNKNOWN, for what is on disk stands for no type
};

// Which of a rename's two names ended with a slash, and so has to be a directory's.
struct TrailingSlash {
    bool from = false, to = false;
};

// Where a creation puts what it makes.
struct CreateRequest {
    std::string_view name;
    mode_t mode = 0;  // with the file type; the umask and default ACLs are applied here
    dev_t rdev = 0;
    std::string_view target;  // of a symlink
    const Credentials& credentials;
};

class Namespace {
public:
    Namespace(FsContext& fs, InodeTable& inodes, OrphanList& orphans);
    ~Namespace();

    // ---- looking. `who` needs search permission on the directory; null: not checked (the kernel did).
    // ENOENT; ENAMETOOLONG over 255 bytes; ENOTDIR. "." and ".." are entries.
    Result<InodeRef> lookup(Inode& directory, std::string_view name, const Credentials* who);
    // The same, but that there is no such name is no error: null.
    Result<InodeRef> find(Inode& directory, std::string_view name, const Credentials* who);
    // Visits entries from `cookie` (0: the start) in a stable order until `visit` returns false. Takes rw shared;
    // `visit` must not call back into this file system. "." and ".." come first. Damage is passed over, and is the
    // error behind the rest.
    Result<void> read(Inode& directory, std::uint64_t cookie, const std::function<bool(const DirectoryEntry&)>& visit);
    Result<std::string> read_link(Inode& link);
    // The parent, by "..".
    Result<InodeNr> parent_of(Inode& directory);

    // ---- changing. `who` is always used for ownership, and checked for permission when `check`.
    Result<InodeRef> create(Inode& directory, const CreateRequest& request,
                            bool check);  // file, directory, symlink, node
    Result<InodeRef> create_tmpfile(Inode& directory, const CreateRequest& request,
                                    bool check);  // O_TMPFILE: an orphan
    Result<void> link(Inode& target, Inode& directory, std::string_view name, const Credentials& who, bool check);
    Result<void> unlink(Inode& directory, std::string_view name, const Credentials& who, bool check);
    Result<void> rmdir(Inode& directory, std::string_view name, const Credentials& who, bool check);
    // flags: RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT of <linux/fs.h>. `before_replace` is called (Inode
    // locks not held) with the source file when an existing file will be replaced, to write its data back first.
    Result<void> rename(Inode& from_dir, std::string_view from, Inode& to_dir, std::string_view to, unsigned flags,
                        const Credentials& who, bool check, const std::function<Result<void>(Inode&)>& before_replace,
                        TrailingSlash slashes = {});

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace uext4
