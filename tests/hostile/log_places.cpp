#include "tests/hostile/log_places.h"

#include "format/journal.h"
#include "tests/hostile/fast_commit_image.h"

#include <map>

namespace uext4::hostile {

namespace {

using format::FieldDescription;
using format::Structure;
namespace j = format::journal;

class LogFinder {
public:
    LogFinder(FileSystem& fs, MemoryDevice& device, std::shared_ptr<const LoggedBlocks> logged,
              std::vector<Place>& places)
        : fs_(fs),
          device_(device),
          logged_(std::move(logged)),
          places_(places),
          size_(fs.volume().geometry().block_size) {}

    void find() {
        InodeRef inode = *fs_.inode(InodeNr(fs_.volume().geometry().journal_inode));
        {
            MutexLock map(inode->map_lock);
            (void)inode->map().for_each(LogicalBlock(0), [&](const MappedRun& run) {
                for (std::uint64_t i = 0; i < run.count; ++i) blocks_.push_back(run.physical.value + i);
                return true;
            });
        }
        std::vector<std::byte> block = load(0);
        const auto layout =
            format::parse_journal_super(view_as<format::JournalSuper>(ConstBytes(block)), size_, blocks_.size());
        if (!layout) return;
        layout_ = *layout;
        const std::uint64_t at = blocks_[0] * size_;
        add("journal_super", Structure::journal_super, at, 0, [at](BlockDevice& d) {
            format::JournalSuper super;
            (void)d.read(at, std::as_writable_bytes(std::span(&super, 1)));
            super.checksum = format::journal_super_checksum(super);
            (void)d.write(at, bytes_of(super));
        });
        if (layout_.start == 0) return;
        if (layout_.fast_commit_blocks) return fast_commits();
        std::uint32_t index = layout_.start;
        std::map<std::uint32_t, unsigned> seen;
        for (int n = 0; n < 60 && index < layout_.ring_end(); ++n) {
            block = load(index);
            const auto& header = view_as<format::JournalHeader>(ConstBytes(block));
            if (header.magic != j::magic) break;
            const std::uint32_t type = header.blocktype;
            const bool wanted = ++seen[type] <= 2;
            const std::uint32_t steps = type == j::descriptor ? descriptor(index, block, wanted) : 1;
            if (wanted && type == j::commit) commit(index);
            if (wanted && type == j::revoke) revoke(index);
            index += steps;
        }
    }

private:
    std::vector<std::byte> load(std::uint32_t index) {
        std::vector<std::byte> block(size_);
        (void)device_.read(blocks_[index] * size_, block);
        return block;
    }
    void add(std::string name, Structure structure, std::uint64_t at, std::uint32_t,
             std::function<void(BlockDevice&)> seal) {
        const auto fields = format::fields_of(structure);
        add(std::move(name), std::vector<FieldDescription>(fields.begin(), fields.end()), at, std::move(seal));
    }
    void add(std::string name, std::vector<FieldDescription> fields, std::uint64_t at,
             std::function<void(BlockDevice&)> seal) {
        Place place;
        place.structure = std::move(name);
        place.fields = std::move(fields);
        place.at = place.home = at;
        place.words = {"journal"};
        place.has_own_sum = layout_.tail_bytes() != 0 && seal;
        if (layout_.tail_bytes()) place.seal = std::move(seal);
        place.replayed = true;
        places_.push_back(std::move(place));
    }
    // Any bytes that recovery brings home.
    void add_logged(const LoggedBlocks::Image& image) {
        add("logged_block", {{"bytes[0]", 0, 4}, {"bytes[512]", 512, 4}}, image.at * size_, nullptr);
        Place& place = places_.back();
        place.home = image.home * size_;
        place.replayed = false;
        if (logged_->has_sums())
            place.seal = place.log_seal = [logged = logged_, &image](BlockDevice& d) { logged->seal(d, image); };
    }
    std::function<void(BlockDevice&)> block_seal(std::uint32_t index) {
        return [at = blocks_[index] * size_, size = size_, layout = layout_](BlockDevice& d) {
            std::vector<std::byte> block(size);
            (void)d.read(at, block);
            format::set_journal_block_checksum(layout, block);
            (void)d.write(at, block);
        };
    }

