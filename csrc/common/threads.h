// One parallel region for many kernels.
//
// A kernel never opens a region. It is a function that every thread of a team calls with the same arguments
// and its own ThreadContext, so that the caller decides how many kernels share a region:
//
//   run_team(nthreads, [&](ThreadContext& context) {
//     first_kernel(a, scratch, context);   // each kernel ends with finish(context): all threads have left it
//     second_kernel(b, scratch, context);
//   });
//
//   void kernel(..., ThreadContext& context) {
//     for (int64_t i; (i = next_item(context)) < items;) work(i);
//     finish(context);
//   }
//
// Items are claimed one at a time, in order: on a machine that does other work, or whose cores differ, a
// static split waits for its slowest thread. What an item computes must not depend on who computes it.
#pragma once

#include <cstdint>

namespace fastnets {

class Team;

// A thread's place in the region that it runs in.
struct ThreadContext {
  Team* team;
  int thread;  // 0 to threads - 1
  int threads;
  int64_t loops = 0;  // loops over items that this thread has left
};

// The next item of the current loop; every number from 0 on is given to one thread.
int64_t next_item(ThreadContext& context);

// Ends a loop over items: waits until all threads have left it, and starts the next one at item 0.
void finish(ThreadContext& context);

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
