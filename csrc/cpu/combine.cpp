#include "cpu/combine.h"

#include "cpu/pixel_rows.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

template <Combine kind>
FASTNETS_INLINE Vec join(Vec x, Vec other) {
  if (kind == Combine::add) return x + other;
  if (kind == Combine::multiply) return x * other;
  if (kind == Combine::subtract) return x - other;
  if (kind == Combine::divide) return x / other;
  return if_less(x, Vec::set(0.0F), x * other, x);
}

template <Combine kind, class T>
FASTNETS_INLINE void join_run(const CombineCall& c, const T* x, const T* other, T* y, int64_t n) {
  const Clamp clamp(c.epilogue);
  const bool one = c.one_channel;
  const Vec same = Vec::set(one ? value_of(*other) : 0.0F);
  for (int64_t i = 0; i < n; i += Vec::width) {
    const int lanes = lanes_at(i, n);
    const Vec v = join<kind>(Vec::load(x + i, lanes), one ? same : Vec::load(other + i, lanes));
    clamp(v).store(y + i, lanes);
  }
  if (clamp.more) activate_row(y, n, c.epilogue);
}

// Where all three are dense along the row, it is one run, up to what L1 holds.
template <Combine kind, class T>
void join_row(const CombineCall& c, const T* x, const T* other, T* y) {
  const int64_t channels = c.x.channels, width = c.x.size[2];
  const bool dense = c.x.stride[3] == channels && c.other.stride[3] == channels && c.y.stride[3] == channels;
  const int64_t step = dense && !c.one_channel ? (1024 + channels - 1) / channels : 1;
  for (int64_t i = 0; i < width; i += step) {
    const int64_t pixels = width - i < step ? width - i : step;
    join_run<kind>(c, x + i * c.x.stride[3], other + i * c.other.stride[3], y + i * c.y.stride[3],
                   pixels * channels);
  }
}

template <class T>
void join_rows(const CombineCall& c, ThreadContext& context) {
  const int64_t height = c.y.size[1], depth = c.y.size[0];
  for (int64_t i; next_item(context, c.y.batch * depth * height, i);) {
    const int64_t n = i / (depth * height), z = i / height % depth, row = i % height;
    const T *x = row_of<T>(c.x, n, z, row), *other = row_of<T>(c.other, n, z, row);
    T* y = row_of<T>(c.y, n, z, row);
    if (c.kind == Combine::add) join_row<Combine::add>(c, x, other, y);
    if (c.kind == Combine::multiply) join_row<Combine::multiply>(c, x, other, y);
    if (c.kind == Combine::prelu) join_row<Combine::prelu>(c, x, other, y);
    if (c.kind == Combine::subtract) join_row<Combine::subtract>(c, x, other, y);
    if (c.kind == Combine::divide) join_row<Combine::divide>(c, x, other, y);
  }
}

}  // namespace
}  // namespace FASTNETS_LEVEL

void FASTNETS_ENTRY(combine)(const CombineCall& c, ThreadContext& context) {
  using namespace FASTNETS_LEVEL;
  with_element(c.y.element, [&](auto zero) { join_rows<decltype(zero)>(c, context); });
  finish(context);
}

}  // namespace fastnets
