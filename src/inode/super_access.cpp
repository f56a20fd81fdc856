#include "inode/super_access.h"

#include <cstring>

namespace uext4 {

Result<BufferRef> super_buffer(FsContext& fs) {
    return fs.buffers.read(BlockNr(fs.super_offset / fs.block_size()), "superblock");
}

format::SuperBlock& super_in(FsContext& fs, Buffer& buffer) {
    return view_as<format::SuperBlock>(buffer.data(), fs.super_offset % fs.block_size());
}

Result<void> change_super(FsContext& fs, Handle& handle, const std::function<void(format::SuperBlock&)>& change) {
    BufferRef buffer = TRY(super_buffer(fs));
    TRY(handle.write_access(buffer));
    MutexLock guard(buffer->lock);
    format::SuperBlock& super = super_in(fs, *buffer);
    change(super);
    format::set_super_checksum(super);
    return {};
}

Result<format::SuperBlock> read_super(FsContext& fs) {
    BufferRef buffer = TRY(super_buffer(fs));
    MutexLock guard(buffer->lock);
    return super_in(fs, *buffer);
}

}  // namespace uext4
