// Problem B: A truncate beside faults.
#include "tests/designs/design.h"

namespace uext4::designs::truncate_in_sight {
namespace {

const Register registered({.name = "truncate-in-sight",
                           .problem = "B",
                           .seams = {"truncate_invalidates"},
                           .change = "the truncate does not take the invalidate lock",
                           .seen = "what was stored behind the cut is in the file that grows again",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"mapped-truncate-grow", 500}, {"truncate-writeback", 1500}}});

}  // namespace
}  // namespace uext4::designs::truncate_in_sight
