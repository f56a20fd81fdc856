// A file that shows one image after the other to other programs, which only read it. It is written where an image has
// other pages than the one before: most are the same, and a file's pages cost more than all that a test does else.
#pragma once

#include "tests/doubles/memory_device.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace uext4::crash {

class ImageFile {
public:
    explicit ImageFile(std::string path) : path_(std::move(path)) {}
    ~ImageFile() { forget(); }
    ImageFile(const ImageFile&) = delete;
    ImageFile& operator=(const ImageFile&) = delete;

    const std::string& path() const { return path_; }

    Result<void> show(const MemoryDevice& image) {
        Result<void> shown = write(image);
        if (!shown) forget();  // it is neither image now
        return shown;
    }

private:
    using Pages = std::vector<std::pair<std::uint64_t, const SparsePages::Page*>>;  // ascending

    Result<void> write(const MemoryDevice& image) {
        if (fd_ < 0) fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd_ < 0) return fail(errno, "{}: {}", path_, std::strerror(errno));
        // A page that both images have is at one address: the copy kept here makes who writes take another.
        std::unique_ptr<MemoryDevice> now = image.clone();
        Pages pages;
        now->content()->for_each([&](std::uint64_t i, const SparsePages::Page& page) { pages.emplace_back(i, &page); });
        static constexpr SparsePages::Page zeros{};
        auto before = pages_.begin();
        const auto gone = [&](std::uint64_t until) -> Result<void> {
            for (; before != pages_.end() && before->first < until; ++before) TRY(put(before->first, zeros));
            return {};
        };
        for (const auto& [index, page] : pages) {
            TRY(gone(index));
            const bool known = before != pages_.end() && before->first == index;
            if (!known || before->second != page) TRY(put(index, *page));
            if (known) ++before;
        }
        TRY(gone(~std::uint64_t{0}));
        shown_ = std::move(now);
        pages_ = std::move(pages);
        if (::ftruncate(fd_, static_cast<off_t>(image.size())) == 0) return {};
        return fail(errno, "{}: {}", path_, std::strerror(errno));
    }

    Result<void> put(std::uint64_t index, const SparsePages::Page& page) {
        const std::uint64_t start = index * page.size();
        const ssize_t done = ::pwrite(fd_, page.data(), page.size(), static_cast<off_t>(start));
        if (done == static_cast<ssize_t>(page.size())) return {};
        return fail(done < 0 ? errno : EIO, "{}: write at {}: {}", path_, start,
                    done < 0 ? std::strerror(errno) : "short");
    }

    void forget() {
        if (fd_ < 0) return;
        ::close(std::exchange(fd_, -1));
        ::unlink(path_.c_str());
        pages_.clear();
    }

    std::string path_;
    int fd_ = -1;
    std::unique_ptr<MemoryDevice> shown_;  // keeps the pages below
    Pages pages_;
};

}  // namespace uext4::crash
