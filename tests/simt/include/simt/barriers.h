// Barriers, fences and waiting.
#pragma once

namespace simt {

enum class Reduce { Count, And, Or };

void barrier(Place);
int barrier_reduce(int predicate, Reduce, Place);
void grid_barrier(Place);
void yield();
void fence();

}  // namespace simt

inline void __syncthreads(SIMT_PLACE) { simt::barrier(SIMT_HERE); }
inline int __syncthreads_count(int p, SIMT_PLACE) { return simt::barrier_reduce(p, simt::Reduce::Count, SIMT_HERE); }
inline int __syncthreads_and(int p, SIMT_PLACE) { return simt::barrier_reduce(p, simt::Reduce::And, SIMT_HERE); }
inline int __syncthreads_or(int p, SIMT_PLACE) { return simt::barrier_reduce(p, simt::Reduce::Or, SIMT_HERE); }
inline void grid_sync(SIMT_PLACE) { simt::grid_barrier(SIMT_HERE); }
inline void spin_yield() { simt::yield(); }
inline void __threadfence() { simt::fence(); }
inline void __threadfence_block() { simt::fence(); }
inline void __threadfence_system() { simt::fence(); }
