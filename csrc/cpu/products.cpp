// The products that kernels call: a unit of their own, as they take longest to compile.
#include "cpu/products.h"

namespace fastnets {
namespace FASTNETS_LEVEL {
namespace {

// Of products at least so deep, the lines of y are fetched before, as stores to lines that are elsewhere wait
// for each other: 64 channels to 256 at 56x56 took 0.9 of the time (Emerald Rapids).
constexpr int64_t kFetchedDepth = 64;

// Adds sums that lie as [row][panel lanes].
template <int kRows, int kVectors, class Last>
FASTNETS_INLINE void add_panel(Sums<kRows, kVectors, Last>& sum, const float* c) {
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i, c += kVectors * Vec::width) {
    if (kVectors == 2) sum.full[0][i] = sum.full[0][i] + Vec::load(c);
    sum.last[i] = sum.last[i] + Last::load(c + (kVectors - 1) * Vec::width);
  }
}

template <int kRows, int kVectors, class Last, bool kPacked, class T, class Panel>
__attribute__((noinline)) void product_to_panel(const Rows<T>& rows, const Panel& panel, int64_t depth,
                                                const float* before, float* c) {
  Sums<kRows, kVectors, Last> sum;
  start<kRows, kVectors>(sum);
  if (before != nullptr) add_panel<kRows, kVectors>(sum, before);
  accumulate<kRows, kVectors, Last, kPacked>(sum, rows, panel, depth);
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i, c += kVectors * Vec::width) {
    if (kVectors == 2) sum.full[0][i].store(c);
    sum.last[i].store(c + (kVectors - 1) * Vec::width);
  }
}

template <int kRows, int kVectors, class Last, bool kPacked, class T, class Panel>
__attribute__((noinline)) void product_to_pixels(const Rows<T>& rows, const Panel& panel, int64_t depth,
                                                 const Target<T>& target, const Epilogue& epilogue) {
  Sums<kRows, kVectors, Last> sum;
  if (target.residual_offset != nullptr) {
    const T* const residual = static_cast<const T*>(epilogue.residual) + target.channel;
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      for (int v = 0; v < kVectors; ++v) {
        __builtin_prefetch(residual + target.residual_offset[i] + v * Vec::width, 0, 2);
      }
    }
  }
  if (depth >= kFetchedDepth && !target.stream) {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      for (int v = 0; v < kVectors; ++v) {
        fetch_to_write(target.y + target.channel + target.y_offset[i] + v * Vec::width);
      }
    }
  }
  start<kRows, kVectors>(sum, epilogue, target.channel, target.lanes);
  for (const float* before : target.before) {
    if (before != nullptr) add_panel<kRows, kVectors>(sum, before);
  }
  accumulate<kRows, kVectors, Last, kPacked>(sum, rows, panel, depth);
  asm volatile("" ::: "memory");  // what only the epilogue needs is loaded now: registers are few before
  store_sums<kRows, kVectors>(sum, target, epilogue);
}

}  // namespace

#define FASTNETS_TO_PANEL(rows) product_to_panel<rows, Kind::kVectors, typename Kind::Last, kPacked, T, Panel>
#define FASTNETS_TO_PIXELS(rows) \
  product_to_pixels<rows, Kind::kVectors, typename Kind::Last, kPacked, T, Panel>

template <class Kind, bool kPacked, class T, class Panel>
const PanelProduct<T, Panel> PanelProducts<Kind, kPacked, T, Panel>::of_rows[] = {
    FASTNETS_ROWS(FASTNETS_TO_PANEL)};

template <class Kind, bool kPacked, class T, class Panel>
const PixelProduct<T, Panel> PixelProducts<Kind, kPacked, T, Panel>::of_rows[] = {
    FASTNETS_ROWS(FASTNETS_TO_PIXELS)};

#if defined(FASTNETS_LEVEL_avx512) && !defined(FASTNETS_BF16_ALONE)  // of two panels, rows in place
#define FASTNETS_OF_TWO(rows) product_to_pixels<rows, 4, Vec, false, float, TwoPanels<float>>
template <>
const PixelProduct<float, TwoPanels<float>>
    PixelProducts<PanelKind<4, Vec>, false, float, TwoPanels<float>>::of_rows[] = {
        FASTNETS_SIX_ROWS(FASTNETS_OF_TWO)};
#endif

#if defined(FASTNETS_LEVEL_amx_bf16)
#define FASTNETS_PRODUCTS_BF16(vectors, Last) static_assert(kByTiles<Bf16>, "are made of tiles")
#else
#define FASTNETS_PRODUCTS_BF16(vectors, Last)                          \
  template struct PixelProducts<PanelKind<vectors, Last>, true, Bf16>; \
  template struct PixelProducts<PanelKind<vectors, Last>, false, Bf16>
#endif

#if defined(FASTNETS_BF16_ALONE)
#define FASTNETS_PRODUCTS_FLOAT(vectors, Last) static_assert(kSteps<Bf16> == 2, "float32 is of another level")
#else
#define FASTNETS_PRODUCTS_FLOAT(vectors, Last)                          \
  template struct PixelProducts<PanelKind<vectors, Last>, true, float>; \
  template struct PixelProducts<PanelKind<vectors, Last>, false, float>
#endif

// Of each kind of panel: packed rows to a panel (Winograd), and both kinds of rows to pixels.
#define FASTNETS_PRODUCTS(vectors, Last)                                \
  template struct PanelProducts<PanelKind<vectors, Last>, true, float>; \
  FASTNETS_PRODUCTS_FLOAT(vectors, Last);                               \
  FASTNETS_PRODUCTS_BF16(vectors, Last)

FASTNETS_PRODUCTS(1, Vec);
FASTNETS_PRODUCTS(2, Vec);
#if defined(FASTNETS_LEVEL_avx512)  // elsewhere Half is Vec
FASTNETS_PRODUCTS(1, Half);
FASTNETS_PRODUCTS(2, Half);
#endif

// Of Winograd's with taps.
template struct PanelProducts<PanelKind<2, Vec>, true, float, PanelTaps<1>>;
template struct PanelProducts<PanelKind<2, Vec>, true, float, PanelTaps<-1>>;
template struct PanelProducts<PanelKind<2, Vec>, true, float, PanelTaps<2>>;
template struct PanelProducts<PanelKind<2, Vec>, true, float, PanelTaps<-2>>;
template struct PanelProducts<PanelKind<2, Vec>, true, float, PanelPair<1>>;
template struct PanelProducts<PanelKind<2, Vec>, true, float, PanelPair<-1>>;
template struct PanelProducts<PanelKind<2, Vec>, true, float, PanelPair<2>>;
template struct PanelProducts<PanelKind<2, Vec>, true, float, PanelPair<-2>>;

#if !defined(FASTNETS_BF16_ALONE)  // of Strassen's algorithm
template struct PanelProducts<PanelKind<2, Vec>, false, float>;
template struct PanelProducts<PanelKind<2, Vec>, true, float, PanelDifference>;
template struct PanelProducts<PanelKind<2, Vec>, false, float, PanelDifference>;
template struct PixelProducts<PanelKind<2, Vec>, true, float, PanelDifference>;
template struct PixelProducts<PanelKind<2, Vec>, false, float, PanelDifference>;
#endif

}  // namespace FASTNETS_LEVEL
}  // namespace fastnets
