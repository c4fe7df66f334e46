// The depthwise results of some pixels, as the rows of a product whose results go to pixels. Included by
// kernel files only.
#pragma once

#include "common/scratch.h"
#include "cpu/products.h"
#include "cpu/strassen.h"

namespace fastnets {
namespace FASTNETS_LEVEL {

// The matrix A of cpu/micro_kernel.h, [channels / lanes][pixel][lanes], and where the product of each pixel
// goes. Memory of a thread.
template <class T>
struct PixelPanel {
  int64_t depth;         // channels, in whole factors
  int64_t block_stride;  // an odd number of vectors, so that its columns spread over the cache sets
  T* a;
  int64_t *y_offset, *residual_offset;

  static FASTNETS_INLINE int64_t stride_of(int64_t pixels) {
    if (kByTiles<T> && pixels < kTileRows) pixels = kTileRows;
    return (pixels + 1 - pixels % 2) * kColumns<T>;
  }
  static FASTNETS_INLINE int64_t elements(int64_t depth, int64_t pixels) {
    return (depth + kColumns<T> - 1) / kColumns<T> * stride_of(pixels);
  }
  static FASTNETS_INLINE int64_t bytes(int64_t depth, int64_t pixels) {
    return slice_bytes<T>(elements(depth, pixels)) + 2 * slice_bytes<int64_t>(pixels);
  }
  FASTNETS_INLINE PixelPanel(int64_t channels, int64_t pixels, Arena& arena)
      : depth(channels),
        block_stride(stride_of(pixels)),
        a(arena.take<T>(elements(channels, pixels))),
        y_offset(arena.take<int64_t>(pixels)),
        residual_offset(arena.take<int64_t>(pixels)) {
    if (kByTiles<T> && elements(channels, pixels) > 0) {  // columns that are never written count as 0
      std::memset(a + elements(channels, pixels) - block_stride, 0,
                  sizeof(T) * static_cast<size_t>(block_stride));
    }
  }
};

// A 1x1 convolution of the pixels of a panel.
template <class T>
struct Projection {
  const T* weights;  // packed by pack_product
  int64_t cout;
  T* y;
  const Epilogue& epilogue;
  bool stream;
};

// The activation of the first `pixels` pixels of a panel, where it is more than a clamp.
template <class T>
FASTNETS_INLINE void activate_panel(const PixelPanel<T>& panel, int64_t pixels, const Epilogue& epilogue) {
  if (!Clamp(epilogue).more) return;
  T* a = panel.a;
  for (int64_t k = 0; k < panel.depth; k += kColumns<T>, a += panel.block_stride) {
    activate_row(a, pixels * kColumns<T>, epilogue);
  }
}

template <class Kind, class T>
FASTNETS_INLINE void multiply_panel(Kind, const PixelPanel<T>& panel, const Projection<T>& to, int64_t pixels,
                                    int64_t lane, bool first, bool last) {
  constexpr int64_t kLanes = Kind::kVectors * Vec::width;
  const T* const weights = to.weights + lane * panel.depth;
  const int64_t elements = panel.depth * kLanes;
  Target<T> target{to.y,
                   panel.y_offset,
                   to.epilogue.residual == nullptr ? nullptr : panel.residual_offset,
                   lane,
                   least(to.cout - lane, kLanes),
                   to.stream};
  Rows<T> rows{panel.a, panel.block_stride, kColumns<T>};
  const PanelRead<T> read{weights, elements, first, last ? nullptr : weights + elements};
  run_products<Kind, true>(rows, pixels, read, panel.depth, target, to.epilogue);
}

// The first `pixels` pixels of the panel, and the panels [from, to) of output channels: in pairs by
// Strassen's algorithm, if it is given.
template <class T>
FASTNETS_INLINE void project(const PixelPanel<T>& panel, const Projection<T>& into, int64_t pixels,
                             int64_t from, int64_t to, Strassen<true>* strassen = nullptr) {
  constexpr int64_t kLanes = kPanelVectors * Vec::width;
  int64_t paired = 0;
  if constexpr (sizeof(T) == sizeof(float)) {
    if (strassen != nullptr) {
      const int64_t* const residual = into.epilogue.residual == nullptr ? nullptr : panel.residual_offset;
      const Target<T> target{into.y, panel.y_offset, residual, 0, into.cout, into.stream};
      paired = strassen->multiply({panel.a, panel.block_stride, kColumns<T>}, pixels, into.weights, from, to,
                                  target, into.epilogue);
    }
  }
  for (int64_t i = from + paired; i < to; ++i) {
    with_panel(least(into.cout - i * kLanes, kLanes), [&](auto kind) FASTNETS_INLINE_LAMBDA {
      multiply_panel(kind, panel, into, pixels, i * kLanes, i == from + paired, i + 1 == to);
    });
  }
  if (!Clamp(into.epilogue).more) return;
  const int64_t lane = from * kLanes, lanes = least(into.cout, to * kLanes) - lane;
  for (int64_t i = 0; i < pixels; ++i) {
    activate_row(into.y + panel.y_offset[i] + lane, lanes, into.epilogue);
  }
}

}  // namespace FASTNETS_LEVEL
}  // namespace fastnets
