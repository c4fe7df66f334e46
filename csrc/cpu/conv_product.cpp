// Convolution as a product of gathered pixels and packed weights: any kernel, stride, dilation and groups.
//
// An item is a block of output pixels and a range of output panels. Its rows of A are gathered into a strip
// that stays in L2 (a row is taps * cin long), or read in place where the kernel is 1x1. In float32, the taps
// of a long row are cut into pieces, each of which adds its product to those before it.
#include "common/cpu_features.h"
#include "common/scratch.h"
#include "cpu/conv.h"
#include "cpu/products.h"
#include "cpu/strassen.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

// Pixels so many bytes apart, 1024 floats, fall into the same 8 lines of L1: read in place, a product of 14
// rows loses them before it has used them up. Copied to the strip first, it took 0.74 to 0.92 of the time.
constexpr int64_t kSetStride = 4096;

// Elements of a piece, beside which L2 holds the strip and the panels. 3x3 with stride 2, 512 channels to 7x7
// pixels, took 0.79 of the time; with half or twice as many 0.82, and 256 channels 0.98 (Emerald Rapids).
constexpr int64_t kPieceDepth = 1024;

struct Pixel {
  int64_t image, z, y, x;
};

// Everything that the items of a call have in common.
template <class T>
struct Plan {
  const ConvCall& call;
  const ConvShape& s;
  int64_t cin, cout;  // of a group
  int64_t depth;      // of a row of A, in whole factors
  int64_t piece;      // taps of a piece of it, at most
  int64_t vectors;    // output vectors of a group
  int64_t panels;     // of a group
  int64_t blocks,
      chunks;  // of pixels, and of panels: chunks > 1 where there are too few pixels for the threads
  int64_t
      block_stride;  // of the strip; an odd number of vectors, so that its columns spread over the cache sets
  bool pointwise;    // A is x itself, or its pixels in another order

  Plan(const ConvCall& c, int threads) : call(c), s(c.shape) {
    cin = s.cin / s.groups, cout = s.cout / s.groups;
    depth = whole_depth<T>(s.taps() * cin);
    // Sums in y have the precision of float32 only, and pieces are whole factors. An empty row is one piece.
    const bool cuts =
        sizeof(T) == sizeof(float) && !c.strassen && cin % kColumns<T> == 0 && depth > kPieceDepth;
    piece = !cuts ? s.taps() : cin < kPieceDepth ? kPieceDepth / cin : 1;
    vectors = (cout + Vec::width - 1) / Vec::width;
    panels = (vectors + kPanelVectors - 1) / kPanelVectors;
    blocks = (s.out_pixels() + c.block - 1) / c.block;
    const int64_t wanted = 4 * int64_t{threads};  // items, where they are not the same for all threads
    chunks = threads == 1 || blocks == 0 ? 1 : least(panels, (wanted + blocks - 1) / blocks);
    // As few chunks as give all threads the same: each waits for its first panel, and sums Strassen's rows
    // again. Against 8 items for 2 threads, ResNet-50 and Inception-ResNet in bf16 took 0.93 to 0.95.
    for (int64_t even = 1; even < chunks; ++even) {
      if (blocks * even % threads == 0) chunks = even;
    }
    const int64_t rows = kByTiles<T> && c.block < kTileRows ? kTileRows : c.block;
    block_stride = (rows + 1 - rows % 2) * kColumns<T>;
    pointwise = depth == cin && s.taps() == 1 && s.stride[0] * s.stride[1] * s.stride[2] == 1 &&
                (s.pad[0] | s.pad[1] | s.pad[2]) == 0 && s.in[0] == s.out[0] && s.in[1] == s.out[1] &&
                s.in[2] == s.out[2];
  }
  int64_t panel_at(int64_t chunk) const { return first_panel(panels, chunk, chunks, call.strassen); }
  int64_t strip_elements() const {
    const int64_t columns = piece == s.taps() ? depth : piece * cin;
    return (columns + kColumns<T> - 1) / kColumns<T> * block_stride;
  }
  int64_t private_bytes() const {
    return slice_bytes<T>(strip_elements()) + 2 * slice_bytes<int64_t>(call.block) +
           (call.strassen ? Strassen<true>::bytes(depth, call.block) : 0);
  }

  Pixel pixel(int64_t index) const {
    const int64_t row = index / s.out[2], plane = row / s.out[1];
    return {plane / s.out[0], plane % s.out[0], row % s.out[1], index % s.out[2]};
  }
};

FASTNETS_INLINE int64_t offset(const Pixel& p, const int64_t stride[4]) {
  return p.image * stride[0] + p.z * stride[1] + p.y * stride[2] + p.x * stride[3];
}

template <class T>
constexpr T kZeros[kColumns<T>] = {};

