// Problem K: A freeze.
#include "tests/designs/design.h"

namespace uext4::designs::setattr_through_freeze {
namespace {

const Register registered({.name = "setattr-through-freeze",
                           .problem = "K",
                           .seams = {"setattr_waits_for_thaw"},
                           .change = "chmod, chown and utimens do not wait for the thaw",
                           .seen = "something changes in a frozen file system",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"freeze-names", 100}}});

}  // namespace
}  // namespace uext4::designs::setattr_through_freeze
