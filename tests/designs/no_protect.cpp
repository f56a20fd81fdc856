// Problem D: A commit beside stores.
#include "tests/designs/design.h"

namespace uext4::designs::no_protect {
namespace {

const Register registered({.name = "no-protect",
                           .problem = "D",
                           .seams = {"commit_protects"},
                           .change = "the commit does not take the right to store from the maps",
                           .seen = "after a power cut, a store that an fsync had promised is lost",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"mapped-journaled", 1000}}});

}  // namespace
}  // namespace uext4::designs::no_protect
