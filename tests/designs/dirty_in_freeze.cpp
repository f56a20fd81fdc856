// Problem K: A freeze.
#include "tests/designs/design.h"

namespace uext4::designs::dirty_in_freeze {
namespace {

const Register registered({.name = "dirty-in-freeze",
                           .problem = "K",
                           .seams = {"freeze_writes_back"},
                           .change = "a freeze commits what there is, and does not write back what is dirty",
                           .seen = "a frozen image lacks what was written before the freeze",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"freeze", 150}, {"mapped-freeze", 100}}});

}  // namespace
}  // namespace uext4::designs::dirty_in_freeze
