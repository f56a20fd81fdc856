// Where the structures of an image lie, what their fields are, and how their checksums are made right after damage.
#pragma once

#include "format/describe.h"
#include "tests/hostile/seed_image.h"

#include <functional>
#include <string>
#include <vector>

namespace uext4::hostile {

struct Place {
    std::string structure;  // as format::structure_name(), or of what has no table: "orphan_entry", "acl_entry" ...
    std::vector<format::FieldDescription> fields;
    std::uint64_t at = 0;            // byte of the device where the structure starts
    std::uint64_t home = 0;          // the same, but of what is in the log, where recovery brings it
    std::vector<std::string> words;  // an error about it holds one of these: structure and number
    // Makes every checksum right that covers it. Empty where there is none.
    std::function<void(BlockDevice&)> seal;
    // Of what is in a logged block: makes the log's sums right, so that the structure's own is what gives it away.
    std::function<void(BlockDevice&)> log_seal;
    bool has_own_sum = false;  // beside the log's
    bool replayed = false;     // part of the log, or what it overwrites: only recovery looks at it
};

// Places of the seed, in a stable order: a few of each structure.
const std::vector<Place>& places_of(SeedKind kind);

// The field's bytes, as a number.
std::uint64_t read_field(MemoryDevice& device, const Place& place, const format::FieldDescription& field);
void write_field(MemoryDevice& device, const Place& place, const format::FieldDescription& field, std::uint64_t value);
// For fields of kind bytes, and to set part of any structure.
void write_bytes(MemoryDevice& device, std::uint64_t at, ConstBytes bytes);

}  // namespace uext4::hostile
