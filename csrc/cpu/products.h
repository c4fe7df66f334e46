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
  static const PixelProduct<T, Panel> of_rows[kMaxRows];
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

// A panel that all parts of the rows read, and what they fetch meanwhile: the panel itself where it is cold,
// then the next one if there is one.
template <class T>
struct PanelRead {
  const T* b;
  int64_t elements = 0;
  bool cold = false;
  const T* next = nullptr;
  FASTNETS_INLINE PackedPanel<T> of(const RowCut<T>& cut, int64_t part) const {
    return {b, panel_ahead(b, elements, cold, part, cut, next)};
  }
};

void tile_products(const Rows<Bf16>& rows, const TileRows& cut, int vectors, const PanelRead<Bf16>& panel,
                   int64_t depth, const Target<Bf16>& target, const Epilogue& epilogue);
void tile_product(const StepRows<Bf16>& rows, int64_t count, int vectors, const PackedPanel<Bf16>& panel,
                  const Target<Bf16>& target, const Epilogue& epilogue, const ResultLines& results);

// Those from row `begin` on.
template <class T>
FASTNETS_INLINE Rows<T> rows_from(Rows<T> rows, int64_t begin) {
  rows.a += begin * rows.row_stride;
  return rows;
}
template <class T>
FASTNETS_INLINE Target<T> target_from(Target<T> target, int64_t begin) {
  target.y_offset += begin;
  if (target.residual_offset != nullptr) target.residual_offset += begin;
  return target;
}

// The product of the rows of `cut`.
template <class Kind, bool kPacked, class T>
FASTNETS_INLINE void run_products(const Rows<T>& rows, const RowCut<T>& cut, const PanelRead<T>& panel,
                                  int64_t depth, const Target<T>& target, const Epilogue& epilogue) {
  if constexpr (kByTiles<T>) {
    tile_products(rows, cut, Kind::kVectors, panel, depth, target, epilogue);
  } else {
    for (int64_t part = 0; part < cut.parts; ++part) {
      const int64_t begin = cut.begin(part), count = cut.begin(part + 1) - begin;
      PixelProducts<Kind, kPacked, T>::of_rows[count - 1](rows_from(rows, begin), panel.of(cut, part), depth,
                                                          target_from(target, begin), epilogue);
    }
  }
}

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
