// Convolution in groups as products without gathering: the inputs that a band of outputs of one group reads
// are copied once, and a tap is an offset into the copy.
//
// An item is a band of output lines of a plane, for one group. Its copy, [z][y][x][channel] with zeros where
// the input ends, stays in L1 where lines are not long. A product's rows are neighbours along x, which read
// pixels of the copy that are the stride apart; its sums stay in registers through all taps. Weights are
// packed as for conv_product.cpp, which gathers each pixel once a tap: with 16 channels a group that took
// longer than the products.
#include <cstring>

#include "common/scratch.h"
#include "cpu/conv.h"
#include "cpu/products.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

constexpr int64_t kCopyBytes = 1 << 14;  // of a band, if one line of outputs needs no more

template <class T>
struct Plan {
  const ConvCall& call;
  const ConvShape& s;
  int64_t cin, cout;     // of a group
  int64_t panel_stride;  // elements of a group's packed weights
  int64_t lines, bands;  // output lines of a band, bands of a plane
  int64_t extent[3];     // of a band's copy: z, y, x
  int64_t segment;       // outputs of a product, at most

  explicit Plan(const ConvCall& c) : call(c), s(c.shape) {
    cin = s.cin / s.groups, cout = s.cout / s.groups;
    const int64_t vectors = (cout + Vec::width - 1) / Vec::width;
    panel_stride = vectors * Vec::width * s.taps() * cin;
    extent[0] = reach(0, 1), extent[2] = reach(2, s.out[2]);
    const int64_t line = extent[0] * extent[2] * cin * static_cast<int64_t>(sizeof(T));
    lines = 1;
    while (lines < s.out[1] && reach(1, lines + 1) * line <= kCopyBytes) ++lines;
    bands = s.out[1] == 0 ? 0 : (s.out[1] + lines - 1) / lines;
    if (bands > 0) lines = (s.out[1] + bands - 1) / bands;
    extent[1] = reach(1, lines);
    const int64_t segments = (s.out[2] + kMaxRows - 1) / kMaxRows;
    segment = segments == 0 ? 0 : (s.out[2] + segments - 1) / segments;
  }
  // Inputs along an axis that `outputs` neighbours read.
  int64_t reach(int axis, int64_t outputs) const {
    return (outputs - 1) * s.stride[axis] + (s.kernel[axis] - 1) * s.dilation[axis] + 1;
  }
  int64_t copy_elements() const { return extent[0] * extent[1] * extent[2] * cin; }
  int64_t private_bytes() const {
    return slice_bytes<T>(copy_elements()) + slice_bytes<int64_t>(s.taps()) +
           2 * slice_bytes<int64_t>(kMaxRows);
  }
};

// Memory of a thread. tap: where each tap begins in the copy.
template <class T>
struct Own {
  T* copy;
  int64_t *tap, *y_offset, *residual_offset;
  Own(const Plan<T>& plan, Arena arena)
      : copy(arena.take<T>(plan.copy_elements())),
        tap(arena.take<int64_t>(plan.s.taps())),
        y_offset(arena.take<int64_t>(kMaxRows)),
        residual_offset(arena.take<int64_t>(kMaxRows)) {
    int64_t* next = tap;
    for (int64_t i = 0; i < plan.s.kernel[0]; ++i) {
      for (int64_t j = 0; j < plan.s.kernel[1]; ++j) {
        for (int64_t k = 0; k < plan.s.kernel[2]; ++k) {
          const int64_t line = i * plan.s.dilation[0] * plan.extent[1] + j * plan.s.dilation[1];
          *next++ = (line * plan.extent[2] + k * plan.s.dilation[2]) * plan.cin;
        }
      }
    }
  }
};

// Moves n elements.
template <class T>
FASTNETS_INLINE void move_pixel(T* to, const T* from, int64_t n) {
  for (int64_t i = 0; i < n; i += kColumns<T>) move_columns(to + i, from + i, least(kColumns<T>, n - i));
}

// The lines from output line `first` on of plane z, of channels that begin at x.
template <class T>
void copy_band(const Plan<T>& plan, const T* x, int64_t z, int64_t first, T* to) {
  const ConvShape& s = plan.s;
  const int64_t *stride = plan.call.x_stride, before = least(s.pad[2], plan.extent[2]);
  for (int64_t i = 0; i < plan.extent[0]; ++i) {
    const int64_t at_z = z * s.stride[0] - s.pad[0] + i;
    for (int64_t j = 0; j < plan.extent[1]; ++j) {
      const int64_t at_y = first * s.stride[1] - s.pad[1] + j;
      const bool inside = at_z >= 0 && at_z < s.in[0] && at_y >= 0 && at_y < s.in[1];
      const int64_t end = inside ? least(s.in[2] + s.pad[2], plan.extent[2]) : before;
      const T* from = inside ? x + at_z * stride[1] + at_y * stride[2] : nullptr;
      std::memset(to, 0, static_cast<size_t>(before * plan.cin) * sizeof(T));
      for (int64_t k = before; k < end; ++k, from += stride[3]) move_pixel(to + k * plan.cin, from, plan.cin);
      std::memset(to + end * plan.cin, 0, static_cast<size_t>((plan.extent[2] - end) * plan.cin) * sizeof(T));
      to += plan.extent[2] * plan.cin;
    }
  }
}

