// Problem H: Zeros at the cut and in writeback only.
#include "tests/designs/design.h"

namespace uext4::designs::growth_over_stores {
namespace {

const Register registered({.name = "growth-over-stores",
                           .problem = "H",
                           .seams = {"growth_zeroes"},
                           .change = "what was stored behind the end is not zeroed when the file grows over it",
                           .seen = "a store that was made behind the end is in the file",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"mapped-tail", 500},
                                     {"mapped-tail-allocate", 2500},
                                     {"mapped-tail-append", 500},
                                     {"mapped-tail-direct", 2500},
                                     {"mapped-tail-write", 500}}});

}  // namespace
}  // namespace uext4::designs::growth_over_stores
