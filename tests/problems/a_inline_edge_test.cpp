// Problem A: sixteen threads around the size that fits an inode, through every door, on a file and its neighbours, with
// attributes that take the room beside them, while files lose their cache and their inodes leave memory.
#include "settled_image.h"

#include <sys/xattr.h>

#include <atomic>
#include <random>
#include <thread>

namespace uext4::problems {
namespace {

constexpr unsigned files = 8, threads = 16;
constexpr std::size_t reach = 700;  // a little more than what fits

// Every file has one byte for each place: what is in it is that byte or nothing.
char byte_of(unsigned file, std::size_t at) { return static_cast<char>((at * 7 + file * 31) % 250 + 1); }
std::string bytes_at(unsigned file, std::size_t at, std::size_t size) {
    std::string out(size, 0);
    for (std::size_t i = 0; i < size; ++i) out[i] = byte_of(file, at + i);
    return out;
}
std::string path_of(unsigned file) { return fmt::format("/file{}", file); }

class InlineEdge : public SettledImage, public testing::WithParamInterface<std::tuple<const char*, const char*>> {
protected:
    void SetUp() override { make(std::get<0>(GetParam()), std::string(std::get<1>(GetParam())) + ",cache=1M"); }

    void wrong(const std::string& what) {
        failed_ = true;
        ADD_FAILURE() << what;
    }
    template <class T>
    bool fine(const Result<T>& result, const char* what, int allowed = 0) {
        if (result) return true;
        if (result.error().code != allowed) wrong(fmt::format("{}: {}", what, result.error().what));
        return false;
    }
    void look(FileSystem& in, unsigned file, const char* when) {
        auto opened = in.open_path(path_of(file), O_RDONLY, 0, root);
        if (!fine(opened, "open")) return;
        std::string bytes(3 * page, 0);
        auto n = (*opened)->read(0, std::as_writable_bytes(std::span(bytes)));
        if (!fine(n, "read")) return;
        for (std::size_t i = 0; i < *n; ++i)
            if (bytes[i] && bytes[i] != byte_of(file, i))
                return wrong(fmt::format("{}: file {} has byte {} at {}", when, file, bytes[i] & 255, i));
    }
    void store(OpenFile& file, unsigned number, std::size_t at) {
        auto mapped = file.map(0, page, PROT_READ | PROT_WRITE, MAP_SHARED);
        if (!mapped) {
            no_maps_ = true;
            return;
        }
        auto* memory = static_cast<volatile char*>(*mapped);
        // Past the last page there is nothing to store to; a byte behind the end, in the page, is lost.
        (void)refused([&] { memory[at] = byte_of(number, at); });
        (void)refused([&] {
            const char now = memory[at];
            if (now && now != byte_of(number, at)) wrong(fmt::format("a map of file {} has {} at {}", number, now, at));
        });
        unmap(*mapped, page);
    }
    void attribute(unsigned file, std::mt19937& random) {
        auto inode = fs->resolve(path_of(file), root);
        if (!fine(inode, "resolve")) return;
        const std::string name = fmt::format("user.{}", random() % 3);
        const auto size = static_cast<std::size_t>(random() % 90);
        if (random() % 3 == 0) fine(fs->remove_xattr(**inode, name, root, true), "removexattr", ENODATA);
        else fine(fs->set_xattr(**inode, name, bytes_of(std::string(size, 'v')), 0, root, true), "setxattr");
        auto value = fs->get_xattr(**inode, name, root, true);
        if (fine(value, "getxattr", ENODATA))
            for (const std::byte b : *value)
                if (b != std::byte{'v'}) return wrong("an attribute has other bytes");
    }
    void step(std::mt19937& random);

