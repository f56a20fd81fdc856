// For programs that start threads by the thousand.
#pragma once

#include <pthread.h>

#include <cstddef>

namespace uext4 {

// Threads started from here on have stacks of 1 MiB. The C library keeps 40 MiB of stacks for the next threads: of the
// usual 8 MiB these are five, and each further thread has its stack mapped, touched page by page and unmapped again.
inline void use_small_stacks() {
    constexpr std::size_t stack_size = 1 << 20;
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) return;
    if (pthread_attr_setstacksize(&attributes, stack_size) == 0) pthread_setattr_default_np(&attributes);
    pthread_attr_destroy(&attributes);
}

}  // namespace uext4
