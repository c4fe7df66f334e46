// Depthwise results go into a panel in L2, and from there into a product, before the next ones are made: they
// never reach memory, and two layers cost one pass over their input and output.
//
// An item is a run of segments of output rows (cpu/depthwise_row.h) and a range of output channels. Its panel
// is the matrix A of cpu/micro_kernel.h: [channels / lanes][pixel][lanes].
#include "cpu/separable.h"

#include "cpu/depthwise_row.h"
#include "cpu/micro_kernel.h"

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
  int64_t vectors;         // of output channels
  int64_t panels;          // of packed weights
  int64_t planes, units;   // a unit is a segment of a pair of rows
  int64_t unit_pixels;     // at most
  int64_t blocks, chunks;  // of units, and of panels
  int64_t block_pixels;    // at most
  int64_t block_stride;    // of A; an odd number of vectors, so that its columns spread over the cache sets

  Plan(const SeparableCall& c, int threads) : call(c), row(c.depthwise) {
    depth = whole_factors<T>(row.s.cout);
    vectors = ceil_div(c.cout, Vec::width), panels = ceil_div(vectors, kPanelVectors);
    planes = row.s.batch * row.s.out[0];
    units = planes * row.pairs * row.segments;
    unit_pixels = kSegment * (row.paired ? 2 : 1);
    const int64_t units_each = c.block / unit_pixels < 1 ? 1 : c.block / unit_pixels;
    blocks = ceil_div(units, units_each), chunks = 1;
    if (blocks < threads && depth * c.cout * static_cast<int64_t>(sizeof(T)) > kSharedWeightBytes) {
      chunks = blocks == 0 ? 1 : least(panels, ceil_div(threads, blocks));
    } else {
      blocks = least(units, ceil_div(blocks, threads) * threads);
    }
    block_pixels = least(units, units_each) * unit_pixels;
    block_stride = (block_pixels + 1 - block_pixels % 2) * kColumns<T>;
  }
  FASTNETS_INLINE int64_t panel_blocks() const { return ceil_div(row.vectors, kSteps<T>); }
  FASTNETS_INLINE int64_t panel_elements() const { return panel_blocks() * block_stride; }
  FASTNETS_INLINE int64_t private_bytes() const {
    return row.bytes() + slice_bytes<T>(panel_elements()) + 2 * slice_bytes<int64_t>(block_pixels);
  }
};

