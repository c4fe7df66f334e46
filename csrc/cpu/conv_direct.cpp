// Convolution by tiles without gathering: the inputs that a box of outputs reads are copied once, and a tap is an
// offset into the copy. Gathered, each of them would be copied once a tap, which takes as long as the products.
//
// The copy is [block of kColumns channels][residue of z, y, x][z][y][x][kColumns], with zeros where the input ends.
// Inputs whose coordinates leave the same residue by the stride lie together, so that neighbouring outputs always read
// neighbours. The outputs of a plane are one run of rows of a product: between two lines of outputs it makes as many
// more as a line of the copy is longer, which go nowhere.
#include "cpu/products.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

constexpr int64_t kCopyBytes = 640 << 10;  // of a box: of an L2 of 2 MiB, which all cores with tiles have
constexpr int64_t kMostColumns = 128;      // of a box; of longer lines too few would fit
constexpr int64_t kLanes = kPanelVectors * Vec::width;

FASTNETS_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <class T>
struct Plan {
  const ConvCall& call;
  const ConvShape& s;
  int64_t depth_blocks, steps, panels;
  int64_t box[3], boxes[3];             // outputs of a box, and how many there are
  int64_t extent[3], reach[3];          // positions of a residue in the copy: the outputs' and `reach` more
  int64_t residues, plane, block_size;  // elements of a plane and of a block of channels
  int64_t chunks;                       // of panels

  Plan(const ConvCall& c, int threads) : call(c), s(c.shape) {
    depth_blocks = ceil_div(s.cin, kColumns<T>), steps = depth_blocks * s.taps();
    panels = ceil_div(s.cout, kLanes);
    residues = s.stride[0] * s.stride[1] * s.stride[2];
    for (int axis = 0; axis < 3; ++axis) {
      reach[axis] = (s.kernel[axis] - 1) * s.dilation[axis] / s.stride[axis];
      set_box(axis, 1);
    }
    if (s.out_pixels() == 0) return;
    set_box(2, least(s.out[2], kMostColumns));
    // Weights that are more than the inputs are read by one thread only, each of its panels.
    const int64_t inputs = s.batch * s.in[0] * s.in[1] * s.in[2] * s.cin;
    const bool share = steps * kColumns<T> * s.cout > inputs && panels >= threads;
    const int64_t wanted = share ? 1 : 4 * int64_t{threads};
    while (grow(wanted)) {
    }
    const int64_t items = s.batch * boxes[0] * boxes[1] * boxes[2];
    chunks = share || items < threads ? least(panels, threads) : 1;
  }
  FASTNETS_INLINE int64_t copy_elements() const { return depth_blocks * block_size + kTileRows * kColumns<T>; }
  FASTNETS_INLINE int64_t pixels() const { return box[0] * box[1] * box[2]; }
  FASTNETS_INLINE int64_t private_bytes() const {
    return slice_bytes<T>(copy_elements()) + 2 * slice_bytes<int64_t>(pixels()) + slice_bytes<int32_t>(pixels()) +
           slice_bytes<int64_t>(steps);
  }

 private:
  void set_box(int axis, int64_t outputs) {
    boxes[axis] = ceil_div(s.out[axis], outputs);
    box[axis] = boxes[axis] == 0 ? 1 : ceil_div(s.out[axis], boxes[axis]);
    extent[axis] = box[axis] + reach[axis];
    plane = extent[1] * extent[2] * kColumns<T>;
    block_size = residues * extent[0] * plane;
  }
  // Doubles the box along the axis where its halo costs most, if the copy and `wanted` items allow it.
  bool grow(int64_t wanted) {
    for (int axis : {reach[0] * box[1] > reach[1] * box[0] ? 0 : 1, reach[0] * box[1] > reach[1] * box[0] ? 1 : 0}) {
      const int64_t before = box[axis];
      if (before == s.out[axis]) continue;
      set_box(axis, least(s.out[axis], 2 * before));
      const int64_t items = s.batch * boxes[0] * boxes[1] * boxes[2];
      const bool fits = copy_elements() * static_cast<int64_t>(sizeof(T)) <= kCopyBytes;
      if (box[axis] > before && fits && items >= wanted) return true;
      set_box(axis, before);
    }
    return false;
  }
};

// A box of outputs: from `at` on, `size` of them.
struct Box {
  int64_t image, at[3], size[3];
};

// Memory of a thread. line: of a result, the row of the plane's product.
template <class T>
struct Private {
  T* copy;
  int64_t *y_offset, *residual_offset, *step_offset;
  int32_t* line;

