#include "cli/place.h"

#include "cli/failure.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ostream>
#include <set>

namespace uext4::cli {

using testing::HasSubstr;

bool operator==(const Place& a, const Place& b) { return a.kind == b.kind && a.image == b.image && a.path == b.path; }

std::ostream& operator<<(std::ostream& out, const Place& place) {
    return out << "kind " << static_cast<int>(place.kind) << " image '" << place.image << "' path '" << place.path
               << "'";
}

namespace {

using Kind = Place::Kind;

// The files that there are; directories are not among them.
bool is_file(const std::string& name) {
    static const std::set<std::string> files{"disk.img", "a",     "a:/b",      "dir/disk.img",
                                             "user",     "odd@2", "/dev/fd/3", "qcow2"};
    return files.contains(name);
}

Place outside(const std::string& word, const Place* before = nullptr) {
    return parse_place(word, {before, nullptr}, is_file);
}

const ShellWords shell{"disk.img", "/etc"};
Place inside(const std::string& word) { return parse_place(word, {nullptr, &shell}, is_file); }

// Why a word is refused; empty if it is not.
template <class Parse>
std::string refusal(Parse parse) {
    try {
        parse();
    } catch (const Failure& failure) {
        return failure.what;
    }
    return {};
}

TEST(PlaceTest, AWordWithoutAnImageIsAPathOfTheHost) {
    for (const char* const word : {"out.txt", "/b", "dir/file", ".", "disk.img", "disk.img@2", "other.img:/x",
                                   "disk.img:x", "disk.img:", ":", "a:b", "./oci:x", "nbdx:/y", "NBD:/x", "--", "./-"})
        EXPECT_EQ(outside(word), (Place{"", word, Kind::host}));
}

TEST(PlaceTest, TheImageIsTheLongestPartThatExists) {
    EXPECT_EQ(outside("disk.img:/etc/fstab"), (Place{"disk.img", "/etc/fstab", Kind::image}));
    EXPECT_EQ(outside("disk.img:/"), (Place{"disk.img", "/", Kind::image}));
    EXPECT_EQ(outside("disk.img:<12>"), (Place{"disk.img", "<12>", Kind::image}));
    EXPECT_EQ(outside("disk.img:<12>/x:/y"), (Place{"disk.img", "<12>/x:/y", Kind::image}));
    EXPECT_EQ(outside("disk.img:/x:/y"), (Place{"disk.img", "/x:/y", Kind::image}));
    EXPECT_EQ(outside("a:/b:/c"), (Place{"a:/b", "/c", Kind::image}));
    EXPECT_EQ(outside("a:/b"), (Place{"a", "/b", Kind::image}));
    EXPECT_EQ(outside("a:/x:/c"), (Place{"a", "/x:/c", Kind::image}));
    EXPECT_EQ(outside("dir/disk.img:/x"), (Place{"dir/disk.img", "/x", Kind::image}));
    EXPECT_EQ(outside("/dev/fd/3:/x"), (Place{"/dev/fd/3", "/x", Kind::image}));
}

TEST(PlaceTest, APartitionBelongsToTheImage) {
    EXPECT_EQ(outside("disk.img@2:/x"), (Place{"disk.img@2", "/x", Kind::image}));
    EXPECT_EQ(outside("odd@2:/x"), (Place{"odd@2", "/x", Kind::image}));
    EXPECT_EQ(outside("user@host:/x"), (Place{"", "user@host:/x", Kind::host}));
    EXPECT_EQ(outside("disk.img@:/x"), (Place{"", "disk.img@:/x", Kind::host}));
    EXPECT_EQ(outside("@2:/x"), (Place{"", "@2:/x", Kind::host}));
}

TEST(PlaceTest, AStandardStream) { EXPECT_EQ(outside("-"), (Place{"", "", Kind::standard})); }

TEST(PlaceTest, AColonBeginsAPathInTheImageOfTheOperandBefore) {
    const Place before = outside("disk.img@2:/a");
    const Place second = outside(":/b", &before);
    EXPECT_EQ(second, (Place{"disk.img@2", "/b", Kind::image}));
    EXPECT_EQ(outside(":/c", &second), (Place{"disk.img@2", "/c", Kind::image}));
    EXPECT_EQ(outside(":<12>", &second), (Place{"disk.img@2", "<12>", Kind::image}));
    const Place prefixed = outside("nbd://server/export:/a");
    EXPECT_EQ(outside(":/b", &prefixed), (Place{"nbd://server/export", "/b", Kind::prefixed}));
    const Place other = outside("disk.img:/a", &prefixed);
    EXPECT_EQ(outside(":/b", &other), (Place{"disk.img", "/b", Kind::image}));
}

TEST(PlaceTest, AColonIsRefusedWithoutAnImageBefore) {
    EXPECT_THAT(refusal([] { outside(":/b"); }), HasSubstr("write IMAGE:/b"));
    EXPECT_THAT(refusal([] { outside(":<12>"); }), HasSubstr("write IMAGE:<12>"));
    for (const Place& before : {outside("out.txt"), outside("-"), outside("disk.img")})
        EXPECT_THAT(refusal([&] { outside(":/b", &before); }), HasSubstr("in none; write IMAGE:/b"));
}

TEST(PlaceTest, AnEmptyWordIsRefused) {
    EXPECT_NE(refusal([] { outside(""); }), "");
    EXPECT_NE(refusal([] { inside(""); }), "");
}

TEST(PlaceTest, EachPrefixIsKnown) {
    for (const std::string prefix : {"nbd:", "nbds:", "nbd+unix:", "https:", "http:", "rbd:", "qcow2:", "vmdk:", "vhd:",
                                     "vhdx:", "vdi:", "exec:", "oci:", "oci-archive:", "docker-archive:", "mtree:"}) {
        const std::string word = prefix + "x";
        EXPECT_EQ(outside(word), (Place{word, "", Kind::prefixed}));
        ASSERT_NE(prefix_of(word), nullptr) << prefix;
        EXPECT_EQ(prefix_of(word)->text, prefix);
        EXPECT_THAT(not_available(word), HasSubstr("not available in this build"));
        EXPECT_THAT(not_available(word), HasSubstr("written ./" + word));
        EXPECT_EQ(outside("./" + word).kind, Kind::host);
    }
    EXPECT_EQ(prefix_of("qcow2"), nullptr);
    EXPECT_EQ(outside("qcow2:/etc"), (Place{"qcow2:/etc", "", Kind::prefixed}));  // though there is a file of that name
    EXPECT_EQ(outside("./disk.img:/x"), (Place{"", "./disk.img:/x", Kind::host}));
}

TEST(PlaceTest, APathFollowsTheLastSeparatorBehindAPrefix) {
    const std::pair<const char*, Place> cases[] = {
        {"nbd://server:10809/export", {"nbd://server:10809/export", "", Kind::prefixed}},
        {"nbd://server:10809/export:/etc/fstab", {"nbd://server:10809/export", "/etc/fstab", Kind::prefixed}},
        {"nbd+unix:///export?socket=/run/s:/x", {"nbd+unix:///export?socket=/run/s", "/x", Kind::prefixed}},
        {"nbd:/x", {"nbd:/x", "", Kind::prefixed}},
        {"https://user@host/d.img@2:/etc", {"https://user@host/d.img@2", "/etc", Kind::prefixed}},
        {"https://host/a:/b:/c", {"https://host/a:/b", "/c", Kind::prefixed}},
        {"rbd:pool/disk:<12>", {"rbd:pool/disk", "<12>", Kind::prefixed}},
        {"qcow2:/dir/d.qcow2:/etc", {"qcow2:/dir/d.qcow2", "/etc", Kind::prefixed}},
        {"qcow2:nbd://server/d", {"qcow2:nbd://server/d", "", Kind::prefixed}},
        {"qcow2:nbd://server/d:/etc", {"qcow2:nbd://server/d", "/etc", Kind::prefixed}},
        {"oci:layout:tag:/etc", {"oci:layout:tag", "/etc", Kind::prefixed}},
        {"docker-archive:a.tar:name:tag", {"docker-archive:a.tar:name:tag", "", Kind::prefixed}},
    };
    for (const auto& [word, place] : cases) EXPECT_EQ(outside(word), place) << word;
}

TEST(PlaceTest, TheCommandOfExecIsNeverSplit) {
    for (const char* const word : {"exec:cat disk.img:/x", "exec:ssh host 'cat /d':/etc", "qcow2:exec:cat d:/x"})
        EXPECT_EQ(outside(word), (Place{word, "", Kind::prefixed}));
}

TEST(PlaceTest, InAShellBareWordsArePathsOfTheImage) {
    EXPECT_EQ(inside("fstab"), (Place{"disk.img", "/etc/fstab", Kind::image}));
    EXPECT_EQ(inside("/b"), (Place{"disk.img", "/b", Kind::image}));
    EXPECT_EQ(inside("<12>/x"), (Place{"disk.img", "<12>/x", Kind::image}));
    for (const std::string word : {"disk.img:/x", "oci:x", "-", "a:/b", "./:/x"})
        EXPECT_EQ(inside(word), (Place{"disk.img", "/etc/" + word, Kind::image}));
    const ShellWords root{"disk.img", "/"};
    EXPECT_EQ(parse_place("fstab", {nullptr, &root}, is_file), (Place{"disk.img", "/fstab", Kind::image}));
}

TEST(PlaceTest, InAShellHostIsTheHost) {
    EXPECT_EQ(inside("host:out.txt"), (Place{"", "out.txt", Kind::host}));
    EXPECT_EQ(inside("host:/etc/fstab"), (Place{"", "/etc/fstab", Kind::host}));
    EXPECT_EQ(inside("host:a:/b"), (Place{"a", "/b", Kind::image}));
    EXPECT_EQ(inside("host:oci:x"), (Place{"oci:x", "", Kind::prefixed}));
    EXPECT_EQ(inside("./host:x"), (Place{"disk.img", "/etc/./host:x", Kind::image}));
    EXPECT_THAT(refusal([] { inside("host:"); }), HasSubstr("host:/etc/hostname"));
    EXPECT_THAT(refusal([] { inside("host:-"); }), HasSubstr("cat prints a file"));
    EXPECT_THAT(refusal([] { inside(":/b"); }), HasSubstr("is written /b"));
}

}  // namespace
}  // namespace uext4::cli
