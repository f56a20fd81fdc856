// Problem C: A read past the cache that keeps nobody out.
#include "tests/designs/design.h"

namespace uext4::designs::around_unlocked {
namespace {

const Register registered({.name = "around-unlocked",
                           .problem = "C",
                           .seams = {"reads_around_are_locked"},
                           .change = "a large read of a mount, past the cache, does not take the inode's lock",
                           .seen = "a reader sees what the blocks hold for another file",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"around-punch", 4000}}});

}  // namespace
}  // namespace uext4::designs::around_unlocked
