// Problem H: Bytes before their size.
#include "tests/designs/design.h"

namespace uext4::designs::append_in_place {
namespace {

const Register registered({.name = "append-in-place",
                           .problem = "H",
                           .seams = {"appends_move"},
                           .change = "an append writes over the last block, where it lies",
                           .seen = "after a power cut, the device has bytes behind the end of the file",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"append-size", 100}}});

}  // namespace
}  // namespace uext4::designs::append_in_place
