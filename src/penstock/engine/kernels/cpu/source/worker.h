// One thread's view of the operation that all threads run together.
#pragma once
#include <atomic>
#include <cstdint>

namespace penstock {

struct Worker {
  int id, count;               // of this thread, of all
  std::atomic<int64_t>* next;  // of this operation, 0 when it begins
  uint8_t* scratch;            // SCRATCH bytes of this thread's own, 64-byte aligned
  static constexpr size_t SCRATCH = size_t{4} << 20;

  // The next piece of work that nobody has taken: call until it is `end` or more.
  int64_t take(int64_t pieces = 1) const { return next->fetch_add(pieces, std::memory_order_relaxed); }
};

}  // namespace penstock