  Private(const Plan<T>& plan, Arena arena)
      : copy(arena.take<T>(plan.copy_elements())),
        y_offset(arena.take<int64_t>(plan.pixels())),
        residual_offset(arena.take<int64_t>(plan.pixels())),
        step_offset(arena.take<int64_t>(plan.steps)),
        line(arena.take<int32_t>(plan.pixels())) {}
};

// Where each factor of a sum is, counted from the first output's row: blocks of channels, and the taps of each.
template <class T>
void find_steps(const Plan<T>& plan, int64_t* offset) {
  const ConvShape& s = plan.s;
  for (int64_t block = 0; block < plan.depth_blocks; ++block) {
    for (int64_t tap = 0; tap < s.taps(); ++tap) {
      const int64_t k[3] = {tap / s.kernel[2] / s.kernel[1], tap / s.kernel[2] % s.kernel[1], tap % s.kernel[2]};
      int64_t residue = 0, position = 0;
      for (int axis = 0; axis < 3; ++axis) {
        const int64_t far = k[axis] * s.dilation[axis];
        residue = residue * s.stride[axis] + far % s.stride[axis];
        position = position * plan.extent[axis] + far / s.stride[axis];
      }
      *offset++ = block * plan.block_size + (residue * plan.extent[0] * plan.extent[1] * plan.extent[2] + position) *
                                                kColumns<T>;
    }
  }
}

// Copies `count` pixels that are `step` elements apart, the first `channels` of each; zeros fill the row.
template <class T>
FASTNETS_INLINE void copy_line(T* to, const T* from, int64_t step, int64_t count, int64_t channels) {
  if (channels >= kColumns<T>) {
    for (int64_t i = 0; i < count; ++i, from += step, to += kColumns<T>) move_columns(to, from, kColumns<T>);
    return;
  }
  for (int64_t i = 0; i < count; ++i, from += step, to += kColumns<T>) {
    std::memset(to, 0, kColumns<T> * sizeof(T));
    move_columns(to, from, channels);
  }
}

template <class T>
void copy_inputs(const Plan<T>& plan, const Box& box, T* copy) {
  const ConvShape& s = plan.s;
  const int64_t* stride = plan.call.x_stride;
  const T* const image = static_cast<const T*>(plan.call.x) + box.image * stride[0];
  const auto zeros = [](T* to, int64_t pixels) { std::memset(to, 0, pixels * kColumns<T> * sizeof(T)); };
  for (int64_t block = 0; block < plan.depth_blocks; ++block) {
    const int64_t channel = block * kColumns<T>;
    for (int64_t residue = 0; residue < plan.residues; ++residue) {
      const int64_t r[3] = {residue / s.stride[2] / s.stride[1], residue / s.stride[2] % s.stride[1],
                            residue % s.stride[2]};
      T* lines = copy + block * plan.block_size + residue * plan.extent[0] * plan.plane;
      // Position i of this residue is input i * stride + first.
      int64_t first[3];
      for (int axis = 0; axis < 3; ++axis) first[axis] = box.at[axis] * s.stride[axis] + r[axis] - s.pad[axis];
      const int64_t length = box.size[2] + plan.reach[2];
      const int64_t left = first[2] < 0 ? least(length, ceil_div(-first[2], s.stride[2])) : 0;
      const int64_t inside = s.in[2] <= first[2] ? 0 : least(length, ceil_div(s.in[2] - first[2], s.stride[2]));
      for (int64_t z = 0; z < box.size[0] + plan.reach[0]; ++z) {
        for (int64_t y = 0; y < box.size[1] + plan.reach[1]; ++y) {
          T* const to = lines + z * plan.plane + y * plan.extent[2] * kColumns<T>;
          const int64_t from[2] = {first[0] + z * s.stride[0], first[1] + y * s.stride[1]};
          if (from[0] < 0 || from[0] >= s.in[0] || from[1] < 0 || from[1] >= s.in[1] || inside <= left) {
            zeros(to, length);
            continue;
          }
          zeros(to, left);
          const T* const line = image + from[0] * stride[1] + from[1] * stride[2] +
                                (first[2] + left * s.stride[2]) * stride[3] + channel;
          copy_line(to + left * kColumns<T>, line, s.stride[2] * stride[3], inside - left, s.cin - channel);
          zeros(to + inside * kColumns<T>, length - inside);
        }
      }
    }
  }
}

