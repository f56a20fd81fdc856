// What a cache above was told ENOSPC for, and has told nobody: it is kept, and written when there is space.
#include "api/file_system.h"
#include "tests/doubles/memory_device.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <string>
#include <vector>

namespace uext4::beyond_space_test {
namespace {

const Credentials root = Credentials::root();
constexpr std::size_t KiB = 1024;

class BeyondSpace : public testing::TestWithParam<const char*> {
protected:
    void SetUp() override {
        const std::string path = image_path();
        ASSERT_EQ(std::system(fmt::format("mke2fs -q -F -t ext4 -m 0 {} {} 32M", GetParam(), path).c_str()), 0);
        auto memory = MemoryDevice::load(path);
        ::unlink(path.c_str());
        ASSERT_TRUE(memory);
        memory_ = std::move(*memory);
        mount({});
    }
    void TearDown() override {
        if (fs_) fs_->unmount().value();
    }
    static std::string image_path() { return fmt::format("/dev/shm/uext4-beyond-{}", ::getpid()); }

    void mount(VolumeOptions options) {
        auto fs =
            FileSystem::mount_device(memory_, options, [this](const std::string& line) { lines_ += line + "\n"; });
        ASSERT_TRUE(fs) << fs.error().what;
        fs_ = std::move(*fs);
    }
    std::unique_ptr<OpenFile> open(const char* path, int flags = O_CREAT | O_RDWR) {
        auto file = fs_->open_path(path, flags, 0644, root);
        EXPECT_TRUE(file) << file.error().what;
        (*file)->set_kernel_cached(true);
        return std::move(*file);
    }
    // Leaves about so many bytes to others.
    void fill(std::uint64_t left) {
        auto file = open("/fill");
        std::uint64_t at = 0;
        for (std::size_t piece : {1024 * KiB, 64 * KiB, 4 * KiB, 1 * KiB}) {
            const auto data = pattern(piece, 5);
            const auto free = [&] { return fs_->volume().counts().free_blocks * fs_->volume().geometry().block_size; };
            while (free() >= left + piece) {
                const auto count = file->write(at, data);
                if (!count) break;
                at += *count;
                if (*count < piece) break;
            }
        }
        ASSERT_EQ(sync(*file), 0);
    }
    void remove(const char* name) {
        const auto top = fs_->root();
        ASSERT_TRUE(top);
        ASSERT_TRUE(fs_->unlink(**top, name, root, false));
    }
    void empty() { remove("fill"); }

    static std::vector<std::byte> pattern(std::size_t size, int seed = 1) {
        std::vector<std::byte> out(size);
        for (std::size_t i = 0; i < size; ++i)
            out[i] = static_cast<std::byte>((i * 131 + i / 4096 * 7 + static_cast<std::size_t>(seed)) | 1);
        return out;
    }
    static std::vector<std::byte> read(OpenFile& file, std::uint64_t offset, std::size_t size) {
        std::vector<std::byte> out(size);
        const auto count = file.read(offset, out);
        EXPECT_TRUE(count) << count.error().what;
        out.resize(count.value_or(0));
        return out;
    }
    // As the mount does: what is refused is kept.
    static void write(OpenFile& file, std::uint64_t offset, ConstBytes in) {
        auto count = file.write(offset, in);
        std::size_t done = count.value_or(0);
        if (done == in.size()) return;
        count = file.write_beyond_reserved_space(offset + done, in.subspan(done));
        ASSERT_TRUE(count) << count.error().what;
        ASSERT_EQ(done + *count, in.size());
    }
    static int sync(OpenFile& file) {
        const auto done = file.sync(false);
        return done ? 0 : done.error().code;
    }
    // The file of the unmounted image, with which e2fsck is content.
    std::vector<std::byte> on_image(const char* path) {
        const std::string image = image_path();
        EXPECT_TRUE(memory_->save(image));
        EXPECT_EQ(std::system(fmt::format("e2fsck -fn {} >/dev/null 2>&1", image).c_str()), 0);
        ::unlink(image.c_str());
        mount({});
        auto file = open(path, O_RDONLY);
        std::vector<std::byte> out = read(*file, 0, 8 << 20);
        file.reset();
        EXPECT_TRUE(fs_->unmount());
        fs_.reset();
        return out;
    }

