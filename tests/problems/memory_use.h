// What the process takes of the machine's memory at most while this lives: what is its own, tables of pages, and its
// memory files, of whose pages the kernel counts for the process only those that are mapped. Looked at every few
// milliseconds.
#pragma once

#include "tests/process_status.h"

#include <dirent.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>

namespace uext4::problems {

class MemoryUse {
public:
    MemoryUse() : before_(kib_now()), peak_(before_) {
        watcher_ = std::thread([this] {
            while (!stop_) {
                look();
                std::this_thread::sleep_for(std::chrono::milliseconds(5));
            }
        });
    }
    ~MemoryUse() {
        stop_ = true;
        watcher_.join();
    }
    MemoryUse(const MemoryUse&) = delete;
    MemoryUse& operator=(const MemoryUse&) = delete;

    // Over what there was at the beginning.
    std::size_t peak_mib() {
        look();
        return (std::max(peak_.load(), before_) - before_) / 1024;
    }

    static std::size_t kib_now() {
        return status_kib("RssAnon:") + status_kib("RssFile:") + status_kib("VmPTE:") + memory_files_kib();
    }

private:
    void look() {
        const std::size_t now = kib_now();
        for (std::size_t known = peak_; known < now && !peak_.compare_exchange_weak(known, now);) {
        }
    }
    static std::size_t memory_files_kib() {
        const std::string descriptors = "/proc/self/fd/";
        std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(descriptors.c_str()), ::closedir);
        std::size_t kib = 0;
        while (const dirent* entry = dir ? ::readdir(dir.get()) : nullptr) {
            char link[16] = {};
            const std::string path = descriptors + entry->d_name;
            struct stat found{};
            if (::readlink(path.c_str(), link, sizeof link) > 7 && std::string_view(link, 7) == "/memfd:" &&
                ::stat(path.c_str(), &found) == 0)
                kib += static_cast<std::size_t>(found.st_blocks) / 2;
        }
        return kib;
    }

    std::size_t before_;
    std::atomic<std::size_t> peak_;
    std::atomic<bool> stop_{false};
    std::thread watcher_;
};

}  // namespace uext4::problems
