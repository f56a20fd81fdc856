// libFuzzer's door to the target that UEXT4_FUZZ_TARGET names.
#include "tests/fuzz/targets.h"

#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const uext4::fuzz::Target* target = uext4::fuzz::find_target(UEXT4_FUZZ_TARGET);
    target->run(uext4::ConstBytes(reinterpret_cast<const std::byte*>(data), size));
    return 0;
}
