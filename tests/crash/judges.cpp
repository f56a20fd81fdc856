#include "tests/crash/judges.h"

#include "check/check.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <regex>
#include <set>

namespace uext4::crash {

namespace {

constexpr int ended_without_status = -1;

// Runs a command; its output and exit status. Without a status, the output ends with why there is none.
int run(const std::string& command, std::string& out) {
    out.clear();
    FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
    if (!pipe) {
        out = fmt::format("could not be started: {}\n", std::strerror(errno));
        return ended_without_status;
    }
    char buffer[4096];
    for (std::size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) out.append(buffer, n);
    const int status = ::pclose(pipe);
    if (status >= 0 && WIFEXITED(status)) return WEXITSTATUS(status);
    const char* name = status >= 0 && WIFSIGNALED(status) ? ::sigabbrev_np(WTERMSIG(status)) : nullptr;
    out += fmt::format("was ended by a signal ({})\n", name ? name : "unknown");
    return ended_without_status;
}

// Of these it says that it did what it was asked to. Whatever else it ends with, it judged nothing: an operational
// error, a usage error, a signal.
bool judged(int status, int most) { return 0 <= status && status <= most; }
constexpr int e2fsck_corrected = 1, e2fsck_uncorrected = 4;

int run_e2fsck(const std::string& words, std::string& out) {
    const int status = run("exec e2fsck " + words, out);
    if (status == ended_without_status) out.insert(out.rfind('\n', out.size() - 2) + 1, "e2fsck ");
    return status;
}

// Read-only: check, and what is there.
Result<Tree> look(const std::shared_ptr<BlockDevice>& image, const std::string& mode, bool checked) {
    VolumeOptions options = mount_options(mode);
    options.fs.read_only = true;
    auto fs = TRY(FileSystem::mount_device(image, options));
    if (checked) {
        const CheckReport report = TRY(check(fs->volume()));
        if (!report.clean())
            return fail(EUCLEAN, "check after recovery: {}: {} ({} problems)", report.problems.front().structure,
                        report.problems.front().message, report.problems.size());
    }
    return capture(*fs);
}

// With nothing replayed: without the log there is no mode of data.
Result<std::unique_ptr<FileSystem>> open_as_it_is(const std::shared_ptr<BlockDevice>& image) {
    VolumeOptions options;
    options.background = false;
    options.fs.read_only = true;
    options.replay = false;
    return FileSystem::mount_device(image, options);
}

Result<std::set<std::string>> orphans_of(const std::shared_ptr<BlockDevice>& image) {
    auto fs = TRY(open_as_it_is(image));
    std::set<std::string> out;
    for (const InodeNr number : TRY(fs->volume().orphans().load())) out.insert(fmt::format("{}", number));
    return out;
}

// e2fsck 1.47.0 that clears an orphan with inline data does not free the attribute block of that (the kernel's recovery
// and ours do). Whether its differences are that and no more: `cleared` is what it said of the orphans.
Result<bool> is_forgotten_attributes(const std::shared_ptr<BlockDevice>& image, const std::string& cleared,
                                     const std::string& differences) {
    auto fs = TRY(open_as_it_is(image));
    FsContext& context = fs->volume().fs();
    std::set<std::uint64_t> forgotten;
    static const std::regex orphan("Clearing orphaned inode ([0-9]+)");
    for (std::sregex_iterator it(cleared.begin(), cleared.end(), orphan), end; it != end; ++it) {
        const auto place = TRY(context.allocator.locate_inode(InodeNr(std::stoull((*it)[1]))));
        BufferRef table = TRY(context.buffers.read(place.block, "inode table"));
        const auto& inode = view_as<format::InodeDisk>(table->data(), place.offset);
        if (inode.flags & format::inode_flag::inline_data)
            forgotten.insert(inode.file_acl_lo | std::uint64_t{inode.file_acl_hi} << 32);
    }
    static const std::regex bitmap("Block bitmap differences: ((?: +-[0-9]+)+)\n"), block("-([0-9]+)");
    std::smatch found;
    if (!std::regex_search(differences, found, bitmap)) return false;
    const std::string blocks = found[1];
    for (std::sregex_iterator it(blocks.begin(), blocks.end(), block), end; it != end; ++it)
        if (!forgotten.contains(std::stoull((*it)[1]))) return false;
    static const std::regex others("Inode bitmap|Directories count|[Ii]node [0-9]|Entry|Group [0-9]");
    return !std::regex_search(differences, others);
}

// Nor does it let go of the inodes that hold an orphan's attribute values (the kernel's recovery and ours do): nobody
// leads to them then. Whether all that it finds without a name are such; `cleared` is what it said of the orphans.
Result<bool> is_forgotten_values(const std::shared_ptr<BlockDevice>& image, const std::string& cleared,
                                 const std::string& differences) {
    if (cleared.find("Clearing orphaned inode ") == std::string::npos) return false;
    auto fs = TRY(open_as_it_is(image));
    static const std::regex nameless("Unattached inode ([0-9]+)");
    bool any = false;
    for (std::sregex_iterator it(differences.begin(), differences.end(), nameless), end; it != end; ++it, any = true) {
        const InodeRef inode = TRY(fs->volume().inodes().get(InodeNr(std::stoull((*it)[1]))));
        if (!inode->has_flag(format::inode_flag::ea_inode)) return false;
    }
    return any;
}

// An image with an orphan file says from each mount until its end that there may be something in it, and e2fsck, which
// looks at that after the replay alone, leaves the superblock's counters as they are.
const std::regex& of_orphan_file() {
    static const std::regex lines(
        "^Feature orphan_present is set but orphan file is clean|^Orphan file \\(inode [0-9]+\\) block [0-9]+ is not "
        "clean|^Failed to initialize orphan file|^(Clear|Recreate)\\? no$|^Free (blocks|inodes) count wrong \\(");
    return lines;
}
bool has_open_orphan_file(const std::string& text) {
    return text.find("Feature orphan_present is set but orphan file is clean") != std::string::npos ||
           text.find("Failed to initialize orphan file") != std::string::npos;
}

// The lines of e2fsck that an unfinished deletion or truncate does not explain.
std::string unexplained(const std::string& text, const std::set<std::string>& orphans) {
    static const std::regex number("[Ii]node (#?[0-9]+)"), sums("bitmap differences|count wrong|^ *[-+(]"),
        around("Fix\\? no|^$|^Pass|^e2fsck |WARNING|files \\(");
    const bool is_open = has_open_orphan_file(text);
    std::string left;
    std::size_t start = 0;
    while (start < text.size()) {
        const std::size_t end = std::min(text.find('\n', start), text.size());
        const std::string line = text.substr(start, end - start);
        start = end + 1;
        std::smatch found;
        const bool named = std::regex_search(line, found, number);
        if (named && orphans.contains(found[1])) continue;
        if (is_open && std::regex_search(line, of_orphan_file())) continue;
        if ((is_open || !orphans.empty()) && !named && std::regex_search(line, around)) continue;
        if (!orphans.empty() && !named && std::regex_search(line, sums)) continue;
        left += line + "\n";
    }
    return left;
}

}  // namespace

Result<void> save_image(BlockDevice& device, const std::string& path) {
    MemoryDevice copy(device.size());
    std::vector<std::byte> bytes(1 << 20);
    for (std::uint64_t at = 0; at < device.size(); at += bytes.size()) {
        const auto part = Bytes(bytes).first(std::min<std::uint64_t>(bytes.size(), device.size() - at));
        TRY(device.read(at, part));
        TRY(copy.write(at, part));
    }
    return copy.save(path);
}

Result<Tree> recover_and_capture(const std::shared_ptr<BlockDevice>& image, const std::string& mode) {
    auto fs = FileSystem::mount_device(image, mount_options(mode));
    if (!fs) return fail(fs.error().code, "it does not open: {}", fs.error().what);
    Tree tree = TRY(capture(**fs));
    TRY(find_strays(**fs, tree));
    if (Result<void> closed = (*fs)->unmount(); !closed)
        return fail(closed.error().code, "unmount after recovery: {}", closed.error().what);
    return tree;
}

std::string judge_ourselves(const Recording& recording, const CrashState& state, Tree& tree) {
    auto image = std::make_shared<OverlayDevice>(state.image);
    Result<Tree> first = recover_and_capture(image, recording.mode);
    if (!first) return first.error().what;
    tree = std::move(*first);
    if (std::string broken = broken_promise(recording, state.acked, state.cut, tree); !broken.empty()) return broken;
    for (const auto& [path, node] : tree)
        if (node.has_stray) return path + ": the device has bytes behind the end of the file";
    Result<Tree> again = look(image, recording.mode, true);
    if (!again) return again.error().what;
    const std::string other = difference(tree, *again, true);
    return other.empty() ? "" : "recovered again it is another tree: " + other;
}

namespace {

constexpr std::size_t growth = 9000;

std::string grown(FileSystem& fs, const std::string& path, bool cached) {
    namespace flag = format::inode_flag;
    const Credentials root = Credentials::root();
    auto inode = fs.resolve(path, root, false);
    if (!inode) return inode.error().what;
    // Those that forbid it.
    const std::uint32_t flags = fs.get_flags(**inode), kept = flags & ~(flag::immutable | flag::append);
    if (flags != kept)
        if (auto cleared = fs.set_flags(**inode, kept, root, true); !cleared) return cleared.error().what;
    auto file = fs.open_path(path, O_RDWR, 0, root);
    if (!file) return file.error().what;
    const std::uint64_t size = (*file)->inode().size_hint();
    std::vector<std::byte> old(cached ? size : 0);
    if (auto n = (*file)->read(0, old); !n) return n.error().what;
    if (auto done = (*file)->truncate(size + growth); !done) return done.error().what;
    for (const bool direct : {false, true}) {
        auto reader = fs.open_path(path, direct ? O_RDONLY | O_DIRECT : O_RDONLY, 0, root);
        if (!reader) return reader.error().what;
        const std::uint64_t from = size / 4096 * 4096;
        alignas(4096) static std::byte got[16384];
        auto n = (*reader)->read(from, got);
        if (!n) return n.error().what;
        if (*n != size + growth - from) return fmt::format("{} bytes read after it grew", *n);
        for (std::size_t i = size - from; i < *n; ++i)
            if (got[i] != std::byte{0})
                return fmt::format("byte {} is {} after it grew from {}", from + i, static_cast<int>(got[i]), size);
    }
    return {};
}

}  // namespace

std::string judge_growth(const CrashState& state, const std::string& mode, const Tree& tree) {
    auto fs = FileSystem::mount_device(std::make_shared<OverlayDevice>(state.image), mount_options(mode));
    if (!fs) return fs.error().what;
    bool cached = false;
    for (const auto& [path, node] : tree) {
        if (!S_ISREG(node.mode)) continue;
        cached = !cached;
        if (std::string what = grown(**fs, path, cached); !what.empty()) return path + ": " + what;
    }
    const Result<void> closed = (*fs)->unmount();
    return closed ? "" : closed.error().what;
}

std::string judge_cut_recovery(const Recording& recording, const CrashState& state, const Tree& wanted, unsigned depth,
                               std::mt19937_64& random, std::shared_ptr<BlockDevice>& last) {
    last = state.image;
    std::string where;
    for (unsigned i = 0; i < depth; ++i) {
        auto next = std::make_shared<OverlayDevice>(last);
        auto recorder = std::make_shared<RecordingDevice>(std::make_shared<OverlayDevice>(last));
        if (Result<Tree> tree = recover_and_capture(recorder, recording.mode); !tree) return tree.error().what;
        const auto log = recorder->take_log();
        const std::size_t cut = random() % (log.size() + 1);
        std::size_t flushed = 0;
        for (std::size_t n = 0; n < cut; ++n)
            if (log[n].kind == RecordedWrite::Kind::Flush) flushed = n;
        for (std::size_t n = 0; n < cut; ++n) {
            if (n > flushed && log[n].kind == RecordedWrite::Kind::Write && random() % 4 == 0) continue;
            if (!RecordingDevice::apply(log[n], *next)) return "the device failed";
        }
        where += fmt::format(" {} of {}", cut, log.size());
        last = next;
    }
    const auto image = std::make_shared<OverlayDevice>(last);
    Result<Tree> tree = recover_and_capture(image, recording.mode);
    if (!tree) return fmt::format("recovery cut after{}: {}", where, tree.error().what);
    if (std::string other = difference(wanted, *tree, true); !other.empty())
        return fmt::format("recovery cut after{}: {}", where, other);
    if (Result<Tree> sound = look(image, recording.mode, true); !sound)
        return fmt::format("recovery cut after{}: {}", where, sound.error().what);
    return {};
}

ScratchFile::~ScratchFile() { remove(); }

void ScratchFile::remove() {
    if (!bytes_) return;
    ::munmap(bytes_, size_);
    ::unlink(path_.c_str());
    bytes_ = nullptr;
}

Result<void> ScratchFile::make(std::uint64_t size) {
    remove();
    const int file = ::open(path_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0) return fail(errno, "{}: cannot be made", path_);
    // All of its space at once: what a map finds no space for later is a signal, and no error.
    int why = ::posix_fallocate(file, 0, static_cast<off_t>(size));
    void* map = MAP_FAILED;
    if (why == 0) {
        map = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (map == MAP_FAILED) why = errno;
    }
    ::close(file);
    if (map == MAP_FAILED) {
        ::unlink(path_.c_str());
        return fail(why, "{}: no room for {} bytes: {}", path_, size, std::strerror(why));
    }
    bytes_ = static_cast<std::byte*>(map);
    size_ = size;
    return {};
}

Result<void> ScratchFile::hold(BlockDevice& image) {
    constexpr std::uint64_t page = 4096;
    if (!bytes_ || size_ != image.size()) TRY(make(image.size()));
    std::vector<std::byte> part(1 << 20);
    for (std::uint64_t at = 0; at < size_; at += part.size()) {
        const std::uint64_t length = std::min<std::uint64_t>(part.size(), size_ - at);
        TRY(image.read(at, Bytes(part).first(length)));
        for (std::uint64_t i = 0; i < length; i += page) {
            const std::uint64_t n = std::min(page, length - i);
            if (std::memcmp(bytes_ + at + i, part.data() + i, n) != 0) std::memcpy(bytes_ + at + i, part.data() + i, n);
        }
    }
    return {};
}

Result<std::string> judge_by_e2fsck(const CrashState& state, const std::string& mode, ScratchFile& scratch, bool ours) {
    std::string out;
    TRY(scratch.hold(*state.image));
    const auto replay = [&] {
        return judged(run_e2fsck("-E journal_only -y " + scratch.path(), out), e2fsck_corrected);
    };
    bool replayed = replay();
    // A torn commit record that nobody was told of: e2fsck takes the file system for damaged then and forgets its
    // orphans. Without the record the log ends where it says.
    if (state.torn && out.find("was corrupt, replay was aborted") != std::string::npos) {
        auto without = std::make_shared<OverlayDevice>(state.image);
        TRY(without->write(state.torn->offset, std::vector<std::byte>(state.torn->data.size())));
        TRY(scratch.hold(*without));
        replayed = replay();
    }
    if (!replayed) return "e2fsck -E journal_only:\n" + out;
    const std::string cleared = out;
    // e2fsck 1.47.0 takes blocks out of an orphan's tree of several nodes and meets the nodes that it has freed with
    // them: what it makes of the inode is damage. What our recovery makes of the image says then whether it was sound.
    bool ours_instead = cleared.find("Already cleared ") != std::string::npos;
    if (const int status = ours_instead ? 0 : run_e2fsck("-fn " + scratch.path(), out); status != 0) {
        if (!judged(status, e2fsck_uncorrected)) return "e2fsck -fn after its own replay:\n" + out;
        const std::shared_ptr<BlockDevice> image = TRY(MemoryDevice::load(scratch.path()));
        auto orphans = orphans_of(image);
        if (!orphans) return orphans.error().what;
        const Result<bool> known = is_forgotten_attributes(image, cleared, out);
        if (!known) return known.error().what;
        const Result<bool> values = is_forgotten_values(image, cleared, out);
        if (!values) return values.error().what;
        ours_instead = *values;
        const bool explained = *known || *values;
        if (orphans->empty() && !explained && !has_open_orphan_file(out))
            return "e2fsck -fn after its own replay:\n" + out;
        if (const std::string left = explained ? "" : unexplained(out, *orphans); !left.empty())
            return "e2fsck -fn after its own replay:\n" + left;
    }
    if (!ours && !ours_instead) return std::string();
    auto recovered = std::make_shared<OverlayDevice>(state.image);
    if (auto tree = recover_and_capture(recovered, mode); !tree) return tree.error().what;
    TRY(scratch.hold(*recovered));
    const int status = run_e2fsck("-fn " + scratch.path(), out);
    return status == 0 ? std::string() : "e2fsck -fn after our recovery:\n" + out;
}

std::string e2fsck_is_missing() {
    std::string out;
    const int status = run("exec e2fsck -V", out);
    return status == 0 ? "" : fmt::format("e2fsck cannot run (status {}); --e2fsck 0 goes without: {}", status, out);
}

bool kernel_can_mount(const std::string& scratch) {
    std::string out;
    if (::geteuid() != 0) return false;
    const std::string image = scratch + ".probe", place = scratch + ".mnt";
    const int status = run(
        fmt::format("mke2fs -q -F {0} 4M && mkdir -p {1} && mount -o loop {0} {1} && umount {1}", image, place), out);
    ::unlink(image.c_str());
    ::rmdir(place.c_str());
    return status == 0;
}

Result<std::string> judge_by_kernel(const Recording& recording, const CrashState& state, const Tree& wanted,
                                    const std::string& scratch) {
    std::string out;
    TRY(save_image(*state.image, scratch));
    const std::string place = scratch + ".mnt";
    ::mkdir(place.c_str(), 0700);
    const int mounted = run(fmt::format("mount -t ext4 -o loop,noatime {} {}", scratch, place), out);
    if (mounted == 0 && run("umount " + place, out) != 0) {
        // What it has not written back would be missing. The mount goes when nobody has it any more.
        std::string ignored;
        (void)run("umount -l " + place, ignored);
        ::rmdir(place.c_str());
        ::unlink(scratch.c_str());
        return fail(EBUSY, "the kernel's mount could not be ended: {}", out);
    }
    ::rmdir(place.c_str());
    if (mounted != 0) return "the kernel does not mount it: " + out;
    auto image = MemoryDevice::load(scratch);
    ::unlink(scratch.c_str());
    if (!image) return fail(image.error());
    auto tree = look(std::shared_ptr<BlockDevice>(std::move(*image)), "ordered", false);
    if (!tree) return "after the kernel's recovery: " + tree.error().what;
    const std::string other = difference(wanted, *tree, true);
    if (other.empty()) return std::string();
    // Of a torn commit record that nobody was told of, Linux from 6.12 on is content with the first sector; e2fsck and
    // we are not. Either way the tree must be one that the workload allows.
    if (state.kind == CutKind::torn && broken_promise(recording, state.acked, state.cut, *tree).empty())
        return std::string();
    return "the kernel recovers another tree: " + other;
}

}  // namespace uext4::crash
