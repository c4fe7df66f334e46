// The segments of a depthwise row: a unit of their own, as three kernels run them.
#include "cpu/depthwise_row.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

constexpr int kHalf = Half::width;
constexpr int kAhead = 4 * Vec::width;  // how far inputs are fetched in advance: 0.3 to 0.9 % of networks

// How a vector of inputs, or of pairs of them, is loaded: whole, its first lanes, or with each channel
// `multiplier` times.
struct WholeVector {
  using V = Vec;
  int64_t channel;
  static constexpr int lanes = Vec::width;
  template <class T>
  FASTNETS_INLINE Vec operator()(const T* pixel) const {
    return Vec::load(pixel + channel);
  }
#if defined(FASTNETS_LEVEL_avx512_bf16)
  FASTNETS_INLINE PairOf<Vec> operator()(const Bf16* first, const Bf16* second) const {
    return PairOf<Vec>::load(first + channel, second + channel);
  }
#endif
};

template <class Vector>
struct PartOf {
  using V = Vector;
  int64_t channel;
  int lanes;
  template <class T>
  FASTNETS_INLINE V operator()(const T* pixel) const {
    return V::load(pixel + channel, lanes);
  }
#if defined(FASTNETS_LEVEL_avx512_bf16)
  FASTNETS_INLINE PairOf<V> operator()(const Bf16* first, const Bf16* second) const {
    return PairOf<V>::load(first + channel, second + channel, lanes);
  }
#endif
};

struct SpreadVector {
  using V = Vec;
  int64_t channel;
  int lanes, inputs;
  int32_t order[Vec::width];
  FASTNETS_INLINE SpreadVector(int64_t first, int count, int64_t multiplier)
      : channel(first / multiplier), lanes(count), inputs(0) {
    for (int i = 0; i < Vec::width; ++i) {
      order[i] = static_cast<int32_t>(i < count ? (first + i) / multiplier - channel : 0);
      if (i < count) inputs = order[i] + 1;
    }
  }
  template <class T>
  FASTNETS_INLINE Vec operator()(const T* pixel) const {
    return permute(Vec::load(pixel + channel, inputs), order);
  }
};

// Adds the inputs of the lines to the sums [row][output].
template <int kWidth, int kStep>
struct Shared {
  static constexpr bool kSpreads = false;

  template <int kRows, int kCount, bool kInside, class T, class Source>
  static FASTNETS_INLINE void add(const Work<T>& work, const Source& source, const float* weights,
                                  typename Source::V (&sum)[kRows][kCount]) {
#if defined(FASTNETS_LEVEL_avx512_bf16)
    // Cores with tiles multiply pairs half as often: MobileNets and Xception took 1.03 to 1.18 of the time.
    if constexpr (kSteps<T> == 2 && !kByTiles<T>) {
      return add_two_lines<kRows, kCount, kInside>(work, source, weights, sum);
    }
#endif
    for (int64_t i = 0; i < work.tables.lines; ++i) {
      const T* const line = work.tables.line[i];
      const int64_t first = work.tables.line_weights[0][i];
      const int64_t second = kRows == 2 ? work.tables.line_weights[1][i] : kOutside;
      if (kRows == 2 && first != kOutside && second != kOutside) {
        add_line<0, kRows, kInside>(work, source, line, weights + first, weights + second, sum);
      } else if (kRows == 1 || first != kOutside) {
        add_line<0, 1, kInside>(work, source, line, weights + first, nullptr, sum);
      } else {
        add_line<kRows - 1, kRows, kInside>(work, source, line, nullptr, weights + second, sum);
      }
    }
  }

