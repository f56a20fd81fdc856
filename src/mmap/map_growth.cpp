// What the program makes maps longer by: the part of MapRegistry that looks for it.
#include "base/page.h"
#include "mmap/map_registry.h"
#include "mmap/mapped_file.h"
#include "mmap/proc_maps.h"

#include <sys/mman.h>

#include <algorithm>

namespace uext4 {

RegionRef MapRegistry::last_below_locked(std::uintptr_t address) const {
    const auto it = regions_.lower_bound(address);
    return it == regions_.begin() ? nullptr : std::prev(it)->second;
}

std::uintptr_t MapRegistry::more_until_locked(const Region& region, std::uintptr_t start) const {
    std::uintptr_t limit = UINTPTR_MAX;
    if (const auto next = regions_.lower_bound(start); next != regions_.end()) limit = next->first;
    for (const auto& [from, to, files] : leaving_)
        if (to > start) limit = std::min(limit, std::max(from, start));
    if (limit == start) return start;
    const std::uintptr_t end =
        std::min(limit, mapped_until(start, region.file->descriptor(), region.offset_of(start), region.shared));
    return region.file->contents().first_own_window(start, end);
}

void MapRegistry::put_more_locked(const Region& region, std::uintptr_t start, std::uintptr_t end) {
    Region more = region;
    more.start = start;
    more.length = end - start;
    more.offset = region.offset_of(start);
    put_locked(std::move(more));
}

bool MapRegistry::find_growth_locked(std::uintptr_t start, std::uintptr_t end) {
    std::vector<RegionRef> there;
    for (RegionRef last = last_below_locked(end); last; last = last_below_locked(last->start)) {
        if (last->end() <= end) there.push_back(last);
        if (last->start <= start) break;
    }
    for (const RegionRef& region : there) {
        const std::uintptr_t until = more_until_locked(*region, region->end());
        if (until > region->end()) grow_locked(*region, until);
    }
    bool is_told = true;
    for (const Span& unknown : unknown_locked(start, end)) is_told = know_locked(unknown) && is_told;
    return is_told;
}

std::vector<MapRegistry::Span> MapRegistry::unknown_locked(std::uintptr_t start, std::uintptr_t end) const {
    std::vector<Span> out;
    std::uintptr_t at = start;
    for (const Region& part : parts_locked(start, end)) {
        if (at < part.start) out.emplace_back(at, part.start);
        at = part.end();
    }
    if (at < end) out.emplace_back(at, end);
    return out;
}

std::optional<Region> MapRegistry::likely_whole_locked(const ProcMap& placed, std::uintptr_t start,
                                                       const RegionRef& like) const {
    const std::uint64_t offset = placed.offset + (start - placed.start);
    const FolioMemoryFile::Identity identity{placed.device, placed.inode};
    const auto is_it = [&](const Region& region) {
        return region.file && region.shared == placed.shared && region.file->contents().identity() == identity;
    };
    // What goes on below or above; else another map. Of several one that has the rights which the kernel tells, and
    // then the one that allows the least.
    const bool storable = (placed.protection & PROT_WRITE) != 0;
    std::optional<Region> best;
    int rank = -1;
    const auto consider = [&](const Region& region) {
        if (!is_it(region)) return;
        const bool below = region.end() == start && region.offset_of(start) == offset;
        const bool above = region.start > start && offset + (region.start - start) == region.offset;
        const int forbids = 2 * !region.may_write + !region.may_use_reserve;
        const int value = (below ? 16 : above ? 8 : 0) + (region.may_write == storable ? 4 : 0) + forbids;
        if (value <= rank) return;
        best = region, rank = value;
        if (!below && !above) best->id = 0;
    };
    if (like && is_it(*like)) {
        best = *like;
        best->id = 0;
        return best;
    }
    for (const auto& [at, region] : regions_) consider(*region);
    for (const Region& region : aside_) consider(region);
    for (const auto& [key, region] : last_) consider(region);
    return best;
}

std::optional<std::vector<MapRegistry::Span>> MapRegistry::know_locked(Span unknown, const RegionRef& like) {
    const std::optional<std::vector<ProcMap>> files = file_maps_in(unknown.first, unknown.second);
    if (!files) return std::nullopt;
    std::vector<Span> known;
    for (const ProcMap& placed : *files)
        if (const Span span = know_placed_locked(placed, unknown, like); span.first < span.second)
            known.push_back(span);
    return known;
}

MapRegistry::Span MapRegistry::know_placed_locked(const ProcMap& placed, Span unknown, const RegionRef& like) {
    const std::uintptr_t start = std::max(placed.start, unknown.first);
    const Span nothing{start, start};
    std::uintptr_t end = std::min(placed.end, unknown.second);
    for (const auto& [from, to, files] : leaving_)
        if (from < end && start < to) end = std::max(from, start);
    if (start >= end) return nothing;
    std::optional<Region> whole = likely_whole_locked(placed, start, like);
    if (!whole) return nothing;
    end = whole->file->contents().first_own_window(start, end);
    if (start >= end) return nothing;
    if (whole->id == 0) whole->id = ++lives_;
    whole->offset = placed.offset + (start - placed.start);
    whole->start = start;
    whole->length = end - start;
    put_locked(std::move(*whole));
    return {start, end};
}

std::vector<Region> MapRegistry::remove_stale_locked(const ClientMaps* engine, const std::vector<ProcMap>& files) {
    std::vector<Region> stale;
    for (const auto& known : regions_) {
        const Region& region = *known.second;
        if (region.engine != engine) continue;
        std::uintptr_t at = region.start;
        const auto add_until = [&](std::uintptr_t end) {
            if (at >= end) return;
            Region part = region;
            part.start = at;
            part.length = end - at;
            part.offset = region.offset_of(at);
            // What could not be told is not gone.
            if (!is_mapped(at) || find_proc_map(at)) stale.push_back(std::move(part));
        };
        auto placed = std::ranges::upper_bound(files, at, {}, &ProcMap::end);
        for (; placed != files.end() && placed->start < region.end(); ++placed) {
            const FolioMemoryFile::Identity identity{placed->device, placed->inode};
            const std::uintptr_t from = std::max(at, placed->start);
            const std::uintptr_t end =
                region.file->contents().first_own_window(from, std::min(placed->end, region.end()));
            if (identity != region.file->contents().identity() || placed->shared != region.shared ||
                placed->offset + (from - placed->start) != region.offset_of(from) || from >= end)
                continue;
            add_until(from);
            at = end;
        }
        add_until(region.end());
    }
    forget_locked(stale);
    return stale;
}

bool MapRegistry::learn_all_locked(const ClientMaps* engine, const std::vector<ProcMap>& files) {
    std::map<FolioMemoryFile::Identity, MappedFile*> known;
    const auto add = [&](const Region& region) {
        if (region.file && region.engine == engine)
            known.emplace(region.file->contents().identity(), region.file.get());
    };
    for (const auto& [start, region] : regions_) add(*region);
    for (const Region& region : aside_) add(region);
    for (const auto& [key, region] : last_) add(region);
    bool all = true;
    for (const ProcMap& placed : files) {
        const auto file = known.find({placed.device, placed.inode});
        if (file == known.end()) continue;
        const std::uintptr_t end = file->second->contents().first_own_window(placed.start, placed.end);
        // The event that takes another's away waits.
        set_others_aside_locked(placed.start, end, engine);
        for (const Span& unknown : unknown_locked(placed.start, end))
            all = know_placed_locked(placed, unknown, nullptr) == unknown && all;
    }
    return all;
}

void MapRegistry::find_moved_locked(std::uintptr_t from, std::uintptr_t to, std::size_t length) {
    for (const Span& unknown : unknown_locked(to, to + length)) (void)know_locked(unknown);
    // Where parts of it have gone since then, the others are found when they are asked for.
    if (!is_mapped(from) && !is_mapped(from + length - page_size)) return;
    for (const Span& unknown : unknown_locked(from, from + length))
        // What has stayed is not going to be told to be gone.
        for (const auto& [start, end] :
             know_locked(unknown, find_locked(to + (unknown.first - from))).value_or(std::vector<Span>{}))
            std::erase_if(aside_, [start = start, end = end](const Region& region) {
                return !region.file && region.start < end && start < region.end();
            });
}

void MapRegistry::keep_growth_locked(std::uintptr_t start, std::uintptr_t end, const ClientMaps* engine) {
    const RegionRef last = last_below_locked(end);
    if (start == end || !last || last->engine != engine || last->end() > end) return;
    if (const std::uintptr_t until = more_until_locked(*last, end); until > end) put_more_locked(*last, end, until);
}

void MapRegistry::keep_moved_growth_locked(std::uintptr_t from, std::uintptr_t to, std::size_t length,
                                           const ClientMaps* engine) {
    const std::uintptr_t end = from + length;
    const RegionRef last = last_below_locked(end);
    if (!last || last->engine != engine) return;
    // It is not here any more, so that it is looked for where it has gone. What is set aside here may be what has gone.
    const std::uintptr_t first = std::max(from, last->end());
    const bool is_open = std::ranges::any_of(
        aside_, [&](const Region& region) { return region.file && region.start < end && first < region.end(); });
    if (first < end && !is_open) {
        const std::uintptr_t at = to + (first - from);
        const std::uintptr_t until =
            std::min(to + length, mapped_until(at, last->file->descriptor(), last->offset_of(first), last->shared));
        if (until > at) put_more_locked(*last, first, first + (until - at));
    }
    keep_growth_locked(from, end, engine);
}

void MapRegistry::keep_behind_locked(const std::vector<Region>& parts) {
    for (const Region& part : parts) {
        if (find_locked(part.end())) continue;
        if (const std::uintptr_t until = more_until_locked(part, part.end()); until > part.end())
            put_more_locked(part, part.end(), until);
    }
}

void MapRegistry::set_last_locked(const Region& part) {
    last_[{part.file.get(), part.shared, part.may_write, part.may_use_reserve}] = part;
}

std::vector<Region> MapRegistry::forget_last_locked(const ClientMaps* engine) {
    std::vector<Region> out;
    std::erase_if(last_, [&](auto& entry) {
        if (entry.second.engine != engine) return false;
        out.push_back(std::move(entry.second));
        return true;
    });
    return out;
}

std::optional<std::vector<Region>> MapRegistry::forget_file(const MappedFile* file) {
    std::vector<Region> out;
    MutexLock guard(lock_);
    if (uses_locked(file)) return std::nullopt;
    auto it = last_.lower_bound({file, false, false, false});
    for (; it != last_.end() && it->second.file.get() == file; it = last_.erase(it))
        out.push_back(std::move(it->second));
    return out;
}

void MapRegistry::double_locked(std::uintptr_t from, std::uintptr_t to, const ClientMaps* engine) {
    const RegionRef last = last_below_locked(from + 1);
    if (!last || last->engine != engine || !last->shared) return;
    Region twin = *last;
    twin.start = to;
    twin.offset = last->offset_of(from);
    const std::uintptr_t until = mapped_until(to, twin.file->descriptor(), twin.offset, true);
    if (until == to) return;
    twin.length = until - to;
    insert_locked(std::move(twin));
}

MapRegistry::LeavingRef MapRegistry::set_leaving_locked(std::uintptr_t start, std::uintptr_t end,
                                                        const std::vector<Region>& parts) {
    Leaving leaving{.start = start, .end = end, .files = {}};
    for (const Region& part : parts) leaving.files.push_back(part.file.get());
    return leaving_.insert(leaving_.end(), std::move(leaving));
}

void MapRegistry::set_left_locked(LeavingRef leaving) { leaving_.erase(leaving); }

bool MapRegistry::is_leaving_locked(std::uintptr_t page) const {
    return std::ranges::any_of(leaving_, [&](const Leaving& l) { return l.start <= page && page < l.end; });
}

bool MapRegistry::is_partly_leaving_locked(std::uintptr_t start, std::uintptr_t end) const {
    if (leaving_.empty()) return false;
    const std::vector<Span> unknown = unknown_locked(start, end);
    return std::ranges::any_of(leaving_, [&](const Leaving& l) {
        return std::ranges::any_of(unknown, [&](const Span& u) { return l.start < u.second && u.first < l.end; });
    });
}

std::vector<Region> MapRegistry::regions_in(std::uintptr_t start, std::uintptr_t end) {
    MutexLock guard(lock_);
    return known_parts_locked(start, end);
}

std::vector<Region> MapRegistry::known_parts_locked(std::uintptr_t start, std::uintptr_t end) {
    std::vector<Region> out = parts_locked(start, end);
    std::size_t known = 0;
    for (const Region& part : out) known += part.length;
    if (known == end - start) return out;
    find_growth_locked(start, end);
    return parts_locked(start, end);
}

}  // namespace uext4