    std::shared_ptr<MemoryDevice> memory_;
    std::unique_ptr<FileSystem> fs_;
    std::string lines_;
};

TEST_P(BeyondSpace, IsWrittenWhenThereIsSome) {
    fill(200 * KiB);
    auto file = open("/file");
    const auto contents = pattern(1000 * KiB);
    for (std::size_t at = 0; at < contents.size(); at += 100 * KiB)
        ASSERT_NO_FATAL_FAILURE(write(*file, at, ConstBytes(contents).subspan(at, 100 * KiB)));
    for (int turn = 0; turn < 2; ++turn) {
        EXPECT_EQ(sync(*file), ENOSPC) << "it says that all is durable";
        EXPECT_EQ(read(*file, 0, contents.size() + 1), contents);
    }
    // Data, wherever one looks.
    EXPECT_EQ(file->seek(0, SEEK_DATA).value_or(1), 0U);
    EXPECT_EQ(file->seek(900 * KiB, SEEK_DATA).value_or(1), 900 * KiB);
    EXPECT_EQ(file->seek(0, SEEK_HOLE).value_or(1), contents.size());
    // Closed, and opened by somebody else.
    file = open("/file", O_RDWR);
    EXPECT_EQ(sync(*file), ENOSPC);
    EXPECT_EQ(read(*file, 0, contents.size()), contents);
    empty();
    EXPECT_EQ(sync(*file), 0);
    EXPECT_EQ(read(*file, 0, contents.size()), contents);
    file.reset();
    EXPECT_TRUE(fs_->unmount());
    EXPECT_EQ(on_image("/file"), contents);
}

TEST_P(BeyondSpace, IsLostAtTheUnmountAlone) {
    auto file = open("/file");
    auto contents = pattern(400 * KiB);
    ASSERT_TRUE(file->truncate(400 * KiB));
    ASSERT_EQ(sync(*file), 0);
    fill(64 * KiB);
    // Whatever has space stays, before, behind and between; the rest of the file is as it was.
    for (std::size_t at = 0; at < contents.size(); at += 8 * KiB)
        ASSERT_NO_FATAL_FAILURE(write(*file, at, ConstBytes(contents).subspan(at, 4 * KiB)));
    EXPECT_EQ(sync(*file), ENOSPC);
    file.reset();
    const auto done = fs_->unmount();
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, ENOSPC) << done.error().what;
    EXPECT_NE(lines_.find("have found no space and are lost"), std::string::npos) << lines_;
    const auto there = on_image("/file");
    ASSERT_EQ(there.size(), contents.size());
    std::size_t kept = 0;
    for (std::size_t at = 0; at < there.size(); at += KiB) {
        const auto piece = ConstBytes(there).subspan(at, KiB), was = ConstBytes(contents).subspan(at, KiB);
        const bool written = at % (8 * KiB) < 4 * KiB && std::ranges::equal(piece, was);
        kept += written;
        EXPECT_TRUE(written || std::ranges::all_of(piece, [](std::byte b) { return b == std::byte{0}; })) << at;
    }
    EXPECT_GE(kept, 1U);
    EXPECT_LT(kept, 200U);
}

// The size on disk stays before what has no space. Once that is punched nothing of the file is left to write back, and
// the next commit has the whole size.
TEST_P(BeyondSpace, APunchLetsTheSizeGo) {
    auto file = open("/f");
    write(*file, 0, pattern(4 * KiB));
    ASSERT_EQ(sync(*file), 0);
    fill(0);
    write(*file, 64 * KiB, pattern(16 * KiB, 2));
    EXPECT_EQ(sync(*file), ENOSPC);
    const auto punched = file->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 64 * KiB, 16 * KiB);
    ASSERT_TRUE(punched) << punched.error().what;
    ASSERT_TRUE(fs_->volume().fs().journal.commit_all());
    auto cut = FileSystem::mount_device(std::shared_ptr<BlockDevice>(memory_->clone()), {});
    ASSERT_TRUE(cut) << cut.error().what;
    auto left = (*cut)->open_path("/f", O_RDONLY, 0, root);
    ASSERT_TRUE(left) << left.error().what;
    auto expected = pattern(4 * KiB);
    expected.resize(80 * KiB);
    EXPECT_TRUE(read(**left, 0, 1024 * KiB) == expected) << (*left)->inode().size_hint() << " bytes";
    left->reset();
    EXPECT_TRUE((*cut)->unmount());
}

