// Problem C: O_DIRECT into and from a map of the same range that was never touched, over every kind of place; and two
// files into each other's maps.
#include "inode/range_iterator.h"
#include "settled_image.h"

#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

namespace uext4::problems {
namespace {

// The one that is mixed: pages of three kinds by turns, which with bigalloc share their clusters.
enum class Kind { hole, delayed, unwritten, written, mixed, inside };
const char* name_of(Kind kind) {
    constexpr const char* names[] = {"hole", "delayed", "unwritten", "written", "mixed", "inline"};
    return names[static_cast<int>(kind)];
}

class DirectIntoMaps : public SettledImage, public testing::WithParamInterface<std::tuple<const char*, const char*>> {
protected:
    static constexpr std::size_t size = 16 * page;
    void SetUp() override {
        make(std::get<0>(GetParam()), std::get<1>(GetParam()));
        ok(fs->unmount());
        mount(std::get<1>(GetParam()), false);  // nobody writes back what is to be delayed
    }
    bool has(Kind kind) const {
        const std::string_view format = std::get<0>(GetParam());
        if (kind == Kind::inside) return format.contains("inline_data");
        return kind != Kind::unwritten || !format.contains("^extents");
    }
    bool journaled() const { return std::string_view(std::get<1>(GetParam())) == "data=journal"; }
    // Its pages are written, unwritten (with indirect blocks a hole) and a hole by turns.
    void lay_mixed(OpenFile& file, std::string& bytes, unsigned seed) {
        const std::string contents = pattern(bytes.size(), seed);
        ok(file.truncate(bytes.size()));
        for (std::size_t at = 0; at < bytes.size(); at += page)
            if (const std::size_t turn = at / page % 3; turn == 0) {
                write(file, contents.substr(at, page), at);
                bytes.replace(at, page, contents, at, page);
            } else if (turn == 1 && has(Kind::unwritten)) {
                ok(file.fallocate(0, at, page));
            }
        ok(file.sync(false));
        for (const BlockState place : {BlockState::mapped, BlockState::unwritten, BlockState::hole})
            EXPECT_EQ(any_lives_in(file, place), place != BlockState::unwritten || has(Kind::unwritten))
                << block_state_name(place);
    }
    // A file that is all of one kind, and a map of it that was never touched. Null where there are no maps.
    char* lay(Kind kind, const std::string& path, std::string& bytes, unsigned seed = 7) {
        auto file = open(path);
        const std::size_t n = kind == Kind::inside ? 60 : size;
        bytes.assign(n, 0);
        if (kind == Kind::mixed) {
            lay_mixed(*file, bytes, seed);
            return map(*file, size);
        }
        char* memory = nullptr;
        // Before there is something to write: a file's first map writes it.
        if (kind == Kind::delayed) memory = map(*file, size);
        if (kind == Kind::hole) ok(file->truncate(n));
        else if (kind == Kind::unwritten) ok(file->fallocate(0, 0, n));
        else write(*file, bytes = pattern(n, seed));
        if (kind != Kind::delayed) ok(file->sync(false));
        if (!memory) memory = map(*file, size);
        // Of what is mixed there is no one place.
        constexpr BlockState places[] = {BlockState::hole,   BlockState::delayed, BlockState::unwritten,
                                         BlockState::mapped, BlockState::hole,    BlockState::inline_data};
        const BlockState place = places[static_cast<int>(kind)];
        EXPECT_TRUE(lives_in(*file, place == BlockState::delayed && journaled() ? BlockState::mapped : place))
            << block_state_name(place);
        return memory;
    }
    static bool lives_in(OpenFile& file, BlockState place) {
        return !any_run(file, [place](BlockState found) { return found != place; });
    }
    static bool any_lives_in(OpenFile& file, BlockState place) {
        return any_run(file, [place](BlockState found) { return found == place; });
    }
    template <class Is>
    static bool any_run(OpenFile& file, Is is) {
        for (RangeIterator range(*file.inode_ref(), 0, file.inode_ref()->size_hint());; range.next()) {
            const Result<bool> there = range.load();
            EXPECT_TRUE(there);
            if (!there.value_or(false)) return false;
            if (is(range.mapping().state)) return true;
        }
    }
};

TEST_P(DirectIntoMaps, OverEveryKindOfPlace) {
    for (const Kind kind : {Kind::hole, Kind::delayed, Kind::unwritten, Kind::written, Kind::mixed, Kind::inside}) {
        if (!has(kind)) continue;
        for (const bool reading : {true, false}) {
            SCOPED_TRACE(fmt::format("{} {}", name_of(kind), reading ? "read" : "written"));
            const std::string path = fmt::format("/{}-{}", name_of(kind), reading);
            std::string bytes;
            char* memory = lay(kind, path, bytes);
            NEED_MAP(memory);
            {
                auto file = open(path, O_RDWR | O_DIRECT);
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
    for (const Kind kind : {Kind::hole, Kind::delayed, Kind::unwritten, Kind::written, Kind::mixed}) {
        if (!has(kind)) continue;
        SCOPED_TRACE(name_of(kind));
        const std::string a = fmt::format("/a-{}", name_of(kind)), b = fmt::format("/b-{}", name_of(kind));
        std::string of_a, of_b;
        char* in_left = lay(kind, a, of_a);
        NEED_MAP(in_left);
        char* in_right = lay(kind, b, of_b, 8);
        auto left = open(a, O_RDWR | O_DIRECT), right = open(b, O_RDWR | O_DIRECT);
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

// A commit that waits for a change under way, and with it all changes that come later.
class HeldCommit {
public:
    explicit HeldCommit(Journal& journal)
        : change_([this, &journal] {
              const Result<Handle> handle = journal.start(1);
              EXPECT_TRUE(handle);
              std::unique_lock guard(lock_);
              begun_ = true;
              changed_.notify_all();
              changed_.wait(guard, [this] { return let_go_; });
          }) {
        std::unique_lock guard(lock_);
        changed_.wait(guard, [this] { return begun_; });
        commit_ = std::thread([&journal] { EXPECT_TRUE(journal.commit_all()); });
        std::this_thread::sleep_for(std::chrono::milliseconds(20));  // most often it waits by then
    }
    ~HeldCommit() {
        {
            const std::lock_guard guard(lock_);
            let_go_ = true;
        }
        changed_.notify_all();
        change_.join();
        commit_.join();
    }

private:
    std::mutex lock_;
    std::condition_variable changed_;
    bool begun_ = false, let_go_ = false;
    std::thread change_, commit_;
};

// Blocks whose data is on the device, and that nothing on disk names yet, or only as unwritten.
class DirectWhileNamed : public DirectIntoMaps {
protected:
    // One direct request into, or from, a map of the same range that was never touched. False where the writeback was
    // through before the commit kept it from naming anything.
    bool meet(const std::string& path, bool unwritten, bool reading) {
        const std::string bytes = pattern(size, 7);
        auto file = open(path), synced = open(path), direct = open(path, O_RDWR | O_DIRECT);
        if (unwritten) {
            ok(file->fallocate(0, 0, size));
            ok(file->sync(false));
        }
        // Before there is something to write: a file's first map writes it.
        char* memory = map(*direct, size);
        if (!memory) return true;
        write(*file, bytes);
        open(path + "-changed").reset();
        std::thread writeback, request;
        bool met = false;
        {
            const HeldCommit held(fs->volume().fs().journal);
            writeback = std::thread([&] { ok(synced->sync(false)); });
            while (!met && !lives_in(*file, BlockState::mapped))
                met = lives_in(*file, unwritten ? BlockState::converting : BlockState::allocated);
            request = std::thread([&] {
                auto* raw = reinterpret_cast<std::byte*>(memory);
                auto done = reading ? direct->read(0, Bytes(raw, size)) : direct->write(0, ConstBytes(raw, size));
                EXPECT_TRUE(done) << done.error().what;
                EXPECT_EQ(done.value_or(0), size);
            });
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
        }
        writeback.join();
        request.join();
        EXPECT_EQ(std::string(memory, size), bytes);
        unmap(memory, size);
        EXPECT_EQ(read(*file, size), bytes);
        return met;
    }
};

TEST_P(DirectWhileNamed, OverBlocksThatWaitForTheirNames) {
    for (const bool unwritten : {false, true}) {
        if (unwritten && !has(Kind::unwritten)) continue;
        for (const bool reading : {true, false}) {
            SCOPED_TRACE(fmt::format("{} {}", unwritten ? "written" : "granted", reading ? "read" : "written"));
            bool met = false;
            for (int attempt = 0; !met && attempt < 50; ++attempt) {
                met = meet(fmt::format("/{}{}{}", unwritten, reading, attempt), unwritten, reading);
                if (!reason_.empty()) GTEST_SKIP() << reason_;
            }
            EXPECT_TRUE(met);
        }
    }
    settle();
}

const auto all_formats = testing::Values("-b 4096", "-b 1024", "-b 4096 -I 256 -O inline_data",
                                         "-b 1024 -O ^extents,^64bit", "-b 4096 -O bigalloc -C 16384");
INSTANTIATE_TEST_SUITE_P(Formats, DirectWhileNamed, testing::Combine(all_formats, testing::Values("data=ordered")));
INSTANTIATE_TEST_SUITE_P(Formats, DirectIntoMaps,
                         testing::Combine(all_formats, testing::Values("data=ordered", "data=journal")));

}  // namespace
}  // namespace uext4::problems
