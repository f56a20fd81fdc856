// A flush that began before the data was written is taken for one of it.
#include "tests/designs/design.h"

namespace uext4::designs::flush_under_way {
namespace {

const Register registered({.name = "flush-under-way",
                           .problem = "-",
                           .seams = {"flushes_begin_later"},
                           .change = "who wants a flush is content with the end of one that has begun already",
                           .seen = "after a power cut, what an fsync acknowledged is not there",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"error-flush", 6000}}});

}  // namespace
}  // namespace uext4::designs::flush_under_way