  // A line's part in the rows [kFrom, kTo).
  template <int kFrom, int kTo, bool kInside, int kRows, int kCount, class T, class Source>
  static FASTNETS_INLINE void add_line(const Work<T>& work, const Source& source, const T* line,
                                       const float* first, const float* second,
                                       typename Source::V (&sum)[kRows][kCount]) {
    using V = typename Source::V;
    V weight[kRows][kWidth];
#pragma GCC unroll 2
    for (int r = kFrom; r < kTo; ++r) {
#pragma GCC unroll 8
      for (int k = 0; k < kWidth; ++k) weight[r][k] = V::load((r == 0 ? first : second) + k * Vec::width);
    }
    int64_t at = work.segment.start;
#pragma GCC unroll 32
    for (int j = 0; j < (kCount - 1) * kStep + kWidth; ++j, at += work.input_pixel) {
      if (!kInside && (work.segment.outside >> j & 1) != 0) continue;
      const V in = source(line + at);
      if (kInside) __builtin_prefetch(line + at + source.channel + kAhead);
#pragma GCC unroll 8
      for (int k = 0; k < kWidth; ++k) {
        const int n = (j - k) / kStep;
        if (j < k || (j - k) % kStep != 0 || n >= kCount) continue;
#pragma GCC unroll 2
        for (int r = kFrom; r < kTo; ++r) sum[r][n] = fma(in, weight[r][k], sum[r][n]);
      }
    }
  }

#if defined(FASTNETS_LEVEL_avx512_bf16)
  template <int kRows, int kCount, bool kInside, class Source>
  static FASTNETS_INLINE void add_two_lines(const Work<Bf16>& work, const Source& source,
                                            const float* weights, typename Source::V (&sum)[kRows][kCount]) {
    using V = typename Source::V;
    const RowTables<Bf16>& tables = work.tables;
    for (int64_t i = 0; i < tables.lines; i += 2) {
      const int64_t next = i + 1 < tables.lines ? i + 1 : i;
      PairOf<V> weight[kRows][kWidth];
#pragma GCC unroll 2
      for (int r = 0; r < kRows; ++r) {
        const int64_t of_first = tables.line_weights[r][i];
        const int64_t of_second = next == i ? kOutside : tables.line_weights[r][next];
        V first_weight[kWidth], second_weight[kWidth];
        load_or_zero(weights, of_first, first_weight);
        load_or_zero(weights, of_second, second_weight);
#pragma GCC unroll 8
        for (int k = 0; k < kWidth; ++k) weight[r][k] = pair_of(first_weight[k], second_weight[k]);
      }
      const Bf16 *const first = tables.line[i], *const second = tables.line[next];
      int64_t at = work.segment.start;
#pragma GCC unroll 32
      for (int j = 0; j < (kCount - 1) * kStep + kWidth; ++j, at += work.input_pixel) {
        if (!kInside && (work.segment.outside >> j & 1) != 0) continue;
        const PairOf<V> in = source(first + at, second + at);
#pragma GCC unroll 8
        for (int k = 0; k < kWidth; ++k) {
          const int n = (j - k) / kStep;
          if (j < k || (j - k) % kStep != 0 || n >= kCount) continue;
#pragma GCC unroll 2
          for (int r = 0; r < kRows; ++r) sum[r][n] = fma(in, weight[r][k], sum[r][n]);
        }
      }
    }
  }

  template <class V>
  static FASTNETS_INLINE void load_or_zero(const float* weights, int64_t offset, V (&line)[kWidth]) {
#pragma GCC unroll 8
    for (int k = 0; k < kWidth; ++k) line[k] = V::set(0.0F);
    if (offset == kOutside) return;
#pragma GCC unroll 8
    for (int k = 0; k < kWidth; ++k) line[k] = V::load(weights + offset + k * Vec::width);
  }
#endif
};

struct Unshared {
  static constexpr bool kSpreads = true;

  template <int kRows, int kCount, bool kInside, class T, class Source>
  static FASTNETS_INLINE void add(const Work<T>& work, const Source& source, const float* weights,
                                  typename Source::V (&sum)[kRows][kCount]) {
    for (int64_t i = 0; i < work.tables.lines; ++i) {
      const T* const line = work.tables.line[i];
      const float* weight = weights + work.tables.line_weights[0][i];
      const int64_t* column = work.column;
      for (int64_t k = 0; k < work.plan.s.kernel[2]; ++k, column += kCount, weight += Vec::width) {
        const auto w = Source::V::load(weight);
#pragma GCC unroll 8
        for (int n = 0; n < kCount; ++n) {
          if (kInside || column[n] != kOutside) sum[0][n] = fma(source(line + column[n]), w, sum[0][n]);
        }
      }
    }
  }
};

// Stores the results of a vector, from y on, where that takes more than a clamp and whole vectors.
template <class V, class T>
__attribute__((noinline)) void store_results(const V* value, int rows, int count, int lanes, T* y,
                                             const T* residual, const Place<T>& place,
                                             const ClampOf<V>& clamp) {
  for (int i = 0; i < rows * count; ++i) {
    const int64_t r = i / count, n = i % count;
    T* const to = y + r * place.row + n * place.pixel;
    V v = value[i];
    if (residual != nullptr) {
      v = v + load_lanes<V>(residual + r * place.residual_row + n * place.residual_pixel, lanes);
    }
    place.stream ? clamp(v).stream(to) : store_lanes(clamp(v), to, place.whole ? V::width : lanes);
  }
}

