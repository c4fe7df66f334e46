// Threads that run the steps of a plan together.
//
// A step is entered and left. Who comes late enters at the step that the others are in, and who does not come
// is not waited for: after a pause in which the threads slept, the caller starts alone, while OpenMP would
// make it wait until the system has woken and placed all of them (a median of 8 ms after 20 ms of sleep on
// two cores).
#pragma once

#include <cstdint>

#include "common/threads.h"

namespace fastnets {

// Calls step(data, i, context) for i from 0 to steps - 1 on up to `nthreads` threads, all of them done with
// one step before the next. Each has its own context.thread below `nthreads`. Where another caller has the
// threads, this one works alone.
void run_steps(int nthreads, int64_t steps, void (*step)(void*, int64_t, ThreadContext&), void* data);

}  // namespace fastnets
