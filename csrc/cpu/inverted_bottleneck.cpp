// The wide tensor between the convolutions, six times its input in MobileNet, never leaves the caches: a ring
// holds those of its rows that the next output rows read, and the depthwise results go on to a product from a
// panel.
//
// An item is a tile of an image: a run of output rows, and of columns where rows are so wide that the ring
// would leave L2. It goes down its rows by steps. A step expands the input rows that the ring lacks, some
// channels at a time, and runs their depthwise convolution while they are in L1. Tiles that touch expand the
// rows and columns that both read twice.
//
// The ring is [channels / lanes][row][column][lanes], with the zeros left and right of the image as columns
// of their own, so that the depthwise rows (cpu/depthwise_row.h) find all taps inside.
#include "cpu/inverted_bottleneck.h"

#include "cpu/depthwise_row.h"
#include "cpu/pixel_panel.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

constexpr int64_t kLanes = kPanelVectors * Vec::width;  // channels that are expanded together
constexpr int64_t kTileBytes = 448 << 10;  // of ring and panel: L2 holds the weights, x and y as well
constexpr int64_t kLeastColumns = 16;
constexpr int64_t kStepPixels = 56;  // four products of the panel; from 28 to 224 all are as fast
constexpr int64_t kHaloShare = 16;   // a tile has so many input rows for each that the next one expands again

FASTNETS_INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

// The depthwise convolution of a tile of `columns` output columns, on the ring.
template <class T>
ConvCall tile_call(const InvertedBottleneckCall& call, int64_t columns) {
  ConvCall tile{};
  tile.shape = call.shape, tile.element = call.element;
  ConvShape& s = tile.shape;
  s.batch = 1, s.out[2] = columns, s.pad[2] = 0;
  s.in[2] = (columns - 1) * s.stride[2] + s.kernel[2];
  tile.x_stride[3] = kLanes, tile.x_stride[2] = s.in[2] * kLanes;
  tile.weights = call.depthwise;
  return tile;
}

// How the output is cut into items, and what a thread needs for the largest of them.
template <class T>
struct Plan {
  const InvertedBottleneckCall& call;
  int64_t depth, middle, panels;  // of x and of what is expanded, in whole factors; of channels of the ring
  int64_t columns, tiles;         // of a row, at most
  ConvCall tile;
  RowPlan row;
  int64_t pair_rows, step, bands;  // output rows of a pair; pairs of a step; runs of rows of an image
  int64_t ring_rows;

  Plan(const InvertedBottleneckCall& c, int threads)
      : call(c),
        depth(whole_depth<T>(c.cin)),
        middle(whole_depth<T>(c.shape.cout)),
        panels(ceil_div(c.shape.cout, kLanes)),
        columns(fitting_columns(c)),
        tiles(ceil_div(c.shape.out[2], columns)),
        tile(tile_call<T>(c, columns)),
        row(tile) {
    const ConvShape& s = c.shape;
    pair_rows = row.paired ? 2 : 1;
    step = most(1, least(row.pairs, kStepPixels / (columns * pair_rows)));
    ring_rows = (step * pair_rows - 1) * s.stride[1] + s.kernel[1];
    bands = threads == 1 ? 1 : fitting_bands(threads);
  }
  // Two items a thread where tiles are high enough, else one.
  int64_t fitting_bands(int64_t threads) const {
    const ConvShape& s = call.shape;
    const int64_t others = most(1, s.batch * tiles), again = most(1, s.kernel[1] - s.stride[1]);
    const int64_t items = others * (s.out[1] * s.stride[1] / (kHaloShare * again));
    return most(1, least(row.pairs, ceil_div(items < 2 * threads ? threads : 2 * threads, others)));
  }
  // Columns of a tile such that all have nearly the same.
  static int64_t fitting_columns(const InvertedBottleneckCall& c) {
    const ConvShape& s = c.shape;
    const int64_t rows = kPair * s.stride[1] + s.kernel[1] + kPair;  // of ring and panel
    const int64_t bytes = rows * s.cout * static_cast<int64_t>(sizeof(T));
    const int64_t most_columns = most(kLeastColumns, kTileBytes / bytes);
    return ceil_div(s.out[2], most(1, ceil_div(s.out[2], most_columns)));
  }
  FASTNETS_INLINE int64_t ring_elements() const { return panels * ring_rows * row.s.in[2] * kLanes; }
  FASTNETS_INLINE int64_t step_inputs() const { return ring_rows * row.s.in[2]; }
  // Of copied pixels: to whole factors, or where a product of tiles would read past their end.
  FASTNETS_INLINE int64_t copied_elements() const {
    if (kByTiles<T>) return most(step_inputs(), kTileRows) * depth;
    return depth == call.cin ? 0 : step_inputs() * depth;
  }
  FASTNETS_INLINE int64_t panel_pixels() const { return step * pair_rows * columns; }
  FASTNETS_INLINE int64_t private_bytes() const {
    return row.bytes() + PixelPanel<T>::bytes(middle, panel_pixels()) + slice_bytes<T>(ring_elements()) +
           slice_bytes<T>(copied_elements()) + slice_bytes<int64_t>(step_inputs());
  }
};

