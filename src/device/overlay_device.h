// Writes stay in memory, the base is never written: a journal can be replayed for a read-only mount.
#pragma once

#include "device/block_device.h"
#include "device/sparse_pages.h"

#include <functional>
#include <memory>
#include <string>

namespace uext4 {

class OverlayDevice final : public BlockDevice {
public:
    explicit OverlayDevice(std::shared_ptr<BlockDevice> base) : base_(std::move(base)) {}
    explicit OverlayDevice(BlockDevice& base) : base_(std::shared_ptr<BlockDevice>(), &base) {}  // base outlives it

    std::uint64_t size() const override { return base_->size(); }
    Result<void> read(std::uint64_t offset, Bytes out) override;
    Result<void> write(std::uint64_t offset, ConstBytes in) override;
    Result<void> write_fua(std::uint64_t offset, ConstBytes in) override;
    Result<void> flush() override;
    bool read_only() const override { return false; }
    Result<void> read_from_medium(std::uint64_t offset, Bytes out) override;
    std::string name() const override;

    // Pages of 4 KiB that differ from the base.
    std::size_t page_count() const { return pages_.page_count(); }
    void for_each_page(const std::function<void(std::uint64_t, const SparsePages::Page&)>& visit) const {
        pages_.for_each(visit);
    }

private:
    using Reader = Result<void> (BlockDevice::*)(std::uint64_t, Bytes);
    Result<void> read_with(Reader reader, std::uint64_t offset, Bytes out);

    std::shared_ptr<BlockDevice> base_;
    SparsePages pages_;
};

}  // namespace uext4
