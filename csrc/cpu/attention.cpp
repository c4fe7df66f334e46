// Attention by blocks of keys (Dao et al., 2022): a few rows of queries times a block of keys give scores
// that stay in L1; their exponentials times the values are added to the result, which is scaled where a later
// block has a larger score.
#include "cpu/attention.h"

#include <limits>

#include "cpu/lane_sums.h"
#include "cpu/value_products.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

constexpr int64_t kMostKeys = 256;  // of a block
constexpr int64_t kRowVectors = (kMaxRows + Vec::width - 1) / Vec::width;
constexpr int64_t kPaddedRows = kRowVectors * Vec::width;  // a number a row, in whole vectors

// Queries that share a packed block of keys: as many as leave this number of items, between these limits.
constexpr int64_t kItems = 16, kQueries = 512, kLeastQueries = 4 * kMaxRows;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Plan {
  const AttentionCall& call;
  int64_t heads;          // of all images and groups
  int64_t chunk, chunks;  // queries of an item, items of a head
  int64_t block;          // keys
  int64_t deep, wide;     // depth and width in whole vectors

  explicit Plan(const AttentionCall& c) : call(c) {
    heads = c.batch[0] * c.batch[1] * c.batch[2];
    const int64_t parts = (kItems + heads - 1) / heads;
    chunk = least(kQueries, (c.queries + parts - 1) / parts);
    if (chunk < kLeastQueries) chunk = kLeastQueries;
    chunk = least(chunk, c.queries);
    chunks = (c.queries + chunk - 1) / chunk;
    block = least(c.keys, kMostKeys);
    deep = whole_vectors(c.depth), wide = whole_vectors(c.width);
  }
  int64_t padded_block() const { return whole_vectors(block); }
  int64_t row_floats() const { return kMaxRows * (deep + 2 * padded_block()); }
  int64_t private_bytes() const {
    return slice_bytes<float>(c_floats()) + slice_bytes<float>(row_floats()) +
           slice_bytes<float>(chunk * wide) + 2 * slice_bytes<float>(groups() * kPaddedRows);
  }
  int64_t groups() const { return EvenRows(chunk).parts; }

 private:
  int64_t c_floats() const { return padded_block() * deep + block * wide; }
};

// Memory of a thread.
struct Own {
  float *keys, *values;         // panels: [panel][depth][lanes], [panel][key][lanes]
  float *q, *scores, *weights;  // of a group of rows: [block][row][lanes], [panel][row][lanes], as q
  float *sum, *most, *total;    // of all groups: [panel][row][lanes], the largest score, the sum of weights
  explicit Own(const Plan& plan, Arena arena) {
    const int64_t padded = plan.padded_block();
    keys = arena.take<float>(padded * plan.deep + plan.block * plan.wide);
    values = keys + padded * plan.deep;
    q = arena.take<float>(plan.row_floats());
    scores = q + kMaxRows * plan.deep, weights = scores + kMaxRows * padded;
    sum = arena.take<float>(plan.chunk * plan.wide);
    most = arena.take<float>(plan.groups() * kPaddedRows);
    total = arena.take<float>(plan.groups() * kPaddedRows);
  }
};

// What an item reads and writes: the rows of one head.
template <class T>
struct Head {
  const T *q, *k, *v;
  T* y;
  int64_t index[3];
  Head(const AttentionCall& call, int64_t number) {
    for (int i = 2; i >= 0; --i) index[i] = number % call.batch[i], number /= call.batch[i];
    q = at<const T>(call.q), k = at<const T>(call.k), v = at<const T>(call.v), y = at<T>(call.y);
  }
  template <class To, class Void>
  To* at(const HeadRows<Void>& rows) const {
    int64_t offset = 0;
    for (int i = 0; i < 3; ++i) offset += index[i] * rows.stride[i];
    return static_cast<To*>(rows.data) + offset;
  }
};

// Lane i is the largest lane of v[i].
FASTNETS_INLINE Vec lane_maxima(Vec (&v)[Vec::width]) {
  transpose(v);
  Vec most = v[0];
  for (int i = 1; i < Vec::width; ++i) most = max(v[i], most);
  return most;
}

// e^v for v <= 0, and 0 where that is nothing beside 1: sums of what is left would be denormal, which takes
// 100 times as long. Masks of -100 made windows of 343 keys take 3 to 6 times the time.
FASTNETS_INLINE Vec weight_of(Vec v) { return if_less(v, Vec::set(-64.0F), Vec::set(0.0F), exp(v)); }

