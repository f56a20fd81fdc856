// Judges of one crash state: ours, e2fsck, the kernel.
#pragma once

#include "tests/crash/promises.h"
#include "tests/crash/states.h"

#include <string>

namespace uext4::crash {

// Recovers the image where it lies (mount, unmount) and says what is in it then. Error: what does not open, close or
// check out.
Result<Tree> recover_and_capture(const std::shared_ptr<BlockDevice>& image, const std::string& mode);

// Everything of ours: recovery, check, the promises, and that a second recovery finds the same. Empty: fine. What was
// recovered goes to `tree`.
std::string judge_ourselves(const Recording& recording, const CrashState& state, Tree& tree);

// Recovery itself is cut, `depth` times one after the other, at random places; what is recovered in the end must be
// `wanted`. `last` is then the image that was recovered last, as it was before.
std::string judge_cut_recovery(const Recording& recording, const CrashState& state, const Tree& wanted, unsigned depth,
                               std::mt19937_64& random, std::shared_ptr<BlockDevice>& last);

// Every file of a recovered copy grows, some in the cache and some not: what comes into it is zeros, also on the
// device.
std::string judge_growth(const CrashState& state, const std::string& mode, const Tree& tree);

// A file for one image after the other: only pages that differ are written.
class ScratchFile {
public:
    explicit ScratchFile(std::string path) : path_(std::move(path)) {}
    ScratchFile(const ScratchFile&) = delete;
    ScratchFile& operator=(const ScratchFile&) = delete;
    ~ScratchFile();
    const std::string& path() const { return path_; }
    Result<void> hold(BlockDevice& image);

private:
    Result<void> make(std::uint64_t size);
    void remove();

    std::string path_;
    std::byte* bytes_ = nullptr;  // a shared map of it, which sees what other programs write
    std::uint64_t size_ = 0;
};

// On copies: e2fsck replays the journal and looks at everything; if `ours`, it looks at what our recovery left as well.
// Complaints about an inode that waits on the orphan list are what that list is for; no other is passed over. Error:
// nothing could be judged, as there is no room for the copies.
Result<std::string> judge_by_e2fsck(const CrashState& state, const std::string& mode, ScratchFile& scratch, bool ours);

// Nothing, or why e2fsck can judge nothing here.
std::string e2fsck_is_missing();
// Whether the machine lets us mount.
bool kernel_can_mount(const std::string& scratch);
// The kernel's recovery of a copy gives the same tree. Error: as above.
Result<std::string> judge_by_kernel(const Recording& recording, const CrashState& state, const Tree& wanted,
                                    const std::string& scratch);

Result<void> save_image(BlockDevice& device, const std::string& path);

}  // namespace uext4::crash
