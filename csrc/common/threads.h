// One parallel region for many kernels.
//
// A kernel never opens a region. It is a function that every thread of a team calls with the same arguments
// and its own ThreadContext, so that the caller decides how many kernels share a region:
//
//   run_team(nthreads, [&](ThreadContext& context) {
//     first_kernel(a, scratch, context);   // each kernel ends with finish(context): all its items are done
//     second_kernel(b, scratch, context);
//   });
//
//   void kernel(..., ThreadContext& context) {
//     for (int64_t i; (i = next_item(context)) < items;) work(i);
//     finish(context);
//   }
//
// Items are claimed one at a time, in order: on a machine that does other work, or whose cores differ, a
// static split waits for its slowest thread. What an item computes must not depend on who computes it, and a
// kernel does all that others rely on within its items: a thread that comes late finds them done.
#pragma once

#include <atomic>
#include <cstdint>

namespace fastnets {

// What the threads of a region share: the loop over items that they are in, how many of its items were
// claimed, and how many claims are settled, because their work is done or there was no such item. In one
// word, so that no thread can claim from a loop that the others have left.
class Team {
 public:
  int64_t loop() const { return loop_of(state_.load(std::memory_order_acquire)); }
  int64_t claim(int64_t loop);  // kNone where the others have left the loop
  void settle() { state_.fetch_add(1, std::memory_order_acq_rel); }
  void leave(int64_t loop);  // waits until all claims are settled

  static constexpr int64_t kNone = int64_t{1} << 40;  // more than any number of items

 private:
  static constexpr int kClaim = 22, kLoop = 44;  // where these fields start; settled claims start at bit 0
  static constexpr uint64_t kField = (uint64_t{1} << kClaim) - 1;
  static int64_t loop_of(uint64_t state) { return static_cast<int64_t>(state >> kLoop); }
  static bool same(uint64_t state, int64_t loop) {
    return loop_of(state) == static_cast<int64_t>(static_cast<uint64_t>(loop) << kLoop >> kLoop);
  }

  alignas(64) std::atomic<uint64_t> state_{0};
};

// A thread's place in the region that it runs in.
struct ThreadContext {
  Team* team;
  int thread;          // 0 to threads - 1
  int threads;         // at most so many run
  int64_t loops = 0;   // loops over items that this thread has left
  bool holds = false;  // a claim that is not settled
};

// The next item of the current loop; every number from 0 on is given to one thread.
int64_t next_item(ThreadContext& context);

// Ends a loop over items: waits until all of them are done, and starts the next loop at item 0.
void finish(ThreadContext& context);

// A thread that waits for others spins this often, then offers its core: they may need it.
constexpr int kSpins = 2000;
void relax(int& spins);

namespace detail {
void run_team(int nthreads, void (*body)(void*, ThreadContext&), void* data);
}

// Calls body(context) on `nthreads` threads and returns when all are done. Fewer where OpenMP grants fewer.
template <class Body>
void run_team(int nthreads, Body&& body) {
  detail::run_team(
      nthreads, [](void* data, ThreadContext& context) { (*static_cast<Body*>(data))(context); }, &body);
}

}  // namespace fastnets
