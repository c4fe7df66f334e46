#include "cpu/conv_transpose.h"

#include "cpu/conv_direct.h"
#include "cpu/factor.h"
#include "cpu/pixel_rows.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

// The output positions o = residue - pad (mod stride) form a phase: they have the same taps k, those whose
// k * dilation is residue (mod stride), and input o + pad - k * dilation over stride. So a phase is an
// ordinary convolution of stride 1 over the positions of its outputs; a 2^n kernel of stride 2 has one tap in
// each.

#if defined(FASTNETS_LEVEL_avx512)
constexpr int kRows =
    8;  // output pixels in registers: 8 x 2 sums hide the latency of one 512-bit FMA a cycle
#elif defined(FASTNETS_LEVEL_avx2)
constexpr int kRows = 6;  // 6 x 2 sums, 2 weights and 1 input fill 16 registers
#else
constexpr int kRows = 4;
#endif
constexpr int kVecs = 2;
constexpr int64_t kLanes = kVecs * Vec::width;
constexpr int64_t kCached = 1 << 17;    // weights: half of an L2
constexpr int64_t kPixels = kRows * 8;  // of an item: they share the weights in L1

template <class T>
struct Scratch {
  const T* zeros;    // [channels]: what lies outside of x
  const T** inputs;  // [taps][kPixels]
  T** outputs;       // [kPixels]
  const T** added;   // [kPixels]: residuals
  int64_t* taps;     // of the phase, as numbers of the packed weights
};

struct Axis {
  int64_t residue, first, count;  // the outputs are first + stride * j for j < count
};

FASTNETS_INLINE Axis axis_of(const ConvTransposeCall& c, int axis, int64_t residue) {
  const int64_t s = c.stride[axis], first = ((residue - c.pad[axis]) % s + s) % s;
  return {residue, first, first < c.y.size[axis] ? (c.y.size[axis] - first + s - 1) / s : 0};
}

// The input position of tap k for output 0 of the phase, or `none` if the tap is not in it.
constexpr int64_t none = INT64_MIN;

FASTNETS_INLINE int64_t input_of(const ConvTransposeCall& c, int axis, const Axis& phase, int64_t k) {
  const int64_t s = c.stride[axis], reach = k * c.dilation[axis];
  return reach % s == phase.residue ? (phase.first + c.pad[axis] - reach) / s : none;
}

template <int rows, int vecs, class T>
FASTNETS_INLINE void multiply(const Scratch<T>& s, int64_t pixel, int64_t taps, const T* panel, int64_t skip,
                              int64_t cin, Vec (&sum)[rows][vecs]) {
  constexpr int64_t kStride = kVecs * kColumns<T>;
  for (auto& row : sum) {
    for (Vec& v : row) v = Vec::set(0.0F);
  }
  for (int64_t t = 0; t < taps; ++t) {
    const T* w = panel + s.taps[t] * whole_factors<T>(cin) * kLanes;
    const T* x[rows];
    for (int r = 0; r < rows; ++r) x[r] = s.inputs[t * kPixels + pixel + r] + skip;
    const auto add = [&](int64_t c, int64_t left) FASTNETS_INLINE_LAMBDA {
      decltype(lane_factor<Vec>(w)) weight[vecs];
      for (int v = 0; v < vecs; ++v) weight[v] = lane_factor<Vec>(w + v * kColumns<T>);
      for (int r = 0; r < rows; ++r) {
        const auto value = row_factor(x[r] + c, left);
        for (int v = 0; v < vecs; ++v) sum[r][v] = fma(value, weight[v], sum[r][v]);
      }
    };
    const int64_t whole = cin / kSteps<T> * kSteps<T>;
    for (int64_t c = 0; c < whole; c += kSteps<T>, w += kStride) add(c, kSteps<T>);
    if (whole < cin) add(whole, 1);
  }
}

// `lanes` output channels from `channel` on, of `count` <= rows pixels.
template <int rows, int vecs, class T>
void product(const ConvTransposeCall& c, const Scratch<T>& s, int64_t pixel, int64_t count, int64_t taps,
             const T* panel, int64_t skip, int64_t channel, int64_t lanes) {
  Vec sum[rows][vecs];
  multiply<rows, vecs>(s, pixel, taps, panel, skip, c.x.channels / c.groups, sum);
  const Clamp clamp(c.epilogue);
  for (int v = 0; v < vecs; ++v) {
    const int n = lanes_at(v * Vec::width, lanes);
    const int64_t first = channel + v * Vec::width;
    const ChannelTerms terms(c.epilogue, first, n);
    for (int r = 0; r < rows; ++r) {
      if (r >= count) break;
      Vec y = terms(sum[r][v]);
      if (c.epilogue.residual != nullptr) y = y + Vec::load(s.added[pixel + r] + first, n);
      T* const to = s.outputs[pixel + r] + first;
      c.stream ? clamp(y).stream(to) : clamp(y).store(to, n);
    }
  }
  if (clamp.more) {
    for (int64_t r = 0; r < count; ++r) activate_row(s.outputs[pixel + r] + channel, lanes, c.epilogue);
  }
}

