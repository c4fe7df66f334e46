// Functions in headers that kernel files share with others are always inlined: a copy that was compiled with
// AVX-512 flags must never be the one that the linker keeps for all.
#pragma once

#include <cstdint>

#define FASTNETS_INLINE inline __attribute__((always_inline))
#define FASTNETS_INLINE_LAMBDA __attribute__((always_inline))

namespace fastnets {

// std::min, for kernel files.
FASTNETS_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

}  // namespace fastnets
