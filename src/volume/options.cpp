#include "volume/options.h"

#include <algorithm>
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

Result<std::uint64_t> parse_size(std::string_view text, std::string_view option) {
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
    const std::uint64_t n = TRY(parse_number(option, text));
    if (n > ~std::uint64_t{0} / unit) return fail(EINVAL, "option {}: '{}' is too large", option, text);
    return n * unit;
}

namespace {

struct Option {
    std::string_view key, value;  // value: what follows '='
    bool has_value;

    Result<std::uint64_t> number() const { return parse_number(key, value); }
};

enum class Value : std::uint8_t { none, optional, needed };

// One option that is honoured.
struct Rule {
    std::string_view key;
    Value value;
    Result<void> (*apply)(VolumeOptions&, const Option&);
};

Result<void> set_data(VolumeOptions& o, const Option& option) {
    if (option.value == "journal") o.fs.data_journal = true;
    else if (option.value == "ordered" || option.value == "writeback") o.fs.data_journal = false;
    else return fail(EINVAL, "option data: '{}' is not journal, ordered or writeback", option.value);
    return {};
}

Result<void> set_commit(VolumeOptions& o, const Option& option) {
    const std::uint64_t seconds = TRY(option.number());
    if (seconds > 86400) return fail(EINVAL, "option commit: {} seconds", seconds);
    o.commit_interval = std::chrono::seconds(seconds == 0 ? 5 : seconds);
    return {};
}

Result<void> set_errors(VolumeOptions& o, const Option& option) {
    if (option.value == "continue") o.errors = ErrorPolicy::carry_on;
    else if (option.value == "remount-ro") o.errors = ErrorPolicy::remount_ro;
    else if (option.value == "panic") o.errors = ErrorPolicy::panic;
    else return fail(EINVAL, "option errors: '{}' is not continue, remount-ro or panic", option.value);
    return {};
}

// The ways in which most rules set a member.
template <auto Member, auto To>
Result<void> put(VolumeOptions& o, const Option&) {
    o.*Member = To;
    return {};
}
template <auto Member, auto To>
Result<void> put_fs(VolumeOptions& o, const Option&) {
    o.fs.*Member = To;
    return {};
}
template <auto Member>
Result<void> put_number(VolumeOptions& o, const Option& option) {
    o.*Member = TRY(option.number());
    return {};
}
template <auto Member>
Result<void> put_id(VolumeOptions& o, const Option& option) {
    const std::uint64_t id = TRY(option.number());
    if (id > 0xFFFFFFFE) return fail(EINVAL, "option {}: {} is no user or group", option.key, id);
    o.fs.*Member = id;
    return {};
}
template <auto Member>
Result<void> put_size(VolumeOptions& o, const Option& option) {
    o.*Member = TRY(parse_size(option.value, option.key));
    return {};
}

using V = VolumeOptions;
using F = FsOptions;
constexpr Rule rules[] = {
    {"ro", Value::none, put_fs<&F::read_only, true>},
    {"rw", Value::none, put_fs<&F::read_only, false>},
    {"noload", Value::none, put<&V::replay, false>},
    {"norecovery", Value::none, put<&V::replay, false>},
    {"data", Value::needed, set_data},
    {"commit", Value::needed, set_commit},
    {"errors", Value::needed, set_errors},
    {"barrier", Value::optional,
     [](VolumeOptions& o, const Option& option) -> Result<void> {
         o.barrier = !option.has_value || TRY(option.number())
         != 0;
         return {};
     }},
    {"nobarrier", Value::none, put<&V::barrier, false>},
    {"cache", Value::needed, put_size<&V::cache_bytes>},
    {"sb", Value::needed, put_number<&V::backup_super>},
    {"offset", Value::needed, put_size<&V::offset>},
    {"discard", Value::none, put<&V::discard, true>},
    {"nodiscard", Value::none, put<&V::discard, false>},
    {"noatime", Value::none, put_fs<&F::atime, AtimePolicy::never>},
    {"relatime", Value::none, put_fs<&F::atime, AtimePolicy::relatime>},
    {"atime", Value::none, put_fs<&F::atime, AtimePolicy::relatime>},
    {"strictatime", Value::none, put_fs<&F::atime, AtimePolicy::strict>},
    {"nodiratime", Value::none, put_fs<&F::nodiratime, true>},
    {"diratime", Value::none, put_fs<&F::nodiratime, false>},
    {"user_xattr", Value::none, put_fs<&F::xattr_user, true>},
    {"nouser_xattr", Value::none, put_fs<&F::xattr_user, false>},
    {"acl", Value::none, put_fs<&F::acl, true>},
    {"noacl", Value::none, put_fs<&F::acl, false>},
    {"auto_da_alloc", Value::optional,
     [](VolumeOptions& o, const Option& option) -> Result<void> {
         o.fs.auto_da_alloc = !option.has_value || TRY(option.number())
         != 0;
         return {};
     }},
    {"noauto_da_alloc", Value::none, put_fs<&F::auto_da_alloc, false>},
    {"grpid", Value::none, put_fs<&F::grpid, true>},
    {"bsdgroups", Value::none, put_fs<&F::grpid, true>},
    {"nogrpid", Value::none, put_fs<&F::grpid, false>},
    {"sysvgroups", Value::none, put_fs<&F::grpid, false>},
    {"resuid", Value::needed, put_id<&F::reserved_uid>},
    {"resgid", Value::needed, put_id<&F::reserved_gid>},
};

Result<void> apply_option(VolumeOptions& o, std::string_view text) {
    const std::size_t equals = text.find('=');
    const bool has_value = equals != std::string_view::npos;
    const Option option{text.substr(0, equals), has_value ? text.substr(equals + 1) : std::string_view(), has_value};
    if (const Rule* rule = std::ranges::find(rules, option.key, &Rule::key); rule != std::end(rules)) {
        if (has_value && rule->value == Value::none) return fail(EINVAL, "option {} takes no value", option.key);
        if (!has_value && rule->value == Value::needed) return fail(EINVAL, "option {} needs a value", option.key);
        return rule->apply(o, option);
    }
    if (std::ranges::find(refused, option.key) != std::end(refused))
        return fail(EINVAL, "option {} is not offered here", option.key);
    if (std::ranges::find(always, option.key) == std::end(always)) o.others.emplace_back(text);
    else if (has_value) return fail(EINVAL, "option {} takes no value", option.key);
    return {};
}

}  // namespace

Result<VolumeOptions> parse_volume_options(std::string_view text) {
    VolumeOptions o;
    while (!text.empty()) {
        const std::size_t comma = text.find(',');
        if (comma != 0) TRY(apply_option(o, text.substr(0, comma)));
        text.remove_prefix(comma == std::string_view::npos ? text.size() : comma + 1);
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
