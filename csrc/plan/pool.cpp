#include "plan/pool.h"

#include <sched.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace fastnets {
namespace {

// How long a thread without work spins before it sleeps: networks are often run one after the other.
constexpr auto kPatience = std::chrono::microseconds(200);

constexpr int kMostThreads = 255;

// Threads that go through the steps of a job together, wherever they come from.
class Crew {
 public:
  void start(int nthreads, int64_t steps, void (*step)(void*, int64_t, ThreadContext&), void* data) {
    const int64_t first = step_of(gate_.load(std::memory_order_relaxed));
    job_ = {step, data, first, first + steps, nthreads, team_.loop()};
    gate_.store(pack(first, nthreads, true), std::memory_order_seq_cst);
  }

  // Whether there is a step that this thread may enter.
  bool wants(int thread) const {
    const uint64_t gate = gate_.load(std::memory_order_seq_cst);
    return open(gate) && thread < threads_of(gate);
  }

  // Runs the steps of the job from the current one on, until there is none. The job cannot change while a
  // thread is in one of its steps.
  void work(int thread) {
    for (uint64_t gate; enter(thread, gate);) {
      ThreadContext context{&team_, thread, job_.threads, job_.loop};
      job_.step(job_.data, step_of(gate) - job_.first, context);
      leave(step_of(gate));
    }
  }

  // The same, and waits for the end. For threads that nobody gives another job meanwhile.
  void work_to_the_end(int thread) {
    const int64_t end = job_.end;
    for (int spins = 0; step_of(gate_.load(std::memory_order_acquire)) < end; relax(spins)) work(thread);
  }

 private:
  struct Job {
    void (*step)(void*, int64_t, ThreadContext&);
    void* data;
    int64_t first, end;  // of the steps, which are numbered through all jobs
    int threads;
    int64_t loop;  // of the team, at which the step starts
  };

  // The gate: the number of the step, whether it can be entered, by how many threads, and how many are in it.
  static constexpr uint64_t kOpen = 1 << 16, kInside = 0xff;
  static uint64_t pack(int64_t step, int threads, bool is_open) {
    return static_cast<uint64_t>(step) << 17 | (is_open ? kOpen : 0) | static_cast<uint64_t>(threads) << 8;
  }
  static int threads_of(uint64_t gate) { return static_cast<int>(gate >> 8 & 0xff); }
  static int64_t step_of(uint64_t gate) { return static_cast<int64_t>(gate >> 17); }
  static bool open(uint64_t gate) { return (gate & kOpen) != 0; }

  bool enter(int thread, uint64_t& gate) {
    gate = gate_.load(std::memory_order_acquire);
    while (open(gate) && thread < threads_of(gate)) {
      if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acq_rel)) return true;
    }
    return false;
  }

  // All items of the step are done once one thread leaves it. The last to leave opens the next step: whoever
  // is still in this one may write to its scratch memory, which the next one divides among threads anew.
  void leave(int64_t step) {
    uint64_t gate = gate_.load(std::memory_order_acquire);
    for (;;) {
      const bool last = (gate & kInside) == 1;
      // Shut while the job changes, so that no other thread reads it.
      const uint64_t after = last ? pack(step, job_.threads, false) : gate - 1;
      if (!gate_.compare_exchange_weak(gate, after, std::memory_order_acq_rel)) continue;
      if (last) {
        job_.loop = team_.loop();
        gate_.store(pack(step + 1, job_.threads, step + 1 < job_.end), std::memory_order_seq_cst);
      }
      break;
    }
    for (int spins = 0; step_of(gate_.load(std::memory_order_acquire)) == step;) relax(spins);
  }

  Job job_{};
  Team team_;
  alignas(64) std::atomic<uint64_t> gate_{0};
};

