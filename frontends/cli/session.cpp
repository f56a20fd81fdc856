#include "cli/session.h"

#include "cli/damage_notes.h"
#include "cli/interrupt.h"
#include "cli/kept_mount.h"
#include "cli/source_date.h"
#include "device/host_use.h"
#include "device/open_device.h"
#include "device/partition.h"
#include "pagecache/cache_memory_limit.h"
#include "sandbox/partition_apart.h"
#include "sandbox/sandbox.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <vector>

namespace uext4::cli {

const Credentials& operator_identity() {
    // The image is the user's own: what they make belongs to them, and no permission in it holds them back.
    static const Credentials who = [] {
        Credentials user = Credentials::root();
        // Or root's, where it is not to matter who runs the command. (What writes refuses a variable that is
        // malformed.)
        const Result<std::optional<std::int64_t>> epoch = source_date_epoch();
        const bool is_set = !epoch || *epoch;
        user.uid = is_set ? 0 : ::geteuid();
        user.gid = is_set ? 0 : ::getegid();
        return user;
    }();
    return who;
}

namespace {

HostReach reach;
std::string last_opened;

// Those of verbs over several images, open to their end.
struct OpenImage {
    std::string name;
    bool writable;
    std::shared_ptr<BlockDevice> device;
};
std::vector<OpenImage> open_images;

std::shared_ptr<BlockDevice> opened_before(const std::string& image, bool writable) {
    for (const OpenImage& open : open_images)
        if (open.writable == writable && same_image(open.name, image)) return open.device;
    return nullptr;
}

Result<std::shared_ptr<BlockDevice>> open_for(const std::string& image, const VolumeOptions& options,
                                              const CommonOptions& common) {
    FileDeviceOptions view;
    view.writable = !options.fs.read_only;
    view.offset = options.offset;
    view.lock_timeout = time_to_wait(common.wait, view.writable);
    view.on_wait = [&](const std::string& sentence) {
        fmt::print(stderr, "uext4 {}: {} (--wait)\n", common.verb, quote(sentence));
    };
    const FindPartition find = !common.no_sandbox && !in_sandbox() ? find_partition_in_child : find_partition;
    if (!view.writable)
        if (const std::optional<std::string> warning = mounted_for_writing(image, view.offset, find))
            fmt::print(stderr, "uext4: {}\n", quote(*warning));
    return TRY(open_device(image, view, find));
}

// The image is open before it is parsed, and the sandbox lies in between.
Result<std::unique_ptr<FileSystem>> open_sandboxed(const std::string& image, const std::string& text,
                                                   const CommonOptions& common) {
    VolumeOptions options = TRY(parse_all_options(text));
    if (!options.fs.read_only) options.fs.fixed_time = TRY(source_date_epoch());
    std::shared_ptr<BlockDevice> device = opened_before(image, !options.fs.read_only);
    if (!device) device = TRY(open_for(image, options, common));
    if (!common.no_sandbox && !in_sandbox()) {
        if (options.cache_grows) CacheMemoryLimit::process_wide().keep_files_open();
        TRY(enter_sandbox(reach.reach, reach.files));
    }
    if (!options.fs.read_only) catch_interrupts();
    return FileSystem::mount_device(
        std::move(device), options,
        [image, writable = !options.fs.read_only](const std::string& line) { note_log_line(image, writable, line); });
}

std::string options_text(bool writable, const CommonOptions& options) {
    std::string o = options.mount_options;
    // The last one counts: no option makes a verb that reads a writing one.
    if (!writable) o += o.empty() ? "ro" : ",ro";
    if (options.no_replay) o += ",noload";
    return o;
}

[[noreturn]] void not_opened(const std::string& image, const Error& error) {
    throw Failure{exit_failure, error.what.starts_with(image + ":") ? error.what : image + ": " + error.what,
                  error.code == EUCLEAN};
}

}  // namespace

const std::string& last_image() { return last_opened; }

void reach_host_files(HostReach wanted) { reach = std::move(wanted); }

const HostReach& host_reach() { return reach; }

void open_beforehand(const std::string& image, bool writable, const CommonOptions& options) {
    if (options.no_sandbox || in_sandbox()) return;
    const Result<VolumeOptions> parsed = parse_all_options(options_text(writable, options));
    if (!parsed) not_opened(image, parsed.error());
    const bool changes = !parsed->fs.read_only;
    if (opened_before(image, changes)) return;
    Result<std::shared_ptr<BlockDevice>> device = open_for(image, *parsed, options);
    if (!device) not_opened(image, device.error());
    open_images.push_back({image, changes, std::move(*device)});
}

std::unique_ptr<FileSystem> mount_image(const std::string& image, bool writable, const CommonOptions& options) {
    if (image.empty()) fail_with(exit_failure, "'': an image has a name");
    last_opened = image;
    auto mounted = open_sandboxed(image, options_text(writable, options), options);
    if (!mounted) not_opened(image, mounted.error());
    return std::move(*mounted);
}

Session::Session(const std::string& image, bool writable, const CommonOptions& options, Use use)
    : image_(image), writable_(writable) {
    if (ShellMount* kept = ShellMount::of(image)) {
        if (use == Use::shared && kept->serves(options)) {
            fs_ = &kept->open(writable);
            return;
        }
        kept->close();
    }
    own_ = mount_image(image, writable, options);
    fs_ = own_.get();
}

Session::~Session() {
    if (own_ && writable_ && noted_interrupt()) note_left_image(image_, own_->unmount().has_value());
}

std::string Session::at(const std::string& path) const {
    return fmt::format("{}:{}{}", image_, path.starts_with('/') || path.starts_with('<') ? "" : "/", path);
}

void Session::refuse_path(const Error& error, const std::string& path) const {
    const std::string& what = error.what;
    for (std::size_t length = path.size(); length > 0; --length) {
        const std::string part = path.substr(0, length), quoted = "'" + part + "'";
        if (!what.starts_with(quoted)) continue;
        const std::string rest = what.substr(quoted.size());
        fail_with_error({error.code, rest.substr(std::min(rest.find_first_not_of(": "), rest.size()))}, at(part));
    }
    fail_with_error(error, at(path));
}

void Session::close() {
    fs_ = nullptr;
    if (!own_) return;
    const Result<void> closed = own_->unmount();
    own_.reset();
    if (!closed) fail_with(exit_failure, image_ + ": " + closed.error().what);
    if (writable_ && noted_interrupt()) note_left_image(image_, true);
}

InodeRef Session::resolve(const std::string& path, bool follow) {
    Result<InodeRef> found = fs_->resolve(path, operator_identity(), follow);
    if (!found) refuse_path(found.error(), path);
    return std::move(*found);
}

FileSystem::Parent Session::parent(const std::string& path) {
    Result<FileSystem::Parent> found = fs_->resolve_parent(path, operator_identity());
    if (!found) refuse_path(found.error(), path);
    return std::move(*found);
}

InodeRef Session::inode_of_entry(std::uint64_t number, const std::string& path) {
    Result<InodeRef> found = fs_->inode(InodeNr(number));
    if (found) return std::move(*found);
    const std::string inode = fmt::format("inode {}", number), &what = found.error().what;
    fail_with(exit_failure, fmt::format("{}: {}{}", at(path), what.starts_with(inode) ? "" : inode + ": ", what));
}

FileSystem::Parent Session::parent_of_file(const std::string& path) {
    FileSystem::Parent place = parent(path);
    if (place.slash && place.name != "." && place.name != "..")
        fail_with(exit_negative, at(path) + ": is no directory");
    return place;
}

void Ancestors::enter(const Session& session, const Inode& directory) {
    constexpr std::size_t deepest = 2048;
    const std::uint64_t number = directory.number().value;
    const std::string where = session.at(fmt::format("<{}>", number));
    if (numbers_.size() >= deepest)
        fail_with(exit_negative, fmt::format("{}: more than {} directories deep", where, deepest));
    for (std::uint64_t above : numbers_)
        if (above == number)
            fail_with(exit_failure, fmt::format("{}: directory inode {} contains itself", where, number));
    numbers_.push_back(number);
}

bool Ancestors::contains(const Inode& directory) const {
    return std::ranges::find(numbers_, directory.number().value) != numbers_.end();
}

void Ancestors::expect_outside(const Session& session, const Inode& directory, const std::string& path) const {
    if (std::ranges::find(numbers_, directory.number().value) != numbers_.end())
        fail_with(exit_negative, session.at(path) + ": is a link to a directory that it lies in");
}

std::string mode_text(std::uint16_t mode) {
    std::string out = "?rwxrwxrwx";
    out[0] = S_ISDIR(mode)    ? 'd'
             : S_ISLNK(mode)  ? 'l'
             : S_ISCHR(mode)  ? 'c'
             : S_ISBLK(mode)  ? 'b'
             : S_ISFIFO(mode) ? 'p'
             : S_ISSOCK(mode) ? 's'
                              : '-';
    for (std::size_t i = 0; i < 9; ++i)
        if (!(mode >> (8 - i) & 1)) out[i + 1] = '-';
    if (mode & S_ISUID) out[3] = mode & S_IXUSR ? 's' : 'S';
    if (mode & S_ISGID) out[6] = mode & S_IXGRP ? 's' : 'S';
    if (mode & S_ISVTX) out[9] = mode & S_IXOTH ? 't' : 'T';
    return out;
}

void long_help_only(CLI::App* verb) { verb->set_help_flag("--help", "Print this help message and exit"); }

void link_itself(CLI::App* verb, bool& flag) {
    long_help_only(verb);
    verb->add_flag("-h,--no-dereference", flag, "The link itself, not what it leads to");
}

std::string joined(const std::vector<std::string>& options) {
    std::string out;
    for (const std::string& o : options)
        if (!o.empty()) out += (out.empty() ? "" : ",") + o;
    return out;
}

void add_wait(CLI::App* verb, std::optional<double>& seconds) {
    constexpr double most = 1e9;
    verb->add_option_function<std::string>(
            "--wait",
            [&seconds](const std::string& text) {
                double number = -1;
                const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
                if (error != std::errc() || end != text.data() + text.size() || !(number >= 0 && number <= most))
                    throw CLI::ValidationError("--wait", fmt::format("'{}' is no number of seconds", text));
                seconds = number;
            },
            fmt::format("SECONDS to wait for another process that has the image open (0: do not wait; default: {} to "
                        "write, {} to read)",
                        default_write_timeout.count(), default_read_timeout.count()))
        ->type_name("SECONDS")
        ->allow_extra_args(false);
}

std::chrono::milliseconds time_to_wait(const std::optional<double>& seconds, bool writable) {
    if (!seconds) return writable ? default_write_timeout : default_read_timeout;
    return std::chrono::ceil<std::chrono::milliseconds>(std::chrono::duration<double>(*seconds));
}

void add_common(CLI::App* verb, CommonOptions& options, bool reads, bool lists) {
    options.verb = verb->get_name();
    add_wait(verb, options.wait);
    verb->add_option_function<std::vector<std::string>>(
            "-o,--options", [&options](const std::vector<std::string>& all) { options.mount_options = joined(all); },
            "Mount options (docs/MOUNT.md); may be repeated")
        ->allow_extra_args(false);
    verb->add_flag("--no-sandbox", options.no_sandbox,
                   "Keep the process's rights while the image is parsed (docs/COMMAND.md)");
    if (reads) verb->add_flag("--no-replay", options.no_replay, "Show the image as it is, its journal not replayed");
    if (lists) verb->add_flag("--json", options.json, "Print JSON");
}

}  // namespace uext4::cli
