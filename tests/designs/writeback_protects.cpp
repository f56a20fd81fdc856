// Problem D: Stores that only writeback keeps out of a commit.
#include "tests/designs/design.h"

namespace uext4::designs::writeback_protects {
namespace {

const Register registered(
    {.name = "writeback-protects",
     .problem = "D",
     .seams = {"commit_protects_by_itself"},
     .change = "the right to store is taken from the maps by writeback, before the commit, and not by the commit",
     .seen = "after a power cut, a store that an fsync had promised is lost",
     .ends_as = {explore::Failure::wrong},
     .found = {{"mapped-journaled", 1000}}});

}  // namespace
}  // namespace uext4::designs::writeback_protects
