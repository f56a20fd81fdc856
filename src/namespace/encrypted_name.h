// What stands for a name that is encrypted, as nobody here has the key: the ciphertext may have any byte, also '/' and
// zero.
#pragma once

#include "base/numbers.h"

#include <string>
#include <string_view>

namespace uext4 {

// base64url (RFC 4648, section 5) without padding; of a ciphertext whose name would be longer than a name may be the
// beginning, and the number of the inode behind it. Never longer than 255 bytes.
std::string encoded_encrypted_name(std::string_view cipher, InodeNr inode);

}  // namespace uext4