// A tile, in the memory of a thread.
template <class T>
struct Tile {
  const Plan<T>& plan;
  const InvertedBottleneckCall& call;
  int64_t image, x;  // its first output column
  ConvCall depthwise;
  RowPlan row;
  Arena arena;
  RowTables<T> tables;
  PixelPanel<T> panel;
  T *ring, *copied;
  int64_t* in_ring;              // of each input pixel of a step, where its channels go
  Rows<T> input{};               // these pixels
  int64_t run_lines = 0;         // so many lines of them are one product
  int64_t ring_row, ring_panel;  // elements of them
  int64_t first, last;           // columns of a ring row that are inside of the image
  int64_t ready = 0;             // the ring has the input rows before this one

  Tile(const Plan<T>& p, int64_t of_image, int64_t begin, int64_t end, void* memory)
      : plan(p),
        call(p.call),
        image(of_image),
        x(begin),
        depthwise(tile_call<T>(p.call, end - begin)),
        row(depthwise),
        arena(memory),
        tables(row, arena),
        panel(p.middle, p.panel_pixels(), arena),
        ring(arena.take<T>(p.ring_elements())),
        copied(arena.take<T>(p.copied_elements())),
        in_ring(arena.take<int64_t>(p.step_inputs())),
        ring_row(row.s.in[2] * kLanes),
        ring_panel(p.ring_rows * ring_row) {
    const int64_t left = input_column();
    first = least(row.s.in[2], left < 0 ? -left : 0);
    last = most(first, least(row.s.in[2], call.shape.in[2] - left));
    for (int64_t i = 0; i < plan.panels * plan.ring_rows; ++i) {
      for (int64_t k = 0; k < first * kLanes; ++k) ring[i * ring_row + k] = T{};
      for (int64_t k = last * kLanes; k < ring_row; ++k) ring[i * ring_row + k] = T{};
    }
  }
  FASTNETS_INLINE int64_t input_column() const { return x * call.shape.stride[2] - call.shape.pad[2]; }
  FASTNETS_INLINE T* ring_line(int64_t i, int64_t y) const {
    return ring + i * ring_panel + y % plan.ring_rows * ring_row;
  }

  // The pixels of the input lines [begin, end) that the ring shall hold.
  void find_input(int64_t begin, int64_t end) {
    const int64_t width = last - first, *stride = call.x_stride;
    const T* from = static_cast<const T*>(call.x) + image * stride[0] + begin * stride[2];
    from += (input_column() + first) * stride[3];
    int64_t* to = in_ring;
    for (int64_t y = begin; y < end; ++y) {
      const int64_t line = y % plan.ring_rows * ring_row;
      for (int64_t i = first; i < last; ++i) *to++ = line + i * kLanes;
    }
    run_lines = stride[2] == width * stride[3] ? end - begin : 1;
    input = {from, kColumns<T>, stride[3]};
    if (plan.depth == call.cin && !(kByTiles<T> && run_lines * width < kTileRows)) return;
    run_lines = end - begin, input = {copied, kColumns<T>, plan.depth};
    for (int64_t k = 0; k < plan.depth; k += kColumns<T>) {
      const int64_t there = least(call.cin - k, kColumns<T>), whole = least(plan.depth - k, kColumns<T>);
      T* pixel = copied + k;
      for (int64_t y = begin; y < end; ++y) {
        const T* x_pixel = from + (y - begin) * stride[2] + k;
        for (int64_t i = 0; i < width; ++i, x_pixel += stride[3], pixel += plan.depth) {
          move_padded(pixel, x_pixel, there, whole);
        }
      }
    }
  }

  // Channels of panel `i` of these lines.
  template <class Kind>
  FASTNETS_INLINE void expand(Kind, int64_t i, int64_t begin, int64_t end) {
    const int64_t channel = i * kLanes, lanes = least(call.shape.cout - channel, kLanes);
    const T* const weights = static_cast<const T*>(call.expand) + channel * plan.depth;
    for (int64_t y = begin; y < end; y += run_lines) {
      const T* const from = input.a + (y - begin) * call.x_stride[2];
      const int64_t* const to = in_ring + (y - begin) * (last - first);
      Rows<T> rows{from, input.block_stride, input.row_stride};
      Target<T> target{ring + i * ring_panel - channel, to, nullptr, channel, lanes, false};
      run_products<Kind, false>(rows, run_lines * (last - first), PanelRead<T>{weights}, plan.depth, target,
                                call.before);
    }
    if (!Clamp(call.before).more) return;
    for (int64_t y = begin; y < end; ++y) {
      activate_row(ring_line(i, y) + first * kLanes, (last - first) * kLanes, call.before);
    }
  }

