// The products of a few rows and a panel that kernels call, compiled once a level (cpu/products.cpp).
// Included by kernel files only.
//
// of_rows[n - 1] takes n rows. kPacked says how they lie, as in accumulate.
//
// Those of Bf16 to pixels are made of tiles where the level has them. They take at most 2 kTileRows rows, of
// which one of fewer than kTileRows reads as many: such rows must be packed, with memory behind them.
#pragma once

#include "cpu/micro_kernel.h"

namespace fastnets {
namespace FASTNETS_LEVEL {

// (rows, panel, depth, before, c): c[row][panel lanes] = the product, added to `before` where it is not null.
template <class T, class Panel>
using PanelProduct = void (*)(const Rows<T>&, const Panel&, int64_t, const float*, float*);

template <class Kind, bool kPacked, class T, class Panel = PackedPanel<T>>
struct PanelProducts {
  static const PanelProduct<T, Panel> of_rows[kMaxRows];
};

// (rows, panel, depth, target, epilogue): the product goes to pixels.
template <class T, class Panel>
using PixelProduct = void (*)(const Rows<T>&, const Panel&, int64_t, const Target<T>&, const Epilogue&);

template <class Kind, bool kPacked, class T, class Panel = PackedPanel<T>>
struct PixelProducts {
  static const PixelProduct<T, Panel> of_rows[kRowsOf<Kind::kVectors>];
};

// kColumns<T> columns of A, of which the first row is at a + row, and where the panel has their weights.
struct ProductStep {
  int64_t row, depth;
};
template <class T>
struct StepRows {
  const T* a;
  int64_t row_stride;
  const ProductStep* steps;
  int64_t count;
};

// Those rows of a product that are results: line[i] - first is the i-th of `count`.
struct ResultLines {
  const int32_t* line;
  int64_t first, count;
};

// One panel or two, side by side, that all parts of the rows read, and what they fetch meanwhile: the panel
// itself where it is cold, then the next one if there is one.
template <class T>
struct PanelRead {
  const T* b;
  int64_t elements = 0;  // of both, if they are two
  bool cold = false;
  const T* next = nullptr;
  template <class Kind>
  FASTNETS_INLINE auto of(const RowCut<T>& cut, int64_t part) const {
    if constexpr (Kind::kVectors == 4) {
      return TwoPanels<T>{b, b + elements / 2, panel_ahead(b, elements, cold, part, cut, next)};
    } else {
      return PackedPanel<T>{b, panel_ahead(b, elements, cold, part, cut, next)};
    }
  }
};

void tile_product(const Rows<Bf16>& rows, int64_t count, int vectors, const PackedPanel<Bf16>& panel,
                  int64_t depth, const Target<Bf16>& target, const Epilogue& epilogue);
void tile_product(const StepRows<Bf16>& rows, int64_t count, int vectors, const PackedPanel<Bf16>& panel,
                  const Target<Bf16>& target, const Epilogue& epilogue, const ResultLines& results);

// The product of so many rows. What varies of `rows` and `target` is changed in place, and then as
// before: a copy would wait for the stores of the product before it (64 channels: 1.05 of the time).
template <class Kind, bool kPacked, class T>
FASTNETS_INLINE void run_products(Rows<T>& rows, int64_t count_of_rows, const PanelRead<T>& panel,
                                  int64_t depth, Target<T>& target, const Epilogue& epilogue) {
  const RowCut<T> cut = row_cut<Kind, T>(count_of_rows);
  const T* const a = rows.a;
  const int64_t *const y_offset = target.y_offset, *const residual_offset = target.residual_offset;
  for (int64_t part = 0; part < cut.parts; ++part) {
    const int64_t begin = cut.begin(part), count = cut.begin(part + 1) - begin;
    rows.a = a + begin * rows.row_stride;
    target.y_offset = y_offset + begin;
    if (residual_offset != nullptr) target.residual_offset = residual_offset + begin;
    if constexpr (kByTiles<T>) {
      tile_product(rows, count, Kind::kVectors, panel.template of<Kind>(cut, part), depth, target, epilogue);
    } else {
      const auto b = panel.template of<Kind>(cut, part);
      PixelProducts<Kind, kPacked, T, std::decay_t<decltype(b)>>::of_rows[count - 1](rows, b, depth, target,
                                                                                     epilogue);
    }
  }
  rows.a = a, target.y_offset = y_offset, target.residual_offset = residual_offset;
}

// Where one of the pieces that a product's depth is cut into goes: to y, through all of the epilogue that
// does not wait for the last piece; the later ones add y to theirs as a residual.
template <class T>
struct PieceTarget {
  Target<T> target;
  Epilogue epilogue;
  FASTNETS_INLINE PieceTarget(const Target<T>& whole, const Epilogue& of_whole, bool first, bool last)
      : target(whole), epilogue(of_whole) {
    if (!last) epilogue.activation = Activation::none, target.stream = false;
    if (first) return;
    epilogue.shift = nullptr, epilogue.residual = target.y, target.residual_offset = target.y_offset;
  }
};

// Multiplies tiles that stay in registers, `rounds` times; how many operations these were.
double tile_operations(long rounds);

// What a thread has around its products of T: where they are made of tiles, these, configured.
template <class T>
class Tiles {
 public:
  Tiles() {}
  ~Tiles() {}
};
#if defined(FASTNETS_LEVEL_amx_bf16)
template <>
class Tiles<Bf16> {
 public:
  Tiles();
  ~Tiles();
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};
#endif

}  // namespace FASTNETS_LEVEL
}  // namespace fastnets
