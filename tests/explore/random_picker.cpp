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
        errors_ = Random(seed_ * 0x100000001b3 + schedule + 0xe44);
        one_in_fails_ = error_rates[errors_.below(std::size(error_rates))];
        return true;
    }

    int pick(const Choice& choice) override {
        if (choice.kind == Chosen::error) return pick_error(errors_, one_in_fails_, choice);
        if (choice.kind == Chosen::woken) return choice.candidates[random_.below(choice.candidates.size())].value;
        if (choice.can_stay && !choice.yields && random_.below(one_in_) != 0) return choice.current;
        // Time passes early now and then.
        const bool timers = random_.below(32) == 0;
        int ready[64];
        std::size_t n = 0;
        for (const Candidate& c : choice.candidates)
            if ((!c.timer || timers) && n < 64 && !(choice.yields && c.value == choice.current)) ready[n++] = c.value;
        return n ? ready[random_.below(n)] : choice.standard;
    }

private:
    std::uint64_t seed_, one_in_ = 2, one_in_fails_ = 2;
    Random random_{0}, errors_{0};
};

}  // namespace

int pick_error(Random& random, std::uint64_t one_in, const Choice& choice) {
    if (random.below(one_in) != 0) return choice.standard;
    return choice.candidates[random.below(8) == 0 ? choice.candidates.size() - 1 : 1].value;
}

std::unique_ptr<Picker> make_random(std::uint64_t seed) { return std::make_unique<RandomPicker>(seed); }

}  // namespace uext4::explore
