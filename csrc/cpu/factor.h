// What one multiply-add of a product takes: a factor of a row of A in all lanes, and one of B a lane.
// Included by kernel files only.
//
// A factor covers kSteps<T> columns of A: one, or with vdpbf16ps a pair of Bf16, whose two products it adds
// to the sum at once. B is packed accordingly: [k / kSteps][lanes][kSteps] (common/conv_pack.h).
#pragma once

#include "cpu/vec.h"

namespace fastnets {
namespace FASTNETS_LEVEL {

template <class T>
constexpr int kSteps = 1;

// Of a[0] to a[kSteps - 1]; where `left` elements of a row are fewer, those past them count as 0.
template <class T>
FASTNETS_INLINE Vec row_factor(const T* a, int64_t = 1) {
  return Vec::set(value_of(*a));
}

// Of V::width lanes of packed weights.
template <class V, class T>
FASTNETS_INLINE V lane_factor(const T* b) {
  return V::load(b);
}

#if defined(FASTNETS_LEVEL_avx512_bf16)

template <>
constexpr int kSteps<Bf16> = 2;

template <class V>
struct PairOf;
template <>
struct PairOf<Vec> {
  __m512bh v;
  // Elements of a and b side by side. The first n of each.
  static FASTNETS_INLINE PairOf load(const Bf16* a, const Bf16* b) {
    return of(_mm512_zextsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(a))),
              _mm512_zextsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b))));
  }
  static FASTNETS_INLINE PairOf load(const Bf16* a, const Bf16* b, int n) {
    const auto mask = static_cast<__mmask32>(Vec::mask(n));
    return of(_mm512_maskz_loadu_epi16(mask, a), _mm512_maskz_loadu_epi16(mask, b));
  }

 private:
  static FASTNETS_INLINE PairOf of(__m512i a, __m512i b) {
    const __m512i order = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39,
                                           7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    return {reinterpret_cast<__m512bh>(_mm512_permutex2var_epi16(a, order, b))};
  }
};
template <>
struct PairOf<Half> {
  __m256bh v;
  static FASTNETS_INLINE PairOf load(const Bf16* a, const Bf16* b, int n) {
    const __m128i even = _mm_maskz_loadu_epi16(Half::mask(n), a);
    const __m128i odd = _mm_maskz_loadu_epi16(Half::mask(n), b);
    return {reinterpret_cast<__m256bh>(
        _mm256_set_m128i(_mm_unpackhi_epi16(even, odd), _mm_unpacklo_epi16(even, odd)))};
  }
};

// Of floats that are Bf16: those of `a` first.
FASTNETS_INLINE PairOf<Vec> pair_of(Vec a, Vec b) {
  const __m512i even = _mm512_srli_epi32(_mm512_castps_si512(a.v), 16);
  return {reinterpret_cast<__m512bh>(_mm512_or_si512(even, _mm512_castps_si512(b.v)))};
}
FASTNETS_INLINE PairOf<Half> pair_of(Half a, Half b) {
  const __m256i even = _mm256_srli_epi32(_mm256_castps_si256(a.v), 16);
  return {reinterpret_cast<__m256bh>(_mm256_or_si256(even, _mm256_castps_si256(b.v)))};
}

FASTNETS_INLINE PairOf<Vec> row_factor(const Bf16* a, int64_t left = 2) {
  int32_t pair = 0;
  std::memcpy(&pair, a, left < 2 ? sizeof(Bf16) : sizeof(pair));
  return {reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair))};
}
template <class V>
FASTNETS_INLINE PairOf<V> lane_factor(const Bf16* b) {
  PairOf<V> pairs;
  std::memcpy(&pairs.v, b, sizeof(pairs.v));
  return pairs;
}
FASTNETS_INLINE Vec fma(PairOf<Vec> a, PairOf<Vec> b, Vec c) { return {_mm512_dpbf16_ps(c.v, a.v, b.v)}; }
FASTNETS_INLINE Half fma(PairOf<Half> a, PairOf<Half> b, Half c) { return {_mm256_dpbf16_ps(c.v, a.v, b.v)}; }
template <class V>
FASTNETS_INLINE PairOf<V> as(PairOf<Vec> a) {
  if constexpr (V::width == Vec::width) {
    return a;
  } else {
    return {reinterpret_cast<__m256bh>(_mm512_castsi512_si256(reinterpret_cast<__m512i>(a.v)))};
  }
}