struct Addresses {
  int64_t taps, pixels;
};

// The addresses of the outputs of a phase in the cells [from, to), padded to a multiple of kRows. A cell is
// one position j along each axis; `cells` says how many there are, which some phases do not fill.
template <class T>
Addresses address(const ConvTransposeCall& c, const Scratch<T>& s, int64_t n, const Axis (&phase)[3],
                  const int64_t (&cells)[3], int64_t from, int64_t to) {
  int64_t at[kPixels][3], count = 0;
  for (int64_t j = from; j < to; ++j) {
    const int64_t z = j / cells[2] / cells[1], y = j / cells[2] % cells[1], x = j % cells[2];
    if (z >= phase[0].count || y >= phase[1].count || x >= phase[2].count) continue;
    at[count][0] = z, at[count][1] = y, at[count][2] = x;
    int64_t out = n * c.y.stride[0], residual = n * c.epilogue.residual_stride[0];
    for (int a = 0; a < 3; ++a) {
      const int64_t position = phase[a].first + c.stride[a] * at[count][a];
      out += position * c.y.stride[a + 1];
      residual += position * c.epilogue.residual_stride[a + 1];
    }
    s.outputs[count] = static_cast<T*>(c.y.data) + out;
    s.added[count] =
        c.epilogue.residual == nullptr ? nullptr : static_cast<const T*>(c.epilogue.residual) + residual;
    ++count;
  }
  const int64_t padded = (count + kRows - 1) / kRows * kRows;
  const T* image = row_of<T>(c.x, n, 0, 0);
  int64_t taps = 0;
  for (int64_t k = 0; k < c.kernel[0] * c.kernel[1] * c.kernel[2]; ++k) {
    const int64_t z = input_of(c, 0, phase[0], k / c.kernel[2] / c.kernel[1]);
    const int64_t y = input_of(c, 1, phase[1], k / c.kernel[2] % c.kernel[1]);
    const int64_t x = input_of(c, 2, phase[2], k % c.kernel[2]);
    if (z == none || y == none || x == none) continue;
    const T** inputs = s.inputs + taps * kPixels;
    bool any = false;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t iz = z + at[i][0], iy = y + at[i][1], ix = x + at[i][2];
      const bool inside =
          iz >= 0 && iz < c.x.size[0] && iy >= 0 && iy < c.x.size[1] && ix >= 0 && ix < c.x.size[2];
      inputs[i] = inside ? image + iz * c.x.stride[1] + iy * c.x.stride[2] + ix * c.x.stride[3] : s.zeros;
      any = any || inside;
    }
    for (int64_t i = count; i < padded; ++i) inputs[i] = s.zeros;
    if (any) s.taps[taps++] = k;
  }
  return {taps, count};
}

// The blocks of output channels [from, to), numbered through all groups.
template <class T>
void multiply_blocks(const ConvTransposeCall& c, const Scratch<T>& s, int64_t taps, int64_t count,
                     int64_t from, int64_t to) {
  const int64_t cin = c.x.channels / c.groups, cout = c.y.channels / c.groups;
  const int64_t blocks = (cout + kLanes - 1) / kLanes;
  const int64_t panel = c.kernel[0] * c.kernel[1] * c.kernel[2] * whole_factors<T>(cin) * kLanes;
  for (int64_t b = from; b < to; ++b) {
    const int64_t group = b / blocks, start = b % blocks * kLanes;
    const int64_t channel = group * cout + start, left = cout - start;
    const int64_t lanes = left < kLanes ? left : kLanes;
    const T* weights = static_cast<const T*>(c.weights) + b * panel;
    for (int64_t p = 0; p < count; p += kRows) {
      const int64_t rows = count - p < kRows ? count - p : kRows;
      if (lanes > Vec::width && rows > 1) {
        product<kRows, kVecs>(c, s, p, rows, taps, weights, group * cin, channel, lanes);
      } else if (lanes > Vec::width) {
        product<1, kVecs>(c, s, p, rows, taps, weights, group * cin, channel, lanes);
      } else {
        product<kRows, 1>(c, s, p, rows, taps, weights, group * cin, channel, lanes);
      }
    }
  }
}

