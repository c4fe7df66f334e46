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

#include "cpu/direct_plan.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

using T = Bf16;

constexpr int64_t kPixelsAhead = 16;

// Memory of a thread. line: of a result, the row of the plane's product. phase_steps: where those of a phase
// begin.
struct Private {
  T* copy;
  int64_t *y_offset, *residual_offset, *phase_steps;
  int32_t* line;
  ProductStep* steps;

  Private(const DirectPlan& plan, Arena arena)
      : copy(arena.take<T>(plan.copy_elements())),
        y_offset(arena.take<int64_t>(plan.pixels())),
        residual_offset(arena.take<int64_t>(plan.pixels())),
        phase_steps(arena.take<int64_t>(plan.phases + 1)),
        line(arena.take<int32_t>(plan.pixels())),
        steps(arena.take<ProductStep>(plan.steps())) {}
};

// The steps of each phase: blocks of channels, and the taps of each. Weights are packed as [block][tap], of a
// transposed convolution as [tap][block].
void find_steps(const DirectPlan& plan, const Private& own) {
  const DirectProblem& p = plan.p;
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
// Pixels are fetched in advance: U-Net 2D took 0.95 of the time, MeshNet 0.91 to 0.96 (Emerald Rapids).
FASTNETS_INLINE void copy_line(T* to, const T* from, int64_t step, int64_t count, int64_t channels) {
  const int64_t columns = least(channels, kColumns<T>);
  for (int64_t i = 0; i < count; ++i, from += step, to += kColumns<T>) {
    __builtin_prefetch(from + kPixelsAhead * step);
    move_padded(to, from, columns, kColumns<T>);
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

void copy_inputs(const DirectPlan& plan, const Box& box, T* copy) {
  const DirectProblem& p = plan.p;
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

// Where the results go, and which rows of their plane's product they are.
void place_results(const DirectPlan& plan, const Box& box, const Outputs& outputs, const Private& own) {
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
void multiply_plane(const DirectPlan& plan, const Box& box, const Outputs& outputs, const Private& own,
                    int64_t phase, int64_t plane, int64_t panel, bool cold) {
  const DirectProblem& p = plan.p;
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

void run_item(const DirectPlan& plan, const Box& box, int64_t from, int64_t to, const Private& own) {
  const DirectProblem& p = plan.p;
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

void run(const DirectProblem& problem, void* scratch, ThreadContext& context) {
  const DirectPlan plan(problem, context.threads);
  const Private own(plan, Arena(scratch, context.thread * plan.private_bytes()));
  find_steps(plan, own);
  if (plan.items > 0) fill_zeros(own.copy + plan.copy_elements() - plan.behind(), plan.behind());
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
  return threads * DirectPlan(DirectProblem(call), threads).private_bytes();
}
void transpose_by_tiles(const ConvTransposeCall& call, void* scratch, ThreadContext& context) {
  run(DirectProblem(call), scratch, context);
}

}  // namespace FASTNETS_LEVEL

int64_t FASTNETS_ENTRY(conv_direct_scratch)(const ConvCall& call, int threads) {
  using namespace FASTNETS_LEVEL;
  return threads * DirectPlan(DirectProblem(call), threads).private_bytes();
}

void FASTNETS_ENTRY(conv_direct)(const ConvCall& call, void* scratch, ThreadContext& context) {
  using namespace FASTNETS_LEVEL;
  run(DirectProblem(call), scratch, context);
}

}  // namespace fastnets
