// Goes through a mounted file system, and keeps what it says of damage.
#pragma once

#include "tests/hostile/visit.h"

#include <optional>
#include <set>

namespace uext4::hostile {

class Visitor {
public:
    explicit Visitor(Visit& out) : out_(out) {}

    std::unique_ptr<FileSystem> mount(const std::shared_ptr<BlockDevice>& device, const char* options);

    template <class T>
    std::optional<T> take(Result<T> result) {
        ++out_.steps;
        if (result) return std::move(*result);
        note(result.error());
        return std::nullopt;
    }
    void take(Result<void> result) {
        ++out_.steps;
        if (!result) note(result.error());
    }

    void walk(FileSystem& fs);
    const std::vector<std::string>& directories() const { return directories_; }
    const std::vector<std::string>& files() const { return files_; }

    void check(FileSystem& fs);
    void look(FileSystem& fs, const InodeRef& inode);
    std::uint64_t steps() const { return out_.steps; }

private:
    void take_position(Result<std::uint64_t> result);
    void note(const Error& error);
    void directory(FileSystem& fs, const InodeRef& inode, const std::string& path, unsigned depth);

    Visit& out_;
    std::uint64_t entries_ = 0;
    std::set<std::uint64_t> seen_, looked_;
    std::vector<std::string> directories_, files_;
};

}  // namespace uext4::hostile
