// A flush that works, behind one that failed.
#include "tests/designs/design.h"

namespace uext4::designs::flush_unasked {
namespace {

const Register registered(
    {.name = "flush-unasked",
     .problem = "-",
     .seams = {"flushes_ask_for_others"},
     .change = "who has flushed does not ask whether another flush failed since his data was written",
     .seen = "after a power cut, what an fsync acknowledged is not there",
     .ends_as = {explore::Failure::wrong},
     .found = {{"error-flush", 500}}});

}  // namespace
}  // namespace uext4::designs::flush_unasked
