#include "tests/explore/picker.h"

#include <deque>
#include <vector>

namespace uext4::explore {

namespace {

// Deviations are taken from the list as far as it goes; the thread named may not be able to run in a schedule that was
// shortened, then the default one goes on.
class Replay : public Picker {
public:
    explicit Replay(Schedule schedule, std::span<char> followed = {})
        : schedule_(std::move(schedule)), followed_(followed) {}
    bool begin(std::uint64_t schedule) override {
        at_ = 0;
        return schedule == 0;
    }
    int pick(const Choice& choice) override {
        while (at_ < schedule_.size() && schedule_[at_].at < choice.at) ++at_;
        for (std::size_t i = at_; i < schedule_.size() && schedule_[i].at == choice.at; ++i)
            for (const Candidate& c : choice.candidates)
                if (schedule_[i].kind == choice.kind && c.value == schedule_[i].value) {
                    if (i < followed_.size()) followed_[i] = 1;
                    return c.value;
                }
        return choice.standard;
    }

protected:
    Schedule schedule_;
    std::size_t at_ = 0;
    std::span<char> followed_;
};

// Breadth first by the number of deviations: every schedule of one run's steps after its last deviation gets one more.
class Dfs final : public Replay {
public:
    Dfs() : Replay({}) { waiting_.push_back({}); }
    bool begin(std::uint64_t) override {
        if (waiting_.empty()) return false;
        schedule_ = std::move(waiting_.front());
        waiting_.pop_front();
        at_ = 0;
        return true;
    }
    int pick(const Choice& choice) override {
        const int chosen = Replay::pick(choice);
        const bool behind = schedule_.empty() || choice.at > schedule_.back().at;
        if (behind && waiting_.size() < most)
            for (const Candidate& c : choice.candidates) {
                if (c.value == chosen) continue;
                Schedule more = schedule_;
                more.push_back({choice.at, choice.kind, c.value});
                waiting_.push_back(std::move(more));
            }
        return chosen;
    }

private:
    static constexpr std::size_t most = 200'000;
    std::deque<Schedule> waiting_;
};

}  // namespace

std::unique_ptr<Picker> make_replay(Schedule schedule, std::span<char> followed) {
    return std::make_unique<Replay>(std::move(schedule), followed);
}
std::unique_ptr<Picker> make_dfs() { return std::make_unique<Dfs>(); }

}  // namespace uext4::explore
