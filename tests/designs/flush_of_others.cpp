// A sync that takes the flush of a commit under way for its own.
#include "tests/designs/design.h"

namespace uext4::designs::flush_of_others {
namespace {

const Register registered({.name = "flush-of-others",
                           .problem = "-",
                           .seams = {"flushes_are_later"},
                           .change = "a sync takes the flush of a commit that is under way for one behind its data",
                           .seen = "an fdatasync returns 0, and the data is not on the device",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"overwrite-commit", 6000}}});

}  // namespace
}  // namespace uext4::designs::flush_of_others
