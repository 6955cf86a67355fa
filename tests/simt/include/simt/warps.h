// Shuffles, votes and warp reductions.
#pragma once

namespace simt {

// Lanes of a mask one by one.
#define SIMT_EACH_LANE(lane, mask) \
  for (uint32_t left_##lane = (mask), lane; left_##lane && (lane = __builtin_ctz(left_##lane), true); \
       left_##lane &= left_##lane - 1)

template <class T>
struct Shuffle {
  static_assert(std::is_trivially_copyable<T>::value && sizeof(T) <= 16, "a type that shuffles");
  T in, out;
  int source;

  SIMT_UNSEEN static void run(void* const* operands, uint32_t lanes) {
    SIMT_EACH_LANE(lane, lanes) {
      auto* mine = static_cast<Shuffle*>(operands[lane]);
      if (!(lanes >> mine->source & 1)) {
        fail("shuffle: lane %u reads lane %d, which does not take part (%08x do)", lane, mine->source, lanes);
      }
      mine->out = static_cast<Shuffle*>(operands[mine->source])->in;
    }
  }
};

template <class T>
inline T shuffle(uint32_t mask, T value, int source, const char* what, Place place) {
  Shuffle<T> operands{value, value, source};
  collective(mask, &operands, &Shuffle<T>::run, what, place);
  return operands.out;
}

struct Vote {
  uint32_t in, out;

  SIMT_UNSEEN static void ballot(void* const* operands, uint32_t lanes) {
    uint32_t votes = 0;
    SIMT_EACH_LANE(lane, lanes) votes |= uint32_t(static_cast<Vote*>(operands[lane])->in != 0) << lane;
    SIMT_EACH_LANE(lane, lanes) static_cast<Vote*>(operands[lane])->out = votes;
  }
  static void nothing(void* const*, uint32_t) {}
};

inline uint32_t ballot(uint32_t mask, bool predicate, const char* what, Place place) {
  Vote vote{predicate, 0};
  collective(mask, &vote, &Vote::ballot, what, place);
  return vote.out;
}

template <class T, class F>
struct Reduction {
  T in, out;

  SIMT_UNSEEN static void run(void* const* operands, uint32_t lanes) {
    T result = static_cast<Reduction*>(operands[__builtin_ctz(lanes)])->in;
    SIMT_EACH_LANE(lane, lanes & (lanes - 1)) result = F()(result, static_cast<Reduction*>(operands[lane])->in);
    SIMT_EACH_LANE(lane, lanes) static_cast<Reduction*>(operands[lane])->out = result;
  }
};

template <class F, class T>
inline T reduce(uint32_t mask, T value, const char* what, Place place) {
  static_assert(std::is_integral<T>::value, "warp reductions are of integers");
  Reduction<T, F> operands{value, value};
  collective(mask, &operands, &Reduction<T, F>::run, what, place);
  return operands.out;
}

struct Add {
  template <class T>
  T operator()(T a, T b) const { return a + b; }
};
struct Min {
  template <class T>
  T operator()(T a, T b) const { return b < a ? b : a; }
};
struct Max {
  template <class T>
  T operator()(T a, T b) const { return a < b ? b : a; }
};

}  // namespace simt

template <class T>
inline T __shfl_sync(uint32_t mask, T value, int source, int width = 32, SIMT_PLACE) {
  const int first = int(simt::lane_id()) & ~(width - 1);
  return simt::shuffle(mask, value, first | (source & (width - 1)), "__shfl_sync", SIMT_HERE);
}
template <class T>
inline T __shfl_xor_sync(uint32_t mask, T value, int with, int width = 32, SIMT_PLACE) {
  const int lane = simt::lane_id(), first = lane & ~(width - 1);
  const int other = lane ^ with;
  return simt::shuffle(mask, value, other < first + width ? other : lane, "__shfl_xor_sync", SIMT_HERE);
}
template <class T>
inline T __shfl_down_sync(uint32_t mask, T value, unsigned by, int width = 32, SIMT_PLACE) {
  const int lane = simt::lane_id(), first = lane & ~(width - 1);
  const int other = lane + int(by);
  return simt::shuffle(mask, value, other < first + width ? other : lane, "__shfl_down_sync", SIMT_HERE);
}
template <class T>
inline T __shfl_up_sync(uint32_t mask, T value, unsigned by, int width = 32, SIMT_PLACE) {
  const int lane = simt::lane_id(), first = lane & ~(width - 1);
  const int other = lane - int(by);
  return simt::shuffle(mask, value, other >= first ? other : lane, "__shfl_up_sync", SIMT_HERE);
}

inline unsigned __ballot_sync(uint32_t mask, int p, SIMT_PLACE) {
  return simt::ballot(mask, p != 0, "__ballot_sync", SIMT_HERE);
}
inline int __any_sync(uint32_t mask, int p, SIMT_PLACE) {
  return simt::ballot(mask, p != 0, "__any_sync", SIMT_HERE) != 0;
}
inline int __all_sync(uint32_t mask, int p, SIMT_PLACE) {
  return simt::ballot(mask, p == 0, "__all_sync", SIMT_HERE) == 0;
}
inline void __syncwarp(uint32_t mask = 0xffffffffu, SIMT_PLACE) {
  simt::Vote vote{0, 0};
  simt::collective(mask, &vote, &simt::Vote::nothing, "__syncwarp", SIMT_HERE);
}

template <class T>
inline T __reduce_add_sync(uint32_t mask, T value, SIMT_PLACE) {
  return simt::reduce<simt::Add>(mask, value, "__reduce_add_sync", SIMT_HERE);
}
template <class T>
inline T __reduce_min_sync(uint32_t mask, T value, SIMT_PLACE) {
  return simt::reduce<simt::Min>(mask, value, "__reduce_min_sync", SIMT_HERE);
}
template <class T>
inline T __reduce_max_sync(uint32_t mask, T value, SIMT_PLACE) {
  return simt::reduce<simt::Max>(mask, value, "__reduce_max_sync", SIMT_HERE);
}
