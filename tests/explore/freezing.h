// A freeze as a scenario meets it. What is asked for while the file system is frozen waits for the thaw, by whatever
// door it comes; nobody writes to the device, nothing that could be written is left in memory, nothing is seen to
// change; and what the device holds is a clean image of what the file system shows.
#pragma once

#include "tests/crash/tree.h"
#include "tests/explore/scenario.h"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace uext4::explore {

// What a file system shows, and how another one differs from it. Empty: not.
struct Shown {
    crash::Tree tree;
    std::string label;
    std::string difference(const Shown& got) const;
};
Shown show(World& w);

class Freezing {
public:
    explicit Freezing(World& w) : w_(w) {}

    // Something that changes the file system, asked for by a body. Once a freeze has begun it is not done before the
    // thaw.
    template <class Make>
    void change(const char* what, Make make) {
        waits_for_thaw(what, [this] { return is_freezing(); }, make);
    }
    // The same through a map, where a page that could be stored to can be until the freeze takes that right.
    template <class Make>
    void store(Make make) {
        waits_for_thaw("a store", [this] { return frozen_; }, make);
    }
    // All that a body changes, one after the other. Which comes first is up to the order in which the bodies come here:
    // a freeze meets each of them.
    struct Change {
        const char* what;
        std::function<void()> make;
    };
    void change_all(std::vector<Change> changes);
    // By the body that freezes. The others go on meanwhile, as far as they can.
    void freeze_and_thaw();
    // After the run: what the device held while it was frozen.
    void judge();

private:
    struct Frozen {
        std::shared_ptr<MemoryDevice> image;
        Shown shown;
    };
    bool is_freezing();  // or frozen
    // Asked for behind a look at the thaws: whoever looks at the gate may have to wait.
    template <class Stopped, class Make>
    void waits_for_thaw(const char* what, Stopped stopped, Make make) {
        const unsigned thaws = thaws_;
        const bool waits = !thawing_ && stopped();
        make();
        if (waits && thaws == thaws_) w_.wrong(std::string(what) + ": done in a frozen file system");
    }

    World& w_;
    unsigned thaws_ = 0;  // that have begun
    bool frozen_ = false, thawing_ = false;
    std::vector<Frozen> all_;
    std::size_t bodies_ = 0;
};

}  // namespace uext4::explore
