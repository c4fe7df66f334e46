// The product of a few rows of A with a panel of packed weights, in registers. Included by kernel files only.
//
// A is cut into blocks of kColumns<T> columns, a vector of factors (cpu/factor.h): element (row, k) is
// a[k / kColumns * block_stride + row * row_stride + k % kColumns]. So transformed or gathered rows are
// written a vector at a time, and a channels-last tensor can be read in place (block_stride = kColumns,
// row_stride = its pixel stride), if whole factors end with the row. B is [k / kSteps][panel lanes][kSteps].
#pragma once

#include <type_traits>

#include "common/scratch.h"
#include "cpu/activation.h"
#include "cpu/conv.h"
#include "cpu/factor.h"
#include "cpu/weight_panels.h"

namespace fastnets {
namespace FASTNETS_LEVEL {

// Rows of a product: with two vectors a row, 28 of 32 registers accumulate (AVX-512), or 12 of 16.
//
// kUnrolled: factors that are added between two branches. Six rows leave little time for counting, and with a
// branch a factor products took 1.03 to 1.1 of the time (AVX2, Zen 3). kTogether: those between two fetches.
// A core drops what it is told to fetch while too much is on its way: with all of a block at once, networks
// took 1.01 to 1.04 of the time (Zen 5).
#if defined(FASTNETS_LEVEL_avx512)
constexpr int kMaxRows = 14, kUnrolled = 1, kTogether = 2;
#else
constexpr int kMaxRows = 6, kUnrolled = 4, kTogether = 4;
#endif

template <class T>
struct Rows {
  const T* a;
  int64_t block_stride, row_stride;
  bool cold = false;  // the rows that follow, which the next product reads, are not in L2 yet: fetch them
};

// Rows of a product of so many vectors. Those of four, two panels at once, take fewer loads.
template <int kVectors>
constexpr int kRowsOf = kVectors == 4 ? 6 : kMaxRows;

// The sums of a product, vectors of its rows. All but the last are full, and that is Vec or Half.
template <int kRows, int kVectors, class Last>
struct Sums {
  Vec full[kVectors > 1 ? kVectors - 1 : 1][kRows];
  Last last[kRows];
};

// The sums begin with zeros,
template <int kRows, int kVectors, class Last>
FASTNETS_INLINE void start(Sums<kRows, kVectors, Last>& sum) {
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors - 1; ++v) sum.full[v][i] = Vec::set(0.0F);
    sum.last[i] = Last::set(0.0F);
  }
}

// or with what the epilogue adds to the channels from `channel` on.
template <int kRows, int kVectors, class Last>
FASTNETS_INLINE void start(Sums<kRows, kVectors, Last>& sum, const Epilogue& epilogue, int64_t channel,
                           int64_t lanes) {
  constexpr int kBefore = (kVectors - 1) * Vec::width;
#pragma GCC unroll 4
  for (int v = 0; v < kVectors - 1; ++v) {
    const Vec full = ChannelTerms(epilogue, channel + v * Vec::width, Vec::width).start();
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) sum.full[v][i] = full;
  }
  const Last last =
      ChannelTermsOf<Last>(epilogue, channel + kBefore, static_cast<int>(lanes - kBefore)).start();
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) sum.last[i] = last;
}

// Where the rows of A are: side by side, or `stride` bytes apart. Of these, every fifth has a pointer, from
// which the next four are one address away: with an offset for each row, registers would not do.
template <class T>
struct PackedRows {
  static constexpr int kStep = kSteps<T>;
  const T* a;
  FASTNETS_INLINE const T* at(int i, int k) const { return a + i * kColumns<T> + k * kStep; }
  FASTNETS_INLINE auto factor(int i, int k) const { return row_factor(at(i, k)); }
  FASTNETS_INLINE void advance(int factors) { a += factors * kSteps<T>; }
};

template <class T, int kRows>
struct StridedRows {
  static constexpr int kStep = kSteps<T>;
  const char* fifth[(kRows + 4) / 5];
  int64_t stride, triple;
  FASTNETS_INLINE StridedRows(const T* a, int64_t row_stride)
      : stride(row_stride * static_cast<int64_t>(sizeof(T))), triple(3 * stride) {
    for (int i = 0; i < kRows; i += 5) fifth[i / 5] = reinterpret_cast<const char*>(a) + i * stride;
  }
  FASTNETS_INLINE const T* row(int i) const {
    return reinterpret_cast<const T*>(fifth[i / 5] + (i % 5 == 3 ? triple : i % 5 * stride));
  }
  FASTNETS_INLINE auto factor(int i, int k) const { return row_factor(row(i) + k * kStep); }
  FASTNETS_INLINE void advance(int factors) {
    for (auto& pointer : fifth) {
      pointer += factors * kSteps<T> * static_cast<int>(sizeof(T));
      asm("" : "+r"(pointer), "+r"(stride), "+r"(triple));  // not to be unfolded
    }
  }
};

