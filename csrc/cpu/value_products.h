// Products of two values, which are packed as floats when they are read. Included by kernel files only.
#pragma once

#include "cpu/pixel_rows.h"
#include "cpu/products.h"
#include "cpu/transpose.h"

namespace fastnets {
namespace FASTNETS_LEVEL {

constexpr int64_t kLanes = kPanelVectors * Vec::width;  // of a panel

FASTNETS_INLINE int64_t whole_vectors(int64_t n) { return (n + Vec::width - 1) / Vec::width * Vec::width; }

// Rows as panels of lanes that are rows: to[panel][column][row].
template <class T>
FASTNETS_INLINE void pack_columns(const T* from, int64_t stride, int64_t rows, int64_t columns, float* to) {
  for (int64_t first = 0; first < rows; first += kLanes) {
    const int64_t lanes = whole_vectors(least(kLanes, rows - first));
    for (int64_t part = 0; part < lanes; part += Vec::width) {
      each_vector(columns, [&](int64_t column, int count) {
        Vec v[Vec::width];
        for (int i = 0; i < Vec::width; ++i) {
          const int64_t row = first + part + i;
          v[i] = row < rows ? load_lanes(from + row * stride + column, count) : Vec::set(0.0F);
        }
        transpose(v);
        for (int i = 0; i < count; ++i) v[i].store(to + (column + i) * lanes + part);
      });
    }
    to += columns * lanes;
  }
}

// Rows as panels of lanes that are columns: to[panel][row][column]. Lanes past the end are 0.
template <class T>
FASTNETS_INLINE void pack_rows(const T* from, int64_t stride, int64_t rows, int64_t columns, int64_t panel,
                               float* to) {
  for (int64_t first = 0; first < columns; first += panel) {
    const int64_t count = least(panel, columns - first), lanes = whole_vectors(count);
    for (int64_t row = 0; row < rows; ++row, to += lanes) {
      each_vector(count,
                  [&](int64_t i, int n) { load_lanes(from + row * stride + first + i, n).store(to + i); });
    }
  }
}

// c[panel][row][lanes] = a b, with what was there where `adds`; a lies as pack_rows packs panels of a vector.
FASTNETS_INLINE void multiply(const float* a, int64_t rows, int64_t depth, const float* b, int64_t columns,
                              bool adds, float* c) {
  for (int64_t first = 0; first < columns; first += kLanes) {
    const int64_t count = least(kLanes, columns - first), lanes = whole_vectors(count);
    with_panel(count, [&](auto kind) {
      PanelProducts<decltype(kind), true, float>::of_rows[rows - 1]({a, rows * Vec::width, Vec::width},
                                                                    {b, {}}, depth, adds ? c : nullptr, c);
    });
    b += depth * lanes, c += rows * lanes;
  }
}

}  // namespace FASTNETS_LEVEL
}  // namespace fastnets
