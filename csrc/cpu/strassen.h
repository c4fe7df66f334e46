// Strassen's product of the rows of a block with a pair of panels, in Winograd's form (15 additions): seven
// products of half the rows, half the columns and one panel each, instead of eight. Included by kernel files
// only.
//
//   A = A11 A12   B = B11 B12   S1 = A21 + A22   T1 = B12 - B11   P1 = A11 B11   P5 = S1 T1
//       A21 A22       B21 B22   S2 = S1 - A11    T2 = B22 - T1    P2 = A12 B21   P6 = S2 T2
//                               S3 = A11 - A21   T3 = B22 - B12   P3 = S4 B22    P7 = S3 T3
//                               S4 = A12 - S2    T4 = T2 - B21    P4 = A22 T4
//
//   C11 = P1 + P2   C12 = P1 + P6 + P5 + P3   C21 = P1 + P6 + P7 - P4   C22 = P1 + P6 + P7 + P5
//
// (Higham, Accuracy and Stability of Numerical Algorithms, section 23.1.) A11 and A21 have whole blocks of
// columns, A12 and A22 the rest, where T1 counts as zero. S1 to S4 are made once a block. T1 to T4 are made
// by the first rows that need them, so packed weights are those of the plain product; made before (four
// loads, subtractions and stores a vector), they cost 4 to 7 % of the time. The rows that follow fetch the
// next pair of panels meanwhile: layers with weights from memory took 0.93 to 0.99 of the time (Zen 5). Sums
// of products are what the next product begins with. Long rows are cut into pieces, each of which is a
// product of its own that is added to those before it.
//
// Rounding errors are a few times those of the plain product, of the largest values in a block: pixels that
// are paired with much larger ones lose digits, and a value that is not finite reaches the pixel that its own
// is paired with.
#pragma once

#include "common/scratch.h"
#include "cpu/products.h"

namespace fastnets {
namespace FASTNETS_LEVEL {

// The first panel of a chunk of them: in pairs, so that those do not depend on how many chunks threads ask
// for.
FASTNETS_INLINE int64_t first_panel(int64_t panels, int64_t chunk, int64_t chunks, bool in_pairs) {
  return in_pairs ? least(panels, (panels + 1) / 2 * chunk / chunks * 2) : panels * chunk / chunks;
}

// kPacked: how the rows of A lie, as in accumulate. Memory of a thread. In float32: with sums rounded to
// bfloat16, errors were 3.6 times those of the plain product, and it took 1.1 to 1.25 of the time (Zen 5).
template <bool kPacked>
class Strassen {
 public:
  static FASTNETS_INLINE int64_t bytes(int64_t depth, int64_t rows) {
    const int64_t right = most_right(depth);
    return slice_bytes<float>(4 * sum_elements(right, rows)) + slice_bytes<float>(4 * right * kLanes) +
           slice_bytes<float>(4 * kPanel);
  }

  // For at most `rows` rows of `depth` columns, in whole factors.
  FASTNETS_INLINE Strassen(int64_t depth, int64_t rows, Arena arena)
      : depth_(depth),
        sum_elements_(sum_elements(most_right(depth), rows)),
        sum_stride_(stride_of(rows)),
        sum_(arena.take<float>(4 * sum_elements_)),
        weights_(arena.take<float>(4 * most_right(depth) * kLanes)),
        panels_(arena.take<float>(4 * kPanel)) {}

  // The product of `count` rows with the panels [from, to) of weights packed by pack_product, in pairs from
  // the first on. target: where the first of its `lanes` channels go. How many panels are done: all but those
  // that are no pair of whole ones; none of too small an A.
  int64_t multiply(Rows<float> rows, int64_t count, const float* weights, int64_t from, int64_t to,
                   const Target<float>& target, const Epilogue& epilogue) {
    const int64_t pairs = (least(to, target.lanes / kLanes) - from) / 2, pieces = pieces_of(depth_);
    const float* const a = rows.a;
    if (pairs <= 0 || depth_ < 2 * kColumns || count < 2) return 0;
    for (int64_t piece = 0; piece < pieces; ++piece) {
      const int64_t begin = piece_begin(depth_, piece), end = piece_begin(depth_, piece + 1);
      const PieceTarget<float> into(target, epilogue, piece == 0, piece + 1 == pieces);
      right_ = right_columns(end - begin), left_ = end - begin - right_;
      rows.a = a + begin / kColumns * rows.block_stride;
      set_rows(rows, count);
      target_ = into.target, target_.lanes = kLanes;
      y_offset_ = target_.y_offset, residual_offset_ = target_.residual_offset;
      const float* const next =
          piece + 1 == pieces ? nullptr : weights + from * kLanes * depth_ + end * kLanes;
      multiply_pairs(weights + begin * kLanes, from, pairs, next, target.channel, into.epilogue);
    }
    return 2 * pairs;
  }

