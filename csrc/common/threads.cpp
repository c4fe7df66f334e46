#include "common/threads.h"

#if defined(__linux__)
#include <pthread.h>
#include <time.h>
#endif

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

bool Team::claim(int64_t loop, int64_t items, int thread, int threads, int64_t& item) {
  const int parts = threads < kParts ? threads : kParts;
  const uint64_t mine = static_cast<uint64_t>(loop);
  for (int i = 0; i < parts; ++i) {
    const int part = (thread + i) % parts;
    const int64_t begin = items * part / parts;
    const uint64_t count = static_cast<uint64_t>(items * (part + 1) / parts - begin);
    std::atomic<uint64_t>& claimed = parts_[part].claimed;
    uint64_t state = claimed.load(std::memory_order_acquire);
    while (state >> kCount <= mine) {
      const uint64_t next = state >> kCount == mine ? state & kField : 0;
      if (next >= count) break;
      if (!claimed.compare_exchange_weak(state, mine << kCount | (next + 1), std::memory_order_acq_rel))
        continue;
      item = begin + static_cast<int64_t>(next);
      return true;
    }
  }
  return false;
}

void Team::leave(int64_t loop, int64_t items) {
  const uint64_t mine = static_cast<uint64_t>(loop) << kCount;
  uint64_t all = mine | static_cast<uint64_t>(items);
  done_.compare_exchange_strong(all, mine + kField + 1, std::memory_order_acq_rel);
}

void Team::await(int64_t loop) const {
  for (int spins = 0; this->loop() < loop;) relax(spins);
}

bool next_item(ThreadContext& context, int64_t items, int64_t& item) {
  if (context.holds) context.team->settle();
  if (context.waits) context.team->await(context.loops);
  context.waits = false;
  context.items = items;
  context.holds = context.team->claim(context.loops, items, context.thread, context.threads, item);
  return context.holds;
}

void finish(ThreadContext& context) {
  if (context.holds) context.team->settle();
  context.holds = false;
  context.team->leave(context.loops++, context.items);
  context.items = 0, context.waits = true;
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

#if defined(__linux__)
namespace {

// The clock of the time that a thread was on a core, of the first of OpenMP's threads.
struct WorkerClock {
  clockid_t id;
  bool known;
};

void find_clock(void* argument) {
  WorkerClock& clock = *static_cast<WorkerClock*>(argument);
  if (omp_get_thread_num() == 1) clock.known = pthread_getcpuclockid(pthread_self(), &clock.id) == 0;
}

// libgomp's threads do not outlive a fork, and its regions wait for them.
std::atomic<bool> is_child{false};
const int watches_forks = pthread_atfork(nullptr, nullptr, [] { is_child = true; });

}  // namespace

bool openmp_is_awake(int nthreads) {
  static thread_local WorkerClock clock{};
  if (nthreads < 2 || is_child || watches_forks != 0) return false;
  if (!clock.known) GOMP_parallel(find_clock, &clock, static_cast<unsigned>(nthreads), 0);
  timespec first{}, second{};
  // An error: that thread is gone. OpenMP starts others when their number changes.
  clock.known = clock.known && clock_gettime(clock.id, &first) == 0 && clock_gettime(clock.id, &second) == 0;
  return first.tv_nsec != second.tv_nsec;
}
#else
bool openmp_is_awake(int) { return false; }
#endif

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