// What a product reads: pixels of the copy, from the first tap of the first on, and a panel of all taps.
template <class T>
struct Factors {
  const T *a, *b;
  int64_t row_stride;
  const int64_t* tap;
  int64_t taps, depth;
};

template <class Kind, int kRows, class T>
__attribute__((noinline)) void multiply(const Factors<T>& f, const Target<T>& target,
                                        const Epilogue& epilogue) {
  Sums<kRows, Kind::kVectors, typename Kind::Last> sum;
  start<kRows, Kind::kVectors>(sum, epilogue, target.channel, target.lanes);
  PackedPanel<T> panel{f.b, {}};
  for (int64_t tap = 0; tap < f.taps; ++tap) {
    StridedRows<T, kRows> rows(f.a + f.tap[tap], f.row_stride);
    add_block<kRows, Kind::kVectors>(sum, rows, panel, f.depth / kSteps<T>);
  }
  store_sums<kRows, Kind::kVectors>(sum, target, epilogue);
}

template <class Kind, class T>
struct Products {
  using Product = void (*)(const Factors<T>&, const Target<T>&, const Epilogue&);
#define FASTNETS_OF_ROWS(rows) multiply<Kind, rows, T>
  static constexpr Product of_rows[kMaxRows] = {FASTNETS_ROWS(FASTNETS_OF_ROWS)};
#undef FASTNETS_OF_ROWS
};

FASTNETS_INLINE int64_t at(const int64_t stride[4], int64_t image, int64_t z, int64_t y) {
  return image * stride[0] + z * stride[1] + y * stride[2];
}

// One line of outputs of a group, from its copy on.
template <class T>
void run_line(const Plan<T>& plan, const Own<T>& own, const T* copy, int64_t group, int64_t y_line,
              int64_t residual_line) {
  const ConvCall& call = plan.call;
  const ConvShape& s = plan.s;
  const T* const weights = static_cast<const T*>(call.weights) + group * plan.panel_stride;
  Target<T> target{static_cast<T*>(call.y),
                   own.y_offset,
                   call.epilogue.residual == nullptr ? nullptr : own.residual_offset,
                   0,
                   0,
                   call.stream};
  const int64_t row_stride = s.stride[2] * plan.cin;
  for (int64_t x = 0; x < s.out[2]; x += plan.segment) {
    const int64_t count = least(plan.segment, s.out[2] - x);
    for (int64_t i = 0; i < count; ++i) {
      own.y_offset[i] = y_line + (x + i) * call.y_stride[3];
      own.residual_offset[i] = residual_line + (x + i) * call.epilogue.residual_stride[3];
    }
    Factors<T> factors{copy + x * row_stride, weights, row_stride, own.tap, s.taps(), plan.cin};
    for (int64_t done = 0; done < plan.cout; done += kPanelVectors * Vec::width) {
      target.channel = group * plan.cout + done;
      target.lanes = least(plan.cout - done, kPanelVectors * Vec::width);
      factors.b = weights + done * s.taps() * plan.cin;
      with_panel(target.lanes, [&](auto kind) FASTNETS_INLINE_LAMBDA {
        Products<decltype(kind), T>::of_rows[count - 1](factors, target, call.epilogue);
      });
    }
    if (Clamp(call.epilogue).more) {
      for (int64_t i = 0; i < count; ++i) {
        activate_row(target.y + own.y_offset[i] + group * plan.cout, plan.cout, call.epilogue);
      }
    }
  }
}

template <class T>
void run_items(const ConvCall& call, void* scratch, ThreadContext& context) {
  const Plan<T> plan(call);
  const ConvShape& s = plan.s;
  const Own<T> own(plan, Arena(scratch, context.thread * plan.private_bytes()));
  for (int64_t item; next_item(context, s.batch * s.out[0] * plan.bands * s.groups, item);) {
    const int64_t group = item % s.groups, band = item / s.groups % plan.bands;
    const int64_t plane = item / s.groups / plan.bands, image = plane / s.out[0], z = plane % s.out[0];
    const int64_t first = band * plan.lines, end = least(first + plan.lines, s.out[1]);
    copy_band(plan, static_cast<const T*>(call.x) + image * call.x_stride[0] + group * plan.cin, z, first,
              own.copy);
    for (int64_t y = first; y < end; ++y) {
      const T* const copy = own.copy + (y - first) * s.stride[1] * plan.extent[2] * plan.cin;
      run_line(plan, own, copy, group, at(call.y_stride, image, z, y),
               at(call.epilogue.residual_stride, image, z, y));
    }
  }
}

}  // namespace
}  // namespace FASTNETS_LEVEL

int64_t FASTNETS_ENTRY(conv_groups_scratch)(const ConvCall& call, int threads) {
  using namespace FASTNETS_LEVEL;
  int64_t bytes = 0;
  with_own_element(call.element,
                   [&](auto zero) { bytes = threads * Plan<decltype(zero)>(call).private_bytes(); });
  return bytes;
}

void FASTNETS_ENTRY(conv_groups)(const ConvCall& call, void* scratch, ThreadContext& context) {
  using namespace FASTNETS_LEVEL;
  with_own_element(call.element, [&](auto zero) { run_items<decltype(zero)>(call, scratch, context); });
  if (call.stream) stream_fence();
  finish(context);
}

}  // namespace fastnets
