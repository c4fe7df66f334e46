// How a convolution by tiles is cut: the boxes of outputs, and the copies of their inputs
// (cpu/conv_direct.cpp). Included by kernel files only.
#pragma once

#include "common/conv_pack.h"
#include "cpu/conv.h"
#include "cpu/conv_transpose.h"
#include "cpu/products.h"

namespace fastnets {
namespace FASTNETS_LEVEL {

constexpr int64_t kCopyBytes = 640 << 10;  // of a box: of an L2 of 2 MiB, which all cores with tiles have
constexpr int64_t kMostPanelBytes = 384 << 10;
constexpr int64_t kMostColumns = 128;  // of a box; of longer lines too few would fit
constexpr int64_t kLanes = kPanelVectors * Vec::width;

FASTNETS_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
FASTNETS_INLINE int64_t modulo(int64_t a, int64_t b) { return (a % b + b) % b; }

// What both kinds of convolution are to this kernel.
struct DirectProblem {
  const void *x, *weights;
  void* y;
  const int64_t *x_stride, *y_stride;
  const Epilogue& epilogue;
  bool stream, transposed;
  int64_t batch, groups, cin, cout;  // channels of a group
  int64_t in[3], out[3];
  int64_t kernel[3], stride[3], dilation[3], pad[3];

  explicit DirectProblem(const ConvCall& c)
      : x(c.x),
        weights(c.weights),
        y(c.y),
        x_stride(c.x_stride),
        y_stride(c.y_stride),
        epilogue(c.epilogue),
        stream(c.stream),
        transposed(false),
        batch(c.shape.batch),
        groups(c.shape.groups),
        cin(c.shape.cin / groups),
        cout(c.shape.cout / groups) {
    set_axes(c.shape, c.shape.in, c.shape.out);
  }
  explicit DirectProblem(const ConvTransposeCall& c)
      : x(c.x.data),
        weights(c.weights),
        y(c.y.data),
        x_stride(c.x.stride),
        y_stride(c.y.stride),
        epilogue(c.epilogue),
        stream(c.stream),
        transposed(true),
        batch(c.x.batch),
        groups(c.groups),
        cin(c.x.channels / groups),
        cout(c.y.channels / groups) {
    set_axes(c, c.x.size, c.y.size);
  }
  FASTNETS_INLINE int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }

 private:
  template <class Axes>
  void set_axes(const Axes& axes, const int64_t from[3], const int64_t to[3]) {
    for (int a = 0; a < 3; ++a) {
      in[a] = from[a], out[a] = to[a], kernel[a] = axes.kernel[a];
      stride[a] = axes.stride[a], dilation[a] = axes.dilation[a], pad[a] = axes.pad[a];
    }
  }
};

// The tap of an axis that a phase of a transposed convolution has: output first + stride * j reads input j +
// input.
struct TransposedTap {
  bool there;
  int64_t input;
};
FASTNETS_INLINE TransposedTap transposed_tap(const DirectProblem& p, int axis, int64_t phase, int64_t tap) {
  const int64_t first = modulo(phase - p.pad[axis], p.stride[axis]), reach = tap * p.dilation[axis];
  const int64_t at = first + p.pad[axis] - reach;
  return {at % p.stride[axis] == 0, at / p.stride[axis]};
}

struct DirectPlan {
  DirectProblem p;
  bool joined;  // the taps of a line
  int64_t depth_blocks, panels;
  int64_t taps;                      // of a block of channels: of the kernel, or lines of it
  int64_t row;                       // elements between the rows of two outputs
  int64_t line_pixels;               // of the copy, for each position
  int64_t residues[3], distance[3];  // of the copy: input (position * residues + residue) * distance + origin
  int64_t lattices[3];               // of dilation: items have one each
  int64_t phases;                    // of a transposed convolution: an item has all
  int64_t first_input[3];            // transposed: the least input of a tap, for output 0
  int64_t cells[3], box[3], boxes[3];  // of a lattice; outputs of a box, and how many there are
  int64_t reach[3], extent[3] = {};    // positions of the copy beyond the outputs', and all
  int64_t plane, block_size;           // elements of the copy's planes and blocks of channels
  int64_t items, chunks;               // boxes of all; parts of the panels

