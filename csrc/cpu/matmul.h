// Products of matrices that are both values of a network.
#pragma once

#include "common/element.h"
#include "common/threads.h"
#include "cpu/isa.h"

namespace fastnets {

// (batch of three axes, row, column), at data + the sum of index * stride.
template <class Void>
struct Matrices {
  Void* data;
  int64_t stride[5];
};

struct MatmulCall {
  Matrices<const void> a;  // whose columns are adjacent
  Matrices<const void> b;  // whose columns or rows are
  Matrices<void> y;        // whose columns are
  Element element;
  int64_t batch[3];
  int64_t rows, depth, columns;
};

// `scratch` holds matmul_scratch(call, threads) bytes.
FASTNETS_DECLARE(int64_t, matmul_scratch, (const MatmulCall& call, int threads));
FASTNETS_DECLARE(void, matmul, (const MatmulCall& call, void* scratch, ThreadContext& context));

}  // namespace fastnets
