// Convolution by tiles without gathering: the inputs that a box of outputs reads are copied once, and a tap
// is an offset into the copy. Gathered, each of them would be copied once a tap, which takes as long as the
// products.
//
// Outputs lie on a lattice: those of a convolution with dilation d on d^n of them, of every d-th output; the
// s^n phases of a transposed one with stride s on one. The copy is [block of kColumns channels][residue of z,
// y, x][z][y][x] [kColumns], with zeros where the input ends. Inputs whose coordinates leave the same residue
// by the stride lie together, so that neighbouring outputs always read neighbours. The outputs of a plane are
// one run of rows of a product: between two lines of outputs it makes as many more as a line of the copy is
// longer, which go nowhere.
//
// Of few channels, the taps of a kernel's line are one row of A: the copy is [residue of z,
// y][z][y][x][channel], and rows of kColumns elements begin stride * channels apart. Weights of the elements
// after the last tap are 0, so that an input that is not finite also reaches outputs up to kColumns elements
// before those that read it.
#include "cpu/conv_direct.h"

#include "common/conv_pack.h"
#include "cpu/products.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

using T = Bf16;

constexpr int64_t kCopyBytes = 640 << 10;  // of a box: of an L2 of 2 MiB, which all cores with tiles have
constexpr int64_t kMostPanelBytes = 384 << 10;
constexpr int64_t kMostColumns = 128;  // of a box; of longer lines too few would fit
constexpr int64_t kLanes = kPanelVectors * Vec::width;
constexpr int64_t kBehind =
    kTileRows * kColumns<T>;  // elements that a tile of rows may read after the last one

FASTNETS_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
FASTNETS_INLINE int64_t modulo(int64_t a, int64_t b) { return (a % b + b) % b; }

// What both kinds of convolution are to this kernel.
struct Problem {
  const void *x, *weights;
  void* y;
  const int64_t *x_stride, *y_stride;
  const Epilogue& epilogue;
  bool stream;
  int64_t batch, groups, cin, cout;  // channels of a group
  int64_t in[3], out[3];
  int64_t kernel[3], stride[3], dilation[3], pad[3];
  bool transposed;

  FASTNETS_INLINE int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
};

Problem problem_of(const ConvCall& c) {
  const ConvShape& s = c.shape;
  Problem p{c.x,
            c.weights,
            c.y,
            c.x_stride,
            c.y_stride,
            c.epilogue,
            c.stream,
            s.batch,
            s.groups,
            s.cin / s.groups,
            s.cout / s.groups,
            {},
            {},
            {},
            {},
            {},
            {},
            false};
  for (int a = 0; a < 3; ++a) {
    p.in[a] = s.in[a], p.out[a] = s.out[a], p.kernel[a] = s.kernel[a];
    p.stride[a] = s.stride[a], p.dilation[a] = s.dilation[a], p.pad[a] = s.pad[a];
  }
  return p;
}

Problem problem_of(const ConvTransposeCall& c) {
  Problem p{c.x.data,
            c.weights,
            c.y.data,
            c.x.stride,
            c.y.stride,
            c.epilogue,
            c.stream,
            c.x.batch,
            c.groups,
            c.x.channels / c.groups,
            c.y.channels / c.groups,
            {},
            {},
            {},
            {},
            {},
            {},
            true};
  for (int a = 0; a < 3; ++a) {
    p.in[a] = c.x.size[a], p.out[a] = c.y.size[a], p.kernel[a] = c.kernel[a];
    p.stride[a] = c.stride[a], p.dilation[a] = c.dilation[a], p.pad[a] = c.pad[a];
  }
  return p;
}

// The tap of an axis that a phase of a transposed convolution has: output first + stride * j reads input j +
// input.
struct TransposedTap {
  bool there;
  int64_t input;
};
TransposedTap transposed_tap(const Problem& p, int axis, int64_t phase, int64_t tap) {
  const int64_t first = modulo(phase - p.pad[axis], p.stride[axis]), reach = tap * p.dilation[axis];
  const int64_t at = first + p.pad[axis] - reach;
  return {at % p.stride[axis] == 0, at / p.stride[axis]};
}

struct Plan {
  Problem p;
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
  int64_t reach[3], extent[3];         // positions of the copy beyond the outputs', and all
  int64_t plane, block_size;           // elements of the copy's planes and blocks of channels
  int64_t items, chunks;               // boxes of all; parts of the panels

