// What the log of an image has yet to bring home, and how a change there becomes one that recovery believes.
#pragma once

#include "format/journal.h"
#include "journal/log_map.h"
#include "tests/doubles/memory_device.h"

#include <map>
#include <memory>
#include <set>
#include <vector>

namespace uext4::hostile {

// The blocks of the image's log, in its order.
std::vector<BlockRun> log_of(const std::shared_ptr<MemoryDevice>& device);

class LoggedBlocks {
public:
    // Empty where nothing is to be replayed.
    static std::shared_ptr<const LoggedBlocks> find(const std::shared_ptr<MemoryDevice>& device);

    // The image of a block that recovery takes; older ones and revoked ones are not among these.
    struct Image {
        std::uint64_t home = 0, at = 0;  // blocks of the device: where it belongs, and where the log has it
        std::uint64_t descriptor = 0;    // block of the device
        std::uint32_t tag = 0;           // byte in the descriptor
        std::size_t transaction = 0;     // of transactions_
    };
    const Image* of_home(std::uint64_t block) const;  // null: the log has none
    const Image* in_log(std::uint64_t block) const;
    std::uint64_t byte_in_log(std::uint64_t at) const;  // of a byte's home; the same where the log has none

    bool has_sums() const { return layout_.tail_bytes() != 0 || layout_.csum_v1(); }
    // Makes right what sums up the image: its tag, the descriptor that this stands in, the transaction.
    void seal(BlockDevice& device, const Image& image) const;
    // What recovery would write.
    void bring_home(BlockDevice& device) const;
    std::uint32_t block_size() const { return layout_.block_size; }

private:
    // In the order in which the old sum over a whole transaction takes them.
    struct Transaction {
        std::vector<std::uint64_t> blocks;
        std::uint64_t commit = 0;
    };
    format::JournalLayout layout_;
    std::vector<Transaction> transactions_;
    std::map<std::uint64_t, Image> by_home_;
    std::map<std::uint64_t, std::uint64_t> home_of_;  // by where the log has it
};

// The device as it is once its log is replayed; but what is written to a logged block changes the log.
class ReplayedView final : public BlockDevice {
public:
    ReplayedView(BlockDevice& device, const LoggedBlocks& logged) : device_(device), logged_(logged) {}

    // Of everything that was changed in the log.
    void seal();

    std::uint64_t size() const override { return device_.size(); }
    Result<void> read(std::uint64_t offset, Bytes out) override;
    Result<void> write(std::uint64_t offset, ConstBytes in) override;
    Result<void> flush() override { return device_.flush(); }
    bool read_only() const override { return device_.read_only(); }
    std::string name() const override { return device_.name(); }

private:
    template <class Part>
    Result<void> block_by_block(std::uint64_t offset, std::size_t size, Part part);

    BlockDevice& device_;
    const LoggedBlocks& logged_;
    std::set<std::uint64_t> changed_;  // homes
};

}  // namespace uext4::hostile
