// One random operation after the other, each compared with the model.
#pragma once

#include "tests/exercise/model.h"
#include "tests/exercise/private_pages.h"
#include "tests/exercise/side.h"

#include <functional>
#include <memory>
#include <random>

namespace uext4::exercise {

inline constexpr std::size_t page = 4096;

struct Rules {
    bool no_ranges = false;  // indirect blocks: fallocate only punches
    bool maps = true;
    bool alone = true;         // no other thread uses the file system
    std::size_t grain = page;  // bytes of a block, or of a cluster: what collapses and inserts are made of
    bool journaled = false;    // every file, by data=journal
    // What becomes of direct requests that are not in sectors: with inline data it depends on the file. Files that have
    // their contents in the journal take them.
    enum class Unaligned { refused, either } unaligned = Unaligned::refused;
};

class Steps {
public:
    Steps(Side& side, Model& model, const Rules& rules);
    ~Steps();  // unmaps what was not left

    // False when something differed; `problem` and `trace` say what.
    bool step();
    bool compare_all(unsigned file);
    bool close_maps();  // as step()
    void leave_maps() { views_.clear(); }
    std::string problem, trace;

private:
    struct View {
        unsigned file = 0;
        std::size_t at = 0, length = 0;
        bool shared = true, writable = false;
        std::byte* address = nullptr;
        PrivatePages own;  // of a private map
    };

    std::size_t any(std::size_t below) { return below ? random_() % below : 0; }
    std::size_t any_length();
    std::size_t any_place(unsigned file);
    std::vector<std::byte> any_bytes(std::size_t n);
    bool differs(std::string what);
    bool same(unsigned file, std::size_t at, Bytes got, const char* door);
    bool expect(const char* what, ssize_t got, ssize_t wanted);
    // The same of a direct request of `n` bytes at `at`, which may have been refused as it is not in sectors:
    // `refused`.
    bool expect_direct(const char* what, unsigned file, std::size_t at, std::size_t n, ssize_t got, ssize_t wanted,
                       bool& refused);
    void align(std::size_t& at, std::size_t& n);  // for a direct request; now and then they stay as they are
    std::byte* memory();                          // of the buffer; now and then at an odd place
    // The file ends there now: what private maps have behind it is gone.
    void cut_maps(unsigned file, std::size_t at);
    bool same_in_map(const View& view, std::size_t at, std::size_t n);
    bool store_behind_the_end(View& view);

    bool write(unsigned file, Way way);
    bool read(unsigned file, Way way);
    bool write_parts(unsigned file, Way way);
    bool read_parts(unsigned file, Way way);
    bool cut(unsigned file);
    bool range(unsigned file);
    bool shift(unsigned file, bool insert);
    bool sync(unsigned file);
    bool copy(unsigned file);
    bool seek(unsigned file);
    bool attribute(unsigned file);
    bool switch_journaling(unsigned file);
    bool sync_all();
    bool freeze(unsigned file);
    bool open_map(unsigned file);
    bool use_map();
    bool use_map_as_buffer(unsigned file);
    bool sync_map();
    bool close_map(std::size_t which);
    bool settle(unsigned file);  // makes it durable before the model holds too many states
    // Bytes of the view that lie in the file now, on the page of which every access is allowed.
    std::size_t reach(const View& view) const;

    Side& side_;
    Model& model_;
    Rules rules_;
    std::mt19937_64 random_;
    std::vector<View> views_;
    std::size_t most_;
    bool journaled_[files] = {};  // its contents go through the journal
    std::byte* buffer_;           // aligned for direct transfers
};

}  // namespace uext4::exercise
