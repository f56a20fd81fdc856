// What a direct write has written, before it shows in all views.
#include "tests/designs/design.h"

namespace uext4::designs::short_write_late {
namespace {

const Register registered(
    {.name = "short-write-late",
     .problem = "C",
     .seams = {"parts_show_first"},
     .change = "what a direct write has written shows in the file only after it has looked for room for the rest",
     .seen = "a store in between has the older page around it, which is written over what was acknowledged",
     .ends_as = {explore::Failure::wrong},
     .found = {{"mapped-direct-short", 500}}});

}  // namespace
}  // namespace uext4::designs::short_write_late
