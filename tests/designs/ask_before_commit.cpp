// Problem E: A reader that asks the journal while a commit takes the contents over.
#include "tests/designs/design.h"

namespace uext4::designs::ask_before_commit {
namespace {

const Register registered(
    {.name = "ask-before-commit",
     .problem = "E",
     .seams = {"journal_is_asked_locked"},
     .change = "the journal looks for the contents before it takes its lock",
     .seen = "a reader sees what was there before a write, which the commit has and the folio no longer",
     .ends_as = {explore::Failure::wrong},
     .found = {{"journaled-takeover", 6000}}});

}  // namespace
}  // namespace uext4::designs::ask_before_commit
