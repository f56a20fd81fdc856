// Memory maps of one file system: the engine, started by the first map, and the way of its faults through the freeze
// gate.
#pragma once

#include "file/fault.h"
#include "mmap/client_maps.h"
#include "volume/volume.h"

#include <memory>

namespace uext4 {

class FileMaps final : public FaultHandler {
public:
    explicit FileMaps(Volume& volume) : volume_(volume) {}

    Volume& volume() { return volume_; }
    FreezeGate& gate() { return volume_.gate(); }

    // EOPNOTSUPP or EPERM where the kernel or the privilege does not allow maps, with a sentence that says what to do.
    Result<void*> map(const MapRequest& request);
    std::size_t region_count();
    // The file system has become read-only: stores are refused, those too that went through without a fault before.
    // Waits for nothing.
    void end_stores();
    // Stores that met a frozen file system go on.
    void resume();
    // Files without maps and without a name are held no longer, so that their space comes back. Nothing is held by the
    // caller.
    void detach_files();
    Result<void> check_can_stop();  // EBUSY: maps are left
    // Ends the engine; no map may be left. EBUSY.
    Result<void> stop();
    // For tests: as on a kernel whose faults cannot be told apart (Linux before 6.4).
    void disable_features() { offers_less_ = true; }

    Result<void> handle(const Fault& fault, const FaultInstall& install) override;
    void free_space(Inode& inode) override;
    Result<void> sync(Inode& inode) override;
    Result<void> run_with_stores_stopped(Inode& inode, const std::function<Result<void>()>& change) override;
    void write_protect_all(Inode& inode) override;
    Result<void> with_inode_lock_shared(Inode& inode, const std::function<Result<void>()>& look) override;
    Result<void> with_inode_lock(Inode& inode, const std::function<Result<void>()>& change) override;
    Result<void> try_with_inode_lock(Inode& inode, const std::function<Result<void>()>& change) override;
    bool is_freezing() override;

private:
    ClientMaps* engine();

    Volume& volume_;
    Mutex lock_{Rank::Leaf, "FileMaps", 1};
    std::unique_ptr<ClientMaps> engine_ UEXT4_GUARDED_BY(lock_);
    std::atomic<bool> offers_less_{false};
};

}  // namespace uext4
