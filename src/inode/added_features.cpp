#include "inode/added_features.h"

#include "format/inode.h"
#include "inode/superblock.h"

namespace uext4 {

namespace {

// Only revision 1 has features. Its fields get the values that revision 0 stands for.
void raise_revision(format::SuperBlock& super) {
    if (super.rev_level != 0) return;
    super.rev_level = 1u;
    super.first_ino = 11u;
    super.inode_size = static_cast<std::uint16_t>(format::classic_inode_size);
}

// `word` of the superblock gets the feature, `late` remembers it.
Result<void> need(FsContext& fs, Handle& handle, Le32 format::SuperBlock::* word, std::uint32_t feature,
                  std::atomic<std::uint32_t>& late) {
    if (late.load() & feature) return {};
    TRY(update_superblock(fs, handle, [=](format::SuperBlock& super) {
        raise_revision(super);
        super.*word = super.*word | feature;
    }));
    late.fetch_or(feature);
    return {};
}

}  // namespace

Result<void> enable_ext_attr(FsContext& fs, Handle& handle) {
    constexpr std::uint32_t feature = format::compat::ext_attr;
    if (fs.geometry.has_compat(feature)) return {};
    return need(fs, handle, &format::SuperBlock::feature_compat, feature, fs.added_compat);
}

Result<void> enable_large_file(FsContext& fs, Handle& handle) {
    constexpr std::uint32_t feature = format::ro_compat::large_file;
    if (fs.geometry.has_ro_compat(feature)) return {};
    return need(fs, handle, &format::SuperBlock::feature_ro_compat, feature, fs.added_ro_compat);
}

}  // namespace uext4
