// Weights of a gathered product, packed so that a kernel reads them in order.
#pragma once

#include <cstdint>

#include "common/element.h"

namespace fastnets {

// weight[group][cin][cout][tap] at any strides, in elements.
struct ProductWeights {
  const void* data;
  Element element;
  int64_t groups, cin, cout, taps;
  int64_t stride[4];
};

// Packed: [group][block][tap][cin / steps][lanes][steps], where a block is `lanes` output channels and
// `steps` is conv_steps(element); the last channels, of both, are padded with 0.
int64_t panel_elements(const ProductWeights& w, int64_t lanes, int64_t steps);
void pack_panels(const ProductWeights& w, int64_t lanes, int64_t steps, void* to);

}  // namespace fastnets