 private:
  // Columns of a piece at most: L2 holds their sums and those of a pair of panels beside the rows. Against
  // whole rows, 1024 channels at 14x14 took 0.79 of the time, Xception 0.93, Inception-ResNet 0.95; 256 and
  // 384 are as fast (Emerald Rapids, L2 of 2 MiB).
  static constexpr int64_t kPieceDepth = 512;
  static constexpr int64_t kColumns = Vec::width, kLanes = kPanelVectors * Vec::width;
  static constexpr int64_t kPanel = kMaxRows * kLanes;
  using Kind = PanelKind<kPanelVectors, Vec>;

  // weights: those of the piece in the first panel. next: those that follow the last pair.
  FASTNETS_INLINE void multiply_pairs(const float* weights, int64_t from, int64_t pairs, const float* next,
                                      int64_t channel, const Epilogue& epilogue) {
    const EvenRows cut(upper_);
    for (int64_t panel = from; panel < from + 2 * pairs; panel += 2) {
      channel_ = channel + panel * kLanes;
      const float* const b = weights + panel * kLanes * depth_;
      next_ = panel + 2 < from + 2 * pairs ? b + 2 * kLanes * depth_ : next;
      fetched_ = 0, fetches_ = 7 * (cut.parts - 1);
      multiply_rows<true>(0, cut.begin(1), b, epilogue);
      for (int64_t part = 1; part < cut.parts; ++part) {
        multiply_rows<false>(cut.begin(part), cut.begin(part + 1) - cut.begin(part), b, epilogue);
      }
    }
  }

  // Takes the rows of A and makes S1 to S4.
  void set_rows(const Rows<float>& rows, int64_t count) {
    rows_ = rows, count_ = count, upper_ = (count + 1) / 2;
    const int64_t to_right = left_ / kColumns * rows.block_stride, to_lower = upper_ * rows.row_stride;
    for (int64_t i = 0; i < upper_; ++i) {
      const bool lower = upper_ + i < count;
      for (int64_t k = 0; k < right_; k += kColumns) {
        const int lanes = static_cast<int>(least(right_ - k, kColumns));
        const bool left = k < left_;
        const float* const a = rows.a + i * rows.row_stride + k / kColumns * rows.block_stride;
        float* const to = sum_ + i * kColumns + k / kColumns * sum_stride_;
        const Vec zero = Vec::set(0.0F);
        const Vec a11 = left ? Vec::load(a) : zero, a12 = load_lanes(a + to_right, lanes);
        const Vec a21 = left && lower ? Vec::load(a + to_lower) : zero;
        const Vec a22 = lower ? load_lanes(a + to_right + to_lower, lanes) : zero;
        const Vec s1 = a21 + a22, s2 = s1 - a11;
        s1.store(to);
        s2.store(to + sum_elements_);
        (a11 - a21).store(to + 2 * sum_elements_);
        (a12 - s2).store(to + 3 * sum_elements_);
      }
    }
  }

  // What the next of the seven products of a part fetches of the pair of panels that follows: a part of the
  // first one or of the other, each of which is twice what a product reads.
  FASTNETS_INLINE PanelAhead ahead() {
    const int64_t bytes = kLanes * (left_ + right_) * static_cast<int64_t>(sizeof(float));
    const int64_t fetch = fetched_++, half = fetches_ / 2;
    if (next_ == nullptr) return {};
    return fetch < half ? PanelAhead(next_, bytes, fetch, half, 2)
                        : PanelAhead(next_ + kLanes * depth_, bytes, fetch - half, fetches_ - half, 2);
  }

  static FASTNETS_INLINE int64_t pieces_of(int64_t depth) { return (depth + kPieceDepth - 1) / kPieceDepth; }
  static FASTNETS_INLINE int64_t piece_begin(int64_t depth, int64_t piece) {
    const int64_t pieces = pieces_of(depth);
    return piece == pieces ? depth : depth * piece / pieces / (2 * kColumns) * (2 * kColumns);
  }
  // Of all pieces.
  static FASTNETS_INLINE int64_t most_right(int64_t depth) {
    int64_t most = 0;
    for (int64_t piece = 0; piece < pieces_of(depth); ++piece) {
      const int64_t right = right_columns(piece_begin(depth, piece + 1) - piece_begin(depth, piece));
      most = right > most ? right : most;
    }
    return most;
  }

  static FASTNETS_INLINE int64_t right_columns(int64_t depth) {
    return depth - depth / (2 * kColumns) * kColumns;
  }
  // An odd number of vectors, so that the columns spread over the cache sets.
  static FASTNETS_INLINE int64_t stride_of(int64_t rows) { return ((rows + 1) / 2 | 1) * kColumns; }
  static FASTNETS_INLINE int64_t sum_elements(int64_t right, int64_t rows) {
    return (right + kColumns - 1) / kColumns * stride_of(rows);
  }

