// An item is a block of rows and of columns of one product. Pieces of the depth add to sums that stay in L2.
#include "cpu/matmul.h"

#include "cpu/value_products.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

constexpr int64_t kBlockRows = 8 * kMaxRows, kBlockColumns = 256, kDepthPiece = 256;

struct Plan {
  const MatmulCall& call;
  int64_t products;       // of all batches
  int64_t rows, columns;  // of a block
  int64_t across, down;   // blocks of a product
  int64_t depth;          // of a piece

  explicit Plan(const MatmulCall& c) : call(c) {
    products = c.batch[0] * c.batch[1] * c.batch[2];
    rows = least(c.rows, kBlockRows), columns = least(c.columns, kBlockColumns);
    down = (c.rows + rows - 1) / rows, across = (c.columns + columns - 1) / columns;
    depth = least(c.depth, kDepthPiece);
  }
  int64_t private_bytes() const {
    return slice_bytes<float>(whole_vectors(columns) * whole_vectors(depth)) +
           slice_bytes<float>(kMaxRows * whole_vectors(depth)) +
           slice_bytes<float>(rows * whole_vectors(columns));
  }
};

// Memory of a thread: panels of b and of a few rows, and sums [panel][row][lanes] of each group of rows.
struct Own {
  float *b, *a, *sum;
  Own(const Plan& plan, Arena arena)
      : b(arena.take<float>(whole_vectors(plan.columns) * whole_vectors(plan.depth))),
        a(arena.take<float>(kMaxRows * whole_vectors(plan.depth))),
        sum(arena.take<float>(plan.rows * whole_vectors(plan.columns))) {}
};

template <class To, class Void>
FASTNETS_INLINE To* at(const MatmulCall& call, const Matrices<Void>& x, int64_t product, int64_t row,
                       int64_t column) {
  int64_t offset = row * x.stride[3] + column * x.stride[4];
  for (int i = 2; i >= 0; --i) offset += product % call.batch[i] * x.stride[i], product /= call.batch[i];
  return static_cast<To*>(x.data) + offset;
}

// The sums of a group of rows to y.
template <class T>
void store(const float* sum, int64_t rows, int64_t columns, T* y, int64_t stride) {
  for (int64_t first = 0; first < columns; first += kLanes) {
    const int64_t count = least(kLanes, columns - first), lanes = whole_vectors(count);
    for (int64_t r = 0; r < rows; ++r, sum += lanes) {
      each_vector(count,
                  [&](int64_t i, int n) { store_lanes(Vec::load(sum + i), y + r * stride + first + i, n); });
    }
  }
}

template <class T>
void run_item(const Plan& plan, const Own& own, int64_t item) {
  const MatmulCall& c = plan.call;
  const int64_t product = item / (plan.down * plan.across), block = item % (plan.down * plan.across);
  const int64_t row = block / plan.across * plan.rows, column = block % plan.across * plan.columns;
  const int64_t columns = least(plan.columns, c.columns - column);
  const EvenRows groups(least(plan.rows, c.rows - row));
  for (int64_t k = 0; k < c.depth; k += plan.depth) {
    const int64_t depth = least(plan.depth, c.depth - k);
    const T* const b = at<const T>(c, c.b, product, k, column);
    if (c.b.stride[4] == 1) {
      pack_rows(b, c.b.stride[3], depth, columns, kLanes, own.b);
    } else {
      pack_columns(b, c.b.stride[4], columns, depth, own.b);
    }
    for (int64_t g = 0; g < groups.parts; ++g) {
      const int64_t first = groups.begin(g), rows = groups.begin(g + 1) - first;
      pack_rows(at<const T>(c, c.a, product, row + first, k), c.a.stride[3], rows, depth, Vec::width, own.a);
      multiply(own.a, rows, depth, own.b, columns, k > 0, own.sum + first * whole_vectors(plan.columns));
    }
  }
  for (int64_t g = 0; g < groups.parts; ++g) {
    const int64_t first = groups.begin(g), rows = groups.begin(g + 1) - first;
    store(own.sum + first * whole_vectors(plan.columns), rows, columns,
          at<T>(c, c.y, product, row + first, column), c.y.stride[3]);
  }
}

template <class T>
void run_items(const MatmulCall& call, void* scratch, ThreadContext& context) {
  const Plan plan(call);
  const Own own(plan, Arena(scratch, context.thread * plan.private_bytes()));
  for (int64_t i; next_item(context, plan.products * plan.down * plan.across, i);) run_item<T>(plan, own, i);
}

}  // namespace
}  // namespace FASTNETS_LEVEL

int64_t FASTNETS_ENTRY(matmul_scratch)(const MatmulCall& call, int threads) {
  return threads * FASTNETS_LEVEL::Plan(call).private_bytes();
}

void FASTNETS_ENTRY(matmul)(const MatmulCall& call, void* scratch, ThreadContext& context) {
  using namespace FASTNETS_LEVEL;
  with_element(call.element, [&](auto zero) { run_items<decltype(zero)>(call, scratch, context); });
  finish(context);
}

}  // namespace fastnets
