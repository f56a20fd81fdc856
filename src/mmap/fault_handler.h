// Who answers the faults of client maps: the file layer. Whoever maps (an engine) only knows addresses and pages.
#pragma once

#include "inode/inode.h"
#include "inode/inode_table.h"

#include <cstdint>
#include <functional>

namespace uext4 {

struct Fault {
    InodeRef inode;
    std::uint64_t offset = 0;  // bytes in the file, of a page
    bool is_write = false;
    bool may_use_reserve = false;  // blocks reserved for root
};

// Makes [offset, offset + length) of the file, which is a folio's, visible to who faulted. The folio is locked; of a
// store also its handle is open. `writable`: stores go through without a fault from now on.
using FaultInstall = std::function<Result<void>(std::uint64_t offset, std::uint64_t length, bool writable)>;

class FaultHandler {
public:
    virtual ~FaultHandler() = default;
    // Waits for nothing that may need a fault to be answered: EAGAIN when the file system is frozen (ask again after
    // the thaw), ENOSPC when there is no space (ask again after free_space()), any other error refuses the access.
    virtual Result<void> handle(const Fault& fault, const FaultInstall& install) = 0;
    // Writes back and commits what may free space. Not from a thread that serves faults.
    virtual void free_space(Inode& inode) = 0;
    // What stores left in the file is durable.
    virtual Result<void> sync(Inode& inode) = 0;
    // Calls `change` while the file is all on the device, nothing of it is cached, and nobody can bring it back.
    virtual Result<void> run_with_stores_stopped(Inode& inode, const std::function<Result<void>()>& change) = 0;
    // Each page of the file asks again before it is stored to.
    virtual void write_protect_all(Inode& inode) = 0;
    // Calls `look`, which changes nothing of the file, with Inode held exclusively, also while the file system is
    // frozen.
    virtual Result<void> with_inode_lock_shared(Inode& inode, const std::function<Result<void>()>& look) = 0;
    // Calls `change` with Inode held exclusively, in a file system that is not frozen.
    virtual Result<void> with_inode_lock(Inode& inode, const std::function<Result<void>()>& change) = 0;
    // The same without waiting for a thaw: EAGAIN where a freeze has begun.
    virtual Result<void> try_with_inode_lock(Inode& inode, const std::function<Result<void>()>& change) = 0;
    virtual bool is_freezing() = 0;  // or frozen
};

}  // namespace uext4
