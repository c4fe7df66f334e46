// fastnets._C.peak_flops: how many operations a second the threads reach on data in registers.
#include "cpu/peak.h"

#include <chrono>

#include "common/arguments.h"
#include "common/threads.h"

namespace fastnets {
namespace {

double peak_flops(int nthreads, bool bf16) {
  require(nthreads >= 1, "peak_flops: nthreads is " + std::to_string(nthreads) + ": pass 1 or more");
  constexpr long kRounds = 2'000'000;  // a few milliseconds
  const Element element = bf16 ? Element::bfloat16 : Element::float32;
  const auto kernel = FASTNETS_CALL_OF(element, peak_arithmetic);
  const pybind11::gil_scoped_release release;
  double best = 0;
  for (int repeat = 0; repeat < 5; ++repeat) {
    double operations = 0;
    const auto start = std::chrono::steady_clock::now();
    run_team(nthreads, [&](ThreadContext& context) {
      float keep[16] = {0.5F, 0.25F};
      const double mine = kernel(element, kRounds, keep);
      if (context.thread == 0) operations = mine * context.threads;
      finish(context);
    });
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::max(best, operations / seconds.count());
  }
  return best;
}

}  // namespace

void register_peak(pybind11::module_& m) {
  m.def("peak_flops", &peak_flops, pybind11::arg("nthreads"), pybind11::arg("bf16") = false);
}

}  // namespace fastnets
