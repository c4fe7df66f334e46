// Depthwise convolution: each input channel has `multiplier` outputs of its own. Any kernel, stride and
// dilation.
//
// An item is a block of output rows that read the same few lines of the input, so that these stay in L2 from
// one row to the next. With dilation d, rows d apart share lines: rows are taken in that order.
#include "cpu/depthwise_row.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

constexpr int64_t kLineBytes = 384 << 10;  // of the input lines of a block of rows: less than half of L2
constexpr int64_t kMostPairs = 8;          // of rows in a block: more saves little of the lines at its border

// The numbers 0 to size - 1 in steps: 0, step, 2 step, ..., then 1, 1 + step, ...
struct Interleaved {
  int64_t size, step;
  FASTNETS_INLINE int64_t at(int64_t i) const {
    const int64_t least_count = size / step, longer = size % step;  // phases with one more
    const int64_t in_longer = longer * (least_count + 1);
    if (i < in_longer) return i / (least_count + 1) + i % (least_count + 1) * step;
    i -= in_longer;
    return longer + i / least_count + i % least_count * step;
  }
};

struct Plan {
  RowPlan row;
  Interleaved z;
  // Items: images, by chunks of pairs of rows, of z, and of channels where there are too few rows for the
  // threads
  int64_t y_chunks, z_chunks, channel_chunks;

  Plan(const ConvCall& call, int threads) : row(call) {
    const ConvShape& s = call.shape;
    z = {s.out[0], row.spacing_of(0)};
    const int64_t line_bytes = s.in[2] * s.cin * element_bytes(call.element);
    const int64_t lines = kLineBytes / (line_bytes * s.kernel[0] + 1) - s.kernel[1];
    const int64_t step = (row.paired ? 2 : 1) * s.stride[1] * row.y_spacing / s.dilation[1];  // of a pair
    const int64_t pairs = least(kMostPairs, lines / step < 1 ? 1 : lines / step);
    y_chunks = ceil_div(row.pairs, pairs), z_chunks = channel_chunks = 1;
    if (threads == 1) return;
    const int64_t wanted = 4 * int64_t{threads};  // so that the last one to end is short
    if (items() < wanted) z_chunks = least(s.out[0], ceil_div(wanted, items()));
    if (items() < wanted) y_chunks = least(ceil_div(row.pairs, 2), y_chunks * ceil_div(wanted, items()));
    if (items() < wanted) channel_chunks = least(ceil_div(row.vectors, 4), ceil_div(wanted, items()));
  }
  FASTNETS_INLINE int64_t items() const { return row.s.batch * y_chunks * z_chunks * channel_chunks; }
};

// The vectors [from, to) of a pair of output rows.
template <class T>
void run_pair(const Plan& plan, RowTables<T>& tables, int64_t image, int64_t z, const RowPair& rows,
              int64_t from, int64_t to) {
  const ConvCall& call = plan.row.call;
  const Epilogue& epilogue = call.epilogue;
  const int64_t *stride = call.y_stride, *residual_stride = epilogue.residual_stride;
  tables.find_lines(plan.row, image, z, rows);
  T* const out = static_cast<T*>(call.y) + image * stride[0] + z * stride[1] + rows.y[0] * stride[2];
  const T* residual = static_cast<const T*>(epilogue.residual);
  if (residual != nullptr) {
    residual += image * residual_stride[0] + z * residual_stride[1] + rows.y[0] * residual_stride[2];
  }
  const int64_t spacing = plan.row.spacing, count = rows.y[1] == kOutside ? 1 : 2;
  for (int64_t i = 0; i < plan.row.segments; ++i) {
    const Segment& segment = tables.segment[i];
    const Place<T> place{out + segment.x * stride[3],
                         plan.row.y_spacing * stride[2],
                         spacing * stride[3],
                         kColumns<T>,
                         residual == nullptr ? nullptr : residual + segment.x * residual_stride[3],
                         plan.row.y_spacing * residual_stride[2],
                         spacing * residual_stride[3],
                         false,
                         call.stream};
    run(plan.row, tables, i, count == 2, from, to, place, epilogue);
  }
  if (!Clamp(epilogue).more) return;
  const int64_t lane = from * Vec::width, lanes = least(plan.row.s.cout, to * Vec::width) - lane;
  for (int64_t r = 0; r < count; ++r) {
    T* const row = out + r * plan.row.y_spacing * stride[2] + lane;
    for (int64_t x = 0; x < plan.row.s.out[2]; ++x) activate_row(row + x * stride[3], lanes, epilogue);
  }
}

template <class T>
void run_items(const ConvCall& call, void* scratch, ThreadContext& context) {
  const Plan plan(call, context.threads);
  Arena arena(scratch, context.thread * plan.row.bytes());
  RowTables<T> tables(plan.row, arena);
  for (int64_t item; next_item(context, plan.items(), item);) {
    const int64_t channels = item % plan.channel_chunks, rest = item / plan.channel_chunks;
    const int64_t y_chunk = rest % plan.y_chunks, z_chunk = rest / plan.y_chunks % plan.z_chunks;
    const int64_t image = rest / plan.y_chunks / plan.z_chunks;
    const int64_t z_end = plan.z.size * (z_chunk + 1) / plan.z_chunks;
    const int64_t y_end = plan.row.pairs * (y_chunk + 1) / plan.y_chunks;
    for (int64_t z = plan.z.size * z_chunk / plan.z_chunks; z < z_end; ++z) {
      for (int64_t y = plan.row.pairs * y_chunk / plan.y_chunks; y < y_end; ++y) {
        run_pair(plan, tables, image, plan.z.at(z), tables.pair[y],
                 plan.row.vectors * channels / plan.channel_chunks,
                 plan.row.vectors * (channels + 1) / plan.channel_chunks);
      }
    }
  }
}

}  // namespace
}  // namespace FASTNETS_LEVEL

int64_t FASTNETS_ENTRY(conv_depthwise_scratch)(const ConvCall& call, int threads) {
  return threads * FASTNETS_LEVEL::Plan(call, threads).row.bytes();
}

void FASTNETS_ENTRY(conv_depthwise)(const ConvCall& call, void* scratch, ThreadContext& context) {
  using namespace FASTNETS_LEVEL;
  with_own_element(call.element, [&](auto zero) { run_items<decltype(zero)>(call, scratch, context); });
  if (call.stream) stream_fence();
  finish(context);
}

}  // namespace fastnets
