// What a recovery would put over what was written later.
#include "tests/designs/design.h"

namespace uext4::designs::overwrite_logged {
namespace {

const Register registered({.name = "overwrite-logged",
                           .problem = "-",
                           .seams = {"logged_is_asked"},
                           .change = "a block whose image the log has is written over in its place",
                           .seen = "after a power cut, what an fsync acknowledged has older bytes over it",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"logged-end", 500}}});

}  // namespace
}  // namespace uext4::designs::overwrite_logged
