#include "fuse/titles.h"

#include <bsd/unistd.h>
#include <sys/prctl.h>

namespace uext4::fuse {

void set_title(const char* name, const std::string& role, const std::string& mount) {
    prctl(PR_SET_NAME, name);
    setproctitle("-uext4: %s %s", role.c_str(), mount.c_str());
}

}  // namespace uext4::fuse
