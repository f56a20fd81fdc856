// A transaction without room in the log.
#include "tests/designs/design.h"

namespace uext4::designs {
namespace {

const Register registered({.name = "log-without-room",
                           .problem = "-",
                           .seams = {"start_awaits_room"},
                           .change = "a transaction begins without waiting for room in the log",
                           .seen = "a commit that does not fit, and the journal is aborted",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"log-full", 500}}});

}  // namespace
}  // namespace uext4::designs
