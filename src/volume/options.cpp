#include "volume/options.h"

#include <charconv>

namespace uext4 {

namespace {

Result<std::uint64_t> parse_number(std::string_view option, std::string_view text) {
    std::uint64_t n = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
    if (error != std::errc() || end != text.data() + text.size() || text.empty())
        return fail(EINVAL, "option {}: '{}' is no number", option, text);
    return n;
}

// Known to the kernel and without meaning for a file system in user space; refused by name rather than ignored.
constexpr std::string_view refused[] = {"usrquota",
                                        "grpquota",
                                        "prjquota",
                                        "quota",
                                        "usrjquota",
                                        "grpjquota",
                                        "jqfmt",
                                        "journal_dev",
                                        "journal_path",
                                        "dax",
                                        "inlinecrypt",
                                        "test_dummy_encryption",
                                        "stripe",
                                        "journal_async_commit",
                                        "abort",
                                        "nodelalloc",
                                        "dioread_lock",
                                        "init_itable",
                                        "resuid_from",
                                        "debug",
                                        "minixdf",
                                        "bh",
                                        "oldalloc",
                                        "orlov",
                                        "journal_ioprio",
                                        "block_validity_strict",
                                        "no_mbcache",
                                        "mb_optimize_scan",
                                        "fc_debug_force",
                                        "warn_on_error",
                                        "max_dir_size_kb",
                                        "data_err",
                                        "inode_readahead_blks",
                                        "nolazytime",
                                        "journal_checksum"};
// Known to the kernel; what they ask for is what always happens here.
constexpr std::string_view always[] = {"delalloc",  "block_validity", "dioread_nolock", "nombcache", "noquota",
                                       "i_version", "noinit_itable",  "lazytime",       "defaults",  "auto",
                                       "noauto",    "nofail",         "user",           "users",     "_netdev",
                                       "loop",      "bsddf"};

}  // namespace

Result<std::uint64_t> parse_size(std::string_view text) {
    std::uint64_t unit = 1;
    if (!text.empty()) {
        switch (text.back()) {
            case 'k':
            case 'K': unit = std::uint64_t{1} << 10; break;
            case 'm':
            case 'M': unit = std::uint64_t{1} << 20; break;
            case 'g':
            case 'G': unit = std::uint64_t{1} << 30; break;
            case 't':
            case 'T': unit = std::uint64_t{1} << 40; break;
            default: break;
        }
        if (unit != 1) text.remove_suffix(1);
    }
    const std::uint64_t n = TRY(parse_number("size", text));
    if (n > ~std::uint64_t{0} / unit) return fail(EINVAL, "'{}' is too large", text);
    return n * unit;
}

Result<VolumeOptions> parse_volume_options(std::string_view text) {
    VolumeOptions o;
    while (!text.empty()) {
        const std::size_t comma = text.find(',');
        const std::string_view option = text.substr(0, comma);
        text.remove_prefix(comma == std::string_view::npos ? text.size() : comma + 1);
        if (option.empty()) continue;
        const std::size_t equals = option.find('=');
        const std::string_view key = option.substr(0, equals);
        const std::string_view value =
            equals == std::string_view::npos ? std::string_view() : option.substr(equals + 1);
        const bool has_value = equals != std::string_view::npos;
        auto number = [&] { return parse_number(key, value); };
        if (key == "ro") o.fs.read_only = true;
        else if (key == "rw") o.fs.read_only = false;
        else if (key == "noload" || key == "norecovery") o.replay = false;
        else if (key == "data") {
            if (value == "journal") o.fs.data_journal = true;
            else if (value == "ordered" || value == "writeback") o.fs.data_journal = false;
            else return fail(EINVAL, "option data: '{}' is not journal, ordered or writeback", value);
        } else if (key == "commit") {
            const std::uint64_t seconds = TRY(number());
            if (seconds > 86400) return fail(EINVAL, "option commit: {} seconds", seconds);
            o.commit_interval = std::chrono::seconds(seconds == 0 ? 5 : seconds);
        } else if (key == "barrier") o.barrier = !has_value || TRY(number())
        != 0;
        else if (key == "nobarrier") o.barrier = false; else if (key == "cache") o.cache_bytes = TRY(parse_size(value));
        else if (key == "errors") {
            if (value == "continue") o.errors = ErrorPolicy::carry_on;
            else if (value == "remount-ro") o.errors = ErrorPolicy::remount_ro;
            else if (value == "panic") o.errors = ErrorPolicy::panic;
            else return fail(EINVAL, "option errors: '{}' is not continue, remount-ro or panic", value);
        }
        else if (key == "sb") o.backup_super = TRY(number());
        else if (key == "offset") o.offset = TRY(parse_size(value));
        else if (key == "discard" && !has_value) o.discard = true; else if (key == "nodiscard") o.discard = false;
        else if (key == "noatime") o.fs.atime = AtimePolicy::never;
        else if (key == "relatime" || key == "atime") o.fs.atime = AtimePolicy::relatime;
        else if (key == "strictatime") o.fs.atime = AtimePolicy::strict;
        else if (key == "nodiratime") o.fs.nodiratime = true; else if (key == "diratime") o.fs.nodiratime = false;
        else if (key == "user_xattr") o.fs.xattr_user = true; else if (key == "nouser_xattr") o.fs.xattr_user = false;
        else if (key == "acl") o.fs.acl = true; else if (key == "noacl") o.fs.acl = false;
        else if (key == "auto_da_alloc") o.fs.auto_da_alloc = !has_value || TRY(number()) != 0;
        else if (key == "noauto_da_alloc") o.fs.auto_da_alloc = false;
        else if (key == "grpid" || key == "bsdgroups") o.fs.grpid = true;
        else if (key == "nogrpid" || key == "sysvgroups") o.fs.grpid = false;
        else if (key == "resuid") o.fs.reserved_uid = TRY(number());
        else if (key == "resgid") o.fs.reserved_gid = TRY(number()); else {
            for (std::string_view name : refused)
                if (key == name) return fail(EINVAL, "option {} is not offered here", key);
            bool known = false;
            for (std::string_view name : always) known = known || key == name;
            if (!known) o.others.emplace_back(option);
        }
    }
    if (o.cache_bytes < (std::uint64_t{1} << 20)) return fail(EINVAL, "option cache: at least 1M");
    if (o.backup_super && !o.fs.read_only) return fail(EINVAL, "option sb= reads a backup: it needs ro");
    if (!o.replay && !o.fs.read_only) return fail(EINVAL, "option noload leaves the journal as it is: it needs ro");
    return o;
}

Result<VolumeOptions> parse_all_options(std::string_view text) {
    VolumeOptions o = TRY(parse_volume_options(text));
    if (!o.others.empty()) return fail(EINVAL, "option '{}' is not known", o.others.front());
    return o;
}

}  // namespace uext4