    // Returns how many blocks of the log it covers.
    std::uint32_t descriptor(std::uint32_t index, const std::vector<std::byte>& block, bool wanted) {
        const std::uint64_t at = blocks_[index] * size_;
        if (wanted) add("journal_header", Structure::journal_header, at, index, block_seal(index));
        std::uint32_t offset = sizeof(format::JournalHeader), tags = 0, logged = 0;
        while (offset + layout_.tag_bytes() <= size_ - layout_.tail_bytes()) {
            const bool wide_tag = layout_.csum_v3();
            if (wanted && tags < 2)
                add(wide_tag ? "journal_tag3" : "journal_tag",
                    wide_tag ? Structure::journal_tag3 : Structure::journal_tag, at + offset, index, block_seal(index));
            const std::uint32_t flags = wide_tag ? view_as<format::JournalTag3>(ConstBytes(block), offset).flags.get()
                                                 : view_as<Be16>(ConstBytes(block), offset + 6).get();
            ++tags;
            const auto* image = wanted && logged_ && logged < 2 ? logged_->in_log(blocks_[index + tags]) : nullptr;
            if (image) {
                add_logged(*image);
                ++logged;
            }
            offset += layout_.tag_bytes() + (flags & j::tag_same_uuid ? 0 : 16);
            if (flags & j::tag_last) break;
        }
        if (wanted && layout_.tail_bytes())
            add("journal_tail", Structure::journal_tail, at + size_ - 4, index, nullptr);
        return tags + 1;
    }
    void commit(std::uint32_t index) {
        add("journal_commit", Structure::journal_commit, blocks_[index] * size_, index,
            [at = blocks_[index] * size_, size = size_, layout = layout_](BlockDevice& d) {
                std::vector<std::byte> block(size);
                (void)d.read(at, block);
                view_as<format::JournalCommit>(Bytes(block)).checksum[0] =
                    format::journal_commit_checksum(layout, block);
                (void)d.write(at, block);
            });
    }
    void revoke(std::uint32_t index) {
        add("journal_revoke", Structure::journal_revoke, blocks_[index] * size_, index, block_seal(index));
        add("revoked_block", {{"number", 0, layout_.wide() ? 8u : 4u, format::FieldKind::big}},
            blocks_[index] * size_ + sizeof(format::JournalRevokeHeader), block_seal(index));
    }

    // Each tag of the area: its own two fields, and what its value begins with, taken as numbers.
    void fast_commits() {
        const FastCommitArea area{{blocks_.begin() + layout_.ring_end() + 1, blocks_.end()}, size_};
        const auto seal = [area](BlockDevice& d) { area.seal(d); };
        for (const std::uint64_t block : area.blocks) {
            std::vector<std::byte> bytes(size_);
            (void)device_.read(block * size_, bytes);
            for (std::uint32_t at = 0; at + 4 <= size_;) {
                const auto& tag = view_as<format::FastCommitTag>(ConstBytes(bytes), at);
                if (tag.tag == 0u || tag.length > size_ - at - 4) return;
                const auto known = format::fields_of(Structure::fast_commit_tag);
                std::vector<FieldDescription> fields(known.begin(), known.end());
                for (std::uint32_t word = 0; word < 4 && 4 * word + 4 <= tag.length; ++word)
                    fields.push_back({words_[word], 4 + 4 * word, 4});
                if (tag.tag == format::fc_inode)
                    for (const FieldDescription& field : format::fields_of(Structure::inode))
                        if (field.offset + field.size <= tag.length - 4u)
                            fields.push_back({field.name, field.offset + 8, field.size, field.kind});
                Place place;
                place.structure = "fast_commit_tag";
                place.fields = std::move(fields);
                place.at = place.home = block * size_ + at;
                place.words = {"journal"};
                place.seal = seal;
                place.has_own_sum = true;
                place.replayed = true;
                places_.push_back(std::move(place));
                at += 4u + tag.length.get();
            }
        }
    }

    static constexpr const char* words_[] = {"value[0]", "value[4]", "value[8]", "value[12]"};
    FileSystem& fs_;
    MemoryDevice& device_;
    std::shared_ptr<const LoggedBlocks> logged_;
    std::vector<Place>& places_;
    std::uint32_t size_;
    std::vector<std::uint64_t> blocks_;
    format::JournalLayout layout_;
};

}  // namespace

void add_log_places(FileSystem& fs, MemoryDevice& device, const std::shared_ptr<const LoggedBlocks>& logged,
                    std::vector<Place>& places) {
    LogFinder(fs, device, logged, places).find();
}

}  // namespace uext4::hostile
