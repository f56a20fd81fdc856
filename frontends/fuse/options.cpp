#include "fuse/options.h"

#include <algorithm>
#include <charconv>

namespace uext4::fuse {

namespace {

// A comma ends an option; a backslash takes its meaning away.
std::string escaped(std::string_view text) {
    std::string out;
    for (const char c : text) {
        if (c == ',' || c == '\\') out += '\\';
        out += c;
    }
    return out;
}

// Exactly one of a pair stands in the list: the last one given.
void set_flag(std::vector<std::string>& flags, std::string_view name, std::string_view opposite) {
    std::erase_if(flags, [&](const std::string& f) { return f == name || f == opposite; });
    flags.emplace_back(name);
}

struct Opposites {
    std::string_view name, opposite;
    bool privileged;  // may be given by root only
};
constexpr Opposites opposites[] = {{"nodev", "dev", false},  {"dev", "nodev", true},    {"nosuid", "suid", false},
                                   {"suid", "nosuid", true}, {"noexec", "exec", false}, {"exec", "noexec", false}};

// Who may mount, in /etc/fstab: what comes with it, unless a later option says otherwise.
struct Mounter {
    std::string_view name;
    bool noexec;
};
constexpr Mounter mounters[] = {{"user", true}, {"users", true}, {"owner", false}, {"group", false}};

}  // namespace

Result<MountOptions> parse_mount_options(std::string_view text, bool privileged) {
    MountOptions o;
    o.volume = TRY(parse_volume_options(text));
    o.allow_other = privileged;
    o.flags = {"nosuid", "nodev"};
    for (const std::string& option : o.volume.ignored) {
        const std::size_t equals = option.find('=');
        const bool has_value = equals != std::string::npos;
        const std::string_view key = std::string_view(option).substr(0, equals);
        const std::string_view value = has_value ? std::string_view(option).substr(equals + 1) : std::string_view();
        if (const auto* pair = std::ranges::find(opposites, std::string_view(option), &Opposites::name);
            pair != std::end(opposites)) {
            if (pair->privileged && !privileged) return fail(EPERM, "option {} is for root", option);
            set_flag(o.flags, pair->name, pair->opposite);
        } else if (key == "user" && has_value) {
            // Who has mounted, as mount(8) notes it.
        } else if (const auto* mounter = std::ranges::find(mounters, std::string_view(option), &Mounter::name);
                   mounter != std::end(mounters)) {
            set_flag(o.flags, "nosuid", "suid");
            set_flag(o.flags, "nodev", "dev");
            if (mounter->noexec) set_flag(o.flags, "noexec", "exec");
        } else if (option == "nofail") {
            o.nofail = true;
        } else if (option == "allow_other") {
            o.allow_other = true;
        } else if (option == "auto_unmount") {
            o.auto_unmount = true;
        } else if (option == "sandbox" || option == "nosandbox") {
            o.sandbox = option == "sandbox";
        } else if (option == "placement" || option == "noplacement") {
            o.placement = option == "placement";
        } else if (key == "max_read") {
            unsigned bytes = 0;
            const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), bytes);
            if (error != std::errc() || end != value.data() + value.size() || bytes < 4096)
                return fail(EINVAL, "option max_read: '{}' is not a number of at least 4096", value);
            o.max_read = bytes;
        } else if (key == "fsname") {
            o.source = value;
        } else if (key == "subtype") {
            o.subtype = value;
        } else {
            return fail(ENOSYS, "option {} is in the table and has no meaning", option);
        }
    }
    o.volume.ignored.clear();
    o.volume.kernel_caches = true;
    // The kernel caches files: the server's cache stays small, unless somebody asks for more.
    const auto is_cache = [](const std::string& option) { return option.starts_with("cache="); };
    if (std::ranges::none_of(o.volume.given_names, is_cache)) o.volume.cache_grows = false;
    return o;
}

std::string library_options(const MountOptions& o) {
    // Permissions are always the kernel's to check: it has the caller's credentials, all of them.
    std::string out = "default_permissions";
    if (o.allow_other) out += ",allow_other";
    out += o.volume.fs.read_only ? ",ro" : ",rw";
    for (const std::string& flag : o.flags) out += "," + flag;
    // The kernel's part then asks for each write to be made durable; what changes names is here.
    if (o.volume.sync) out += ",sync";
    if (o.volume.dirsync) out += ",dirsync";
    if (o.max_read) out += fmt::format(",max_read={}", *o.max_read);
    out += ",fsname=" + escaped(o.source) + ",subtype=" + escaped(o.subtype);
    return out;
}

}  // namespace uext4::fuse
