// Winograd convolution of stride 1, in 1, 2 or 3 axes, with any dilation; of stride 2 in 2; and transposed,
// of kernel 4 and stride 2, in 2 or 3: phases of outputs, each a convolution of kernel 2 of the same inputs.
//
// An item is a block of tiles: their transforms V, and for each panel of output channels the products M and
// the output transform, in memory of the thread. Tiles are read through a table of pixel pointers in which
// everything outside of the input is a page of zeros, so borders cost nothing, and a dilated convolution is
// the same code: tiles of pixels that are `dilation` apart.
//
// Threads that are too many for the blocks split the panels of output channels, each with all tiles of a
// block.
//
// With `share`, a block is larger and belongs to all threads, in three stages: they fill V, then M part by
// part, and then transform it. Each weight is read once per block, and V and M come from L3 once. It is for
// many channels and few pixels, where an item of a thread's own would read all weights for few tiles.
//
// A part of M is a point of the tiles; or with `taps` a line of them along x, as weights are taps along it.
#include <type_traits>

#include "common/conv_pack.h"
#include "cpu/conv.h"
#include "cpu/products.h"
#include "cpu/winograd_plan.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

// Transforms the tiles first + [from, to) into rows [from, to) of V.
template <class T>
void fill_v(const Plan<T>& plan, const Own<T>& own, int64_t group, int64_t first, int64_t from, int64_t to) {
  const T* pixels[2][kMaxPoints];
  Tile tile(plan, own, first + from);
  find_pixels(plan, own, tile, group, pixels[0]);
  for (int64_t t = from; t < to; ++t) {
    const T** const now = pixels[(t - from) % 2];
    const T** const next = pixels[(t - from + 1) % 2];
    const bool more = first + t + 1 < plan.tiles;
    tile.advance(plan, own);
    if (more) find_pixels(plan, own, tile, group, next);
    const TileSource<T> source{now, more ? next : nullptr, plan.cin,
                               plan.kind.points[2] - plan.kind.advance[2]};
    plan.kind.input(source, own.v + t * Vec::width, plan.xi_stride, plan.block_stride);
  }
}

// A panel of output channels of a group.
template <class T>
struct Panel {
  int64_t phase, channel, lanes;  // the first channel that it has of the phase of the group, and how many
  const float* weights;           // of the first part of M
  int64_t weights_stride;         // from a part to the next

  FASTNETS_INLINE Panel(const Plan<T>& plan, int64_t group, int64_t panel)
      : phase(panel / plan.phase_panels),
        channel(panel % plan.phase_panels * kPanelVectors * Vec::width),
        lanes(least(kPanelVectors * Vec::width, plan.cout - channel)),
        weights(static_cast<const float*>(plan.call.weights) +
                ((group * plan.phases + phase) * plan.vectors * Vec::width + channel) * plan.cin *
                    plan.parts * plan.kept),
        weights_stride(plan.kept * plan.cin * vectors() * Vec::width) {}
  FASTNETS_INLINE int64_t vectors() const { return lanes > Vec::width ? 2 : 1; }
  FASTNETS_INLINE const float* at(int64_t part) const { return weights + part * weights_stride; }
};

// M of one point of a panel, for `count` tiles. Fetching V a block of channels ahead changed networks by 0.98
// to 1.01 (Zen 5; 0.94 to 1.03 on Emerald Rapids), and M of several panels at a point, so that V is read less
// often, layers by 1.0 to 1.35 (Zen 5).
// cold: its weights are not in L2 yet. next: those of the product that follows, or null.
template <class T>
FASTNETS_INLINE void multiply_point(const Plan<T>& plan, const Own<T>& own, const Panel<T>& panel, float* m,
                                    int64_t xi, int64_t count, bool cold, const float* next) {
  const EvenRows cut(count);
  const float* const weights = panel.at(xi);
  with_panel(panel.lanes, [&](auto kind) FASTNETS_INLINE_LAMBDA {
    using Kind = decltype(kind);
    for (int64_t part = 0; part < cut.parts; ++part) {
      const int64_t begin = cut.begin(part);
      const Rows<float> rows{own.v + xi * plan.xi_stride + begin * Vec::width, plan.block_stride, Vec::width};
      PanelProducts<Kind, true, float>::of_rows[cut.begin(part + 1) - begin - 1](
          rows, {weights, panel_ahead(weights, panel.weights_stride, cold, part, cut, next)}, plan.cin,
          nullptr, m + xi * plan.product_stride + begin * Kind::kVectors * Vec::width);
    }
  });
}

