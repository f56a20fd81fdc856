// An inode that knows nothing of its renaming.
#include "tests/designs/design.h"

namespace uext4::designs::rename_apart {
namespace {

const Register registered({.name = "rename-apart",
                           .problem = "-",
                           .seams = {"moved_inodes_join"},
                           .change = "an inode that is renamed does not join the transaction",
                           .seen = "an fsync of the file does not commit its new name",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"fsync-rename", 500}}});

}  // namespace
}  // namespace uext4::designs::rename_apart
