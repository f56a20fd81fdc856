#include "cli/copy.h"

#include <limits.h>

namespace uext4::cli {

namespace {

// Whether `directory` is `above`, or lies in it.
bool lies_in(Session& image, InodeRef directory, const Inode& above) {
    // In a damaged image ".." may lead in a circle.
    for (std::size_t steps = 0; steps < PATH_MAX; ++steps) {
        if (directory->number() == above.number()) return true;
        InodeRef parent = value_or_fail(image.fs().lookup(*directory, "..", operator_identity(), false),
                                        image.at(fmt::format("<{}>/..", directory->number())));
        if (parent->number() == directory->number()) return false;
        directory = std::move(parent);
    }
    return false;
}

bool one_name(Session& image, const std::string& a, const std::string& b) {
    const FileSystem::Parent first = image.parent(a), second = image.parent(b);
    return first.directory->number() == second.directory->number() && first.name == second.name;
}

}  // namespace

bool is_to_copy(Session& image, const std::string& source, const std::string& target, const CopyOptions& o) {
    const Result<InodeRef> from = image.fs().resolve(source, operator_identity(), o.follows_named());
    if (!from || ((*from)->is_directory() && !o.recursive)) return true;  // told by the copy itself
    const Result<InodeRef> there = image.fs().resolve(target, operator_identity());
    std::string place = target;
    if (there && (*there)->is_directory() && !means_contents(source))
        place = fmt::format("<{}>/{}", (*there)->number(), last_part(source));
    const bool link = (*from)->is_symlink();  // copied itself, it is not what it leads to
    const Result<InodeRef> old = image.fs().resolve(place, operator_identity(), !link);
    if (old && (*old)->number() == (*from)->number()) {
        if (link && !one_name(image, source, place)) return false;
        fail_with(exit_negative, fmt::format("{} and {} are the same", image.at(source), image.at(place)));
    }
    if (!(*from)->is_directory()) return true;
    const InodeRef into = there && (*there)->is_directory() ? *there : image.parent(target).directory;
    if (lies_in(image, into, **from))
        fail_with(exit_negative,
                  fmt::format("{}: a directory cannot be copied into itself, {}", image.at(source), image.at(place)));
    return true;
}

}  // namespace uext4::cli
