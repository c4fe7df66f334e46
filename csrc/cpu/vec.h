// Vec: the float vector of the level that this unit is compiled for. Included by kernel files only.
//
// Everything is in the namespace of the level (see cpu/isa.h), always inlined, and covers just what the
// kernels use. load(p, n) and store(p, n) touch exactly n <= width elements; the other lanes load 0.
// An element in memory is a float or a Bf16: stores round to the nearest one, ties to even.
// stream(p) bypasses the caches: p is aligned to the vector, and stream_fence() precedes the next reader.
// max and min return their second argument where one is NaN; max_or_nan returns NaN.
// fma(a, b, c) = a b + c, fnma = c - a b.
// exponent_of(v): 2^k from the float 1.5 * 2^23 + k. permute: lane i is lane lanes[i] of the argument.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(FASTNETS_LEVEL_avx512) || defined(FASTNETS_LEVEL_avx2)
#include <immintrin.h>
#endif

#include "common/element.h"
#include "cpu/isa.h"

namespace fastnets {
namespace FASTNETS_LEVEL {

#if defined(FASTNETS_LEVEL_avx512)

FASTNETS_INLINE __m512 widened(__m256i bits) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
FASTNETS_INLINE __m256 widened(__m128i bits) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
#if defined(FASTNETS_LEVEL_avx512_bf16)
FASTNETS_INLINE __m256i rounded(__m512 v) { return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v)); }
FASTNETS_INLINE __m128i rounded(__m256 v) { return reinterpret_cast<__m128i>(_mm256_cvtneps_pbh(v)); }
#else
// NaN becomes the quiet one whose payload is 0: rounding could carry out of the exponent.
FASTNETS_INLINE __m256i rounded(__m512 v) {
  const __m512i bits = _mm512_castps_si512(v), one = _mm512_set1_epi32(1);
  const __m512i even = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one);
  const __m512i sum = _mm512_add_epi32(bits, _mm512_add_epi32(even, _mm512_set1_epi32(0x7fff)));
  const __m512i quiet = _mm512_set1_epi32(0x7fc00000);
  const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_blend_epi32(nan, sum, quiet), 16));
}
FASTNETS_INLINE __m128i rounded(__m256 v) {
  return _mm256_castsi256_si128(rounded(_mm512_zextps256_ps512(v)));
}
#endif

struct Vec {
  static constexpr int width = 16;
  __m512 v;
  static FASTNETS_INLINE __mmask16 mask(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
  static FASTNETS_INLINE Vec set(float x) { return {_mm512_set1_ps(x)}; }
  static FASTNETS_INLINE Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static FASTNETS_INLINE Vec load(const float* p, int n) { return {_mm512_maskz_loadu_ps(mask(n), p)}; }
  FASTNETS_INLINE void store(float* p) const { _mm512_storeu_ps(p, v); }
  FASTNETS_INLINE void store(float* p, int n) const { _mm512_mask_storeu_ps(p, mask(n), v); }
  FASTNETS_INLINE void stream(float* p) const { _mm512_stream_ps(p, v); }
  static FASTNETS_INLINE Vec load(const Bf16* p) {
    return {widened(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }
  static FASTNETS_INLINE Vec load(const Bf16* p, int n) {
    return {widened(_mm256_maskz_loadu_epi16(mask(n), p))};
  }
  FASTNETS_INLINE void store(Bf16* p) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), rounded(v));
  }
  FASTNETS_INLINE void store(Bf16* p, int n) const { _mm256_mask_storeu_epi16(p, mask(n), rounded(v)); }
  FASTNETS_INLINE void stream(Bf16* p) const {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p), rounded(v));
  }
};
FASTNETS_INLINE Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
FASTNETS_INLINE Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
FASTNETS_INLINE Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
FASTNETS_INLINE Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
FASTNETS_INLINE Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
FASTNETS_INLINE Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
FASTNETS_INLINE Vec max_or_nan(Vec a, Vec b) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q), max(a, b).v, a.v)};
}
FASTNETS_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
FASTNETS_INLINE Vec fnma(Vec a, Vec b, Vec c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
FASTNETS_INLINE Vec if_less(Vec a, Vec b, Vec yes, Vec no) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), no.v, yes.v)};
}
FASTNETS_INLINE Vec exponent_of(Vec a) {
  const __m512i bits = _mm512_slli_epi32(_mm512_castps_si512(a.v), 23);
  return {_mm512_castsi512_ps(_mm512_add_epi32(bits, _mm512_set1_epi32(0x3f800000)))};
}
FASTNETS_INLINE Vec permute(Vec a, const int32_t* lanes) {
  return {_mm512_permutexvar_ps(_mm512_loadu_si512(lanes), a.v)};
}
FASTNETS_INLINE void stream_fence() { _mm_sfence(); }

