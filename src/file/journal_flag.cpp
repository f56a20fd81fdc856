#include "base/seam.h"
#include "file/file_io.h"
#include "inode/attributes.h"

namespace uext4 {

Result<void> set_journal_flag(Inode& inode, bool on) {
    if (!inode.is_regular() && !inode.is_directory())
        return fail(EOPNOTSUPP, "inode {} is neither file nor directory", inode.number());
    WriteLock guard(inode.rw);
    UniqueWriteLock invalidate;
    if (UEXT4_SEAM(journal_flag_invalidates)) invalidate = UniqueWriteLock(inode.pages().invalidate);
    if (inode.has_flag(format::inode_flag::journal_data) == on) return {};
    Journal& journal = inode.fs().journal;
    TRY(write_back(inode));
    // Nothing of the file may be on its way in the other manner.
    TRY(journal.commit_all());
    TRY(journal.checkpoint_all());
    Handle handle = TRY(journal.start(Inode::store_credits()));
    MutexLock map(inode.map_lock);
    inode.set_flags(on ? inode.flags() | format::inode_flag::journal_data
                       : inode.flags() & ~format::inode_flag::journal_data);
    inode.set_ctime(current_time(inode.fs()));
    return inode.store(handle);
}

}  // namespace uext4
