// Problem I: Space is promised to several at once.
#include "tests/designs/design.h"

namespace uext4::designs::claim_in_two_steps {
namespace {

const Register registered({.name = "claim-in-two-steps",
                           .problem = "I",
                           .seams = {"claims_at_once"},
                           .change = "space is promised by a look and a store, and not in one step",
                           .seen = "an fsync finds no space for what was accepted",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"last-promise", 30000}}});

}  // namespace
}  // namespace uext4::designs::claim_in_two_steps
