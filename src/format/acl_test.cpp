#include "format/acl.h"

#include <gtest/gtest.h>

#include <random>

namespace uext4::format {
namespace {

const Acl full = {{AclTag::user_obj, 7, 0}, {AclTag::user, 6, 1000}, {AclTag::user, 4, 1001}, {AclTag::group_obj, 5, 0},
                  {AclTag::group, 7, 50},   {AclTag::mask, 6, 0},    {AclTag::other, 4, 0}};
const Acl small = {{AclTag::user_obj, 6, 0}, {AclTag::group_obj, 4, 0}, {AclTag::other, 0, 0}};

int error_of(const Result<Acl>& result) { return result ? 0 : result.error().code; }

TEST(Acl, BothFormsComeBack) {
    for (const Acl& acl : {full, small}) {
        EXPECT_EQ(decode_disk_acl(encode_disk_acl(acl)), acl);
        EXPECT_EQ(decode_xattr_acl(encode_xattr_acl(acl)), acl);
    }
    EXPECT_EQ(encode_disk_acl(full).size(), 4 + 4 * 4 + 3 * 8u) << "entries without an id are short on disk";
    EXPECT_EQ(encode_xattr_acl(full).size(), 4 + 7 * 8u);
}

TEST(Acl, DiskFormIsTheDocumentedOne) {
    const unsigned char want[] = {1, 0, 0, 0, 1, 0, 6, 0, 4, 0, 4, 0, 0x20, 0, 0, 0};
    const auto got = encode_disk_acl(small);
    ASSERT_EQ(got.size(), sizeof want);
    EXPECT_EQ(std::memcmp(got.data(), want, sizeof want), 0);
}

TEST(Acl, WhatIsNoAclIsRefused) {
    const auto refused = [](const Acl& acl, const char* why) {
        EXPECT_EQ(error_of(decode_disk_acl(encode_disk_acl(acl))), EUCLEAN) << why;
        EXPECT_EQ(error_of(decode_xattr_acl(encode_xattr_acl(acl))), EINVAL) << why;
    };
    refused({{AclTag::user_obj, 6, 0}, {AclTag::group_obj, 4, 0}}, "no other");
    refused({{AclTag::group_obj, 4, 0}, {AclTag::user_obj, 6, 0}, {AclTag::other, 0, 0}}, "order");
    refused({{AclTag::user_obj, 8, 0}, {AclTag::group_obj, 4, 0}, {AclTag::other, 0, 0}}, "permissions");
    refused({{AclTag::user_obj, 6, 0}, {AclTag::user, 6, 5}, {AclTag::group_obj, 4, 0}, {AclTag::other, 0, 0}},
            "no mask");
    refused({{AclTag::user_obj, 6, 0}, {AclTag::user_obj, 6, 0}, {AclTag::group_obj, 4, 0}, {AclTag::other, 0, 0}},
            "twice");
    refused({{AclTag::user_obj, 6, 0},
             {AclTag::user, 6, ~0u},
             {AclTag::group_obj, 4, 0},
             {AclTag::mask, 7, 0},
             {AclTag::other, 0, 0}},
            "id");
    refused({{static_cast<AclTag>(3), 6, 0}, {AclTag::group_obj, 4, 0}, {AclTag::other, 0, 0}}, "tag");
    auto bytes = encode_disk_acl(full);
    for (std::size_t cut = 0; cut < bytes.size(); ++cut)
        EXPECT_FALSE(decode_disk_acl(ConstBytes(bytes).first(cut))) << cut;
    bytes = encode_xattr_acl(full);
    for (std::size_t cut = 0; cut < bytes.size(); ++cut) {
        const bool is_empty = cut == 4;
        EXPECT_EQ(decode_xattr_acl(ConstBytes(bytes).first(cut)).has_value(), is_empty) << cut;
    }
    bytes[0] = std::byte{1};
    EXPECT_EQ(decode_xattr_acl(bytes).error().code, EOPNOTSUPP);
    EXPECT_TRUE(decode_xattr_acl(encode_xattr_acl({}))->empty()) << "an empty one removes the ACL";
}

TEST(Acl, AndTheMode) {
    EXPECT_EQ(mode_of_acl(full).bits, 0764);
    EXPECT_FALSE(mode_of_acl(full).exact);
    EXPECT_EQ(mode_of_acl(small).bits, 0640);
    EXPECT_TRUE(mode_of_acl(small).exact);
    Acl acl = full;
    apply_mode_to_acl(acl, 0421);
    EXPECT_EQ(mode_of_acl(acl).bits, 0421);
    EXPECT_EQ(acl[3].permissions, 5) << "the mask takes the group's bits";
    acl = full;
    std::uint16_t mode = 0100711;
    mask_created_acl(acl, mode);
    EXPECT_EQ(mode, 0100700);
    EXPECT_EQ(mode_of_acl(acl).bits, 0700);
    EXPECT_EQ(acl[1].permissions, 6);
}

TEST(Acl, RandomBytesAreSurvived) {
    std::mt19937 random(5);
    for (int round = 0; round < 50000; ++round) {
        auto bytes = random() % 2 ? encode_disk_acl(full) : encode_xattr_acl(full);
        bytes.resize(random() % (bytes.size() + 1));
        for (unsigned n = random() % 3; n-- > 0 && !bytes.empty();)
            bytes[random() % bytes.size()] = static_cast<std::byte>(random());
        (void)decode_disk_acl(bytes);
        (void)decode_xattr_acl(bytes);
    }
}

}  // namespace
}  // namespace uext4::format
