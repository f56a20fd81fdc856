#include "cli/host_ahead.h"

#include "cli/failure.h"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

namespace uext4::cli {
namespace {

namespace fs = std::filesystem;

class HostAheadTest : public testing::Test {
protected:
    void SetUp() override {
        std::string name = testing::TempDir() + "uext4-ahead-XXXXXX";
        ASSERT_NE(::mkdtemp(name.data()), nullptr);
        top_ = name;
    }
    void TearDown() override { fs::remove_all(top_); }

    void write(const std::string& path, const std::string& text) {
        fs::create_directories((top_ / path).parent_path());
        std::ofstream(top_ / path) << text;
    }
    // As a copy of everything, in lines.
    std::string copied(bool ahead, bool follow = false) {
        HostTree tree;
        const std::unique_ptr<CopySource> source = tree.find(top_, true);
        if (ahead) source->read_ahead({.follow = follow, .sorted = false, .attributes = true});
        std::string out;
        inside(*source, follow, out);
        return out;
    }
    static std::string contents(CopySource& source) {
        SourceReader reader(source.open(), static_cast<std::uint64_t>(source.status().st_size));
        std::string text(reader.size(), '.');  // a hole
        while (const auto piece = reader.next()) {
            text.resize(std::max(text.size(), piece->at + piece->bytes.size()));
            std::ranges::transform(piece->bytes, text.begin() + static_cast<std::ptrdiff_t>(piece->at),
                                   [](std::byte b) { return static_cast<char>(b); });
        }
        text.resize(reader.size());
        return text;
    }
    static void inside(CopySource& source, bool follow, std::string& out) {
        Names names;
        source.list(names);
        for (const auto& listed : names) {
            try {
                const CopyChild child = source.child(listed, follow);
                out += child->at();
                const mode_t mode = child->status().st_mode;
                if (S_ISREG(mode)) out += " " + contents(*child);
                if (S_ISLNK(mode)) out += " -> " + child->link_target();
                for (const std::string& name : child->xattr_names()) {
                    const std::vector<std::byte> value = child->xattr(name).value();
                    out += " " + name;
                    for (const std::byte b : value) out += static_cast<char>(b);
                }
                out += '\n';
                if (S_ISDIR(mode)) inside(*child, follow, out);
            } catch (const Failure& failure) {
                out += " failed: " + failure.what + "\n";
            }
        }
    }
    // A folder that was listed, to be walked.
    std::shared_ptr<HostFolder> listed(const std::string& path) {
        HostSource source(top_ / path, false);
        Names names;
        source.list(names);
        return source.folder();
    }

    fs::path top_;
};

std::size_t open_descriptors() {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator("/proc/self/fd"), {}));
}