// A vector of scores, (row, from key `key` on), times the scale and with the terms.
FASTNETS_INLINE Vec with_terms(Vec score, Vec scale, const ScoreTerm* terms, const void* const* row,
                               int64_t key, int lanes) {
  score = score * scale;
  for (int i = 0; i < 2; ++i) {
    if (row[i] == nullptr) continue;
    with_element(terms[i].element, [&](auto zero) {
      score = score + load_lanes(static_cast<const decltype(zero)*>(row[i]) + key, lanes);
    });
  }
  return score;
}

template <class T>
class Item {
 public:
  Item(const Plan& plan, const Own& own, int64_t number)
      : plan_(plan), call_(plan.call), own_(own), head_(plan.call, number / plan.chunks) {
    first_ = number % plan.chunks * plan.chunk;
    queries_ = least(plan.chunk, call_.queries - first_);
    scale_ = call_.scale[head_.index[2]];
    for (int i = 0; i < 2; ++i) {
      const ScoreTerm& term = call_.terms[i];
      term_[i] = nullptr;
      if (term.rows.data == nullptr) continue;
      with_element(term.element, [&](auto zero) {
        term_[i] = head_.template at<const decltype(zero)>(term.rows) + first_ * term.rows.stride[3];
      });
    }
  }

  void run() {
    const EvenRows groups(queries_);
    for (int64_t key = 0; key < call_.keys; key += plan_.block) {
      const int64_t keys = least(plan_.block, call_.keys - key);
      pack_columns(head_.k + key * call_.k.stride[3], call_.k.stride[3], keys, call_.depth, own_.keys);
      pack_rows(head_.v + key * call_.v.stride[3], call_.v.stride[3], keys, call_.width, kLanes, own_.values);
      for (int64_t g = 0; g < groups.parts; ++g) {
        add_block(g, groups.begin(g), groups.begin(g + 1) - groups.begin(g), key, keys);
      }
    }
    for (int64_t g = 0; g < groups.parts; ++g) {
      store(g, groups.begin(g), groups.begin(g + 1) - groups.begin(g));
    }
  }

 private:
  // Of group `g`, `rows` queries from `row` on, what `keys` keys from `key` on add.
  void add_block(int64_t g, int64_t row, int64_t rows, int64_t key, int64_t keys) {
    pack_rows(head_.q + (first_ + row) * call_.q.stride[3], call_.q.stride[3], rows, call_.depth, Vec::width,
              own_.q);
    multiply(own_.q, rows, call_.depth, own_.keys, keys, false, own_.scores);
    float* const sum = own_.sum + row * plan_.wide;
    weigh(row, rows, key, keys, own_.most + g * kPaddedRows, own_.total + g * kPaddedRows, sum);
    multiply(own_.weights, rows, keys, own_.values, call_.width, key > 0, sum);
  }

  // The scores of a block become weights: exponentials of their distance from the largest so far, which
  // what earlier blocks summed is scaled to.
  void weigh(int64_t row, int64_t rows, int64_t key, int64_t keys, float* most, float* total, float* sum) {
    const Vec none = Vec::set(-kInfinity), zero = Vec::set(0.0F), scale = Vec::set(scale_);
    Vec largest[kRowVectors][Vec::width], added[kRowVectors][Vec::width];
    for (int64_t r = 0; r < kPaddedRows; ++r) {
      largest[r / Vec::width][r % Vec::width] = none, added[r / Vec::width][r % Vec::width] = zero;
    }
    for (int64_t r = 0; r < rows; ++r) {
      const void* const term[2] = {term_row(0, row + r, key), term_row(1, row + r, key)};
      Vec most_of_row = none;
      each_key(rows, r, keys, [&](float* score, float*, int64_t at, int lanes) {
        const Vec v =
            first_lanes(with_terms(Vec::load(score), scale, call_.terms, term, at, lanes), lanes, none);
        v.store(score);
        most_of_row = max(v, most_of_row);
      });
      largest[r / Vec::width][r % Vec::width] = most_of_row;
    }
    alignas(kAlignment) float subtracted[kPaddedRows], scaled[kPaddedRows];
    for (int64_t part = 0; part < kRowVectors; ++part) {
      const int64_t r = part * Vec::width;
      const Vec old = key == 0 ? none : Vec::load(most + r), now = max(old, lane_maxima(largest[part]));
      const Vec finite = max(now, Vec::set(-std::numeric_limits<float>::max()));  // inf - inf is NaN
      now.store(most + r), finite.store(subtracted + r);
      weight_of(old - finite).store(scaled + r);
    }
    for (int64_t r = 0; r < rows; ++r) {
      const Vec less = Vec::set(subtracted[r]);
      Vec sum_of_row = zero;
      each_key(rows, r, keys, [&](const float* score, float* weight, int64_t, int) {
        const Vec e = weight_of(Vec::load(score) - less);
        e.store(weight);
        sum_of_row = sum_of_row + e;
      });
      added[r / Vec::width][r % Vec::width] = sum_of_row;
      if (key > 0) scale_row(sum, rows, r, Vec::set(scaled[r]));
    }
    for (int64_t part = 0; part < kRowVectors; ++part) {
      const int64_t r = part * Vec::width;
      const Vec old = key == 0 ? zero : Vec::load(total + r);
      fma(old, Vec::load(scaled + r), lane_sums(added[part])).store(total + r);
    }
  }

