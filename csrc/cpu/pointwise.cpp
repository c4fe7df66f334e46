#include "cpu/pointwise.h"

#include "cpu/activation.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

constexpr int64_t kBlock = 1 << 13;  // floats an item: 32 KiB, half of L1 where x and y differ

}  // namespace
}  // namespace FASTNETS_LEVEL

void FASTNETS_ENTRY(pointwise)(const PointwiseCall& call, ThreadContext& context) {
  using namespace FASTNETS_LEVEL;
  for (int64_t i; (i = next_item(context) * kBlock) < call.count;) {
    const int64_t size = call.count - i < kBlock ? call.count - i : kBlock;
    if (call.y != call.x) std::memcpy(call.y + i, call.x + i, sizeof(float) * static_cast<size_t>(size));
    activate_row(call.y + i, size, call.epilogue);
  }
  finish(context);
}

}  // namespace fastnets
