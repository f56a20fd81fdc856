// Every field of every structure, set to 0, its maximum, one more, one less and a number that belongs to another
// structure, with its checksum wrong and made right: no crash, no hang, bounded memory, and errors that name what is
// damaged. A few places of each structure are taken, in images of every layout.
#include "tests/hostile/batches.h"
#include "tests/hostile/places.h"
#include "tests/hostile/visit.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <random>
#include <set>

namespace uext4::hostile {
namespace {

struct Case {
    const Place* place = nullptr;
    const format::FieldDescription* field = nullptr;
    std::uint64_t value = 0;
    enum Sums : std::uint8_t { wrong, log_right, right } sums = wrong;
    bool copied = false;  // the bytes of another structure instead of a value
};

std::vector<Case> cases_of(SeedKind kind) {
    std::vector<Case> out;
    const auto device = seed(kind).copy();
    for (const Place& place : places_of(kind)) {
        for (const auto& field : place.fields) {
            const std::uint64_t old = read_field(*device, place, field);
            const std::uint64_t largest =
                field.size >= 8 ? ~std::uint64_t{0} : (std::uint64_t{1} << 8 * field.size) - 1;
            // Block 300 and inode 8 belong to others: a table of inodes or data, and the journal.
            std::set<std::uint64_t> values{0, largest, (old + 1) & largest, (old - 1) & largest, 300 & largest, 8};
            values.erase(old);
            const bool sum = field.name.find("checksum") != std::string_view::npos;
            for (const auto sums : {Case::wrong, Case::log_right, Case::right}) {
                if (sums == Case::right && (!place.seal || sum)) continue;
                if (sums == Case::log_right && !place.log_seal) continue;
                for (const std::uint64_t value : values) out.push_back({&place, &field, value, sums, false});
                if (field.kind == format::FieldKind::bytes) out.push_back({&place, &field, 0, sums, true});
            }
        }
    }
    return out;
}

std::string name_of(SeedKind kind, const Case& c) {
    constexpr const char* sums[] = {"", ", the log's sums right", ", checksum right"};
    return fmt::format("{}: {} at {:#x}: {} = {}{}{}", seed_name(kind), c.place->structure, c.place->at, c.field->name,
                       c.copied ? "a copy of inodes" : fmt::format("{:#x}", c.value), sums[c.sums],
                       c.place->at != c.place->home ? ", logged" : "");
}

std::shared_ptr<MemoryDevice> damaged(SeedKind kind, const Case& c) {
    auto device = seed(kind).copy();
    if (c.copied) {
        std::vector<std::byte> bytes(c.field->size);
        (void)device->read(std::uint64_t{300} * 1024, bytes);
        write_bytes(*device, c.place->at + c.field->offset, bytes);
    } else if (c.field->size > 8) {
        write_bytes(*device, c.place->at + c.field->offset,
                    std::vector<std::byte>(c.field->size, static_cast<std::byte>(c.value)));
    } else {
        write_field(*device, *c.place, *c.field, c.value);
    }
    if (c.sums == Case::right) c.place->seal(*device);
    if (c.sums == Case::log_right) c.place->log_seal(*device);
    return device;
}

// Damage that the structure's checksum gives away, where the image has them.
bool must_be_told(SeedKind kind, const Case& c) {
    if (c.sums == Case::right) return false;
    // The log's sums come before anything in the block. But the last transaction that its own does not fit was never
    // whole.
    if (c.place->log_seal && c.sums == Case::wrong) return kind != SeedKind::dirty_v1;
    if (c.field->name == "s_feature_ro_compat") return false;  // it says whether there are checksums at all
    // A log that ends early is what a crash leaves, so what is unreadable there may be its end; and its superblock is
    // read by whoever writes.
    if (c.place->replayed && (c.field->name == "s_feature_incompat" || c.field->name == "h_blocktype"))
        return false;  // it says whether there are checksums at all
    if (c.place->replayed)
        return c.place->structure == "journal_super" && c.place->seal && kind != SeedKind::protected_mmp;
    // Only writing claims the block of multiple-mount protection.
    if (c.place->structure == "mmp") return false;
    return c.place->has_own_sum;
}

std::vector<std::string> judge(SeedKind kind, const Case& c) {
    std::vector<std::string> failures;
    const std::vector<std::string> logs{"journal"};
    const auto device = damaged(kind, c);
    std::vector<std::byte> before(1024), after(1024);
    (void)seed(kind).image->read(c.place->at, before);
    (void)device->read(c.place->at, after);
    if (before == after) return {};  // the other structure's bytes are the same
    const Visit looked = look_at(device);
    Visit changed;
    // Waiting for another host is what the sequence asks for; the mount would take its time.
    if (c.place->structure != "mmp" && kind != SeedKind::protected_mmp)
        changed = change(std::shared_ptr<MemoryDevice>(device));
    std::vector<std::string> said = looked.said;
    said.insert(said.end(), changed.said.begin(), changed.said.end());
    for (const std::string& text : said)
        if (!names_a_structure(text)) failures.push_back("names no structure: " + text);
    if (must_be_told(kind, c) && std::ranges::none_of(said, [&](const std::string& text) {
            return names_one_of(text, c.place->log_seal && c.sums == Case::wrong ? logs : c.place->words);
        }))
        failures.push_back(fmt::format("is not told of ({} messages{})", said.size(),
                                       said.empty() ? "" : ", the first: " + said.front()));
    return failures;
}

class Fields : public testing::TestWithParam<SeedKind> {};

// All of them would take hours under a sanitizer: a sample that the seed chooses, all with UEXT4_LONG.
TEST_P(Fields, AreDamagedOneByOne) {
    const SeedKind kind = GetParam();
    std::vector<Case> cases = cases_of(kind);
    const std::size_t all = cases.size();
    if (!::getenv("UEXT4_LONG")) {
        const char* number = ::getenv("UEXT4_SEED");
        std::mt19937 random(number ? static_cast<unsigned>(std::atoi(number)) : 1);
        std::shuffle(cases.begin(), cases.end(), random);
        const char* wanted = ::getenv("UEXT4_CASES");
        cases.resize(std::min<std::size_t>(cases.size(), wanted ? static_cast<std::size_t>(std::atoi(wanted)) : 500));
    }
    const auto failures = run_in_batches(
        cases.size(), [&](std::size_t i) { return name_of(kind, cases[i]); },
        [&](std::size_t i) { return judge(kind, cases[i]); });
    for (std::size_t i = 0; i < std::min<std::size_t>(failures.size(), 40); ++i) ADD_FAILURE() << failures[i];
    EXPECT_EQ(failures.size(), 0u);
    fmt::print("{}: {} places, {} of {} cases\n", seed_name(kind), places_of(kind).size(), cases.size(), all);
}

INSTANTIATE_TEST_SUITE_P(Images, Fields,
                         testing::Values(SeedKind::checksums, SeedKind::bare, SeedKind::inline_data, SeedKind::indirect,
                                         SeedKind::bigalloc, SeedKind::protected_mmp, SeedKind::dirty_v3,
                                         SeedKind::dirty_bare, SeedKind::fast_commits, SeedKind::dirty_v2,
                                         SeedKind::dirty_v1, SeedKind::ciphered),
                         [](const auto& kind) { return std::string(seed_name(kind.param)); });

// The images are sound before they are damaged: a fault found later is the damage's.
TEST_P(Fields, StartFromSoundImages) {
    const Visit looked = look_at(seed(GetParam()).copy());
    EXPECT_TRUE(looked.mounted);
    for (const std::string& text : looked.said) ADD_FAILURE() << text;
    if (GetParam() == SeedKind::protected_mmp) return;
    const Visit changed = change(seed(GetParam()).copy());
    for (const std::string& text : changed.said) ADD_FAILURE() << text;
}

std::size_t count(SeedKind kind, std::string_view structure) {
    return static_cast<std::size_t>(std::ranges::count(places_of(kind), structure, &Place::structure));
}

TEST(SeedImages, HaveIndexesOfTwoLevelsAndOfOne) {
    for (const SeedKind kind : {SeedKind::checksums, SeedKind::bare, SeedKind::indirect, SeedKind::dirty_v3})
        EXPECT_GT(count(kind, "index_node"), 0u) << seed_name(kind);
    for (const SeedKind kind : {SeedKind::few_names, SeedKind::few_names_bare, SeedKind::inline_data,
                                SeedKind::bigalloc, SeedKind::dirty_bare})
        EXPECT_GT(count(kind, "index_root"), 0u) << seed_name(kind);
}

}  // namespace
}  // namespace uext4::hostile
