#include "tests/crash/session.h"

#include "tests/crash/fixed_host.h"
#include "tests/root.h"

#include <fcntl.h>
#include <sys/mman.h>

namespace uext4::crash {

namespace {

constexpr std::uint64_t page = 4096;

}  // namespace

Result<std::unique_ptr<Session>> Session::open(std::shared_ptr<BlockDevice> device, const VolumeOptions& options) {
    return std::unique_ptr<Session>(new Session(TRY(FileSystem::mount_device(std::move(device), options))));
}

Session::~Session() {
    (void)unmap_all();
    maps_.reset();
    held_.clear();
}

Result<void> Session::unmap_all() {
    Result<void> first;
    for (auto& [number, mapped] : mapped_)
        if (mapped.map)
            if (Result<void> r = maps_->unmap(mapped.map); !r && first) first = std::move(r);
    mapped_.clear();
    return first;
}

Result<void> Session::close() {
    const Result<void> unmapped = unmap_all();
    maps_.reset();
    held_.clear();
    const Result<void> unmounted = fs_->unmount();
    return unmapped ? unmounted : unmapped;
}

// Of the bytes that are asked for, those that are in the file.
Result<void> Session::store_through_map(const Operation& o, unsigned serial) {
    auto file = TRY(fs_->open_path(o.path, O_RDWR, 0, root));
    const std::uint64_t size = file->inode().size_hint();
    if (o.offset >= size) return fail(EINVAL, "{}: no byte {} to store to", o.path, o.offset);
    const std::uint64_t end = std::min(o.offset + o.length, size);
    std::unique_lock guard(lock_);
    if (!maps_) maps_ = std::make_unique<SimulatedMaps>(fs_->maps());
    Mapped& mapped = mapped_[file->inode().number().value];
    guard.unlock();
    if (mapped.length < end) {
        mapped.length = 0;
        if (auto old = std::exchange(mapped.map, {})) TRY(maps_->unmap(old));
        mapped.map = TRY(maps_->map({.inode = file->inode_ref(),
                                     .length = static_cast<std::size_t>(round_up(end, page)),
                                     .protection = PROT_READ | PROT_WRITE,
                                     .may_write = true}));
        mapped.length = round_up(end, page);
    }
    return maps_->store(*mapped.map, o.offset, bytes_of_write(serial, o.offset, end - o.offset));
}

Result<void> Session::sync_map(const Operation& o) {
    auto file = TRY(fs_->open_path(o.path, O_RDONLY, 0, root));
    {
        std::unique_lock guard(lock_);
        if (!mapped_.contains(file->inode().number().value)) return fail(EINVAL, "{} is not mapped", o.path);
    }
    return fs_->maps().sync(file->inode());
}

Result<void> Session::hold(const Operation& o) {
    auto file = TRY(fs_->open_path(o.path, O_RDWR, 0, root));
    const std::lock_guard guard(lock_);
    if (!held_.try_emplace(o.path, std::move(file)).second) return fail(EBUSY, "{} is held already", o.path);
    return {};
}

Result<void> Session::give_up(const Operation& o) {
    std::unique_ptr<OpenFile> file;
    {
        const std::lock_guard guard(lock_);
        const auto held = held_.extract(o.path);
        if (held.empty()) return fail(ENOENT, "{} is not held", o.path);
        file = std::move(held.mapped());
    }
    return {};
}

Result<void> Session::perform(const Operation& operation, unsigned serial) {
    advance_clock();
    if (operation.kind == Operation::Kind::MapStore) return store_through_map(operation, serial);
    if (operation.kind == Operation::Kind::Msync) return sync_map(operation);
    if (operation.kind == Operation::Kind::Hold) return hold(operation);
    if (operation.kind == Operation::Kind::GiveUp) return give_up(operation);
    return crash::perform(*fs_, operation, serial);
}

}  // namespace uext4::crash