// Adds the products of kFactors factors of each row and those of the panel's lanes.
template <int kRows, int kVectors, class Last, int kFactors = 1, class RowsOfA, class Panel>
FASTNETS_INLINE void add_factors(Sums<kRows, kVectors, Last>& sum, const RowsOfA& a, const Panel& b) {
#pragma GCC unroll 4
  for (int k = 0; k < kFactors; ++k) {
    constexpr int kFull = kVectors - 1;
    const int64_t at = k * kVectors * Panel::kVector;
    decltype(b.template factor<Vec>(at)) right[kFull > 0 ? kFull : 1];
#pragma GCC unroll 4
    for (int v = 0; v < kFull; ++v) right[v] = b.template factor<Vec>(at + v * Panel::kVector);
    const auto right_last = b.template factor<Last>(at + kFull * Panel::kVector);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#if defined(FASTNETS_LEVEL_avx512)
      // Every second of packed rows is broadcast by what multiplies it: fewer instructions. As fast on a core
      // of its own; beside a busy thread of the same core 1.05 to 1.1 times as fast (Emerald Rapids).
      if constexpr (std::is_same_v<RowsOfA, PackedRows<float>> && kFull == 1 && std::is_same_v<Last, Vec>) {
        if (i % 2 == 1) {
          add_product_of(sum.full[0][i], a.at(i, k), right[0]);
          add_product_of(sum.last[i], a.at(i, k), right_last);
          continue;
        }
      }
#endif
      const auto left = a.factor(i, k);
#pragma GCC unroll 4
      for (int v = 0; v < kFull; ++v) add_product(sum.full[v][i], left, right[v]);
      add_product(sum.last[i], as<Last>(left), right_last);
    }
  }
}

// The same for `count` factors, from which a and b move on.
template <int kRows, int kVectors, class Last, class RowsOfA, class Panel>
FASTNETS_INLINE void add_block(Sums<kRows, kVectors, Last>& sum, RowsOfA& a, Panel& b, int64_t count) {
  constexpr int64_t kLanes = kVectors * Panel::kVector;
  for (; count >= kUnrolled; count -= kUnrolled) {
    add_factors<kRows, kVectors, Last, kUnrolled>(sum, a, b);
    a.advance(kUnrolled), b.advance(kUnrolled * kLanes);
  }
  for (; kUnrolled > 1 && count > 0; --count) {
    add_factors<kRows, kVectors>(sum, a, b);
    a.advance(1), b.advance(kLanes);
  }
}

// kPacked: row_stride is kColumns<T>, known to the compiler; otherwise block_stride is. `depth` is in whole
// factors. Fetching rows that are cold into L2, and residuals before the product, took 0.95 of ResNet-50's
// time (into L1: 0.96).
template <int kRows, int kVectors, class Last, bool kPacked, class T, class Panel>
FASTNETS_INLINE void accumulate(Sums<kRows, kVectors, Last>& sum, const Rows<T>& rows, Panel panel,
                                int64_t depth) {
  constexpr int64_t kFactors = kColumns<T> / kSteps<T>;  // of a block
  constexpr int64_t kFetched = kTogether * kVectors * Panel::kVector;
  const T* block = rows.a;
  int64_t left = depth / kSteps<T>;
  if constexpr (kPacked) {
    for (; left >= kFactors; left -= kFactors, block += rows.block_stride) {
      PackedRows<T> a{block};
      for (int64_t k = 0; k < kFactors; k += kTogether) {
        panel.fetch(kFetched);
        add_block<kRows, kVectors>(sum, a, panel, kTogether);
      }
    }
    PackedRows<T> a{block};
    add_block<kRows, kVectors>(sum, a, panel, left);
  } else {
    StridedRows<T, kRows> a(block, rows.row_stride);
    for (; left >= kFactors; left -= kFactors, block += kColumns<T>) {
      if (rows.cold) {
#pragma GCC unroll 16
        for (int i = 0; i < kRows; ++i) __builtin_prefetch(block + (kRows + i) * rows.row_stride, 0, 2);
      }
      for (int64_t k = 0; k < kFactors; k += kTogether) {
        panel.fetch(kFetched);
        add_block<kRows, kVectors>(sum, a, panel, kTogether);
      }
    }
    add_block<kRows, kVectors>(sum, a, panel, left);
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
  const float* before[2] = {nullptr, nullptr};  // panels of sums that the product is added to
};

// One vector of each row, begun by start, through the epilogue: step by step over all rows, which stay in
// registers. With a branch a row and step instead, a product of 64 columns in bf16 took 1.08 of the time.
template <int kRows, class V, class T>
FASTNETS_INLINE void store_pixels(V (&sum)[kRows], const Target<T>& target, int64_t channel, int lanes,
                                  const Epilogue& epilogue) {
  const ClampOf<V> clamp(epilogue);
  const ChannelTermsOf<V> terms(epilogue, channel, lanes);
  const int64_t* const y_offset = target.y_offset;
  T* const y = target.y + channel;
  if (terms.scales) {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) sum[i] = terms.finish(sum[i]);
  }
  if (target.residual_offset != nullptr) {
    const T* const residual = static_cast<const T*>(epilogue.residual) + channel;
    if (lanes == V::width) {
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) sum[i] = sum[i] + V::load(residual + target.residual_offset[i]);
    } else {
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) sum[i] = sum[i] + V::load(residual + target.residual_offset[i], lanes);
    }
  }
  if (clamp.bounds_below) {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) sum[i] = max(clamp.low, sum[i]);
  }
  if (clamp.bounds_above) {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) sum[i] = min(clamp.high, sum[i]);
  }
  if (target.stream) {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) sum[i].stream(y + y_offset[i]);
  } else if (lanes == V::width) {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) sum[i].store(y + y_offset[i]);
  } else {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) sum[i].store(y + y_offset[i], lanes);
  }
}

