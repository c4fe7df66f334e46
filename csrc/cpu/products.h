// The products of a few rows and a panel that kernels call, compiled once a level (cpu/products.cpp).
// Included by kernel files only.
//
// of_rows[n - 1] takes n rows. kPacked says how they lie, as in accumulate.
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

}  // namespace FASTNETS_LEVEL
}  // namespace fastnets
