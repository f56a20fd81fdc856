// Blocks are given away while the transaction that frees them is not durable.
#include "tests/designs/design.h"

namespace uext4::designs::freed_too_early {
namespace {

const Register registered({.name = "freed-too-early",
                           .problem = "-",
                           .seams = {"freed_when_durable"},
                           .change = "what a transaction frees is free before the log has the transaction, not after",
                           .seen = "after a power cut, a file that was not removed has another one's bytes",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"freed-given", 8000}}});

}  // namespace
}  // namespace uext4::designs::freed_too_early
