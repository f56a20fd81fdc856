// Problem E: A folio that is free for reclaim before its transaction has it.
#include "tests/designs/design.h"

namespace uext4::designs::unlock_before_join {
namespace {

const Register registered({.name = "unlock-before-join",
                           .problem = "E",
                           .seams = {"joins_under_folio"},
                           .change = "the folio's lock is weakened to one for the copy and one for the joining",
                           .seen = "what was written is gone with the folio, or a deadlock of two that join",
                           .ends_as = {explore::Failure::wrong, explore::Failure::deadlock},
                           .found = {{"journaled-reclaim", 4000}}});

}  // namespace
}  // namespace uext4::designs::unlock_before_join
