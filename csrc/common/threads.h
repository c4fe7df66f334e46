// Kernels, and the threads of a parallel region.
//
// A kernel never opens a region. It is a function that every thread of a team calls with the same arguments
// and its own ThreadContext:
//
//   run_team(nthreads, [&](ThreadContext& context) { kernel(call, scratch, context); });
//
// Several kernels on the same scratch memory need more than one after the other in a region, as run_steps
// (plan/pool.h) has it: a thread that comes late to the first may write tables there while others are in the
// second.
//
//   void kernel(..., ThreadContext& context) {
//     for (int64_t i; next_item(context, items, i);) work(i);
//     finish(context);
//   }
//
// finish() does not wait: the next next_item() does, if there is one, for all items of the loop before it. At
// the end of a kernel it is the steps that wait for each other (plan/pool.cpp), once a step and not twice.
//
// Each thread starts with its own part of the items, in order, and then helps the others with theirs: on a
// machine that does other work, or whose cores differ, a static split waits for its slowest thread. That a
// thread finds most of what it reads where it wrote it itself matters: a store to a line that two cores have
// read took 8 times as long (Zen 4). What an item computes must not depend on who computes it, and a kernel
// does all that others rely on within its items: a thread that comes late finds them done.
#pragma once

#include <atomic>
#include <cstdint>

namespace fastnets {

// What the threads of a region share: the loop over items that they are in, how many of its items are done,
// and how many of each part are claimed. A part's count names its loop, so that no thread can claim from a
// loop that the others have left, and counts of earlier loops stand for 0.
class Team {
 public:
  int64_t loop() const { return static_cast<int64_t>(done_.load(std::memory_order_acquire) >> kCount); }
  bool claim(int64_t loop, int64_t items, int thread, int threads, int64_t& item);
  void settle() { done_.fetch_add(1, std::memory_order_acq_rel); }
  void leave(int64_t loop, int64_t items);  // ends the loop if all items are done
  void await(int64_t loop) const;           // until all loops before it have ended

 private:
  static constexpr int kParts = 64;  // threads beyond share them
  static constexpr int kCount = 24;  // bits of a count; the number of the loop is above
  static constexpr uint64_t kField = (uint64_t{1} << kCount) - 1;
  struct alignas(64) Part {
    std::atomic<uint64_t> claimed{0};
  };

  alignas(64) std::atomic<uint64_t> done_{0};
  Part parts_[kParts];
};

// A thread's place in the region that it runs in.
struct ThreadContext {
  Team* team;
  int thread;          // 0 to threads - 1
  int threads;         // at most so many run
  int64_t loops = 0;   // loops over items that this thread has left
  int64_t items = 0;   // of the loop that it is in
  bool holds = false;  // an item that is not done
  bool waits = false;  // for the end of the loop that it has left
};

// Whether there is another item of the current loop, from 0 to items - 1; every one is given to one thread.
bool next_item(ThreadContext& context, int64_t items, int64_t& item);

// Ends a loop over items; the next loop starts at item 0, once all items of this one are done.
void finish(ThreadContext& context);

// A thread that waits for others spins this often, then offers its core: they may need it.
constexpr int kSpins = 2000;
void relax(int& spins);

// Whether the OpenMP threads of the calling thread are on cores right now. They spin for milliseconds after
// each region, of torch's or of run_team; other threads would compete with them meanwhile.
bool openmp_is_awake(int nthreads);

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
