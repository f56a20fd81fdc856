// Problem A: Flags of a file whose contents leave the inode.
#include "tests/designs/design.h"

namespace uext4::designs::stale_flags {
namespace {

const Register registered({.name = "stale-flags",
                           .problem = "A",
                           .seams = {"flags_are_fresh"},
                           .change = "the flags of an inode are set from what they were before the wait for a handle",
                           .seen = "what has left the inode is looked for there",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"inline-flags", 2000}}});

}  // namespace
}  // namespace uext4::designs::stale_flags
