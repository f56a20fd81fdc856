// A direct overwrite that asks for nothing when its data is there.
#include "tests/designs/design.h"

namespace uext4::designs::overwrite_uncompared {
namespace {

const Register registered(
    {.name = "overwrite-uncompared",
     .problem = "C",
     .seams = {"overwrites_compare"},
     .change = "a direct overwrite does not ask whether its blocks are left, or were written to meanwhile",
     .seen = "the overwrite is lost in blocks that the file has left, or below what a map had brought in",
     .ends_as = {explore::Failure::wrong},
     .found = {{"direct-moved", 24000}}});

}  // namespace
}  // namespace uext4::designs::overwrite_uncompared