TEST_P(BeyondSpace, ALostEndIsNotZeros) {
    fill(0);
    auto file = open("/file");
    ASSERT_NO_FATAL_FAILURE(write(*file, 0, pattern(300 * KiB)));
    file.reset();
    EXPECT_FALSE(fs_->unmount());
    const auto there = on_image("/file");
    const auto contents = pattern(300 * KiB);
    EXPECT_LT(there.size(), contents.size());
    EXPECT_TRUE(std::equal(there.begin(), there.end(), contents.begin()));
}

// What the file has blocks for is durable, though other parts of it are not.
TEST_P(BeyondSpace, KeepsNothingElseBack) {
    auto file = open("/file");
    auto contents = pattern(200 * KiB);
    ASSERT_TRUE(file->truncate(200 * KiB));
    ASSERT_TRUE(file->write(100 * KiB, ConstBytes(contents).subspan(100 * KiB)));
    ASSERT_EQ(sync(*file), 0);
    fill(0);
    ASSERT_NO_FATAL_FAILURE(write(*file, 0, ConstBytes(contents).first(100 * KiB)));
    const auto second = pattern(100 * KiB, 77);
    ASSERT_TRUE(file->write(100 * KiB, second));
    EXPECT_EQ(sync(*file), ENOSPC);
    // As after a power cut.
    auto cut = std::shared_ptr<MemoryDevice>(memory_->clone());
    auto after = FileSystem::mount_device(cut, {});
    ASSERT_TRUE(after) << after.error().what;
    auto seen = (*after)->open_path("/file", O_RDONLY, 0, root);
    ASSERT_TRUE(seen);
    EXPECT_EQ(read(**seen, 100 * KiB, 100 * KiB), second);
    seen->reset();
    EXPECT_TRUE((*after)->unmount());
    file.reset();
    empty();
    EXPECT_TRUE(fs_->unmount());
    std::ranges::copy(second, contents.begin() + 100 * KiB);
    EXPECT_EQ(on_image("/file"), contents);
}

TEST_P(BeyondSpace, GoesWithWhatTheFileLoses) {
    auto file = open("/file");
    fill(0);
    ASSERT_NO_FATAL_FAILURE(write(*file, 0, pattern(600 * KiB)));
    // The tail, the middle, and what is written anew over it.
    ASSERT_TRUE(file->truncate(400 * KiB));
    ASSERT_TRUE(file->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 64 * KiB, 64 * KiB));
    const auto second = pattern(64 * KiB, 9);
    ASSERT_NO_FATAL_FAILURE(write(*file, 192 * KiB, second));
    ASSERT_TRUE(file->truncate(1000 * KiB));
    auto wanted = pattern(600 * KiB);
    wanted.resize(400 * KiB);
    wanted.resize(1000 * KiB);
    std::fill_n(wanted.begin() + 64 * KiB, 64 * KiB, std::byte{0});
    std::ranges::copy(second, wanted.begin() + 192 * KiB);
    EXPECT_EQ(read(*file, 0, 1001 * KiB), wanted);
    EXPECT_EQ(sync(*file), ENOSPC);
    empty();
    EXPECT_EQ(sync(*file), 0);
    EXPECT_EQ(read(*file, 0, 1001 * KiB), wanted);
    // A removed file leaves nothing behind.
    auto other = open("/other");
    fill(0);
    ASSERT_NO_FATAL_FAILURE(write(*other, 0, pattern(100 * KiB)));
    ASSERT_NO_FATAL_FAILURE(remove("other"));
    other.reset();
    file.reset();
    EXPECT_TRUE(fs_->unmount());
    EXPECT_EQ(on_image("/file"), wanted);
}

