// A block of metadata that has left the cache cannot be read once, in the middle of a change: the change is told to
// have failed, or is whole. What a sync that succeeds behind it has promised is there after a cut and after an unmount,
// what is seen is what stays, and nothing is kept for nobody.
#include "tests/faults/faulty_mount.h"

#include <linux/falloc.h>

#include <algorithm>
#include <functional>
#include <string_view>

namespace uext4::faults {
namespace {

constexpr std::size_t page = 4096, longest = 1 << 19;
constexpr int most_reads = 25;  // of one change; more are not looked at

struct Format {
    const char* mke2fs;
    const char* options = "";
};

using Change = std::function<Result<void>(OpenFile& file, OpenFile& direct)>;
struct Named {
    const char* name;
    Change change;
};

Result<void> put(OpenFile& file, std::uint64_t at, std::size_t length, char letter) {
    alignas(page) static std::byte bytes[64 * page];
    std::fill_n(bytes, length, static_cast<std::byte>(letter));
    (void)TRY(file.write(at, ConstBytes(bytes, length)));
    return {};
}

Named write(const char* name, bool direct, std::uint64_t at, std::size_t length) {
    return {name, [=](OpenFile& file, OpenFile& past) { return put(direct ? past : file, at, length, 'D'); }};
}
Named allocate(const char* name, int mode, std::uint64_t at, std::uint64_t length) {
    return {name, [=](OpenFile& file, OpenFile&) { return file.fallocate(mode, at, length); }};
}
Named cut(const char* name, std::uint64_t size) {
    return {name, [=](OpenFile& file, OpenFile&) { return file.truncate(size); }};
}

constexpr int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

std::string pages_of(const std::string& bytes) {
    std::string out;
    for (std::size_t at = 0; at < bytes.size(); at += page) out += bytes[at] == 0 ? '0' : bytes[at];
    return fmt::format("{} ({} bytes)", out, bytes.size());
}

// One change of /f in a file system whose cache of metadata is empty, with the `skip`th read from then on failing.
class Attempt {
public:
    Attempt(const Format& format, const std::function<void(FaultyMount&, OpenFile&)>& prepare)
        : mount_(fresh_image(format.mke2fs)) {
        EXPECT_TRUE(mount_.mount(format.options));
        file_ = mount_.open("/f");
        direct_ = mount_.open("/f", O_RDWR | O_DIRECT);
        prepare(mount_, *file_);
        EXPECT_TRUE(mount_.fs->sync());
    }

    // False: there was no such read.
    bool run(const Change& change, int skip, bool dirty, bool data_only) {
        FsContext& fs = mount_.fs->volume().fs();
        if (dirty) {
            EXPECT_TRUE(put(*file_, 10 * page, page, 'y'));
            EXPECT_TRUE(put(*file_, 6 * page + 10, page, 'y'));
        }
        EXPECT_TRUE(fs.journal.checkpoint_all());
        (void)read_all(*mount_.fs, "/f", longest);
        fs.buffers.invalidate_all_clean();
        DeviceFault fault;
        fault.kinds = {DeviceRequest::Kind::Read};
        fault.skip = static_cast<unsigned>(skip);
        fault.times = 1;
        const auto number = mount_.faulty->add(fault);
        const Result<void> changed = change(*file_, *direct_);
        first_sync_ = code_of(file_->sync(data_only));
        const bool hit = mount_.faulty->hits(number) != 0;
        mount_.faulty->remove(number);
        what_ = fmt::format("the change: {}; its sync: {}", changed ? "done" : changed.error().what, first_sync_);
        return hit;
    }

