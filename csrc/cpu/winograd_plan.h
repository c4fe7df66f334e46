// How Winograd's convolution cuts a call into tiles: sizes, the memory of a thread, where each tile lies and
// which pixels it reads. Included by conv_winograd.cpp only.
#pragma once

#include <algorithm>

#include "common/scratch.h"
#include "cpu/conv.h"
#include "cpu/winograd_transforms.h"

namespace fastnets {
namespace FASTNETS_LEVEL {

constexpr int kMaxPoints = 8 * 6 * 6;

template <class T>
const TileKind<T>& tile_kind(const int tile[3], int64_t taps) {
  for (const TileKind<T>& kind : kTiles<T>) {
    if (kind.taps == taps && std::equal(tile, tile + 3, kind.outputs)) return kind;
  }
  return kTiles<T>[0];
}

// The outputs of a tile along an axis.
struct Span {
  int64_t first, outputs;
};

// Everything that the items of a call have in common. Elements are T, all between is in floats.
template <class T>
struct Plan {
  const ConvCall& call;
  const ConvShape& s;
  const TileKind<T>& kind;
  int64_t xis;                      // points of a tile
  int64_t parts, kept;              // points, or with taps lines of them along x, and weights of each
  int64_t cin, cout;                // of a group
  int64_t phases;                   // of the outputs of a transposed convolution, or 1
  int64_t channel_blocks, vectors;  // of a group
  int64_t phase_panels, panels;     // of a phase, and of all
  int64_t axis_tiles[3];            // along each axis, over all phases of the dilation
  int64_t tiles;                    // of all images
  int64_t xi_stride, block_stride;  // of V: rows of a channel block, one more than there are tiles, so that
  int64_t product_stride;           // the stride is no power of two; and of M

  explicit Plan(const ConvCall& c) : call(c), s(c.shape), kind(tile_kind<T>(c.tile, c.shape.kernel[2])) {
    const int64_t lines = int64_t{kind.points[0]} * kind.points[1];
    xis = lines * kind.points[2];
    parts = c.taps ? lines : xis, kept = c.taps ? kind.taps : 1;
    cin = s.cin / s.groups, cout = s.cout / s.groups;
    channel_blocks = (cin + Vec::width - 1) / Vec::width;
    vectors = (cout + Vec::width - 1) / Vec::width;
    tiles = s.batch, phases = 1;
    for (int axis = 0; axis < 3; ++axis) {
      if (c.transposed && s.kernel[axis] > 1) phases *= 2;
      axis_tiles[axis] = 0;
      const int64_t step = s.dilation[axis];
      for (int64_t phase = 0; phase < least(step, s.out[axis]); ++phase) {
        const int64_t outputs = (s.out[axis] - phase + step - 1) / step;
        axis_tiles[axis] += (outputs + kind.outputs[axis] - 1) / kind.outputs[axis];
      }
      tiles *= axis_tiles[axis];
    }
    phase_panels = (vectors + kPanelVectors - 1) / kPanelVectors, panels = phases * phase_panels;
    xi_stride = (call.block + 1) * Vec::width;
    block_stride = xis * xi_stride;
    product_stride = call.block * kPanelVectors * Vec::width + Vec::width;
  }
  int64_t blocks() const { return (tiles + call.block - 1) / call.block; }
  int64_t v_floats() const { return channel_blocks * block_stride; }
  int64_t span_count() const { return axis_tiles[0] + axis_tiles[1] + axis_tiles[2]; }
  int64_t m_floats() const { return (call.share ? panels : 1) * xis * product_stride; }
  int64_t transform_bytes() const { return slice_bytes<float>(v_floats()) + slice_bytes<float>(m_floats()); }
  int64_t shared_bytes() const {
    return slice_bytes<float>(moments_floats()) + (call.share ? transform_bytes() : 0);
  }
  int64_t moments_floats() const { return call.epilogue.moments == nullptr ? 0 : tiles * 3 * s.cout; }
  int64_t private_bytes() const {
    return (call.share ? 0 : transform_bytes()) + slice_bytes<T>(channel_blocks * Vec::width) +
           slice_bytes<Span>(span_count()) + slice_bytes<int64_t>(xis);
  }
};

// Memory of a thread; V and M may be that of all, and the moments of tiles are.
template <class T>
struct Own {
  float* moments;  // [tiles][3][cout]
  float* v;
  float* m;        // of one panel, or of all of them
  T* zeros;        // [cin]
  Span* spans[3];  // of the tiles along an axis
  int64_t* inner;  // how far the inputs of a tile are from its first one, in the order of its points
};

template <class T>
Own<T> take_memory(const Plan<T>& plan, void* scratch, int thread) {
  Arena shared(scratch);
  Arena arena(scratch, plan.shared_bytes() + thread * plan.private_bytes());
  Own<T> own{};
  own.moments = shared.take<float>(plan.moments_floats());
  Arena& of_transforms = plan.call.share ? shared : arena;
  own.v = of_transforms.take<float>(plan.v_floats());
  own.m = of_transforms.take<float>(plan.m_floats());
  own.zeros = arena.take<T>(plan.channel_blocks * Vec::width);
  for (int64_t i = 0; i < plan.channel_blocks * Vec::width; ++i) own.zeros[i] = T{};
  Span* next = arena.take<Span>(plan.span_count());
  for (int axis = 0; axis < 3; ++axis) {
    own.spans[axis] = next;
    const int64_t step = plan.s.dilation[axis], length = plan.s.out[axis], most = plan.kind.outputs[axis];
    // Tiles that lie between each other's pixels come one after the other, as they read the same lines: phase
    // by phase, dilated layers took 1.05 to 1.15 of the time (Zen 5). With all phases in one line of tiles,
    // which are fewer, the dilated network took 0.96 to 0.99 and MeshNet 1.02 to 1.05.
    for (int64_t start = 0; start < length; start += step * most) {
      for (int64_t at = start; at < least(start + step, length); ++at) {
        *next++ = {at, least(most, (length - at + step - 1) / step)};
      }
    }
  }
  own.inner = arena.take<int64_t>(plan.xis);
  int64_t* inner = own.inner;
  const auto distance = [&](int axis, int point) {
    return point * plan.s.dilation[axis] * plan.call.x_stride[axis + 1];
  };
  for (int i = 0; i < plan.kind.points[0]; ++i) {
    for (int j = 0; j < plan.kind.points[1]; ++j) {
      for (int k = 0; k < plan.kind.points[2]; ++k)
        *inner++ = distance(0, i) + distance(1, j) + distance(2, k);
    }
  }
  return own;
}

// A tile, and the next ones one by one, as divisions are slow.
struct Tile {
  int64_t image;
  Span at[3];

