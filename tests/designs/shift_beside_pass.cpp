// Collapse and insert beside a pass of writeback that has only the size left to settle.
#include "tests/designs/design.h"

namespace uext4::designs::shift_beside_pass {
namespace {

const Register registered(
    {.name = "shift-beside-pass",
     .problem = "J",
     .seams = {"shifts_await_passes"},
     .change = "a shift that finds everything written does not wait for a pass of writeback that is at its end",
     .seen = "the pass settles the size by where its data was before: it stands on disk before what was appended since",
     .ends_as = {explore::Failure::wrong},
     .found = {{"shift-append", 800}}});

}  // namespace
}  // namespace uext4::designs::shift_beside_pass
