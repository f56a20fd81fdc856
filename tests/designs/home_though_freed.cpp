// A checkpoint beside a running transaction that has freed what it changed.
#include "tests/designs/design.h"

namespace uext4::designs::home_though_freed {
namespace {

const Register registered(
    {.name = "home-though-freed",
     .problem = "-",
     .seams = {"home_is_not_freed"},
     .change = "a checkpoint writes blocks home that the running transaction has changed and then freed",
     .seen = "after a power cut, a change that was never committed",
     .ends_as = {explore::Failure::wrong},
     .found = {{"log-full", 2000}}});

}  // namespace
}  // namespace uext4::designs::home_though_freed
