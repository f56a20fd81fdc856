// Whom most tests act as.
#pragma once

#include "inode/access.h"

namespace uext4 {

inline const Credentials root = Credentials::root();

}  // namespace uext4
