// The search for backup superblocks looks at a bounded number of places, however large the device.
#include "volume/backup_superblocks.h"

#include <gtest/gtest.h>

#include <atomic>
#include <set>

namespace uext4 {
namespace {

// Zeros, of any size, that count what is read of them.
class Zeros final : public BlockDevice {
public:
    explicit Zeros(std::uint64_t size) : size_(size) {}
    std::uint64_t size() const override { return size_; }
    Result<void> read(std::uint64_t offset, Bytes out) override {
        TRY(check_range(*this, "read", offset, out.size()));
        places.insert(offset);
        bytes += out.size();
        std::ranges::fill(out, std::byte{});
        return {};
    }
    Result<void> write(std::uint64_t, ConstBytes) override { return fail(EROFS, "zeros"); }
    Result<void> flush() override { return {}; }
    bool read_only() const override { return true; }
    std::string name() const override { return "zeros"; }

    std::set<std::uint64_t> places;
    std::uint64_t bytes = 0;

private:
    std::uint64_t size_;
};

TEST(BackupSupers, TheSearchIsBounded) {
    for (const std::uint64_t size :
         {std::uint64_t{0}, std::uint64_t{1000}, std::uint64_t{1} << 20, std::uint64_t{100} << 20,
          std::uint64_t{1} << 30, std::uint64_t{1} << 44, std::uint64_t{1} << 59}) {
        const auto device = std::make_shared<Zeros>(size);
        EXPECT_TRUE(find_backup_superblocks(device).empty());
        EXPECT_EQ(backup_superblock_hint(device), "");
        EXPECT_LE(device->places.size(), 100u) << size;
        EXPECT_LE(device->bytes, 2 * 100u * 1024) << size;  // of two searches
    }
}

}  // namespace
}  // namespace uext4
