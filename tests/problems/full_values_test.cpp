// An attribute value in an inode of its own, where there is no space for all of it or for its tree.
#include "settled_image.h"

namespace uext4::problems {
namespace {

class FullValues : public SettledImage, public testing::WithParamInterface<const char*> {};

// As many single free blocks as are asked for, none next to another, and no other.
TEST_P(FullValues, WhatFindsNoSpaceIsGivenBack) {
    unsigned done = 0, refused = 0;
    for (std::uint64_t holes = 0; holes <= 14; ++holes) {
        SCOPED_TRACE(holes);
        make(fmt::format("-b 1024 -m 0 -N 64 -J size=1 -O {}", GetParam()), "data=ordered", "8M");
        auto file = open("/f"), fill = open("/fill"), rest = open("/rest");
        std::uint64_t blocks = 0;
        while (fill->write(blocks * 1024, bytes_of(pattern(1024, 1)))) ++blocks;
        ok(fill->sync(false));
        for (std::uint64_t at = 0; rest->write(at, bytes_of(pattern(1024, 2))); at += 1024) ok(rest->sync(false));
        for (std::uint64_t n = 0; n < holes; ++n)
            ok(fill->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (100 + 10 * n) * 1024, 1024));
        ok(fs->sync());
        // The first is set, perhaps, and one in its place needs as much again beside it.
        for (unsigned turn = 0; turn < 4; ++turn) {
            const std::uint64_t free = fs->volume().counts().free_blocks;
            const std::string value = pattern(5000, turn);
            const Result<void> set = fs->set_xattr(file->inode(), "user.large", bytes_of(value), 0, root, false);
            ok(fs->sync());
            ++(set ? done : refused);
            if (set) continue;
            EXPECT_EQ(set.error().code, ENOSPC) << set.error().what;
            EXPECT_EQ(fs->volume().counts().free_blocks, free);
        }
        file.reset();
        fill.reset();
        rest.reset();
        settle();
    }
    EXPECT_GT(done, 0u);
    EXPECT_GT(refused, 0u);
}

INSTANTIATE_TEST_SUITE_P(Formats, FullValues, testing::Values("ea_inode", "ea_inode,^extents,^64bit"));

}  // namespace
}  // namespace uext4::problems
