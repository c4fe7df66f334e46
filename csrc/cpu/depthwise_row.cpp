// The segments of a depthwise row: a unit of their own, as three kernels run them.
#include "cpu/depthwise_row.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

constexpr int kHalf = Half::width;
constexpr int kAhead = 4 * Vec::width;  // how far inputs are fetched in advance: 0.3 to 0.9 % of networks

// How a vector of inputs is loaded: whole, its first lanes, or with each channel `multiplier` times.
struct WholeVector {
  using V = Vec;
  int64_t channel;
  static constexpr int lanes = Vec::width;
  template <class T>
  FASTNETS_INLINE Vec operator()(const T* pixel) const {
    return Vec::load(pixel + channel);
  }
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
    const T* pixel = line + work.column[0];
#pragma GCC unroll 32
    for (int j = 0; j < (kCount - 1) * kStep + kWidth; ++j, pixel += work.input_pixel) {
      if (!kInside && work.column[j] == kOutside) continue;
      const T* const from = kInside ? pixel : line + work.column[j];
      const V in = source(from);
      if (kInside) __builtin_prefetch(from + source.channel + kAhead);
#pragma GCC unroll 8
      for (int k = 0; k < kWidth; ++k) {
        const int n = (j - k) / kStep;
        if (j < k || (j - k) % kStep != 0 || n >= kCount) continue;
#pragma GCC unroll 2
        for (int r = kFrom; r < kTo; ++r) sum[r][n] = fma(in, weight[r][k], sum[r][n]);
      }
    }
  }
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

template <class Pattern, int kRows, int kCount, bool kInside, class T, class Source>
FASTNETS_INLINE void run_vector(const Work<T>& work, const Source& source, int64_t vector,
                                const Place<T>& place, const Epilogue& epilogue) {
  const ClampOf<typename Source::V> clamp(epilogue);
  using V = typename Source::V;
  V sum[kRows][kCount];
#pragma GCC unroll 2
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int n = 0; n < kCount; ++n) sum[r][n] = V::set(0.0F);
  }
  const float* const weights =
      static_cast<const float*>(work.plan.call.weights) + vector * work.plan.s.taps() * Vec::width;
  Pattern::template add<kRows, kCount, kInside>(work, source, weights, sum);
  const ChannelTermsOf<V> terms(epilogue, vector * Vec::width, source.lanes);
  T* const first = place.y + vector / kSteps<T> * place.block + vector % kSteps<T> * Vec::width;
#pragma GCC unroll 2
  for (int r = 0; r < kRows; ++r) {
    T* y = first + r * place.row;
#pragma GCC unroll 8
    for (int n = 0; n < kCount; ++n, y += place.pixel) {
      V v = terms(sum[r][n]);
      if (place.residual != nullptr) {
        const int64_t offset = r * place.residual_row + n * place.residual_pixel + vector * Vec::width;
        v = v + V::load(place.residual + offset, source.lanes);
      }
      if (place.stream) {
        clamp(v).stream(y);
      } else if (source.lanes == V::width || place.whole) {
        clamp(v).store(y);
      } else {
        clamp(v).store(y, source.lanes);
      }
    }
  }
}

template <class Pattern, int kRows, int kCount, class T>
__attribute__((noinline)) void run_segment(const Work<T>& work, const Place<T>& place,
                                           const Epilogue& epilogue) {
  const int64_t channels = work.plan.s.cout, multiplier = work.plan.multiplier;
  for (int64_t v = work.from; v < work.to; ++v) {
    const int64_t channel = v * Vec::width;
    const int lanes = static_cast<int>(least(Vec::width, channels - channel));
    if (multiplier > 1) {
      if constexpr (Pattern::kSpreads) {
        const SpreadVector source(channel, lanes, multiplier);
        run_vector<Pattern, kRows, kCount, false>(work, source, v, place, epilogue);
      }
    } else if (lanes == Vec::width && work.inside) {
      run_vector<Pattern, kRows, kCount, true>(work, WholeVector{channel}, v, place, epilogue);
    } else if (lanes > kHalf || kHalf == Vec::width) {
      run_vector<Pattern, kRows, kCount, false>(work, PartOf<Vec>{channel, lanes}, v, place, epilogue);
    } else {
      run_vector<Pattern, kRows, kCount, false>(work, PartOf<Half>{channel, lanes}, v, place, epilogue);
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

template const SegmentKernel<float>* segment_kernels(const RowPlan&, bool);
template const SegmentKernel<Bf16>* segment_kernels(const RowPlan&, bool);

}  // namespace FASTNETS_LEVEL
}  // namespace fastnets
