// Everything that may want a block, door by door, through files of one's own in one folder. What they hold is known to
// the byte: each door ends with an fsync, or what is one, so that a cut behind it leaves just that, however it ended.
#pragma once

#include "full_image.h"

#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>

namespace uext4::problems {

class FullImage::Doors {
public:
    struct Sizes {
        std::uint64_t blocks = 600;   // allocated before the image is full
        std::uint64_t pages = 64;     // mapped
        std::uint64_t in_pieces = 6;  // files
    };
    // Whoever has another `number` goes through other doors, with other bytes.
    Doors(FullImage& image, std::string folder, Sizes sizes, unsigned seed, unsigned number = 0)
        : image_(image), folder_(std::move(folder)), sizes_(sizes), random_(seed), pattern_(number * 60) {}

    void prepare();
    // Each of them as often, so many at least. By any thread.
    void pass(unsigned turns);
    void leave_maps() { map_.reset(); }
    // From here on there is space for everything.
    void space_is_back() { full_ = false; }
    // All is there, and nothing else.
    void check(FileSystem& in, const char* when);
    int taken_stores() const { return taken_stores_; }
    int refused_stores() const { return refused_stores_; }

private:
    struct File {
        std::string bytes;
        std::map<std::string, std::string> attributes;
    };
    using Map = std::unique_ptr<char, std::function<void(char*)>>;
    struct Door {
        const char* name;
        void (Doors::*go)();
    };
    static const Door all[];

    // In the image.
    std::uint64_t block() const { return image_.format().block; }
    std::uint64_t unit() const { return 8 * block(); }  // whole clusters
    std::uint64_t random(std::uint64_t below) { return random_() % below; }
    std::string next_pattern(std::size_t size) { return pattern(size, ++pattern_); }
    std::unique_ptr<OpenFile> open(const std::string& name, int flags = O_RDWR) {
        return image_.open(folder_ + name, flags, image_.who());
    }
    InodeRef node(const std::string& name) { return *image_.fs->resolve(folder_ + name, root); }

    // In the model.
    void put(const std::string& name, std::uint64_t at, const std::string& bytes);
    void zero(const std::string& name, std::uint64_t at, std::uint64_t size);
    void grow(const std::string& name, std::uint64_t size);
    std::uint64_t size_of(const std::string& name) { return files_.at(name).bytes.size(); }

    void no_space_or_done(const auto& result, const char* what) {
        if (full_) image_.no_space_or_done(result, what);
        else EXPECT_TRUE(result) << what << ": " << result.error().what;
    }
    // In both. Done, in part or refused with ENOSPC: there is what was done, and nothing of the rest.
    std::size_t write(OpenFile& file, const std::string& name, std::uint64_t at, const std::vector<std::size_t>& parts);
    std::size_t write_and_sync(const std::string& name, std::uint64_t at, const std::vector<std::size_t>& parts,
                               int flags = 0);
    bool set_attribute(const std::string& name, const std::string& key, const std::string& value);
    void expect_bytes(FileSystem& in, const std::string& name, const File& file, const char* when);

    void append();
    void fill_holes();
    void fill_holes_directly();
    void overwrite();
    void overwrite_directly();
    void fill_allocated();
    void fill_allocated_directly();
    void store();
    void store_into(OpenFile& file, char* memory);
    std::string file_to_change();
    void punch();
    void allocate_and_zero();
    void allocate_within();
    void name();
    void sync_names();
    void remove_name(const std::string& name, bool directory);
    void cut();
    void raise();
    void shift();
    void copy();
    void write_synchronously();
    void write_vectors();
    void fill_inode();
    void give_back();
    void take_rest();

    FullImage& image_;
    std::string folder_;
    Sizes sizes_;
    std::mt19937_64 random_;
    unsigned pattern_;
    unsigned turn_ = 0;
    bool full_ = true;
    int taken_stores_ = 0, refused_stores_ = 0;
    std::map<std::string, File> files_;
    std::set<std::string> names_;  // in /dir
    Map map_;
    std::set<std::uint64_t> mapped_pages_;  // that have their blocks
};

}  // namespace uext4::problems
