// Threads that run the steps of a plan together: those of a pool, or OpenMP's.
//
// OpenMP's spin for milliseconds after a region, such as torch's operations are, on the cores that the pool's
// threads need. Steps that come right after one run on OpenMP's threads: ResNet-50 between torch's operations
// of pre- and postprocessing took 13.7 ms instead of 19.7, and 13.7 alone; networks with torch's operations
// among their steps were 1.2 to 2.8 times as fast (Zen 5, two cores).
//
// At all other times it is the pool's threads. A step is entered and left. Who comes late enters at the step
// that the others are in, and who does not come is not waited for: after a pause in which the threads slept,
// the caller starts alone, while OpenMP would make it wait until the system has woken and placed all of them
// (a median of 8 ms after 20 ms of sleep on two cores).
#pragma once

#include <cstdint>

#include "common/threads.h"

namespace fastnets {

// Calls step(data, i, context) for i from 0 to steps - 1 on up to `nthreads` threads, all of them done with
// one step before the next. Each has its own context.thread below `nthreads`. Where another caller has the
// threads, this one works alone.
void run_steps(int nthreads, int64_t steps, void (*step)(void*, int64_t, ThreadContext&), void* data);

}  // namespace fastnets
