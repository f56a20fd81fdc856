#include "device/partition.h"

#include "device/signatures.h"
#include "format/constants.h"
#include "format/superblock.h"

#include <blkid/blkid.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <cstddef>
#include <cstring>
#include <limits>
#include <memory>
#include <string_view>
#include <utility>

namespace uext4 {

namespace {

struct ProbeDeleter {
    void operator()(blkid_struct_probe* probe) const { blkid_free_probe(probe); }
};

using Probe = std::unique_ptr<blkid_struct_probe, ProbeDeleter>;

constexpr std::uint64_t table_unit = 512;  // libblkid counts in these whatever the sector size
constexpr unsigned large_sector = 4096;
constexpr int most_listed = 16;

// Of a disk with such sectors (0: those that it has; 512 for a file).
Result<Probe> new_probe(int fd, unsigned sector, const std::string& name) {
    Probe probe(blkid_new_probe());
    if (!probe) return fail(ENOMEM, "{}: no memory to read the partition table", name);
    if (blkid_probe_set_device(probe.get(), fd, 0, 0) != 0 ||
        (sector && blkid_probe_set_sectorsize(probe.get(), sector) != 0))
        return fail(EIO, "{}: the partition table cannot be read", name);
    return probe;
}

// It lives as long as the probe; null where there is none.
blkid_partlist read_table(const Probe& probe) {
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

bool read_at(int fd, std::uint64_t offset, Bytes out) {
    return pread(fd, out.data(), out.size(), static_cast<off_t>(offset)) == static_cast<ssize_t>(out.size());
}

bool has_ext4(int fd, const Partition& partition) {
    Le16 magic{};
    constexpr std::uint64_t place = format::super_offset + offsetof(format::SuperBlock, magic);
    return partition.size > place + sizeof(magic) &&
           read_at(fd, partition.offset + place, std::as_writable_bytes(std::span(&magic, 1))) &&
           magic == format::super_magic;
}

// By the GPT's identifier, or the MBR's number as libblkid writes it.
std::string type_of(blkid_partition partition) {
    constexpr std::pair<std::string_view, std::string_view> types[] = {
        {"0fc63daf-8483-4772-8e79-3d69d8477de4", "Linux"},
        {"4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "Linux root"},
        {"b921b045-1df0-41c3-af44-4c6f280d3fae", "Linux root"},
        {"69dad710-2ce4-4e3c-b16c-21a1d49abed3", "Linux root"},
        {"933ac7e1-2eb4-4f13-b844-0e14e2aef915", "Linux home"},
        {"bc13c2ff-59e6-4262-a352-b275fd6f7172", "Linux boot"},
        {"0657fd6d-a4ab-43c4-84e5-0933c84b4f4f", "Linux swap"},
        {"e6d6d379-f507-44c2-a23c-238f2a3df928", "Linux LVM"},
        {"a19d880f-05fc-4d3b-a006-743f0f84911e", "Linux RAID"},
        {"ca7d7ccb-63ed-4c53-861c-1742536059cc", "Linux LUKS"},
        {"c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "EFI system"},
        {"21686148-6449-6e6f-744e-656564454649", "BIOS boot"},
        {"ebd0a0a2-b9e5-4433-87c0-68b6b72699c7", "Microsoft data"},
        {"e3c9e316-0b5c-4db8-817d-f92df00215ae", "Microsoft reserved"},
        {"de94bba4-06d1-4d40-a16a-bfd50179d6ac", "Windows recovery"},
        {"0x83", "Linux"},
        {"0x82", "Linux swap"},
        {"0x8e", "Linux LVM"},
        {"0xfd", "Linux RAID"},
        {"0xef", "EFI system"},
        {"0x7", "NTFS or exFAT"},
        {"0x6", "FAT16"},
        {"0xe", "FAT16"},
        {"0xb", "FAT32"},
        {"0xc", "FAT32"},
    };
    const char* text = blkid_partition_get_type_string(partition);
    const std::string type = text ? text : fmt::format("{:#x}", blkid_partition_get_type(partition));
    for (const auto& [code, name] : types)
        if (type == code) return std::string(name);
    return "type " + type;
}

std::string size_text(std::uint64_t bytes) {
    constexpr std::string_view units[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
    double size = static_cast<double>(bytes) / 1024;
    std::size_t unit = 0;
    for (; size >= 1024 && unit + 1 < std::size(units); ++unit) size /= 1024;
    return fmt::format("{:.1f} {}", size, units[unit]);
}

}  // namespace

struct PartitionTable::State {
    int fd;
    std::string name;
    // A file does not say of which sectors the disk was that it is a copy of, and a GPT begins at the second one.
    bool is_copy;
    Probe usual, large;  // the second of copies only
    bool is_read = false;
    blkid_partlist usual_list = nullptr, large_list = nullptr;

    void read() {
        if (std::exchange(is_read, true)) return;
        usual_list = read_table(usual);
        if (is_copy && (!usual_list || is_mbr(usual_list))) large_list = read_table(large);
    }
    Result<Partition> find(std::uint32_t number) {
        read();
        if (!usual_list && !large_list) return fail(EINVAL, "{}: it has no partition table", name);
        if (!usual_list) return entry(large, large_list, number, name);
        const Result<Partition> found = entry(usual, usual_list, number, name);
        // An MBR reads in either way: the one goes in which its partition holds what is looked for.
        if (!large_list || (found && has_ext4(fd, *found))) return found;
        const Result<Partition> there = entry(large, large_list, number, name);
        return there && has_ext4(fd, *there) ? there : found;
    }
    std::string describe(const Partition& partition) const {
        const Signature* signature = identify_signature(
            [&](std::uint64_t offset, Bytes out) { return read_at(fd, partition.offset + offset, out); },
            partition.size);
        return signature ? fmt::format(", {}", signature->description) : "";
    }
};

PartitionTable::PartitionTable(std::unique_ptr<State> state) : state_(std::move(state)) {}
PartitionTable::PartitionTable(PartitionTable&&) noexcept = default;
PartitionTable::~PartitionTable() = default;

Result<PartitionTable> PartitionTable::prepare(int fd, const std::string& name) {
    struct stat info{};
    const bool is_copy = fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
    auto state = std::make_unique<State>(State {
        fd, name, is_copy, TRY(new_probe(fd, 0, name))
        , Probe()
    });
    if (is_copy) state->large = TRY(new_probe(fd, large_sector, name));
    posix_fadvise(fd, 0, 0, POSIX_FADV_NORMAL);  // libblkid has said that nobody reads on
    return PartitionTable(std::move(state));
}

Result<Partition> PartitionTable::find(std::uint32_t number) {
    Result<Partition> found = state_->find(number);
    if (!found && found.error().code == ENOENT)
        if (const std::string others = list(); !others.empty()) found.error().what += "; there are " + others;
    return found;
}

std::string PartitionTable::list() {
    state_->read();
    blkid_partlist partitions = state_->usual_list ? state_->usual_list : state_->large_list;
    if (!partitions) return {};
    const int count = blkid_partlist_numof_partitions(partitions);
    std::string out;
    int listed = 0;
    for (int i = 0; i < count; ++i) {
        blkid_partition partition = blkid_partlist_get_partition(partitions, i);
        if (!partition || blkid_partition_is_extended(partition)) continue;
        const int number = blkid_partition_get_partno(partition);
        const Result<Partition> found = state_->find(static_cast<std::uint32_t>(number));
        if (++listed > most_listed) return fmt::format("{} and more", out);
        const std::string facts = found ? size_text(found->size) + state_->describe(*found) : "outside of the disk";
        out +=
            fmt::format("{}{}@{} ({}, {})", out.empty() ? "" : ", ", state_->name, number, type_of(partition), facts);
    }
    return out;
}

std::string PartitionTable::contents() {
    blkid_probe probe = state_->usual.get();
    blkid_probe_enable_partitions(probe, 0);
    blkid_probe_enable_superblocks(probe, 1);
    blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_TYPE);
    blkid_reset_probe(probe);
    state_->usual_list = nullptr;
    state_->is_read = false;
    const char* type = nullptr;
    if (blkid_do_probe(probe) != 0 || blkid_probe_lookup_value(probe, "TYPE", &type, nullptr) != 0 || !type) return {};
    return type;
}

Result<Partition> find_partition(int fd, std::uint32_t number, const std::string& name) {
    PartitionTable table = TRY(PartitionTable::prepare(fd, name));
    return table.find(number);
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
