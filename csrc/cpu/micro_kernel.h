// The product of a few rows of A with a panel of packed weights, in registers. Included by kernel files only.
//
// A is cut into blocks of Vec::width columns: element (row, k) is a[k / width * block_stride + row *
// row_stride
// + k % width]. So transformed or gathered rows are written a vector at a time, and a channels-last tensor
// can be read in place (block_stride = width, row_stride = its pixel stride). B is [k][panel lanes].
#pragma once

#include "cpu/activation.h"
#include "cpu/conv.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

// Rows of a product: with two vectors a row, 28 of 32 registers accumulate (AVX-512), or 12 of 16.
#if defined(FASTNETS_LEVEL_avx512)
constexpr int kMaxRows = 14;
#else
constexpr int kMaxRows = 6;
#endif

struct Rows {
  const float* a;
  int64_t block_stride, row_stride;
};

// kPacked: row_stride is Vec::width, known to the compiler.
template <int kRows, int kVectors, bool kPacked>
FASTNETS_INLINE void accumulate(Vec (&sum)[kRows][kVectors], const Rows& rows, const float* b,
                                int64_t depth) {
  const int64_t row_stride = kPacked ? Vec::width : rows.row_stride;
  const float* block = rows.a;
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) sum[i][j] = Vec::set(0.0F);
  }
  for (int64_t k = 0; k < depth; k += Vec::width, block += rows.block_stride) {
    const float* a = block;
    const float* const end = b + (depth - k < Vec::width ? depth - k : Vec::width) * kVectors * Vec::width;
    for (; b < end; ++a, b += kVectors * Vec::width) {
      Vec right[kVectors];
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) right[j] = Vec::load(b + j * Vec::width);
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) {
        const Vec left = Vec::set(a[i * row_stride]);
#pragma GCC unroll 4
        for (int j = 0; j < kVectors; ++j) sum[i][j] = fma(left, right[j], sum[i][j]);
      }
    }
  }
}

// c[row][panel lanes] = the product.
template <int kRows, int kVectors>
__attribute__((noinline)) void product_to_panel(const Rows& rows, const float* b, int64_t depth, float* c) {
  Vec sum[kRows][kVectors];
  accumulate<kRows, kVectors, true>(sum, rows, b, depth);
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) sum[i][j].store(c + (i * kVectors + j) * Vec::width);
  }
}

// Where a product goes: row i to y + y_offset[i], where `channel` is the first of `lanes` channels.
struct Target {
  float* y;
  const int64_t* y_offset;
  const int64_t* residual_offset;  // null without a residual
  int64_t channel, lanes;
  bool stream;
};

template <int kRows, int kVectors, bool kPacked>
__attribute__((noinline)) void product_to_pixels(const Rows& rows, const float* b, int64_t depth,
                                                 const Target& target, const Epilogue& epilogue) {
  Vec sum[kRows][kVectors];
  accumulate<kRows, kVectors, kPacked>(sum, rows, b, depth);
  const Clamp clamp(epilogue);
#pragma GCC unroll 4
  for (int j = 0; j < kVectors; ++j) {
    const int64_t channel = target.channel + j * Vec::width, left = target.lanes - j * Vec::width;
    if (left <= 0) break;
    const int lanes = left < Vec::width ? static_cast<int>(left) : Vec::width;
    const ChannelTerms terms(epilogue, channel, lanes);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      Vec v = terms(sum[i][j]);
      if (target.residual_offset != nullptr) {
        v = v + Vec::load(epilogue.residual + target.residual_offset[i] + channel, lanes);
      }
      float* const y = target.y + target.y_offset[i] + channel;
      if (target.stream) {
        clamp(v).stream(y);
      } else {
        clamp(v).store(y, lanes);
      }
    }
  }
}

using PanelProduct = void (*)(const Rows&, const float*, int64_t, float*);
using PixelProduct = void (*)(const Rows&, const float*, int64_t, const Target&, const Epilogue&);

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

}  // namespace
}  // namespace FASTNETS_LEVEL
}  // namespace fastnets
