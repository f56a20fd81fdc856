// uext4_extents: where the bytes of a file lie.
#include "capi/call.h"
#include "capi/handles.h"

using namespace uext4;
using namespace uext4::capi;

namespace {

unsigned flags_of(BlockState place) {
    switch (place) {
        case BlockState::delayed: return UEXT4_EXTENT_UNPLACED;
        case BlockState::allocated: return UEXT4_EXTENT_UNNAMED;
        case BlockState::inline_data: return UEXT4_EXTENT_INLINE;
        case BlockState::unwritten: return UEXT4_EXTENT_UNWRITTEN;
        case BlockState::converting: return UEXT4_EXTENT_UNNAMED;
        default: return 0;
    }
}

}  // namespace

extern "C" int uext4_extents(uext4_file* file, off_t offset, off_t length,
                             int (*visit)(void* context, const uext4_extent* extent), void* context) try {
    const Call call;
    if (!file || !visit) return invalid("uext4_extents: NULL");
    if (offset < 0 || length < 0) return invalid("uext4_extents: a negative offset or length");
    const std::uint64_t block_size = file->fs->fs->volume().geometry().block_size;
    int stopped = 0;
    const Result<void> walked = file->fs->fs->extents(
        file->file->inode(), static_cast<std::uint64_t>(offset), static_cast<std::uint64_t>(length),
        [&](const Mapping& mapping) {
            if (mapping.state == BlockState::hole) return true;
            const std::uint64_t physical = mapping.has_block() ? mapping.block.value * block_size : 0;
            const uext4_extent extent{mapping.offset, mapping.length, physical, flags_of(mapping.state)};
            stopped = visit(context, &extent);
            return stopped == 0;
        });
    return walked ? stopped : report(walked.error());
}
UEXT4_NOTHING_THROWN
