#include "cpu/nms.h"

#include "cpu/pixel_rows.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

// Box i of a group drops those after it up to `end`.
FASTNETS_INLINE void drop(const NmsCall& c, int64_t i, int64_t end) {
  const float *x1 = c.boxes, *y1 = x1 + c.count, *x2 = y1 + c.count, *y2 = x2 + c.count, *area = y2 + c.count;
  const Vec left = Vec::set(x1[i]), top = Vec::set(y1[i]), right = Vec::set(x2[i]), bottom = Vec::set(y2[i]);
  const Vec own = Vec::set(area[i]), zero = Vec::set(0.0F), one = Vec::set(1.0F),
            limit = Vec::set(c.threshold);
  for (int64_t k = i + 1; k < end; k += Vec::width) {
    const int n = lanes_at(k, end);
    const Vec width = max(zero, min(right, Vec::load(x2 + k, n)) - max(left, Vec::load(x1 + k, n)));
    const Vec height = max(zero, min(bottom, Vec::load(y2 + k, n)) - max(top, Vec::load(y1 + k, n)));
    const Vec both = width * height;
    const Vec overlap = both / (own + Vec::load(area + k, n) - both);
    if_less(limit, overlap, one, Vec::load(c.dropped + k, n)).store(c.dropped + k, n);
  }
}

}  // namespace
}  // namespace FASTNETS_LEVEL

void FASTNETS_ENTRY(nms)(const NmsCall& c, ThreadContext& context) {
  using namespace FASTNETS_LEVEL;
  for (int64_t group; next_item(context, c.groups, group);) {
    for (int64_t i = c.starts[group]; i < c.starts[group + 1]; ++i) {
      if (c.dropped[i] == 0.0F) drop(c, i, c.starts[group + 1]);
    }
  }
  finish(context);
}

}  // namespace fastnets
