#include "tests/hostile/logged_blocks.h"

#include "format/checksum.h"
#include "journal/log_reader.h"
#include "tests/hostile/must.h"
#include "tests/hostile/seed_image.h"
#include "volume/journal_location.h"

namespace uext4::hostile {

namespace {

namespace j = format::journal;

}  // namespace

std::vector<BlockRun> log_of(const std::shared_ptr<MemoryDevice>& device) {
    const auto fs = must(mount_seed(device, "ro,norecovery"));
    return must(locate_journal(fs->volume().inodes(), fs->volume().geometry()));
}

std::shared_ptr<const LoggedBlocks> LoggedBlocks::find(const std::shared_ptr<MemoryDevice>& device) {
    const std::uint32_t block_size = must(mount_seed(device, "ro,norecovery"))->volume().geometry().block_size;
    const LogReader log = must(LogReader::open(*device, block_size, log_of(device)));
    auto out = std::make_shared<LoggedBlocks>();
    out->layout_ = log.layout();
    const auto place = [&](std::uint32_t index) { return must(log.map().block_at(index)).value; };
    Transaction open;
    std::vector<Image> images;
    std::set<std::uint64_t> revoked;
    must(log.walk([&](const LogRecord& record) -> Result<bool> {
        if (record.type == j::descriptor) {
            open.blocks.push_back(place(record.log_block));
            std::uint32_t tag_at = sizeof(format::JournalHeader);
            for (const LogTag& tag : record.tags) {
                open.blocks.push_back(place(tag.log_block));
                images.push_back({tag.block.value, place(tag.log_block), place(record.log_block), tag_at,
                                  out->transactions_.size()});
                tag_at += out->layout_.tag_bytes() + (tag.flags & j::tag_same_uuid ? 0 : 16);
            }
        }
        for (const BlockNr block : record.revoked) revoked.insert(block.value);
        if (record.type != j::commit) return true;
        open.commit = place(record.log_block);
        out->transactions_.push_back(std::exchange(open, {}));
        // A revoke holds for the images of its own transaction, too.
        for (const Image& image : images) out->by_home_[image.home] = image;
        for (const std::uint64_t block : revoked) out->by_home_.erase(block);
        images.clear();
        revoked.clear();
        return true;
    }));
    for (const auto& [home, image] : out->by_home_) out->home_of_[image.at] = home;
    return out;
}

const LoggedBlocks::Image* LoggedBlocks::of_home(std::uint64_t block) const {
    const auto found = by_home_.find(block);
    return found == by_home_.end() ? nullptr : &found->second;
}

const LoggedBlocks::Image* LoggedBlocks::in_log(std::uint64_t block) const {
    const auto found = home_of_.find(block);
    return found == home_of_.end() ? nullptr : of_home(found->second);
}

std::uint64_t LoggedBlocks::byte_in_log(std::uint64_t at) const {
    const Image* image = of_home(at / layout_.block_size);
    return image ? image->at * layout_.block_size + at % layout_.block_size : at;
}

void LoggedBlocks::seal(BlockDevice& device, const Image& image) const {
    const std::uint32_t size = layout_.block_size;
    std::vector<std::byte> contents(size), descriptor(size);
    if (layout_.tail_bytes()) {
        (void)device.read(image.at * size, contents);
        (void)device.read(image.descriptor * size, descriptor);
        const std::uint32_t sequence = view_as<format::JournalHeader>(ConstBytes(descriptor)).sequence;
        const std::uint32_t sum = format::journal_data_checksum(layout_, sequence, contents);
        if (layout_.csum_v3()) view_as<format::JournalTag3>(Bytes(descriptor), image.tag).checksum = sum;
        else view_as<Be16>(Bytes(descriptor), image.tag + 4) = static_cast<std::uint16_t>(sum);
        format::set_journal_block_checksum(layout_, descriptor);
        (void)device.write(image.descriptor * size, descriptor);
    } else if (layout_.csum_v1()) {
        const Transaction& transaction = transactions_[image.transaction];
        std::uint32_t sum = ~0u;
        for (const std::uint64_t block : transaction.blocks) {
            (void)device.read(block * size, contents);
            sum = format::crc32_be(sum, contents);
        }
        (void)device.read(transaction.commit * size, contents);
        view_as<format::JournalCommit>(Bytes(contents)).checksum[0] = sum;
        (void)device.write(transaction.commit * size, contents);
    }
}

void LoggedBlocks::bring_home(BlockDevice& device) const {
    std::vector<std::byte> block(layout_.block_size);
    for (const auto& [home, image] : by_home_) {
        (void)device.read(image.at * layout_.block_size, block);
        (void)device.write(home * layout_.block_size, block);
    }
}

void ReplayedView::seal() {
    for (const std::uint64_t home : changed_) logged_.seal(device_, *logged_.of_home(home));
}

template <class Part>
Result<void> ReplayedView::block_by_block(std::uint64_t offset, std::size_t size, Part part) {
    const std::uint32_t block_size = logged_.block_size();
    for (std::size_t done = 0; done < size;) {
        const std::uint64_t at = offset + done;
        const std::size_t count = std::min<std::size_t>(size - done, block_size - at % block_size);
        TRY(part(at, done, count));
        done += count;
    }
    return {};
}

Result<void> ReplayedView::read(std::uint64_t offset, Bytes out) {
    return block_by_block(offset, out.size(), [&](std::uint64_t at, std::size_t from, std::size_t count) {
        return device_.read(logged_.byte_in_log(at), out.subspan(from, count));
    });
}

Result<void> ReplayedView::write(std::uint64_t offset, ConstBytes in) {
    return block_by_block(offset, in.size(), [&](std::uint64_t at, std::size_t from, std::size_t count) {
        const Result<void> written = device_.write(logged_.byte_in_log(at), in.subspan(from, count));
        if (const std::uint64_t home = at / logged_.block_size(); written && logged_.of_home(home))
            changed_.insert(home);
        return written;
    });
}

}  // namespace uext4::hostile
