#include "mmap/map_registry.h"

#include "mmap/mapped_file.h"
#include "mmap/proc_maps.h"

#include <algorithm>

namespace uext4 {

namespace {

Region cut(const Region& region, std::uintptr_t start, std::uintptr_t end) {
    Region part = region;
    part.start = std::max(region.start, start);
    part.length = std::min(region.end(), end) - part.start;
    part.offset = region.offset_of(part.start);
    return part;
}

MappedFile::Range range_of(const Region& region) { return {region.start, region.length, region.offset, region.shared}; }

bool is_trace(const Region& region) { return region.file == nullptr; }

bool overlap(const Region& a, const Region& b) { return a.start < b.end() && b.start < a.end(); }

bool is_there(const Region& region, std::uintptr_t at) {
    return is_file_mapped_at(at, region.file->descriptor(), region.offset, region.shared);
}

bool is_met_by_another(const Region& layer, const std::vector<Region>& layers) {
    return std::ranges::any_of(layers, [&](const Region& l) { return &l != &layer && overlap(l, layer); });
}

}  // namespace

MapRegistry& MapRegistry::instance() {
    // Never destroyed: maps and the threads that serve them last as long as the program does.
    static MapRegistry& registry = *new MapRegistry;
    return registry;
}

// Where nothing else is.
void MapRegistry::put_locked(Region region) {
    region.file->add_range(range_of(region));
    const std::uintptr_t start = region.start;
    region.is_foreign = false;
    regions_[start] = std::make_shared<const Region>(std::move(region));
    count_.store(regions_.size());
}

void MapRegistry::insert_locked(Region region) {
    set_aside_locked(region.start, region.end(), region.engine);
    region.id = ++lives_;
    put_locked(std::move(region));
}

// What is set aside keeps its place in its file: until its event is read, nothing can be asked for there.
void MapRegistry::set_aside_locked(std::uintptr_t start, std::uintptr_t end, const ClientMaps* by) {
    for (Region& part : parts_locked(start, end)) {
        forget_locked({part});
        part.file->add_range(range_of(part));
        part.is_foreign = part.engine != by;
        aside_.push_back(std::move(part));
    }
}

void MapRegistry::set_others_aside_locked(std::uintptr_t start, std::uintptr_t end, const ClientMaps* by) {
    for (const Region& part : parts_locked(start, end))
        if (part.engine != by) set_aside_locked(part.start, part.end(), by);
}

std::vector<Region> MapRegistry::parts_locked(std::uintptr_t start, std::uintptr_t end) const {
    std::vector<Region> out;
    auto it = regions_.upper_bound(start);
    if (it != regions_.begin() && std::prev(it)->second->end() > start) --it;
    for (; it != regions_.end() && it->first < end; ++it) out.push_back(cut(*it->second, start, end));
    return out;
}

RegionRef MapRegistry::find(std::uintptr_t address) const {
    MutexLock guard(lock_);
    return find_locked(address);
}

RegionRef MapRegistry::find_locked(std::uintptr_t address) const {
    auto it = regions_.upper_bound(address);
    if (it == regions_.begin()) return nullptr;
    --it;
    return address < it->second->end() ? it->second : nullptr;
}

RegionRef MapRegistry::below_locked(std::uintptr_t address) const {
    auto it = regions_.upper_bound(address);
    if (it == regions_.begin()) return nullptr;
    --it;
    return it->second->end() <= address ? it->second : nullptr;
}

std::vector<std::uintptr_t> MapRegistry::pages_of_locked(std::uint64_t life, std::uint64_t offset) const {
    std::vector<std::uintptr_t> out;
    for (const auto& [start, region] : regions_)
        if (region->id == life && offset >= region->offset && offset - region->offset < region->length)
            out.push_back(start + (offset - region->offset));
    return out;
}

bool MapRegistry::overlaps(const void* memory, std::size_t length) const {
    if (count_.load(std::memory_order_relaxed) == 0 || length == 0) return false;
    const auto start = reinterpret_cast<std::uintptr_t>(memory);
    MutexLock guard(lock_);
    auto it = regions_.upper_bound(start);
    if (it != regions_.end() && it->first < start + length) return true;
    return it != regions_.begin() && std::prev(it)->second->end() > start;
}

bool MapRegistry::has_region_below(const void* memory) const {
    if (!has_regions()) return false;
    MutexLock guard(lock_);
    return !regions_.empty() && regions_.begin()->first < reinterpret_cast<std::uintptr_t>(memory);
}

void MapRegistry::forget_locked(const std::vector<Region>& parts) {
    for (const Region& part : parts) {
        auto it = std::prev(regions_.upper_bound(part.start));
        const RegionRef whole = it->second;
        regions_.erase(it);
        whole->file->remove_range(range_of(*whole));
        set_last_locked(*whole);
        if (whole->start < part.start) put_locked(cut(*whole, whole->start, part.start));
        if (part.end() < whole->end()) put_locked(cut(*whole, part.end(), whole->end()));
    }
    count_.store(regions_.size());
}

std::vector<Region> MapRegistry::layers_locked(std::uintptr_t start, std::uintptr_t end,
                                               const ClientMaps* engine) const {
    std::vector<Region> out;
    for (const Region& region : aside_)
        if (region.start < end && start < region.end()) out.push_back(cut(region, start, end));
    for (Region& part : parts_locked(start, end)) out.push_back(std::move(part));
    std::erase_if(out, [&](const Region& part) { return part.engine != engine; });
    return out;
}

// `part` is a layer, or a part of one.
void MapRegistry::forget_layer_locked(const Region& part) {
    const auto it = std::ranges::find_if(aside_, [&](const Region& region) {
        return region.id == part.id && region.start <= part.start && part.end() <= region.end() &&
               region.offset_of(part.start) == part.offset;
    });
    if (it == aside_.end()) return forget_locked({part});
    const Region whole = std::move(*it);
    if (!is_trace(whole)) {
        whole.file->remove_range(range_of(whole));
        set_last_locked(whole);
    }
    std::vector<Region> rest;
    if (whole.start < part.start) rest.push_back(cut(whole, whole.start, part.start));
    if (part.end() < whole.end()) rest.push_back(cut(whole, part.end(), whole.end()));
    for (const Region& piece : rest)
        if (!is_trace(piece)) piece.file->add_range(range_of(piece));
    aside_.insert(aside_.erase(it), rest.begin(), rest.end());
}

std::vector<Region> MapRegistry::take_locked(const std::vector<Region>& layers, const Accepts& accepts) {
    std::vector<Region> first, last;
    for (const Region& layer : layers)
        (!is_met_by_another(layer, layers) || accepts(layer) ? first : last).push_back(layer);
    first.insert(first.end(), last.begin(), last.end());
    std::vector<Region> taken;
    for (const Region& layer : first) {
        // What of it no other was taken for.
        std::vector<Region> pieces{layer};
        for (const Region& other : taken) {
            std::vector<Region> left;
            for (const Region& piece : pieces) {
                if (!overlap(piece, other)) {
                    left.push_back(piece);
                    continue;
                }
                if (piece.start < other.start) left.push_back(cut(piece, piece.start, other.start));
                if (other.end() < piece.end()) left.push_back(cut(piece, other.end(), piece.end()));
            }
            pieces.swap(left);
        }
        taken.insert(taken.end(), pieces.begin(), pieces.end());
    }
    for (const Region& part : taken) forget_layer_locked(part);
    return taken;
}

std::vector<Region> MapRegistry::remove_locked(std::uintptr_t start, std::uintptr_t end, const ClientMaps* engine) {
    std::vector<Region> layers = layers_locked(start, end, engine);
    const bool is_open =
        std::ranges::any_of(layers, [&](const Region& layer) { return is_met_by_another(layer, layers); });
    if (is_open) {
        // Not of addresses where nothing was: another may come there before this is settled.
        std::map<std::uintptr_t, std::uintptr_t> there;
        for (const Region& layer : layers) there[layer.start] = std::max(there[layer.start], layer.end());
        std::uintptr_t reached = 0;
        for (const auto& [from, to] : there) {
            if (to > reached) removals_.push_back({std::max(from, reached), to, engine});
            reached = std::max(reached, to);
        }
        return {};
    }
    for (const Region& layer : layers) forget_layer_locked(layer);
    std::erase_if(layers, is_trace);
    return layers;
}

void MapRegistry::move_locked(std::uintptr_t from, std::uintptr_t to, std::size_t length, const ClientMaps* engine) {
    std::vector<Region> layers = layers_locked(from, from + length, engine);
    std::erase_if(layers, is_trace);
    const auto has_gone = [&](const Region& layer) { return is_there(layer, to + (layer.start - from)); };
    std::vector<Region> parts = take_locked(layers, has_gone);
    set_aside_locked(to, to + length, engine);
    for (Region& part : parts) {
        aside_.push_back({.id = ++lives_, .start = part.start, .length = part.length, .engine = part.engine});
        part.start = to + (part.start - from);
        put_locked(std::move(part));
    }
}

MapRegistry::Knowledge MapRegistry::known_to_go_locked(std::uintptr_t start, std::uintptr_t end,
                                                       std::optional<std::uintptr_t> to,
                                                       const ClientMaps* engine) const {
    std::vector<Region> layers = layers_locked(start, end, engine);
    std::erase_if(layers, is_trace);
    std::ranges::sort(layers, {}, &Region::start);
    std::uintptr_t at = start;
    bool all = true;
    for (const Region& layer : layers) {
        if (layer.start < at || is_there(layer, layer.start)) return Knowledge::contrary;
        if (to && !is_there(layer, *to + (layer.start - start))) return Knowledge::contrary;
        all = all && layer.start == at;
        at = layer.end();
    }
    return all && at == end ? Knowledge::all : Knowledge::part;
}

bool MapRegistry::is_open_locked(const ClientMaps* engine) const {
    const auto is_its = [&](const auto& one) { return one.engine == engine; };
    return std::ranges::any_of(removals_, is_its) || std::ranges::any_of(aside_, is_its);
}

bool MapRegistry::is_in_doubt_locked(const ClientMaps* engine) const {
    return std::ranges::any_of(aside_, [&](const Region& one) { return one.engine == engine && one.is_foreign; });
}

std::vector<Region> MapRegistry::settle_locked(const ClientMaps* engine) {
    std::vector<Region> gone;
    for (const Removal& one : removals_) {
        if (one.engine != engine) continue;
        std::vector<Region> parts =
            take_locked(layers_locked(one.start, one.end, engine), [](const Region&) { return false; });
        gone.insert(gone.end(), std::make_move_iterator(parts.begin()), std::make_move_iterator(parts.end()));
    }
    std::erase_if(removals_, [&](const Removal& one) { return one.engine == engine; });
    for (auto it = aside_.begin(); it != aside_.end();) {
        if (it->engine != engine) {
            ++it;
            continue;
        }
        if (!is_trace(*it)) {
            it->file->remove_range(range_of(*it));
            set_last_locked(*it);
        }
        gone.push_back(std::move(*it));
        it = aside_.erase(it);
    }
    std::erase_if(gone, is_trace);
    return gone;
}

// Never unknown meanwhile: who asks whether there are maps at all does so without the lock.
void MapRegistry::grow_locked(const Region& region, std::uintptr_t end) {
    Region longer = region;
    longer.length = end - region.start;
    region.file->remove_range(range_of(region));
    put_locked(std::move(longer));
}

bool MapRegistry::uses(const MappedFile* file) const {
    MutexLock guard(lock_);
    return uses_locked(file);
}

// Its ranges are those of its regions, and of what of it is set aside.
bool MapRegistry::uses_locked(const MappedFile* file) const {
    return file->is_mapped() || std::ranges::any_of(leaving_, [&](const Leaving& leaving) {
               return std::ranges::find(leaving.files, file) != leaving.files.end();
           });
}

std::size_t MapRegistry::count_locked(const ClientMaps* engine) const {
    std::size_t n = 0;
    for (const auto& [start, region] : regions_) n += region->engine == engine;
    return n;
}

}  // namespace uext4
