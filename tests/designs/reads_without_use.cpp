// A direct read that does not say which blocks it is on its way to.
#include "tests/designs/design.h"

namespace uext4::designs::reads_without_use {
namespace {

const Register registered({.name = "reads-without-use",
                           .problem = "C",
                           .seams = {"reads_hold_blocks"},
                           .change = "a direct read leaves the blocks it reads to whoever wants them next",
                           .seen = "the read finds what another file has written there",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"direct-read-moved", 15000}}});

}  // namespace
}  // namespace uext4::designs::reads_without_use
