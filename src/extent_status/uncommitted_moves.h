// Where a file's blocks have got another meaning by a transaction that may not be durable yet: shifted to another place
// in the file, or emptied where they are (made unwritten, or cut off within a cluster that the file keeps). A cut
// before that is durable finds them as they were: what is written over them in their place meanwhile would be seen
// where they had been, or behind the end that the file had there.
#pragma once

#include "base/numbers.h"
#include "journal/journal.h"

#include <vector>

namespace uext4 {

class UncommittedMoves {
public:
    // Any of the file's blocks, by this transaction, none older than those before.
    void note_shift(Tid tid) { shifted_ = tid; }
    // The newest one that has done so; 0 if none has.
    Tid shift_tid() const { return shifted_; }

    // The same of logical blocks [first, end).
    void note_unmap(Tid tid, LogicalBlock first, LogicalBlock end, const Journal& journal);
    Tid unmap_tid(LogicalBlock first, LogicalBlock end) const;

private:
    struct Range {
        LogicalBlock first, end;
        Tid tid;
    };
    Tid shifted_ = 0;
    Tid oldest_kept_unmap_ = 0;  // as far as is known
    std::vector<Range> unmaps_;
};

}  // namespace uext4
