// Marks among what the kernel sends without waiting for answers.
//
// What it writes of its cache, it sends so, in order, and at most so many at a time (Server::most_background): the
// others wait in the kernel, where later requests that are waited for pass them by. So does the release of a
// directory's descriptor. A descriptor that is marked, and closed when the kernel has been made to write its cache
// (syncfs(2)), is released behind that.
#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <utility>
#include <vector>

namespace uext4::fuse {

// Not thread safe: the reading thread's.
class Marks {
public:
    // Never 0.
    std::uint32_t make() {
        if (++last_ == 0) ++last_;
        there_.insert(last_);
        return last_;
    }
    // The descriptor that had it is released. 0 is none.
    void gone(std::uint32_t mark) {
        if (there_.erase(mark) != 0) tell([mark](const Waiting& one) { return one.mark == mark; }, true);
    }
    // `then` is called at once if it is gone already; with false when that is not waited for any more.
    void when_gone(std::uint32_t mark, std::function<void(bool)> then) {
        if (there_.contains(mark)) waiting_.push_back({mark, std::move(then)});
        else then(true);
    }
    // What the kernel sends is not worked on any more.
    void give_up() {
        tell([](const Waiting&) { return true; }, false);
    }

private:
    struct Waiting {
        std::uint32_t mark;
        std::function<void(bool)> then;
    };
    // These may be answers, which take time.
    template <class Which>
    void tell(Which which, bool is_gone) {
        std::vector<Waiting> told;
        std::erase_if(waiting_, [&](Waiting& one) {
            if (!which(one)) return false;
            told.push_back(std::move(one));
            return true;
        });
        for (const Waiting& one : told) one.then(is_gone);
    }

    std::uint32_t last_ = 0;
    std::set<std::uint32_t> there_;
    std::vector<Waiting> waiting_;
};

}  // namespace uext4::fuse
