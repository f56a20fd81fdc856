// Problem E: A punch of parts of a folio that a transaction has.
#include "tests/designs/design.h"

namespace uext4::designs::punch_before_commit {
namespace {

const Register registered({.name = "punch-before-commit",
                           .problem = "E",
                           .seams = {"punch_detaches"},
                           .change = "what a punch clears in a folio is not put aside for the transaction that has it",
                           .seen = "after a power cut, half a punch",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"mapped-punch-journaled", 800}}});

}  // namespace
}  // namespace uext4::designs::punch_before_commit