  // The output rows of a pair, channels of panel `i` of the ring, into the panel from pixel `pixel` on.
  void run_depthwise(int64_t i, int64_t pair, int64_t pixel) {
    const int64_t columns = row.s.out[2], from = i * kPanelVectors;
    tables.find_lines(row, 0, tables.pair[pair], [&](int64_t, int64_t y) FASTNETS_INLINE_LAMBDA {
      return ring_line(i, y) - i * kLanes;  // the kernel adds its channel
    });
    const bool two = tables.pair[pair].y[1] != kOutside;
    for (int64_t k = 0; k < row.segments; ++k) {
      const Place<T> place{panel.a + (pixel + tables.segment[k].x) * kColumns<T>,
                           columns * kColumns<T>,
                           kColumns<T>,
                           panel.block_stride,
                           nullptr,
                           0,
                           0,
                           true,
                           false};
      run(row, tables, k, two, from, least(row.vectors, from + kPanelVectors), place, call.between);
    }
  }

  // The output rows of the pairs [from, to).
  void run_step(int64_t from, int64_t to) {
    const ConvShape& s = call.shape;
    const int64_t y = from * plan.pair_rows, rows = least(s.out[1], to * plan.pair_rows) - y;
    const int64_t top = y * s.stride[1] - s.pad[1];
    const int64_t begin = most(ready, top),
                  end = least(s.in[1], top + (rows - 1) * s.stride[1] + s.kernel[1]);
    if (begin < end) find_input(begin, end);
    for (int64_t i = 0; i < plan.panels; ++i) {
      with_panel(least(s.cout - i * kLanes, kLanes), [&](auto kind) FASTNETS_INLINE_LAMBDA {
        if (begin < end) expand(kind, i, begin, end);
      });
      for (int64_t pair = from; pair < to; ++pair) {
        run_depthwise(i, pair, (pair - from) * plan.pair_rows * row.s.out[2]);
      }
    }
    ready = most(ready, end);
    finish_rows(y, rows);
  }

  void finish_rows(int64_t y, int64_t rows) {
    const int64_t *to = call.y_stride, *from = call.after.residual_stride;
    int64_t pixels = 0;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < row.s.out[2]; ++i, ++pixels) {
        panel.y_offset[pixels] = image * to[0] + (y + r) * to[2] + (x + i) * to[3];
        panel.residual_offset[pixels] = image * from[0] + (y + r) * from[2] + (x + i) * from[3];
      }
    }
    activate_panel(panel, pixels, call.between);
    const Projection<T> projection{static_cast<const T*>(call.project), call.cout, static_cast<T*>(call.y),
                                   call.after, call.stream};
    project(panel, projection, pixels, 0, ceil_div(call.cout, kLanes));
  }
};

template <class T>
void run_items(const InvertedBottleneckCall& call, void* scratch, ThreadContext& context) {
  const Plan<T> plan(call, context.threads);
  const int64_t private_bytes = plan.private_bytes(), pairs = plan.row.pairs, width = call.shape.out[2];
  void* const memory = static_cast<char*>(scratch) + context.thread * private_bytes;
  const Tiles<T> tiles;
  for (int64_t item; next_item(context, call.shape.batch * plan.tiles * plan.bands, item);) {
    const int64_t band = item % plan.bands, column = item / plan.bands % plan.tiles;
    Tile<T> tile(plan, item / plan.bands / plan.tiles, width * column / plan.tiles,
                 width * (column + 1) / plan.tiles, memory);
    const int64_t end = pairs * (band + 1) / plan.bands;
    for (int64_t pair = pairs * band / plan.bands; pair < end; pair += plan.step) {
      tile.run_step(pair, least(end, pair + plan.step));
    }
  }
}

}  // namespace
}  // namespace FASTNETS_LEVEL

int64_t FASTNETS_ENTRY(inverted_bottleneck_scratch)(const InvertedBottleneckCall& call, int threads) {
  using namespace FASTNETS_LEVEL;
  int64_t bytes = 0;
  with_own_element(call.element,
                   [&](auto zero) { bytes = threads * Plan<decltype(zero)>(call, threads).private_bytes(); });
  return bytes;
}

void FASTNETS_ENTRY(inverted_bottleneck)(const InvertedBottleneckCall& call, void* scratch,
                                         ThreadContext& context) {
  using namespace FASTNETS_LEVEL;
  with_own_element(call.element, [&](auto zero) { run_items<decltype(zero)>(call, scratch, context); });
  if (call.stream) stream_fence();
  finish(context);
}

}  // namespace fastnets