// Half a vector, for the last few channels: on cores that split 512-bit instructions in two it costs half.
struct Half {
  static constexpr int width = 8;
  __m256 v;
  static FASTNETS_INLINE __mmask8 mask(int n) { return static_cast<__mmask8>((1u << n) - 1u); }
  static FASTNETS_INLINE Half set(float x) { return {_mm256_set1_ps(x)}; }
  static FASTNETS_INLINE Half load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static FASTNETS_INLINE Half load(const float* p, int n) { return {_mm256_maskz_loadu_ps(mask(n), p)}; }
  FASTNETS_INLINE void store(float* p) const { _mm256_storeu_ps(p, v); }
  FASTNETS_INLINE void store(float* p, int n) const { _mm256_mask_storeu_ps(p, mask(n), v); }
  FASTNETS_INLINE void stream(float* p) const { _mm256_stream_ps(p, v); }
  static FASTNETS_INLINE Half load(const Bf16* p) {
    return {widened(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
  }
  static FASTNETS_INLINE Half load(const Bf16* p, int n) {
    return {widened(_mm_maskz_loadu_epi16(mask(n), p))};
  }
  FASTNETS_INLINE void store(Bf16* p) const { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), rounded(v)); }
  FASTNETS_INLINE void store(Bf16* p, int n) const { _mm_mask_storeu_epi16(p, mask(n), rounded(v)); }
  FASTNETS_INLINE void stream(Bf16* p) const { _mm_stream_si128(reinterpret_cast<__m128i*>(p), rounded(v)); }
};
FASTNETS_INLINE Half operator+(Half a, Half b) { return {_mm256_add_ps(a.v, b.v)}; }
FASTNETS_INLINE Half operator-(Half a, Half b) { return {_mm256_sub_ps(a.v, b.v)}; }
FASTNETS_INLINE Half operator*(Half a, Half b) { return {_mm256_mul_ps(a.v, b.v)}; }
FASTNETS_INLINE Half max(Half a, Half b) { return {_mm256_max_ps(a.v, b.v)}; }
FASTNETS_INLINE Half min(Half a, Half b) { return {_mm256_min_ps(a.v, b.v)}; }
FASTNETS_INLINE Half max_or_nan(Half a, Half b) {
  return {_mm256_mask_blend_ps(_mm256_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q), max(a, b).v, a.v)};
}
FASTNETS_INLINE Half fma(Half a, Half b, Half c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
FASTNETS_INLINE Half first_half(Vec a) { return {_mm512_castps512_ps256(a.v)}; }

#elif defined(FASTNETS_LEVEL_avx2)

FASTNETS_INLINE __m128i rounded(__m256 v) {  // NaN becomes the quiet one whose payload is 0
  const __m256i bits = _mm256_castps_si256(v), one = _mm256_set1_epi32(1);
  const __m256i even = _mm256_and_si256(_mm256_srli_epi32(bits, 16), one);
  const __m256i sum = _mm256_add_epi32(bits, _mm256_add_epi32(even, _mm256_set1_epi32(0x7fff)));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(sum, _mm256_set1_epi32(0x7fc00000), nan), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
}

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
  FASTNETS_INLINE void stream(float* p) const { _mm256_stream_ps(p, v); }
  static FASTNETS_INLINE Vec load(const Bf16* p) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16))};
  }
  static FASTNETS_INLINE Vec load(const Bf16* p, int n) {
    Bf16 whole[width] = {};
    std::memcpy(whole, p, sizeof(Bf16) * static_cast<size_t>(n));
    return load(whole);
  }
  FASTNETS_INLINE void store(Bf16* p) const { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), rounded(v)); }
  FASTNETS_INLINE void store(Bf16* p, int n) const {
    Bf16 whole[width];
    store(whole);
    std::memcpy(p, whole, sizeof(Bf16) * static_cast<size_t>(n));
  }
  FASTNETS_INLINE void stream(Bf16* p) const { _mm_stream_si128(reinterpret_cast<__m128i*>(p), rounded(v)); }
};
FASTNETS_INLINE Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
FASTNETS_INLINE Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
FASTNETS_INLINE Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
FASTNETS_INLINE Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
FASTNETS_INLINE Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
FASTNETS_INLINE Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }
FASTNETS_INLINE Vec max_or_nan(Vec a, Vec b) {
  return {_mm256_blendv_ps(max(a, b).v, a.v, _mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q))};
}
FASTNETS_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
FASTNETS_INLINE Vec fnma(Vec a, Vec b, Vec c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }
FASTNETS_INLINE Vec if_less(Vec a, Vec b, Vec yes, Vec no) {
  return {_mm256_blendv_ps(no.v, yes.v, _mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ))};
}
FASTNETS_INLINE Vec exponent_of(Vec a) {
  const __m256i bits = _mm256_slli_epi32(_mm256_castps_si256(a.v), 23);
  return {_mm256_castsi256_ps(_mm256_add_epi32(bits, _mm256_set1_epi32(0x3f800000)))};
}
FASTNETS_INLINE Vec permute(Vec a, const int32_t* lanes) {
  return {_mm256_permutevar8x32_ps(a.v, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lanes)))};
}
FASTNETS_INLINE void stream_fence() { _mm_sfence(); }

