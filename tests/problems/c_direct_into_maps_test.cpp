// Problem C: O_DIRECT into and from a map of the same range that was never touched, over every kind of place; and two
// files into each other's maps.
#include "settled_image.h"

#include <cstring>
#include <thread>

namespace uext4::problems {
namespace {

enum class Kind { hole, delayed, unwritten, written, inside };
const char* name_of(Kind kind) {
    constexpr const char* names[] = {"hole", "delayed", "unwritten", "written", "inline"};
    return names[static_cast<int>(kind)];
}

class DirectIntoMaps : public SettledImage, public testing::WithParamInterface<std::tuple<const char*, const char*>> {
protected:
    static constexpr std::size_t size = 16 * page;
    void SetUp() override { make(std::get<0>(GetParam()), std::get<1>(GetParam())); }
    bool can_be_inline() const { return std::string_view(std::get<0>(GetParam())).find("inline") != std::string::npos; }

    // A file that is all of one kind; what it contains.
    std::string lay(Kind kind, const std::string& path, unsigned seed = 7) {
        auto file = open(path);
        const std::size_t n = kind == Kind::inside ? 60 : size;
        std::string bytes(n, 0);
        if (kind == Kind::hole) ok(file->truncate(n));
        else if (kind == Kind::unwritten) ok(file->fallocate(0, 0, n));
        else write(*file, bytes = pattern(n, seed));
        if (kind != Kind::delayed) ok(file->sync(false));
        return bytes;
    }
};

TEST_P(DirectIntoMaps, OverEveryKindOfPlace) {
    for (const Kind kind : {Kind::hole, Kind::delayed, Kind::unwritten, Kind::written, Kind::inside}) {
        if (kind == Kind::inside && !can_be_inline()) continue;
        for (const bool reading : {true, false}) {
            SCOPED_TRACE(fmt::format("{} {}", name_of(kind), reading ? "read" : "written"));
            const std::string path = fmt::format("/{}-{}", name_of(kind), reading);
            const std::string bytes = lay(kind, path);
            {
                auto file = open(path, O_RDWR | O_DIRECT);
                char* memory = map(*file, size);
                NEED_MAP(memory);
                const std::size_t n = reading || kind != Kind::inside ? size : page;
                auto* raw = reinterpret_cast<std::byte*>(memory);
                auto done = reading ? file->read(0, Bytes(raw, n)) : file->write(0, ConstBytes(raw, n));
                EXPECT_TRUE(done) << done.error().what;
                EXPECT_EQ(done.value_or(0), reading ? bytes.size() : n);
                EXPECT_EQ(std::string(memory, bytes.size()), bytes);
                unmap(memory, size);
            }
            EXPECT_EQ(read(*open(path, O_RDONLY), bytes.size()), bytes);
        }
    }
    settle();
}

TEST_P(DirectIntoMaps, TwoFilesIntoEachOther) {
    for (const Kind kind : {Kind::hole, Kind::delayed, Kind::unwritten, Kind::written}) {
        SCOPED_TRACE(name_of(kind));
        const std::string a = fmt::format("/a-{}", name_of(kind)), b = fmt::format("/b-{}", name_of(kind));
        const std::string of_a = lay(kind, a), of_b = lay(kind, b, 8);
        auto left = open(a, O_RDWR | O_DIRECT), right = open(b, O_RDWR | O_DIRECT);
        char* in_left = map(*left, size);
        NEED_MAP(in_left);
        char* in_right = map(*right, size);
        auto* to_left = reinterpret_cast<std::byte*>(in_left);
        auto* to_right = reinterpret_cast<std::byte*>(in_right);
        for (int turn = 0; turn < 5; ++turn) {
            std::thread one([&] { EXPECT_EQ(left->read(0, Bytes(to_right, size)).value_or(0), size); });
            std::thread two([&] { EXPECT_EQ(right->read(0, Bytes(to_left, size)).value_or(0), size); });
            std::thread three([&] { EXPECT_EQ(left->write(0, ConstBytes(to_right, size)).value_or(0), size); });
            std::thread four([&] { EXPECT_EQ(right->write(0, ConstBytes(to_left, size)).value_or(0), size); });
            one.join(), two.join(), three.join(), four.join();
        }
        // Each byte is what one of the files had in its place.
        for (const char* shown : {in_left, in_right}) {
            std::size_t foreign = 0;
            for (std::size_t i = 0; i < size; ++i) foreign += shown[i] != of_a[i] && shown[i] != of_b[i];
            EXPECT_EQ(foreign, 0u);
        }
        // By turns, with contents of their own, each shows what the other had.
        const std::string fresh(size, 'f'), newer(size, 'n');
        std::memcpy(in_left, fresh.data(), size);
        EXPECT_EQ(left->read(0, Bytes(to_right, size)).value_or(0), size);
        EXPECT_EQ(std::string(in_right, size), fresh);
        std::memcpy(in_right, newer.data(), size);
        EXPECT_EQ(left->write(0, ConstBytes(to_right, size)).value_or(0), size);
        EXPECT_EQ(std::string(in_left, size), newer);
        unmap(in_left, size);
        unmap(in_right, size);
        left.reset(), right.reset();
        for (const std::string& name : {a, b}) {
            std::string there(size, 0);
            EXPECT_EQ(open(name, O_RDONLY)->read(0, std::as_writable_bytes(std::span(there))).value_or(0), size);
            EXPECT_EQ(there, newer) << name;
        }
    }
    settle();
}

INSTANTIATE_TEST_SUITE_P(Formats, DirectIntoMaps,
                         testing::Combine(testing::Values("-b 4096", "-b 1024", "-b 4096 -I 256 -O inline_data"),
                                          testing::Values("data=ordered", "data=journal")));

}  // namespace
}  // namespace uext4::problems
