// Convolution of few input channels: the first layer of a network, whose x may have any order in memory.
//
// An item is a run of output pixels of one row. What they read of x is copied with its padding, a line for
// each channel and kernel row. There the taps of a pixel are adjacent and the next pixel's lie a stride
// further, so the product reads A from the lines: no pixel is gathered on its own (conv_product.cpp), and a
// channels-first image needs no other order. Lines are of floats, or of Bf16 where its pairs are multiplied:
// then taps go in pairs, of which the last of a line may have one.
#include <algorithm>
#include <type_traits>

#include "common/scratch.h"
#include "cpu/conv.h"
#include "cpu/micro_kernel.h"
#include "cpu/pixel_rows.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

template <class T>
using LineOf = std::conditional_t<(kSteps<T> > 1), T, float>;

template <class L>
struct Lines {
  const L* first;  // the first tap of the first pixel
  int64_t count, length;
  int64_t taps, dilation;  // of a pixel in a line
  int64_t stride;          // from a pixel to the next
};

// The last tap of a line without the one that would follow it, which belongs to another pixel.
template <class L, int kRows>
struct LastTap : StridedRows<L, kRows> {
  using StridedRows<L, kRows>::StridedRows;
  FASTNETS_INLINE auto factor(int i, int) const { return row_factor(this->row(i), 1); }
};

template <int kRows, int kVectors, class Last, class T>
__attribute__((noinline)) void lines_to_pixels(const Lines<LineOf<T>>& lines, const LineOf<T>* b,
                                               const Target<T>& target, const Epilogue& epilogue) {
  using L = LineOf<T>;
  constexpr int64_t kPanel = kVectors * PackedPanel<L>::kVector;
  Sums<kRows, kVectors, Last> sum;
  start<kRows, kVectors>(sum, epilogue, target.channel, target.lanes);
  const L* line = lines.first;
  for (int64_t i = 0; i < lines.count; ++i, line += lines.length) {
    const L* tap = line;
    int64_t left = lines.taps;
    for (; left >= kSteps<L>; left -= kSteps<L>, tap += kSteps<L> * lines.dilation, b += kPanel) {
      add_factors<kRows, kVectors>(sum, StridedRows<L, kRows>(tap, lines.stride), PackedPanel<L>{b, {}});
    }
    if (kSteps<L> > 1 && left > 0) {
      add_factors<kRows, kVectors>(sum, LastTap<L, kRows>(tap, lines.stride), PackedPanel<L>{b, {}});
      b += kPanel;
    }
  }
  store_sums<kRows, kVectors>(sum, target, epilogue);
}

template <class T>
using LineProduct = void (*)(const Lines<LineOf<T>>&, const LineOf<T>*, const Target<T>&, const Epilogue&);

#define FASTNETS_LINES(rows) lines_to_pixels<rows, Kind::kVectors, typename Kind::Last, T>

template <class Kind, class T>
FASTNETS_INLINE LineProduct<T> line_product(int64_t rows) {
  static constexpr LineProduct<T> kProducts[] = {FASTNETS_ROWS(FASTNETS_LINES)};
  return kProducts[rows - 1];
}

// Everything that the items of a call have in common.
struct Plan {
  const ConvCall& call;
  const ConvShape& s;
  int64_t block, runs;      // outputs of an item, and items of a row of outputs
  int64_t lines, length;    // a line in elements
  int64_t vectors, panels;  // of outputs

  explicit Plan(const ConvCall& c) : call(c), s(c.shape) {
    block = least(call.block, s.out[2]);
    runs = block == 0 ? 0 : (s.out[2] + block - 1) / block;
    lines = s.cin * s.kernel[0] * s.kernel[1];
    length = line_of(block);
    vectors = (s.cout + Vec::width - 1) / Vec::width;
    panels = (vectors + kPanelVectors - 1) / kPanelVectors;
  }
  // What `count` outputs read of a row.
  int64_t line_of(int64_t count) const {
    return (count - 1) * s.stride[2] + (s.kernel[2] - 1) * s.dilation[2] + 1;
  }
  int64_t line_elements() const { return lines * length + Vec::width; }  // copy_line writes past the last one
  int64_t private_bytes() const {
    return slice_bytes<float>(line_elements()) + slice_bytes<int64_t>(2 * block);
  }
};

// Every `step`-th of the elements from p on, `count` of them: as many at a time as a vector has. Writes up to
// a vector past their end. One by one, channels-last images took 1.03 to 1.2 of a layer's time.
template <class T, class L>
void copy_every(const T* p, int64_t step, int64_t count, L* to) {
  const int64_t each = (Vec::width - 1) / step + 1;
  int32_t order[Vec::width];
  for (int64_t i = 0; i < Vec::width; ++i) order[i] = static_cast<int32_t>(i < each ? i * step : 0);
  for (int64_t i = 0; i < count; i += each) {
    const int64_t lanes = least(Vec::width, (count - 1 - i) * step + 1);
    permute(load_lanes(p + i * step, static_cast<int>(lanes)), order).store(to + i);
  }
}

