#include "inode/superblock.h"

#include <cstring>

namespace uext4 {

Result<BufferRef> read_superblock_buffer(FsContext& fs) {
    return fs.buffers.read(BlockNr(fs.super_offset / fs.block_size()), "superblock");
}

format::SuperBlock& superblock_in(FsContext& fs, Buffer& buffer) {
    return view_as<format::SuperBlock>(buffer.data(), fs.super_offset % fs.block_size());
}

Result<void> update_superblock(FsContext& fs, Handle& handle, const std::function<void(format::SuperBlock&)>& change) {
    BufferRef buffer = TRY(read_superblock_buffer(fs));
    TRY(handle.get_write_access(buffer));
    MutexLock guard(buffer->lock);
    format::SuperBlock& super = superblock_in(fs, *buffer);
    change(super);
    format::set_super_checksum(super);
    return {};
}

Result<format::SuperBlock> read_superblock(FsContext& fs) {
    BufferRef buffer = TRY(read_superblock_buffer(fs));
    MutexLock guard(buffer->lock);
    return superblock_in(fs, *buffer);
}

}  // namespace uext4
