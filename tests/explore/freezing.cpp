#include "tests/explore/freezing.h"

#include <algorithm>

namespace uext4::explore {

Shown show(World& w) {
    Shown shown;
    w.quietly([&] {
        shown.tree = w.expect(crash::capture(w.fs()), "a look at the tree");
        shown.label = w.expect(w.fs().label(), "label");
    });
    return shown;
}

std::string Shown::difference(const Shown& got) const {
    if (got.label != label) return fmt::format("the label is {}, not {}", got.label, label);
    return crash::difference(tree, got.tree, true);
}

bool Freezing::is_freezing() {
    bool closed = false;
    w_.quietly([&] { closed = w_.fs().volume().gate().is_closed(); });
    return closed;
}

void Freezing::change_all(std::vector<Change> changes) {
    w_.pause();
    const std::size_t first = bodies_++ % changes.size();
    std::ranges::rotate(changes, changes.begin() + static_cast<std::ptrdiff_t>(first));
    for (const Change& c : changes) change(c.what, c.make);
}

void Freezing::freeze_and_thaw() {
    w_.expect(w_.fs().freeze(), "freeze");
    w_.forbid_writes(true);
    frozen_ = true;
    Frozen frozen{w_.image(), show(w_)};
    // The others run until the gate stops them.
    for (int i = 0; i < 4; ++i) w_.pause();
    const std::string changed = frozen.shown.difference(show(w_));
    w_.require(changed.empty(), "it has changed while it was frozen: " + changed);
    FsContext& fs = w_.fs().volume().fs();
    w_.require(fs.pages.dirty_bytes() == 0, "something is dirty in a frozen file system");
    w_.expect(fs.journal.commit_all(), "commit");  // writes, where a transaction runs
    all_.push_back(std::move(frozen));
    w_.forbid_writes(false);
    ++thaws_;
    frozen_ = false;
    thawing_ = true;
    w_.expect(w_.fs().thaw(), "thaw");
    thawing_ = false;
}

void Freezing::judge() {
    for (const Frozen& frozen : all_)
        w_.on(frozen.image, [&](World& there) {
            there.check_image();
            there.mount();
            there.require(!there.fs().volume().recovery().needed, "a frozen image needs its journal replayed");
            const std::string other = frozen.shown.difference(show(there));
            there.require(other.empty(), "a frozen image is not what was to be seen: " + other);
            there.unmount();
        });
}

}  // namespace uext4::explore
