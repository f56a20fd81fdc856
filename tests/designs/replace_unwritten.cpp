// A replacement by rename whose data comes later.
#include "tests/designs/design.h"

namespace uext4::designs::replace_unwritten {
namespace {

const Register registered({.name = "replace-unwritten",
                           .problem = "-",
                           .seams = {"replacements_are_flushed"},
                           .change = "a rename that replaces a file does not write the new one's data first",
                           .seen = "after a power cut, the replaced file is empty",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"fsync-rename", 2000}}});

}  // namespace
}  // namespace uext4::designs::replace_unwritten
