// A kernel call as data. A binding hands its call to submit(), which runs it, or, while this thread records a
// plan, keeps it there: a plan holds what the bindings checked, and nothing is written twice.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <type_traits>
#include <vector>

#include "common/scratch.h"
#include "common/threads.h"

namespace fastnets {

// Where a call keeps the address of a tensor, so that a plan can run on other inputs and outputs.
using Slot = void*;

template <class T>
Slot slot(T*& pointer) {
  return &pointer;
}

class Step {
 public:
  Step() = default;
  Step(const Step&) = delete;
  Step& operator=(const Step&) = delete;
  virtual ~Step() = default;

  // Bytes of scratch for `threads` threads.
  virtual int64_t scratch(int threads) const = 0;
  // All threads of a team call this with the same scratch memory.
  virtual void run(void* memory, ThreadContext& context) const = 0;
  // The addresses of tensors; constants, such as packed weights, are not among them.
  virtual std::vector<Slot> slots() = 0;
};

// The slots of a call, as a list that a lambda can return.
using Slots = std::vector<Slot>;

template <class Call, class Tensors, class Scratch, class Kernel>
class StepOf final : public Step {
 public:
  StepOf(const Call& call, Tensors tensors, Scratch bytes, Kernel kernel)
      : call_(call), tensors_(tensors), scratch_(bytes), kernel_(kernel) {}

  int64_t scratch(int threads) const override {
    if constexpr (std::is_same_v<Scratch, std::nullptr_t>) {
      return 0;
    } else if constexpr (std::is_invocable_v<Scratch, const Call&, int>) {
      return scratch_(call_, threads);
    } else {
      return scratch_(call_);
    }
  }

  void run(void* memory, ThreadContext& context) const override {
    if constexpr (std::is_invocable_v<Kernel, const Call&, void*, ThreadContext&>) {
      kernel_(call_, memory, context);
    } else {
      kernel_(call_, context);
    }
  }

  Slots slots() override { return tensors_(call_); }

 private:
  Call call_;
  Tensors tensors_;
  Scratch scratch_;
  Kernel kernel_;
};

// Runs the step on `nthreads` threads, or keeps it in the plan that this thread records.
void submit(std::unique_ptr<Step> step, int nthreads);

// Keeps `owner` alive as long as the plan that this thread records, if it records one: for constants whose
// addresses are in a step.
void retain(const pybind11::handle& owner);

// The call of a kernel.
//
// tensors: Slots(Call&), the addresses of inputs and outputs.
// scratch: its bytes, int64_t(const Call&) or int64_t(const Call&, int threads); nullptr: none.
// kernel: void(const Call&, void* scratch, ThreadContext&), or without scratch.
template <class Call, class Tensors, class Scratch, class Kernel>
void submit(const Call& call, Tensors tensors, Scratch scratch, Kernel kernel, int nthreads) {
  submit(std::make_unique<StepOf<Call, Tensors, Scratch, Kernel>>(call, tensors, scratch, kernel), nthreads);
}

}  // namespace fastnets
