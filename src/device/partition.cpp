#include "device/partition.h"

#include "format/constants.h"
#include "format/superblock.h"

#include <blkid/blkid.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <cstddef>
#include <cstring>
#include <limits>
#include <memory>

namespace uext4 {

namespace {

struct ProbeDeleter {
    void operator()(blkid_struct_probe* probe) const { blkid_free_probe(probe); }
};

using Probe = std::unique_ptr<blkid_struct_probe, ProbeDeleter>;

constexpr std::uint64_t table_unit = 512;  // libblkid counts in these whatever the sector size
constexpr unsigned large_sector = 4096;

// The table as of a disk with such sectors (0: those that it has; 512 for a file), which lives as long as the probe;
// null where there is none.
Result<blkid_partlist> read_table(Probe& probe, int fd, unsigned sector, const std::string& name) {
    probe.reset(blkid_new_probe());
    if (!probe) return fail(ENOMEM, "{}: no memory to read the partition table", name);
    if (blkid_probe_set_device(probe.get(), fd, 0, 0) != 0 ||
        (sector && blkid_probe_set_sectorsize(probe.get(), sector) != 0))
        return fail(EIO, "{}: the partition table cannot be read", name);
    blkid_probe_enable_superblocks(probe.get(), 0);
    blkid_probe_enable_partitions(probe.get(), 1);
    blkid_partlist list = blkid_probe_get_partitions(probe.get());
    return list && blkid_partlist_numof_partitions(list) > 0 ? list : nullptr;
}

Result<Partition> entry(const Probe& probe, blkid_partlist list, std::uint32_t number, const std::string& name) {
    if (number == 0 || number > static_cast<std::uint32_t>(std::numeric_limits<int>::max()))
        return fail(ENOENT, "{}: there is no partition {}", name, number);
    // By hand instead of by libblkid's own look-up, which goes by the kernel's view of a device for some tables.
    const int count = blkid_partlist_numof_partitions(list);
    blkid_partition found = nullptr;
    for (int i = 0; i < count && !found; ++i) {
        blkid_partition candidate = blkid_partlist_get_partition(list, i);
        if (candidate && blkid_partition_get_partno(candidate) == static_cast<int>(number)) found = candidate;
    }
    if (!found) return fail(ENOENT, "{}: there is no partition {}", name, number);
    if (blkid_partition_is_extended(found))
        return fail(EINVAL, "{}: partition {} is the extended one, a container of others", name, number);
    const auto start = static_cast<std::uint64_t>(blkid_partition_get_start(found));
    const auto length = static_cast<std::uint64_t>(blkid_partition_get_size(found));
    const auto disk = static_cast<std::uint64_t>(blkid_probe_get_size(probe.get())) / table_unit;
    if (length == 0 || start > disk || length > disk - start)
        return fail(EINVAL, "{}: partition {}: {} sectors at {} are outside of the disk's {}", name, number, length,
                    start, disk);
    return Partition{number, start * table_unit, length * table_unit};
}

bool is_mbr(blkid_partlist list) {
    blkid_parttable table = blkid_partlist_get_table(list);
    const char* type = table ? blkid_parttable_get_type(table) : nullptr;
    return type && std::strcmp(type, "dos") == 0;
}

bool has_ext4(int fd, const Partition& partition) {
    Le16 magic{};
    constexpr std::uint64_t place = format::super_offset + offsetof(format::SuperBlock, magic);
    return partition.size > place + sizeof(magic) &&
           pread(fd, &magic, sizeof(magic), static_cast<off_t>(partition.offset + place)) == sizeof(magic) &&
           magic == format::super_magic;
}

}  // namespace

Result<Partition> find_partition(int fd, std::uint32_t number, const std::string& name) {
    Probe probe;
    blkid_partlist list = TRY(read_table(probe, fd, 0, name));
    // A file does not say of which sectors the disk was that it is a copy of, and a GPT begins at the second one.
    struct stat info{};
    const bool copy = fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
    if (!list && copy) list = TRY(read_table(probe, fd, large_sector, name));
    if (!list) return fail(EINVAL, "{}: it has no partition table", name);
    const Result<Partition> found = entry(probe, list, number, name);
    // An MBR reads in either way: the one goes in which its partition holds what is looked for.
    if (!copy || !is_mbr(list) || (found && has_ext4(fd, *found))) return found;
    Probe other;
    blkid_partlist large = TRY(read_table(other, fd, large_sector, name));
    if (!large) return found;
    const Result<Partition> there = entry(other, large, number, name);
    return there && has_ext4(fd, *there) ? there : found;
}

ImageName parse_image_name(const std::string& text) {
    const std::size_t at = text.rfind('@');
    if (at == std::string::npos || at == 0 || at + 1 == text.size()) return {text, std::nullopt};
    std::uint32_t number = 0;
    const char* last = text.c_str() + text.size();
    const auto [end, error] = std::from_chars(text.c_str() + at + 1, last, number);
    if (error != std::errc() || end != last) return {text, std::nullopt};
    struct stat info{};
    if (stat(text.c_str(), &info) == 0) return {text, std::nullopt};
    return {text.substr(0, at), number};
}

}  // namespace uext4