// Where the results go, and which rows of their plane's product they are.
template <class T>
void place_results(const Plan<T>& plan, const Box& box, const Private<T>& own) {
  const int64_t *to = plan.call.y_stride, *from = plan.call.epilogue.residual_stride;
  int64_t pixel = 0;
  for (int64_t z = 0; z < box.size[0]; ++z) {
    for (int64_t y = 0; y < box.size[1]; ++y) {
      const auto start = [&](const int64_t stride[4]) {
        return box.image * stride[0] + (box.at[0] + z) * stride[1] + (box.at[1] + y) * stride[2] +
               box.at[2] * stride[3];
      };
      const int64_t y_start = start(to), residual_start = start(from);
      for (int64_t x = 0; x < box.size[2]; ++x, ++pixel) {
        own.y_offset[pixel] = y_start + x * to[3];
        own.residual_offset[pixel] = residual_start + x * from[3];
        own.line[pixel] = static_cast<int32_t>(y * plan.extent[2] + x);
      }
    }
  }
}

template <class T>
void multiply_plane(const Plan<T>& plan, const Box& box, const Private<T>& own, int64_t z, int64_t panel, bool cold) {
  const ConvCall& call = plan.call;
  const Epilogue& epilogue = call.epilogue;
  const int64_t rows = (box.size[1] - 1) * plan.extent[2] + box.size[2], results = box.size[1] * box.size[2];
  const int64_t channel = panel * kLanes, lanes = least(plan.s.cout - channel, kLanes);
  const int vectors = lanes > Vec::width ? 2 : 1;
  const T* const weights = static_cast<const T*>(call.weights) + panel * plan.steps * kColumns<T> * kLanes;
  const int64_t elements = plan.steps * kColumns<T> * vectors * Vec::width;
  const T* const next = panel + 1 == plan.panels ? nullptr : weights + elements;
  const RowCut<T> cut(rows);
  int64_t done = z * results;
  for (int64_t part = 0; part < cut.parts; ++part) {
    const int64_t begin = cut.begin(part), end = cut.begin(part + 1);
    const int64_t first = done;
    while (done < (z + 1) * results && own.line[done] < end) ++done;
    const OffsetRows<T> offset_rows{own.copy + z * plan.plane + begin * kColumns<T>, own.step_offset};
    const Target<T> target{static_cast<T*>(call.y),
                           own.y_offset + first,
                           epilogue.residual == nullptr ? nullptr : own.residual_offset + first,
                           channel,
                           lanes,
                           call.stream};
    const PackedPanel<T> b{weights, panel_ahead(weights, elements, cold, part, cut, next)};
    tile_product(offset_rows, end - begin, vectors, b, plan.steps * kColumns<T>, target, epilogue,
                 {own.line + first, begin, done - first});
  }
}

template <class T>
void run_item(const Plan<T>& plan, const Box& box, int64_t from, int64_t to, const Private<T>& own) {
  copy_inputs(plan, box, own.copy);
  place_results(plan, box, own);
  for (int64_t panel = from; panel < to; ++panel) {
    for (int64_t z = 0; z < box.size[0]; ++z) multiply_plane(plan, box, own, z, panel, panel == from && z == 0);
  }
  if (!Clamp(plan.call.epilogue).more) return;
  const int64_t lane = from * kLanes, lanes = least(plan.s.cout, to * kLanes) - lane;
  for (int64_t i = 0; i < box.size[0] * box.size[1] * box.size[2]; ++i) {
    activate_row(static_cast<T*>(plan.call.y) + own.y_offset[i] + lane, lanes, plan.call.epilogue);
  }
}

}  // namespace
}  // namespace FASTNETS_LEVEL

int64_t FASTNETS_ENTRY(conv_direct_scratch)(const ConvCall& call, int threads) {
  return threads * FASTNETS_LEVEL::Plan<Bf16>(call, threads).private_bytes();
}

void FASTNETS_ENTRY(conv_direct)(const ConvCall& call, void* scratch, ThreadContext& context) {
  using namespace FASTNETS_LEVEL;
  const Plan<Bf16> plan(call, context.threads);
  const Private<Bf16> own(plan, Arena(scratch, context.thread * plan.private_bytes()));
  find_steps(plan, own.step_offset);
  const Tiles<Bf16> tiles;
  const int64_t* const boxes = plan.boxes;
  for (int64_t item; next_item(context, plan.s.batch * boxes[0] * boxes[1] * boxes[2] * plan.chunks, item);) {
    const int64_t chunk = item % plan.chunks;
    int64_t left = item / plan.chunks;
    Box box{};
    for (int axis = 2; axis >= 0; left /= boxes[axis], --axis) {
      box.at[axis] = left % boxes[axis] * plan.box[axis];
      box.size[axis] = least(plan.box[axis], plan.s.out[axis] - box.at[axis]);
    }
    box.image = left;
    run_item(plan, box, plan.panels * chunk / plan.chunks, plan.panels * (chunk + 1) / plan.chunks, own);
  }
  if (call.stream) stream_fence();
  finish(context);
}

}  // namespace fastnets
