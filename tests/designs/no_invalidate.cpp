// Problem B: Ranges that go, or move, beside faults.
#include "tests/designs/design.h"

namespace uext4::designs::no_invalidate {
namespace {

const Register registered({.name = "no-invalidate",
                           .problem = "B",
                           .seams = {"punch_invalidates", "zeroing_invalidates", "shift_invalidates"},
                           .change = "who punches, zeroes or shifts a range does not take the invalidate lock",
                           .seen = "old bytes in the range, through a map or by read(2)",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"mapped-punch", 1000},
                                     {"punch-read", 500},
                                     {"mapped-zero", 600},
                                     {"mapped-collapse", 300},
                                     {"mapped-insert", 300},
                                     {"collapse-writeback", 600}}});

}  // namespace
}  // namespace uext4::designs::no_invalidate
