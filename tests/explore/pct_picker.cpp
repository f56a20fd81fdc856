#include "tests/explore/picker.h"

#include <algorithm>
#include <map>
#include <vector>

namespace uext4::explore {

namespace {

class PctPicker final : public Picker {
public:
    explicit PctPicker(std::uint64_t seed) : seed_(seed) {}

    bool begin(std::uint64_t schedule) override {
        random_ = Random(seed_ * 0x100000001b3 + schedule + 0x9c7);
        priority_.clear();
        lowest_ = 0;
        errors_ = Random(seed_ * 0x100000001b3 + schedule + 0xe44);
        one_in_fails_ = error_rates[errors_.below(std::size(error_rates))];
        changes_.clear();
        // The depth of a bug is the number of orderings it needs: few do.
        const std::uint64_t depth = schedule == 0 ? 0 : random_.below(5);
        for (std::uint64_t i = 0; i < depth; ++i) {
            const auto step = static_cast<std::uint32_t>(random_.below(length_));
            // An atomic is no step: half of the changes come behind one, where there are so many in the step.
            const auto atomics = static_cast<std::uint32_t>(random_.below(2) == 0 ? 0 : 1 + random_.below(4));
            changes_.push_back({step, atomics});
        }
        std::ranges::sort(changes_);
        next_change_ = 0;
        return true;
    }

    int pick(const Choice& choice) override {
        if (choice.kind == Chosen::error) return pick_error(errors_, one_in_fails_, choice);
        if (choice.kind == Chosen::woken) return by_priority(choice, true);
        bool changed = choice.yields;
        while (next_change_ < changes_.size() && changes_[next_change_] <= choice.at) {
            ++next_change_;
            changed = true;
        }
        if (changed) priority_[choice.current] = --lowest_;
        const bool timers = changed && random_.below(8) == 0;
        return by_priority(choice, timers);
    }

    // How long a schedule is decides where the changes may lie: learnt from those that ended.
    void end(std::uint32_t steps) override { length_ = std::max(length_, steps); }

private:
    int by_priority(const Choice& choice, bool timers) {
        int best = -1;
        for (const Candidate& c : choice.candidates)
            if ((!c.timer || timers) && (best < 0 || of(c.value) > of(best))) best = c.value;
        return best < 0 ? choice.standard : best;
    }
    std::int64_t of(int thread) {
        auto [it, fresh] = priority_.try_emplace(thread, 0);
        if (fresh) it->second = static_cast<std::int64_t>(random_.below(1u << 20)) + 1;
        return it->second;
    }

    std::uint64_t seed_;
    Random random_{0}, errors_{0};
    std::uint64_t one_in_fails_ = 2;
    std::map<int, std::int64_t> priority_;
    std::int64_t lowest_ = 0;
    std::vector<Moment> changes_;
    std::size_t next_change_ = 0;
    std::uint32_t length_ = 100;
};

}  // namespace

std::unique_ptr<Picker> make_pct(std::uint64_t seed) { return std::make_unique<PctPicker>(seed); }

}  // namespace uext4::explore
