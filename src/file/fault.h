// Faults of client maps on a file. Callers hold Freeze (of a store) and nothing else.
#pragma once

#include "mmap/fault_handler.h"

#include <functional>

namespace uext4 {

// EFAULT past the end, EROFS, EPERM (immutable), ENOSPC, EIO.
Result<void> handle_fault(const Fault& fault, const FaultInstall& install);

// Calls `change` with everything of the file on the device and nothing of it cached. Inode exclusive held. An error of
// writeback, and nothing is changed.
Result<void> run_with_file_stores_stopped(Inode& inode, const std::function<Result<void>()>& change);

// Every store through a client map is a fault again, and asks whether it may. Inode exclusive held.
Result<void> write_protect_file(Inode& inode);
// The same where nothing can be written any more. Nothing is held.
void write_protect_mapped_pages(Inode& inode);

// What frees space that is only pending. Inode may not be held.
void free_space_for(Inode& inode);

}  // namespace uext4
