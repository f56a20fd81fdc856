#include "iomap/mapping.h"

namespace uext4 {

const char* place_name(Place place) {
    switch (place) {
        case Place::hole: return "hole";
        case Place::reserved: return "reserved";
        case Place::granted: return "granted";
        case Place::inline_data: return "inline";
        case Place::unwritten: return "unwritten";
        case Place::written: return "written";
        case Place::mapped: return "mapped";
    }
    return "unknown";
}

}  // namespace uext4
