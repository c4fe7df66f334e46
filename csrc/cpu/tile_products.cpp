// The product of rows of Bf16 and a panel by tiles (AMX): registers of 16 rows of 64 bytes, and an instruction
// that multiplies 16 rows of 32 elements with as many of 16 columns.
//
// Panels are packed as for vdpbf16ps (cpu/factor.h), which is how tiles want them: a row of a tile of B is a pair of
// k in 16 lanes. Two tiles of rows times two of lanes, so that each tile that is loaded is used twice.
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

constexpr int64_t kLineBytes = kColumns<Bf16> * sizeof(Bf16);
constexpr int64_t kLanes = kPanelVectors * Vec::width;

// Sums of a product as they leave the tiles.
struct alignas(kAlignment) SumLines {
  float of[2 * kTileRows][kLanes];
};

// lines: the product of one tile of rows, from rows.a, or of two, of which the second begins at `second`.
template <int kRowTiles, int kVectors>
FASTNETS_INLINE void multiply(const Rows<Bf16>& rows, int64_t second, PackedPanel<Bf16> panel, int64_t depth,
                              SumLines& lines) {
  const int64_t row_bytes = rows.row_stride * static_cast<int64_t>(sizeof(Bf16));
  const Bf16 *a = rows.a, *a2 = rows.a + second * rows.row_stride;
  _tile_zero(0);
  if constexpr (kVectors == 2) _tile_zero(1);
  if constexpr (kRowTiles == 2) _tile_zero(2);
  if constexpr (kRowTiles == 2 && kVectors == 2) _tile_zero(3);
  constexpr int64_t kStep = kColumns<Bf16> * kVectors * Vec::width;  // elements of the panel
  for (int64_t k = 0; k < depth; k += kColumns<Bf16>, a += rows.block_stride, a2 += rows.block_stride) {
    panel.fetch(kStep);
    _tile_loadd(6, panel.b, kVectors * kLineBytes);
    _tile_loadd(4, a, row_bytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kVectors == 2) {
      _tile_loadd(7, panel.b + kColumns<Bf16>, kVectors * kLineBytes);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (kRowTiles == 2) {
      _tile_loadd(5, a2, row_bytes);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (kVectors == 2) _tile_dpbf16ps(3, 5, 7);
    }
    panel.advance(kStep);
  }
  constexpr int64_t kTo = sizeof(lines.of[0]);
  _tile_stored(0, lines.of[0], kTo);
  if constexpr (kVectors == 2) _tile_stored(1, lines.of[0] + Vec::width, kTo);
  if constexpr (kRowTiles == 2) _tile_stored(2, lines.of[second], kTo);
  if constexpr (kRowTiles == 2 && kVectors == 2) _tile_stored(3, lines.of[second] + Vec::width, kTo);
}

// kRows rows of the sums, from `row` on, through the epilogue.
template <int kRows>
FASTNETS_INLINE void finish_rows(const SumLines& lines, int64_t row, int vectors, Target<Bf16> target,
                                 const Epilogue& epilogue) {
  target.y_offset += row;
  if (target.residual_offset != nullptr) target.residual_offset += row;
  for (int v = 0; v < vectors; ++v) {
    const int64_t channel = target.channel + v * Vec::width;
    const int count = static_cast<int>(target.lanes) - v * Vec::width;
    const int lanes = count < Vec::width ? count : Vec::width;
    const Vec first = ChannelTerms(epilogue, channel, lanes).start();
    Vec sum[kRows];
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) sum[i] = Vec::load(lines.of[row + i] + v * Vec::width) + first;
    store_pixels(sum, target, channel, lanes, epilogue);
  }
}

}  // namespace

// The second tile of rows ends with the last row: the sums that both tiles have are the same.
void tile_product(const Rows<Bf16>& rows, int64_t count, int vectors, const PackedPanel<Bf16>& panel,
                  int64_t depth, const Target<Bf16>& target, const Epilogue& epilogue) {
  SumLines lines;
  const int64_t second = count - kTileRows;
  if (second > 0) {
    vectors == 2 ? multiply<2, 2>(rows, second, panel, depth, lines)
                 : multiply<2, 1>(rows, second, panel, depth, lines);
  } else {
    vectors == 2 ? multiply<1, 2>(rows, 0, panel, depth, lines)
                 : multiply<1, 1>(rows, 0, panel, depth, lines);
  }
  int64_t row = 0;
  for (; row + 8 <= count; row += 8) finish_rows<8>(lines, row, vectors, target, epilogue);
  for (; row + 2 <= count; row += 2) finish_rows<2>(lines, row, vectors, target, epilogue);
  if (row < count) finish_rows<1>(lines, row, vectors, target, epilogue);
}

Tiles<Bf16>::Tiles() { _tile_loadconfig(&kWholeTiles); }
Tiles<Bf16>::~Tiles() { _tile_release(); }

}  // namespace FASTNETS_LEVEL
}  // namespace fastnets
