// Inodes to be deleted or truncated after a crash: a list through the inodes, or the orphan file.
#pragma once

#include "inode/inode_table.h"

#include <memory>
#include <string>
#include <vector>

namespace uext4 {

class OrphanList {
public:
    explicit OrphanList(FsContext& fs, InodeTable& inodes);
    ~OrphanList();

    // The inode's rw or its last reference is the caller's; takes map_lock, Orphan. Nothing happens to one that is
    // recorded (add) or not (remove) already.
    Result<void> add(Handle& handle, Inode& inode);
    Result<void> remove(Handle& handle, Inode& inode);
    bool contains(const Inode& inode) const;
    // While these are held, add() reads nothing, unless others fill two blocks of the orphan file meanwhile: for who
    // could not go back from where it fails. Takes map_lock, Orphan.
    Result<std::vector<BufferRef>> pin_for_add(Inode& inode);
    static constexpr unsigned credits() { return 4; }

    // What a crash left, bounded and validated; the records stay until remove(). Entries that make no sense are left
    // out and told to the log; read-only, so are damaged blocks of the orphan file.
    Result<std::vector<InodeNr>> load();
    void report_skipped(std::string why);             // by whoever could not finish one of them
    const std::vector<std::string>& skipped() const;  // and why
    // The flag of the orphan file: set while it may have entries (mounted), cleared at a clean unmount.
    Result<void> mark_present(Handle& handle, bool present);
    bool uses_file() const;
    bool file_is_empty() const;

private:
    Result<void> load_file(std::vector<InodeNr>& found);
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace uext4
