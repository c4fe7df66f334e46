// Rows of a depthwise convolution. Included by kernel files only: conv_depthwise.cpp writes them to pixels,
// separable.cpp to the panel of a product. The kernels are in depthwise_row.cpp, compiled once a level.
//
// A row is cut into segments of up to kSegment outputs whose sums stay in registers, for one vector of
// channels after another. Taps outside of the image are left out, not read as zeros: lines when the row
// starts, columns by a branch that goes the same way for every line and vector of a segment.
//
// With stride s and dilation d along an axis, outputs that are d / gcd(s, d) apart form a convolution without
// dilation and of stride s / gcd(s, d): neighbours of it share inputs. Along x that is the pattern Shared,
// for kernels of 3 and 5, which loads each input once; all others are Unshared and load it once a tap. Along
// y two rows run as a pair where their stride is 1: the kernel is bound by what L1 takes from L2, and a pair
// reads 4 lines, not 6.
//
// Where a multiply-add takes two Bf16 (cpu/factor.h), Shared gives it a column of two lines: kernels of 3x3
// took 0.8 of the time. A line that a row does not read counts times 0: what is not finite there makes the
// row NaN.
#pragma once

#include "common/scratch.h"
#include "cpu/activation.h"
#include "cpu/conv.h"
#include "cpu/factor.h"

namespace fastnets {
namespace FASTNETS_LEVEL {

constexpr int kSegment = 8;  // with 5 weights and an input, 14 of 16 registers (AVX2)
constexpr int64_t kOutside = -1;
constexpr int kPair = Vec::width == 16 ? 2 : 1;  // rows that run together: AVX2 lacks the registers

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
  int64_t start;  // Shared: of the first input, elements from the start of a line, even where it is outside
  uint32_t outside;  // a bit an input that is outside; Unshared: whether there are any
};

struct RowPair {
  int64_t y[2];  // the second is kOutside where there is one row
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
  int64_t columns;        // Unshared: entries of a segment's table, at most
  int64_t y_spacing;
  bool paired;
  int64_t pairs;  // of a plane

  explicit FASTNETS_INLINE RowPlan(const ConvCall& c) : call(c), s(c.shape) {
    multiplier = s.cin == 0 ? 1 : s.cout / s.cin;
    vectors = ceil_div(s.cout, Vec::width);
    lines = s.kernel[0] * (s.kernel[1] + 1);
    spacing = spacing_of(2), step = s.stride[2] * spacing / s.dilation[2];
    // Where a phase has less than 4 outputs, neighbours that share nothing fill the registers better.
    shared = multiplier == 1 && (s.kernel[2] == 3 || s.kernel[2] == 5) && step <= 2 &&
             (spacing == 1 || s.out[2] >= 4 * spacing);
    if (!shared) spacing = 1, step = s.stride[2];
    columns = shared ? 0 : kSegment * s.kernel[2];
    segments = 0;
    for (int64_t phase = 0; phase < least(spacing, s.out[2]); ++phase) {
      segments += ceil_div(outputs(2, spacing, phase), kSegment);
    }
    y_spacing = spacing_of(1);
    paired = kPair == 2 && shared && step == 1 && s.stride[1] * y_spacing == s.dilation[1] && s.kernel[1] > 1;
    pairs = 0;
    for (int64_t phase = 0; phase < least(y_spacing, s.out[1]); ++phase) {
      pairs += ceil_div(outputs(1, y_spacing, phase), paired ? 2 : 1);
    }
  }
  FASTNETS_INLINE int64_t spacing_of(int axis) const {
    return s.dilation[axis] / common_divisor(s.stride[axis], s.dilation[axis]);
  }
  // Outputs phase, phase + distance, ... of an axis.
  FASTNETS_INLINE int64_t outputs(int axis, int64_t distance, int64_t phase) const {
    return ceil_div(s.out[axis] - phase, distance);
  }
  FASTNETS_INLINE int64_t input_pixel() const { return s.dilation[2] * call.x_stride[3]; }
  FASTNETS_INLINE int64_t bytes() const {
    return slice_bytes<Segment>(segments) + slice_bytes<int64_t>(segments * columns) +
           slice_bytes<RowPair>(pairs) + slice_bytes<const void*>(lines) + 2 * slice_bytes<int64_t>(lines);
  }
};

template <class T>
struct Work;
template <class T>
struct Place;

// Runs a segment.
template <class T>
using SegmentKernel = void (*)(const Work<T>&, const Place<T>&, const Epilogue&);

// Those for segments of 1 to kSegment outputs, in one row or in a pair (cpu/depthwise_row.cpp).
template <class T>
const SegmentKernel<T>* segment_kernels(const RowPlan& plan, bool pair);

// Tables of a thread: the segments, their columns and the pairs hold for all rows, the lines for one pair.
template <class T>
struct RowTables {
  Segment* segment;
  int64_t* column;  // [segments][tap][output]: elements from the start of a line, or kOutside; Unshared
  RowPair* pair;    // rows that share lines follow each other
  const T** line;
  int64_t* line_weights[2];  // where a line's weights for a row start in those of a vector, or kOutside
  int64_t lines = 0;
  const SegmentKernel<T>* kernels[2];  // by the outputs of a segment less 1, of a row and of a pair

