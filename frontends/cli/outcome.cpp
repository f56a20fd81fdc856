#include "cli/outcome.h"

#include "cli/damage_notes.h"
#include "cli/interrupt.h"
#include "cli/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

namespace uext4::cli {

std::optional<std::string> Outcome::attempt(const std::function<void()>& part) {
    try {
        check_interrupt();
        part();
        return {};
    } catch (const Failure& failure) {
        tell(failure.code, failure.what);
        return failure.what;
    }
}

void Outcome::tell(int code, const std::string& what) {
    std::fflush(stdout);  // the message stands behind what was printed before it
    if (!what.empty() && !quiet_) fmt::print(stderr, "uext4 {}: {}\n", verb_, quote(what));
    note_failure(what);
    code_ = std::max(code_, code);
}

bool Outcome::attempt(Progress& progress, const std::function<void()>& part) {
    try {
        check_interrupt();
        part();
        return true;
    } catch (const Failure& failure) {
        tell(progress, failure.code, failure.what);
        return false;
    }
}

void Outcome::tell(Progress& progress, int code, const std::string& what) {
    progress.clear();
    tell(code, what);
}

void Outcome::finish() const {
    if (code_ != exit_ok) fail_with(code_, "");
}

}  // namespace uext4::cli
