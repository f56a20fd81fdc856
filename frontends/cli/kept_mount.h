// One mount of an image over all commands of a shell.
#pragma once

#include "cli/session.h"

namespace uext4::cli {

// A change was asked of a mount that only reads: nothing of the command has been done.
struct NeedsWritableMount {};

// While one of these lives, each Session for its image and with its options works on it; others for its image
// (Session::Use::alone, --no-replay) close it first, and the next one opens it again.
class ShellMount {
public:
    ShellMount(std::string image, const CommonOptions& options, bool writable);
    // Unmounts, and only tells of what fails; close() is the way to know.
    ~ShellMount();
    ShellMount(const ShellMount&) = delete;
    ShellMount& operator=(const ShellMount&) = delete;

    // The one that lives, if it is of that image; or null.
    static ShellMount* of(const std::string& image);
    bool serves(const CommonOptions& options) const;
    // Ends the verb where it cannot be opened; throws NeedsWritableMount. A reader sees the same as
    // after a new mount: no block is delayed, and the blocks of removed files are free.
    FileSystem& open(bool changes);
    // What was changed so far is durable. Ends the verb when that fails.
    void settle();
    // Unmounts. Ends the verb when that fails.
    void close();

private:
    const std::string image_;
    const CommonOptions options_;
    const bool writable_;
    std::unique_ptr<FileSystem> fs_;
    bool changed_ = false;
};

}  // namespace uext4::cli
