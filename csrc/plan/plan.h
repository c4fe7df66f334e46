// A list of kernel calls over memory that is known before they run, run in one parallel region.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "plan/step.h"

namespace fastnets {

// Memory that the steps of a plan may name: its arena, and what the caller gives at each run.
struct Region {
  const char* begin;  // while recording
  int64_t bytes;
  bool external;  // another address at each run
};

class Plan {
 public:
  explicit Plan(std::vector<Region> regions) : regions_(std::move(regions)) {}

  // Between these, bindings that this thread calls add their steps here instead of running.
  void begin();
  void end();

  void add(std::unique_ptr<Step> step);
  void retain(const pybind11::handle& owner);

  int64_t size() const { return static_cast<int64_t>(steps_.size()); }
  int64_t scratch(int nthreads) const;

  // Runs all steps; `externals` are the addresses of the external regions, in their order. Not for two
  // threads at once. The caller holds no GIL. `seconds`: where to add each step's time, or null.
  void run(const std::vector<char*>& externals, int nthreads, double* seconds);

 private:
  struct Patch {
    Slot slot;
    int64_t external, offset;  // of an external region, bytes from its start
  };

  static void run_step(void* self, int64_t step, ThreadContext& context);

  std::vector<Region> regions_;
  std::vector<std::unique_ptr<Step>> steps_;
  std::vector<Patch> patches_;
  std::vector<pybind11::object> retained_;
  Buffer scratch_;
  void* memory_ = nullptr;  // of the run, in scratch_
  int64_t first_ = 0;       // the step that a timed run is at
};

}  // namespace fastnets
