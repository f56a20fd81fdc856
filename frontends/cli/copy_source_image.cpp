#include "cli/copy_source.h"

#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

namespace uext4::cli {

namespace {

class ImageContents final : public SourceContents {
public:
    ImageContents(std::unique_ptr<OpenFile> file, std::string at, std::uint64_t size)
        : file_(std::move(file)), at_(std::move(at)), size_(size) {}

    std::optional<Range> data_from(std::uint64_t at) override {
        if (at >= size_) return {};
        Result<std::uint64_t> data = file_->seek(at, SEEK_DATA);
        if (!data && data.error().code == ENXIO) return {};
        const std::uint64_t begin = value_or_fail(std::move(data), at_);
        return Range{begin, std::min(size_, value_or_fail(file_->seek(begin, SEEK_HOLE), at_))};
    }

    std::size_t read(std::uint64_t at, Bytes out) override { return value_or_fail(file_->read(at, out), at_); }

    // What has no size has no contents either.
    std::size_t next(Bytes) override { return 0; }

private:
    std::unique_ptr<OpenFile> file_;
    std::string at_;
    std::uint64_t size_;
};

class ImageSource final : public CopySource {
public:
    ImageSource(Session& session, Ancestors& above, InodeRef inode, std::string path)
        : session_(session), above_(above), inode_(std::move(inode)), path_(std::move(path)) {
        st_ = value_or_fail(session_.fs().attributes(*inode_), at());
    }

    std::string at() const override { return session_.at(path_); }
    const Session* image() const override { return &session_; }

    std::unique_ptr<SourceContents> open() override {
        return open_contents_of(session_, inode_, at(), static_cast<std::uint64_t>(st_.st_size));
    }

    std::string link_target() const override { return value_or_fail(session_.fs().read_link(*inode_), at()); }

    void list(Names& names) override {
        inside_.emplace(above_, session_, *inode_);
        names_in(session_, *inode_, path_, names);
    }

    CopyChild child(const Names::value_type& listed, bool follow) override {
        std::string path = below(path_, listed.first);
        // Nothing could name it, and each directory above has its own, so that depth would take memory by its square.
        if (path.size() >= PATH_MAX) fail_with(exit_negative, session_.at(path) + ": " + std::strerror(ENAMETOOLONG));
        InodeRef inode = session_.inode_of_entry(listed.second, path);
        if (follow && inode->is_symlink()) {
            inode = session_.resolve(path);
            above_.expect_outside(session_, *inode, path);
        }
        return CopyChild(new ImageSource(session_, above_, std::move(inode), std::move(path)));
    }

    std::vector<std::string> xattr_names() const override {
        return value_or_fail(session_.fs().list_xattrs(*inode_, operator_identity(), false), at());
    }

    std::optional<std::vector<std::byte>> xattr(const std::string& name) const override {
        return value_or_fail(session_.fs().get_xattr(*inode_, name, operator_identity(), false), at() + ": " + name);
    }

    std::optional<std::uint32_t> flags() const override { return session_.fs().get_flags(*inode_); }

private:
    Session& session_;
    Ancestors& above_;
    InodeRef inode_;
    std::string path_;
    std::optional<Ancestors::Inside> inside_;  // once it was listed
};

}  // namespace

std::unique_ptr<CopySource> ImageTree::find(const std::string& path, bool follow) {
    return std::make_unique<ImageSource>(session_, above_, session_.resolve(path, follow), path);
}

std::unique_ptr<SourceContents> open_contents_of(Session& session, const InodeRef& inode, const std::string& at,
                                                 std::uint64_t size) {
    std::unique_ptr<OpenFile> file =
        value_or_fail(session.fs().open(inode, O_RDONLY | O_NOATIME, operator_identity(), false), at);
    return std::make_unique<ImageContents>(std::move(file), at, size);
}

void names_in(Session& session, Inode& directory, const std::string& path, Names& names) {
    bool slash = false;  // which would lead elsewhere on the host
    const auto add = [&](const DirectoryEntry& e) {
        if (e.name.find('/') != std::string_view::npos) slash = true;
        else if (e.name != "." && e.name != "..") names.emplace_back(std::string(e.name), e.inode.value);
        return true;
    };
    value_or_fail(session.fs().read_directory(directory, 0, add), session.at(path));
    if (slash) fail_with(exit_failure, session.at(path) + ": a name with a slash");
}

}  // namespace uext4::cli
