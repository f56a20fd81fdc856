// Runs cases in children of this process, many in each: a case that crashes, hangs or takes too much memory is named
// and the next child goes on behind it.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

namespace uext4::hostile {

struct BatchLimits {
    unsigned seconds = 30;                      // of one case
    std::size_t memory = std::size_t{1} << 30;  // peak of a child, in bytes resident (sanitizers take their share)
};

// Runs `run(i)` for i in [0, count); what it returns is a failure of that case. Returns all failures as "name(i): why",
// crashes ("ended by signal 6") and hangs included.
std::vector<std::string> run_in_batches(std::size_t count, const std::function<std::string(std::size_t)>& name,
                                        const std::function<std::vector<std::string>(std::size_t)>& run,
                                        const BatchLimits& limits = {});

}  // namespace uext4::hostile