    void judge(bool data_only, bool has_extents) {
        FsContext& fs = mount_.fs->volume().fs();
        // An error is told once, and then all is there.
        (void)file_->sync(data_only);
        ASSERT_TRUE(file_->sync(data_only)) << what_;
        ASSERT_FALSE(fs.journal.is_aborted()) << what_;
        const std::string seen = read_all(*mount_.fs, "/f", longest), left = read_all(mount_.durable(), "/f", longest);
        EXPECT_TRUE(seen == left) << what_ << "; seen " << pages_of(seen) << ", after a cut " << pages_of(left);
        EXPECT_TRUE(mount_.fs->sync());
        EXPECT_EQ(fs.allocator.allocated_clusters(), 0u) << what_;
        EXPECT_EQ(fs.allocator.reserved_clusters(), 0u) << what_;
        std::string wanted = seen;
        wanted.resize(seen.size() + 9 * page);
        ASSERT_TRUE(file_->truncate(wanted.size()));
        const std::string grown = read_all(*mount_.fs, "/f", longest);
        EXPECT_TRUE(grown == wanted) << what_ << "; seen " << pages_of(seen) << ", then longer " << pages_of(grown);
        if (has_extents && wanted.size() > 4 * page) {
            ASSERT_TRUE(file_->fallocate(FALLOC_FL_COLLAPSE_RANGE, 0, 4 * page));
            wanted.erase(0, 4 * page);
            const std::string moved = read_all(*mount_.fs, "/f", longest);
            EXPECT_TRUE(moved == wanted) << what_ << "; seen " << pages_of(seen) << ", then moved " << pages_of(moved);
        }
        file_.reset(), direct_.reset();
        EXPECT_TRUE(mount_.fs->unmount()) << what_;
        mount_.fs.reset();
        const std::string again = read_all(mount_.memory, "/f", longest);
        EXPECT_TRUE(again == wanted) << what_ << "; seen " << pages_of(seen) << ", after all " << pages_of(again);
    }
    void judge_image(const std::string& what) { expect_clean(*mount_.memory, what); }

private:
    FaultyMount mount_;
    std::unique_ptr<OpenFile> file_, direct_;
    int first_sync_ = 0;
    std::string what_;
};

// Pieces of blocks, holes and unwritten ones, beside another file's.
void make_pieces(FaultyMount& m, OpenFile& file) {
    auto other = m.open("/other");
    for (std::uint64_t at = 0; at < 8 * page; at += page) {
        ASSERT_TRUE(put(file, at, page, 'a'));
        ASSERT_TRUE(file.sync(false));
        ASSERT_TRUE(put(*other, at, page, 'w'));
        ASSERT_TRUE(other->sync(false));
    }
    (void)file.fallocate(FALLOC_FL_KEEP_SIZE, 12 * page, 8 * page);  // not without extents
    ASSERT_TRUE(put(file, 20 * page, 20 * page, 'b'));
}
void make_short(FaultyMount&, OpenFile& file) { ASSERT_TRUE(put(file, 0, 700, 'a')); }
void make_inline(FaultyMount&, OpenFile& file) { ASSERT_TRUE(put(file, 0, 90, 'a')); }

void sweep(const std::vector<Format>& formats, const std::vector<Named>& changes,
           const std::function<void(FaultyMount&, OpenFile&)>& prepare, bool with_dirty) {
    unsigned attempts = 0, images = 0;
    for (const Format& format : formats) {
        const bool has_extents = std::string_view(format.mke2fs).find("^extents") == std::string_view::npos;
        for (const Named& named : changes)
            for (const bool data_only : {false, true})
                for (int n = 0; n < (with_dirty ? 2 : 1) * most_reads; ++n) {
                    const bool dirty = n >= most_reads;
                    const int skip = n % most_reads;
                    SCOPED_TRACE(fmt::format("{} {}, {}, {}, read {}", format.mke2fs, format.options, named.name,
                                             data_only ? "fdatasync" : "fsync", skip));
                    Attempt attempt(format, prepare);
                    if (!attempt.run(named.change, skip, dirty, data_only)) {
                        if (dirty) break;
                        n = most_reads - 1;  // the next is the first beside dirty pages
                        continue;
                    }
                    ++attempts;
                    attempt.judge(data_only, has_extents);
                    if (testing::Test::HasFatalFailure()) return;
                    if (++images % 16 == 0) attempt.judge_image(named.name);
                }
    }
    EXPECT_GT(attempts, 2 * formats.size() * changes.size()) << "nearly nothing was read";
}

const std::vector<Format> every_format = {{"-b 4096"},
                                          {"-b 1024"},
                                          {"-b 1024", "data=journal"},
                                          {"-b 1024 -O bigalloc -C 16384"},
                                          {"-b 1024 -O ^extents,^64bit"},
                                          {"-b 1024 -O ^has_journal"},
                                          {"-b 1024 -O bigalloc -C 16384", "data=journal"}};

TEST(UnreadMetadata, Writes) {
    std::vector<Named> changes;
    for (const bool direct : {false, true})
        for (const Named& named :
             {write("at the end", direct, 40 * page, 4 * page), write("into a hole", direct, 8 * page, 3 * page),
              write("into unwritten blocks", direct, 13 * page, 2 * page), write("over pieces", direct, page, 2 * page),
              write("over everything", direct, 5 * page, 16 * page),
              write("behind the end", direct, 60 * page, 4 * page)})
            changes.push_back(named);
    sweep(every_format, changes, make_pieces, true);
}

TEST(UnreadMetadata, Ranges) {
    sweep(every_format,
          {allocate("punch", punch, 2 * page + 100, 20 * page), cut("cut", 24 * page + 700),
           cut("cut to a part of a page", 700), cut("longer", 100 * page + 5)},
          make_pieces, true);
    std::vector<Format> with_extents;
    for (const Format& format : every_format)
        if (std::string_view(format.mke2fs).find("^extents") == std::string_view::npos) with_extents.push_back(format);
    sweep(
        with_extents,
        {allocate("zero", FALLOC_FL_ZERO_RANGE, 2 * page + 100, 20 * page),
         allocate("zero the end", FALLOC_FL_ZERO_RANGE, 30 * page + 100, 20 * page),
         allocate("collapse", FALLOC_FL_COLLAPSE_RANGE, 4 * page, 12 * page),
         allocate("insert", FALLOC_FL_INSERT_RANGE, 4 * page, 12 * page), allocate("allocate", 0, 6 * page, 50 * page)},
        make_pieces, true);
}

TEST(UnreadMetadata, WithinTheLastBlock) {
    sweep(every_format,
          {write("at the end", false, 700, 50), cut("a little longer", 900), cut("longer", 9000),
           write("behind the end", true, page, page)},
          make_short, false);
}

TEST(UnreadMetadata, InlineData) {
    sweep({{"-b 1024 -I 256 -O inline_data"},
           {"-b 4096 -I 256 -O inline_data"},
           {"-b 1024 -I 256 -O inline_data", "data=journal"},
           {"-b 1024 -I 256 -O inline_data,bigalloc -C 16384"},
           {"-b 1024 -I 256 -O ^extents,^64bit,inline_data"},
           {"-b 1024 -I 256 -O inline_data,^has_journal"}},
          {write("over", false, 10, 20), write("at the end", false, 90, 30), write("out of it", false, 90, 3000),
           write("far behind", true, 2 * page, page), write("past it", true, 0, 2 * page),
           allocate("punch a part", punch, 20, 30), allocate("punch all", punch, 0, 2 * page), cut("cut", 70),
           cut("cut to nothing", 0), cut("a little longer", 110), cut("longer", 10000)},
          make_inline, false);
}

// A truncation that could not free what it has cut off, of a file that leaves the table of inodes before it grows
// again.
TEST(UnreadMetadata, WhatACutCouldNotFreeIsRemembered) {
    unsigned unfinished = 0;
    // More groups than are held from before the first change on.
    for (unsigned skip = 0; skip < 200; skip += 25) {
        FaultyMount m(fresh_image("-b 1024 -g 256 -J size=1"));
        ASSERT_TRUE(m.mount());
        {
            auto file = m.open("/f");
            for (std::uint64_t at = 0; at < 14 << 20; at += 64 * page) EXPECT_TRUE(put(*file, at, 64 * page, 'a'));
            EXPECT_TRUE(m.fs->sync());
            EXPECT_TRUE(m.fs->volume().fs().journal.checkpoint_all());
            m.fs->volume().fs().buffers.invalidate_all_clean();
            DeviceFault fault;
            fault.kinds = {DeviceRequest::Kind::Read};
            fault.skip = skip;
            fault.times = DeviceFault::for_good;
            const auto failing = m.faulty->add(fault);
            (void)file->truncate(700);
            m.faulty->remove(failing);
            const MutexLock guard(file->inode().map_lock);
            if (!file->inode().truncate_incomplete.load()) continue;
            ++unfinished;
        }
        InodeTable& inodes = m.fs->volume().inodes();
        inodes.set_limit(0);
        ASSERT_TRUE(m.fs->sync());
        inodes.shrink_to_limit();
        auto file = m.open("/f");
        const std::string seen = read_all(*m.fs, "/f", longest);
        ASSERT_TRUE(file->truncate(seen.size() + 40 * page));
        std::string wanted = seen;
        wanted.resize(seen.size() + 40 * page);
        EXPECT_TRUE(read_all(*m.fs, "/f", longest) == wanted) << "read " << skip;
        file.reset();
        EXPECT_TRUE(m.fs->unmount());
        m.fs.reset();
        EXPECT_TRUE(read_all(m.memory, "/f", longest) == wanted) << "read " << skip;
        expect_clean(*m.memory, "after a cut that failed");
    }
    EXPECT_GT(unfinished, 0u) << "nothing has failed behind the first change";
}

// Where something fails behind the change all the same.
void store_again(bool changed_before) {
    FaultyMount m(fresh_image("-b 4096"));
    ASSERT_TRUE(m.mount());
    auto file = m.open("/f");
    ASSERT_TRUE(m.fs->sync());
    FsContext& fs = m.fs->volume().fs();
    ASSERT_TRUE(fs.journal.checkpoint_all());
    fs.buffers.invalidate_all_clean();
    Inode& inode = file->inode();
    const std::uint16_t mode = S_IFREG | 0711;
    const auto fault = m.faulty->fail_reads(EIO, 1);
    {
        Result<Handle> handle = fs.journal.start(Inode::store_credits());
        ASSERT_TRUE(handle);
        const MutexLock guard(inode.map_lock);
        inode.set_mode(mode);
        EXPECT_FALSE(inode.store(*handle));
        EXPECT_TRUE(inode.has_failed_store());
    }
    m.faulty->remove(fault);
    if (changed_before) EXPECT_TRUE(file->truncate(0));
    if (changed_before) EXPECT_TRUE(file->truncate(10));
    EXPECT_TRUE(file->sync(true));
    {
        const MutexLock guard(inode.map_lock);
        EXPECT_FALSE(inode.has_failed_store()) << "the next times alone would cost an fdatasync a commit";
    }
    auto cut = FileSystem::mount_device(m.durable(), {});
    ASSERT_TRUE(cut);
    EXPECT_EQ((*(*cut)->open_path("/f", O_RDONLY, 0, root))->inode().mode(), mode);
}

TEST(UnreadMetadata, WhatAStoreHasFailedForTheNextSyncStores) { store_again(false); }
TEST(UnreadMetadata, WhatAStoreHasFailedForTheNextChangeStores) { store_again(true); }

// What is told to have failed is not done later.
TEST(UnreadMetadata, AModeThatCannotBeStoredIsNotChanged) {
    for (unsigned skip = 0;; ++skip) {
        FaultyMount m(fresh_image("-b 4096"));
        ASSERT_TRUE(m.mount());
        auto file = m.open("/f");
        ASSERT_TRUE(m.fs->sync());
        ASSERT_TRUE(m.fs->volume().fs().journal.checkpoint_all());
        m.fs->volume().fs().buffers.invalidate_all_clean();
        const mode_t before = file->inode().mode();
        const auto fault = m.faulty->fail_reads(EIO, 1, skip);
        AttributeChange change;
        change.mode = 0751;
        const bool done = m.fs->set_attributes(file->inode(), change, root, true).has_value();
        const bool hit = m.faulty->hits(fault) != 0;
        m.faulty->remove(fault);
        ASSERT_TRUE(file->sync(false));
        const mode_t seen = file->inode().mode();
        EXPECT_EQ(seen, done ? (before & S_IFMT) | 0751 : before) << "read " << skip;
        auto cut = FileSystem::mount_device(m.durable(), {});
        ASSERT_TRUE(cut);
        EXPECT_EQ((*(*cut)->open_path("/f", O_RDONLY, 0, root))->inode().mode(), seen) << "read " << skip;
        if (!hit) {
            EXPECT_GT(skip, 0u);
            return;
        }
    }
}

// Of a map of several leaves all is read before anything has moved.
TEST(UnreadMetadata, AShiftIsWholeOrNothing) {
    constexpr std::size_t block = 1024, pieces = 300;
    for (const int mode : {FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE}) {
        for (unsigned skip = 0;; ++skip) {
            FaultyMount m(fresh_image("-b 1024"));
            ASSERT_TRUE(m.mount());
            auto file = m.open("/f");
            for (std::size_t n = 0; n < pieces; ++n)
                ASSERT_TRUE(put(*file, 2 * n * block, block, static_cast<char>('a' + n % 26)));
            ASSERT_TRUE(m.fs->sync());
            ASSERT_TRUE(m.fs->volume().fs().journal.checkpoint_all());
            const std::string before = read_all(*m.fs, "/f", 1u << 20);
            std::string after = before;
            if (mode == FALLOC_FL_COLLAPSE_RANGE) after.erase(4 * block, 2 * block);
            else after.insert(4 * block, 2 * block, '\0');
            m.fs->volume().fs().buffers.invalidate_all_clean();
            const auto fault = m.faulty->fail_reads(EIO, 1, skip);
            const bool done = file->fallocate(mode, 4 * block, 2 * block).has_value();
            const bool hit = m.faulty->hits(fault) != 0;
            m.faulty->remove(fault);
            const std::string seen = read_all(*m.fs, "/f", 1u << 20);
            EXPECT_TRUE(seen == (done ? after : before)) << "mode " << mode << ", read " << skip;
            ASSERT_TRUE(file->sync(false));
            EXPECT_TRUE(read_all(m.durable(), "/f", 1u << 20) == seen) << "mode " << mode << ", read " << skip;
            if (!hit) {
                EXPECT_GT(skip, 3u) << "leaves, and more";
                break;
            }
        }
    }
}

}  // namespace
}  // namespace uext4::faults
