// A recorded schedule, as text and as a page: threads as lanes, time downward, locks as bars.
#pragma once

#include "tests/explore/explorer.h"

#include <string>

namespace uext4::explore {

// A line for each place where another thread goes on; choices are marked.
std::string schedule_lines(const Shared& recorded, const Schedule& schedule);
// One file that needs nothing else. False if it cannot be written.
bool write_html(const std::string& path, const Scenario& scenario, const Design& design, const Found& found,
                const Schedule& schedule, const Shared& recorded);

}  // namespace uext4::explore
