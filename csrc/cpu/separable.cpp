// Depthwise results go into a panel in L2, and from there into a product, before the next ones are made: they
// never reach memory, and two layers cost one pass over their input and output.
//
// An item is a run of segments of output rows (cpu/depthwise_row.h) and a range of output channels. Fetching
// the inputs of the next one into L2 during the products changed Xception and MobileNetV1 by less than 1 %.
#include "cpu/separable.h"

#include "cpu/depthwise_row.h"
#include "cpu/pixel_panel.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

// Above this many bytes of 1x1 weights, threads that are too many for the pixels split the output channels,
// each with all depthwise results: at 7x7 pixels these are 1 % of the work, and weights are read from L3
// once.
constexpr int64_t kSharedWeightBytes = 512 << 10;

template <class T>
struct Plan {
  const SeparableCall& call;
  RowPlan row;
  int64_t depth;           // channels between the two, in whole factors
  int64_t panels;          // of packed weights
  int64_t planes, units;   // a unit is a segment of a pair of rows
  int64_t unit_pixels;     // at most
  int64_t blocks, chunks;  // of units, and of panels
  int64_t block_pixels;    // at most
  bool by_pixel;           // the depthwise convolution is a scale and a shift

  Plan(const SeparableCall& c, int threads) : call(c), row(c.depthwise) {
    depth = whole_depth<T>(row.s.cout);
    panels = ceil_div(c.cout, kPanelVectors * Vec::width);
    planes = row.s.batch * row.s.out[0];
    units = planes * row.pairs * row.segments;
    unit_pixels = kSegment * (row.paired ? 2 : 1);
    by_pixel = row.s.taps() == 1 && row.multiplier == 1;
    for (int i = 0; i < 3; ++i) by_pixel = by_pixel && row.s.stride[i] == 1 && row.s.in[i] == row.s.out[i];
    // By pixels: units of 14x14 and 19x19 hold an eighth to a quarter less than unit_pixels.
    blocks = least(units, ceil_div(row.s.out_pixels(), c.block)), chunks = 1;
    if (call.strassen) {  // the blocks, and so the rounding, do not depend on the number of threads
      if (blocks > 1) blocks = least(units, blocks + blocks % 2);
      if (blocks < threads) chunks = blocks == 0 ? 1 : least((panels + 1) / 2, ceil_div(threads, blocks));
    } else if (blocks < threads && depth * c.cout * static_cast<int64_t>(sizeof(T)) > kSharedWeightBytes) {
      chunks = blocks == 0 ? 1 : least(panels, ceil_div(threads, blocks));
    } else {
      blocks = least(units, ceil_div(blocks, threads) * threads);
    }
    block_pixels = blocks == 0 ? 0 : ceil_div(units, blocks) * unit_pixels;
  }
  FASTNETS_INLINE int64_t panel_at(int64_t chunk) const {
    return first_panel(panels, chunk, chunks, call.strassen);
  }
  FASTNETS_INLINE int64_t private_bytes() const {
    return row.bytes() + PixelPanel<T>::bytes(depth, block_pixels) +
           (call.strassen ? Strassen<true>::bytes(depth, block_pixels) : 0);
  }
};

struct Unit {
  int64_t image, z;
  RowPair rows;
  Segment segment;
};

// Notes where the pixels of a unit go; how many there are.
template <class T>
int64_t place_pixels(const Plan<T>& plan, const Unit& unit, int64_t* y_offset, int64_t* residual_offset) {
  const int64_t *to = plan.call.y_stride, *from = plan.call.epilogue.residual_stride;
  int64_t pixels = 0;
  for (int r = 0; r < 2 && unit.rows.y[r] != kOutside; ++r) {
    for (int64_t i = 0; i < unit.segment.count; ++i, ++pixels) {
      const int64_t y = unit.rows.y[r], x = unit.segment.x + i * plan.row.spacing;
      y_offset[pixels] = unit.image * to[0] + unit.z * to[1] + y * to[2] + x * to[3];
      residual_offset[pixels] = unit.image * from[0] + unit.z * from[1] + y * from[2] + x * from[3];
    }
  }
  return pixels;
}