template <class Pattern, int kRows, int kCount, bool kInside, class T, class Source>
FASTNETS_INLINE void run_vector(const Work<T>& work, const Source& source, int64_t vector,
                                const Place<T>& place, const Epilogue& epilogue,
                                const ClampOf<typename Source::V>& clamp) {
  using V = typename Source::V;
  V sum[kRows][kCount];
#pragma GCC unroll 2
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int n = 0; n < kCount; ++n) sum[r][n] = V::set(0.0F);
  }
  const int64_t channel = vector * Vec::width;
  const float* const weights =
      static_cast<const float*>(work.plan.call.weights) + channel * work.plan.s.taps();
  Pattern::template add<kRows, kCount, kInside>(work, source, weights, sum);
  const ChannelTermsOf<V> terms(epilogue, channel, source.lanes);
  T* const first = place.y + vector / kSteps<T> * place.block + vector % kSteps<T> * Vec::width;
  const bool whole = source.lanes == V::width || place.whole;
  // Asked for each result, this took nearly as many instructions as the sums.
  if (whole && !place.stream && place.residual == nullptr) {
    const int64_t row = place.row, pixel = place.pixel;
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) {
      T* y = first + r * row;
#pragma GCC unroll 8
      for (int n = 0; n < kCount; ++n, y += pixel) clamp(terms(sum[r][n])).store(y);
    }
    return;
  }
  V value[kRows * kCount];
#pragma GCC unroll 2
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int n = 0; n < kCount; ++n) value[r * kCount + n] = terms(sum[r][n]);
  }
  store_results(value, kRows, kCount, source.lanes, first,
                place.residual == nullptr ? nullptr : place.residual + channel, place, clamp);
}

template <class Pattern, int kRows, int kCount, class T>
__attribute__((noinline)) void run_segment(const Work<T>& work, const Place<T>& place,
                                           const Epilogue& epilogue) {
  const int64_t channels = work.plan.s.cout, multiplier = work.plan.multiplier;
  const ClampOf<Vec> clamp(epilogue);
  for (int64_t v = work.from; v < work.to; ++v) {
    const int64_t channel = v * Vec::width;
    const int lanes = static_cast<int>(least(Vec::width, channels - channel));
    if (multiplier > 1) {
      if constexpr (Pattern::kSpreads) {
        const SpreadVector source(channel, lanes, multiplier);
        run_vector<Pattern, kRows, kCount, false>(work, source, v, place, epilogue, clamp);
      }
    } else if (lanes == Vec::width && work.segment.outside == 0) {
      run_vector<Pattern, kRows, kCount, true>(work, WholeVector{channel}, v, place, epilogue, clamp);
    } else if (lanes == Vec::width) {
      run_vector<Pattern, kRows, kCount, false>(work, WholeVector{channel}, v, place, epilogue, clamp);
    } else if (lanes > kHalf || kHalf == Vec::width) {
      run_vector<Pattern, kRows, kCount, false>(work, PartOf<Vec>{channel, lanes}, v, place, epilogue, clamp);
    } else {
      run_vector<Pattern, kRows, kCount, false>(work, PartOf<Half>{channel, lanes}, v, place, epilogue,
                                                ClampOf<Half>(epilogue));
    }
  }
}

template <class T, class Pattern, int kRows>
constexpr SegmentKernel<T> kKernels[kSegment] = {
    run_segment<Pattern, kRows, 1, T>, run_segment<Pattern, kRows, 2, T>, run_segment<Pattern, kRows, 3, T>,
    run_segment<Pattern, kRows, 4, T>, run_segment<Pattern, kRows, 5, T>, run_segment<Pattern, kRows, 6, T>,
    run_segment<Pattern, kRows, 7, T>, run_segment<Pattern, kRows, 8, T>};

}  // namespace

template <class T>
const SegmentKernel<T>* segment_kernels(const RowPlan& plan, bool pair) {
  if (!plan.shared) return kKernels<T, Unshared, 1>;
  if (plan.s.kernel[2] == 3) {
    if (pair) return kKernels<T, Shared<3, 1>, kPair>;
    return plan.step == 1 ? kKernels<T, Shared<3, 1>, 1> : kKernels<T, Shared<3, 2>, 1>;
  }
  if (pair) return kKernels<T, Shared<5, 1>, kPair>;
  return plan.step == 1 ? kKernels<T, Shared<5, 1>, 1> : kKernels<T, Shared<5, 2>, 1>;
}

#if !defined(FASTNETS_BF16_ALONE)
template const SegmentKernel<float>* segment_kernels(const RowPlan&, bool);
#endif
template const SegmentKernel<Bf16>* segment_kernels(const RowPlan&, bool);

}  // namespace FASTNETS_LEVEL
}  // namespace fastnets
