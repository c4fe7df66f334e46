// Weights of a gathered product, packed so that a kernel reads them in order.
#pragma once

#include <cstdint>

namespace fastnets {

// weight[group][cin][cout][tap] at any strides, in floats.
struct ProductWeights {
  const float* data;
  int64_t groups, cin, cout, taps;
  int64_t stride[4];
};

// Packed: [group][block][tap][cin][lanes], where a block is `lanes` output channels; the last is padded with
// 0.
int64_t panel_floats(const ProductWeights& w, int64_t lanes);
void pack_panels(const ProductWeights& w, int64_t lanes, float* to);

}  // namespace fastnets
