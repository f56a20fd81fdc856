// Targets of symbolic links: in the inode when they are short (or with inline data), else in one block.
#include "namespace/symlink.h"

#include "inode/inline_data.h"
#include "namespace/dir_blocks.h"
#include "namespace/encrypted_name.h"
#include "namespace/operations.h"

#include <algorithm>
#include <climits>

namespace uext4 {

namespace {

// Bytes of i_block: a target that fits with its zero byte lies there.
constexpr std::size_t fast_limit = 60;

// Whether the target lies in i_block, as the kernel decides it: a link without blocks but that of attributes. With the
// feature ea_inode i_blocks has values in other inodes as well, and the size decides. map_lock held.
bool is_fast(Inode& link) {
    if (link.is_inline() && has_inline_xattr(link)) return false;
    if (link.fs().geometry.has_incompat(format::incompat::ea_inode))
        return link.size() != 0 && link.size() < fast_limit;
    const std::uint64_t attribute_blocks = link.xattr_block() ? link.fs().geometry.cluster_ratio : 0;
    return link.block_count_512() == attribute_blocks * (link.fs().block_size() / 512);
}

// The text up to its zero byte, if there is one.
std::string text_of(ConstBytes bytes) {
    const auto end = std::ranges::find(bytes, std::byte{0});
    return {reinterpret_cast<const char*>(bytes.data()), static_cast<std::size_t>(end - bytes.begin())};
}

Result<std::string> fast_target(Inode& link) {
    const std::uint64_t size = link.size();
    std::string text = text_of(link.i_block());
    if (size == 0 || size >= fast_limit || text.size() != size)
        return fail(EUCLEAN, "symlink {}: i_size is {}, but its target in the inode has {} bytes (expected 1 to {})",
                    link.number(), size, text.size(), fast_limit - 1);
    return text;
}

// The ciphertext behind its length (little-endian, 16 bits), as the kernel's documentation of fscrypt has it.
Result<std::string> cipher_target(const Inode& link, ConstBytes bytes) {
    const std::size_t length =
        bytes.size() < 2 ? 0 : std::to_integer<std::size_t>(bytes[0]) | std::to_integer<std::size_t>(bytes[1]) << 8;
    if (length == 0 || length > bytes.size() - 2)
        return fail(EUCLEAN, "symlink {}: an encrypted target of {} bytes in {}", link.number(), length, bytes.size());
    return encoded_encrypted_name({reinterpret_cast<const char*>(bytes.data()) + 2, length}, link.number());
}

}  // namespace

Result<std::string> read_symlink(Inode& link) {
    MutexLock map(link.map_lock);
    const std::uint64_t size = link.size(), block_size = link.fs().block_size();
    const bool encrypted = link.has_flag(format::inode_flag::encrypt), fast = is_fast(link);
    if (fast && !encrypted) return fast_target(link);
    const bool in_inode = link.is_inline() && has_inline_xattr(link);
    if ((in_inode || encrypted) && (size == 0 || size > block_size || size >= PATH_MAX))
        return fail(EUCLEAN, "symlink {}: i_size is {}, expected 1 to {}", link.number(), size,
                    std::min<std::uint64_t>(block_size, PATH_MAX - 1));
    if (in_inode) {
        const std::vector<std::byte> bytes = TRY(read_inline_data(link));
        if (bytes.size() < size)
            return fail(EUCLEAN, "symlink {}: i_size is {}, but the inode holds {} bytes", link.number(), size,
                        bytes.size());
        const ConstBytes target = ConstBytes(bytes).first(size);
        return encrypted ? cipher_target(link, target) : text_of(target);
    }
    if (fast && size < fast_limit) return cipher_target(link, ConstBytes(link.i_block()).first(size));
    const MappedRun run = TRY(link.map().lookup(LogicalBlock(0), 1));
    if (run.hole() || run.unwritten) return fail(EUCLEAN, "symlink {}: its block 0 is a hole", link.number());
    const BufferRef buffer = TRY(link.fs().buffers.read(run.physical, "symlink target"));
    if (encrypted) return cipher_target(link, ConstBytes(buffer->data()).first(size));
    // As for the kernel, the size may lie behind the text: the zero byte ends it, and so does the block.
    const std::uint64_t most = std::min<std::uint64_t>({size, block_size - 1, PATH_MAX - 1});
    return text_of(ConstBytes(buffer->data()).first(most));
}

Result<void> check_fast_symlink(Inode& link) {
    MutexLock map(link.map_lock);
    if (link.links() == 0 || link.has_flag(format::inode_flag::encrypt) || !is_fast(link)) return {};
    TRY(fast_target(link));
    return {};
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
        const Bytes root = link.i_block();
        std::ranges::fill(root, std::byte{0});
        std::ranges::copy(bytes, root.begin());
        link.set_size(target.size());
        link.set_disk_size(target.size());
        link.extent_status().invalidate();
        return link.store(handle);
    }
    {
        MutexLock map(link.map_lock);
        if (link.is_inline()) TRY(clear_inline_data(handle, link));
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
    return with_report(link.fs(), read_symlink(link));
}

}  // namespace uext4
