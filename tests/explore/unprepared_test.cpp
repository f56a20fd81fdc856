// A scenario whose image cannot be made as it wants says so, and does not end whoever explores others as well.
#include "tests/explore/outcome.h"
#include "tests/explore/scenario.h"

#include <gtest/gtest.h>

namespace uext4::explore {
namespace {

std::string why_not(const std::function<void(World&)>& prepare) {
    const Scenario scenario{.name = "unprepared",
                            .looks_for = "",
                            .format = "-t ext4 -b 4096 8M",
                            .options = "",
                            .prepare = prepare,
                            .run = {}};
    try {
        (void)make_template(scenario);
        return "made";
    } catch (const Unprepared& why) {
        return why.text;
    }
}

TEST(Unprepared, IsTold) {
    EXPECT_EQ(why_not([](World&) {}), "made");
    EXPECT_EQ(why_not([](World& w) { w.require(false, "not what it is to be"); }), "not what it is to be");
    // What is promised and not given back is seen at the unmount.
    EXPECT_EQ(why_not([](World& w) {
                  static DelallocReservation kept;
                  kept = std::move(*w.fs().volume().fs().allocator.reserve(3, true));
              }),
              "a promise of space is left");
}

TEST(Told, BytesThatAreNoTextAreWrittenAsNumbers) {
    const auto shared = std::make_unique<Shared>();
    shared->set_text("bytes \xdb\x01z,\nthen");
    EXPECT_STREQ(shared->text.data(), "bytes \\xdb\\x01z,\nthen");
    shared->set_text(std::string(shared->text.size(), 'a'));
    EXPECT_EQ(std::string_view(shared->text.data()).size(), shared->text.size() - 1);
}

}  // namespace
}  // namespace uext4::explore