#else

// Four floats in the vector extension of GCC and Clang, which becomes SSE2 or NEON.
struct Vec {
  static constexpr int width = 4;
  typedef float Four __attribute__((vector_size(16)));
  typedef int32_t Bits __attribute__((vector_size(16)));
  Four v;
  static FASTNETS_INLINE Vec set(float x) { return {Four{x, x, x, x}}; }
  static FASTNETS_INLINE Vec load(const float* p) { return load(p, width); }
  static FASTNETS_INLINE Vec load(const float* p, int n) {
    Vec r{};
    std::memcpy(&r.v, p, sizeof(float) * static_cast<size_t>(n));
    return r;
  }
  FASTNETS_INLINE void store(float* p) const { store(p, width); }
  FASTNETS_INLINE void store(float* p, int n) const {
    std::memcpy(p, &v, sizeof(float) * static_cast<size_t>(n));
  }
  FASTNETS_INLINE void stream(float* p) const { store(p); }
  static FASTNETS_INLINE Vec load(const Bf16* p) { return load(p, width); }
  static FASTNETS_INLINE Vec load(const Bf16* p, int n) {
    uint16_t half[width] = {};
    std::memcpy(half, p, sizeof(Bf16) * static_cast<size_t>(n));
    return {reinterpret_cast<Four>(Bits{half[0], half[1], half[2], half[3]} << 16)};
  }
  FASTNETS_INLINE void store(Bf16* p) const { store(p, width); }
  FASTNETS_INLINE void store(Bf16* p, int n) const {  // NaN becomes the quiet one whose payload is 0
    const Bits bits = reinterpret_cast<Bits>(v);
    const Bits high = v == v ? (bits + ((bits >> 16 & 1) + 0x7fff)) >> 16 : (bits & 0) + 0x7fc0;
    uint16_t half[width];
    for (int i = 0; i < width; ++i) half[i] = static_cast<uint16_t>(high[i]);
    std::memcpy(p, half, sizeof(Bf16) * static_cast<size_t>(n));
  }
  FASTNETS_INLINE void stream(Bf16* p) const { store(p); }
};
FASTNETS_INLINE Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
FASTNETS_INLINE Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
FASTNETS_INLINE Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
FASTNETS_INLINE Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }
FASTNETS_INLINE Vec if_less(Vec a, Vec b, Vec yes, Vec no) { return {a.v < b.v ? yes.v : no.v}; }
FASTNETS_INLINE Vec max(Vec a, Vec b) { return if_less(b, a, a, b); }
FASTNETS_INLINE Vec min(Vec a, Vec b) { return if_less(a, b, a, b); }
FASTNETS_INLINE Vec max_or_nan(Vec a, Vec b) { return {a.v == a.v ? max(a, b).v : a.v}; }
FASTNETS_INLINE Vec fma(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }
FASTNETS_INLINE Vec fnma(Vec a, Vec b, Vec c) { return {c.v - a.v * b.v}; }
FASTNETS_INLINE Vec exponent_of(Vec a) {
  return {reinterpret_cast<Vec::Four>((reinterpret_cast<Vec::Bits>(a.v) << 23) + 0x3f800000)};
}
FASTNETS_INLINE Vec permute(Vec a, const int32_t* lanes) {
  return {Vec::Four{a.v[lanes[0]], a.v[lanes[1]], a.v[lanes[2]], a.v[lanes[3]]}};
}
FASTNETS_INLINE void stream_fence() {}

#endif

#if !defined(FASTNETS_LEVEL_avx512)
using Half = Vec;  // there is none that would be cheaper
FASTNETS_INLINE Half first_half(Vec a) { return a; }
#endif

// V::load and store of `lanes` lanes. Masks cost more than whole vectors, and a constant costs no comparison.
template <class V = Vec, class T>
FASTNETS_INLINE V load_lanes(const T* p, int lanes) {
  return lanes == V::width ? V::load(p) : V::load(p, lanes);
}
template <class V, class T>
FASTNETS_INLINE void store_lanes(V v, T* p, int lanes) {
  lanes == V::width ? v.store(p) : v.store(p, lanes);
}

// Vec or Half, of the same value in each lane or of the first lanes of a vector.
template <class V>
FASTNETS_INLINE V as(Vec a) {
  if constexpr (V::width == Vec::width) {
    return a;
  } else {
    return first_half(a);
  }
}

}  // namespace FASTNETS_LEVEL
}  // namespace fastnets