  FASTNETS_INLINE Rows<float> of_a(int64_t row, int64_t column) const {
    return {rows_.a + row * rows_.row_stride + column / kColumns * rows_.block_stride, rows_.block_stride,
            rows_.row_stride};
  }
  FASTNETS_INLINE Rows<float> of_sum(int64_t number, int64_t row, int64_t column = 0) const {
    return {sum_ + (number - 1) * sum_elements_ + row * kColumns + column / kColumns * sum_stride_,
            sum_stride_, kColumns};
  }
  // Where a product of rows goes: changed in place, as a copy would wait for the stores of the one before it.
  FASTNETS_INLINE const Target<float>& at(int64_t row, int64_t channel, const float* before,
                                          const float* also = nullptr) {
    target_.y_offset = y_offset_ + row;
    if (residual_offset_ != nullptr) target_.residual_offset = residual_offset_ + row;
    target_.channel = channel_ + channel;
    target_.before[0] = before, target_.before[1] = also;
    return target_;
  }

  // The rows [row, row + upper) of the upper half, and those of the lower one that they are paired with.
  // kFirst: T1 to T4 are made.
  template <bool kFirst>
  void multiply_rows(int64_t row, int64_t upper, const float* panel, const Epilogue& epilogue) {
    // whole: of `left_` columns or more; the others leave the next pair to them.
    const auto packed = [this](const float* b, bool whole = true) FASTNETS_INLINE_LAMBDA {
      return PackedPanel<float>{b, kFirst || !whole ? PanelAhead(b, kFirst) : ahead()};
    };
    const auto difference = [&](const float* b, const float* minus, float* kept, bool whole = true)
                                FASTNETS_INLINE_LAMBDA {
                                  if constexpr (kFirst) {
                                    return PanelDifference{b, minus, kept};
                                  } else {
                                    return packed(kept, whole);
                                  }
                                };
    const int64_t size = left_ * kLanes, to_right = depth_ * kLanes, rest = right_ - left_;
    const float *const b11 = panel, *const b21 = b11 + size, *const b12 = b11 + to_right,
                       *const b22 = b12 + size;
    float *const t1 = weights_, *const t2 = t1 + size, *const t3 = t2 + size, *const minus_t4 = t3 + size;
    float *const u1 = panels_, *const u2 = u1 + kPanel, *const u3 = u2 + kPanel, *const p5 = u3 + kPanel;
    const int64_t below = upper_ + row, lower = least(upper, count_ - below);

    to_panel<kPacked>(upper, of_a(row, 0), packed(b11), left_, nullptr, u1);
    to_pixels<kPacked>(upper, of_a(row, left_), packed(b21), right_, at(row, 0, u1), epilogue);
    to_panel<true>(upper, of_sum(1, row), difference(b12, b11, t1), left_, nullptr, p5);
    to_panel<true>(upper, of_sum(2, row), difference(b22, t1, t2), left_, u1, u2);
    if (rest > 0) to_panel<true>(upper, of_sum(2, row, left_), packed(b22 + size, false), rest, u2, u2);
    to_pixels<true>(upper, of_sum(4, row), packed(b22), right_, at(row, kLanes, u2, p5), epilogue);
    if (lower <= 0) return;
    to_panel<true>(lower, of_sum(3, row), difference(b22, b12, t3), left_, u2, u3);
    to_pixels<true>(lower, of_sum(3, row), packed(t3, false), 0, at(below, kLanes, u3, p5), epilogue);
    if (rest > 0) {
      to_panel<kPacked>(lower, of_a(below, 2 * left_),
                        difference(b21 + size, b22 + size, minus_t4 + size, false), rest, u3, u3);
    }
    to_pixels<kPacked>(lower, of_a(below, left_), difference(b21, t2, minus_t4), left_, at(below, 0, u3),
                       epilogue);
  }

  template <bool kPackedRows, class Panel>
  static void to_panel(int64_t count, const Rows<float>& rows, const Panel& b, int64_t depth,
                       const float* before, float* c) {
    PanelProducts<Kind, kPackedRows, float, Panel>::of_rows[count - 1](rows, b, depth, before, c);
  }
  template <bool kPackedRows, class Panel>
  static void to_pixels(int64_t count, const Rows<float>& rows, const Panel& b, int64_t depth,
                        const Target<float>& target, const Epilogue& epilogue) {
    PixelProducts<Kind, kPackedRows, float, Panel>::of_rows[count - 1](rows, b, depth, target, epilogue);
  }

  int64_t depth_, left_ = 0, right_ = 0;  // columns: of all rows, and of the halves of a piece
  int64_t sum_elements_, sum_stride_;
  float* sum_;                                                      // S1 to S4, packed
  float* weights_;                                                  // T1, T2, T3 and -T4
  float* panels_;                                                   // P1, then with P6, then with P7; and P5
  Rows<float> rows_{};                                              // A
  Target<float> target_{};                                          // of a product,
  const int64_t *y_offset_ = nullptr, *residual_offset_ = nullptr;  // of the first row,
  int64_t channel_ = 0;                                             // and of the pair of panels
  const float* next_ = nullptr;                                     // the pair of panels that follows
  int64_t fetched_ = 0, fetches_ = 0;                               // parts of it
  int64_t count_ = 0, upper_ = 0;                                   // rows of A, and of its upper half
};

}  // namespace FASTNETS_LEVEL
}  // namespace fastnets
