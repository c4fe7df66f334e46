// Vec: the float vector of the level that this unit is compiled for. Included by kernel files only.
//
// Everything is in the namespace of the level (see cpu/isa.h), always inlined, and covers just what the
// kernels use. load(p, n) and store(p, n) touch exactly n <= width floats; the other lanes load 0.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(FASTNETS_LEVEL_avx512) || defined(FASTNETS_LEVEL_avx2)
#include <immintrin.h>
#endif

#include "cpu/isa.h"

#define FASTNETS_INLINE inline __attribute__((always_inline))

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

#if defined(FASTNETS_LEVEL_avx512)

struct Vec {
  static constexpr int width = 16;
  __m512 v;
  static FASTNETS_INLINE __mmask16 mask(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
  static FASTNETS_INLINE Vec set(float x) { return {_mm512_set1_ps(x)}; }
  static FASTNETS_INLINE Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static FASTNETS_INLINE Vec load(const float* p, int n) { return {_mm512_maskz_loadu_ps(mask(n), p)}; }
  FASTNETS_INLINE void store(float* p) const { _mm512_storeu_ps(p, v); }
  FASTNETS_INLINE void store(float* p, int n) const { _mm512_mask_storeu_ps(p, mask(n), v); }
};
FASTNETS_INLINE Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
FASTNETS_INLINE Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
FASTNETS_INLINE Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
FASTNETS_INLINE Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
FASTNETS_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }

#elif defined(FASTNETS_LEVEL_avx2)

struct Vec {
  static constexpr int width = 8;
  __m256 v;
  static FASTNETS_INLINE __m256i mask(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static FASTNETS_INLINE Vec set(float x) { return {_mm256_set1_ps(x)}; }
  static FASTNETS_INLINE Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static FASTNETS_INLINE Vec load(const float* p, int n) { return {_mm256_maskload_ps(p, mask(n))}; }
  FASTNETS_INLINE void store(float* p) const { _mm256_storeu_ps(p, v); }
  FASTNETS_INLINE void store(float* p, int n) const { _mm256_maskstore_ps(p, mask(n), v); }
};
FASTNETS_INLINE Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
FASTNETS_INLINE Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
FASTNETS_INLINE Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
FASTNETS_INLINE Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
FASTNETS_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }

#else

// Four floats in plain C++, which compilers map to SSE2 or NEON.
struct Vec {
  static constexpr int width = 4;
  float v[4];
  static FASTNETS_INLINE Vec set(float x) { return {{x, x, x, x}}; }
  static FASTNETS_INLINE Vec load(const float* p) { return load(p, width); }
  static FASTNETS_INLINE Vec load(const float* p, int n) {
    Vec r{};
    std::memcpy(r.v, p, sizeof(float) * static_cast<size_t>(n));
    return r;
  }
  FASTNETS_INLINE void store(float* p) const { store(p, width); }
  FASTNETS_INLINE void store(float* p, int n) const {
    std::memcpy(p, v, sizeof(float) * static_cast<size_t>(n));
  }
};
#define FASTNETS_LANEWISE(name, expression)          \
  FASTNETS_INLINE Vec name(Vec a, Vec b) {           \
    Vec r;                                           \
    for (int i = 0; i < 4; ++i) r.v[i] = expression; \
    return r;                                        \
  }
FASTNETS_LANEWISE(operator+, a.v[i] + b.v[i])
FASTNETS_LANEWISE(operator*, a.v[i] * b.v[i])
FASTNETS_LANEWISE(operator/, a.v[i] / b.v[i])
FASTNETS_LANEWISE(max, a.v[i] > b.v[i] ? a.v[i] : b.v[i])
#undef FASTNETS_LANEWISE
FASTNETS_INLINE Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }

#endif

}  // namespace
}  // namespace FASTNETS_LEVEL
}  // namespace fastnets
