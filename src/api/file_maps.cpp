#include "api/file_maps.h"

#include "file/file_io.h"

namespace uext4 {

namespace {

// EAGAIN says that the file system is frozen, and is asked again behind the thaw. A device may answer it as well.
Result<void> not_frozen(Result<void> done) {
    if (!done && done.error().code == EAGAIN) return fail(EIO, "{}", done.error().what);
    return done;
}

}  // namespace

void FileMaps::end_stores() {
    MutexLock guard(lock_);
    if (engine_) engine_->end_stores();
}

ClientMaps* FileMaps::engine() {
    MutexLock guard(lock_);
    return engine_.get();
}

Result<void*> FileMaps::map(const MapRequest& request) {
    // Stores to it will change times, and who serves them pays for nobody else's.
    volume_.shrink_inodes();
    if (!engine()) {
        std::unique_ptr<ClientMaps> started = TRY(ClientMaps::start(*this));
        if (offers_less_.load()) started->disable_features();
        if (!started->features().system_calls)
            volume_.fs().log(
                "memory maps: userfaultfd serves this process's own accesses only; system calls that touch a "
                "map end with EFAULT (run as root or give access to /dev/userfaultfd)");
        MutexLock guard(lock_);
        if (!engine_) engine_.swap(started);
        guard.unlock();
    }
    return engine()->map(request);
}

std::size_t FileMaps::region_count() {
    ClientMaps* maps = engine();
    return maps ? maps->region_count() : 0;
}

void FileMaps::resume() {
    if (ClientMaps* maps = engine()) maps->resume();
}

Result<void> FileMaps::check_can_stop() {
    if (const std::size_t n = region_count())
        return fail(EBUSY, "{} memory maps of files are left: unmap them first", n);
    return {};
}

Result<void> FileMaps::stop() {
    TRY(check_can_stop());
    std::unique_ptr<ClientMaps> ended;
    MutexLock guard(lock_);
    ended.swap(engine_);
    guard.unlock();
    return {};
}

Result<void> FileMaps::handle(const Fault& fault, const FaultInstall& install) {
    // Loads pass a frozen file system: they change nothing.
    if (!fault.is_write) return not_frozen(handle_fault(fault, install));
    const FreezeGate::TryEntry pass(volume_.gate());
    if (!pass) return fail(EAGAIN, "the file system is frozen");
    return not_frozen(handle_fault(fault, install));
}

void FileMaps::free_space(Inode& inode) {
    const std::uint64_t given_back = volume_.free_count_generation();
    {
        const FreezeGate::Entry pass(volume_.gate());
        free_space_for(inode);
    }
    // And what is on its way back from elsewhere, as for any other operation.
    detach_files();
    volume_.wait_for_space(given_back);
}

void FileMaps::detach_files() {
    if (ClientMaps* maps = engine()) maps->detach_files();
}

Result<void> FileMaps::sync(Inode& inode) {
    if (volume_.fs().options.read_only) return {};
    // Aborted since then: what stores have left will not become durable.
    if (volume_.read_only()) return fail(EROFS, "the file system is read-only");
    const FreezeGate::SyncEntry pass(volume_.gate());
    return pass ? sync_file(inode, false) : Result<void>();
}

Result<void> FileMaps::run_with_stores_stopped(Inode& inode, const std::function<Result<void>()>& change) {
    return run_with_file_stores_stopped(inode, change);
}

void FileMaps::write_protect_all(Inode& inode) { write_protect_mapped_pages(inode); }

Result<void> FileMaps::with_inode_lock_shared(Inode& inode, const std::function<Result<void>()>& look) {
    WriteLock guard(inode.rw);
    return look();
}

Result<void> FileMaps::with_inode_lock(Inode& inode, const std::function<Result<void>()>& change) {
    const FreezeGate::Entry pass(volume_.gate());
    WriteLock guard(inode.rw);
    return change();
}

Result<void> FileMaps::try_with_inode_lock(Inode& inode, const std::function<Result<void>()>& change) {
    const FreezeGate::TryEntry pass(volume_.gate());
    if (!pass) return fail(EAGAIN, "the file system is frozen");
    WriteLock guard(inode.rw);
    return not_frozen(change());
}

bool FileMaps::is_freezing() { return volume_.gate().is_closed(); }

}  // namespace uext4