// M of a line of points along x, from weights that are taps along it: of three, half of F(4)'s, and 3/8 of
// F(6)'s; of two, a third of F(5)'s and a quarter of F(7)'s. Where weights come from memory for few tiles,
// this is what counts: 512 and 256 channels of 14x14 took 0.78 of the time, 512 of 7x7 0.56 (Zen 5). A block
// of channels' taps stays in L1 for all of its points.
template <int kTaps, class T>
__attribute__((noinline)) void multiply_line(const Plan<T>& plan, const Own<T>& own, const Panel<T>& panel,
                                             float* m, int64_t line, int64_t count, const float* next) {
  using Kind = PanelKind<kPanelVectors, Vec>;
  constexpr int64_t kLanes = kPanelVectors * Vec::width;
  const int points = plan.kind.points[2];
  const EvenRows cut(count);
  const float* weights = panel.at(line);
  for (int64_t k = 0; k < plan.cin; k += kTapsDepth) {
    const int64_t depth = least(kTapsDepth, plan.cin - k), size = depth * kLanes;
    const float *const tap = weights, *const last = weights + (kTaps - 1) * size;
    weights += kTaps * size;
    const float* const then = k + depth < plan.cin ? weights : next;
    for (int x = 0; x < points; ++x) {
      const int64_t xi = line * points + x;
      const float* const v = own.v + k / Vec::width * plan.block_stride + xi * plan.xi_stride;
      for (int64_t part = 0; part < cut.parts; ++part) {
        const int64_t begin = cut.begin(part);
        const Rows<float> rows{v + begin * Vec::width, plan.block_stride, Vec::width};
        float* const to = m + xi * plan.product_stride + begin * kLanes;
        const auto multiply = [&](const auto& weights_of) FASTNETS_INLINE_LAMBDA {
          using Weights = std::decay_t<decltype(weights_of)>;
          PanelProducts<Kind, true, float, Weights>::of_rows[cut.begin(part + 1) - begin - 1](
              rows, weights_of, depth, k == 0 ? nullptr : to, to);
        };
        const auto ahead = [&]() FASTNETS_INLINE_LAMBDA {
          return PanelAhead(then, kTaps * size * static_cast<int64_t>(sizeof(float)), x * cut.parts + part,
                            points * cut.parts, kTaps);
        };
        // The points of common/conv_pack.cpp: at 1/2 and -1/2, the taps backwards at 2 and -2.
        const float *const lowest = x >= 5 ? last : tap, *const highest = x >= 5 ? tap : last;
        const auto at_point = [&](auto point) FASTNETS_INLINE_LAMBDA {
          if constexpr (kTaps == 2) {
            multiply(PanelPair<decltype(point)::value>{lowest, highest, ahead()});
          } else {
            multiply(PanelTaps<decltype(point)::value>{lowest, tap + size, highest, ahead()});
          }
        };
        if (x == 0 || x == points - 1) {
          multiply(PackedPanel<float>{x == 0 ? tap : last, ahead()});
        } else if (x == 1) {
          at_point(std::integral_constant<int, 1>{});
        } else if (x == 2) {
          at_point(std::integral_constant<int, -1>{});
        } else if (x % 2 == 1) {
          at_point(std::integral_constant<int, 2>{});
        } else {
          at_point(std::integral_constant<int, -2>{});
        }
      }
    }
  }
}

