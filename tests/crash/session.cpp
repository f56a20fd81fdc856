#include "tests/crash/session.h"

#include <fcntl.h>
#include <sys/mman.h>

namespace uext4::crash {

namespace {

const Credentials root = Credentials::root();
constexpr std::uint64_t page = 4096;

}  // namespace

Result<std::unique_ptr<Session>> Session::open(std::shared_ptr<BlockDevice> device, const VolumeOptions& options) {
    return std::unique_ptr<Session>(new Session(TRY(FileSystem::mount_device(std::move(device), options))));
}

Session::~Session() {
    (void)unmap_all();
    maps_.reset();
}

Result<void> Session::unmap_all() {
    for (auto& [number, mapped] : mapped_) TRY(maps_->unmap(mapped.map));
    mapped_.clear();
    return {};
}

Result<void> Session::close() {
    TRY(unmap_all());
    maps_.reset();
    return fs_->unmount();
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
        if (mapped.map) TRY(maps_->unmap(mapped.map));
        mapped.length = round_up(end, page);
        mapped.map = TRY(maps_->map({.inode = file->inode_ref(),
                                     .length = static_cast<std::size_t>(mapped.length),
                                     .protection = PROT_READ | PROT_WRITE,
                                     .may_store = true}));
    }
    return maps_->store(*mapped.map, o.offset, bytes_of_write(serial, o.offset, end - o.offset));
}

Result<void> Session::perform(const Operation& operation, unsigned serial) {
    if (operation.kind == Operation::Kind::MapStore) return store_through_map(operation, serial);
    return crash::perform(*fs_, operation, serial);
}

}  // namespace uext4::crash
