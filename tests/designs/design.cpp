#include "tests/designs/design.h"

#include <algorithm>
#include <utility>

namespace uext4::designs {

namespace {

std::vector<WrongDesign>& registry() {
    static std::vector<WrongDesign> designs;
    return designs;
}

}  // namespace

Register::Register(WrongDesign design) { registry().push_back(std::move(design)); }

const std::vector<WrongDesign>& all() {
    auto& designs = registry();
    if (!std::ranges::is_sorted(designs, {}, &WrongDesign::name)) std::ranges::sort(designs, {}, &WrongDesign::name);
    return designs;
}

}  // namespace uext4::designs