// A punch that takes a part of a block, of which there is nothing but what the cache has.
TEST_P(BeyondSpace, GoesInPartsOfBlocks) {
    auto file = open("/file");
    fill(0);
    auto wanted = pattern(600 * KiB);
    ASSERT_NO_FATAL_FAILURE(write(*file, 0, wanted));
    EXPECT_EQ(sync(*file), ENOSPC);
    struct Part {
        std::size_t at, size;
    };
    // Within a block, at the ends of several, and at the end of the file.
    for (const Part part : {Part{400 * KiB + 100, 300}, Part{448 * KiB + 1000, 20 * KiB}, Part{600 * KiB - 200, 200}}) {
        ASSERT_TRUE(file->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, part.at, part.size));
        std::fill_n(wanted.begin() + static_cast<std::ptrdiff_t>(part.at), part.size, std::byte{0});
        EXPECT_EQ(read(*file, 0, 601 * KiB), wanted) << part.size << " bytes at " << part.at;
    }
    EXPECT_EQ(sync(*file), ENOSPC);
    empty();
    EXPECT_EQ(sync(*file), 0);
    file.reset();
    EXPECT_TRUE(fs_->unmount());
    EXPECT_EQ(on_image("/file"), wanted);
}

// Who may not have the blocks reserved for root does not get them later either.
TEST_P(BeyondSpace, LeavesTheReserveAlone) {
    ASSERT_TRUE(fs_->unmount());
    const std::string image = image_path();
    ASSERT_TRUE(memory_->save(image));
    ASSERT_EQ(std::system(fmt::format("tune2fs -m 10 {} >/dev/null", image).c_str()), 0);
    auto memory = MemoryDevice::load(image);
    ::unlink(image.c_str());
    ASSERT_TRUE(memory);
    memory_ = std::move(*memory);
    mount({});
    const SpaceCounts before = fs_->volume().counts();
    const std::uint64_t reserve = before.free_blocks - before.available_blocks;
    ASSERT_GT(reserve, 300U);
    fill(reserve * fs_->volume().geometry().block_size);
    Credentials user;
    user.uid = user.gid = 1000;
    ASSERT_TRUE(open("/file"));
    {
        auto change = open("/file");
        AttributeChange owner;
        owner.uid = owner.gid = 1000;
        ASSERT_TRUE(fs_->set_attributes(change->inode(), owner, root, false));
    }
    auto opened = fs_->open_path("/file", O_RDWR, 0644, user);
    ASSERT_TRUE(opened) << opened.error().what;
    auto file = std::move(*opened);
    file->set_kernel_cached(true);
    const auto contents = pattern(200 * KiB);
    const auto taken = file->write(0, contents);
    const std::size_t done = taken.value_or(0);
    EXPECT_LT(done, 64 * KiB);
    const auto kept = file->write_beyond_reserved_space(done, ConstBytes(contents).subspan(done));
    ASSERT_TRUE(kept) << kept.error().what;
    const std::size_t all = done + *kept;
    EXPECT_EQ(sync(*file), ENOSPC);
    EXPECT_LE(fs_->volume().counts().available_blocks, 64U);
    EXPECT_GE(fs_->volume().counts().free_blocks + 64, reserve) << "blocks of the reserve are gone";
    EXPECT_EQ(read(*file, 0, all),
              std::vector<std::byte>(contents.begin(), contents.begin() + static_cast<std::ptrdiff_t>(all)));
    empty();
    EXPECT_EQ(sync(*file), 0);
    file.reset();
    EXPECT_TRUE(fs_->unmount());
    fs_.reset();
}

