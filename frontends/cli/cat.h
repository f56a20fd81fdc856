// A file of an image on standard output.
#pragma once

#include "cli/session.h"

#include <string>

namespace uext4::cli {

void print_file(Session& session, const std::string& path);

}  // namespace uext4::cli
