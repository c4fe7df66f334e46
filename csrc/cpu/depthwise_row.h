// Rows of a depthwise convolution. Included by kernel files only: conv_depthwise.cpp writes them to pixels,
// separable.cpp to the panel of a product.
//
// A row is cut into segments of up to kSegment outputs whose sums stay in registers, for one vector of channels
// after another. Taps outside of the image are left out, not read as zeros: lines when the row starts, columns by
// a branch that goes the same way for every line and vector of a segment.
//
// With stride s and dilation d along x, outputs that are d / gcd(s, d) apart form a convolution without dilation
// and of stride s / gcd(s, d): its neighbours share their inputs, each loaded once. That is the pattern Shared,
// for kernels of 3 and 5; all others are Unshared and load each input once a tap.
#pragma once

#include "common/scratch.h"
#include "cpu/activation.h"
#include "cpu/conv.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

constexpr int kSegment = 8;  // with 5 weights and an input, 14 of 16 registers (AVX2)
constexpr int64_t kOutside = -1;

FASTNETS_INLINE int64_t common_divisor(int64_t a, int64_t b) {
  while (b != 0) {
    const int64_t rest = a % b;
    a = b, b = rest;
  }
  return a;
}

FASTNETS_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Segment {
  int64_t x, count;  // outputs x, x + spacing, ...
};

// What the rows of a call have in common.
struct RowPlan {
  const ConvCall& call;
  const ConvShape& s;
  int64_t multiplier;  // outputs of an input channel
  int64_t vectors;     // of output channels
  int64_t lines;       // tap lines: (z, y) of the kernel
  bool shared;
  int64_t spacing, step;  // of a segment: distance of its outputs, and stride of its convolution
  int64_t segments;       // of a row
  int64_t columns;        // entries of a segment's table, at most

  explicit FASTNETS_INLINE RowPlan(const ConvCall& c) : call(c), s(c.shape) {
    multiplier = s.cin == 0 ? 1 : s.cout / s.cin;
    vectors = ceil_div(s.cout, Vec::width);
    lines = s.kernel[0] * s.kernel[1];
    const int64_t divisor = common_divisor(s.stride[2], s.dilation[2]);
    spacing = s.dilation[2] / divisor, step = s.stride[2] / divisor;
    // Where a phase has less than 4 outputs, neighbours that share nothing fill the registers better.
    shared = multiplier == 1 && (s.kernel[2] == 3 || s.kernel[2] == 5) && step <= 2 &&
             (spacing == 1 || s.out[2] >= 4 * spacing);
    if (!shared) spacing = 1, step = s.stride[2];
    columns = shared ? (kSegment - 1) * step + s.kernel[2] : kSegment * s.kernel[2];
    segments = 0;
    for (int64_t phase = 0; phase < phases(); ++phase) segments += ceil_div(outputs(phase), kSegment);
  }
  FASTNETS_INLINE int64_t phases() const { return least(spacing, s.out[2]); }
  FASTNETS_INLINE int64_t outputs(int64_t phase) const { return ceil_div(s.out[2] - phase, spacing); }
  FASTNETS_INLINE int64_t rows() const { return s.batch * s.out[0] * s.out[1]; }
  FASTNETS_INLINE int64_t bytes() const {
    return slice_bytes<Segment>(segments) + slice_bytes<int64_t>(segments * columns) +
           slice_bytes<const float*>(lines) + slice_bytes<int64_t>(lines);
  }
};

// Tables of a thread: the segments and their columns hold for all rows, the lines for one.
struct RowTables {
  Segment* segment;
  int64_t* column;  // [segments][columns]: floats from the start of a line, or kOutside
  const float** line;
  int64_t* line_weights;  // where the weights of a line start in those of a vector
  int64_t lines = 0;

  FASTNETS_INLINE RowTables(const RowPlan& plan, Arena& arena)
      : segment(arena.take<Segment>(plan.segments)),
        column(arena.take<int64_t>(plan.segments * plan.columns)),
        line(arena.take<const float*>(plan.lines)),
        line_weights(arena.take<int64_t>(plan.lines)) {
    int64_t i = 0;
    for (int64_t phase = 0; phase < plan.phases(); ++phase) {
      const int64_t outputs = plan.outputs(phase), parts = ceil_div(outputs, kSegment);
      for (int64_t part = 0; part < parts; ++part, ++i) {
        const int64_t begin = outputs * part / parts, end = outputs * (part + 1) / parts;
        segment[i] = {phase + begin * plan.spacing, end - begin};
        fill(plan, segment[i], column + i * plan.columns);
      }
    }
  }

