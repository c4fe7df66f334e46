// The product of a few rows of A with a panel of packed weights, in registers. Included by kernel files only.
//
// A is cut into blocks of kColumns<T> columns, a vector of factors (cpu/factor.h): element (row, k) is
// a[k / kColumns * block_stride + row * row_stride + k % kColumns]. So transformed or gathered rows are
// written a vector at a time, and a channels-last tensor can be read in place (block_stride = kColumns,
// row_stride = its pixel stride), if whole factors end with the row. B is [k / kSteps][panel lanes][kSteps].
#pragma once

#include "cpu/activation.h"
#include "cpu/conv.h"
#include "cpu/factor.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

// Rows of a product: with two vectors a row, 28 of 32 registers accumulate (AVX-512), or 12 of 16.
#if defined(FASTNETS_LEVEL_avx512)
constexpr int kMaxRows = 14;
#else
constexpr int kMaxRows = 6;
#endif

template <class T>
struct Rows {
  const T* a;
  int64_t block_stride, row_stride;
};

// The sums of a product: rows of a full vector, if there are two, and of a last one that is Vec or Half.
template <int kRows, class Last>
struct Sums {
  Vec full[kRows];
  Last last[kRows];
};

template <int kRows, int kVectors, class Last>
FASTNETS_INLINE void clear(Sums<kRows, Last>& sum) {
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
    if (kVectors == 2) sum.full[i] = Vec::set(0.0F);
    sum.last[i] = Last::set(0.0F);
  }
}

// Adds the product of one factor of each row, `row_stride` apart, and those of the panel's lanes.
template <int kRows, int kVectors, class Last, class T>
FASTNETS_INLINE void add_factors(Sums<kRows, Last>& sum, const T* a, int64_t row_stride, const T* b) {
  const auto right = lane_factor<Vec>(b);
  const auto right_last = lane_factor<Last>(b + (kVectors - 1) * kColumns<T>);
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
    const auto left = row_factor(a + i * row_stride);
    if (kVectors == 2) sum.full[i] = fma(left, right, sum.full[i]);
    sum.last[i] = fma(as<Last>(left), right_last, sum.last[i]);
  }
}

// kPacked: row_stride is kColumns<T>, known to the compiler. `depth` is in whole factors. Fetching the next
// panel into L2 meanwhile, spread over the columns, changed networks by less than 1 % either way.
template <int kRows, int kVectors, class Last, bool kPacked, class T>
FASTNETS_INLINE void accumulate(Sums<kRows, Last>& sum, const Rows<T>& rows, const T* b, int64_t depth) {
  constexpr int64_t kLanes = kVectors * kColumns<T>;
  const int64_t row_stride = kPacked ? kColumns<T> : rows.row_stride;
  const T* block = rows.a;
  clear<kRows, kVectors>(sum);
  for (int64_t k = 0; k < depth; k += kColumns<T>, block += rows.block_stride) {
    const T* a = block;
    const T* const end = b + least(kColumns<T>, depth - k) / kSteps<T> * kLanes;
    for (; b < end; a += kSteps<T>, b += kLanes) add_factors<kRows, kVectors>(sum, a, row_stride, b);
  }
}

// c[row][panel lanes] = the product.
template <int kRows, int kVectors, class Last>
__attribute__((noinline)) void product_to_panel(const Rows<float>& rows, const float* b, int64_t depth,
                                                float* c) {
  Sums<kRows, Last> sum;
  accumulate<kRows, kVectors, Last, true>(sum, rows, b, depth);
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i, c += kVectors * Vec::width) {
    if (kVectors == 2) sum.full[i].store(c);
    sum.last[i].store(c + (kVectors - 1) * Vec::width);
  }
}

// Where a product goes: row i to y + y_offset[i], where `channel` is the first of `lanes` channels.
template <class T>
struct Target {
  T* y;
  const int64_t* y_offset;
  const int64_t* residual_offset;  // null without a residual
  int64_t channel, lanes;
  bool stream;
};

// One vector of each row through the epilogue.
template <int kRows, class V, class T>
FASTNETS_INLINE void store_pixels(const V (&sum)[kRows], const Target<T>& target, int64_t channel, int lanes,
                                  const Epilogue& epilogue) {
  const ClampOf<V> clamp(epilogue);
  const ChannelTermsOf<V> terms(epilogue, channel, lanes);
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
    V v = terms(sum[i]);
    if (target.residual_offset != nullptr) {
      v = v + V::load(static_cast<const T*>(epilogue.residual) + target.residual_offset[i] + channel, lanes);
    }
    T* const y = target.y + target.y_offset[i] + channel;
    if (target.stream) {
      clamp(v).stream(y);
    } else {
      clamp(v).store(y, lanes);
    }
  }
}

template <int kRows, int kVectors, class Last, class T>
FASTNETS_INLINE void store_sums(const Sums<kRows, Last>& sum, const Target<T>& target,
                                const Epilogue& epilogue) {
  constexpr int kBefore = (kVectors - 1) * Vec::width;
  if (kVectors == 2) store_pixels(sum.full, target, target.channel, Vec::width, epilogue);
  store_pixels(sum.last, target, target.channel + kBefore, static_cast<int>(target.lanes - kBefore),
               epilogue);
}

template <int kRows, int kVectors, class Last, bool kPacked, class T>
__attribute__((noinline)) void product_to_pixels(const Rows<T>& rows, const T* b, int64_t depth,
                                                 const Target<T>& target, const Epilogue& epilogue) {
  Sums<kRows, Last> sum;
  accumulate<kRows, kVectors, Last, kPacked>(sum, rows, b, depth);
  store_sums<kRows, kVectors>(sum, target, epilogue);
}

using PanelProduct = void (*)(const Rows<float>&, const float*, int64_t, float*);
template <class T>
using PixelProduct = void (*)(const Rows<T>&, const T*, int64_t, const Target<T>&, const Epilogue&);

#if defined(FASTNETS_LEVEL_avx512)
#define FASTNETS_ROWS(of) \
  of(1), of(2), of(3), of(4), of(5), of(6), of(7), of(8), of(9), of(10), of(11), of(12), of(13), of(14)
#else
#define FASTNETS_ROWS(of) of(1), of(2), of(3), of(4), of(5), of(6)
#endif

// How `count` rows are cut into products of nearly equal numbers of rows.
struct RowCut {
  int64_t count, parts;
  explicit FASTNETS_INLINE RowCut(int64_t rows) : count(rows), parts((rows + kMaxRows - 1) / kMaxRows) {}
  FASTNETS_INLINE int64_t begin(int64_t part) const { return count * part / parts; }
};

// The vectors of a panel, and the type of the last one.
template <int kCount, class LastVector>
struct PanelKind {
  static constexpr int kVectors = kCount;
  using Last = LastVector;
};

// Calls use(the kind of panel) for a panel of `lanes` channels.
template <class Use>
FASTNETS_INLINE void with_panel(int64_t lanes, const Use& use) {
  constexpr int64_t kWidth = Vec::width;
  const bool half = Half::width < kWidth && (lanes - 1) % kWidth < Half::width;
  if (lanes > kWidth) {
    half ? use(PanelKind<2, Half>()) : use(PanelKind<2, Vec>());
  } else {
    half ? use(PanelKind<1, Half>()) : use(PanelKind<1, Vec>());
  }
}

}  // namespace
}  // namespace FASTNETS_LEVEL
}  // namespace fastnets