// Writes `count` elements (zeros without a source) to the columns from k on of a row of the strip.
template <class T>
FASTNETS_INLINE void put(T* row, int64_t block_stride, int64_t k, const T* source, int64_t count) {
  for (int64_t done = 0; done < count;) {
    const int64_t column = (k + done) % kColumns<T>, n = least(count - done, kColumns<T> - column);
    T* const to = row + (k + done) / kColumns<T> * block_stride + column;
    move_columns(to, source == nullptr ? kZeros<T> : source + done, n);
    done += n;
  }
}

// Taps [from, to) of a kernel, in the order z, y, x.
struct Taps {
  int64_t from, to;
};

// Those from the first to the last that lie inside of the image for any of the pixels [first, first + count);
// one at least. Looked for where padding is more than a quarter of the image, as wide dilations have it: 3x3
// on 32 x 32 pixels with 2048 channels took 0.8 of the time with dilation 12, 0.53 with 24 and 0.14 with 36.
// With less there is little to leave out, and looking took up to 0.04 of the time.
template <class T>
Taps taps_inside(const Plan<T>& plan, int64_t first, int64_t count) {
  const ConvShape& s = plan.s;
  const int64_t taps = s.taps();
  bool wide = false;
  for (int axis = 0; axis < 3; ++axis) wide = wide || 4 * s.pad[axis] > s.in[axis];
  if (!wide || taps == 1 || plan.cin % kColumns<T> != 0) return {0, taps};  // only whole factors are left out
  const auto is_inside = [&](int64_t axis, int64_t pixel, int64_t tap) {
    const int64_t at = pixel * s.stride[axis] - s.pad[axis] + tap * s.dilation[axis];
    return at >= 0 && at < s.in[axis];
  };
  Taps found{taps, 0};
  for (int64_t i = first; i < first + count;) {
    const Pixel p = plan.pixel(i);
    const int64_t end = least(s.out[2], p.x + first + count - i);
    for (int64_t tap = 0; tap < taps; ++tap) {
      const int64_t line = tap / s.kernel[2];
      if ((tap >= found.from && tap < found.to) || !is_inside(0, p.z, line / s.kernel[1]) ||
          !is_inside(1, p.y, line % s.kernel[1])) {
        continue;
      }
      bool any = false;
      for (int64_t x = p.x; x < end && !any; ++x) any = is_inside(2, x, tap % s.kernel[2]);
      if (any) found = {least(found.from, tap), tap < found.to ? found.to : tap + 1};
    }
    i += end - p.x;
  }
  return found.from < found.to ? found : Taps{0, 1};
}

// These taps of one output pixel, and then its channels. `x` points to the first channel of the group.
template <class T>
void gather_pixel(const Plan<T>& plan, const T* x, const Pixel& p, const Taps& taps, T* row) {
  const ConvShape& s = plan.s;
  const int64_t* stride = plan.call.x_stride;
  const int64_t x0 = p.x * s.stride[2] - s.pad[2], step = s.dilation[2];
  // Where the taps of a kernel row touch, they are one run: with 3 channels, 21 floats instead of 7 times 3.
  const bool joined = step == 1 && stride[3] == plan.cin && x0 >= 0 && x0 + s.kernel[2] <= s.in[2];
  const int64_t from = taps.from * plan.cin, to = taps.to * plan.cin, line_columns = s.kernel[2] * plan.cin;
  int64_t k = 0;
  for (int64_t i = 0; i < s.kernel[0]; ++i) {
    const int64_t z = p.z * s.stride[0] - s.pad[0] + i * s.dilation[0];
    for (int64_t j = 0; j < s.kernel[1]; ++j, k += line_columns) {
      const int64_t y = p.y * s.stride[1] - s.pad[1] + j * s.dilation[1];
      const int64_t first = k < from ? from : k, end = least(k + line_columns, to);
      if (first >= end) continue;
      const bool inside = z >= 0 && z < s.in[0] && y >= 0 && y < s.in[1];
      const T* line = inside ? x + p.image * stride[0] + z * stride[1] + y * stride[2] : nullptr;
      if (!inside || joined) {
        put<T>(row, plan.block_stride, first - from, inside ? line + x0 * stride[3] + first - k : nullptr,
               end - first);
        continue;
      }
      for (int64_t t = 0, at = k; at < end; ++t, at += plan.cin) {
        const int64_t column = x0 + t * step;
        const bool there = column >= 0 && column < s.in[2];
        if (at < first) continue;
        put<T>(row, plan.block_stride, at - from, there ? line + column * stride[3] : nullptr, plan.cin);
      }
    }
  }
  if (taps.to == s.taps()) put<T>(row, plan.block_stride, to - from, nullptr, plan.depth - to);
}

