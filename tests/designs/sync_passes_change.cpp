// A sync beside a truncation, a punch or a zeroing.
#include "tests/designs/design.h"

namespace uext4::designs::sync_passes_change {
namespace {

const Register registered({.name = "sync-passes-change",
                           .problem = "-",
                           .seams = {"syncs_await_changes"},
                           .change = "a sync that finds nothing dirty does not ask whether that is being taken away",
                           .seen = "an fsync returns 0, and a cut shows what was there before the write",
                           .ends_as = {explore::Failure::wrong},
                           .found = {{"sync-truncate", 500},
                                     {"mapped-sync-punch", 2500},
                                     {"mapped-sync-zero", 6500},
                                     {"mapped-sync-punch-full", 2500},
                                     {"mapped-sync-zero-full", 4000}}});

}  // namespace
}  // namespace uext4::designs::sync_passes_change