template <int kRows, int kVectors, class Last, class T>
FASTNETS_INLINE void store_sums(Sums<kRows, kVectors, Last>& sum, const Target<T>& target,
                                const Epilogue& epilogue) {
  constexpr int kBefore = (kVectors - 1) * Vec::width;
#pragma GCC unroll 4
  for (int v = 0; v < kVectors - 1; ++v) {
    store_pixels(sum.full[v], target, target.channel + v * Vec::width, Vec::width, epilogue);
  }
  store_pixels(sum.last, target, target.channel + kBefore, static_cast<int>(target.lanes - kBefore),
               epilogue);
}

#define FASTNETS_SIX_ROWS(of) of(1), of(2), of(3), of(4), of(5), of(6)
#if defined(FASTNETS_LEVEL_avx512)
#define FASTNETS_ROWS(of) FASTNETS_SIX_ROWS(of), of(7), of(8), of(9), of(10), of(11), of(12), of(13), of(14)
#else
#define FASTNETS_ROWS(of) FASTNETS_SIX_ROWS(of)
#endif

// How `count` rows are cut into products: of nearly equal numbers of rows,
struct EvenRows {
  int64_t count, parts;
  explicit FASTNETS_INLINE EvenRows(int64_t rows, int64_t most = kMaxRows)
      : count(rows), parts((rows + most - 1) / most) {}
  FASTNETS_INLINE int64_t begin(int64_t part) const { return count * part / parts; }
};

// or of two tiles, as few as they are. With more than kTileRows rows, each product has that many at least.
constexpr int64_t kTileRows = 16;
struct TileRows {
  int64_t count, parts;
  explicit FASTNETS_INLINE TileRows(int64_t rows)
      : count(rows), parts((rows + 2 * kTileRows - 1) / (2 * kTileRows)) {}
  FASTNETS_INLINE int64_t begin(int64_t part) const {
    if (part == parts) return count;
    const int64_t last = count - (parts - 1) * 2 * kTileRows;
    return part * 2 * kTileRows - (part > 0 && part == parts - 1 && last < kTileRows ? kTileRows : 0);
  }
};

template <class T>
using RowCut = std::conditional_t<kByTiles<T>, TileRows, EvenRows>;

template <class Kind, class T>
FASTNETS_INLINE RowCut<T> row_cut(int64_t rows) {
  if constexpr (kByTiles<T>) {
    return TileRows(rows);
  } else {
    return EvenRows(rows, kRowsOf<Kind::kVectors>);
  }
}

// What the product of a part of the rows fetches: of its own panel, if that is cold, or of the next one. Call
// it where its result shall lie: a copy loads two fields at once that were stored one by one, and so waits
// for all stores of the product before (3D networks 1.1 of the time, MobileNetV1 1.03; Emerald Rapids).
template <class T>
FASTNETS_INLINE PanelAhead panel_ahead(const T* panel, int64_t elements, bool cold, int64_t part,
                                       const RowCut<T>& cut, const T* next) {
  if (cold && part == 0) return {panel, true};
  return {next, elements * static_cast<int64_t>(sizeof(T)), part - cold, cut.parts - cold};
}

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

}  // namespace FASTNETS_LEVEL
}  // namespace fastnets