// count elements from column `first` of a row on, zeros outside of its `size` columns; up to a vector more.
template <class T, class L>
void copy_line(const T* row, int64_t step, int64_t size, int64_t first, int64_t count, L* to) {
  const int64_t from = least(count, first < 0 ? -first : 0);
  const int64_t end = size - first < from ? from : least(count, size - first);
  std::fill(to, to + from, L{});
  if (step == 1) {
    each_vector(end - from, [&](int64_t i, int lanes) {
      store_lanes(load_lanes(row + first + from + i, lanes), to + from + i, lanes);
    });
  } else if (step > 1 && step < Vec::width) {
    copy_every(row + (first + from) * step, step, end - from, to + from);
  } else {
    for (int64_t i = from; i < end; ++i) assign(to[i], value_of(row[(first + i) * step]));
  }
  std::fill(to + end, to + count, L{});
}

// The lines for `count` outputs from (z, y, x) on.
template <class T, class L>
void copy_lines(const Plan& plan, const T* image, const int64_t at[3], int64_t count, L* to) {
  const ConvShape& s = plan.s;
  const int64_t* step = plan.call.x_stride;
  const int64_t first = at[2] * s.stride[2] - s.pad[2], length = plan.line_of(count);
  for (int64_t c = 0; c < s.cin; ++c) {
    for (int64_t i = 0; i < s.kernel[0]; ++i) {
      const int64_t z = at[0] * s.stride[0] - s.pad[0] + i * s.dilation[0];
      for (int64_t j = 0; j < s.kernel[1]; ++j, to += plan.length) {
        const int64_t y = at[1] * s.stride[1] - s.pad[1] + j * s.dilation[1];
        const bool inside = z >= 0 && z < s.in[0] && y >= 0 && y < s.in[1];
        const T* row = image + c * plan.call.x_channel;
        if (inside) row += z * step[1] + y * step[2];
        copy_line(row, step[3], inside ? s.in[2] : 0, first, length, to);
      }
    }
  }
}

// Private memory of a thread.
template <class T>
struct Private {
  LineOf<T>* lines;
  int64_t* y_offset;
  int64_t* residual_offset;
};

template <class T>
void run_item(const Plan& plan, int64_t item, const Private<T>& own) {
  const ConvCall& call = plan.call;
  const ConvShape& s = plan.s;
  const Epilogue& epilogue = call.epilogue;
  const int64_t row = item / plan.runs, plane = row / s.out[1], n = plane / s.out[0];
  const int64_t at[3] = {plane % s.out[0], row % s.out[1], item % plan.runs * plan.block};
  const int64_t count = least(plan.block, s.out[2] - at[2]);
  copy_lines(plan, static_cast<const T*>(call.x) + n * call.x_stride[0], at, count, own.lines);

  const auto offset = [&](const int64_t stride[4]) {
    return n * stride[0] + at[0] * stride[1] + at[1] * stride[2] + at[2] * stride[3];
  };
  for (int64_t i = 0; i < count; ++i) {
    own.y_offset[i] = offset(call.y_stride) + i * call.y_stride[3];
    own.residual_offset[i] = offset(epilogue.residual_stride) + i * epilogue.residual_stride[3];
  }
  T* const y = static_cast<T*>(call.y);
  const EvenRows cut(count);
  for (int64_t panel = 0; panel < plan.panels; ++panel) {
    const int64_t done = panel * kPanelVectors * Vec::width;
    const auto* b = static_cast<const LineOf<T>*>(call.weights) +
                    done * plan.lines * whole_factors<LineOf<T>>(s.kernel[2]);
    with_panel(least(s.cout - done, kPanelVectors * Vec::width), [&](auto kind) FASTNETS_INLINE_LAMBDA {
      for (int64_t part = 0; part < cut.parts; ++part) {
        const int64_t begin = cut.begin(part);
        const Lines<LineOf<T>> lines{own.lines + begin * s.stride[2],
                                     plan.lines,
                                     plan.length,
                                     s.kernel[2],
                                     s.dilation[2],
                                     s.stride[2]};
        const Target<T> target{y,
                               own.y_offset + begin,
                               epilogue.residual == nullptr ? nullptr : own.residual_offset + begin,
                               done,
                               least(s.cout - done, kPanelVectors * Vec::width),
                               call.stream};
        line_product<decltype(kind), T>(cut.begin(part + 1) - begin)(lines, b, target, epilogue);
      }
    });
  }
  if (Clamp(epilogue).more) activate_pixels(y + own.y_offset[0], count, call.y_stride[3], s.cout, epilogue);
}

}  // namespace
}  // namespace FASTNETS_LEVEL

int64_t FASTNETS_ENTRY(conv_planar_scratch)(const ConvCall& call, int threads) {
  return threads * FASTNETS_LEVEL::Plan(call).private_bytes();
}

void FASTNETS_ENTRY(conv_planar)(const ConvCall& call, void* scratch, ThreadContext& context) {
  using namespace FASTNETS_LEVEL;
  const Plan plan(call);
  const int64_t items = call.shape.batch * call.shape.out[0] * call.shape.out[1] * plan.runs;
  with_own_element(call.element, [&](auto zero) {
    using T = decltype(zero);
    Arena arena(scratch, context.thread * plan.private_bytes());
    Private<T> own{};
    own.lines = arena.take<LineOf<T>>(plan.line_elements());
    own.y_offset = arena.take<int64_t>(2 * plan.block);
    own.residual_offset = own.y_offset + plan.block;
    for (int64_t item; next_item(context, items, item);) run_item<T>(plan, item, own);
  });
  if (call.stream) stream_fence();
  finish(context);
}

}  // namespace fastnets