  template <class T>
  FASTNETS_INLINE Tile(const Plan<T>& plan, const Own<T>& own, int64_t index) : image(index) {
    for (int axis = 2; axis >= 0; --axis) {
      index_[axis] = image % plan.axis_tiles[axis];
      image /= plan.axis_tiles[axis];
      at[axis] = own.spans[axis][index_[axis]];
    }
  }
  template <class T>
  FASTNETS_INLINE void advance(const Plan<T>& plan, const Own<T>& own) {
    int axis = 2;
    while (axis >= 0 && ++index_[axis] == plan.axis_tiles[axis]) index_[axis--] = 0;
    if (axis < 0) ++image;
    for (axis = axis < 0 ? 0 : axis; axis < 3; ++axis) at[axis] = own.spans[axis][index_[axis]];
  }

 private:
  int64_t index_[3];
};

// The pixels of x under a tile, in the order of its points. Where all are inside of x, one addition each:
// with a look at each, 3D networks spent a twentieth of their time here.
template <class T>
FASTNETS_INLINE void find_pixels(const Plan<T>& plan, const Own<T>& own, const Tile& tile, int64_t group,
                                 const T** pixel) {
  constexpr int kMost = 8;  // points along an axis
  const ConvShape& s = plan.s;
  const T* x = static_cast<const T*>(plan.call.x) + tile.image * plan.call.x_stride[0] + group * plan.cin;
  int64_t first[3];
  bool all_inside = true;
  for (int axis = 0; axis < 3; ++axis) {
    first[axis] = tile.at[axis].first * s.stride[axis] - s.pad[axis];
    const int64_t last = first[axis] + (plan.kind.points[axis] - 1) * s.dilation[axis];
    all_inside = all_inside && first[axis] >= 0 && last < s.in[axis];
  }
  if (all_inside) {
    for (int axis = 0; axis < 3; ++axis) x += first[axis] * plan.call.x_stride[axis + 1];
    for (int64_t i = 0; i < plan.xis; ++i) pixel[i] = x + own.inner[i];
    return;
  }
  int64_t offset[3][kMost];  // -1 outside of x
  for (int axis = 0; axis < 3; ++axis) {
    int64_t at = first[axis];
    for (int i = 0; i < plan.kind.points[axis]; ++i, at += s.dilation[axis]) {
      offset[axis][i] = at >= 0 && at < s.in[axis] ? at * plan.call.x_stride[axis + 1] : -1;
    }
  }
  const int points = plan.kind.points[2];
  for (int i = 0; i < plan.kind.points[0]; ++i) {
    for (int j = 0; j < plan.kind.points[1]; ++j, pixel += points) {
      const bool inside = offset[0][i] >= 0 && offset[1][j] >= 0;
      const T* const line = x + offset[0][i] + offset[1][j];
      for (int k = 0; k < points; ++k) {
        pixel[k] = inside && offset[2][k] >= 0 ? line + offset[2][k] : own.zeros;
      }
    }
  }
}

}  // namespace FASTNETS_LEVEL
}  // namespace fastnets