    std::atomic<bool> failed_{false}, no_maps_{false};
};

void InlineEdge::step(std::mt19937& random) {
    // Half of it all is about one file.
    const unsigned number = random() % 2 ? 0 : random() % files;
    const std::size_t at = random() % reach, size = random() % 120 + 1;
    auto file = fs->open_path(path_of(number), O_RDWR, 0, root);
    if (!fine(file, "open")) return;
    switch (random() % 14) {
        case 0:
        case 1: fine((*file)->write(at, bytes_of(bytes_at(number, at, size))), "write"); break;
        case 2:
        case 3: store(**file, number, at); break;
        case 4: fine((*file)->truncate(random() % reach), "truncate"); break;
        case 5: fine((*file)->truncate(at % 80), "truncate to a little"); break;
        case 6: attribute(number, random); break;
        case 7: attribute(number, random); break;
        case 8: fine((*file)->sync(random() % 2), "fsync"); break;
        case 9: fine((*file)->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, size), "punch"); break;
        case 10: fine((*file)->fallocate(FALLOC_FL_ZERO_RANGE, at, size), "zero range"); break;
        case 11: {
            auto direct = fs->open_path(path_of(number), O_RDWR | O_DIRECT, 0, root);
            if (!fine(direct, "open")) return;
            Aligned memory(bytes_at(number, 0, page));
            fine((*direct)->write(0, memory.bytes().first(512)), "direct write");
            fine((*direct)->read(0, memory.bytes()), "direct read");
            break;
        }
        case 12: {
            const unsigned other = random() % files;
            auto to = fs->open_path(path_of(other), O_RDWR, 0, root);
            if (!fine(to, "open")) return;
            if (other != number) fine((*to)->fallocate(FALLOC_FL_KEEP_SIZE, at, size), "fallocate");
            else fine((*file)->seek(at, SEEK_DATA), "seek", ENXIO);
            break;
        }
        default: look(*fs, number, "meanwhile");
    }
}

TEST_P(InlineEdge, EveryDoorAtOnce) {
    for (unsigned f = 0; f < files; ++f) write(*open(path_of(f)), bytes_at(f, 0, 40 + f * 20));
    const std::string quiet = pattern(60, 3);
    write(*open("/quiet"), quiet);
    // It takes the cache from everybody else, so that folios go while their files' inodes are held.
    write(*open("/large"), pattern(4 << 20, 9));
    ok(fs->sync());
    std::atomic<bool> stop{false};
    std::thread churn([&] {
        auto large = open("/large", O_RDONLY);
        std::string bytes(256 << 10, 0);
        for (std::uint64_t at = 0; !stop; at = (at + bytes.size()) % (4 << 20)) {
            fine(large->read(at, std::as_writable_bytes(std::span(bytes))), "read of the large file");
            fs->volume().fs().pages.reclaim();
        }
    });
    const int steps = long_run() ? 6000 : 600;
    std::vector<std::thread> crowd;
    for (unsigned t = 0; t < threads; ++t)
        crowd.emplace_back([&, t] {
            std::mt19937 random(first_seed() * 1000 + t);
            for (int i = 0; i < steps && !failed_; ++i) step(random);
        });
    for (std::thread& thread : crowd) thread.join();
    stop = true;
    churn.join();
    EXPECT_FALSE(no_maps_) << "no stores through maps";
    for (unsigned f = 0; f < files; ++f) look(*fs, f, "afterwards");
    EXPECT_EQ(read(*open("/quiet", O_RDONLY), 200), quiet);
    const std::shared_ptr<MemoryDevice> cut = durable();
    {
        auto recovered = FileSystem::mount_device(cut, {});
        ASSERT_TRUE(recovered) << recovered.error().what;
        for (unsigned f = 0; f < files; ++f) look(**recovered, f, "after the cut");
        ok((*recovered)->unmount());
    }
    settle();
}

INSTANTIATE_TEST_SUITE_P(Formats, InlineEdge,
                         testing::Combine(testing::Values("-b 4096 -I 256 -O inline_data",
                                                          "-b 1024 -I 512 -O inline_data"),
                                          testing::Values("data=ordered", "data=journal")));

}  // namespace
}  // namespace uext4::problems
