// Sums over the lanes of vectors. Included by kernel files only.
#pragma once

#include "cpu/vec.h"

namespace fastnets {
namespace FASTNETS_LEVEL {

// lane_sums: lane i is the sum of all lanes of v[i], for as many vectors as one has lanes: a tree that adds
// halves of two vectors at a time, 3 instructions a vector. lane_sum: of one vector.
#if defined(FASTNETS_LEVEL_avx512)

FASTNETS_INLINE __m512 add_pairs(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
}
FASTNETS_INLINE __m512 add_wide_pairs(__m512 a, __m512 b) {
  const __m512d left = _mm512_castps_pd(a), right = _mm512_castps_pd(b);
  return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(left, right)),
                       _mm512_castpd_ps(_mm512_unpackhi_pd(left, right)));
}
FASTNETS_INLINE __m512 add_quarters(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}
FASTNETS_INLINE Vec lane_sums(const Vec (&v)[16]) {
  __m512 four[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const Vec* const part = v + 4 * i;
    four[i] = add_wide_pairs(add_pairs(part[0].v, part[1].v), add_pairs(part[2].v, part[3].v));
  }
  return {add_quarters(add_quarters(four[0], four[1]), add_quarters(four[2], four[3]))};
}

FASTNETS_INLINE float lane_sum(Vec v) { return _mm512_reduce_add_ps(v.v); }

#elif defined(FASTNETS_LEVEL_avx2)

FASTNETS_INLINE __m256 add_pairs(__m256 a, __m256 b) {
  return _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
}
FASTNETS_INLINE __m256 add_four(const Vec* v) {
  const __m256d left = _mm256_castps_pd(add_pairs(v[0].v, v[1].v));
  const __m256d right = _mm256_castps_pd(add_pairs(v[2].v, v[3].v));
  return _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(left, right)),
                       _mm256_castpd_ps(_mm256_unpackhi_pd(left, right)));
}
FASTNETS_INLINE Vec lane_sums(const Vec (&v)[8]) {
  const __m256 low = add_four(v), high = add_four(v + 4);
  return {_mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31))};
}

FASTNETS_INLINE float lane_sum(Vec v) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v.v), _mm256_extractf128_ps(v.v, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

#else

FASTNETS_INLINE float lane_sum(Vec v) { return (v.v[0] + v.v[1]) + (v.v[2] + v.v[3]); }
FASTNETS_INLINE Vec lane_sums(const Vec (&v)[4]) {
  Vec sums;
  for (int i = 0; i < 4; ++i) sums.v[i] = lane_sum(v[i]);
  return sums;
}

#endif

}  // namespace FASTNETS_LEVEL
}  // namespace fastnets
