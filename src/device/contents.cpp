#include "device/contents.h"

#include "device/file_device.h"
#include "device/signatures.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace uext4 {

namespace {

bool is_zero(BlockDevice& device) {
    constexpr std::uint64_t looked_at = 65536;
    std::vector<std::byte> start(std::min(device.size(), looked_at));
    return device.read(0, start) && std::ranges::all_of(start, [](std::byte b) { return b == std::byte{0}; });
}

// A fixed VHD is a raw disk with this behind it.
bool is_fixed_vhd(BlockDevice& device) {
    constexpr std::uint64_t footer = 512;
    char start[8] = {};
    return device.size() >= footer && device.read(device.size() - footer, std::as_writable_bytes(std::span(start))) &&
           std::memcmp(start, "conectix", sizeof start) == 0;
}

}  // namespace

std::string describe_contents(BlockDevice& device) {
    const Signature* signature = identify_signature(
        [&](std::uint64_t offset, Bytes out) { return device.read(offset, out).has_value(); }, device.size());
    if (signature) return "it is " + describe(*signature, device.name());
    auto* file = dynamic_cast<FileDevice*>(&device);
    PartitionTable* table = file ? file->partition_table() : nullptr;
    if (table)
        if (const std::string partitions = table->list(); !partitions.empty())
            return fmt::format("it is a disk with partitions; name one of them: {}", partitions);
    if (is_fixed_vhd(device))
        return fmt::format("it is a VHD image; `qemu-img convert -f vpc -O raw {} raw.img` makes a raw disk of it",
                           device.name());
    if (table)
        if (const std::string type = table->contents(); !type.empty())
            return fmt::format("it is {}, as blkid(8) calls it", type);
    if (is_zero(device)) return "it begins with zeros, as a new file does; `mkfs.ext4` makes a file system in it";
    return {};
}

}  // namespace uext4
