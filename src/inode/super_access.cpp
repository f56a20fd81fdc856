#include "inode/super_access.h"

#include <cstring>

namespace uext4 {

namespace {

Result<BufferRef> super_buffer(FsContext& fs) {
    return fs.buffers.read(BlockNr(fs.super_offset / fs.block_size()), "superblock");
}

std::size_t offset_in(FsContext& fs) { return fs.super_offset % fs.block_size(); }

}  // namespace

Result<void> change_super(FsContext& fs, Handle& handle, const std::function<void(format::SuperBlock&)>& change) {
    BufferRef buffer = TRY(super_buffer(fs));
    TRY(handle.write_access(buffer));
    MutexLock guard(buffer->lock);
    auto& super = view_as<format::SuperBlock>(buffer->data(), offset_in(fs));
    change(super);
    format::set_super_checksum(super);
    return {};
}

Result<format::SuperBlock> read_super(FsContext& fs) {
    BufferRef buffer = TRY(super_buffer(fs));
    MutexLock guard(buffer->lock);
    return view_as<format::SuperBlock>(buffer->data(), offset_in(fs));
}

}  // namespace uext4
