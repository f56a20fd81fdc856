#include "tests/crash/states.h"

#include "format/superblock.h"

#include <algorithm>
#include <cstring>

namespace uext4::crash {

namespace {

constexpr std::uint64_t part_size = 1024, sector = 512;

std::uint64_t hash_of(std::uint64_t number, ConstBytes bytes) {
    std::uint64_t h = (number + 1) * 0x9e3779b97f4a7c15u;
    for (std::size_t i = 0; i + 8 <= bytes.size(); i += 8) {
        std::uint64_t word = 0;
        std::memcpy(&word, bytes.data() + i, 8);
        h = (h ^ word) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    return h;
}

bool writes(const RecordedWrite& entry) {
    return entry.kind == RecordedWrite::Kind::Write || entry.kind == RecordedWrite::Kind::Fua;
}

class Generator {
public:
    Generator(const Recording& recording, const StateCounts& counts, std::mt19937_64& random, SeenImages& seen,
              const std::function<Result<bool>(const CrashState&)>& visit)
        : recording_(recording), log_(recording.log), counts_(counts), random_(random), seen_(seen), visit_(visit) {}

    Result<void> run() {
        plan();
        current_ = recording_.initial->clone();
        sums_ = SeenImages::sums_of(*current_);
        for (std::size_t cut = 0; cut <= log_.size(); ++cut) {
            if (cut > 0 && writes(log_[cut - 1])) {
                const RecordedWrite& entry = log_[cut - 1];
                TRY(RecordingDevice::apply(entry, *current_));
                SeenImages::update(sums_, *current_, entry.offset, entry.data.size());
            }
            if (cut > 0 && log_[cut - 1].kind == RecordedWrite::Kind::Flush) base_ = base_at(cut);
            if (!TRY(states_at(cut))) return {};
        }
        return {};
    }

private:
    // The image with everything up to a flush: what a later cut can not take away.
    struct Base {
        std::size_t flushed = 0;
        std::shared_ptr<MemoryDevice> image;
        SeenImages::Sums sums;
    };

    Base base_at(std::size_t cut) const { return {cut, std::shared_ptr<MemoryDevice>(current_->clone()), sums_}; }

    // How many states of each kind at each cut.
    void plan() {
        auto spread = [&](std::size_t count, std::vector<unsigned>& at) {
            at.assign(log_.size() + 1, 0);
            for (std::size_t i = 0; i < count; ++i) ++at[random_() % at.size()];
        };
        spread(counts_.subsets, subsets_);
        spread(counts_.torn, torn_);
        spread(counts_.lying, lying_);
    }

    Result<bool> states_at(std::size_t cut) {
        if (!base_.image) {
            base_.image = recording_.initial->clone();
            base_.sums = sums_;
        }
        if ((cut == 0 || writes(log_[cut - 1])) && random_() % 100 < counts_.prefix_percent)
            if (!TRY(offer(CutKind::prefix, cut, fmt::format("cut after {} of {} requests", cut, log_.size()),
                           std::make_shared<OverlayDevice>(*current_), sums_.total, cut)))
                return false;
        for (unsigned i = 0; i < subsets_[cut]; ++i)
            if (!TRY(built(CutKind::subset, cut))) return false;
        for (unsigned i = 0; i < torn_[cut]; ++i)
            if (!TRY(built(CutKind::torn, cut))) return false;
        for (unsigned i = 0; i < lying_[cut]; ++i)
            if (!TRY(built(CutKind::lying, cut))) return false;
        return true;
    }

    // Some of the writes since the last flush (a lying device: since the beginning).
    Result<bool> built(CutKind kind, std::size_t cut) {
        const bool lying = kind == CutKind::lying;
        std::shared_ptr<MemoryDevice> from =
            lying ? std::shared_ptr<MemoryDevice>(recording_.initial->clone()) : base_.image;
        auto image = std::make_shared<OverlayDevice>(std::shared_ptr<BlockDevice>(from));
        SeenImages::Sums sums = lying ? SeenImages::sums_of(*from) : base_.sums;
        const std::size_t first = lying ? 0 : base_.flushed;
        std::vector<std::size_t> may;
        for (std::size_t i = first; i < cut; ++i)
            if (writes(log_[i])) may.push_back(i);
        if (may.empty()) return true;
        const std::size_t tear = kind == CutKind::torn ? torn_one(may, cut) : ~std::size_t{0};
        if (kind == CutKind::torn && tear == ~std::size_t{0}) return true;
        const unsigned keep = lying ? 85 : std::array<unsigned, 4>{10, 50, 75, 93}[random_() % 4];
        const std::size_t alone = kind == CutKind::subset && random_() % 2 ? lost_alone(may) : ~std::size_t{0};
        std::string lost;
        for (const std::size_t i : may) {
            const RecordedWrite& entry = log_[i];
            if (i == tear) {
                lost += fmt::format(" {} torn", i);
                TRY(apply_torn(entry, *image));
            } else if ((entry.kind == RecordedWrite::Kind::Fua && !lying) ||
                       (alone != ~std::size_t{0} ? i != alone : random_() % 100 < keep)) {
                TRY(image->write(entry.offset, entry.data));
            } else {
                lost += fmt::format(" {}", i);
                continue;
            }
            SeenImages::update(sums, *image, entry.offset, entry.data.size());
        }
        return offer(kind, cut,
                     fmt::format("cut after {} of {} requests, flushed up to {}, lost:{}", cut, log_.size(), first,
                                 lost.empty() ? " none" : lost),
                     image, sums.total, tear + 1 == cut ? cut - 1 : cut, kind == CutKind::torn ? &log_[tear] : nullptr);
    }

    // One of the shortest, or any: a record that orders others is short.
    std::size_t lost_alone(const std::vector<std::size_t>& may) {
        std::vector<std::size_t> of;
        const bool any = random_() % 2;
        std::size_t least = ~std::size_t{0};
        for (const std::size_t i : may) {
            if (log_[i].kind == RecordedWrite::Kind::Fua) continue;
            const std::size_t length = any ? 0 : log_[i].data.size();
            if (length < least) of.clear();
            least = std::min(least, length);
            if (length == least) of.push_back(i);
        }
        return of.empty() ? ~std::size_t{0} : of[random_() % of.size()];
    }

    // What was acknowledged as durable cannot be torn: only the last request of that kind, which may be under way.
    std::size_t torn_one(const std::vector<std::size_t>& may, std::size_t cut) const {
        std::vector<std::size_t> open;
        for (const std::size_t i : may)
            if (log_[i].kind != RecordedWrite::Kind::Fua || i + 1 == cut) open.push_back(i);
        return open.empty() ? ~std::size_t{0} : open[random_() % open.size()];
    }

    Result<void> apply_torn(const RecordedWrite& entry, BlockDevice& image) {
        for (std::uint64_t at = 0; at < entry.data.size(); at += sector) {
            const std::uint64_t place = entry.offset + at;
            const bool super = place >= format::super_offset && place < format::super_offset + 1024;
            if (!super && random_() % 2) continue;
            TRY(image.write(place, ConstBytes(entry.data).subspan(at, std::min(sector, entry.data.size() - at))));
        }
        return {};
    }

    Result<bool> offer(CutKind kind, std::size_t cut, std::string what, std::shared_ptr<BlockDevice> image,
                       std::uint64_t total, std::size_t acked, const RecordedWrite* torn = nullptr) {
        if (!seen_.insert(total)) return true;
        const bool more = TRY(visit_({kind, std::move(what), cut, acked, std::move(image), total, torn}));
        return more && (!counts_.ends_recordings || seen_.size() < counts_.most);
    }

    const Recording& recording_;
    const std::vector<RecordedWrite>& log_;
    const StateCounts& counts_;
    std::mt19937_64& random_;
    SeenImages& seen_;
    const std::function<Result<bool>(const CrashState&)>& visit_;
    std::shared_ptr<MemoryDevice> current_;
    SeenImages::Sums sums_;
    Base base_;
    std::vector<unsigned> subsets_, torn_, lying_;
};

}  // namespace

const char* cut_name(CutKind kind) {
    switch (kind) {
        case CutKind::prefix: return "prefix";
        case CutKind::subset: return "subset";
        case CutKind::torn: return "torn";
        case CutKind::lying: return "lying flush";
    }
    return "?";
}

SeenImages::Sums SeenImages::sums_of(BlockDevice& device) {
    Sums sums;
    sums.parts.assign(divide_up(device.size(), part_size), 0);
    update(sums, device, 0, device.size());
    return sums;
}

void SeenImages::update(Sums& sums, BlockDevice& device, std::uint64_t offset, std::uint64_t length) {
    std::array<std::byte, part_size> bytes{};
    for (std::uint64_t n = offset / part_size; n * part_size < offset + length; ++n) {
        const auto part = Bytes(bytes).first(std::min(part_size, device.size() - n * part_size));
        if (!device.read(n * part_size, part)) continue;
        const std::uint64_t now = hash_of(n, part);
        sums.total += now - sums.parts[n];
        sums.parts[n] = now;
    }
}

Result<void> for_each_state(const Recording& recording, const StateCounts& counts, std::mt19937_64& random,
                            SeenImages& seen, const std::function<Result<bool>(const CrashState&)>& visit) {
    return Generator(recording, counts, random, seen, visit).run();
}

}  // namespace uext4::crash
