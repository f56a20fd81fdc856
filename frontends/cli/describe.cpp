#include "cli/describe.h"

#include "cli/times.h"

#include <sys/sysmacros.h>

namespace uext4::cli {

const char* type_name(mode_t mode) {
    switch (mode & S_IFMT) {
        case S_IFREG: return "regular file";
        case S_IFDIR: return "directory";
        case S_IFLNK: return "symbolic link";
        case S_IFCHR: return "character special file";
        case S_IFBLK: return "block special file";
        case S_IFIFO: return "fifo";
        case S_IFSOCK: return "socket";
        default: return "weird file";
    }
}

char type_letter(mode_t mode) {
    const char letter = mode_text(static_cast<std::uint16_t>(mode))[0];
    return letter == '-' ? 'f' : letter;
}

Json describe(Session& s, const std::string& name, const std::string& path, Inode& inode) {
    const struct stat st = value_or_fail(s.fs().attributes(inode), s.at(path));
    Json j;
    set_text(j, "name", name);
    j.update({{"inode", st.st_ino},
              {"type", type_name(st.st_mode)},
              {"mode", mode_text(static_cast<std::uint16_t>(st.st_mode))},
              {"mode_octal", fmt::format("{:04o}", st.st_mode & 07777)},
              {"links", st.st_nlink},
              {"uid", st.st_uid},
              {"gid", st.st_gid},
              {"size", st.st_size},
              {"blocks", st.st_blocks},
              {"atime", iso_time(stamp(st.st_atim))},
              {"mtime", iso_time(stamp(st.st_mtim))},
              {"ctime", iso_time(stamp(st.st_ctim))}});
    if (const std::optional<format::Timestamp> born = s.fs().birth_time(inode)) j["btime"] = iso_time(*born);
    if (S_ISLNK(st.st_mode)) set_text(j, "target", value_or_fail(s.fs().read_link(inode), s.at(path)));
    if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode))
        j["device"] = fmt::format("{}:{}", major(st.st_rdev), minor(st.st_rdev));
    return j;
}

Json describe_damaged(const std::string& name, std::uint64_t inode, const std::string& error) {
    Json j;
    set_text(j, "name", name);
    j["inode"] = inode;
    j["error"] = error;
    return j;
}

bool has_access_list(Session& s, Inode& inode, const std::string& path) {
    if (S_ISLNK(inode.mode())) return false;
    const auto has = [&](const char* name) {
        return value_or_fail(s.fs().find_xattr(inode, name, operator_identity(), false), s.at(path)).has_value();
    };
    return has("system.posix_acl_access") || (inode.is_directory() && has("system.posix_acl_default"));
}

}  // namespace uext4::cli
