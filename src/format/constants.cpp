#include "format/constants.h"

#include <fmt/format.h>

#include <dirent.h>
#include <sys/stat.h>

#include <array>
#include <span>
#include <utility>

namespace uext4::format {

namespace {

using Name = std::pair<std::uint32_t, const char*>;

constexpr Name compat_names[] = {{compat::dir_prealloc, "dir_prealloc"},
                                 {compat::imagic, "imagic_inodes"},
                                 {compat::has_journal, "has_journal"},
                                 {compat::ext_attr, "ext_attr"},
                                 {compat::resize_inode, "resize_inode"},
                                 {compat::dir_index, "dir_index"},
                                 {compat::lazy_bg, "lazy_bg"},
                                 {compat::exclude_inode, "exclude_inode"},
                                 {compat::exclude_bitmap, "snapshot_bitmap"},
                                 {compat::sparse_super2, "sparse_super2"},
                                 {compat::fast_commit, "fast_commit"},
                                 {compat::stable_inodes, "stable_inodes"},
                                 {compat::orphan_file, "orphan_file"}};
constexpr Name incompat_names[] = {{incompat::compression, "compression"},
                                   {incompat::filetype, "filetype"},
                                   {incompat::recover, "needs_recovery"},
                                   {incompat::journal_dev, "journal_dev"},
                                   {incompat::meta_bg, "meta_bg"},
                                   {incompat::extents, "extent"},
                                   {incompat::bit64, "64bit"},
                                   {incompat::mmp, "mmp"},
                                   {incompat::flex_bg, "flex_bg"},
                                   {incompat::ea_inode, "ea_inode"},
                                   {incompat::dirdata, "dirdata"},
                                   {incompat::csum_seed, "metadata_csum_seed"},
                                   {incompat::large_dir, "large_dir"},
                                   {incompat::inline_data, "inline_data"},
                                   {incompat::encrypt, "encrypt"},
                                   {incompat::casefold, "casefold"}};
constexpr Name ro_compat_names[] = {{ro_compat::sparse_super, "sparse_super"},
                                    {ro_compat::large_file, "large_file"},
                                    {ro_compat::btree_dir, "btree_dir"},
                                    {ro_compat::huge_file, "huge_file"},
                                    {ro_compat::gdt_csum, "uninit_bg"},
                                    {ro_compat::dir_nlink, "dir_nlink"},
                                    {ro_compat::extra_isize, "extra_isize"},
                                    {ro_compat::has_snapshot, "snapshot"},
                                    {ro_compat::quota, "quota"},
                                    {ro_compat::bigalloc, "bigalloc"},
                                    {ro_compat::metadata_csum, "metadata_csum"},
                                    {ro_compat::replica, "replica"},
                                    {ro_compat::readonly, "read-only"},
                                    {ro_compat::project, "project"},
                                    {ro_compat::shared_blocks, "shared_blocks"},
                                    {ro_compat::verity, "verity"},
                                    {ro_compat::orphan_present, "orphan_present"}};

}  // namespace

std::string feature_names(FeatureSet set, std::uint32_t bits) {
    std::span<const Name> names = set == FeatureSet::compat     ? std::span<const Name>(compat_names)
                                  : set == FeatureSet::incompat ? std::span<const Name>(incompat_names)
                                                                : std::span<const Name>(ro_compat_names);
    const char letter = set == FeatureSet::compat ? 'C' : set == FeatureSet::incompat ? 'I' : 'R';
    std::string out;
    for (unsigned bit = 0; bit < 32; ++bit) {
        const std::uint32_t value = std::uint32_t{1} << bit;
        if (!(bits & value)) continue;
        if (!out.empty()) out += ' ';
        const char* known = nullptr;
        for (const auto& [b, name] : names)
            if (b == value) known = name;
        out += known ? std::string(known) : fmt::format("FEATURE_{}{}", letter, bit);
    }
    return out;
}

FileType file_type_of_mode(std::uint16_t mode) {
    switch (mode & S_IFMT) {
        case S_IFREG: return FileType::regular;
        case S_IFDIR: return FileType::directory;
        case S_IFCHR: return FileType::char_device;
        case S_IFBLK: return FileType::block_device;
        case S_IFIFO: return FileType::fifo;
        case S_IFSOCK: return FileType::socket;
        case S_IFLNK: return FileType::symlink;
        default: return FileType::unknown;
    }
}

namespace {
constexpr std::array<std::uint8_t, 8> dt_of_type = {DT_UNKNOWN, DT_REG,  DT_DIR,  DT_CHR,
                                                    DT_BLK,     DT_FIFO, DT_SOCK, DT_LNK};
}

std::uint8_t dt_of_file_type(std::uint8_t type) {
    return type < dt_of_type.size() ? dt_of_type[type] : std::uint8_t{DT_UNKNOWN};
}

std::uint8_t file_type_of_dt(std::uint8_t dt) {
    for (std::size_t t = 0; t < dt_of_type.size(); ++t)
        if (dt_of_type[t] == dt) return static_cast<std::uint8_t>(t);
    return 0;
}

}  // namespace uext4::format
