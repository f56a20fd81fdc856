// Problem C: Blocks that are the file's before a direct write has filled them.
#include "tests/designs/design.h"

namespace uext4::designs::show_new_blocks {
namespace {

const Register registered({.name = "show-new-blocks",
                           .problem = "C",
                           .seams = {"new_blocks_expect_data"},
                           .change = "nobody is told that the blocks of a direct write have no data yet",
                           .seen = "a reader sees what the blocks held for another file",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"direct-hole", 500}}});

}  // namespace
}  // namespace uext4::designs::show_new_blocks