FASTNETS_INLINE int64_t zeros_bytes(const ConvTransposeCall& c) { return (c.x.channels * 4 + 63) / 64 * 64; }

// Pointers and tap numbers of one thread.
FASTNETS_INLINE int64_t own_bytes(const ConvTransposeCall& c) {
  const int64_t taps = c.kernel[0] * c.kernel[1] * c.kernel[2];
  return (((taps + 2) * kPixels + taps) * 8 + 63) / 64 * 64;
}

template <class T>
FASTNETS_INLINE Scratch<T> cut(const ConvTransposeCall& c, void* scratch, int thread) {
  char* own = static_cast<char*>(scratch) + zeros_bytes(c) + thread * own_bytes(c);
  const int64_t inputs = c.kernel[0] * c.kernel[1] * c.kernel[2] * kPixels * 8;
  return {static_cast<const T*>(scratch), reinterpret_cast<const T**>(own),
          reinterpret_cast<T**>(own + inputs), reinterpret_cast<const T**>(own + inputs + kPixels * 8),
          reinterpret_cast<int64_t*>(own + inputs + 2 * kPixels * 8)};
}

template <class T>
void run_items(const ConvTransposeCall& c, void* scratch, ThreadContext& context) {
  const Scratch<T> s = cut<T>(c, scratch, context.thread);
  const int64_t blocks = (c.y.channels / c.groups + kLanes - 1) / kLanes * c.groups;
  const int64_t phases = c.stride[0] * c.stride[1] * c.stride[2];
  const int64_t taps = c.kernel[0] * c.kernel[1] * c.kernel[2],
                weights = blocks * taps * kLanes * c.x.channels / c.groups;
  int64_t cells[3];
  for (int a = 0; a < 3; ++a) cells[a] = (c.y.size[a] + c.stride[a] - 1) / c.stride[a];
  const int64_t all = cells[0] * cells[1] * cells[2], chunks = (all + kPixels - 1) / kPixels;
  // Few pixels, as in a linear layer of few rows: threads share the output channels.
  const int64_t wanted = chunks * c.y.batch >= 16 ? 1 : 16, parts = wanted < blocks ? wanted : blocks;
  // Weights that fit L2 are read for all phases of a chunk, whose inputs stay in L1; others for one phase at
  // a time.
  const int64_t together = weights <= kCached ? phases : 1;
  for (int64_t first = 0; first < phases; first += together) {
    for (int64_t i; next_item(context, c.y.batch * chunks * parts, i);) {
      const int64_t part = i % parts, from = i / parts % chunks * kPixels, n = i / parts / chunks;
      const int64_t to = from + kPixels < all ? from + kPixels : all;
      for (int64_t r = first; r < first + together; ++r) {
        const Axis phase[3] = {axis_of(c, 0, r / c.stride[2] / c.stride[1]),
                               axis_of(c, 1, r / c.stride[2] % c.stride[1]), axis_of(c, 2, r % c.stride[2])};
        const Addresses found = address(c, s, n, phase, cells, from, to);
        multiply_blocks(c, s, found.taps, found.pixels, part * blocks / parts, (part + 1) * blocks / parts);
      }
    }
    if (c.stream) stream_fence();
    finish(context);
  }
}

}  // namespace
}  // namespace FASTNETS_LEVEL

int FASTNETS_ENTRY(conv_transpose_lanes)() { return FASTNETS_LEVEL::kLanes; }

int64_t FASTNETS_ENTRY(conv_transpose_scratch)(const ConvTransposeCall& c, int threads) {
  using namespace FASTNETS_LEVEL;
  if constexpr (kByTiles<Bf16>) {
    if (c.y.element == Element::bfloat16) return transposed_by_tiles_scratch(c, threads);
  }
  return zeros_bytes(c) + own_bytes(c) * threads;
}

void FASTNETS_ENTRY(conv_transpose)(const ConvTransposeCall& c, void* scratch, ThreadContext& context) {
  using namespace FASTNETS_LEVEL;
  if constexpr (kByTiles<Bf16>) {
    if (c.y.element == Element::bfloat16) return transpose_by_tiles(c, scratch, context);
  }
  for (int64_t item; next_item(context, 1, item);)
    std::memset(scratch, 0, static_cast<size_t>(zeros_bytes(c)));
  finish(context);
  with_own_element(c.y.element, [&](auto zero) { run_items<decltype(zero)>(c, scratch, context); });
}

}  // namespace fastnets