template <class T>
FASTNETS_INLINE void multiply_part(const Plan<T>& plan, const Own<T>& own, const Panel<T>& panel, float* m,
                                   int64_t part, int64_t count, bool cold, const float* next) {
  if (!plan.call.taps) {
    multiply_point(plan, own, panel, m, part, count, cold, next);
  } else if (plan.kept == 2) {
    multiply_line<2>(plan, own, panel, m, part, count, next);
  } else {
    multiply_line<3>(plan, own, panel, m, part, count, next);
  }
}

// Of a transposed convolution: the outputs of a phase lie two apart. Before the first position of the input
// and after the last, one phase has outputs and the other none.
template <class T>
void find_phase(const Plan<T>& plan, const Tile& tile, const Panel<T>& panel, TileTarget<T>& target) {
  const ConvCall& call = plan.call;
  int64_t phase = panel.phase, border_stride = plan.s.cout;
  bool at_border = false;
  for (int axis = 2; axis >= 0; --axis) {
    target.edge[axis] = -1, target.side[axis] = 1, target.border_stride[axis] = 0;
    if (plan.s.kernel[axis] == 1) continue;
    const int64_t second = phase % 2, first = tile.at[axis].first, last = plan.s.out[axis] - 1;
    phase /= 2;
    const int64_t ahead = first - 1 + second;  // of where an ordinary convolution has the first output
    target.y += ahead * call.y_stride[axis + 1];
    target.stride[axis] *= 2;
    if (target.residual != nullptr) target.residual += ahead * call.epilogue.residual_stride[axis + 1];
    target.residual_stride[axis] *= 2;
    if (second == 0 && first == 0) target.from[axis] = 1;
    if (second == 1) target.size[axis] = least(target.size[axis], last - first);
    if (second == 1 && first == 0) target.edge[axis] = 0, target.side[axis] = 0;
    if (second == 0 && first + target.size[axis] > last) {
      target.edge[axis] = static_cast<int>(last - first), target.side[axis] = 2;
    }
    at_border = at_border || target.edge[axis] >= 0;
    target.border_stride[axis] = border_stride;
    border_stride *= 3;
  }
  if (at_border) target.border = call.border;
}

// Where the outputs of a tile go, of the channels of a panel. In place: a copy would wait for all stores
// before it.
template <class T>
void find_target(const Plan<T>& plan, const Own<T>& own, const Tile& tile, int64_t index, int64_t group,
                 const Panel<T>& panel, TileTarget<T>& target) {
  const ConvCall& call = plan.call;
  const Epilogue& epilogue = call.epilogue;
  target.y = nullptr, target.maxima = nullptr, target.residual = nullptr, target.moments = nullptr;
  if (call.y != nullptr) target.y = static_cast<T*>(call.y) + tile.image * call.y_stride[0];
  if (call.maxima != nullptr) {
    target.maxima = static_cast<T*>(call.maxima) + tile.image * call.maxima_stride[0];
  }
  if (epilogue.residual != nullptr) {
    target.residual = static_cast<const T*>(epilogue.residual) + tile.image * epilogue.residual_stride[0];
  }
  if (epilogue.moments != nullptr) target.moments = own.moments + index * 3 * plan.s.cout;
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t step = plan.s.dilation[axis], first = tile.at[axis].first;
    const int window = plan.kind.outputs[axis] > 1 ? 2 : 1;
    if (target.y != nullptr) target.y += first * call.y_stride[axis + 1];
    if (target.maxima != nullptr) target.maxima += first / window * call.maxima_stride[axis + 1];
    target.maxima_stride[axis] = call.maxima_stride[axis + 1];
    target.stride[axis] = step * call.y_stride[axis + 1];
    if (target.residual != nullptr) target.residual += first * epilogue.residual_stride[axis + 1];
    target.residual_stride[axis] = step * epilogue.residual_stride[axis + 1];
    target.from[axis] = 0, target.size[axis] = tile.at[axis].outputs;
  }
  target.border = nullptr;
  if (call.transposed) find_phase(plan, tile, panel, target);
  target.channel = group * plan.cout + panel.channel;
  target.lanes = panel.lanes;
  target.stream = call.stream, target.stream_maxima = call.stream_maxima;
  target.channels = plan.s.cout;
}

