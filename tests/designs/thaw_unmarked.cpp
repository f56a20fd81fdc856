// Problem K: A freeze.
#include "tests/designs/design.h"

namespace uext4::designs::thaw_unmarked {
namespace {

const Register registered({.name = "thaw-unmarked",
                           .problem = "K",
                           .seams = {"thaw_marks_first"},
                           .change = "the gate is opened before the superblock says that there is a log to replay",
                           .seen = "after a power cut behind the thaw, what was synced is gone",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"freeze-names", 100}}});

}  // namespace
}  // namespace uext4::designs::thaw_unmarked
