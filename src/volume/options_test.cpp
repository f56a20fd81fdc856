// Options that were given, and those that the superblock asks for.
#include "volume/options.h"

#include <gtest/gtest.h>

#include <cstring>

namespace uext4 {
namespace {

namespace d = format::default_option;

VolumeOptions options_of(const char* text) {
    Result<VolumeOptions> parsed = parse_all_options(text);
    EXPECT_TRUE(parsed) << parsed.error().what;
    return parsed ? *parsed : VolumeOptions{};
}

format::SuperBlock super_with(std::uint32_t bits, const char* text = "") {
    format::SuperBlock super{};
    super.feature_compat = format::compat::has_journal;
    super.default_mount_opts = bits;
    std::memcpy(super.mount_opts, text, std::min(std::strlen(text), sizeof super.mount_opts));
    return super;
}

TEST(Options, TheCacheGrowsUnlessItsSizeIsGiven) {
    EXPECT_TRUE(options_of("").cache_grows);
    EXPECT_TRUE(options_of("cache=auto").cache_grows);
    EXPECT_TRUE(options_of("cache=1M,cache=auto").cache_grows);
    EXPECT_EQ(options_of("cache=1M,cache=auto").cache_bytes, std::uint64_t{128} << 20);
    EXPECT_FALSE(options_of("cache=16M").cache_grows);
    EXPECT_FALSE(options_of("cache=auto,cache=16M").cache_grows);
    EXPECT_EQ(options_of("cache=16M").cache_bytes, std::uint64_t{16} << 20);
    for (const char* wrong : {"cache", "cache=", "cache=automatic", "cache=1023K"})
        EXPECT_FALSE(parse_all_options(wrong)) << wrong;
}

TEST(Options, OfTheKernelThatMeanNothingHereAreRefusedByName) {
    for (const char* option : {"nodelalloc", "warn_on_error", "nowarn_on_error", "prefetch_block_bitmaps",
                               "no_prefetch_block_bitmaps", "journal_checksum", "stripe=8"}) {
        const Result<VolumeOptions> parsed = parse_all_options(option);
        ASSERT_FALSE(parsed) << option;
        EXPECT_EQ(parsed.error().code, EINVAL);
        EXPECT_EQ(parsed.error().what.find("is not known"), std::string::npos) << parsed.error().what;
    }
}

TEST(SuperblockDefaults, AreTaken) {
    VolumeOptions o = options_of("ro");
    format::SuperBlock super =
        super_with(d::bsd_groups | d::data_journal | d::no_barrier | d::discard, "noatime,commit=30,,noauto_da_alloc");
    super.def_resuid = std::uint16_t{1000};
    super.def_resgid = std::uint16_t{77};
    EXPECT_TRUE(add_superblock_defaults(o, super).empty());
    EXPECT_TRUE(o.fs.grpid && o.fs.data_journal && o.discard && !o.barrier && !o.fs.auto_da_alloc && o.fs.read_only);
    EXPECT_EQ(o.fs.atime, AtimePolicy::never);
    EXPECT_EQ(o.commit_interval, std::chrono::seconds(30));
    EXPECT_EQ(o.fs.reserved_uid, 1000u);
    EXPECT_EQ(o.fs.reserved_gid, 77u);
}

TEST(SuperblockDefaults, GiveWayToWhatIsGiven) {
    VolumeOptions o = options_of("nogrpid,data=ordered,barrier=1,nodiscard,strictatime,commit=7,resuid=5");
    format::SuperBlock super =
        super_with(d::bsd_groups | d::data_journal | d::no_barrier | d::discard, "noatime,commit=30,resuid=9");
    super.def_resuid = std::uint16_t{1000};
    EXPECT_TRUE(add_superblock_defaults(o, super).empty());
    EXPECT_FALSE(o.fs.grpid || o.fs.data_journal || o.discard || !o.barrier);
    EXPECT_EQ(o.fs.atime, AtimePolicy::strict);
    EXPECT_EQ(o.commit_interval, std::chrono::seconds(7));
    EXPECT_EQ(o.fs.reserved_uid, 5u);
}

TEST(SuperblockDefaults, ThatCannotBeHonouredAreNamedAndTheOthersTaken) {
    VolumeOptions o = options_of("");
    const std::vector<std::string> unmet = add_superblock_defaults(
        o, super_with(d::uid16 | d::no_delalloc, "noatime,nonsense=1,offset=4096,dax,commit=x,grpid"));
    ASSERT_EQ(unmet.size(), 6u);
    for (const auto& [index, word] :
         {std::pair{0, "uid16"}, {1, "nodelalloc"}, {2, "nonsense"}, {3, "offset"}, {4, "dax"}, {5, "commit"}})
        EXPECT_NE(unmet[static_cast<std::size_t>(index)].find(word), std::string::npos)
            << unmet[static_cast<std::size_t>(index)];
    EXPECT_TRUE(o.fs.grpid);
    EXPECT_EQ(o.offset, 0u);
    EXPECT_EQ(o.fs.atime, AtimePolicy::never);
    EXPECT_TRUE(o.ignored.empty());
}

// What is given and asks for a journal is refused where there is none; what the superblock asks for is only told of.
TEST(Journal, IsNeededByWhatIsGiven) {
    format::SuperBlock without = super_with(d::data_journal, "commit=30,data=journal,noatime");
    without.feature_compat = 0;
    VolumeOptions none = options_of("");
    EXPECT_EQ(add_superblock_defaults(none, without).size(), 3u);
    EXPECT_TRUE(check_options(none, false));
    EXPECT_FALSE(none.fs.data_journal);
    EXPECT_EQ(none.fs.atime, AtimePolicy::never);
    for (const char* text : {"data=journal", "data=ordered", "data=writeback", "commit=7", "ro,data=ordered"}) {
        VolumeOptions o = options_of(text);
        EXPECT_TRUE(check_options(o, true)) << text;
        add_superblock_defaults(o, without);
        const Result<void> given = check_options(o, false);
        ASSERT_FALSE(given) << text;
        EXPECT_NE(given.error().what.find(text[0] == 'r' ? text + 3 : text), std::string::npos) << given.error().what;
    }
    for (const char* text : {"commit=5", "commit=0", "commit=7,commit=5", "delalloc", "nobarrier", "ro,noload"}) {
        VolumeOptions o = options_of(text);
        add_superblock_defaults(o, without);
        EXPECT_TRUE(check_options(o, false)) << text;
    }
    for (const char* text : {"ro,noload,data=ordered", "noload,commit=7,ro"})
        EXPECT_FALSE(parse_all_options(text)) << text;
}

TEST(Writeback, IsTakenAsOrderedAndSaysSo) {
    const auto said = [](const char* given, std::uint32_t bits, const char* mount_opts = "") {
        VolumeOptions o = options_of(given);
        const std::vector<std::string> sentences = add_superblock_defaults(o, super_with(bits, mount_opts));
        const bool one = sentences.size() == 1 && sentences[0].find("data=writeback") != std::string::npos;
        EXPECT_TRUE(one || sentences.empty());
        EXPECT_TRUE(!one || !o.fs.data_journal);
        return one;
    };
    EXPECT_TRUE(said("data=writeback", 0));
    EXPECT_TRUE(said("data=writeback", d::data_journal));
    EXPECT_TRUE(said("", d::data_writeback));
    EXPECT_TRUE(said("", 0, "data=writeback"));
    EXPECT_FALSE(said("", 0));
    EXPECT_FALSE(said("data=ordered", d::data_writeback));
    EXPECT_FALSE(said("data=journal", 0, "data=writeback"));
    EXPECT_FALSE(said("data=writeback,data=journal", 0));
}

TEST(DelayedAllocation, IsNotWithJournaledData) {
    for (const char* text : {"data=journal,delalloc", "delalloc,data=journal"})
        EXPECT_FALSE(parse_all_options(text)) << text;
    for (const char* text : {"data=journal,delalloc,data=ordered", "data=ordered,delalloc"})
        EXPECT_TRUE(parse_all_options(text)) << text;
    for (const auto& super : {super_with(d::data_journal), super_with(0, "data=journal")}) {
        VolumeOptions o = options_of("delalloc");
        add_superblock_defaults(o, super);
        EXPECT_FALSE(check_options(o, true));
        o = options_of("delalloc,data=ordered");
        add_superblock_defaults(o, super);
        EXPECT_TRUE(check_options(o, true));
    }
}

// All 64 bytes may be letters.
TEST(SuperblockDefaults, NeedNoEnd) {
    VolumeOptions o = options_of("");
    const std::string text(64, 'x');
    EXPECT_EQ(add_superblock_defaults(o, super_with(0, text.c_str())).size(), 1u);
}

}  // namespace
}  // namespace uext4
