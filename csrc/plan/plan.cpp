#include "plan/plan.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "common/arguments.h"
#include "plan/pool.h"

namespace fastnets {
namespace {

thread_local Plan* recording = nullptr;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

void submit(std::unique_ptr<Step> step, int nthreads) {
  if (recording != nullptr) return recording->add(std::move(step));
  static thread_local Buffer buffer;
  const pybind11::gil_scoped_release release;
  struct Call {
    const Step* step;
    void* scratch;
  } call{step.get(), buffer.at_least(step->scratch(nthreads))};
  const auto run = [](void* data, int64_t, ThreadContext& context) {
    static_cast<Call*>(data)->step->run(static_cast<Call*>(data)->scratch, context);
  };
  run_steps(nthreads, 1, run, &call);
}

void retain(const pybind11::handle& owner) {
  if (recording != nullptr) recording->retain(owner);
}

void Plan::begin() {
  require(recording == nullptr, "plan: this thread records another plan already: end that one first");
  recording = this;
}

void Plan::end() {
  if (recording == this) recording = nullptr;
}

void Plan::retain(const pybind11::handle& owner) {
  retained_.push_back(pybind11::reinterpret_borrow<pybind11::object>(owner));
}

void Plan::add(std::unique_ptr<Step> step) {
  for (const Slot slot : step->slots()) {
    const char* address;
    std::memcpy(&address, slot, sizeof address);
    if (address == nullptr) continue;
    int64_t external = 0;
    bool found = false;
    for (const Region& region : regions_) {
      if (address >= region.begin && address < region.begin + region.bytes) {
        if (region.external) patches_.push_back({slot, external, address - region.begin});
        found = true;
      }
      if (region.external) ++external;
    }
    require(found, "plan: step " + std::to_string(size()) +
                       " names memory outside the plan: pass tensors of its arena, its inputs or outputs");
  }
  steps_.push_back(std::move(step));
}

int64_t Plan::scratch(int nthreads) const {
  int64_t most = 0;
  for (const auto& step : steps_) most = std::max(most, step->scratch(nthreads));
  return most;
}

void Plan::run(const std::vector<char*>& externals, int nthreads, double* seconds) {
  for (const Patch& patch : patches_) {
    const char* address = externals[static_cast<size_t>(patch.external)] + patch.offset;
    std::memcpy(patch.slot, &address, sizeof address);
  }
  memory_ = scratch_.at_least(scratch(nthreads));
  if (seconds == nullptr) return run_steps(nthreads, size(), &Plan::run_step, this);
  for (first_ = 0; first_ < size(); ++first_) {
    const double start = now();
    run_steps(nthreads, 1, &Plan::run_step, this);
    seconds[first_] += now() - start;
  }
  first_ = 0;
}

void Plan::run_step(void* self, int64_t step, ThreadContext& context) {
  const Plan& plan = *static_cast<Plan*>(self);
  plan.steps_[static_cast<size_t>(plan.first_ + step)]->run(plan.memory_, context);
}

}  // namespace fastnets
