// Square blocks of floats, transposed in registers. Included by kernel files only.
#pragma once

#include "cpu/vec.h"

namespace fastnets {
namespace FASTNETS_LEVEL {

// Lane j of v[i] becomes lane i of v[j], for as many vectors as one has lanes.
#if defined(FASTNETS_LEVEL_avx512)

// Of the four vectors from `v` on, the 4 x 4 blocks that their quarters are.
FASTNETS_INLINE void transpose_quarters(Vec* v) {
  const __m512 a = _mm512_unpacklo_ps(v[0].v, v[1].v), b = _mm512_unpackhi_ps(v[0].v, v[1].v);
  const __m512 c = _mm512_unpacklo_ps(v[2].v, v[3].v), d = _mm512_unpackhi_ps(v[2].v, v[3].v);
  v[0].v = _mm512_shuffle_ps(a, c, 0x44), v[1].v = _mm512_shuffle_ps(a, c, 0xee);
  v[2].v = _mm512_shuffle_ps(b, d, 0x44), v[3].v = _mm512_shuffle_ps(b, d, 0xee);
}
FASTNETS_INLINE void transpose(Vec (&v)[16]) {
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) transpose_quarters(v + i);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {  // the blocks: quarter j of vector i + 4 k to quarter k of vector i + 4 j
    const __m512 a = _mm512_shuffle_f32x4(v[i].v, v[i + 4].v, 0x44);
    const __m512 b = _mm512_shuffle_f32x4(v[i].v, v[i + 4].v, 0xee);
    const __m512 c = _mm512_shuffle_f32x4(v[i + 8].v, v[i + 12].v, 0x44);
    const __m512 d = _mm512_shuffle_f32x4(v[i + 8].v, v[i + 12].v, 0xee);
    v[i].v = _mm512_shuffle_f32x4(a, c, 0x88), v[i + 4].v = _mm512_shuffle_f32x4(a, c, 0xdd);
    v[i + 8].v = _mm512_shuffle_f32x4(b, d, 0x88), v[i + 12].v = _mm512_shuffle_f32x4(b, d, 0xdd);
  }
}

#elif defined(FASTNETS_LEVEL_avx2)

FASTNETS_INLINE void transpose_halves(Vec* v) {
  const __m256 a = _mm256_unpacklo_ps(v[0].v, v[1].v), b = _mm256_unpackhi_ps(v[0].v, v[1].v);
  const __m256 c = _mm256_unpacklo_ps(v[2].v, v[3].v), d = _mm256_unpackhi_ps(v[2].v, v[3].v);
  v[0].v = _mm256_shuffle_ps(a, c, 0x44), v[1].v = _mm256_shuffle_ps(a, c, 0xee);
  v[2].v = _mm256_shuffle_ps(b, d, 0x44), v[3].v = _mm256_shuffle_ps(b, d, 0xee);
}
FASTNETS_INLINE void transpose(Vec (&v)[8]) {
  transpose_halves(v), transpose_halves(v + 4);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m256 low = _mm256_permute2f128_ps(v[i].v, v[i + 4].v, 0x20);
    v[i + 4].v = _mm256_permute2f128_ps(v[i].v, v[i + 4].v, 0x31), v[i].v = low;
  }
}

#else

FASTNETS_INLINE void transpose(Vec (&v)[4]) {
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < i; ++j) {
      const float other = v[i].v[j];
      v[i].v[j] = v[j].v[i], v[j].v[i] = other;
    }
  }
}

#endif

}  // namespace FASTNETS_LEVEL
}  // namespace fastnets
