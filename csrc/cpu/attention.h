// softmax(q k^T * scale + bias + mask) v, of each head of each image: the scores never lie in memory as a
// whole.
#pragma once

#include "common/element.h"
#include "common/threads.h"
#include "cpu/isa.h"

namespace fastnets {

// Rows of a head, at data + the sum of index * stride over (group, image, head, row); their elements lie
// together.
template <class Void>
struct HeadRows {
  Void* data;
  int64_t stride[4];
};

// What is added to the scores: (group, image, head, query, key), of its own element. Null: nothing.
struct ScoreTerm {
  HeadRows<const void> rows;
  Element element;
};

struct AttentionCall {
  HeadRows<const void> q, k, v;
  HeadRows<void> y;
  Element element;
  int64_t batch[3];                     // groups, images, heads
  int64_t queries, keys, depth, width;  // depth: of q and k; width: of v and y
  const float* scale;                   // one a head
  ScoreTerm terms[2];
};

// `scratch` holds attention_scratch(call, threads) bytes.
FASTNETS_DECLARE(int64_t, attention_scratch, (const AttentionCall& call, int threads));
FASTNETS_DECLARE(void, attention, (const AttentionCall& call, void* scratch, ThreadContext& context));

}  // namespace fastnets
