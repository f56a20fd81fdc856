// Problem D: The flag j of a file that is mapped.
#include "tests/designs/design.h"

namespace uext4::designs::switch_in_sight {
namespace {

const Register registered({.name = "switch-in-sight",
                           .problem = "D",
                           .seams = {"journal_flag_invalidates"},
                           .change = "the flag j is set and removed without the invalidate lock",
                           .seen = "after a power cut, a store that an fsync had promised is lost",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"mapped-journal-flag", 1500}}});

}  // namespace
}  // namespace uext4::designs::switch_in_sight
