// A directory that goes while somebody puts a name into it.
#include "tests/designs/design.h"

namespace uext4::designs::rmdir_unlocked {
namespace {

const Register registered({.name = "rmdir-unlocked",
                           .problem = "-",
                           .seams = {"removal_locks_victim", "rename_locks_children"},
                           .change = "a directory that is removed, or replaced by a rename, is not locked",
                           .seen = "it goes with a name in it",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"rmdir", 100}, {"rename-over-directory", 100}}});

}  // namespace
}  // namespace uext4::designs::rmdir_unlocked
