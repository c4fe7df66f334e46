#include "cpu/window_accumulate.h"

#include "cpu/vec.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

// Output rows are dealt to threads in blocks of this many: block b belongs to thread b % threads, so that an
// element has one owner, who adds the windows in their order. Hence overlapping windows of a batch never
// race, and the result does not depend on the number of threads.
constexpr int64_t kRows = 4;

FASTNETS_INLINE void accumulate_line(float* out, const float* window, const float* weights, float scale,
                                     float floor, int64_t length) {
  const Vec s = Vec::set(scale), lowest = Vec::set(floor);
  int64_t i = 0;
  for (; i + Vec::width <= length; i += Vec::width) {
    const Vec weight = max(s * Vec::load(weights + i), lowest);
    fma(Vec::load(window + i), weight, Vec::load(out + i)).store(out + i);
  }
  if (i < length) {
    const int n = static_cast<int>(length - i);
    const Vec weight = max(s * Vec::load(weights + i, n), lowest);
    fma(Vec::load(window + i, n), weight, Vec::load(out + i, n)).store(out + i, n);
  }
}

// One z plane of the windows [from, to), which have the same image, z and y: of their rows those that
// `thread` owns. Row by row rather than window by window, so that an output row stays in L1 for the windows
// that overlap along x. `first` numbers the rows by their position in the output plane.
FASTNETS_INLINE void accumulate_plane(const WindowBatch& b, int64_t from, int64_t to, int64_t line, int64_t z,
                                      int64_t first, int thread, int threads) {
  const int64_t* start = b.starts + 4 * from;
  float* plane =
      b.out + start[0] * b.out_image + line * b.out_line + (start[1] + z) * b.out_z + start[2] * b.out_y;
  const float* windows = b.windows + line * b.window_line + z * b.window_z;
  const int64_t block = first / kRows;
  const int64_t ahead = (thread - block % threads + threads) % threads;
  for (int64_t mine = block + ahead; mine * kRows < first + b.height; mine += threads) {
    const int64_t low = mine * kRows > first ? mine * kRows - first : 0;
    const int64_t high = (mine + 1) * kRows < first + b.height ? (mine + 1) * kRows - first : b.height;
    for (int64_t y = low; y < high; ++y) {
      const float scale = b.weight_z[z] * b.weight_y[y];
      const float* weights = b.weight_rows + z * b.rows_z + y * b.rows_y;
      for (int64_t i = from; i < to; ++i) {
        accumulate_line(plane + y * b.out_y + b.starts[4 * i + 3] * b.out_x,
                        windows + i * b.window + y * b.window_y, weights, scale, b.floor, b.length);
      }
    }
  }
}

// The end of the run of windows from `i` on that differ along x only.
FASTNETS_INLINE int64_t end_of_run(const WindowBatch& b, int64_t i) {
  const int64_t* first = b.starts + 4 * i;
  int64_t end = i + 1;
  for (; end < b.count; ++end) {
    const int64_t* next = b.starts + 4 * end;
    if (next[0] != first[0] || next[1] != first[1] || next[2] != first[2]) break;
  }
  return end;
}

}  // namespace
}  // namespace FASTNETS_LEVEL

// Rows are owned, not claimed: see kRows.
void FASTNETS_ENTRY(window_accumulate)(const WindowBatch& b, ThreadContext& context) {
  using namespace FASTNETS_LEVEL;
  for (int64_t from = 0, to = 0; from < b.count; from = to) {
    to = end_of_run(b, from);
    const int64_t* start = b.starts + 4 * from;
    for (int64_t line = 0; line < b.lines; ++line) {
      for (int64_t z = 0; z < b.depth; ++z) {
        // Planes and lines are turned against each other, so that a flat window still fills every thread.
        const int64_t turn = (start[1] + z + line) % context.threads;
        accumulate_plane(b, from, to, line, z, start[2] + turn * kRows, context.thread, context.threads);
      }
    }
  }
  finish(context);
}

}  // namespace fastnets
