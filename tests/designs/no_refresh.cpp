// Problem C: A direct overwrite beside those who read.
#include "tests/designs/design.h"

namespace uext4::designs::no_refresh {
namespace {

const Register registered({.name = "no-refresh",
                           .problem = "C",
                           .seams = {"overwrites_refresh"},
                           .change = "a direct overwrite leaves alone what was cached beside it",
                           .seen = "old bytes behind a direct write, through a map or by read(2)",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"direct-cached", 3000}, {"mapped-direct", 1500}}});

}  // namespace
}  // namespace uext4::designs::no_refresh