  // Shared: [input]; Unshared: [tap][output].
  static FASTNETS_INLINE void fill(const RowPlan& plan, const Segment& segment, int64_t* to) {
    const ConvShape& s = plan.s;
    const int64_t first = segment.x * s.stride[2] - s.pad[2];
    const int64_t inner = plan.shared ? 1 : segment.count;
    const int64_t count = plan.shared ? (segment.count - 1) * plan.step + s.kernel[2] : inner * s.kernel[2];
    for (int64_t j = 0; j < count; ++j) {
      const int64_t x = first + j / inner * s.dilation[2] + j % inner * s.stride[2];
      to[j] = x >= 0 && x < s.in[2] ? x * plan.call.x_stride[3] : kOutside;
    }
  }

  FASTNETS_INLINE void find_lines(const RowPlan& plan, int64_t image, int64_t oz, int64_t oy) {
    const ConvShape& s = plan.s;
    const int64_t* stride = plan.call.x_stride;
    lines = 0;
    for (int64_t i = 0; i < s.kernel[0]; ++i) {
      const int64_t z = oz * s.stride[0] - s.pad[0] + i * s.dilation[0];
      if (z < 0 || z >= s.in[0]) continue;
      for (int64_t j = 0; j < s.kernel[1]; ++j) {
        const int64_t y = oy * s.stride[1] - s.pad[1] + j * s.dilation[1];
        if (y < 0 || y >= s.in[1]) continue;
        line[lines] = plan.call.x + image * stride[0] + z * stride[1] + y * stride[2];
        line_weights[lines++] = (i * s.kernel[1] + j) * s.kernel[2] * Vec::width;
      }
    }
  }
};

// Where the outputs of a segment go. Vector v of output i: y + i * pixel + v * vector.
struct Place {
  float* y;
  int64_t pixel, vector;
  const float* residual;  // of the first output, or null
  int64_t residual_pixel;
  bool whole;  // store whole vectors: the lanes past the last channel are 0
  bool stream;
};

// A segment's inputs and its range of vectors.
struct Work {
  const RowPlan& plan;
  const RowTables& tables;
  const int64_t* column;
  int64_t from, to;
};

// How a vector of inputs is loaded: whole, its first lanes, or with each channel `multiplier` times.
struct WholeVector {
  int64_t channel;
  static constexpr int lanes = Vec::width;
  FASTNETS_INLINE Vec operator()(const float* pixel) const { return Vec::load(pixel + channel); }
};

struct PartVector {
  int64_t channel;
  int lanes;
  FASTNETS_INLINE Vec operator()(const float* pixel) const { return Vec::load(pixel + channel, lanes); }
};

struct SpreadVector {
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
  FASTNETS_INLINE Vec operator()(const float* pixel) const {
    return permute(Vec::load(pixel + channel, inputs), order);
  }
};

template <int kWidth, int kStep>
struct Shared {
  static constexpr bool kSpreads = false;
  template <int kCount, class Source>
  static FASTNETS_INLINE void add(const Work& work, const Source& source, const float* weights,
                                  Vec (&sum)[kCount]) {
    for (int64_t i = 0; i < work.tables.lines; ++i) {
      const float* const line = work.tables.line[i];
      const float* const line_weights = weights + work.tables.line_weights[i];
      Vec weight[kWidth];
#pragma GCC unroll 8
      for (int k = 0; k < kWidth; ++k) weight[k] = Vec::load(line_weights + k * Vec::width);
#pragma GCC unroll 32
      for (int j = 0; j < (kCount - 1) * kStep + kWidth; ++j) {
        if (work.column[j] == kOutside) continue;
        const Vec in = source(line + work.column[j]);
#pragma GCC unroll 8
        for (int k = 0; k < kWidth; ++k) {
          const int n = j - k;
          if (n >= 0 && n % kStep == 0 && n / kStep < kCount) {
            sum[n / kStep] = fma(in, weight[k], sum[n / kStep]);
          }
        }
      }
    }
  }
};

