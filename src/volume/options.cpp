#include "volume/options.h"

#include "volume/option_table.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <utility>

namespace uext4 {

namespace {

Result<std::uint64_t> parse_number(std::string_view option, std::string_view text) {
    std::uint64_t n = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
    if (error != std::errc() || end != text.data() + text.size() || text.empty())
        return fail(EINVAL, "option {}: '{}' is no number", option, text);
    return n;
}

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

// What an option of the file system does.
struct Rule {
    std::string_view key;
    Result<void> (*apply)(VolumeOptions&, const Option&);
};

Result<void> set_data(VolumeOptions& o, const Option& option) {
    if (option.value == "journal") o.fs.data_journal = true;
    else if (option.value == "ordered" || option.value == "writeback") o.fs.data_journal = false;
    else return fail(EINVAL, "option data: '{}' is not journal, ordered or writeback", option.value);
    o.data_writeback = option.value == "writeback";
    return {};
}

Result<void> set_commit(VolumeOptions& o, const Option& option) {
    const std::uint64_t seconds = TRY(option.number());
    if (seconds > 86400) return fail(EINVAL, "option commit: {} seconds", seconds);
    o.commit_interval = seconds == 0 ? default_commit_interval : std::chrono::seconds(seconds);
    return {};
}

Result<void> set_errors(VolumeOptions& o, const Option& option) {
    if (option.value == "continue") o.errors = ErrorPolicy::continue_;
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
Result<void> set_cache(VolumeOptions& o, const Option& option) {
    o.cache_grows = option.value == "auto";
    o.cache_bytes = o.cache_grows ? VolumeOptions().cache_bytes : TRY(parse_size(option.value, option.key));
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
    {"ro", put_fs<&F::read_only, true>},
    {"rw", put_fs<&F::read_only, false>},
    {"noload", put<&V::replay, false>},
    {"norecovery", put<&V::replay, false>},
    {"data", set_data},
    {"commit", set_commit},
    {"errors", set_errors},
    {"barrier",
     [](VolumeOptions& o, const Option& option) -> Result<void> {
         o.barrier = !option.has_value || TRY(option.number())
         != 0;
         return {};
     }},
    {"nobarrier", put<&V::barrier, false>},
    {"cache", set_cache},
    {"sb", put_number<&V::backup_super>},
    {"offset", put_size<&V::offset>},
    {"discard", put<&V::discard, true>},
    {"nodiscard", put<&V::discard, false>},
    {"noatime", put_fs<&F::atime, AtimePolicy::never>},
    {"relatime", put_fs<&F::atime, AtimePolicy::relatime>},
    {"atime", put_fs<&F::atime, AtimePolicy::relatime>},
    {"strictatime", put_fs<&F::atime, AtimePolicy::strict>},
    {"nodiratime", put_fs<&F::nodiratime, true>},
    {"diratime", put_fs<&F::nodiratime, false>},
    {"user_xattr", put_fs<&F::xattr_user, true>},
    {"nouser_xattr", put_fs<&F::xattr_user, false>},
    {"acl", put_fs<&F::acl, true>},
    {"noacl", put_fs<&F::acl, false>},
    {"auto_da_alloc",
     [](VolumeOptions& o, const Option& option) -> Result<void> {
         o.fs.auto_da_alloc = !option.has_value || TRY(option.number())
         != 0;
         return {};
     }},
    {"delalloc", [](VolumeOptions&, const Option&) -> Result<void> { return {}; }},  // always so
    {"sync", put<&V::sync, true>},
    {"async", put<&V::sync, false>},
    {"dirsync", put<&V::dirsync, true>},
    {"noauto_da_alloc", put_fs<&F::auto_da_alloc, false>},
    {"grpid", put_fs<&F::grpid, true>},
    {"bsdgroups", put_fs<&F::grpid, true>},
    {"nogrpid", put_fs<&F::grpid, false>},
    {"sysvgroups", put_fs<&F::grpid, false>},
    {"resuid", put_id<&F::reserved_uid>},
    {"resgid", put_id<&F::reserved_gid>},
};

Result<void> apply_option(VolumeOptions& o, std::string_view text) {
    const std::size_t equals = text.find('=');
    const bool has_value = equals != std::string_view::npos;
    const Option option{text.substr(0, equals), has_value ? text.substr(equals + 1) : std::string_view(), has_value};
    const MountOption* row = find_option(option.key);
    if (!row) return fail(EINVAL, "option '{}' is not known{}", text, similar_option(option.key));
    if (row->use == OptionTarget::refused) return fail(EINVAL, "option {} is not offered here", option.key);
    if (has_value && !row->takes_value()) return fail(EINVAL, "option {} takes no value", option.key);
    if (row->needs_value() && option.value.empty())
        return fail(EINVAL, "option {} needs a value: {}", option.key, row->unit);
    if (row->use == OptionTarget::mount) o.ignored.emplace_back(text);
    if (row->use != OptionTarget::image) return {};
    const Rule* rule = std::ranges::find(rules, option.key, &Rule::key);
    if (rule == std::end(rules)) return fail(ENOSYS, "option {} is in the table and has no rule", option.key);
    TRY(rule->apply(o, option));
    o.given_names.emplace_back(text);
    return {};
}

template <class Apply>
Result<void> for_each_option(std::string_view text, Apply apply) {
    while (!text.empty()) {
        const std::size_t comma = text.find(',');
        if (comma != 0) TRY(apply(text.substr(0, comma)));
        text.remove_prefix(comma == std::string_view::npos ? text.size() : comma + 1);
    }
    return {};
}

// How and from where an image is opened is said by who opens it.
constexpr std::string_view of_the_opener[] = {"ro",     "rw",    "noload", "norecovery", "sb",
                                              "offset", "cache", "sync",   "async",      "dirsync"};

}  // namespace

std::vector<std::string> add_superblock_defaults(VolumeOptions& o, const format::SuperBlock& super) {
    namespace d = format::default_option;
    const bool has_journal = super.has_compat(format::compat::has_journal);
    std::vector<std::string> unmet;
    const std::vector<std::string> given = std::exchange(o.given_names, {});
    const std::uint32_t bits = super.default_mount_opts;
    if (bits & d::bsd_groups) o.fs.grpid = true;
    if ((bits & d::data_mask) == d::data_journal) {
        if (has_journal) o.fs.data_journal = true;
        else unmet.emplace_back("the superblock's default option journal_data: there is no journal");
    }
    o.data_writeback = (bits & d::data_mask) == d::data_writeback;
    if (bits & d::no_barrier) o.barrier = false;
    if (bits & d::discard) o.discard = true;
    if (bits & d::uid16) unmet.emplace_back("the superblock's default option uid16 is not offered here");
    if (bits & d::no_delalloc) unmet.emplace_back("the superblock's default option nodelalloc is not offered here");
    if (o.fs.reserved_uid == 0) o.fs.reserved_uid = super.def_resuid;
    if (o.fs.reserved_gid == 0) o.fs.reserved_gid = super.def_resgid;
    const std::string_view text(super.mount_opts, strnlen(super.mount_opts, sizeof super.mount_opts));
    (void)for_each_option(text, [&](std::string_view option) -> Result<void> {
        VolumeOptions with = o;
        const std::string_view key = option.substr(0, option.find('='));
        Result<void> applied = std::ranges::find(of_the_opener, key) != std::end(of_the_opener)
                                   ? fail(EINVAL, "option {} is for who opens the image", key)
                               : !has_journal && (key == "data" || key == "commit")
                                   ? fail(EINVAL, "option {}: there is no journal", option)
                                   : apply_option(with, option);
        if (applied && with.ignored.size() != o.ignored.size())
            applied = fail(EINVAL, "option {} is for who mounts", option);
        if (applied) o = std::move(with);
        else unmet.push_back("the superblock's default options: " + applied.error().what);
        return {};
    });
    o.given_names.clear();
    for (const std::string& option : given) (void)apply_option(o, option);  // they were understood before
    if (has_journal && o.data_writeback)
        unmet.emplace_back("option data=writeback is taken as data=ordered: data is written before what names it");
    return unmet;
}

Result<void> check_options(const VolumeOptions& o, bool has_journal) {
    for (const std::string& option : o.given_names) {
        const std::string_view key = std::string_view(option).substr(0, option.find('='));
        if (key == "delalloc" && o.fs.data_journal)
            return fail(EINVAL, "option delalloc: with data=journal a write names its blocks at once");
        // Five seconds are what a file system without a journal is mounted with as well.
        if (key != "data" && (key != "commit" || o.commit_interval == default_commit_interval)) continue;
        if (!has_journal) return fail(EINVAL, "option {}: the file system has no journal", option);
        if (!o.replay) return fail(EINVAL, "option {}: with noload the journal is not used", option);
    }
    return {};
}

Result<VolumeOptions> parse_volume_options(std::string_view text) {
    VolumeOptions o;
    o.cache_grows = true;
    TRY(for_each_option(text, [&](std::string_view option) { return apply_option(o, option); }));
    if (o.cache_bytes < (std::uint64_t{1} << 20)) return fail(EINVAL, "option cache: at least 1M, or auto");
    if (o.backup_super && !o.fs.read_only)
        return fail(EINVAL,
                    "option sb= reads a backup superblock, which does not know what is free now: it needs ro. Before "
                    "the image can be written, e2fsck -b has to repair it");
    if (!o.replay && !o.fs.read_only) return fail(EINVAL, "option noload leaves the journal as it is: it needs ro");
    TRY(check_options(o, true));
    return o;
}

Result<VolumeOptions> parse_all_options(std::string_view text) {
    VolumeOptions o = TRY(parse_volume_options(text));
    if (!o.ignored.empty()) return fail(EINVAL, "option {} is for a mount only", o.ignored.front());
    return o;
}

}  // namespace uext4
