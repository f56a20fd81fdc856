// Who may come in while a freeze is on its way, and whom it waits for.
#include "volume/freeze_gate.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>

namespace uext4 {
namespace {

// Does something in a thread of its own. It has to wait for `ends`, which is done when it could long have been over.
template <class Wait, class End>
void expect_to_wait(Wait wait, End ends) {
    std::atomic<bool> over{false};
    std::thread waiting([&] {
        wait();
        over = true;
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_FALSE(over.load());
    ends();
    waiting.join();
}

TEST(FreezeGate, ClosesWhenAllAreOut) {
    FreezeGate gate;
    auto inside = std::make_unique<FreezeGate::Entry>(gate);
    expect_to_wait([&] { gate.close(); }, [&] { inside.reset(); });
    EXPECT_TRUE(gate.is_closed());
    EXPECT_FALSE(static_cast<bool>(FreezeGate::TryEntry(gate)));
}

// Deletions that operations have left come in when it is closed, and no more when it is sealed.
TEST(FreezeGate, IsSealedWhenTheDeletionsAreOver) {
    FreezeGate gate;
    gate.close();
    auto deletion = std::make_unique<FreezeGate::InnerEntry>(gate);
    expect_to_wait([&] { gate.close_inner(); }, [&] { deletion.reset(); });
    expect_to_wait([&] { const FreezeGate::InnerEntry late(gate); }, [&] { gate.open(); });
}

TEST(FreezeGate, OpensForAll) {
    FreezeGate gate;
    gate.close();
    gate.close_inner();
    gate.set_frozen();
    EXPECT_FALSE(static_cast<bool>(FreezeGate::SyncEntry(gate)));
    expect_to_wait([&] { const FreezeGate::Entry pass(gate); }, [&] { gate.open(); });
    EXPECT_FALSE(gate.is_closed());
    EXPECT_TRUE(static_cast<bool>(FreezeGate::TryEntry(gate)));
    EXPECT_TRUE(static_cast<bool>(FreezeGate::SyncEntry(gate)));
}

// Who makes something durable waits for a freeze that is on its way, and has nothing to do when it is there.
TEST(FreezeGate, SyncsWaitForAFreezeAndNotForTheThaw) {
    FreezeGate gate;
    gate.close();
    expect_to_wait([&] { EXPECT_FALSE(static_cast<bool>(FreezeGate::SyncEntry(gate))); },
                   [&] {
                       gate.close_inner();
                       gate.set_frozen();
                   });
    gate.open();
}

}  // namespace
}  // namespace uext4
