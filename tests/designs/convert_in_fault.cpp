// Problem A: A fault that converts under its own locks.
#include "tests/designs/design.h"

namespace uext4::designs::convert_in_fault {
namespace {

const Register registered(
    {.name = "convert-in-fault",
     .problem = "A",
     .seams = {"fault_only_reserves"},
     .change =
         "a store's fault makes the call by which fallocate takes the contents out of the inode, under Invalidate",
     .seen = "a deadlock: the call wants Inode, whose holder (a truncate) wants Invalidate",
     .ends_as = {explore::Failure::deadlock},
     .found = {{"mapped-inline", 4000}}});

}  // namespace
}  // namespace uext4::designs::convert_in_fault