// Calls use(first channel) for each output of a tile, of which the first is at `start`.
template <class T, class Start, class Use>
FASTNETS_INLINE void for_outputs(const TileTarget<T>& target, Start* start, const int64_t* stride,
                                 const Use& use) {
  for (int64_t z = target.from[0]; z < target.size[0]; ++z) {
    for (int64_t y = target.from[1]; y < target.size[1]; ++y) {
      Start* const line = start + z * stride[0] + y * stride[1] + target.channel;
      for (int64_t x = target.from[2]; x < target.size[2]; ++x) use(line + x * stride[2]);
    }
  }
}

// The outputs of a panel, of the tiles [first, first + count), from M.
template <class T>
void transform_panel(const Plan<T>& plan, const Own<T>& own, int64_t group, const Panel<T>& panel,
                     const float* m, int64_t first, int64_t count) {
  const ConvCall& call = plan.call;
  const bool more = Clamp(call.epilogue).more;
  Tile tile(plan, own, first);
  TileTarget<T> targets[2];
  find_target(plan, own, tile, first, group, panel, targets[0]);
  for (int64_t t = 0; t < count; ++t) {
    TileTarget<T>& target = targets[t % 2];
    target.next_y = nullptr, target.next_residual = nullptr;
    if (t + 1 < count) {
      TileTarget<T>& next = targets[(t + 1) % 2];
      tile.advance(plan, own);
      find_target(plan, own, tile, first + t + 1, group, panel, next);
      // A store to memory reads the line first, for which the next ones wait: fetched a tile ahead, 21
      // channels of 96x96x96 take 0.9 of the time (Zen 5).
      if (call.fetch) target.next_y = next.y;
      if (call.fetch_residual) target.next_residual = next.residual;
    }
    plan.kind.output(m + t * panel.vectors() * Vec::width, plan.product_stride, target, call.epilogue);
    if (!more) continue;
    for_outputs(target, target.y, target.stride,
                [&](T* pixel) { activate_row(pixel, target.lanes, call.epilogue); });
  }
}

template <class T>
void run_own_blocks(const Plan<T>& plan, const Own<T>& own, ThreadContext& context) {
  const int64_t blocks = plan.blocks(),
                all = blocks * plan.s.groups;  // of a group's tiles, and of all groups
  const int64_t chunks = all == 0 ? 1 : least(plan.panels, (context.threads + all - 1) / all);
  for (int64_t item; next_item(context, all * chunks, item);) {
    const int64_t chunk = item % chunks, group = item / chunks / blocks;
    const int64_t from = plan.panels * chunk / chunks, to = plan.panels * (chunk + 1) / chunks;
    const int64_t first = item / chunks % blocks * plan.call.block;
    const int64_t count = least(plan.call.block, plan.tiles - first);
    fill_v(plan, own, group, first, 0, count);
    for (int64_t i = from; i < to; ++i) {
      const Panel<T> panel(plan, group, i);
      for (int64_t part = 0; part < plan.parts; ++part) {
        multiply_part(plan, own, panel, own.m, part, count, i == from && part == 0, panel.at(part + 1));
      }
      transform_panel(plan, own, group, panel, own.m, first, count);
    }
  }
  if (plan.call.stream || plan.call.stream_maxima) stream_fence();
  finish(context);
}