class Pool {
 public:
  // Runs a job if no other caller does; false otherwise.
  bool run(int nthreads, int64_t steps, void (*step)(void*, int64_t, ThreadContext&), void* data) {
    const std::unique_lock<std::mutex> mine(callers_, std::try_to_lock);
    if (!mine.owns_lock()) return false;
    grow(nthreads - 1);
    crew_.start(nthreads, steps, step, data);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) wake();
    crew_.work_to_the_end(0);
    return true;
  }

 private:
  void grow(int workers) {
    while (static_cast<int>(workers_.size()) < workers) {
      std::thread worker(&Pool::serve, this, static_cast<int>(workers_.size()) + 1);
      workers_.push_back(worker.native_handle());
      worker.detach();
    }
  }

  void wake() {
    sleep_.lock();  // whoever counts as a sleeper waits for the notification by now
    keep_off_this_core();
    sleep_.unlock();
    wake_.notify_all();
  }

  // Linux starts a thread that it wakes on the core of the caller, after a pause of 20 ms in 148 of 150 tries
  // on two cores, and moves it milliseconds later: a network of 5 ms took 8.4.
  void keep_off_this_core() {
#if defined(__linux__)
    const int here = sched_getcpu();
    if (here < 0 || sched_getaffinity(0, sizeof cores_, &cores_) != 0 || CPU_COUNT(&cores_) < 2) return;
    cpu_set_t others = cores_;
    CPU_CLR(static_cast<unsigned>(here), &others);
    for (const std::thread::native_handle_type worker : workers_) {
      pthread_setaffinity_np(worker, sizeof others, &others);
    }
#endif
  }

  // For a worker that has started: the caller may come to its core, and then one of them has to leave.
  void take_any_core() {
#if defined(__linux__)
    if (CPU_COUNT(&cores_) >= 2) sched_setaffinity(0, sizeof cores_, &cores_);
#endif
  }

  [[noreturn]] void serve(int thread) {
    for (;;) {
      wait_for_work(thread);
      crew_.work(thread);
    }
  }

  void wait_for_work(int thread) {
    const auto patience = std::chrono::steady_clock::now() + kPatience;
    for (int round = 0; !crew_.wants(thread); ++round) {
      if (round % 64 == 63 && std::chrono::steady_clock::now() > patience) {
        std::unique_lock<std::mutex> lock(sleep_);
        sleepers_.fetch_add(1, std::memory_order_seq_cst);
        wake_.wait(lock, [&] { return crew_.wants(thread); });
        sleepers_.fetch_sub(1, std::memory_order_relaxed);
        take_any_core();
      }
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
  }

  std::mutex callers_, sleep_;
  std::condition_variable wake_;
  std::atomic<int> sleepers_{0};
#if defined(__linux__)
  cpu_set_t cores_{};  // of the last caller that woke threads; with sleep_
#endif
  std::vector<std::thread::native_handle_type> workers_;
  Crew crew_;
};

// Never destroyed: its threads run until the process ends. A forked child has none of them, and starts its
// own.
Pool& pool() {
  static std::mutex guard;
  static Pool* current = nullptr;
  static pid_t owner = 0;
  const std::lock_guard<std::mutex> lock(guard);
  if (owner != getpid()) current = new Pool, owner = getpid();
  return *current;
}

}  // namespace

void run_steps(int nthreads, int64_t steps, void (*step)(void*, int64_t, ThreadContext&), void* data) {
  if (steps == 0) return;
  nthreads = nthreads < kMostThreads ? nthreads : kMostThreads;
  if (openmp_is_awake(nthreads)) {
    Crew crew;
    crew.start(nthreads, steps, step, data);
    return run_team(nthreads, [&](const ThreadContext& context) { crew.work_to_the_end(context.thread); });
  }
  if (nthreads > 1 && pool().run(nthreads, steps, step, data)) return;
  Team team;
  ThreadContext context{&team, 0, nthreads};
  for (int64_t i = 0; i < steps; ++i) step(data, i, context);
}

}  // namespace fastnets
