#include "namespace/dentry_cache.h"

#include "sync/thread.h"

#include <sys/mman.h>

#include <cstring>
#include <new>

namespace uext4 {

struct DentryCache::Slot {
    std::atomic<std::uint64_t> sequence{0};
    std::atomic<std::uint64_t> directory{0};  // 0: empty
    std::atomic<std::uint64_t> inode{0};
    std::array<std::atomic<std::uint64_t>, max_name / 8> name{};

    bool has(const Key& key) const {
        if (directory.load(std::memory_order_relaxed) != key.directory) return false;
        for (std::size_t i = 0; i < name.size(); ++i)
            if (name[i].load(std::memory_order_relaxed) != key.name[i]) return false;
        return true;
    }
    // As it is between two changes; nothing where it is another name's, or is being changed.
    std::optional<InodeNr> value_of(const Key& key) const {
        const std::uint64_t before = sequence.load(std::memory_order_acquire);
        if ((before & 1) != 0 || !has(key)) return std::nullopt;
        const InodeNr found(inode.load(std::memory_order_relaxed));
        std::atomic_thread_fence(std::memory_order_acquire);
        return sequence.load(std::memory_order_relaxed) == before ? std::optional(found) : std::nullopt;
    }
    bool try_change() {
        std::uint64_t seen = sequence.load(std::memory_order_relaxed);
        if ((seen & 1) != 0 || !sequence.compare_exchange_strong(seen, seen + 1, std::memory_order_acquire))
            return false;
        std::atomic_thread_fence(std::memory_order_release);
        return true;
    }
    void end_change() { sequence.fetch_add(1, std::memory_order_release); }
    void set(const Key& key, InodeNr to) {
        directory.store(key.directory, std::memory_order_relaxed);
        inode.store(to.value, std::memory_order_relaxed);
        for (std::size_t i = 0; i < name.size(); ++i) name[i].store(key.name[i], std::memory_order_relaxed);
    }
};

DentryCache::~DentryCache() {
    if (Slot* all = table()) ::munmap(static_cast<void*>(all), slot_count_ * sizeof(Slot));
}

bool DentryCache::is_cacheable(InodeNr directory, std::string_view name) {
    return directory.value != 0 && !name.empty() && name.size() <= max_name && name != "." && name != ".." &&
           name.find('\0') == name.npos;
}

DentryCache::Key DentryCache::key_of(InodeNr directory, std::string_view name) {
    Key key{directory.value, {}};
    std::memcpy(key.name.data(), name.data(), name.size());
    return key;
}

// Each bit of the key has its part in all bits of the hash: names mostly differ in their last bytes.
std::uint64_t DentryCache::hash_of(const Key& key) {
    std::uint64_t hash = key.directory * 0x9E3779B97F4A7C15;
    for (const std::uint64_t word : key.name) {
        if (word == 0) break;
        hash = (hash ^ word) * 0x9E3779B97F4A7C15;
        hash ^= hash >> 32;
    }
    hash *= 0xFF51AFD7ED558CCD;
    hash ^= hash >> 33;
    hash *= 0xC4CEB9FE1A85EC53;
    return hash ^ hash >> 33;
}

DentryCache::Slot* DentryCache::slots_of(Slot* all, std::uint64_t hash) const {
    return all + (hash & (slot_count_ - 1) & ~(ways - 1));
}

// Pages of it are the system's until a name is in them. Null where there is no memory.
DentryCache::Slot* DentryCache::allocate_table() {
    static_assert(sizeof(Slot) == 64);
    const std::size_t bytes = slot_count_ * sizeof(Slot);
    void* const map = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) return nullptr;
    auto* made = static_cast<Slot*>(map);  // zeros are empty places
    Slot* before = nullptr;
    if (table_.compare_exchange_strong(before, made, std::memory_order_acq_rel)) return made;
    ::munmap(map, bytes);
    return before;
}

std::optional<InodeNr> DentryCache::find(InodeNr directory, std::string_view name) const {
    Slot* const all = table();
    if (!all || !is_cacheable(directory, name)) return std::nullopt;
    const Key key = key_of(directory, name);
    const Slot* const places = slots_of(all, hash_of(key));
    for (std::size_t way = 0; way < ways; ++way)
        if (const auto found = places[way].value_of(key)) return found;
    return std::nullopt;
}

void DentryCache::insert(InodeNr directory, std::string_view name, InodeNr inode) {
    if (!is_cacheable(directory, name)) return;
    Slot* all = table();
    if (!all) all = allocate_table();
    if (!all) return;
    const Key key = key_of(directory, name);
    const std::uint64_t hash = hash_of(key);
    Slot* const places = slots_of(all, hash);
    // An empty place, or the one that the hash says.
    Slot* chosen = &places[hash >> 60 & (ways - 1)];
    for (std::size_t way = ways; way-- > 0;) {
        if (places[way].value_of(key)) return;
        if (places[way].directory.load(std::memory_order_relaxed) == 0) chosen = &places[way];
    }
    if (!chosen->try_change()) return;
    chosen->set(key, inode);
    chosen->end_change();
}

void DentryCache::erase(InodeNr directory, std::string_view name) {
    Slot* const all = table();
    if (!all || !is_cacheable(directory, name)) return;
    const Key key = key_of(directory, name);
    Slot* const places = slots_of(all, hash_of(key));
    for (std::size_t way = 0; way < ways; ++way) {
        Slot& place = places[way];
        // Nobody notes this name meanwhile: where it is not now, it does not come.
        if (place.directory.load(std::memory_order_relaxed) != key.directory) continue;
        while (!place.try_change()) this_thread::yield();  // a thread is at another name there
        if (place.has(key)) place.set(Key{}, InodeNr());
        place.end_change();
    }
}

}  // namespace uext4
