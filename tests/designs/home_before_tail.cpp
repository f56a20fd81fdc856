// What a recovery would put over what was written later.
#include "tests/designs/design.h"

namespace uext4::designs::home_before_tail {
namespace {

const Register registered(
    {.name = "home-before-tail",
     .problem = "-",
     .seams = {"tail_counts"},
     .change = "an image counts as out of the log once it is home, before the log's superblock says so",
     .seen = "after a power cut, what an fsync acknowledged has older bytes over it",
     .ends_as = {explore::Failure::wrong},
     .found = {{"logged-end", 4000}}});

}  // namespace
}  // namespace uext4::designs::home_before_tail
