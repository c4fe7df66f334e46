#include "common/panels.h"

namespace fastnets {

int64_t panel_floats(const ProductWeights& w, int64_t lanes) {
  return w.groups * ((w.cout + lanes - 1) / lanes) * w.taps * w.cin * lanes;
}

void pack_panels(const ProductWeights& w, int64_t lanes, float* to) {
  for (int64_t g = 0; g < w.groups; ++g) {
    for (int64_t first = 0; first < w.cout; first += lanes) {
      for (int64_t tap = 0; tap < w.taps; ++tap) {
        for (int64_t ci = 0; ci < w.cin; ++ci) {
          const float* from = w.data + g * w.stride[0] + ci * w.stride[1] + tap * w.stride[3];
          for (int64_t lane = 0; lane < lanes; ++lane) {
            const int64_t co = first + lane;
            *to++ = co < w.cout ? from[co * w.stride[2]] : 0.0F;
          }
        }
      }
    }
  }
}

}  // namespace fastnets
