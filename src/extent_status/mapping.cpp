#include "extent_status/mapping.h"

namespace uext4 {

const char* block_state_name(BlockState place) {
    switch (place) {
        case BlockState::hole: return "hole";
        case BlockState::delayed: return "reserved";
        case BlockState::allocated: return "granted";
        case BlockState::inline_data: return "inline";
        case BlockState::unwritten: return "unwritten";
        case BlockState::converting: return "written";
        case BlockState::mapped: return "mapped";
    }
    return "unknown";
}

}  // namespace uext4
