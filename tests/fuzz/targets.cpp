#include "tests/fuzz/targets.h"

#include "tests/hostile/places.h"
#include "tests/hostile/visit.h"

#include <algorithm>
#include <initializer_list>

namespace uext4::fuzz {

namespace {

using hostile::change, hostile::look_at, hostile::operate, hostile::places_of, hostile::read_field, hostile::seed,
    hostile::SeedKind, hostile::write_field;
using Spot = hostile::Place;

// One patch: u16 place, u8 field, u8 how, u64 value (little-endian). `how`, bit 0: the checksum is made right; bit 1:
// the value is added to what is there; bit 2: only the value's low 16 bits count; bit 3: in a logged block only the
// log's sums are made right.
struct Patch {
    Le16 place;
    std::uint8_t field, how;
    Le64 value;
};
static_assert(sizeof(Patch) == 12);
constexpr std::size_t most_patches = 16;

using Structures = std::initializer_list<std::string_view>;  // beginnings of their names; none: all

bool wanted(const Spot& place, Structures structures) {
    return structures.size() == 0 ||
           std::ranges::any_of(structures, [&](std::string_view s) { return place.structure.starts_with(s); });
}

std::shared_ptr<MemoryDevice> patched(SeedKind kind, ConstBytes input, Structures structures) {
    auto device = seed(kind).copy();
    static thread_local std::vector<const Spot*> choice;
    choice.clear();
    for (const Spot& place : places_of(kind))
        if (wanted(place, structures)) choice.push_back(&place);
    if (choice.empty()) return device;
    std::vector<const std::function<void(BlockDevice&)>*> seals;
    for (std::size_t n = 0; n < most_patches && (n + 1) * sizeof(Patch) <= input.size(); ++n) {
        const auto& patch = view_as<Patch>(input, n * sizeof(Patch));
        const Spot& place = *choice[patch.place % choice.size()];
        const auto& field = place.fields[patch.field % place.fields.size()];
        std::uint64_t value = patch.value;
        if (patch.how & 4) value &= 0xFFFF;
        if (patch.how & 2) value += read_field(*device, place, field);
        write_field(*device, place, field, value);
        const auto& seal = patch.how & 8 && place.log_seal ? place.log_seal : place.seal;
        if ((patch.how & 1) && seal) seals.push_back(&seal);
    }
    for (const auto* seal : seals) (*seal)(*device);
    return device;
}

void visit_all(SeedKind kind, ConstBytes input, Structures structures) {
    const auto device = patched(kind, input, structures);
    (void)look_at(device->clone());
    (void)change(device->clone());
}

// The first byte chooses the image.
template <std::size_t N>
SeedKind choose(const SeedKind (&kinds)[N], ConstBytes& input) {
    if (input.empty()) return kinds[0];
    const auto first = std::to_integer<std::size_t>(input[0]);
    input = input.subspan(1);
    return kinds[first % N];
}

// Those that nobody writes to as well, or only after a wait for another host.
constexpr SeedKind readable[] = {SeedKind::checksums, SeedKind::bare,     SeedKind::inline_data,
                                 SeedKind::indirect,  SeedKind::bigalloc, SeedKind::protected_mmp,
                                 SeedKind::ciphered};
constexpr SeedKind with_extents[] = {SeedKind::few_names, SeedKind::few_names_bare};
constexpr SeedKind with_index[] = {SeedKind::checksums, SeedKind::bare, SeedKind::indirect};
constexpr SeedKind writable[] = {SeedKind::checksums, SeedKind::bare,        SeedKind::inline_data, SeedKind::indirect,
                                 SeedKind::bigalloc,  SeedKind::dirty_v3,    SeedKind::dirty_bare,  SeedKind::dirty_v2,
                                 SeedKind::dirty_v1,  SeedKind::fast_commits};
constexpr SeedKind with_logs[] = {SeedKind::dirty_v3, SeedKind::dirty_bare, SeedKind::dirty_v2, SeedKind::dirty_v1};

void mount_and_walk(ConstBytes input) {
    const SeedKind kind = choose(readable, input);
    (void)look_at(patched(kind, input, {}));
}
void journal(ConstBytes input) {
    const bool fast = !input.empty() && std::to_integer<unsigned>(input[0]) >= 0xC0;
    SeedKind kind = choose(with_logs, input);
    if (fast) kind = SeedKind::fast_commits;
    visit_all(kind, input, {});
}
void extent_tree(ConstBytes input) {
    const SeedKind kind = choose(with_extents, input);
    visit_all(kind, input, {"extent", "inode"});
}
void hash_tree(ConstBytes input) {
    const SeedKind kind = choose(with_index, input);
    visit_all(kind, input, {"index", "dir"});
}
void xattrs(ConstBytes input) {
    const SeedKind kind = choose(with_extents, input);
    visit_all(kind, input, {"xattr", "acl", "inode"});
}
void inline_data(ConstBytes input) { visit_all(SeedKind::inline_data, input, {"inline", "inode", "dir", "xattr"}); }
// The first byte: how many patches; what follows them are the operations.
void operations(ConstBytes input) {
    const SeedKind kind = choose(writable, input);
    if (input.empty()) return;
    const std::size_t patches = std::to_integer<std::size_t>(input[0]) % 5 * sizeof(Patch);
    input = input.subspan(1);
    const std::size_t cut = std::min(patches, input.size());
    (void)operate(patched(kind, input.first(cut), {}), input.subspan(cut));
}

constexpr Target all[] = {
    {"mount_and_walk", "any structure damaged: mount read-only, read everything, check", mount_and_walk},
    {"journal", "logs that lie, and what they bring home: recovery, then use", journal},
    {"extent_tree", "extent trees and inodes: read, write, remove", extent_tree},
    {"hash_tree", "hashed and linear directories: look up, add, remove", hash_tree},
    {"xattrs", "attributes and access lists in inodes and blocks", xattrs},
    {"inline_data", "files and directories inside their inodes", inline_data},
    {"operations", "a sequence of operations on a damaged image", operations},
};

}  // namespace

std::span<const Target> targets() { return all; }
const Target* find_target(std::string_view name) {
    const auto* found = std::ranges::find(all, name, &Target::name);
    return found == std::end(all) ? nullptr : found;
}

}  // namespace uext4::fuzz
