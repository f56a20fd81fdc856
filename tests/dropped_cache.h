// For tests: what is cached of a file goes, so that what follows reads the device. What is dirty, a transaction's or in
// use stays.
#pragma once

#include "inode/inode.h"
#include "pagecache/file_cache.h"

#include <gtest/gtest.h>

#include <utility>

namespace uext4 {

// Folios that have gone.
inline unsigned drop_clean(Inode& inode) {
    FileCache& pages = inode.pages();
    unsigned dropped = 0;
    for (auto index = pages.next_cached(0); index; index = pages.next_cached(*index + 1)) {
        auto folio = pages.lock_for_change(*index, false);
        EXPECT_TRUE(folio);
        if (!folio || !*folio || (*folio)->dirty || (*folio)->owner || (*folio)->pins) continue;
        pages.drop(std::move(*folio));
        ++dropped;
    }
    return dropped;
}

}  // namespace uext4