// Private memory of a thread.
template <class T>
struct Private {
  T* strip;
  int64_t* y_offset;
  int64_t* residual_offset;
  Arena rest;  // for Strassen's algorithm
};

// Output pixels [first, first + count), and panels [from, to) of each group.
struct Item {
  int64_t first, count, from, to;
};

// Notes where the pixels of an item go; whether those of x that A needs are equally spaced.
template <class T>
bool place_pixels(const Plan<T>& plan, const Item& item, const Private<T>& own) {
  const ConvCall& call = plan.call;
  Pixel p = plan.pixel(item.first);
  const int64_t x_first = offset(p, call.x_stride);
  bool uniform = true;
  for (int64_t i = 0; i < item.count; ++i) {
    own.y_offset[i] = offset(p, call.y_stride);
    own.residual_offset[i] = offset(p, call.epilogue.residual_stride);
    uniform = uniform && offset(p, call.x_stride) == x_first + i * call.x_stride[3];
    if (++p.x == plan.s.out[2]) p = plan.pixel(item.first + i + 1);
  }
  return uniform;
}

// Whether two panels are multiplied at once where rows are read in place, on processors of Intel: a thread
// that shares its core with another took 0.8 to 0.95 of the time, one alone 0.95 to 1.0 (Emerald Rapids). Of
// packed rows, separable convolutions took 1.03 to 1.04.
template <class T>
#if defined(FASTNETS_LEVEL_avx512)
constexpr bool kTwoPanels = sizeof(T) == sizeof(float);
#else
constexpr bool kTwoPanels = false;
#endif

// Calls use(kind, panel, the one after it) for the panels [from, to) of so many channels.
template <class T, class Use>
FASTNETS_INLINE void each_panel(int64_t from, int64_t to, int64_t channels, bool in_place, const Use& use) {
  constexpr int64_t kLanes = kPanelVectors * Vec::width;
  for (int64_t panel = from; panel < to;) {
    const int64_t left = channels - panel * kLanes;
    if constexpr (kTwoPanels<T>) {
      if (in_place && panel + 1 < to && left > 3 * Vec::width + Half::width && is_intel()) {
        use(PanelKind<2 * kPanelVectors, Vec>(), panel, panel + 2);
        panel += 2;
        continue;
      }
    }
    with_panel(least(left, kLanes), [&](auto kind) FASTNETS_INLINE_LAMBDA { use(kind, panel, panel + 1); });
    ++panel;
  }
}

// The product of some taps of a group. in_place: they are read where they lie in x.
template <class T>
void run_taps(const Plan<T>& plan, const Item& item, int64_t group, const Taps& taps, bool in_place,
              const PieceTarget<T>& into, const Private<T>& own) {
  const ConvCall& call = plan.call;
  const T* const x = static_cast<const T*>(call.x) + group * plan.cin;
  const T* const weights =
      static_cast<const T*>(call.weights) + group * plan.vectors * Vec::width * plan.depth;
  const int64_t skipped = taps.from * plan.cin;
  const int64_t depth = taps.to == plan.s.taps() ? plan.depth - skipped : (taps.to - taps.from) * plan.cin;
  Rows<T> rows{own.strip, plan.block_stride, kColumns<T>};
  Pixel p = plan.pixel(item.first);
  if (in_place) {
    rows = {x + offset(p, call.x_stride), kColumns<T>, call.x_stride[3], true};
  } else {
    for (int64_t i = 0; i < item.count; ++i) {
      gather_pixel(plan, x, p, taps, own.strip + i * kColumns<T>);
      if (++p.x == plan.s.out[2]) p = plan.pixel(item.first + i + 1);
    }
  }
  Target<T> target = into.target;
  int64_t paired = 0;
  if constexpr (sizeof(T) == sizeof(float)) {
    if (call.strassen && in_place) {
      Strassen<false> product(plan.depth, call.block, own.rest);
      paired = product.multiply(rows, item.count, weights, item.from, item.to, target, into.epilogue);
    } else if (call.strassen) {
      Strassen<true> product(plan.depth, call.block, own.rest);
      paired = product.multiply(rows, item.count, weights, item.from, item.to, target, into.epilogue);
    }
  }
  const int64_t first = item.from + paired;
  each_panel<T>(first, item.to, plan.cout, in_place,
                [&](auto kind, int64_t panel, int64_t after) FASTNETS_INLINE_LAMBDA {
                  using Kind = decltype(kind);
                  constexpr int64_t kLanes = Kind::kVectors * Vec::width;
                  const int64_t done = panel * kPanelVectors * Vec::width;
                  const T* const b = weights + done * plan.depth + skipped * kLanes;
                  const T* const next = after == item.to ? nullptr : b + plan.depth * kLanes;
                  const PanelRead<T> read{b, depth * kLanes, panel == first, next};
                  target.channel = group * plan.cout + done, target.lanes = least(plan.cout - done, kLanes);
                  if (in_place) {
                    run_products<Kind, false>(rows, item.count, read, depth, target, into.epilogue);
                  } else if constexpr (Kind::kVectors <= kPanelVectors) {
                    run_products<Kind, true>(rows, item.count, read, depth, target, into.epilogue);
                  }
                  rows.cold = false;
                });
}