TEST_F(HostAheadTest, GivesWhatACopyWithoutItGets) {
    for (int folder = 0; folder < 20; ++folder)
        for (int file = 0; file < 30; ++file)
            write(std::to_string(folder) + "/in/" + std::to_string(file),
                  std::string(static_cast<std::size_t>(file) * 100, 'x'));
    write("large", std::string(100'000, 'l'));
    write("empty", "");
    fs::create_directories(top_ / "nothing in it");
    fs::create_symlink("large", top_ / "link");
    fs::create_symlink("missing", top_ / "link to nothing");
    fs::create_symlink("/proc/self/mountinfo", top_ / "link to what has no size");
    ASSERT_EQ(::mkfifo((top_ / "pipe").c_str(), 0600), 0);
    write("with a hole", "begin");
    fs::resize_file(top_ / "with a hole", 20'000);
    EXPECT_EQ(copied(true), copied(false));
    EXPECT_EQ(copied(true, true), copied(false, true));
    EXPECT_NE(copied(true, true).find("link to nothing: No such file"), std::string::npos);
}

TEST_F(HostAheadTest, GivesAttributes) {
    write("file", "text");
    if (::setxattr((top_ / "file").c_str(), "user.name", "value", 5, 0) != 0) GTEST_SKIP() << "no attributes here";
    const std::string all = copied(true);
    EXPECT_NE(all.find("user.namevalue"), std::string::npos);
    EXPECT_EQ(all, copied(false));
}

TEST_F(HostAheadTest, DropsWhatTheCopyLeavesOut) {
    for (const char* const path : {"a/1", "a/b/2", "c/3", "c/4"}) write(path, path);
    HostTree tree;
    const std::unique_ptr<CopySource> source = tree.find(top_, true);
    source->read_ahead({.sorted = true});
    Names names;
    source->list(names);
    ASSERT_EQ(names.size(), 2u);
    {
        const CopyChild left = source->child(names[0], false);  // not listed
        EXPECT_EQ(left->at(), (top_ / "a").string());
    }
    std::string out;
    const CopyChild second = source->child(names[1], false);
    inside(*second, false, out);
    EXPECT_EQ(std::ranges::count(out, '\n'), 2);
    EXPECT_NE(out.find("c/4 c/4\n"), std::string::npos);
}

TEST_F(HostAheadTest, LeavesAnErrorToTheCopy) {
    write("first", "1");
    write("second", "2");
    const std::shared_ptr<HostFolder> folder = listed("");
    std::ranges::sort(folder->names);
    fs::remove(top_ / "second");
    const auto ahead = HostAhead::start(folder, {}, {});
    ASSERT_TRUE(ahead);
    EXPECT_TRUE(ahead->take(*folder, "first"));
    EXPECT_FALSE(ahead->take(*folder, "second"));
    EXPECT_FALSE(ahead->take(*folder, "behind the end"));
}

TEST_F(HostAheadTest, IsBounded) {
    for (int file = 0; file < 100; ++file) write("files/" + std::to_string(file), std::string(10'000, 'x'));
    for (int folder = 0; folder < 100; ++folder) fs::create_directories(top_ / "folders" / std::to_string(folder));
    const auto files = listed("files"), folders = listed("folders");
    const std::size_t before = open_descriptors();
    {
        const auto ahead = HostAhead::start(files, {}, {.entries = 8, .descriptors = 4, .bytes = 1 << 20});
        EXPECT_EQ(ahead->wait_until_full().entries, 8u);
        EXPECT_EQ(open_descriptors(), before);
    }
    {
        const auto ahead = HostAhead::start(files, {}, {.entries = 50, .descriptors = 4, .bytes = 25'000});
        EXPECT_EQ(ahead->wait_until_full().bytes, 30'000u);
        for (const auto& [name, number] : files->names) EXPECT_TRUE(ahead->take(*files, name)) << name;
        EXPECT_EQ(ahead->wait_until_full().entries, 0u);
    }
    {
        const auto ahead = HostAhead::start(folders, {}, {.entries = 50, .descriptors = 4, .bytes = 25'000});
        EXPECT_EQ(ahead->wait_until_full().descriptors, 4u);
        EXPECT_EQ(open_descriptors(), before + 4);
    }
    EXPECT_EQ(open_descriptors(), before);
}

// As after an interrupt: what waits is dropped, and the thread ends though it is in the middle.
TEST_F(HostAheadTest, EndsInTheMiddle) {
    for (int file = 0; file < 2000; ++file) write("files/" + std::to_string(file), "x");
    const auto files = listed("files");
    for (int taken = 0; taken < 40; ++taken) {
        const auto ahead = HostAhead::start(files, {}, {.entries = 8});
        for (int i = 0; i < taken; ++i) {
            std::unique_ptr<HostSource> source = ahead->take(*files, files->names[static_cast<std::size_t>(i)].first);
            ASSERT_TRUE(source);
            ahead->give_back(std::move(source));
        }
    }
}

TEST_F(HostAheadTest, DoesNotOpenTheImage) {
    write("image", "small");
    struct stat image{};
    ASSERT_EQ(::stat((top_ / "image").c_str(), &image), 0);
    const auto folder = listed("");
    const auto ahead = HostAhead::start(folder, {.image = image}, {});
    EXPECT_EQ(ahead->wait_until_full().bytes, 0u);
    const auto other = HostAhead::start(folder, {}, {});
    EXPECT_EQ(other->wait_until_full().bytes, 5u);
}

}  // namespace
}  // namespace uext4::cli
