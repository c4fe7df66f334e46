// fastnets._C.round_trip: seconds in which a cache line goes to another core and back.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "common/arguments.h"

namespace fastnets {
namespace {

struct alignas(128) Line {
  std::atomic<int> turn{0};

  void pass(int mine, int next) {
    for (int spins = 0; turn.load(std::memory_order_acquire) != mine; ++spins) {
      if (spins > 10'000) std::this_thread::yield();  // the other thread has no core of its own
    }
    turn.store(next, std::memory_order_release);
  }
};

// The least of some runs, which the start of the other thread and interruptions prolong.
double round_trip() {
  constexpr int kRuns = 5, kTurns = 1000;
  const pybind11::gil_scoped_release release;
  Line line;
  std::thread other([&] {
    for (int i = 0; i < kRuns * kTurns; ++i) line.pass(1, 0);
  });
  double best = 1;
  for (int run = 0; run < kRuns; ++run) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < kTurns; ++i) line.pass(0, 1);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::min(best, seconds.count() / kTurns);
  }
  other.join();
  return best;
}

}  // namespace

void register_round_trip(pybind11::module_& m) { m.def("round_trip", &round_trip); }

}  // namespace fastnets
