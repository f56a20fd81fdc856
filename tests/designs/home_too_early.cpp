// A checkpoint beside a running transaction.
#include "tests/designs/design.h"

namespace uext4::designs::home_too_early {
namespace {

const Register registered({.name = "home-too-early",
                           .problem = "-",
                           .seams = {"home_is_committed"},
                           .change = "a checkpoint writes blocks home that the running transaction has changed",
                           .seen = "after a power cut, a part of what was never committed",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"log-full", 500}}});

}  // namespace
}  // namespace uext4::designs::home_too_early
