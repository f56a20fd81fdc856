// Problem H: Tails as they were left.
#include "tests/designs/design.h"

namespace uext4::designs::no_zeroing {
namespace {

const Register registered({.name = "no-zeroing",
                           .problem = "H",
                           .seams = {"zeroes_tails"},
                           .change = "what lies behind the end of the file, in its last page, is zeroed nowhere",
                           .seen = "bytes from behind the end are in the file, or on the device",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"mapped-tail", 500},
                                     {"mapped-tail-allocate", 500},
                                     {"mapped-tail-append", 500},
                                     {"mapped-tail-direct", 500},
                                     {"mapped-tail-write", 500},
                                     {"truncate-tail", 100},
                                     {"truncate-writeback", 3000}}});

}  // namespace
}  // namespace uext4::designs::no_zeroing