template <class T>
void run_item(const Plan<T>& plan, const Item& item, const Private<T>& own) {
  const ConvCall& call = plan.call;
  const bool uniform = place_pixels(plan, item, own);
  const bool in_place = plan.pointwise && uniform && !(kByTiles<T> && item.count < kTileRows) &&
                        call.x_stride[3] * static_cast<int64_t>(sizeof(T)) % kSetStride != 0;
  const Taps taps = call.strassen ? Taps{0, plan.s.taps()} : taps_inside(plan, item.first, item.count);
  const int64_t count = taps.to - taps.from, pieces = (count + plan.piece - 1) / plan.piece;
  T* const y = static_cast<T*>(call.y);
  const Target<T> target{y, own.y_offset, call.epilogue.residual == nullptr ? nullptr : own.residual_offset,
                         0, plan.cout,    call.stream};
  for (int64_t group = 0; group < plan.s.groups; ++group) {
    for (int64_t piece = 0; piece < pieces; ++piece) {
      const Taps of_piece{taps.from + count * piece / pieces, taps.from + count * (piece + 1) / pieces};
      const PieceTarget<T> into(target, call.epilogue, piece == 0, piece + 1 == pieces);
      run_taps(plan, item, group, of_piece, in_place, into, own);
    }
    if (Clamp(call.epilogue).more) {
      const int64_t lane = item.from * kPanelVectors * Vec::width;
      const int64_t lanes = least(plan.cout, item.to * kPanelVectors * Vec::width) - lane;
      for (int64_t i = 0; i < item.count; ++i) {
        activate_row(y + own.y_offset[i] + group * plan.cout + lane, lanes, call.epilogue);
      }
    }
  }
}

template <class T>
void run_items(const ConvCall& call, void* scratch, ThreadContext& context) {
  const Plan<T> plan(call, context.threads);
  Arena arena(scratch, context.thread * plan.private_bytes());
  T* const strip = arena.take<T>(plan.strip_elements());
  int64_t* const y_offset = arena.take<int64_t>(call.block);
  int64_t* const residual_offset = arena.take<int64_t>(call.block);
  const Private<T> own{strip, y_offset, residual_offset, arena};
  const Tiles<T> tiles;
  for (int64_t item; next_item(context, plan.blocks * plan.chunks, item);) {
    const int64_t chunk = item % plan.chunks, first = item / plan.chunks * call.block;
    const int64_t count = least(call.block, plan.s.out_pixels() - first);
    run_item(plan, {first, count, plan.panel_at(chunk), plan.panel_at(chunk + 1)}, own);
  }
}

}  // namespace
}  // namespace FASTNETS_LEVEL

int FASTNETS_ENTRY(conv_lanes)() { return FASTNETS_LEVEL::Vec::width; }

int FASTNETS_ENTRY(conv_steps)(Element element) {
  using namespace FASTNETS_LEVEL;
  return element == Element::bfloat16 ? kSteps<Bf16> : kSteps<float>;
}

int FASTNETS_ENTRY(conv_rate)(Element element) {
  using namespace FASTNETS_LEVEL;
  return element == Element::bfloat16 ? (kByTiles<Bf16> ? 8 : kSteps<Bf16>) : 1;
}

int FASTNETS_ENTRY(conv_depth)(Element element) {
  using namespace FASTNETS_LEVEL;
  return static_cast<int>(element == Element::bfloat16 ? kDepth<Bf16> : kDepth<float>);
}

int64_t FASTNETS_ENTRY(conv_product_scratch)(const ConvCall& call, int threads) {
  using namespace FASTNETS_LEVEL;
  int64_t bytes = 0;
  with_own_element(call.element,
                   [&](auto zero) { bytes = threads * Plan<decltype(zero)>(call, threads).private_bytes(); });
  return bytes;
}

void FASTNETS_ENTRY(conv_product)(const ConvCall& call, void* scratch, ThreadContext& context) {
  using namespace FASTNETS_LEVEL;
  with_own_element(call.element, [&](auto zero) { run_items<decltype(zero)>(call, scratch, context); });
  if (call.stream) stream_fence();
  finish(context);
}

}  // namespace fastnets