  Plan(const Problem& problem, int threads) : p(problem) {
    joined = !p.transposed && joins_taps(p.cin, p.kernel[2]);
    depth_blocks = ceil_div(p.cin, kColumns<T>), panels = ceil_div(p.cout, kLanes);
    taps = joined ? p.kernel[0] * p.kernel[1] : p.taps();
    line_pixels = joined ? p.stride[2] : 1, row = joined ? p.stride[2] * p.cin : kColumns<T>;
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
    return (group * lanes + panel * kLanes) * steps() * kColumns<T>;
  }
  FASTNETS_INLINE int64_t copy_elements() const { return depth_blocks * block_size + kBehind; }
  FASTNETS_INLINE int64_t pixels() const { return box[0] * box[1] * box[2]; }
  FASTNETS_INLINE int64_t private_bytes() const {
    return slice_bytes<T>(copy_elements()) + 2 * slice_bytes<int64_t>(pixels()) +
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
      const bool fits = copy_elements() * static_cast<int64_t>(sizeof(T)) <= kCopyBytes;
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

// Memory of a thread. line: of a result, the row of the plane's product. phase_steps: where those of a phase
// begin.
struct Private {
  T* copy;
  int64_t *y_offset, *residual_offset, *phase_steps;
  int32_t* line;
  ProductStep* steps;

  Private(const Plan& plan, Arena arena)
      : copy(arena.take<T>(plan.copy_elements())),
        y_offset(arena.take<int64_t>(plan.pixels())),
        residual_offset(arena.take<int64_t>(plan.pixels())),
        phase_steps(arena.take<int64_t>(plan.phases + 1)),
        line(arena.take<int32_t>(plan.pixels())),
        steps(arena.take<ProductStep>(plan.steps())) {}
};

struct Three {
  int64_t of[3];
};
FASTNETS_INLINE Three split(int64_t index, const int64_t size[3]) {
  return {{index / size[2] / size[1], index / size[2] % size[1], index % size[2]}};
}

// The steps of each phase: blocks of channels, and the taps of each. Weights are packed as [block][tap], of a
// transposed convolution as [tap][block].
void find_steps(const Plan& plan, const Private& own) {
  const Problem& p = plan.p;
  int64_t count = 0;
  for (int64_t phase = 0; phase < plan.phases; ++phase) {
    own.phase_steps[phase] = count;
    const Three of_phase = split(phase, p.stride);
    for (int64_t block = 0; block < plan.depth_blocks; ++block) {
      for (int64_t tap = 0; tap < plan.taps; ++tap) {
        const Three k = plan.joined ? split(tap * p.kernel[2], p.kernel) : split(tap, p.kernel);
        int64_t residue = 0, position = 0;
        bool there = true;
        for (int axis = 0; axis < 3; ++axis) {
          int64_t shift = k.of[axis] / p.stride[axis];
          if (p.transposed) {
            const TransposedTap t = transposed_tap(p, axis, of_phase.of[axis], k.of[axis]);
            there = there && t.there, shift = t.input - plan.first_input[axis];
          } else {
            residue = residue * plan.residues[axis] + k.of[axis] % plan.residues[axis];
          }
          position = position * plan.extent[axis] + shift;
        }
        if (!there) continue;
        const int64_t row = residue * plan.extent[0] * plan.extent[1] * plan.extent[2] + position;
        const int64_t packed = p.transposed ? tap * plan.depth_blocks + block : block * plan.taps + tap;
        own.steps[count++] = {block * plan.block_size + row * plan.row, packed * kColumns<T>};
      }
    }
  }
  own.phase_steps[plan.phases] = count;
}

// Copies `count` pixels that are `step` elements apart, the first `channels` of each; zeros fill the row.
FASTNETS_INLINE void copy_line(T* to, const T* from, int64_t step, int64_t count, int64_t channels) {
  const int64_t columns = least(channels, kColumns<T>);
  for (int64_t i = 0; i < count; ++i, from += step, to += kColumns<T>) {
    if (columns < kColumns<T>) std::memset(to, 0, kColumns<T> * sizeof(T));
    move_columns(to, from, columns);
  }
}

FASTNETS_INLINE void fill_zeros(T* to, int64_t elements) {
  std::memset(to, 0, static_cast<size_t>(elements) * sizeof(T));
}

// All channels of `count` pixels, side by side.
FASTNETS_INLINE void copy_pixels(T* to, const T* from, int64_t step, int64_t count, int64_t channels) {
  if (step == channels) {
    std::memcpy(to, from, static_cast<size_t>(count * channels) * sizeof(T));
    return;
  }
  for (int64_t i = 0; i < count; ++i, from += step, to += channels) {
    for (int64_t c = 0; c < channels; ++c) to[c] = from[c];
  }
}

void copy_inputs(const Plan& plan, const Box& box, T* copy) {
  const Problem& p = plan.p;
  const int64_t *stride = p.x_stride, *residues = plan.residues;
  const T* const x = static_cast<const T*>(p.x) + box.image * stride[0] + box.group * p.cin;
  const int64_t all = residues[0] * residues[1] * residues[2];
  for (int64_t line = 0; line < plan.depth_blocks * all; ++line) {
    const int64_t channel = line / all * kColumns<T>;
    const Three r = split(line % all, residues);
    T* const lines = copy + line / all * plan.block_size + line % all * plan.extent[0] * plan.plane;
    // Position i of this residue is input i * step + first.
    int64_t first[3], step[3];
    for (int a = 0; a < 3; ++a) {
      step[a] = residues[a] * plan.distance[a];
      first[a] = p.transposed ? box.at[a] + plan.first_input[a]
                              : box.lattice[a] * p.stride[a] - p.pad[a] + box.at[a] * step[a] +
                                    r.of[a] * plan.distance[a];
    }
    if (plan.joined) step[2] = 1, first[2] = box.at[2] * p.stride[2] - p.pad[2];
    // Joined taps read behind a line and behind the last one, where they want what is finite.
    const int64_t planes = plan.joined ? plan.extent[0] : box.size[0] + plan.reach[0];
    const int64_t rows = plan.joined ? plan.extent[1] : box.size[1] + plan.reach[1];
    const int64_t length = (plan.joined ? plan.extent[2] : box.size[2] + plan.reach[2]) * plan.line_pixels;
    const int64_t pixel = plan.row / plan.line_pixels;
    const int64_t left = first[2] < 0 ? least(length, ceil_div(-first[2], step[2])) : 0;
    const int64_t inside = p.in[2] <= first[2] ? 0 : least(length, ceil_div(p.in[2] - first[2], step[2]));
    for (int64_t i = 0; i < planes; ++i) {
      for (int64_t j = 0; j < rows; ++j) {
        T* const to = lines + i * plan.plane + j * plan.extent[2] * plan.row;
        const int64_t z = first[0] + i * step[0], y = first[1] + j * step[1];
        if (z < 0 || z >= p.in[0] || y < 0 || y >= p.in[1] || inside <= left) {
          fill_zeros(to, length * pixel);
          continue;
        }
        const T* const from =
            x + z * stride[1] + y * stride[2] + (first[2] + left * step[2]) * stride[3] + channel;
        fill_zeros(to, left * pixel);
        plan.joined ? copy_pixels(to + left * pixel, from, stride[3], inside - left, p.cin)
                    : copy_line(to + left * pixel, from, step[2] * stride[3], inside - left, p.cin - channel);
        fill_zeros(to + inside * pixel, (length - inside) * pixel);
      }
    }
  }
}

// The outputs of a phase that a box has: output first + step * i along each axis, for i < size.
struct Outputs {
  int64_t first[3], step[3], size[3];
};

Outputs outputs_of(const Plan& plan, const Box& box, int64_t phase) {
  const Problem& p = plan.p;
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

// Where the results go, and which rows of their plane's product they are.
void place_results(const Plan& plan, const Box& box, const Outputs& outputs, const Private& own) {
  const int64_t *to = plan.p.y_stride, *from = plan.p.epilogue.residual_stride;
  int64_t pixel = 0;
  for (int64_t i = 0; i < outputs.size[0]; ++i) {
    for (int64_t j = 0; j < outputs.size[1]; ++j) {
      const auto start = [&](const int64_t stride[4]) {
        return box.image * stride[0] + (outputs.first[0] + i * outputs.step[0]) * stride[1] +
               (outputs.first[1] + j * outputs.step[1]) * stride[2] + outputs.first[2] * stride[3];
      };
      const int64_t y_start = start(to), residual_start = start(from);
      for (int64_t x = 0; x < outputs.size[2]; ++x, ++pixel) {
        own.y_offset[pixel] = y_start + x * outputs.step[2] * to[3];
        own.residual_offset[pixel] = residual_start + x * outputs.step[2] * from[3];
        own.line[pixel] = static_cast<int32_t>(j * plan.extent[2] + x);
      }
    }
  }
}

// The results of a plane of outputs, and a panel of the group's weights.
void multiply_plane(const Plan& plan, const Box& box, const Outputs& outputs, const Private& own,
                    int64_t phase, int64_t plane, int64_t panel, bool cold) {
  const Problem& p = plan.p;
  const int64_t rows = (outputs.size[1] - 1) * plan.extent[2] + outputs.size[2];
  const int64_t results = outputs.size[1] * outputs.size[2];
  const int64_t done = panel * kLanes, lanes = least(p.cout - done, kLanes);
  const int vectors = lanes > Vec::width || p.transposed ? 2 : 1;
  const T* const weights = static_cast<const T*>(p.weights) + plan.weights_at(box.group, panel);
  const int64_t first_step = own.phase_steps[phase], steps = own.phase_steps[phase + 1] - first_step;
  const int64_t elements = plan.steps() * kColumns<T> * vectors * Vec::width;
  // A panel that L2 cannot hold beside the next one, as of a linear layer of VGG, is fetched as it is read.
  const bool large = elements * static_cast<int64_t>(sizeof(T)) > kMostPanelBytes;
  const T* const next = large || panel + 1 == plan.panels ? nullptr : weights + elements;
  const RowCut<T> cut(rows);
  int64_t pixel = plane * results;
  for (int64_t part = 0; part < cut.parts; ++part) {
    const int64_t begin = cut.begin(part), end = cut.begin(part + 1), first = pixel;
    while (pixel < (plane + 1) * results && own.line[pixel] < end) ++pixel;
    const StepRows<T> step_rows{own.copy + plane * plan.plane + begin * plan.row, plan.row,
                                own.steps + first_step, steps};
    const Target<T> target{static_cast<T*>(p.y),
                           own.y_offset + first,
                           p.epilogue.residual == nullptr ? nullptr : own.residual_offset + first,
                           box.group * p.cout + done,
                           lanes,
                           p.stream};
    const PackedPanel<T> b{weights, panel_ahead(weights, elements, cold || large, part, cut, next)};
    tile_product(step_rows, end - begin, vectors, b, target, p.epilogue,
                 {own.line + first, begin, pixel - first});
  }
}

void run_item(const Plan& plan, const Box& box, int64_t from, int64_t to, const Private& own) {
  const Problem& p = plan.p;
  copy_inputs(plan, box, own.copy);
  for (int64_t phase = 0; phase < plan.phases; ++phase) {
    const Outputs outputs = outputs_of(plan, box, phase);
    if (outputs.size[0] * outputs.size[1] * outputs.size[2] == 0) continue;
    place_results(plan, box, outputs, own);
    for (int64_t panel = from; panel < to; ++panel) {
      for (int64_t plane = 0; plane < outputs.size[0]; ++plane) {
        multiply_plane(plan, box, outputs, own, phase, plane, panel, panel == from && plane == 0);
      }
    }
    if (!Clamp(p.epilogue).more) continue;
    const int64_t lane = from * kLanes, lanes = least(p.cout, to * kLanes) - lane;
    for (int64_t i = 0; i < outputs.size[0] * outputs.size[1] * outputs.size[2]; ++i) {
      activate_row(static_cast<T*>(p.y) + own.y_offset[i] + box.group * p.cout + lane, lanes, p.epilogue);
    }
  }
}

Box box_of(const Plan& plan, int64_t item) {
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

void run(const Problem& problem, void* scratch, ThreadContext& context) {
  const Plan plan(problem, context.threads);
  const Private own(plan, Arena(scratch, context.thread * plan.private_bytes()));
  find_steps(plan, own);
  if (plan.items > 0) fill_zeros(own.copy + plan.copy_elements() - kBehind, kBehind);
  const Tiles<T> tiles;
  for (int64_t item; next_item(context, plan.items * plan.chunks, item);) {
    const int64_t chunk = item % plan.chunks;
    run_item(plan, box_of(plan, item / plan.chunks), plan.panels * chunk / plan.chunks,
             plan.panels * (chunk + 1) / plan.chunks, own);
  }
  if (problem.stream) stream_fence();
  finish(context);
}

}  // namespace

int64_t transposed_by_tiles_scratch(const ConvTransposeCall& call, int threads) {
  return threads * Plan(problem_of(call), threads).private_bytes();
}
void transpose_by_tiles(const ConvTransposeCall& call, void* scratch, ThreadContext& context) {
  run(problem_of(call), scratch, context);
}

}  // namespace FASTNETS_LEVEL

int64_t FASTNETS_ENTRY(conv_direct_scratch)(const ConvCall& call, int threads) {
  using namespace FASTNETS_LEVEL;
  return threads * Plan(problem_of(call), threads).private_bytes();
}

void FASTNETS_ENTRY(conv_direct)(const ConvCall& call, void* scratch, ThreadContext& context) {
  using namespace FASTNETS_LEVEL;
  run(problem_of(call), scratch, context);
}

}  // namespace fastnets
