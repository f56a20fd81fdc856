// What follows a recovery: the file system is used again, and there is another cut.
#pragma once

#include "tests/crash/states.h"

#include <random>
#include <string>

namespace uext4::crash {

// Recovers the image in place, does some steps of its recording again on what that left, which the log has transactions
// of the same shape for, and cuts them at some random places: each is judged by the promises of these steps. Empty:
// fine. `last` is then the image after the last of the cuts, else that after the one that failed.
std::string judge_second_life(const Recording& recording, const CrashState& state, std::mt19937_64& random,
                              CrashState& last);

}  // namespace uext4::crash
