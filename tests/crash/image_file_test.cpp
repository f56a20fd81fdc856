#include "tests/crash/image_file.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

namespace uext4::crash {
namespace {

std::string contents_of(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

std::string contents_of(MemoryDevice& image) {
    std::string out(image.size(), 'x');
    EXPECT_TRUE(image.read(0, std::as_writable_bytes(std::span(out))));
    return out;
}

void fill(MemoryDevice& image, std::uint64_t offset, std::size_t size, char with) {
    const std::string bytes(size, with);
    ASSERT_TRUE(image.write(offset, std::as_bytes(std::span(bytes))));
}

TEST(ImageFile, ShowsEachImageAsItIs) {
    const std::string path = fmt::format("/dev/shm/uext4-image-file-{}", ::getpid());
    {
        ImageFile file(path);
        const auto expect_shown = [&](MemoryDevice& image) {
            ASSERT_TRUE(file.show(image));
            EXPECT_TRUE(contents_of(file.path()) == contents_of(image));
        };
        MemoryDevice first(1 << 20);
        fill(first, 0, 700'000, 'a');
        expect_shown(first);
        const auto second = first.clone();
        fill(*second, 5000, 10'000, 'b');  // parts of pages too
        fill(*second, 900'000, 3, 'c');
        expect_shown(*second);
        ASSERT_TRUE(second->discard(8192, 65536));
        expect_shown(*second);
        expect_shown(first);        // as it was, back again
        fill(first, 5000, 1, 'd');  // in place, as nobody shares it but who remembers it
        expect_shown(first);
        MemoryDevice other(300'000), longer(1'500'001);
        fill(other, 100, 100, 'e');
        expect_shown(other);
        expect_shown(longer);
        fill(longer, 1'499'000, 1001, 'f');
        expect_shown(longer);
        expect_shown(*second);
    }
    EXPECT_NE(::access(path.c_str(), F_OK), 0);
}

}  // namespace
}  // namespace uext4::crash