template <class T>
void run_shared_blocks(const Plan<T>& plan, const Own<T>& own, ThreadContext& context) {
  constexpr int64_t kTilesAnItem = 4;
  const int64_t panel_floats = plan.xis * plan.product_stride;  // of M
  // A thread reads V of a part for all panels; threads that are too many for the parts split the panels.
  const int64_t chunks = least(plan.panels, (4 * context.threads + plan.parts - 1) / plan.parts);
  for (int64_t group = 0; group < plan.s.groups; ++group) {
    for (int64_t first = 0; first < plan.tiles; first += plan.call.block) {
      const int64_t count = least(plan.call.block, plan.tiles - first);
      for (int64_t item; next_item(context, (count + kTilesAnItem - 1) / kTilesAnItem, item);) {
        const int64_t from = item * kTilesAnItem;
        fill_v(plan, own, group, first, from, least(count, from + kTilesAnItem));
      }
      finish(context);
      for (int64_t item; next_item(context, plan.parts * chunks, item);) {
        const int64_t part = item / chunks, chunk = item % chunks;
        const int64_t from = plan.panels * chunk / chunks, to = plan.panels * (chunk + 1) / chunks;
        for (int64_t i = from; i < to; ++i) {
          const float* const next = i + 1 < to ? Panel<T>(plan, group, i + 1).at(part) : nullptr;
          const Panel<T> panel(plan, group, i);
          multiply_part(plan, own, panel, own.m + i * panel_floats, part, count, i == from, next);
        }
      }
      finish(context);
      for (int64_t i; next_item(context, plan.panels, i);) {
        transform_panel(plan, own, group, Panel<T>(plan, group, i), own.m + i * panel_floats, first, count);
      }
      if (plan.call.stream || plan.call.stream_maxima) stream_fence();
      finish(context);
    }
  }
}

// Mean and variance of each image from those of its tiles, some channels an item.
template <class T>
void join_tiles(const Plan<T>& plan, const Own<T>& own, ThreadContext& context) {
  constexpr int64_t kChannels = 16;
  const int64_t cout = plan.s.cout, parts = (cout + kChannels - 1) / kChannels;
  const int64_t tiles = plan.s.batch == 0 ? 0 : plan.tiles / plan.s.batch;
  for (int64_t item; next_item(context, plan.s.batch * parts, item);) {
    const int64_t image = item / parts, channel = item % parts * kChannels;
    const int64_t channels = least(kChannels, cout - channel);
    double mean[kChannels] = {}, m2[kChannels] = {};
    int64_t pixels = 0;
    Tile tile(plan, own, image * tiles);
    for (int64_t i = image * tiles; i < (image + 1) * tiles; ++i, tile.advance(plan, own)) {
      const int64_t outputs = tile.at[0].outputs * tile.at[1].outputs * tile.at[2].outputs;
      const float* const first = own.moments + i * 3 * cout + channel;
      const float *const rest = first + cout, *const squares = rest + cout;
      const double share = static_cast<double>(outputs) / static_cast<double>(pixels + outputs);
      const double both = share * static_cast<double>(pixels);
      for (int64_t c = 0; c < channels; ++c) {
        const double delta = first[c] + static_cast<double>(rest[c]) - mean[c];
        mean[c] += delta * share;
        m2[c] += squares[c] + delta * delta * both;
      }
      pixels += outputs;
    }
    double* moments = plan.call.epilogue.moments + 2 * (image * cout + channel);
    for (int64_t c = 0; c < channels; ++c, moments += 2) {
      moments[0] = mean[c], moments[1] = m2[c] / static_cast<double>(pixels);
    }
  }
  finish(context);
}

template <class T>
void run(const ConvCall& call, void* scratch, ThreadContext& context) {
  const Plan<T> plan(call);
  const Own<T> own = take_memory(plan, scratch, context.thread);
  if (call.share) {
    run_shared_blocks(plan, own, context);
  } else {
    run_own_blocks(plan, own, context);
  }
  if (call.epilogue.moments != nullptr) join_tiles(plan, own, context);
}

}  // namespace
}  // namespace FASTNETS_LEVEL

int64_t FASTNETS_ENTRY(conv_winograd_scratch)(const ConvCall& call, int threads) {
  using namespace FASTNETS_LEVEL;
  int64_t bytes = 0;
  with_own_element(call.element, [&](auto zero) {
    const Plan<decltype(zero)> plan(call);
    bytes = plan.shared_bytes() + threads * plan.private_bytes();
  });
  return bytes;
}

void FASTNETS_ENTRY(conv_winograd)(const ConvCall& call, void* scratch, ThreadContext& context) {
  using namespace FASTNETS_LEVEL;
  with_own_element(call.element, [&](auto zero) { run<decltype(zero)>(call, scratch, context); });
}

}  // namespace fastnets
