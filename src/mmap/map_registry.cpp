#include "mmap/map_registry.h"

#include "mmap/mapped_file.h"

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

}  // namespace

MapRegistry& MapRegistry::instance() {
    static MapRegistry registry;
    return registry;
}

void MapRegistry::put_locked(Region region) {
    region.file->add_range({region.start, region.length, region.offset, region.shared});
    const std::uintptr_t start = region.start;
    regions_[start] = std::make_shared<const Region>(std::move(region));
    count_.store(regions_.size());
}

void MapRegistry::insert(Region region) {
    std::vector<Region> stale;  // the last references to inodes go outside of the lock
    MutexLock guard(lock_);
    stale = parts_locked(region.start, region.end());
    forget_locked(stale);
    region.life = ++lives_;
    put_locked(std::move(region));
}

std::vector<Region> MapRegistry::parts_locked(std::uintptr_t start, std::uintptr_t end) const {
    std::vector<Region> out;
    auto it = regions_.upper_bound(start);
    if (it != regions_.begin() && std::prev(it)->second->end() > start) --it;
    for (; it != regions_.end() && it->first < end; ++it) out.push_back(cut(*it->second, start, end));
    return out;
}

std::vector<Region> MapRegistry::parts(std::uintptr_t start, std::uintptr_t end) const {
    MutexLock guard(lock_);
    return parts_locked(start, end);
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
        if (region->life == life && offset >= region->offset && offset - region->offset < region->length)
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

void MapRegistry::forget_locked(const std::vector<Region>& parts) {
    for (const Region& part : parts) {
        auto it = std::prev(regions_.upper_bound(part.start));
        const RegionRef whole = it->second;
        regions_.erase(it);
        whole->file->remove_range(whole->start);
        if (whole->start < part.start) put_locked(cut(*whole, whole->start, part.start));
        if (part.end() < whole->end()) put_locked(cut(*whole, part.end(), whole->end()));
    }
    count_.store(regions_.size());
}

std::vector<Region> MapRegistry::remove_locked(std::uintptr_t start, std::uintptr_t end, const ClientMaps* engine) {
    std::vector<Region> parts = parts_locked(start, end);
    std::erase_if(parts, [&](const Region& part) { return part.engine != engine; });
    forget_locked(parts);
    return parts;
}

void MapRegistry::move_locked(std::uintptr_t from, std::uintptr_t to, std::size_t length, const ClientMaps* engine) {
    std::vector<Region> parts = remove_locked(from, from + length, engine);
    for (Region part : parts) {
        part.start = to + (part.start - from);
        put_locked(std::move(part));
    }
}

void MapRegistry::grow_locked(std::uintptr_t start, std::uintptr_t end) {
    const auto it = regions_.find(start);
    if (it == regions_.end()) return;
    if (const auto next = std::next(it); next != regions_.end()) end = std::min(end, next->first);
    Region longer = *it->second;
    if (end <= longer.end()) return;
    longer.length = end - longer.start;
    longer.file->remove_range(start);
    put_locked(std::move(longer));
}

bool MapRegistry::uses(const MappedFile* file) const {
    MutexLock guard(lock_);
    for (const auto& [start, region] : regions_)
        if (region->file.get() == file) return true;
    return false;
}

std::size_t MapRegistry::count(const ClientMaps* engine) const {
    MutexLock guard(lock_);
    std::size_t n = 0;
    for (const auto& [start, region] : regions_) n += region->engine == engine;
    return n;
}

}  // namespace uext4
