// The product of rows of Bf16 and a panel by tiles (AMX): registers of 16 rows of 64 bytes, and an
// instruction that multiplies 16 rows of 32 elements with as many of 16 columns.
//
// Panels are packed as for vdpbf16ps (cpu/factor.h), which is how tiles want them: a row of a tile of B is a
// pair of k in 16 lanes. Two tiles of rows times two of lanes, so that each tile that is loaded is used
// twice. Four of rows times one of lanes, which load fewer weights, were 0.57 to 1.05 as fast, and 1x1
// products whose rows were copied side by side first 0.78 to 0.97; a part multiplied before the results of
// the one before it are finished, 0.9 to 1.02; a panel of one tile's depth kept in its tiles for all rows,
// 0.99 to 1.1, no more than the same code differs from itself (Emerald Rapids).
//
// Of float32, direct convolutions of floats split into parts of 8 bits were tried. Three parts and six
// products of them are more exact than vectors (errors of 5e-8 to 3e-7 instead of 1e-7 to 7e-7), but ran
// networks 0.70 to 0.94 as fast. Two parts and three products ran ResNet-50 1.07 to 1.19 and
// Inception-ResNet 1.10 as fast, VGG no faster, with errors of 3e-6 a layer and 6e-6 a network instead of
// 8e-7: not what float32 is asked for.
#include "cpu/products.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

// What LDTILECFG reads (Intel SDM, volume 1, chapter 18).
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

constexpr TileConfig whole_tiles() {
  TileConfig config;
  for (int i = 0; i < 8; ++i) config.row_bytes[i] = 64, config.rows[i] = kTileRows;
  return config;
}
constexpr TileConfig kWholeTiles = whole_tiles();

constexpr int64_t kLineBytes = kColumns<Bf16> * static_cast<int64_t>(sizeof(Bf16));
constexpr int64_t kLanes = kPanelVectors * Vec::width;

// Sums of a product as they leave the tiles.
struct alignas(kAlignment) SumLines {
  float of[2 * kTileRows][kLanes];
};

// Steps of kColumns<Bf16> columns: where the first row of A is, and the depth of the panel's weights.
struct Step {
  const Bf16* a;
  int64_t depth;
};
struct StridedTiles {
  const Bf16* a;
  int64_t block_stride, row_bytes, second, steps;  // second: elements to the second tile
  int64_t depth = 0;
  FASTNETS_INLINE StridedTiles(const Rows<Bf16>& rows, int64_t second_row, int64_t columns)
      : a(rows.a),
        block_stride(rows.block_stride),
        row_bytes(rows.row_stride * static_cast<int64_t>(sizeof(Bf16))),
        second(second_row * rows.row_stride),
        steps(columns / kColumns<Bf16>) {}
  FASTNETS_INLINE Step next() {
    const Step step{a, depth};
    a += block_stride, depth += kColumns<Bf16>;
    return step;
  }
};
struct SteppedTiles {
  const Bf16* a;
  const ProductStep* step;
  int64_t row_bytes, second, steps;
  FASTNETS_INLINE SteppedTiles(const StepRows<Bf16>& rows, int64_t second_row)
      : a(rows.a),
        step(rows.steps),
        row_bytes(rows.row_stride * static_cast<int64_t>(sizeof(Bf16))),
        second(second_row * rows.row_stride),
        steps(rows.count) {}
  FASTNETS_INLINE Step next() {
    const Step found{a + step->row, step->depth};
    ++step;
    return found;
  }
};

