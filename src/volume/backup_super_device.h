// An image whose first blocks are gone, as it would be with them: option sb=.
//
// Reads of the primary superblock give the backup superblock; reads of the primary group descriptors give the copy that
// lies behind it. mke2fs, e2fsck and resize2fs write that copy, a mount does not. So the free counts, the UNINIT flags
// and the checksums of bitmaps in it are old: they are made again from the bitmaps, for each block of descriptors when
// it is read. Nothing is kept in memory, and nothing is ever written.
#pragma once

#include "device/block_device.h"
#include "format/group_desc.h"

#include <memory>

namespace uext4 {

class BackupSuperDevice final : public BlockDevice {
public:
    // `kib`: where the backup superblock lies, in units of 1 KiB. EINVAL, EUCLEAN say what is there instead.
    static Result<std::shared_ptr<BackupSuperDevice>> open(std::shared_ptr<BlockDevice> base, std::uint64_t kib);

    std::uint64_t size() const override { return base_->size(); }
    Result<void> read(std::uint64_t offset, Bytes out) override;
    Result<void> write(std::uint64_t offset, ConstBytes in) override;
    Result<void> flush() override { return {}; }
    bool read_only() const override { return true; }
    std::string name() const override { return base_->name(); }

    const format::SuperBlock& super() const { return super_; }
    const format::Geometry& geometry() const { return geometry_; }
    // The block of the descriptors of `first` and those that follow has good checksums and possible places.
    Result<bool> descriptors_look_sound(GroupNr first);

private:
    explicit BackupSuperDevice(std::shared_ptr<BlockDevice> base) : base_(std::move(base)) {}

    bool holds_super(BlockNr block) const;
    bool holds_descriptors(BlockNr block, GroupNr& first) const;
    Result<void> read_super_block(BlockNr block, Bytes out);
    Result<void> read_descriptors(GroupNr first, Bytes out);
    Result<void> read_meta_group(GroupNr first, Bytes out);
    Result<void> read_block(BlockNr block, Bytes out);
    bool is_sound(ConstBytes block, GroupNr first) const;
    void rebuild_counts(Bytes block, GroupNr first);
    bool is_block_bitmap(ConstBytes bitmap, const format::GroupDescView& d, GroupNr group) const;
    void count_blocks(format::GroupDescView& d, GroupNr group);
    void count_inodes(format::GroupDescView& d);

    std::shared_ptr<BlockDevice> base_;
    format::SuperBlock super_{};
    format::Geometry geometry_;
    BlockNr super_at_;  // the block that the backup superblock is
};

}  // namespace uext4
