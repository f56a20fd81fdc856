// Verbs over several things: what fails is told, the rest goes on, and the exit code is the worst. Each thing begins
// with a safe point for interrupts.
#pragma once

#include "cli/failure.h"
#include "cli/progress.h"

#include <functional>
#include <optional>
#include <string>

namespace uext4::cli {

class Outcome {
public:
    explicit Outcome(const char* verb) : verb_(verb) {}
    // Failures are counted, but not told.
    void be_quiet() { quiet_ = true; }
    // What ended `part`, which was told; nothing, if it was done.
    std::optional<std::string> attempt(const std::function<void()>& part);
    void tell(int code, const std::string& what);
    // The same below a progress bar; whether it was done.
    bool attempt(Progress& progress, const std::function<void()>& part);
    void tell(Progress& progress, int code, const std::string& what);
    int code() const { return code_; }
    // Last of all: the end of the verb, if something failed.
    void finish() const;

private:
    const char* const verb_;
    bool quiet_ = false;
    int code_ = exit_ok;
};

}  // namespace uext4::cli
