// Problem F: A mapping that is stale when it is used.
#include "tests/designs/design.h"

namespace uext4::designs::no_cookie {
namespace {

const Register registered(
    {.name = "no-cookie",
     .problem = "F",
     .seams = {"mapping_is_fresh"},
     .change = "the folio's lock is weakened to one for the look-up and one for the read, and nothing is compared",
     .seen = "a reader sees what is no longer in the file",
     .ends_as = {explore::Failure::wrong},
     .found = {{"stale-mapping", 500}}});

}  // namespace
}  // namespace uext4::designs::no_cookie
