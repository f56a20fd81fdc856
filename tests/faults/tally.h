// What the workloads answered to each fault: the table of the documentation.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

namespace uext4::faults {

// One run of a workload on a device that fails from some request on.
struct Outcome {
    bool met = false;        // the device did fail
    bool told = false;       // a step returned the error, or that everything is read-only
    bool read_only = false;  // which it was in the end
    bool closed = false;     // the unmount had nothing to tell
    bool failed = false;     // a promise was broken
};

class Tally {
public:
    static Tally& instance();
    void add(const std::string& fault, const std::string& workload, const Outcome& outcome);
    // Rows and columns in the order in which they were first met.
    std::string markdown() const;

private:
    struct Row {
        std::string fault;
        std::map<std::string, std::size_t> places;  // by workload
        std::size_t met = 0, told = 0, unmount_told = 0, unnoticed = 0, read_only = 0, failures = 0;
    };
    std::vector<Row> rows_;
    std::vector<std::string> workloads_;
};

}  // namespace uext4::faults
