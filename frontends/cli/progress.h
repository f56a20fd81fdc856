// A bar on a terminal that says how far a copy has come.
#pragma once

#include <sys/stat.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace uext4::cli {

class Progress {
public:
    explicit Progress(bool shown) : shown_(shown) {}
    ~Progress() { clear(); }
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;

    bool shown() const { return shown_; }
    // What an entry counts for: its data without holes, and something for itself.
    static std::uint64_t weight(const struct stat& st);
    void expect(const struct stat& st) { expected_ += weight(st); }
    void begin(std::string_view name);  // an entry
    void advance(std::uint64_t bytes);
    void finish(const struct stat& st);
    void clear();

private:
    void draw(bool now);

    bool shown_, drawn_ = false;
    std::uint64_t expected_ = 0, finished_ = 0, inside_ = 0;
    std::string name_;
    std::chrono::steady_clock::time_point last_{};
};

}  // namespace uext4::cli