TEST_P(BeyondSpace, HasBounds) {
    ASSERT_TRUE(fs_->unmount());
    VolumeOptions options;
    options.cache_bytes = 8 << 20;
    mount(options);
    fill(0);
    auto file = open("/file");
    const auto contents = pattern(4 << 20);
    const auto kept = file->write_beyond_reserved_space(0, contents);
    ASSERT_TRUE(kept) << kept.error().what;
    EXPECT_GE(*kept, 128 * KiB);
    EXPECT_LE(*kept, 512 * KiB);
    const auto more = file->write_beyond_reserved_space(*kept, ConstBytes(contents).subspan(*kept));
    ASSERT_FALSE(more);
    EXPECT_EQ(more.error().code, ENOSPC);
    // Where some have taken what they may, others get a little.
    std::vector<std::unique_ptr<OpenFile>> greedy;
    for (int i = 0; i < 5; ++i) {
        greedy.push_back(open(fmt::format("/greedy{}", i).c_str()));
        (void)greedy.back()->write_beyond_reserved_space(0, contents);
    }
    auto modest = open("/modest");
    EXPECT_EQ(modest->write_beyond_reserved_space(0, ConstBytes(contents).first(64 * KiB)).value_or(0), 64 * KiB);
    // Others go on, with memory and with what needs no space.
    EXPECT_EQ(read(*file, 0, *kept),
              std::vector<std::byte>(contents.begin(), contents.begin() + static_cast<std::ptrdiff_t>(*kept)));
    auto fill_file = open("/fill", O_RDWR);
    for (std::size_t at = 0; at < (16U << 20); at += 1 << 20) ASSERT_TRUE(fill_file->write(at, pattern(1 << 20)));
    EXPECT_EQ(sync(*fill_file), 0);
    fill_file.reset();
    empty();
    EXPECT_EQ(sync(*file), 0);
    EXPECT_EQ(sync(*modest), 0);
    EXPECT_EQ(read(*modest, 0, 64 * KiB), std::vector<std::byte>(contents.begin(), contents.begin() + 64 * KiB));
    file.reset(), modest.reset(), greedy.clear();
    EXPECT_TRUE(fs_->unmount());
    fs_.reset();
}

TEST_P(BeyondSpace, WaitsWhileFrozen) {
    fill(0);
    auto file = open("/file");
    const auto contents = pattern(100 * KiB);
    ASSERT_NO_FATAL_FAILURE(write(*file, 0, contents));
    ASSERT_TRUE(fs_->freeze());
    EXPECT_EQ(sync(*file), ENOSPC);
    EXPECT_FALSE(fs_->sync());
    const std::string image = image_path();
    EXPECT_TRUE(memory_->save(image));
    EXPECT_EQ(std::system(fmt::format("e2fsck -fn {} >/dev/null 2>&1", image).c_str()), 0);
    ::unlink(image.c_str());
    ASSERT_TRUE(fs_->thaw());
    EXPECT_EQ(sync(*file), ENOSPC);
    empty();
    EXPECT_EQ(sync(*file), 0);
    file.reset();
    EXPECT_TRUE(fs_->unmount());
    EXPECT_EQ(on_image("/file"), contents);
}

INSTANTIATE_TEST_SUITE_P(Formats, BeyondSpace,
                         testing::Values("-b 4096", "-b 1024", "-O ^extents,^64bit", "-O bigalloc -C 16384",
                                         "-O inline_data", "-O ^has_journal"));

}  // namespace
}  // namespace uext4::beyond_space_test
