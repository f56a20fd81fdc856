// Problem J: A mapping ahead of its data.
#include "tests/designs/design.h"

namespace uext4::designs::map_before_data {
namespace {

const Register registered({.name = "map-before-data",
                           .problem = "J",
                           .seams = {"data_before_mapping"},
                           .change = "the blocks are named before their data is written",
                           .seen = "after a power cut, bytes in the file that nobody wrote",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"append-cut", 15000}, {"insert-writeback", 15000}}});

}  // namespace
}  // namespace uext4::designs::map_before_data
