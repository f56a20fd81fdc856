#include "tests/faults/tally.h"

#include "tests/crash/report.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

namespace uext4::faults {

namespace {

// With UEXT4_FAULTS_REPORT the table goes to that file (`./dev crash --faults --report FILE`).
class Report final : public testing::Environment {
public:
    void TearDown() override {
        const char* path = std::getenv("UEXT4_FAULTS_REPORT");
        if (!path) return;
        const auto written = crash::write_between_marks(path, "faults", Tally::instance().markdown());
        EXPECT_TRUE(written) << written.error().what;
    }
};
const testing::Environment* const report = testing::AddGlobalTestEnvironment(new Report);

std::string row(const std::vector<std::string>& cells) {
    std::string out = "|";
    for (const std::string& cell : cells) out += " " + cell + " |";
    return out + "\n";
}

}  // namespace

Tally& Tally::instance() {
    static Tally tally;
    return tally;
}

void Tally::add(const std::string& fault, const std::string& workload, const Outcome& outcome) {
    if (std::ranges::find(workloads_, workload) == workloads_.end()) workloads_.push_back(workload);
    auto found = std::ranges::find(rows_, fault, &Row::fault);
    if (found == rows_.end()) found = rows_.insert(rows_.end(), Row{fault, {}});
    ++found->places[workload];
    found->failures += outcome.failed;
    if (!outcome.met) return;
    ++found->met;
    found->read_only += outcome.read_only;
    if (outcome.told) ++found->told;
    else if (!outcome.closed) ++found->unmount_told;
    else ++found->unnoticed;
}

std::string Tally::markdown() const {
    std::vector<std::string> head{"fault"};
    head.insert(head.end(), workloads_.begin(), workloads_.end());
    for (const char* more : {"met", "a step told", "the unmount told", "all went on", "read-only", "failures"})
        head.emplace_back(more);
    std::string out = row(head) + row(std::vector<std::string>(head.size(), "---"));
    std::size_t runs = 0, met = 0, failures = 0;
    for (const Row& r : rows_) {
        std::vector<std::string> cells{r.fault};
        for (const std::string& workload : workloads_) {
            const auto places = r.places.find(workload);
            const std::size_t n = places == r.places.end() ? 0 : places->second;
            runs += n;
            cells.push_back(std::to_string(n));
        }
        for (const std::size_t n : {r.met, r.told, r.unmount_told, r.unnoticed, r.read_only, r.failures})
            cells.push_back(std::to_string(n));
        out += row(cells);
        met += r.met;
        failures += r.failures;
    }
    return out + fmt::format(
                     "\n{} runs of {} faults, each from a place of its own; in {} the device came to fail; {} "
                     "failures.\n",
                     runs, rows_.size(), met, failures);
}

}  // namespace uext4::faults
