// What an inode says, for ls, stat and find.
#pragma once

#include "cli/session.h"

namespace uext4::cli {

// "regular file", "directory", ... as stat(1) has them.
const char* type_name(mode_t mode);
// As find(1) has them: f, d, l, c, b, p, s.
char type_letter(mode_t mode);

// The inode's members for JSON: times in ISO 8601 with the offset of TZ, the mode as text and in octal.
Json describe(Session& s, const std::string& name, const std::string& path, Inode& inode);
// The same for an entry that cannot be read.
Json describe_damaged(const std::string& name, std::uint64_t inode, const std::string& error);

// Whether it has an access list, which `ls -l` marks with a plus sign.
bool has_access_list(Session& s, Inode& inode, const std::string& path);

}  // namespace uext4::cli
