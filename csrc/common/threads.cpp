#include "common/threads.h"

#include <atomic>
#include <thread>

// libgomp's own interface, which `#pragma omp parallel` becomes under GCC. Called by name, so that Clang uses
// the same libgomp, the one that torch has loaded, instead of a second runtime whose threads would compete.
extern "C" {
void GOMP_parallel(void (*body)(void*), void* data, unsigned threads, unsigned flags);
int omp_get_thread_num(void);
int omp_get_num_threads(void);
}

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

namespace {

// What the threads of a region share. The team's size is known only inside: OpenMP may grant fewer threads.
struct Region {
  std::atomic<Team*> team{nullptr};
  void (*body)(void*, ThreadContext&);
  void* data;
};

void enter(void* argument) {
  Region& region = *static_cast<Region*>(argument);
  const int thread = omp_get_thread_num(), threads = omp_get_num_threads();
  if (thread == 0) region.team.store(new Team(threads), std::memory_order_release);
  Team* team;
  while ((team = region.team.load(std::memory_order_acquire)) == nullptr) std::this_thread::yield();
  ThreadContext context{team, thread, threads};
  region.body(region.data, context);
}

}  // namespace

void detail::run_team(int nthreads, void (*body)(void*, ThreadContext&), void* data) {
  if (nthreads <= 1) {
    Team team(1);
    ThreadContext context{&team, 0, 1};
    body(data, context);
    return;
  }
  Region region{};
  region.body = body;
  region.data = data;
  GOMP_parallel(enter, &region, static_cast<unsigned>(nthreads), 0);
  delete region.team.load();
}

}  // namespace fastnets