// The channels of `count` pixels, scaled and shifted, to the rows of the panel from `first` on. As a
// convolution like others, DenseNet-121 took 1.03 to 1.12 of the time.
template <class T>
void fill_pixels(const RowPlan& row, const Unit& unit, const PixelPanel<T>& panel, int64_t first) {
  const int64_t* stride = row.call.x_stride;
  const T* const x = static_cast<const T*>(row.call.x) + unit.image * stride[0] + unit.z * stride[1] +
                     unit.rows.y[0] * stride[2] + unit.segment.x * stride[3];
  const auto* const weights = static_cast<const float*>(row.call.weights);
  const Clamp clamp(row.call.epilogue);
  for (int64_t c = 0; c < row.s.cin; c += Vec::width) {
    const int lanes = static_cast<int>(least(Vec::width, row.s.cin - c));
    const ChannelTerms terms(row.call.epilogue, c, lanes);
    const Vec scale = Vec::load(weights + c) * terms.scale;
    const T* from = x + c;
    T* to = panel.a + c / kColumns<T> * panel.block_stride + first * kColumns<T> + c % kColumns<T>;
    for (int64_t i = 0; i < unit.segment.count; ++i, from += stride[3], to += kColumns<T>) {
      __builtin_prefetch(from + 2 * Vec::width);  // DenseNet-121: 0.98 of the time
      clamp(fma(load_lanes(from, lanes), scale, terms.shift)).store(to);
    }
  }
}

// The depthwise results of the units [from, to) into the panel; the number of pixels.
template <class T>
int64_t fill_panel(const Plan<T>& plan, RowTables<T>& tables, const PixelPanel<T>& panel, int64_t from,
                   int64_t to) {
  const RowPlan& row = plan.row;
  const Epilogue& epilogue = row.call.epilogue;
  int64_t pixels = 0;
  for (int64_t unit = from; unit < to; ++unit) {
    const int64_t segment = unit % row.segments, line = unit / row.segments, plane = line / row.pairs;
    const Unit u{plane / row.s.out[0], plane % row.s.out[0], tables.pair[line % row.pairs],
                 tables.segment[segment]};
    if (plan.by_pixel) {
      fill_pixels(row, u, panel, pixels);
    } else {
      if (unit == from || segment == 0) tables.find_lines(row, u.image, u.z, u.rows);
      const Place<T> place{panel.a + pixels * kColumns<T>,
                           u.segment.count * kColumns<T>,
                           kColumns<T>,
                           panel.block_stride,
                           nullptr,
                           0,
                           0,
                           true,
                           false};
      run(row, tables, segment, u.rows.y[1] != kOutside, 0, row.vectors, place, epilogue);
    }
    pixels += place_pixels(plan, u, panel.y_offset + pixels, panel.residual_offset + pixels);
  }
  activate_panel(panel, pixels, epilogue);
  return pixels;
}

template <class T>
void run_items(const SeparableCall& call, void* scratch, ThreadContext& context) {
  const Plan<T> plan(call, context.threads);
  Arena arena(scratch, context.thread * plan.private_bytes());
  RowTables<T> tables(plan.row, arena);
  const PixelPanel<T> panel(plan.depth, plan.block_pixels, arena);
  const Tiles<T> tiles;
  const Projection<T> to{static_cast<const T*>(call.weights), call.cout, static_cast<T*>(call.y),
                         call.epilogue, call.stream};
  for (int64_t item; next_item(context, plan.blocks * plan.chunks, item);) {
    const int64_t block = item / plan.chunks, chunk = item % plan.chunks;
    const int64_t pixels = fill_panel(plan, tables, panel, plan.units * block / plan.blocks,
                                      plan.units * (block + 1) / plan.blocks);
    Strassen<true> product(plan.depth, plan.block_pixels, arena);
    project(panel, to, pixels, plan.panel_at(chunk), plan.panel_at(chunk + 1),
            call.strassen ? &product : nullptr);
  }
}

}  // namespace
}  // namespace FASTNETS_LEVEL

int64_t FASTNETS_ENTRY(separable_scratch)(const SeparableCall& call, int threads) {
  using namespace FASTNETS_LEVEL;
  int64_t bytes = 0;
  with_own_element(call.depthwise.element,
                   [&](auto zero) { bytes = threads * Plan<decltype(zero)>(call, threads).private_bytes(); });
  return bytes;
}

void FASTNETS_ENTRY(separable)(const SeparableCall& call, void* scratch, ThreadContext& context) {
  using namespace FASTNETS_LEVEL;
  with_own_element(call.depthwise.element,
                   [&](auto zero) { run_items<decltype(zero)>(call, scratch, context); });
  if (call.stream) stream_fence();
  finish(context);
}

}  // namespace fastnets
