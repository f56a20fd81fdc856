// Waiting for a directory by the order of a tree that a damaged image does not have.
#include "tests/designs/design.h"

namespace uext4::designs::child_awaited {
namespace {

const Register registered(
    {.name = "child-awaited",
     .problem = "-",
     .seams = {"directories_are_tried"},
     .change = "a directory that is removed, moved or replaced is waited for with its parent held",
     .seen = "a deadlock with a rename between the two, where the image names one of them in the other as well",
     .ends_as = {explore::Failure::deadlock},
     .found = {{"twice-rmdir", 800}, {"twice-rename", 800}}});

}  // namespace
}  // namespace uext4::designs::child_awaited