  FASTNETS_INLINE RowTables(const RowPlan& plan, Arena& arena)
      : segment(arena.take<Segment>(plan.segments)),
        column(arena.take<int64_t>(plan.segments * plan.columns)),
        pair(arena.take<RowPair>(plan.pairs)),
        line(arena.take<const T*>(plan.lines)),
        line_weights{arena.take<int64_t>(plan.lines), arena.take<int64_t>(plan.lines)},
        kernels{segment_kernels<T>(plan, false), segment_kernels<T>(plan, true)} {
    int64_t i = 0;
    for (int64_t phase = 0; phase < least(plan.spacing, plan.s.out[2]); ++phase) {
      const int64_t outputs = plan.outputs(2, plan.spacing, phase), parts = ceil_div(outputs, kSegment);
      for (int64_t part = 0; part < parts; ++part, ++i) {
        const int64_t begin = outputs * part / parts, end = outputs * (part + 1) / parts;
        segment[i] = {phase + begin * plan.spacing, end - begin, 0, 0};
        find_inputs(plan, segment[i], column + i * plan.columns);
      }
    }
    i = 0;
    for (int64_t phase = 0; phase < least(plan.y_spacing, plan.s.out[1]); ++phase) {
      const int64_t last = plan.s.out[1] - plan.y_spacing;
      for (int64_t y = phase; y < plan.s.out[1]; y += (plan.paired ? 2 : 1) * plan.y_spacing) {
        pair[i++] = {{y, plan.paired && y < last ? y + plan.y_spacing : kOutside}};
      }
    }
  }

  static FASTNETS_INLINE void find_inputs(const RowPlan& plan, Segment& segment, int64_t* to) {
    const ConvShape& s = plan.s;
    const int64_t first = segment.x * s.stride[2] - s.pad[2];
    segment.start = first * plan.call.x_stride[3];
    if (plan.shared) {
      for (int64_t j = 0; j < (segment.count - 1) * plan.step + s.kernel[2]; ++j) {
        const int64_t x = first + j * s.dilation[2];
        if (x < 0 || x >= s.in[2]) segment.outside |= 1U << j;
      }
      return;
    }
    for (int64_t j = 0; j < segment.count * s.kernel[2]; ++j) {
      const int64_t x = first + j / segment.count * s.dilation[2] + j % segment.count * s.stride[2];
      const bool inside = x >= 0 && x < s.in[2];
      to[j] = inside ? x * plan.call.x_stride[3] : kOutside;
      if (!inside) segment.outside = 1;
    }
  }

  // Those of the input in memory.
  FASTNETS_INLINE void find_lines(const RowPlan& plan, int64_t image, int64_t oz, const RowPair& rows) {
    const int64_t* stride = plan.call.x_stride;
    const T* const x = static_cast<const T*>(plan.call.x) + image * stride[0];
    find_lines(plan, oz, rows, [&](int64_t z, int64_t y) FASTNETS_INLINE_LAMBDA {
      return x + z * stride[1] + y * stride[2];
    });
  }

  // line_of(z, y): where an input line starts.
  template <class LineOf>
  FASTNETS_INLINE void find_lines(const RowPlan& plan, int64_t oz, const RowPair& rows,
                                  const LineOf& line_of) {
    const ConvShape& s = plan.s;
    lines = 0;
    for (int64_t i = 0; i < s.kernel[0]; ++i) {
      const int64_t z = oz * s.stride[0] - s.pad[0] + i * s.dilation[0];
      if (z < 0 || z >= s.in[0]) continue;
      const int64_t second = rows.y[1] == kOutside ? 0 : 1;  // the second row's taps are one line further
      for (int64_t j = 0; j < s.kernel[1] + second; ++j) {
        const int64_t y = rows.y[0] * s.stride[1] - s.pad[1] + j * s.dilation[1];
        if (y < 0 || y >= s.in[1]) continue;
        line[lines] = line_of(z, y);
        const int64_t weights = (i * s.kernel[1] + j) * s.kernel[2] * Vec::width;
        line_weights[0][lines] = j < s.kernel[1] ? weights : kOutside;
        line_weights[1][lines++] = second != 0 && j > 0 ? weights - s.kernel[2] * Vec::width : kOutside;
      }
    }
  }
};

// Where the outputs of a segment go: output i of row r to y + r * row + i * pixel, and its vectors of
// channels in blocks of kColumns<T> channels, as the rows of a product want them.
template <class T>
struct Place {
  T* y;
  int64_t row, pixel, block;
  const T* residual;  // of the first output, or null
  int64_t residual_row, residual_pixel;
  bool whole;  // store whole vectors: the lanes past the last channel are 0
  bool stream;
};

// A segment's inputs and its range of vectors.
template <class T>
struct Work {
  const RowPlan& plan;
  const RowTables<T>& tables;
  const Segment& segment;
  const int64_t* column;
  int64_t input_pixel;  // Shared: elements from one input to the next
  int64_t from, to;
};

// The segment `index` of the rows whose lines are in `tables`, for the vectors [from, to).
template <class T>
FASTNETS_INLINE void run(const RowPlan& plan, const RowTables<T>& tables, int64_t index, bool pair,
                         int64_t from, int64_t to, const Place<T>& place, const Epilogue& epilogue) {
  const Segment& segment = tables.segment[index];
  const Work<T> work{plan, tables, segment, tables.column + index * plan.columns, plan.input_pixel(),
                     from, to};
  tables.kernels[pair ? 1 : 0][segment.count - 1](work, place, epilogue);
}

}  // namespace FASTNETS_LEVEL
}  // namespace fastnets
