// Places where a test may weaken the code, to see that the weakened design is found. In the product each is
// the constant true: nothing of it is left in the program or the library. The wrong designs are in tests/designs.
#pragma once

#if defined(UEXT4_SEAMS) && UEXT4_SEAMS

namespace uext4::seams {
// Whether the call guarded by the seam is made. Defined by the tests.
bool is_enabled(const char* name);
}  // namespace uext4::seams
#define UEXT4_SEAM(name) (::uext4::seams::is_enabled("seam:" #name))

#else

#define UEXT4_SEAM(name) true

#endif
