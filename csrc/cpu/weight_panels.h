// Where the weights of a product are: a packed panel, two of them, or what is made of several; and what a
// product fetches meanwhile. Included by kernel files only.
//
// A panel's factor<V>(at) is the vector of factors `at` elements on, and advance() moves it on.
#pragma once

#include "common/scratch.h"
#include "cpu/factor.h"

namespace fastnets {
namespace FASTNETS_LEVEL {

constexpr int64_t kPanelAhead = 4096;

// Lines to fetch into L2 meanwhile, evenly: of a panel that is not there yet, kPanelAhead before they are
// used (the core's own prefetcher alone let products with weights from memory take 1.07 of the time (Zen 5),
// and from 4 KiB to 50 KiB ahead all are as fast); or one of `parts` equal parts of the next panel (Zen 3:
// layers with weights from memory 1.03 to 1.3 times faster; Zen 5, besides the first: networks within 1 %).
struct PanelAhead {
  const char* line = nullptr;
  int64_t each = kAlignment;  // bytes read for each line to fetch
  FASTNETS_INLINE PanelAhead() = default;
  FASTNETS_INLINE PanelAhead(const void* panel, bool cold)
      : line(cold ? static_cast<const char*>(panel) + kPanelAhead : nullptr) {}
  // times: how many times the panel that is read the next one is as large.
  FASTNETS_INLINE PanelAhead(const void* next, int64_t bytes, int64_t part, int64_t of, int64_t times = 1)
      : line(next == nullptr ? nullptr : static_cast<const char*>(next) + part * bytes / of),
        each(kAlignment * of / times) {}

  // What goes with `bytes` of the panel that is read.
  FASTNETS_INLINE void fetch(int64_t bytes) {
    if (line == nullptr) return;
    for (due += bytes; due >= each; due -= each, line += kAlignment) {
      __builtin_prefetch(line, 0, 2);
    }
  }

 private:
  int64_t due = 0;
};

// Where the panel is: packed, or the difference of two packed ones, which is kept for later products. Its
// loads, subtraction and store take units that the multiply-adds of ten rows or more leave idle.
template <class T>
struct PackedPanel {
  static constexpr int64_t kVector = kColumns<T>;  // elements of a vector of factors
  const T* b;
  PanelAhead ahead;
  template <class V>
  FASTNETS_INLINE auto factor(int64_t at) const {
    return lane_factor<V>(b + at);
  }
  FASTNETS_INLINE void advance(int64_t elements) { b += elements; }
  FASTNETS_INLINE void fetch(int64_t elements) { ahead.fetch(elements * static_cast<int64_t>(sizeof(T))); }
};

// Two packed panels side by side, of two full vectors each.
template <class T>
struct TwoPanels {
  static constexpr int64_t kVector = kColumns<T>;
  const T *first, *second;
  PanelAhead ahead;
  template <class V>
  FASTNETS_INLINE auto factor(int64_t at) const {
    const int64_t k = at / (4 * kVector), v = at / kVector % 4;
    return lane_factor<V>((v < 2 ? first : second) + (2 * k + v % 2) * kVector);
  }
  FASTNETS_INLINE void advance(int64_t elements) { first += elements / 2, second += elements / 2; }
  FASTNETS_INLINE void fetch(int64_t elements) { ahead.fetch(elements * static_cast<int64_t>(sizeof(T))); }
};

struct PanelDifference {
  static constexpr int64_t kVector = Vec::width;
  const float *b, *minus;
  float* kept;
  template <class V>
  FASTNETS_INLINE Vec factor(int64_t at) const {
    const Vec difference = Vec::load(b + at) - Vec::load(minus + at);
    difference.store(kept + at);
    return difference;
  }
  FASTNETS_INLINE void advance(int64_t elements) { b += elements, minus += elements, kept += elements; }
  FASTNETS_INLINE void fetch(int64_t elements) const {
    PanelAhead(b, true).fetch(elements * static_cast<int64_t>(sizeof(float)));
  }
};

// A panel of kernels of three taps, at a point of Winograd's: 1, -1, 2 or -2. Additions only, which here too
// take units that the multiply-adds leave idle: layers of many tiles took 1.03 to 1.05 of the time (Zen 5).
template <int kPoint>
struct PanelTaps {
  static constexpr int64_t kVector = Vec::width;
  const float *first, *second, *third;
  PanelAhead ahead;
  template <class V>
  FASTNETS_INLINE Vec factor(int64_t at) const {
    const Vec a = Vec::load(first + at), b = Vec::load(second + at), c = Vec::load(third + at);
    if constexpr (kPoint == 1 || kPoint == -1) {
      return kPoint < 0 ? (a + c) - b : (a + c) + b;
    } else {
      const Vec twice = c + c, half = kPoint < 0 ? twice - b : twice + b;
      return (half + half) + a;
    }
  }
  FASTNETS_INLINE void advance(int64_t elements) { first += elements, second += elements, third += elements; }
  FASTNETS_INLINE void fetch(int64_t elements) {
    ahead.fetch(elements * static_cast<int64_t>(sizeof(float)));
  }
};

// The same of kernels of two taps.
template <int kPoint>
struct PanelPair {
  static constexpr int64_t kVector = Vec::width;
  const float *first, *second;
  PanelAhead ahead;
  template <class V>
  FASTNETS_INLINE Vec factor(int64_t at) const {
    const Vec a = Vec::load(first + at), b = Vec::load(second + at);
    if constexpr (kPoint == 1 || kPoint == -1) {
      return kPoint < 0 ? a - b : a + b;
    } else {
      return kPoint < 0 ? a - (b + b) : a + (b + b);
    }
  }
  FASTNETS_INLINE void advance(int64_t elements) { first += elements, second += elements; }
  FASTNETS_INLINE void fetch(int64_t elements) {
    ahead.fetch(elements * static_cast<int64_t>(sizeof(float)));
  }
};

}  // namespace FASTNETS_LEVEL
}  // namespace fastnets