#endif

// Fetches the line of p into L1, to be written: the builtin reads it only, without -mprfchw.
FASTNETS_INLINE void fetch_to_write(const void* p) {
#if defined(__x86_64__)
  asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(p)));
#else
  __builtin_prefetch(p, 1, 3);
#endif
}

// sum += a b. With AVX2, whose registers just do, the sum is held in its own: where GCC chose the operand
// that is overwritten, it moved sums through others and through memory, and
// products took 1.06 to 1.1 of the time.
template <class V, class A, class B>
FASTNETS_INLINE void add_product(V& sum, A a, B b) {
  sum = fma(a, b, sum);
}
#if defined(FASTNETS_LEVEL_avx2)
FASTNETS_INLINE void add_product(Vec& sum, Vec a, Vec b) {
  asm("vfmadd231ps %2, %1, %0" : "+x"(sum.v) : "x"(a.v), "x"(b.v));
}
#endif

#if defined(FASTNETS_LEVEL_avx512)
// sum += *a b, in one instruction.
FASTNETS_INLINE void add_product_of(Vec& sum, const float* a, Vec b) {
  asm("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(sum.v) : "v"(b.v), "m"(*a));
}
#endif

// Columns of A that lie together: a vector of factors.
template <class T>
constexpr int64_t kColumns = Vec::width * kSteps<T>;

// Whether products of T are made of tiles (cpu/tile_products.cpp).
template <class T>
#if defined(FASTNETS_LEVEL_amx_bf16)
constexpr bool kByTiles = sizeof(T) == sizeof(Bf16);
#else
constexpr bool kByTiles = false;
#endif

// This level computes bfloat16 alone (cpu/isa.h).
#if defined(FASTNETS_LEVEL_avx512_bf16) && !defined(FASTNETS_ONLY)
#define FASTNETS_BF16_ALONE
#endif

// Calls use(T()) for the T that `element` stands for, of those that this level computes.
template <class Use>
FASTNETS_INLINE void with_own_element([[maybe_unused]] Element element, const Use& use) {
#if defined(FASTNETS_BF16_ALONE)
  use(Bf16());
#else
  with_element(element, use);
#endif
}

// Columns of A in whole factors.
template <class T>
FASTNETS_INLINE int64_t whole_factors(int64_t columns) {
  return (columns + kSteps<T> - 1) / kSteps<T> * kSteps<T>;
}

// The depth of a product, as B is packed: whole factors, or whole tiles.
template <class T>
constexpr int64_t kDepth = kByTiles<T> ? kColumns<T> : kSteps<T>;
template <class T>
FASTNETS_INLINE int64_t whole_depth(int64_t depth) {
  return (depth + kDepth<T> - 1) / kDepth<T> * kDepth<T>;
}

// Moves n <= kColumns<T> elements as they are.
template <class T>
FASTNETS_INLINE void move_columns(T* to, const T* from, int64_t n) {
#if defined(FASTNETS_LEVEL_avx512)
  if constexpr (sizeof(T) == 2) {
    if (n == kColumns<T>) {
      std::memcpy(to, from, sizeof(T) * kColumns<T>);
      return;
    }
    const auto mask = static_cast<__mmask32>((uint64_t{1} << n) - 1);
    return _mm512_mask_storeu_epi16(to, mask, _mm512_maskz_loadu_epi16(mask, from));
  }
#endif
  if constexpr (sizeof(T) == sizeof(float)) {
    return store_lanes(load_lanes(from, static_cast<int>(n)), to, static_cast<int>(n));
  }
  std::memcpy(to, from, sizeof(T) * static_cast<size_t>(n));
}

// The same, with zeros up to `whole` <= kColumns<T> elements.
template <class T>
FASTNETS_INLINE void move_padded(T* to, const T* from, int64_t n, int64_t whole) {
#if defined(FASTNETS_LEVEL_avx512)
  if constexpr (sizeof(T) == 2) {
    const auto first = [](int64_t count) { return static_cast<__mmask32>((uint64_t{1} << count) - 1); };
    return _mm512_mask_storeu_epi16(to, first(whole), _mm512_maskz_loadu_epi16(first(n), from));
  }
#endif
  for (int64_t k = 0; k < whole; ++k) to[k] = k < n ? from[k] : T{};
}

}  // namespace FASTNETS_LEVEL
}  // namespace fastnets
