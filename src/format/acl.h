// POSIX ACLs: on disk (version 1) and as the value of system.posix_acl_* (version 2).
#pragma once

#include "base/bytes.h"
#include "base/result.h"

#include <cstdint>
#include <vector>

namespace uext4::format {

enum class AclTag : std::uint16_t { user_obj = 1, user = 2, group_obj = 4, group = 8, mask = 0x10, other = 0x20 };

struct AclEntry {
    AclTag tag{};
    std::uint16_t permissions = 0;  // rwx bits
    std::uint32_t id = 0;           // of user and group
    bool operator==(const AclEntry&) const = default;
};
using Acl = std::vector<AclEntry>;

// EINVAL (from a caller) or EUCLEAN (from disk) for anything that is no valid ACL: order, one of each object, a
// mask when there are named entries.
Result<Acl> decode_disk_acl(ConstBytes value);
Result<Acl> decode_xattr_acl(ConstBytes value);
std::vector<std::byte> encode_disk_acl(const Acl& acl);
std::vector<std::byte> encode_xattr_acl(const Acl& acl);

// The mode's bits that the ACL says; `exact` false when the ACL says more than a mode can.
struct AclMode {
    std::uint16_t bits = 0;
    bool exact = true;
};
AclMode mode_of_acl(const Acl& acl);
// chmod: sets owner, group class (the mask, if there is one) and other.
void apply_mode_to_acl(Acl& acl, std::uint16_t mode);
// Creation under a default ACL: both lose what the other does not grant.
void mask_created_acl(Acl& acl, std::uint16_t& mode);

}  // namespace uext4::format