struct Unshared {
  static constexpr bool kSpreads = true;
  template <int kCount, class Source>
  static FASTNETS_INLINE void add(const Work& work, const Source& source, const float* weights,
                                  Vec (&sum)[kCount]) {
    for (int64_t i = 0; i < work.tables.lines; ++i) {
      const float* const line = work.tables.line[i];
      const float* weight = weights + work.tables.line_weights[i];
      const int64_t* column = work.column;
      for (int64_t k = 0; k < work.plan.s.kernel[2]; ++k, column += kCount, weight += Vec::width) {
        const Vec w = Vec::load(weight);
#pragma GCC unroll 8
        for (int n = 0; n < kCount; ++n) {
          if (column[n] != kOutside) sum[n] = fma(source(line + column[n]), w, sum[n]);
        }
      }
    }
  }
};

template <class Pattern, int kCount, class Source>
FASTNETS_INLINE void run_vector(const Work& work, const Source& source, int64_t vector, const Place& place,
                                const Epilogue& epilogue, const Clamp& clamp) {
  Vec sum[kCount];
#pragma GCC unroll 8
  for (int n = 0; n < kCount; ++n) sum[n] = Vec::set(0.0F);
  const int64_t taps = work.plan.s.taps();
  Pattern::template add<kCount>(work, source, work.plan.call.weights + vector * taps * Vec::width, sum);
  const ChannelTerms terms(epilogue, vector * Vec::width, source.lanes);
  float* y = place.y + vector * place.vector;
#pragma GCC unroll 8
  for (int n = 0; n < kCount; ++n, y += place.pixel) {
    Vec v = terms(sum[n]);
    if (place.residual != nullptr) {
      v = v + Vec::load(place.residual + n * place.residual_pixel + vector * Vec::width, source.lanes);
    }
    if (place.stream) {
      clamp(v).stream(y);
    } else if (source.lanes == Vec::width || place.whole) {
      clamp(v).store(y);
    } else {
      clamp(v).store(y, source.lanes);
    }
  }
}

template <class Pattern, int kCount>
__attribute__((noinline)) void run_segment(const Work& work, const Place& place, const Epilogue& epilogue) {
  const Clamp clamp(epilogue);
  const int64_t channels = work.plan.s.cout, multiplier = work.plan.multiplier;
  for (int64_t v = work.from; v < work.to; ++v) {
    const int64_t channel = v * Vec::width;
    const int lanes = static_cast<int>(least(Vec::width, channels - channel));
    if (multiplier > 1) {
      if constexpr (Pattern::kSpreads) {
        run_vector<Pattern, kCount>(work, SpreadVector(channel, lanes, multiplier), v, place, epilogue, clamp);
      }
    } else if (lanes == Vec::width) {
      run_vector<Pattern, kCount>(work, WholeVector{channel}, v, place, epilogue, clamp);
    } else {
      run_vector<Pattern, kCount>(work, PartVector{channel, lanes}, v, place, epilogue, clamp);
    }
  }
}

using SegmentKernel = void (*)(const Work&, const Place&, const Epilogue&);

template <class Pattern>
FASTNETS_INLINE SegmentKernel of_count(int64_t count) {
  static constexpr SegmentKernel kKernels[kSegment] = {
      run_segment<Pattern, 1>, run_segment<Pattern, 2>, run_segment<Pattern, 3>, run_segment<Pattern, 4>,
      run_segment<Pattern, 5>, run_segment<Pattern, 6>, run_segment<Pattern, 7>, run_segment<Pattern, 8>};
  return kKernels[count - 1];
}

FASTNETS_INLINE SegmentKernel segment_kernel(const RowPlan& plan, int64_t count) {
  if (!plan.shared) return of_count<Unshared>(count);
  if (plan.s.kernel[2] == 3) return plan.step == 1 ? of_count<Shared<3, 1>>(count) : of_count<Shared<3, 2>>(count);
  return plan.step == 1 ? of_count<Shared<5, 1>>(count) : of_count<Shared<5, 2>>(count);
}

}  // namespace
}  // namespace FASTNETS_LEVEL
}  // namespace fastnets
