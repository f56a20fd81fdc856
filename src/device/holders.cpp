#include "device/holders.h"

#include "base/result.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <fstream>
#include <optional>
#include <sstream>
#include <string_view>
#include <vector>

namespace uext4 {

namespace {

std::optional<pid_t> number_of(std::string_view text) {
    pid_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size() || number < 0) return std::nullopt;
    return number;
}

// The names in a folder of /proc that are numbers, in their order.
std::vector<pid_t> numbers_in(const std::string& folder) {
    std::vector<pid_t> out;
    DIR* const stream = opendir(folder.c_str());
    if (!stream) return out;
    while (const dirent* entry = readdir(stream))
        if (const std::optional<pid_t> number = number_of(entry->d_name)) out.push_back(*number);
    closedir(stream);
    std::ranges::sort(out);
    return out;
}

// Not by the process's own words (/proc/PID/cmdline): reading those may wait for the process.
std::string named(pid_t pid) {
    if (pid == getpid()) return "this process";
    std::string name;
    std::getline(std::ifstream(fmt::format("/proc/{}/comm", pid)), name);
    std::ranges::replace_if(name, [](unsigned char c) { return std::iscntrl(c); }, '?');
    return name.empty() ? fmt::format("process {}", pid) : fmt::format("process {} ({})", pid, name);
}

bool is_one_file(const struct stat& a, const struct stat& b) {
    if (S_ISBLK(a.st_mode)) return S_ISBLK(b.st_mode) && a.st_rdev == b.st_rdev;
    return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

// Bytes of a file, and which locks of them are meant.
struct Locked {
    std::uint64_t begin, end;
    bool exclusive;  // a lock that only reads is meant as well
};

std::uint64_t number_or(const std::string& text, std::uint64_t otherwise) {
    std::uint64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    return error == std::errc() ? number : otherwise;
}

// Whether the open file description has such a lock; /proc/PID/fdinfo/FD: "lock: 1: OFDLCK ADVISORY WRITE -1 08:01:12 0
// EOF".
bool has_lock(pid_t pid, pid_t fd, const Locked& wanted) {
    std::ifstream facts(fmt::format("/proc/{}/fdinfo/{}", pid, fd));
    for (std::string line; std::getline(facts, line);) {
        std::istringstream words(line);
        std::string word, order, kind, state, access, owner, file, first, last;
        if (!(words >> word >> order >> kind >> state >> access >> owner >> file >> first >> last)) continue;
        if (word != "lock:" || (access != "WRITE" && !wanted.exclusive)) continue;
        if (number_or(first, 0) < wanted.end && wanted.begin <= number_or(last, first_holder_byte)) return true;
    }
    return false;
}

// Whether the process has the file open by another descriptor than `but`; `locked`: and has such a lock of it.
bool has_open(pid_t pid, const struct stat& file, const std::optional<Locked>& locked, int but) {
    for (const pid_t fd : numbers_in(fmt::format("/proc/{}/fd", pid))) {
        struct stat found{};
        if (fd == but || ::stat(fmt::format("/proc/{}/fd/{}", pid, fd).c_str(), &found) != 0) continue;
        if (is_one_file(found, file) && (!locked || has_lock(pid, fd, *locked))) return true;
    }
    return false;
}

// As far as this process may look into others.
std::optional<pid_t> find_process(const struct stat& file, const std::optional<Locked>& locked, int but) {
    const pid_t own = getpid();
    for (const pid_t pid : numbers_in("/proc"))
        if (has_open(pid, file, locked, pid == own ? but : -1)) return pid;
    return std::nullopt;
}

// /proc/locks: "1: LEASE  ACTIVE    READ  4711 08:01:1234 0 EOF".
std::optional<pid_t> find_lease(const struct stat& file) {
    std::ifstream table("/proc/locks");
    const std::string wanted = fmt::format("{:02x}:{:02x}:{}", major(file.st_dev), minor(file.st_dev),
                                           static_cast<std::uint64_t>(file.st_ino));
    for (std::string line; std::getline(table, line);) {
        std::istringstream words(line);
        std::string order, kind, state, access, pid, place;
        if (!(words >> order >> kind >> state >> access >> pid >> place)) continue;
        if (kind == "LEASE" && place == wanted) return number_of(pid);
    }
    return std::nullopt;
}

struct flock range_lock(short type, const Locked& bytes) {
    struct flock lock{};
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_start = static_cast<off_t>(bytes.begin);
    lock.l_len = static_cast<off_t>(bytes.end - bytes.begin);
    return lock;
}

// The process of a lock that is in the way and names it: a mark, or the lock of a program that locks by process.
std::optional<pid_t> ask(int fd, int command, struct flock lock) {
    if (fcntl(fd, command, &lock) != 0 || lock.l_type == F_UNLCK || lock.l_pid <= 0) return std::nullopt;
    return lock.l_pid;
}

Locked mark_of(const ImageRange& bytes) {
    return {bytes.begin + first_holder_byte, bytes.end + first_holder_byte - 1, true};
}

}  // namespace

ImageRange::ImageRange(std::uint64_t offset, std::uint64_t length)
    : begin(std::min(offset, first_holder_byte - 1)),
      end(length == 0 || length > first_holder_byte - begin ? first_holder_byte : begin + length) {}

void record_holder(int fd, const ImageRange& bytes) {
    const struct flock mark = range_lock(F_RDLCK, mark_of(bytes));
    // Without a mark only a name is missing in a sentence.
    while (fcntl(fd, F_SETLK, &mark) != 0 && errno == EINTR) {
    }
}

bool this_process_holds(int fd, bool exclusive, const ImageRange& bytes) {
    struct stat file{};
    return fstat(fd, &file) == 0 && has_open(getpid(), file, Locked{bytes.begin, bytes.end, exclusive}, fd);
}

std::string holder_of(int fd, bool exclusive, const ImageRange& bytes) {
    if (this_process_holds(fd, exclusive, bytes)) return "this process";
    const Locked locked{bytes.begin, bytes.end, exclusive};
    std::optional<pid_t> found = ask(fd, F_OFD_GETLK, range_lock(exclusive ? F_WRLCK : F_RDLCK, locked));
    if (!found) found = ask(fd, F_GETLK, range_lock(F_WRLCK, mark_of(bytes)));
    struct stat file{};
    if (!found && fstat(fd, &file) == 0) found = find_process(file, locked, fd);
    return found ? named(*found) : "another process";
}

std::string opener_of(const std::string& path) {
    struct stat file{};
    if (::stat(path.c_str(), &file) != 0) return "another process";
    std::optional<pid_t> found = find_lease(file);
    if (!found) found = find_process(file, std::nullopt, -1);
    return found ? named(*found) : "another process";
}

}  // namespace uext4
