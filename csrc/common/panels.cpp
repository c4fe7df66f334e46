#include "common/panels.h"

namespace fastnets {
namespace {

int64_t padded(int64_t count, int64_t multiple) { return (count + multiple - 1) / multiple * multiple; }

template <class T>
void pack(const ProductWeights& w, const ProductPacking& packing, T* to) {
  const int64_t lanes = packing.lanes, steps = packing.steps;
  for (int64_t g = 0; g < w.groups; ++g) {
    for (int64_t first = 0; first < w.cout; first += lanes) {
      for (int64_t tap = 0; tap < w.taps; ++tap) {
        const T* from = static_cast<const T*>(w.data) + g * w.stride[0] + tap * w.stride[3];
        for (int64_t pair = 0; pair < padded(w.cin, packing.depth); pair += steps) {
          for (int64_t co = first; co < first + lanes; ++co) {
            for (int64_t ci = pair; ci < pair + steps; ++ci) {
              *to++ = co < w.cout && ci < w.cin ? from[ci * w.stride[1] + co * w.stride[2]] : T{};
            }
          }
        }
      }
    }
  }
}

}  // namespace

int64_t panel_elements(const ProductWeights& w, const ProductPacking& packing) {
  return w.groups * padded(w.cout, packing.lanes) * w.taps * padded(w.cin, packing.depth);
}

void pack_panels(const ProductWeights& w, const ProductPacking& packing, void* to) {
  with_element(w.element, [&](auto zero) { pack(w, packing, static_cast<decltype(zero)*>(to)); });
}

}  // namespace fastnets
