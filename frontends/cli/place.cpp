#include "cli/place.h"

#include "cli/failure.h"

#include <fmt/format.h>

namespace uext4::cli {

namespace {

constexpr std::string_view attach_nbd = "attach it with nbd-client and name the device (/dev/nbd0)";
constexpr std::string_view download = "download it and name the file";
constexpr std::string_view convert = "convert it with 'qemu-img convert -O raw' and name the result";
constexpr std::string_view unpack = "unpack it and name the folder";

constexpr std::string_view command_prefix = "exec:";
constexpr Prefix prefixes[] = {
    {"nbd:", "a disk of an NBD server", attach_nbd},
    {"nbds:", "a disk of an NBD server", attach_nbd},
    {"nbd+unix:", "a disk of an NBD server", attach_nbd},
    {"nbds+unix:", "a disk of an NBD server", attach_nbd},
    {"http:", "a file of a web server", download},
    {"https:", "a file of a web server", download},
    {"rbd:", "a Ceph block device", "map it with 'rbd map' and name the device"},
    {"qcow2:", "a QEMU disk", convert},
    {"vmdk:", "a VMware disk", convert},
    {"vhd:", "a Virtual PC disk", convert},
    {"vhdx:", "a Hyper-V disk", convert},
    {"vdi:", "a VirtualBox disk", convert},
    {command_prefix, "the output of a command", "write its output to a file and name that"},
    {"oci:", "an OCI image", unpack},
    {"oci-archive:", "an archive of an OCI image", unpack},
    {"docker-archive:", "an archive of 'docker save'", unpack},
    {"mtree:", "a description of a tree", "make the tree and name its folder"},
};

// "disk.img@2" without "@2"; the whole name, if it has no number of a partition.
std::string_view without_partition(std::string_view name) {
    const std::size_t at = name.rfind('@');
    if (at == std::string_view::npos || at == 0 || at + 1 == name.size()) return name;
    return name.find_first_not_of("0123456789", at + 1) == std::string_view::npos ? name.substr(0, at) : name;
}

// The last ":/" or ":<" that begins before `end`, not before `begin`; npos if there is none.
std::size_t last_separator(std::string_view word, std::size_t begin, std::size_t end) {
    while (end > begin) {
        const std::size_t at = word.rfind(':', --end);
        if (at == std::string_view::npos || at < begin) break;
        if (at + 1 < word.size() && (word[at + 1] == '/' || word[at + 1] == '<')) return at;
        end = at;
    }
    return std::string_view::npos;
}

// Neither a prefix nor its "//" is split for a path, nor is the command of exec:. A prefix may follow another one.
Place parse_prefixed(const std::string& word, const Prefix* prefix) {
    std::size_t begin = 0;
    for (; prefix; prefix = prefix_of(std::string_view(word).substr(begin))) {
        if (prefix->text == command_prefix) return {word, "", Place::Kind::prefixed};
        begin += prefix->text.size();
        if (word.compare(begin, 2, "//") == 0) begin += 2;
    }
    const std::size_t at = last_separator(word, begin, word.size());
    if (at == std::string::npos) return {word, "", Place::Kind::prefixed};
    return {word.substr(0, at), word.substr(at + 1), Place::Kind::prefixed};
}

// The image is the longest part before a separator that exists on the host.
Place parse_plain(const std::string& word, const IsFile& is_file) {
    for (std::size_t at = word.size(); (at = last_separator(word, 1, at)) != std::string::npos;) {
        const std::string name = word.substr(0, at), whole(without_partition(name));
        if (is_file(name) || (whole != name && is_file(whole))) return {name, word.substr(at + 1), Place::Kind::image};
    }
    return {"", word, Place::Kind::host};
}

bool begins_with_separator(const std::string& word) { return word.starts_with(":/") || word.starts_with(":<"); }

Place parse_outside(const std::string& word, const Place* before, const IsFile& is_file) {
    if (word.empty()) fail_with(exit_failure, "'': No such file or directory");
    if (word == "-") return {"", "", Place::Kind::standard};
    if (begins_with_separator(word)) {
        const std::string path = word.substr(1);
        if (!before)
            fail_with(exit_failure,
                      fmt::format("{}: is in the image of the operand before it, and there is none; write IMAGE:{}",
                                  word, path));
        if (before->image.empty())
            fail_with(exit_failure, fmt::format("{}: is in the image of the operand before it, which is in none; write "
                                                "IMAGE:{}",
                                                word, path));
        return {before->image, path, before->kind};
    }
    if (const Prefix* const prefix = prefix_of(word)) return parse_prefixed(word, prefix);
    return parse_plain(word, is_file);
}

Place parse_in_shell(const std::string& word, const ShellWords& shell, const IsFile& is_file) {
    if (word.empty()) fail_with(exit_negative, "an empty path");
    if (word.starts_with(host_prefix)) {
        const std::string of_host = word.substr(host_prefix.size());
        if (of_host.empty()) fail_with(exit_failure, word + ": a path of the host follows, as in host:/etc/hostname");
        if (of_host == "-")
            fail_with(exit_failure, word + ": a shell reads and writes those itself; cat prints a file");
        return parse_outside(of_host, nullptr, is_file);
    }
    if (begins_with_separator(word))
        fail_with(exit_failure, fmt::format("{}: in a shell, a path of the image is written {} (and ./{} where a name "
                                            "begins with a colon)",
                                            word, word.substr(1), word));
    if (word.starts_with('/') || word.starts_with('<')) return {shell.image, word, Place::Kind::image};
    return {shell.image, shell.directory + (shell.directory.ends_with('/') ? "" : "/") + word, Place::Kind::image};
}

}  // namespace

const Prefix* prefix_of(std::string_view word) {
    for (const Prefix& prefix : prefixes)
        if (word.starts_with(prefix.text)) return &prefix;
    return nullptr;
}

std::string not_available(const std::string& word) {
    const Prefix* const prefix = prefix_of(word);
    return fmt::format("{}: names {}, which is not available in this build: {} (a file of that name is written ./{})",
                       word, prefix->names, prefix->instead, word);
}

Place parse_place(const std::string& word, const WordContext& context, const IsFile& is_file) {
    return context.shell ? parse_in_shell(word, *context.shell, is_file) : parse_outside(word, context.before, is_file);
}

}  // namespace uext4::cli
