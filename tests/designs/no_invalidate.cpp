// Problem B: A punch beside faults.
#include "tests/designs/design.h"

namespace uext4::designs {
namespace {

const Register registered({.name = "no-invalidate",
                           .problem = "B",
                           .seams = {"punch_invalidates"},
                           .change = "the punch does not take the invalidate lock",
                           .seen = "old bytes in the hole, through a map or by read(2)",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"mapped-punch", 1000}, {"punch-read", 500}}});

}  // namespace
}  // namespace uext4::designs