// lines: the product of one tile of rows, or of two, of which the second begins at row `second`.
template <int kRowTiles, int kVectors, class RowTiles>
FASTNETS_INLINE void multiply(RowTiles a, int64_t second, PackedPanel<Bf16> panel, SumLines& lines) {
  constexpr int64_t kPanelLanes = kVectors * Vec::width;
  _tile_zero(0);
  if constexpr (kVectors == 2) _tile_zero(1);
  if constexpr (kRowTiles == 2) _tile_zero(2);
  if constexpr (kRowTiles == 2 && kVectors == 2) _tile_zero(3);
  for (int64_t i = 0; i < a.steps; ++i) {
    const Step step = a.next();
    const Bf16* const b = panel.b + step.depth * kPanelLanes;
    panel.fetch(kColumns<Bf16> * kPanelLanes);
    _tile_loadd(6, b, kVectors * kLineBytes);
    _tile_loadd(4, step.a, a.row_bytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kVectors == 2) {
      _tile_loadd(7, b + kColumns<Bf16>, kVectors * kLineBytes);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (kRowTiles == 2) {
      _tile_loadd(5, step.a + a.second, a.row_bytes);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (kVectors == 2) _tile_dpbf16ps(3, 5, 7);
    }
  }
  constexpr int64_t kTo = sizeof(lines.of[0]);
  _tile_stored(0, lines.of[0], kTo);
  if constexpr (kVectors == 2) _tile_stored(1, lines.of[0] + Vec::width, kTo);
  if constexpr (kRowTiles == 2) _tile_stored(2, lines.of[second], kTo);
  if constexpr (kRowTiles == 2 && kVectors == 2) _tile_stored(3, lines.of[second] + Vec::width, kTo);
}

// `count` rows; the second tile ends with the last of them. The sums that both tiles have are the same.
template <class RowTiles>
FASTNETS_INLINE void multiply_rows(const RowTiles& a, int64_t count, int vectors,
                                   const PackedPanel<Bf16>& panel, SumLines& lines) {
  if (count > kTileRows) {
    const int64_t second = count - kTileRows;
    vectors == 2 ? multiply<2, 2>(a, second, panel, lines) : multiply<2, 1>(a, second, panel, lines);
  } else {
    vectors == 2 ? multiply<1, 2>(a, 0, panel, lines) : multiply<1, 1>(a, 0, panel, lines);
  }
}

// A result through the epilogue, past the caches.
FASTNETS_INLINE void finish_streamed(const SumLines& lines, const ResultLines& results, int64_t i,
                                     int vectors, Target<Bf16> target, const Epilogue& epilogue) {
  target.y_offset += i;
  if (target.residual_offset != nullptr) target.residual_offset += i;
  for (int v = 0; v < vectors && v * Vec::width < target.lanes; ++v) {
    const int64_t channel = target.channel + v * Vec::width;
    const int lanes = static_cast<int>(least(target.lanes - v * Vec::width, Vec::width));
    const Vec start = ChannelTerms(epilogue, channel, lanes).start();
    Vec sum[1] = {Vec::load(lines.of[results.line[i] - results.first] + v * Vec::width) + start};
    store_pixels(sum, target, channel, lanes, epilogue);
  }
}

// The same of all results, both vectors of each at once: 32 channels are a cache line, and a part of them one
// store.
template <bool kScales, bool kResidual, bool kWhole>
FASTNETS_INLINE void finish_lines(const SumLines& lines, const ResultLines& results,
                                  const Target<Bf16>& target, const Epilogue& epilogue) {
  const int count = static_cast<int>(target.lanes);
  const int first = count < Vec::width ? count : Vec::width, second = count - first;
  const __mmask32 mask = kWhole ? ~__mmask32{0} : static_cast<__mmask32>((uint64_t{1} << count) - 1);
  const ChannelTerms left(epilogue, target.channel, first);
  const ChannelTerms right(epilogue, target.channel + first, second);
  const Vec left_start = left.start(), right_start = right.start();
  const Clamp clamp(epilogue);
  Bf16* const y = target.y + target.channel;
  const Bf16* const residual =
      kResidual ? static_cast<const Bf16*>(epilogue.residual) + target.channel : nullptr;
#pragma GCC unroll 4
  for (int64_t i = 0; i < results.count; ++i) {
    const float* const line = lines.of[results.line[i] - results.first];
    Vec a = Vec::load(line) + left_start, b = Vec::load(line + Vec::width) + right_start;
    if (kScales) a = left.finish(a), b = right.finish(b);
    if (kResidual) {
      const Bf16* const from = residual + target.residual_offset[i];
      const __m512i added = kWhole ? _mm512_loadu_si512(from) : _mm512_maskz_loadu_epi16(mask, from);
      a = a + Vec{widened(_mm512_castsi512_si256(added))},
      b = b + Vec{widened(_mm512_extracti64x4_epi64(added, 1))};
    }
    const __m512i both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(clamp(b).v, clamp(a).v));
    Bf16* const to = y + target.y_offset[i];
    kWhole ? _mm512_storeu_si512(to, both) : _mm512_mask_storeu_epi16(to, mask, both);
  }
}

template <bool kWhole>
FASTNETS_INLINE void finish_lines(const SumLines& lines, const ResultLines& results,
                                  const Target<Bf16>& target, const Epilogue& epilogue) {
  const bool scales = epilogue.scale != nullptr, adds = target.residual_offset != nullptr;
  if (scales) {
    adds ? finish_lines<true, true, kWhole>(lines, results, target, epilogue)
         : finish_lines<true, false, kWhole>(lines, results, target, epilogue);
  } else {
    adds ? finish_lines<false, true, kWhole>(lines, results, target, epilogue)
         : finish_lines<false, false, kWhole>(lines, results, target, epilogue);
  }
}

FASTNETS_INLINE void finish_results(const SumLines& lines, const ResultLines& results, int vectors,
                                    const Target<Bf16>& target, const Epilogue& epilogue) {
  if (!target.stream) {
    return target.lanes == kLanes ? finish_lines<true>(lines, results, target, epilogue)
                                  : finish_lines<false>(lines, results, target, epilogue);
  }
  for (int64_t i = 0; i < results.count; ++i) finish_streamed(lines, results, i, vectors, target, epilogue);
}

struct AllLines {
  int32_t line[2 * kTileRows];
};
constexpr AllLines all_lines() {
  AllLines all{};
  for (int i = 0; i < 2 * kTileRows; ++i) all.line[i] = i;
  return all;
}
constexpr AllLines kAllLines = all_lines();

}  // namespace

void tile_product(const Rows<Bf16>& rows, int64_t count, int vectors, const PackedPanel<Bf16>& panel,
                  int64_t depth, const Target<Bf16>& target, const Epilogue& epilogue) {
  SumLines lines;
  multiply_rows(StridedTiles(rows, count - kTileRows, depth), count, vectors, panel, lines);
  finish_results(lines, {kAllLines.line, 0, count}, vectors, target, epilogue);
}

void tile_product(const StepRows<Bf16>& rows, int64_t count, int vectors, const PackedPanel<Bf16>& panel,
                  const Target<Bf16>& target, const Epilogue& epilogue, const ResultLines& results) {
  SumLines lines;
  multiply_rows(SteppedTiles(rows, count - kTileRows), count, vectors, panel, lines);
  finish_results(lines, results, vectors, target, epilogue);
}

double tile_operations(long rounds) {
  for (long i = 0; i < rounds; ++i) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  return 2.0 * 4 * kTileRows * Vec::width * kColumns<Bf16> * static_cast<double>(rounds);
}

Tiles<Bf16>::Tiles() { _tile_loadconfig(&kWholeTiles); }
Tiles<Bf16>::~Tiles() { _tile_release(); }

}  // namespace FASTNETS_LEVEL
}  // namespace fastnets