  // body(scores, weights, first key, lanes) for each vector of keys of row `r`.
  template <class Body>
  FASTNETS_INLINE void each_key(int64_t rows, int64_t r, int64_t keys, const Body& body) {
    for (int64_t first = 0; first < keys; first += kLanes) {
      const int64_t count = least(kLanes, keys - first), lanes = whole_vectors(count);
      each_vector(count, [&](int64_t i, int n) {
        body(own_.scores + first * rows + r * lanes + i, own_.weights + (first + i) * rows + r * Vec::width,
             first + i, n);
      });
    }
  }

  // The row of a term for query `row` of the item, from key `key` on, or null.
  FASTNETS_INLINE const void* term_row(int number, int64_t row, int64_t key) const {
    const ScoreTerm& term = call_.terms[number];
    if (term.rows.data == nullptr) return nullptr;
    return static_cast<const char*>(term_[number]) +
           (row * term.rows.stride[3] + key) * element_bytes(term.element);
  }

  // body(vector, first element, lanes) for each vector of what row `r` of a group sums to.
  template <class Body>
  FASTNETS_INLINE void each_sum(float* sum, int64_t rows, int64_t r, const Body& body) {
    for (int64_t first = 0; first < call_.width; first += kLanes) {
      const int64_t count = least(kLanes, call_.width - first), lanes = whole_vectors(count);
      each_vector(count, [&](int64_t i, int n) { body(sum + first * rows + r * lanes + i, first + i, n); });
    }
  }

  void scale_row(float* sum, int64_t rows, int64_t r, Vec factor) {
    each_sum(sum, rows, r, [&](float* v, int64_t, int) { (Vec::load(v) * factor).store(v); });
  }

  // Of group `g`, `rows` queries from `row` on. Where all scores are -infinity the result is 0.
  void store(int64_t g, int64_t row, int64_t rows) {
    float* const sum = own_.sum + row * plan_.wide;
    alignas(kAlignment) float inverse[kPaddedRows];
    for (int64_t r = 0; r < kPaddedRows; r += Vec::width) {
      const Vec most = Vec::load(own_.most + g * kPaddedRows + r), zero = Vec::set(0.0F);
      const Vec total = Vec::load(own_.total + g * kPaddedRows + r);
      if_less(most, Vec::set(-std::numeric_limits<float>::max()), zero, Vec::set(1.0F) / total)
          .store(inverse + r);
    }
    for (int64_t r = 0; r < rows; ++r) {
      T* const y = head_.y + (first_ + row + r) * call_.y.stride[3];
      const Vec factor = Vec::set(inverse[r]);
      each_sum(sum, rows, r, [&](const float* v, int64_t i, int lanes) {
        store_lanes(Vec::load(v) * factor, y + i, lanes);
      });
    }
  }

  const Plan& plan_;
  const AttentionCall& call_;
  const Own& own_;
  const Head<T> head_;
  const void* term_[2];
  int64_t first_, queries_;
  float scale_;
};

template <class T>
void run_items(const AttentionCall& call, void* scratch, ThreadContext& context) {
  const Plan plan(call);
  const Own own(plan, Arena(scratch, context.thread * plan.private_bytes()));
  for (int64_t i; next_item(context, plan.heads * plan.chunks, i);) Item<T>(plan, own, i).run();
}

}  // namespace
}  // namespace FASTNETS_LEVEL

int64_t FASTNETS_ENTRY(attention_scratch)(const AttentionCall& call, int threads) {
  return threads * FASTNETS_LEVEL::Plan(call).private_bytes();
}

void FASTNETS_ENTRY(attention)(const AttentionCall& call, void* scratch, ThreadContext& context) {
  using namespace FASTNETS_LEVEL;
  with_element(call.element, [&](auto zero) { run_items<decltype(zero)>(call, scratch, context); });
  finish(context);
}

}  // namespace fastnets
