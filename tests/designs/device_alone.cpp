// Problem C: A direct read that knows of the device only.
#include "tests/designs/design.h"

namespace uext4::designs::device_alone {
namespace {

const Register registered({.name = "device-alone",
                           .problem = "C",
                           .seams = {"direct_reads_write_back"},
                           .change = "a direct read does not write back first what is dirty",
                           .seen = "what was written beside the read is overwritten with older bytes",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"mapped-direct-read", 500}}});

}  // namespace
}  // namespace uext4::designs::device_alone
