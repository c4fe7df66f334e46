#include "common/threads.h"

#include <thread>

// libgomp's own interface, which `#pragma omp parallel` becomes under GCC. Called by name, so that Clang uses
// the same libgomp, the one that torch has loaded, instead of a second runtime whose threads would compete.
extern "C" {
void GOMP_parallel(void (*body)(void*), void* data, unsigned threads, unsigned flags);
int omp_get_thread_num(void);
int omp_get_num_threads(void);
}

namespace fastnets {

void relax(int& spins) {
  if (++spins > kSpins) {
    std::this_thread::yield();
    return;
  }
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

int64_t Team::claim(int64_t loop) {
  uint64_t state = state_.load(std::memory_order_acquire);
  while (same(state, loop)) {
    if (state_.compare_exchange_weak(state, state + (uint64_t{1} << kClaim), std::memory_order_acq_rel)) {
      return static_cast<int64_t>(state >> kClaim & kField);
    }
  }
  return kNone;
}

void Team::leave(int64_t loop) {
  int spins = 0;
  for (uint64_t state; same(state = state_.load(std::memory_order_acquire), loop);) {
    const bool settled = (state & kField) == (state >> kClaim & kField);
    const uint64_t next = ((state >> kLoop) + 1) << kLoop;
    if (settled && state_.compare_exchange_strong(state, next, std::memory_order_acq_rel)) return;
    if (!settled) relax(spins);
  }
}

int64_t next_item(ThreadContext& context) {
  if (context.holds) context.team->settle();
  const int64_t item = context.team->claim(context.loops);
  context.holds = item != Team::kNone;
  return item;
}

void finish(ThreadContext& context) {
  if (context.holds) context.team->settle();
  context.holds = false;
  context.team->leave(context.loops++);
}

namespace {

struct Region {
  Team team;
  void (*body)(void*, ThreadContext&);
  void* data;
};

void enter(void* argument) {
  Region& region = *static_cast<Region*>(argument);
  ThreadContext context{&region.team, omp_get_thread_num(), omp_get_num_threads()};
  region.body(region.data, context);
}

}  // namespace

void detail::run_team(int nthreads, void (*body)(void*, ThreadContext&), void* data) {
  Region region{{}, body, data};
  if (nthreads > 1) {
    GOMP_parallel(enter, &region, static_cast<unsigned>(nthreads), 0);
    return;
  }
  ThreadContext context{&region.team, 0, 1};
  body(data, context);
}

}  // namespace fastnets
