// Problem A: A fault that converts before it takes its locks, and has the access asked for again.
#include "tests/designs/design.h"

namespace uext4::designs::drop_and_retry {
namespace {

const Register registered(
    {.name = "drop-and-retry",
     .problem = "A",
     .seams = {"fault_needs_no_retry"},
     .change =
         "a store's fault makes the call by which fallocate takes the contents out of the inode, and installs nothing",
     .seen = "EFAULT of a system call of the kernel, which cannot fault twice",
     .ends_as = {explore::Failure::wrong},
     .found = {{"mapped-inline", 500}}});

}  // namespace
}  // namespace uext4::designs::drop_and_retry
