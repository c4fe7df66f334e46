#include "common/threads.h"

#include <omp.h>

#include <atomic>
#include <thread>

namespace fastnets {
namespace {

// A waiting thread spins this often, then offers its core: the others may need it to get here.
constexpr int kSpins = 2000;

struct alignas(64) Counter {
  std::atomic<int64_t> value{0};
};

}  // namespace

class Team {
 public:
  explicit Team(int threads) : threads_(threads) {}

  int64_t claim(int64_t loop) { return items_[loop % 3].value.fetch_add(1, std::memory_order_relaxed); }

  // Three counters take turns: the one that `loop` used is next used by loop + 3, which starts after two more
  // barriers, so thread 0 can clear it as soon as it has passed the barrier of `loop`.
  void leave(int64_t loop, int thread) {
    wait(loop + 1);
    if (thread == 0) items_[loop % 3].value.store(0, std::memory_order_relaxed);
  }

 private:
  void wait(int64_t phase) {
    if (arrived_.value.fetch_add(1, std::memory_order_acq_rel) == phase * threads_ - 1) {
      phase_.value.store(phase, std::memory_order_release);
    }
    for (int spins = 0; phase_.value.load(std::memory_order_acquire) < phase;) {
      if (++spins > kSpins) std::this_thread::yield();
    }
  }

  const int64_t threads_;
  Counter items_[3], arrived_, phase_;
};

int64_t next_item(ThreadContext& context) { return context.team->claim(context.loops); }

void finish(ThreadContext& context) { context.team->leave(context.loops++, context.thread); }

void detail::run_team(int nthreads, void (*body)(void*, ThreadContext&), void* data) {
  if (nthreads <= 1) {
    Team team(1);
    ThreadContext context{&team, 0, 1};
    body(data, context);
    return;
  }
  Team* team = nullptr;
#pragma omp parallel num_threads(nthreads)
  {
#pragma omp single
    team = new Team(omp_get_num_threads());
    ThreadContext context{team, omp_get_thread_num(), omp_get_num_threads()};
    body(data, context);
  }
  delete team;
}

}  // namespace fastnets
