#include "tests/explore/picker.h"

namespace uext4::explore {

namespace {

class RandomPicker final : public Picker {
public:
    explicit RandomPicker(std::uint64_t seed) : seed_(seed) {}

    bool begin(std::uint64_t schedule) override {
        random_ = Random(seed_ * 0x100000001b3 + schedule);
        constexpr std::uint64_t one_in[] = {2, 4, 8, 16, 32, 64};
        one_in_ = one_in[random_.below(6)];
        return true;
    }

    int pick(const Choice& choice) override {
        if (choice.can_stay && !choice.yields && random_.below(one_in_) != 0) return choice.current;
        // Time passes early now and then.
        const bool timers = random_.below(32) == 0;
        int ready[64];
        std::size_t n = 0;
        for (const Candidate& c : choice.candidates)
            if ((!c.timer || timers) && n < 64 && !(choice.yields && c.thread == choice.current)) ready[n++] = c.thread;
        return n ? ready[random_.below(n)] : choice.standard;
    }

private:
    std::uint64_t seed_, one_in_ = 2;
    Random random_{0};
};

}  // namespace

std::unique_ptr<Picker> make_random(std::uint64_t seed) { return std::make_unique<RandomPicker>(seed); }

}  // namespace uext4::explore
