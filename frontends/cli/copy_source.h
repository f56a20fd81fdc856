// What is copied into an image: things of the host, or of an image. Each call ends the copy of the thing where it
// fails.
#pragma once

#include "cli/session.h"

#include <sys/stat.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace uext4::cli {

// What is in a directory: names, and the numbers of the inodes where it lies in an image.
using Names = std::vector<std::pair<std::string, std::uint64_t>>;

// The contents of what is open.
class SourceContents {
public:
    virtual ~SourceContents() = default;
    struct Range {
        std::uint64_t begin, end;
    };
    // The first data at `at` or behind it, up to where a hole follows; none where there is no more.
    virtual std::optional<Range> data_from(std::uint64_t at) = 0;
    // Bytes from `at`; 0 at the end.
    virtual std::size_t read(std::uint64_t at, Bytes out) = 0;
    // Of what has no size: the bytes that come next; 0 at the end.
    virtual std::size_t next(Bytes out) = 0;
    // All of it, as long as this lives, if it has been read already.
    virtual std::optional<ConstBytes> in_memory() const { return {}; }
};

// What is open, piece by piece. The first piece is read when this is made: a source that cannot be read is known before
// anything of the destination changes.
class SourceReader {
public:
    // A hole is what the source says is one; or what is zero, so that copies do not depend on where the source lies.
    enum class Holes : std::uint8_t { of_source, zeros };
    // A size of 0 tells nothing: pipes, devices and files of /proc have contents all the same.
    SourceReader(std::unique_ptr<SourceContents> from, std::uint64_t size, Holes holes = Holes::of_source);
    struct Piece {
        std::uint64_t at;
        ConstBytes bytes;
    };
    // Valid until the next call; none at the end. Between two pieces lies a hole.
    std::optional<Piece> next();
    // Of the copy. Final after the last piece: a file may have become shorter.
    std::uint64_t size() const { return size_; }

private:
    std::optional<Piece> read();
    std::optional<Piece> read_at_once();
    std::optional<Piece> read_next();
    std::optional<Piece> read_between_zeros();
    std::size_t fill(std::size_t length);  // the buffer, as far as the source goes

    std::unique_ptr<SourceContents> from_;
    const std::optional<ConstBytes> in_memory_;
    bool sized_;
    std::uint64_t size_;
    std::uint64_t at_ = 0, data_end_ = 0;  // the data that is known of ends at the second one
    std::size_t room_;
    std::unique_ptr<std::byte[]> buffer_;  // none if it is in memory
    const bool zeros_are_holes_;
    ConstBytes left_;  // of the buffer, from at_ on: not looked at for zeros yet
    std::optional<Piece> first_;
    bool ended_;  // a pipe is not to be asked again
};

// How a copy goes through a directory, for sources that can prepare what comes next.
struct ReadAhead {
    bool follow = false;                 // symbolic links
    bool sorted = false;                 // in the order of the names; else in that of the directory
    bool attributes = false;             // all extended ones are asked for
    std::optional<struct stat> image{};  // the file that holds the destination, which is not to be opened
};

class CopySource;

struct ReleaseSource {
    void operator()(CopySource* source) const;
};
using CopyChild = std::unique_ptr<CopySource, ReleaseSource>;

// A file, directory, link or node. What is in a directory goes before the directory does.
class CopySource {
public:
    virtual ~CopySource() = default;
    const struct stat& status() const { return st_; }
    // The place, for messages.
    virtual std::string at() const = 0;
    // The image that it lies in; null on the host.
    virtual const Session* image() const = 0;
    // Before list(): everything that lies in it is going to be copied, one thing after the other.
    virtual void read_ahead(const ReadAhead&) {}
    // Goes before this does.
    virtual std::unique_ptr<SourceContents> open() = 0;
    virtual std::string link_target() const = 0;
    // Where it is damaged, that ends the listing, and `names` has what is known of it.
    virtual void list(Names& names) = 0;
    // Something that was listed; a link itself, or what it leads to.
    virtual CopyChild child(const Names::value_type& listed, bool follow) = 0;
    virtual std::vector<std::string> xattr_names() const = 0;
    // None for one that cannot be read (any more).
    virtual std::optional<std::vector<std::byte>> xattr(const std::string& name) const = 0;
    // As FS_IOC_GETFLAGS shows them; none of the host, as cp(1) copies none.
    virtual std::optional<std::uint32_t> flags() const { return {}; }

    // The end of what child() gave.
    virtual void release() { delete this; }

protected:
    struct stat st_{};
};

inline void ReleaseSource::operator()(CopySource* source) const { source->release(); }

// Where paths of sources begin.
class SourceTree {
public:
    virtual ~SourceTree() = default;
    virtual const Session* image() const = 0;
    virtual std::unique_ptr<CopySource> find(const std::string& path, bool follow) = 0;
};

// A source for standard input alone: contents without a name.
class StandardInputTree final : public SourceTree {
public:
    StandardInputTree();  // before the sandbox, which lets nothing be asked about it
    const struct stat& status() const { return st_; }
    const Session* image() const override { return nullptr; }
    std::unique_ptr<CopySource> find(const std::string& path, bool follow) override;

private:
    struct stat st_{};
};

class HostTree final : public SourceTree {
public:
    const Session* image() const override { return nullptr; }
    std::unique_ptr<CopySource> find(const std::string& path, bool follow) override;
};

// Lives longer than what is found in it.
class ImageTree final : public SourceTree {
public:
    explicit ImageTree(Session& session) : session_(session) {}
    const Session* image() const override { return &session_; }
    std::unique_ptr<CopySource> find(const std::string& path, bool follow) override;

private:
    Session& session_;
    Ancestors above_;
};

// Of a file of an image.
std::unique_ptr<SourceContents> open_contents_of(Session& session, const InodeRef& inode, const std::string& at,
                                                 std::uint64_t size);

// What is in a directory of an image, without what would lead elsewhere. As CopySource::list.
void names_in(Session& session, Inode& directory, const std::string& path, Names& names);

}  // namespace uext4::cli
