// A transaction without room in the log.
#include "tests/designs/design.h"

namespace uext4::designs::log_without_room {
namespace {

const Register registered({.name = "log-without-room",
                           .problem = "-",
                           .seams = {"log_has_room"},
                           .change = "neither who begins a transaction nor who commits it waits for room in the log",
                           .seen = "a commit that does not fit, and the journal is aborted",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"log-full", 500}}});

}  // namespace
}  // namespace uext4::designs::log_without_room
