// A sync beside another one.
#include "tests/designs/design.h"

namespace uext4::designs::forget_in_flight {
namespace {

const Register registered({.name = "forget-in-flight",
                           .problem = "-",
                           .seams = {"syncs_await_others"},
                           .change = "a sync looks for what is dirty, and not for what another one has on its way",
                           .seen = "an fsync returns 0, and the data is not on the device",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"two-syncs", 500}}});

}  // namespace
}  // namespace uext4::designs::forget_in_flight
