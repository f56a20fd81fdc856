#include "cli/session.h"

#include "device/host_use.h"
#include "device/open_device.h"
#include "sandbox/sandbox.h"

#include <sys/stat.h>
#include <unistd.h>

#include <ctime>

namespace uext4::cli {

void give_up(int code, const std::string& what) { throw Failure{code, what}; }

void refuse(const Error& error, const std::string& subject) {
    switch (error.code) {
        case ENOENT:
        case ESTALE:  // an inode that is named by its number
        case EEXIST:
        case ENOTDIR:
        case EISDIR:
        case ENOTEMPTY:
        case ENODATA:
        case EACCES:
        case EPERM:
        case ELOOP:
        case ENXIO:
        case EINVAL:
        case ENAMETOOLONG:
        case EMLINK:
        case EXDEV: give_up(negative, subject + ": " + error.what);
        default: give_up(impossible, subject + ": " + error.what);
    }
}

void need(Result<void> result, const std::string& subject) {
    if (!result) refuse(result.error(), subject);
}

Place split_place(const std::string& text) {
    struct stat st{};
    for (std::size_t at = text.size(); (at = text.rfind(':', at - 1)) != std::string::npos && at > 0;) {
        if (at + 1 < text.size() && text[at + 1] != '/' && text[at + 1] != '<') continue;
        std::string host = text.substr(0, at);
        const std::string file = host.substr(0, host.rfind('@') == std::string::npos ? host.size() : host.rfind('@'));
        if (::stat(host.c_str(), &st) == 0 || ::stat(file.c_str(), &st) == 0) {
            if (S_ISDIR(st.st_mode)) continue;
            std::string inside = text.substr(at + 1);
            return {host, inside.empty() ? "/" : inside};
        }
    }
    return {"", text};
}

Place image_place(const std::string& text) {
    Place p = split_place(text);
    if (p.image.empty()) p = {text, "/"};
    return p;
}

const Credentials& operator_identity() {
    // The image is the user's own: what they make belongs to them, and no permission in it holds them back.
    static const Credentials who = [] {
        Credentials user = Credentials::root();
        user.uid = ::geteuid();
        user.gid = ::getegid();
        return user;
    }();
    return who;
}

namespace {

Reach reach = Reach::image;

// The image is open before it is parsed, and the sandbox lies in between.
Result<std::unique_ptr<FileSystem>> open_sandboxed(const std::string& image, const std::string& text, bool sandbox) {
    const VolumeOptions options = TRY(parse_all_options(text));
    FileDeviceOptions view;
    view.writable = !options.fs.read_only;
    view.offset = options.offset;
    if (!view.writable)
        if (const std::optional<std::string> warning = written_by_kernel(image))
            fmt::print(stderr, "uext4: {}\n", told(*warning));
    std::shared_ptr<BlockDevice> device = TRY(open_device(image, view));
    if (sandbox) TRY(enter_sandbox(reach));
    return FileSystem::mount_device(std::move(device), options,
                                    [](const std::string& line) { fmt::print(stderr, "uext4: {}\n", told(line)); });
}

}  // namespace

void reach_host_files() { reach = Reach::files; }

Session::Session(const std::string& image, bool writable, const CommonOptions& options) : image_(image) {
    std::string o = options.mount_options;
    // The last one counts: no option makes a verb that reads a writing one.
    if (!writable) o += o.empty() ? "ro" : ",ro";
    if (options.no_replay) o += ",noload";
    auto mounted = open_sandboxed(image, o, !options.no_sandbox);
    if (!mounted) {
        const std::string& what = mounted.error().what;
        give_up(impossible, what.starts_with(image + ":") ? what : image + ": " + what);
    }
    fs_ = std::move(*mounted);
}

Session::~Session() = default;

void Session::close() {
    if (!fs_) return;
    const Result<void> closed = fs_->unmount();
    fs_.reset();
    if (!closed) give_up(impossible, image_ + ": " + closed.error().what);
}

InodeRef Session::resolve(const std::string& path, bool follow) {
    return need(fs_->resolve(path, operator_identity(), follow), image_);
}

FileSystem::Parent Session::parent(const std::string& path) {
    return need(fs_->resolve_parent(path, operator_identity()), image_);
}

FileSystem::Parent Session::parent_of_file(const std::string& path) {
    FileSystem::Parent place = parent(path);
    if (place.slash && place.name != "." && place.name != "..") give_up(negative, at(path) + ": is no directory");
    return place;
}

void Ancestors::enter(const Session& session, const Inode& directory) {
    constexpr std::size_t deepest = 2048;
    const std::uint64_t number = directory.number().value;
    if (numbers_.size() >= deepest)
        give_up(negative, fmt::format("{}: more than {} directories deep", session.image(), deepest));
    for (std::uint64_t above : numbers_)
        if (above == number)
            give_up(negative, fmt::format("{}: directory inode {} contains itself", session.image(), number));
    numbers_.push_back(number);
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

std::string time_text(format::Timestamp time) {
    const std::time_t seconds = time.sec;
    std::tm parts{};
    ::gmtime_r(&seconds, &parts);
    char text[64];
    std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &parts);
    return fmt::format("{}.{:09} UTC", text, time.nsec);
}

void link_itself(CLI::App* verb, bool& flag) {
    verb->set_help_flag("--help", "Print this help message and exit");
    verb->add_flag("-h,--no-dereference", flag, "The link itself, not what it leads to");
}

void add_common(CLI::App* verb, CommonOptions& options, bool reads, bool lists) {
    verb->add_option("-o,--options", options.mount_options, "Mount options (docs/MOUNT.md)");
    verb->add_flag("--no-sandbox", options.no_sandbox,
                   "Keep the process's rights while the image is parsed (docs/COMMAND.md)");
    if (reads) verb->add_flag("--no-replay", options.no_replay, "Show the image as it is, its journal not replayed");
    if (lists) verb->add_flag("--json", options.json, "Print JSON");
}

}  // namespace uext4::cli