// Memory of a thread.
template <class T>
struct Own {
  T* panel;
  int64_t* y_offset;         // of each pixel of the panel
  int64_t* residual_offset;  // the same
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

// The depthwise results of the units [from, to) into the panel; the number of pixels.
template <class T>
int64_t fill_panel(const Plan<T>& plan, RowTables<T>& tables, const Own<T>& own, int64_t from, int64_t to) {
  const RowPlan& row = plan.row;
  const Epilogue& epilogue = row.call.epilogue;
  int64_t pixels = 0;
  for (int64_t unit = from; unit < to; ++unit) {
    const int64_t segment = unit % row.segments, line = unit / row.segments, plane = line / row.pairs;
    const Unit u{plane / row.s.out[0], plane % row.s.out[0], tables.pair[line % row.pairs],
                 tables.segment[segment]};
    if (unit == from || segment == 0) tables.find_lines(row, u.image, u.z, u.rows);
    const Place<T> place{own.panel + pixels * kColumns<T>,
                         u.segment.count * kColumns<T>,
                         kColumns<T>,
                         plan.block_stride,
                         nullptr,
                         0,
                         0,
                         true,
                         false};
    run(row, tables, segment, u.rows.y[1] != kOutside, 0, row.vectors, place, epilogue);
    pixels += place_pixels(plan, u, own.y_offset + pixels, own.residual_offset + pixels);
  }
  if (Clamp(epilogue).more) {
    for (int64_t v = 0; v < plan.panel_blocks(); ++v) {
      activate_row(own.panel + v * plan.block_stride, pixels * kColumns<T>, epilogue);
    }
  }
  return pixels;
}

#define FASTNETS_FROM_PANEL(rows) product_to_pixels<rows, Kind::kVectors, typename Kind::Last, true, T>

template <class Kind, class T>
FASTNETS_INLINE void multiply_panel(Kind, const Plan<T>& plan, const Own<T>& own, int64_t pixels,
                                    int64_t panel) {
  static constexpr PixelProduct<T> kProducts[] = {FASTNETS_ROWS(FASTNETS_FROM_PANEL)};
  const int64_t lane = panel * kPanelVectors * Vec::width;
  const T* const weights = static_cast<const T*>(plan.call.weights);
  const RowCut cut(pixels);
  for (int64_t part = 0; part < cut.parts; ++part) {
    const int64_t begin = cut.begin(part);
    const Rows<T> rows{own.panel + begin * kColumns<T>, plan.block_stride, kColumns<T>};
    const Target<T> target{static_cast<T*>(plan.call.y),
                           own.y_offset + begin,
                           plan.call.epilogue.residual == nullptr ? nullptr : own.residual_offset + begin,
                           lane,
                           least(plan.call.cout - lane, kPanelVectors * Vec::width),
                           plan.call.stream};
    kProducts[cut.begin(part + 1) - begin - 1](rows, weights + lane * plan.depth, plan.depth, target,
                                               plan.call.epilogue);
  }
}

template <class T>
void run_item(const Plan<T>& plan, RowTables<T>& tables, const Own<T>& own, int64_t block, int64_t chunk) {
  const int64_t pixels =
      fill_panel(plan, tables, own, plan.units * block / plan.blocks, plan.units * (block + 1) / plan.blocks);
  const int64_t from = plan.panels * chunk / plan.chunks, to = plan.panels * (chunk + 1) / plan.chunks;
  for (int64_t panel = from; panel < to; ++panel) {
    constexpr int64_t kLanes = kPanelVectors * Vec::width;
    with_panel(least(plan.call.cout - panel * kLanes, kLanes),
               [&](auto kind) FASTNETS_INLINE_LAMBDA { multiply_panel(kind, plan, own, pixels, panel); });
  }
  const Epilogue& epilogue = plan.call.epilogue;
  if (!Clamp(epilogue).more) return;
  const int64_t lane = from * kPanelVectors * Vec::width;
  const int64_t lanes = least(plan.call.cout, to * kPanelVectors * Vec::width) - lane;
  for (int64_t i = 0; i < pixels; ++i) {
    activate_row(static_cast<T*>(plan.call.y) + own.y_offset[i] + lane, lanes, epilogue);
  }
}

template <class T>
void run_items(const SeparableCall& call, void* scratch, ThreadContext& context) {
  const Plan<T> plan(call, context.threads);
  Arena arena(scratch, context.thread * plan.private_bytes());
  RowTables<T> tables(plan.row, arena);
  Own<T> own{};
  own.panel = arena.take<T>(plan.panel_elements());
  own.y_offset = arena.take<int64_t>(plan.block_pixels);
  own.residual_offset = arena.take<int64_t>(plan.block_pixels);
  for (int64_t item; (item = next_item(context)) < plan.blocks * plan.chunks;) {
    run_item(plan, tables, own, item / plan.chunks, item % plan.chunks);
  }
}

}  // namespace
}  // namespace FASTNETS_LEVEL

int64_t FASTNETS_ENTRY(separable_scratch)(const SeparableCall& call, int threads) {
  using namespace FASTNETS_LEVEL;
  int64_t bytes = 0;
  with_element(call.depthwise.element,
               [&](auto zero) { bytes = threads * Plan<decltype(zero)>(call, threads).private_bytes(); });
  return bytes;
}

void FASTNETS_ENTRY(separable)(const SeparableCall& call, void* scratch, ThreadContext& context) {
  using namespace FASTNETS_LEVEL;
  with_element(call.depthwise.element, [&](auto zero) { run_items<decltype(zero)>(call, scratch, context); });
  if (call.stream) stream_fence();
  finish(context);
}

}  // namespace fastnets
