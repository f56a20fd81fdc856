#include "cli/kept_mount.h"

namespace uext4::cli {

namespace {

ShellMount* living = nullptr;

}  // namespace

ShellMount::ShellMount(std::string image, const CommonOptions& options, bool writable)
    : image_(std::move(image)), options_(options), writable_(writable) {
    living = this;
}

ShellMount::~ShellMount() { living = nullptr; }

ShellMount* ShellMount::of(const std::string& image) {
    return living && same_image(living->image_, image) ? living : nullptr;
}

bool ShellMount::serves(const CommonOptions& options) const {
    return options.mount_options == options_.mount_options && options.no_replay == options_.no_replay;
}

FileSystem& ShellMount::open(bool changes) {
    if (changes && !writable_) throw NeedsWritableMount();
    if (!fs_) {
        CommonOptions options = options_;
        // Commands that only look leave the times of access as they are, as they do on a mount of their own.
        if (writable_)
            options.mount_options = "noatime" + (options.mount_options.empty() ? "" : "," + options.mount_options);
        fs_ = mount_image(image_, writable_, options);
    }
    if (changes) changed_ = true;
    else settle();
    return *fs_;
}

void ShellMount::settle() {
    if (!fs_ || !std::exchange(changed_, false)) return;
    value_or_fail(fs_->sync(), image_);
    fs_->volume().wait_for_deletions();
    value_or_fail(fs_->sync(), image_);
}

void ShellMount::close() {
    changed_ = false;
    if (const std::unique_ptr<FileSystem> fs = std::move(fs_))
        if (const Result<void> closed = fs->unmount(); !closed)
            fail_with(exit_failure, image_ + ": " + closed.error().what);
}

}  // namespace uext4::cli
