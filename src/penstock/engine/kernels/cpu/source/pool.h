// The threads that run programs together. Between programs they sleep.
//
// Whoever comes to an operation takes pieces of it until there are none left; it is over when nobody is inside any more, and
// then closed. So a thread that the system has put aside (the gateway runs on these cores too) holds nobody up unless it had
// a piece in hand, and one that wakes late joins wherever the others are.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "types.h"
#include "worker.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace penstock {

constexpr int SPINS = 2000;  // some ten microseconds; whoever has to wait longer gives its core away

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

// Who is inside one operation, and its next piece.
class alignas(64) Turn {
 public:
  std::atomic<int64_t> next{0};

  // False: it is over.
  bool enter() {
    if (state_.load(std::memory_order_acquire) & CLOSED) return false;
    return !(state_.fetch_add(1, std::memory_order_acq_rel) & CLOSED);
  }

  // Having found no piece left: wait for those who work on theirs, then nobody enters any more.
  void leave() {
    state_.fetch_sub(1, std::memory_order_acq_rel);
    for (int spins = 0;; spins++) {
      uint32_t state = 0;
      if (state_.compare_exchange_weak(state, CLOSED, std::memory_order_acq_rel, std::memory_order_acquire)) return;
      if (state & CLOSED) return;
      if (spins < SPINS) {
        pause();
      } else {
        std::this_thread::yield();
      }
    }
  }

 private:
  static constexpr uint32_t CLOSED = 1u << 31;
  std::atomic<uint32_t> state_{0};
};

using Execute = void (*)(const void* op, const Step& step, const Worker& worker);

class Pool {
 public:
  Pool(int threads, Execute execute) : execute_(execute), scratch_(threads) {
    for (Scratch& scratch : scratch_) {
      scratch.reset(static_cast<uint8_t*>(std::aligned_alloc(64, Worker::SCRATCH)));
      if (scratch == nullptr) throw std::bad_alloc();
    }
    try {
      for (int id = 1; id < threads; id++) threads_.emplace_back([this, id] { live(id); });
    } catch (...) {  // no destructor runs for half a pool, and a thread that nobody joins ends the process
      stop();
      throw;
    }
  }

  ~Pool() { stop(); }

  // All threads, the caller's as number 0, run the operations. `ops` and `step` are not looked at after the return.
  void run(const void* const* ops, int count, const Step& step) {
    auto run = std::make_shared<Run>(ops, count, step);
    if (!threads_.empty()) {
      {
        std::lock_guard<std::mutex> lock(mutex_);
        run_ = run;
        number_.fetch_add(1, std::memory_order_release);
      }
      wake_.notify_all();
    }
    work(*run, 0);
  }

 private:
  struct Run {
    const void* const* ops;
    const int count;
    const Step& step;
    const std::unique_ptr<Turn[]> turns;
    Run(const void* const* operations, int n, const Step& of) : ops(operations), count(n), step(of), turns(new Turn[n]) {}
  };
  struct Free {
    void operator()(uint8_t* memory) const { std::free(memory); }
  };
  using Scratch = std::unique_ptr<uint8_t, Free>;

  void stop() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      run_ = nullptr;
      number_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  void work(Run& run, int id) {
    for (int i = 0; i < run.count; i++) {
      Turn& turn = run.turns[i];
      if (!turn.enter()) continue;
      execute_(run.ops[i], run.step, Worker{id, static_cast<int>(scratch_.size()), &turn.next, scratch_[id].get()});
      turn.leave();
    }
  }

  void live(int id) {
    for (uint64_t seen = 0;;) {
      std::shared_ptr<Run> run = next(seen);
      if (run == nullptr) return;
      work(*run, id);
    }
  }

  std::shared_ptr<Run> next(uint64_t& seen) {
    for (int spins = 0; spins < SPINS && number_.load(std::memory_order_acquire) == seen; spins++) pause();
    std::unique_lock<std::mutex> lock(mutex_);
    wake_.wait(lock, [&] { return number_.load(std::memory_order_relaxed) != seen; });
    seen = number_.load(std::memory_order_relaxed);
    return run_;
  }

  const Execute execute_;
  std::vector<Scratch> scratch_;
  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::shared_ptr<Run> run_;
  std::atomic<uint64_t> number_{0};
};

}  // namespace penstock
