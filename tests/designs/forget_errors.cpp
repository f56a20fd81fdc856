// Writes that failed and are forgotten.
#include "tests/designs/design.h"

namespace uext4::designs::forget_errors {
namespace {

const Register registered({.name = "forget-errors",
                           .problem = "-",
                           .seams = {"failed_writes_count"},
                           .change = "a failed write of data is taken for done",
                           .seen = "an fsync returns 0, and the data is not on the device",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"error-fsync", 500}, {"error-mapped", 500}}});

}  // namespace
}  // namespace uext4::designs::forget_errors
