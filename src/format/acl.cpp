#include "format/acl.h"

namespace uext4::format {

namespace {

bool has_id(AclTag tag) { return tag == AclTag::user || tag == AclTag::group; }

constexpr std::uint32_t nobody = 0xFFFFFFFF;  // (uid_t)-1 names no user

bool valid(const Acl& acl) {
    unsigned stage = 0;  // objects seen in order
    bool named = false, mask = false, group_obj = false, other = false, user_obj = false;
    auto order = [](AclTag t) {
        switch (t) {
            case AclTag::user_obj: return 1u;
            case AclTag::user: return 2u;
            case AclTag::group_obj: return 3u;
            case AclTag::group: return 4u;
            case AclTag::mask: return 5u;
            case AclTag::other: return 6u;
        }
        return 0u;
    };
    for (const AclEntry& e : acl) {
        const unsigned o = order(e.tag);
        if (o == 0 || o < stage || e.permissions > 7) return false;
        if (has_id(e.tag) && e.id == nobody) return false;
        if (o == stage && !has_id(e.tag)) return false;
        stage = o;
        named = named || has_id(e.tag);
        mask = mask || e.tag == AclTag::mask;
        user_obj = user_obj || e.tag == AclTag::user_obj;
        group_obj = group_obj || e.tag == AclTag::group_obj;
        other = other || e.tag == AclTag::other;
    }
    return user_obj && group_obj && other && (!named || mask);
}

}  // namespace

Result<Acl> decode_disk_acl(ConstBytes value) {
    if (value.size() < 4 || view_as<Le32>(value) != 1) return fail(EUCLEAN, "ACL: a_version is not 1, or is missing");
    Acl acl;
    for (std::size_t at = 4; at < value.size();) {
        if (value.size() - at < 4)
            return fail(EUCLEAN, "ACL: its value of {} bytes ends inside the entry at byte {}", value.size(), at);
        AclEntry e;
        e.tag = static_cast<AclTag>(view_as<Le16>(value, at).get());
        e.permissions = view_as<Le16>(value, at + 2);
        at += 4;
        if (has_id(e.tag)) {
            if (value.size() - at < 4)
                return fail(EUCLEAN, "ACL: its value of {} bytes ends inside the entry at byte {}", value.size(), at);
            e.id = view_as<Le32>(value, at);
            at += 4;
        }
        acl.push_back(e);
    }
    if (!valid(acl))
        return fail(EUCLEAN,
                    "ACL: its {} entries are no valid list, expected one each for owner, group and others, in order, "
                    "and a mask beside named ones",
                    acl.size());
    return acl;
}

Result<Acl> decode_xattr_acl(ConstBytes value) {
    if (value.size() < 4 || view_as<Le32>(value) != 2) return fail(EOPNOTSUPP, "ACL: version is not 2");
    if ((value.size() - 4) % 8 != 0) return fail(EINVAL, "ACL: {} bytes", value.size());
    Acl acl;
    for (std::size_t at = 4; at < value.size(); at += 8) {
        AclEntry e;
        e.tag = static_cast<AclTag>(view_as<Le16>(value, at).get());
        e.permissions = view_as<Le16>(value, at + 2);
        if (has_id(e.tag)) e.id = view_as<Le32>(value, at + 4);
        acl.push_back(e);
    }
    if (!acl.empty() && !valid(acl))
        return fail(EINVAL,
                    "ACL: its {} entries are no valid list, expected one each for owner, group and others, in order, "
                    "and a mask beside named ones",
                    acl.size());
    return acl;
}

namespace {
template <class Int>
void put(std::vector<std::byte>& out, Int value) {
    const DiskInt<Int, std::endian::little> disk(value);
    const ConstBytes bytes = bytes_of(disk);
    out.insert(out.end(), bytes.begin(), bytes.end());
}
}  // namespace

std::vector<std::byte> encode_disk_acl(const Acl& acl) {
    std::vector<std::byte> out;
    put<std::uint32_t>(out, 1);
    for (const AclEntry& e : acl) {
        put<std::uint16_t>(out, static_cast<std::uint16_t>(e.tag));
        put<std::uint16_t>(out, e.permissions);
        if (has_id(e.tag)) put<std::uint32_t>(out, e.id);
    }
    return out;
}

std::vector<std::byte> encode_xattr_acl(const Acl& acl) {
    std::vector<std::byte> out;
    put<std::uint32_t>(out, 2);
    for (const AclEntry& e : acl) {
        put<std::uint16_t>(out, static_cast<std::uint16_t>(e.tag));
        put<std::uint16_t>(out, e.permissions);
        put<std::uint32_t>(out, has_id(e.tag) ? e.id : nobody);
    }
    return out;
}

AclMode mode_of_acl(const Acl& acl) {
    AclMode out;
    unsigned group = 0;
    bool mask = false;
    for (const AclEntry& e : acl) {
        switch (e.tag) {
            case AclTag::user_obj: out.bits |= static_cast<std::uint16_t>(e.permissions << 6); break;
            case AclTag::group_obj:
                if (!mask) group = e.permissions;
                break;
            case AclTag::other: out.bits |= e.permissions; break;
            case AclTag::mask:
                group = e.permissions;
                mask = true;
                out.exact = false;
                break;
            default: out.exact = false; break;
        }
    }
    out.bits |= static_cast<std::uint16_t>(group << 3);
    return out;
}

void apply_mode_to_acl(Acl& acl, std::uint16_t mode) {
    bool mask = false;
    for (const AclEntry& e : acl) mask = mask || e.tag == AclTag::mask;
    for (AclEntry& e : acl) {
        if (e.tag == AclTag::user_obj) e.permissions = (mode >> 6) & 7;
        else if (e.tag == AclTag::other) e.permissions = mode & 7;
        else if (e.tag == (mask ? AclTag::mask : AclTag::group_obj)) e.permissions = (mode >> 3) & 7;
    }
}

void mask_created_acl(Acl& acl, std::uint16_t& mode) {
    bool mask = false;
    for (const AclEntry& e : acl) mask = mask || e.tag == AclTag::mask;
    auto both = [&](AclEntry& e, unsigned shift) {
        e.permissions &= static_cast<std::uint16_t>((mode >> shift) & 7);
        mode = static_cast<std::uint16_t>((mode & ~(7u << shift)) | static_cast<unsigned>(e.permissions) << shift);
    };
    for (AclEntry& e : acl) {
        if (e.tag == AclTag::user_obj) both(e, 6);
        else if (e.tag == AclTag::other) both(e, 0);
        else if (e.tag == (mask ? AclTag::mask : AclTag::group_obj)) both(e, 3);
    }
}

}  // namespace uext4::format
