// Targets of symbolic links: in the inode when they are short (or with inline data), else in one block.
#include "namespace/symlink.h"

#include "inode/inline_area.h"
#include "namespace/cipher_name.h"
#include "namespace/dir_blocks.h"
#include "namespace/operations.h"

#include <algorithm>
#include <climits>

namespace uext4 {

namespace {

// Bytes of i_block: a target that fits with its zero byte lies there.
constexpr std::size_t fast_limit = 60;

// No block but the attribute block. With the feature ea_inode i_blocks has values in other inodes as well; the size
// alone tells then.
bool has_no_data_blocks(const Inode& link) {
    if (link.fs().geometry.has_incompat(format::incompat::ea_inode)) return true;
    const std::uint64_t attribute_blocks = link.xattr_block() ? link.fs().geometry.cluster_ratio : 0;
    return link.block_count_512() <= attribute_blocks * (link.fs().block_size() / 512);
}

// The ciphertext behind its length (little-endian, 16 bits), as the kernel's documentation of fscrypt has it.
Result<std::string> cipher_target(const Inode& link, ConstBytes bytes) {
    const std::size_t length =
        bytes.size() < 2 ? 0 : std::to_integer<std::size_t>(bytes[0]) | std::to_integer<std::size_t>(bytes[1]) << 8;
    if (length == 0 || length > bytes.size() - 2)
        return fail(EUCLEAN, "symlink {}: an encrypted target of {} bytes in {}", link.number(), length, bytes.size());
    return cipher_name({reinterpret_cast<const char*>(bytes.data()) + 2, length}, link.number());
}

Result<std::string> checked_target(const Inode& link, ConstBytes bytes) {
    if (link.has_flag(format::inode_flag::encrypt)) return cipher_target(link, bytes);
    std::string target(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (target.find('\0') != std::string::npos)
        return fail(EUCLEAN, "symlink {}: its target has a zero byte within its size", link.number());
    return target;
}

}  // namespace

Result<std::string> read_symlink(Inode& link) {
    MutexLock map(link.map_lock);
    const std::uint64_t size = link.size();
    if (size == 0 || size > link.fs().block_size() || size >= PATH_MAX)
        return fail(EUCLEAN, "symlink {}: size {} is impossible", link.number(), size);
    if (link.is_inline()) {
        const std::vector<std::byte> bytes = TRY(read_inline(link));
        if (bytes.size() < size)
            return fail(EUCLEAN, "symlink {}: size {} but {} inline bytes", link.number(), size, bytes.size());
        return checked_target(link, ConstBytes(bytes).first(size));
    }
    if (size < fast_limit && has_no_data_blocks(link))
        return checked_target(link, ConstBytes(link.map_root()).first(size));
    const MappedRun run = TRY(link.map().lookup(LogicalBlock(0), 1));
    if (run.hole() || run.unwritten) return fail(EUCLEAN, "symlink {}: its block 0 is a hole", link.number());
    const BufferRef buffer = TRY(link.fs().buffers.read(run.physical, "symlink target"));
    return checked_target(link, ConstBytes(buffer->data()).first(size));
}

Result<void> check_symlink_target(const FsContext& fs, std::string_view target) {
    if (target.empty()) return fail(ENOENT, "a symlink needs a target");
    if (target.find('\0') != std::string_view::npos) return fail(EINVAL, "a symlink's target has no zero byte");
    if (target.size() >= PATH_MAX || target.size() + 1 > fs.block_size())
        return fail(ENAMETOOLONG, "a symlink's target of {} bytes", target.size());
    return {};
}

unsigned symlink_credits(Inode& directory) { return append_credits(directory) + 2 * Inode::store_credits(); }

Result<void> write_symlink(Handle& handle, Inode& link, std::string_view target, bool privileged) {
    const ConstBytes bytes = bytes_of_string(target.data(), target.size());
    if (target.size() < fast_limit) {
        MutexLock map(link.map_lock);
        link.set_flags(link.flags() & ~(format::inode_flag::extents | format::inode_flag::inline_data));
        const Bytes root = link.map_root();
        std::ranges::fill(root, std::byte{0});
        std::ranges::copy(bytes, root.begin());
        link.set_size(target.size());
        link.set_disk_size(target.size());
        link.places().changed();
        return link.store(handle);
    }
    {
        MutexLock map(link.map_lock);
        if (link.is_inline()) TRY(clear_inline(handle, link));
    }
    BufferRef buffer = TRY(append_block(handle, link, privileged))
    .buffer;
    std::ranges::copy(bytes, buffer->data().begin());
    buffer->set_kind(BlockKind::other);
    MutexLock map(link.map_lock);
    link.set_size(target.size());
    link.set_disk_size(target.size());
    return link.store(handle);
}

Result<std::string> Namespace::read_link(Inode& link) {
    if (!link.is_symlink()) return fail(EINVAL, "inode {} is not a symlink", link.number());
    ReadLock lock(link.rw);
    return reported(link.fs(), read_symlink(link));
}

}  // namespace uext4
