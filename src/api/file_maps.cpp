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
    volume_.thin_out_inodes();
    if (!engine()) {
        std::unique_ptr<ClientMaps> started = TRY(ClientMaps::start(*this));
        if (offers_less_.load()) started->offer_less();
        if (!started->offer().system_calls)
            volume_.fs().log(
                "memory maps: userfaultfd serves this process's own accesses only; system calls that touch a "
                "map end with EFAULT (run as root or give access to /dev/userfaultfd)");
        MutexLock guard(lock_);
        if (!engine_) engine_.swap(started);
        guard.unlock();
    }
    return engine()->map(request);
}

std::size_t FileMaps::live() {
    ClientMaps* maps = engine();
    return maps ? maps->live() : 0;
}

void FileMaps::resume() {
    if (ClientMaps* maps = engine()) maps->resume();
}

Result<void> FileMaps::may_stop() {
    if (const std::size_t n = live()) return fail(EBUSY, "{} memory maps of files are left: unmap them first", n);
    return {};
}

Result<void> FileMaps::stop() {
    TRY(may_stop());
    std::unique_ptr<ClientMaps> ended;
    MutexLock guard(lock_);
    ended.swap(engine_);
    guard.unlock();
    return {};
}

Result<void> FileMaps::serve(const Fault& fault, const FaultInstall& install) {
    // Loads pass a frozen file system: they change nothing.
    if (!fault.store) return not_frozen(serve_fault(fault, install));
    const FreezeGate::TryPass pass(volume_.gate());
    if (!pass) return fail(EAGAIN, "the file system is frozen");
    return not_frozen(serve_fault(fault, install));
}

void FileMaps::make_room(Inode& inode) {
    const std::uint64_t given_back = volume_.times_space_was_given_back();
    {
        const FreezeGate::Pass pass(volume_.gate());
        make_room_for(inode);
    }
    // And what is on its way back from elsewhere, as for any other operation.
    let_go();
    volume_.gain_space(given_back);
}

void FileMaps::let_go() {
    if (ClientMaps* maps = engine()) maps->let_go();
}

Result<void> FileMaps::sync(Inode& inode) {
    if (volume_.fs().options.read_only) return {};
    // Aborted since then: what stores have left will not become durable.
    if (volume_.read_only()) return fail(EROFS, "the file system is read-only");
    const FreezeGate::SyncPass pass(volume_.gate());
    return pass ? sync_file(inode, false) : Result<void>();
}

Result<void> FileMaps::quiesce(Inode& inode, const std::function<Result<void>()>& change) {
    return quiesce_file(inode, change);
}

void FileMaps::take_stores(Inode& inode) { take_stores_of(inode); }

Result<void> FileMaps::holding(Inode& inode, const std::function<Result<void>()>& look) {
    WriteLock guard(inode.rw);
    return look();
}

Result<void> FileMaps::exclusively(Inode& inode, const std::function<Result<void>()>& change) {
    const FreezeGate::Pass pass(volume_.gate());
    WriteLock guard(inode.rw);
    return change();
}

Result<void> FileMaps::try_exclusively(Inode& inode, const std::function<Result<void>()>& change) {
    const FreezeGate::TryPass pass(volume_.gate());
    if (!pass) return fail(EAGAIN, "the file system is frozen");
    WriteLock guard(inode.rw);
    return not_frozen(change());
}

bool FileMaps::is_freezing() { return volume_.gate().closed(); }

}  // namespace uext4