  DirectPlan(const DirectProblem& problem, int threads) : p(problem) {
    joined = !p.transposed && joins_taps(p.cin, p.kernel[2]);
    depth_blocks = ceil_div(p.cin, kColumns<Bf16>), panels = ceil_div(p.cout, kLanes);
    taps = joined ? p.kernel[0] * p.kernel[1] : p.taps();
    line_pixels = joined ? p.stride[2] : 1, row = joined ? p.stride[2] * p.cin : kColumns<Bf16>;
    phases = p.transposed ? p.stride[0] * p.stride[1] * p.stride[2] : 1;
    for (int axis = 0; axis < 3; ++axis) {
      residues[axis] = p.transposed ? 1 : p.stride[axis];
      distance[axis] = p.transposed ? 1 : p.dilation[axis];
      lattices[axis] = p.transposed ? 1 : least(p.dilation[axis], p.out[axis]);
      cells[axis] =
          p.out[axis] == 0 ? 0 : ceil_div(p.out[axis], p.transposed ? p.stride[axis] : p.dilation[axis]);
      first_input[axis] = 0, reach[axis] = (p.kernel[axis] - 1) / p.stride[axis];
      if (p.transposed) find_reach(axis);
    }
    if (joined) residues[2] = 1, reach[2] = (p.kernel[2] - 1) / p.stride[2];
    for (int axis = 0; axis < 3; ++axis) set_box(axis, axis == 2 ? least(cells[2], kMostColumns) : 1);
    items = chunks = 0;
    if (p.batch * p.groups * cells[0] * cells[1] * cells[2] == 0) return;
    // Weights that are more than the inputs are read by one thread only, each of its panels.
    const int64_t inputs = p.batch * p.in[0] * p.in[1] * p.in[2] * p.cin;
    const bool share = p.taps() * p.cin * p.cout > inputs && panels >= threads;
    while (grow(share ? 1 : 4 * int64_t{threads})) {
    }
    count_items();
    chunks = share || items < threads ? least(panels, threads) : 1;
  }
  FASTNETS_INLINE int64_t steps() const { return depth_blocks * taps; }
  // Packed by pack_direct, or with whole panels by pack_panels.
  FASTNETS_INLINE int64_t weights_at(int64_t group, int64_t panel) const {
    const int64_t lanes = p.transposed ? panels * kLanes : ceil_div(p.cout, Vec::width) * Vec::width;
    return (group * lanes + panel * kLanes) * steps() * kColumns<Bf16>;
  }
  FASTNETS_INLINE int64_t copy_elements() const { return depth_blocks * block_size + behind(); }
  // A tile of rows that are fewer may read so many elements after the last of them.
  FASTNETS_INLINE int64_t behind() const { return kTileRows * row + kColumns<Bf16>; }
  FASTNETS_INLINE int64_t pixels() const { return box[0] * box[1] * box[2]; }
  FASTNETS_INLINE int64_t private_bytes() const {
    return slice_bytes<Bf16>(copy_elements()) + 2 * slice_bytes<int64_t>(pixels()) +
           slice_bytes<int32_t>(pixels()) + slice_bytes<ProductStep>(steps()) +
           slice_bytes<int64_t>(phases + 1);
  }

 private:
  void find_reach(int axis) {
    int64_t low = INT64_MAX, high = INT64_MIN;
    for (int64_t phase = 0; phase < p.stride[axis]; ++phase) {
      for (int64_t tap = 0; tap < p.kernel[axis]; ++tap) {
        const TransposedTap t = transposed_tap(p, axis, phase, tap);
        if (t.there && t.input < low) low = t.input;
        if (t.there && t.input > high) high = t.input;
      }
    }
    first_input[axis] = low, reach[axis] = high - low;
  }
  void count_items() {
    items = p.batch * p.groups;
    for (int axis = 0; axis < 3; ++axis) items *= lattices[axis] * boxes[axis];
  }
  void set_box(int axis, int64_t outputs) {
    boxes[axis] = outputs == 0 ? 0 : ceil_div(cells[axis], outputs);
    box[axis] = boxes[axis] == 0 ? 0 : ceil_div(cells[axis], boxes[axis]);
    extent[axis] = box[axis] + reach[axis];
    plane = extent[1] * extent[2] * row;
    block_size = residues[0] * residues[1] * residues[2] * extent[0] * plane;
  }
  // Doubles the box along the axis where its halo costs most, if the copy and `wanted` items allow it.
  bool grow(int64_t wanted) {
    const int costly = reach[0] * box[1] > reach[1] * box[0] ? 0 : 1;
    for (int axis : {costly, 1 - costly}) {
      const int64_t before = box[axis];
      if (before == cells[axis]) continue;
      set_box(axis, least(cells[axis], 2 * before));
      count_items();
      const bool fits = copy_elements() * static_cast<int64_t>(sizeof(Bf16)) <= kCopyBytes;
      if (box[axis] > before && fits && items >= wanted) return true;
      set_box(axis, before);
    }
    return false;
  }
};

// A box of outputs: `size` positions of a lattice, from `at` on.
struct Box {
  int64_t image, group, lattice[3], at[3], size[3];
};

struct Three {
  int64_t of[3];
};
FASTNETS_INLINE Three split(int64_t index, const int64_t size[3]) {
  return {{index / size[2] / size[1], index / size[2] % size[1], index % size[2]}};
}

// The outputs of a phase that a box has: output first + step * i along each axis, for i < size.
struct Outputs {
  int64_t first[3], step[3], size[3];
};

FASTNETS_INLINE Outputs outputs_of(const DirectPlan& plan, const Box& box, int64_t phase) {
  const DirectProblem& p = plan.p;
  const Three of_phase = split(phase, p.stride);
  Outputs found{};
  for (int a = 0; a < 3; ++a) {
    const int64_t offset = p.transposed ? modulo(of_phase.of[a] - p.pad[a], p.stride[a]) : box.lattice[a];
    found.step[a] = p.transposed ? p.stride[a] : p.dilation[a];
    found.first[a] = offset + box.at[a] * found.step[a];
    const int64_t left = p.out[a] - found.first[a];
    found.size[a] = left <= 0 ? 0 : least(box.size[a], ceil_div(left, found.step[a]));
  }
  return found;
}

FASTNETS_INLINE Box box_of(const DirectPlan& plan, int64_t item) {
  const auto next = [&](int64_t count) {
    const int64_t index = item % count;
    item /= count;
    return index;
  };
  Box box{};
  for (int a = 2; a >= 0; --a) {
    box.at[a] = next(plan.boxes[a]) * plan.box[a];
    box.size[a] = least(plan.box[a], plan.cells[a] - box.at[a]);
  }
  for (int a = 2; a >= 0; --a) box.lattice[a] = next(plan.lattices[a]);
  box.group = next(plan.p.groups);
  box.image = item;
  return box;
}

}  // namespace FASTNETS_LEVEL
}  // namespace fastnets
