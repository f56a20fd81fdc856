// A direct overwrite that looks at the cache too early.
#include "tests/designs/design.h"

namespace uext4::designs::overwrite_unseen {
namespace {

const Register registered({.name = "overwrite-unseen",
                           .problem = "C",
                           .seams = {"overwrites_look_last"},
                           .change = "a direct overwrite asks what is cached before it waits for a commit, not after",
                           .seen = "the overwrite is lost below what a map had brought in",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"mapped-overwrite", 4000}}});

}  // namespace
}  // namespace uext4::designs::overwrite_unseen
