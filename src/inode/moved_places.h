// Where a file's blocks have got another meaning by a transaction that may not be durable yet: moved, made unwritten,
// or cut off within a cluster that the file keeps. What is written there in its place meanwhile, a cut would show where
// it was.
#pragma once

#include "base/numbers.h"
#include "journal/journal.h"

#include <vector>

namespace uext4 {

class MovedPlaces {
public:
    // All of the file, by this transaction, none older than those before.
    void note(Tid tid);
    // Logical blocks [first, end).
    void note(Tid tid, LogicalBlock first, LogicalBlock end, const Journal& journal);
    // The newest transaction that has moved any of these; 0 if none has.
    Tid newest(LogicalBlock first, LogicalBlock end) const;

private:
    struct Range {
        LogicalBlock first, end;
        Tid tid;
    };
    Tid all_ = 0;
    std::vector<Range> ranges_;
};

}  // namespace uext4
