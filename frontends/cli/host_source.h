// Things of the host that are copied into an image. HostAhead prepares them in a thread of its own, so an object
// belongs to one thread at a time.
#pragma once

#include "base/descriptor.h"
#include "cli/copy_source.h"

#include <dirent.h>
#include <fcntl.h>

namespace uext4::cli {

class HostAhead;

struct CloseDirectory {
    void operator()(DIR* open) const { ::closedir(open); }
};

// A directory that was listed, while what is in it is copied. Nothing of it changes then.
struct HostFolder {
    std::string path;
    dev_t device = 0;
    ino_t inode = 0;
    unsigned depth = 0;                         // below what is named
    std::shared_ptr<const HostFolder> above;    // null for what is named
    std::unique_ptr<DIR, CloseDirectory> open;  // none if it lies too deep
    Names names;                                // all that is in it
    HostAhead* ahead = nullptr;                 // hands over what is in it; null if nothing prepares that

    // The directory that its names are relative to, for openat(2).
    int descriptor() const { return open ? ::dirfd(open.get()) : AT_FDCWD; }
};

class HostSource final : public CopySource {
public:
    // A path that the caller names, or a name in a folder. Ends this copy if nothing has the name.
    HostSource(std::string path, bool follow, std::shared_ptr<const HostFolder> above = nullptr);
    ~HostSource() override;

    std::string at() const override { return path_; }
    const Session* image() const override { return nullptr; }
    void read_ahead(const ReadAhead& how) override { how_ = how; }
    std::unique_ptr<SourceContents> open() override;
    std::string link_target() const override;
    void list(Names& names) override;
    CopyChild child(const Names::value_type& listed, bool follow) override;
    std::vector<std::string> xattr_names() const override;
    std::optional<std::vector<std::byte>> xattr(const std::string& name) const override;

    // Goes to the thread that has allocated its memory, which frees it.
    void release() override;

    // Makes the calls of the host that a copy is going to make, as far as they are quick: small files are read, and
    // directories listed. A call that fails is made again by the copy, which then meets the error in its place.
    void prepare(const ReadAhead& how, HostAhead& ahead);
    // The directory, once it was listed.
    const std::shared_ptr<HostFolder>& folder() const { return folder_; }
    // Held since prepare().
    std::size_t bytes_held() const { return bytes_held_; }
    bool holds_descriptor() const { return file_ || folder_; }

private:
    struct Attribute {
        std::string name;
        std::optional<std::vector<std::byte>> value;
    };

    [[noreturn]] void fail_here() const;
    // In the folder above.
    const char* name() const { return path_.c_str() + name_at_; }
    int folder_above() const { return above_ ? above_->descriptor() : AT_FDCWD; }
    int descriptor() const { return file_ ? file_->fd() : folder_ && folder_->open ? folder_->descriptor() : -1; }
    // Invalid, and `errno`, if it cannot be opened.
    Descriptor open_file(int flags) const;
    // None, and `errno`.
    std::optional<std::string> read_link() const;
    // A directory as far as it could be read, and the errno if that was not to its end.
    struct Listed {
        std::shared_ptr<HostFolder> folder;
        int error;
    };
    Listed read_folder() const;
    void read_ahead_now();
    // By a descriptor of it, or by its path (-1).
    std::vector<std::string> names_of_attributes(int fd) const;
    std::optional<std::vector<std::byte>> attribute(int fd, const std::string& name) const;
    void prepare_file(const ReadAhead& how);
    void prepare_unsized(Descriptor file, const ReadAhead& how);
    void prepare_attributes(int fd);

    std::string path_;
    std::shared_ptr<const HostFolder> above_;  // the directory that it was found in; null if it was named
    bool follows_;                             // a link that has its name
    std::size_t name_at_ = 0;
    std::shared_ptr<const Descriptor> file_;  // once it is open
    std::shared_ptr<HostFolder> folder_;      // once it was listed
    std::optional<ReadAhead> how_;            // what lies in it is to be prepared

    // Prepared.
    std::unique_ptr<std::byte[]> buffer_;
    std::optional<ConstBytes> contents_;  // of a small file
    std::vector<std::byte> first_;        // of the file that is open
    std::optional<std::string> target_;
    std::optional<std::vector<Attribute>> attributes_;
    std::size_t bytes_held_ = 0;

    std::unique_ptr<HostAhead> ahead_;  // of what is named; its thread ends first
};

}  // namespace uext4::cli
