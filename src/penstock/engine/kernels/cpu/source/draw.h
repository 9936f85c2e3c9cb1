// From logits to tokens, a row at a time: the distributions, truncations and random numbers of `engine/draw.py`, which explains them.
//
// A row's logits are read in chunks whose maxima say which of them matter: the k best lie in the k chunks with the largest
// maxima, and what a token may outrank it needs no look at chunks that are below it. Logits that are not numbers are never drawn.
#pragma once
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "simd.h"
#include "types.h"
#include "worker.h"

namespace penstock {

constexpr uint64_t GOLDEN = 0x9e3779b97f4a7c15;  // 2^64 / golden ratio

inline uint64_t mixed(uint64_t x) {  // splitmix64 (Steele, Lea and Flood, 2014)
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
  x = (x ^ x >> 27) * 0x94d049bb133111eb;
  return x ^ x >> 31;
}

inline double fraction_of(uint64_t state) { return static_cast<double>(state >> 16) * 0x1p-48; }

struct Picked {
  int index;
  double into;  // how far into its weight, from 0 to less than 1
};

// The entry at which the running sum of the weights passes `fraction` of the total: never one without weight.
inline Picked pick(const float* weights, int count, double fraction) {
  double total = 0, before = 0;
  for (int i = 0; i < count; i++) total += weights[i];
  for (int i = 0; i < count; i++) {
    double after = before + weights[i];
    if (after > fraction * total) return {i, std::min(std::max((fraction * total - before) / weights[i], 0.0), 1 - 0x1p-32)};
    before = after;
  }
  return {count - 1, 0.0};
}

// One row. What draws from it overwrites its logits.
class Distribution {
 public:
  static constexpr int CHUNK = 128;

  Distribution(float* x, int size, uint8_t* scratch)
      : x_(x),
        size_(size),
        chunks_((size + CHUNK - 1) / CHUNK),
        maxima_(reinterpret_cast<float*>(scratch)),
        sums_(maxima_ + (size + LANES - 1) / LANES),
        values_(sums_ + chunks_),
        sorted_(values_ + size),
        ids_(reinterpret_cast<int32_t*>(sorted_ + size)) {
    for (int c = 0; c < chunks_; c++) {
      Floats most = Floats::all(LEAST);
      in_chunk(c, [&](int i, int n) { most = max(most, at(i, n)); });
      best_ = std::max(best_, maxima_[c] = number(most.largest()));
    }
  }

  // The first of the largest.
  int64_t best() const {
    int64_t first = int64_t{CHUNK} * (std::find(maxima_, maxima_ + chunks_, best_) - maxima_);
    const float *begin = x_ + first, *end = x_ + std::min<int64_t>(first + CHUNK, size_), *found = std::find(begin, end, best_);
    return first + (found == end ? 0 : found - begin);
  }

  int64_t draw(const DrawnRow& row, uint64_t state) {
    double mass = row.top_p * weigh(1.f / row.temperature);
    if (row.min_p > 0.f) keep_above(std::nextafter(row.min_p, 0.f));
    for (;; state = mixed(state + GOLDEN)) {  // by rejection: what outranks a token of the nucleus weighs less than top_p
      Picked chunk = pick(sums_, chunks_, fraction_of(state));
      int first = chunk.index * CHUNK;
      int id = first + pick(x_ + first, std::min(CHUNK, size_ - first), chunk.into).index;
      if (std::isinf(row.top_p) || !(keep_above(x_[id]) >= mass)) return id;
    }
  }

  int64_t draw_top(const DrawnRow& row, uint64_t state) {
    int count = gather(row.top_k);
    if (count == 0) return best();
    double total = 0;
    for (int i = 0; i < count; i++) {
      bool is_best = values_[i] == best_;  // which may be infinite
      total += values_[i] = is_best ? 1.f : std::exp((values_[i] - best_) / row.temperature);
    }
    float smallest = std::max(smallest_of_nucleus(count, row.top_p * total), row.min_p);
    for (int i = 0; i < count; i++) values_[i] = values_[i] < smallest ? 0.f : values_[i];
    return ids_[pick(values_, count, fraction_of(state)).index];
  }

 private:
  static float number(float x) { return x == x ? x : LEAST; }

  static constexpr float LEAST = -std::numeric_limits<float>::infinity();

  // f(i, n): n of the chunk's logits from i on, 16 but at the row's end.
  template <class F>
  void in_chunk(int chunk, F f) const {
    int end = std::min((chunk + 1) * CHUNK, size_);
    for (int i = chunk * CHUNK; i < end; i += LANES) f(i, std::min(LANES, end - i));
  }

  Floats at(int i, int n) const {
    if (n == LANES) return Floats::load(x_ + i);
    float padded[LANES];
    std::fill(std::copy(x_ + i, x_ + i + n, padded), padded + LANES, LEAST);
    return Floats::load(padded);
  }

  // Logits become weights, relative to the best one's. Their sum.
  double weigh(float sharpness) {
    double total = 0;
    for (int c = 0; c < chunks_; c++) {
      Floats sum = Floats::zero(), most = sum;
      in_chunk(c, [&](int i, int n) {
        Floats weight = exp((at(i, n) - Floats::all(best_)) * Floats::all(sharpness));
        sum = sum + weight;
        most = max(most, weight);
        if (n == LANES) {
          weight.store(x_ + i);
        } else {
          weight.store_first(x_ + i, n);
        }
      });
      maxima_[c] = most.largest();
      total += sums_[c] = sum.sum();
    }
    return total;
  }

  // Takes away all weights that are no larger. The sum of the others.
  double keep_above(float limit) {
    double total = 0;
    for (int c = 0; c < chunks_; c++) {
      float part[LANES] = {};
      if (maxima_[c] > limit && sums_[c] > 0.f) {
        in_chunk(c, [&](int i, int n) {
          for (int j = 0; j < n; j++) part[j] += x_[i + j] = x_[i + j] > limit ? x_[i + j] : 0.f;
        });
      }
      total += sums_[c] = Floats::load(part).sum();
    }
    return total;
  }

  // The `count` best logits and all that equal the last of them, into values_ and ids_, in the order of their ids. How many.
  int gather(int count) {
    int group = CHUNK;
    if (count >= chunks_) {  // finer: a small vocabulary has few chunks
      group = LANES;
      for (int i = 0; i < size_; i += LANES) maxima_[i / LANES] = number(at(i, std::min(LANES, size_ - i)).largest());
    }
    int groups = (size_ + group - 1) / group;
    int found = collect(group, groups, count < groups ? largest_but(maxima_, groups, count - 1) : LEAST);
    if (found <= count) return found;
    float last = largest_but(values_, found, count - 1);
    int kept = 0;
    for (int i = 0; i < found; i++) {
      if (values_[i] < last) continue;
      values_[kept] = values_[i];
      ids_[kept++] = ids_[i];
    }
    return kept;
  }

  // All logits from `least` on, of `groups` whose maxima are known.
  int collect(int group, int groups, float least) {
    int found = 0;
    for (int g = 0; g < groups; g++) {
      if (maxima_[g] < least) continue;
      for (int i = g * group, end = std::min(i + group, size_); i < end; i++) {
        if (!(x_[i] >= least)) continue;
        values_[found] = x_[i];
        ids_[found++] = i;
      }
    }
    return found;
  }

  // The largest of `count` values once the `skipped` largest are left out.
  float largest_but(const float* values, int count, int skipped) {
    std::copy(values, values + count, sorted_);
    std::nth_element(sorted_, sorted_ + skipped, sorted_ + count, std::greater<float>());
    return sorted_[skipped];
  }

  // The least weight that those which outrank it leave inside `mass`.
  float smallest_of_nucleus(int count, double mass) {
    std::copy(values_, values_ + count, sorted_);
    std::sort(sorted_, sorted_ + count, std::greater<float>());
    double outranking = sorted_[0];
    int i = 1;
    for (; i < count && outranking < mass; i++) outranking += sorted_[i];
    return sorted_[i - 1];
  }

  float* x_;
  int size_, chunks_;
  float* maxima_;            // [chunks], or of smaller groups
  float* sums_;              // [chunks]
  float *values_, *sorted_;  // [size]
  int32_t* ids_;             // [size]
  float best_ = LEAST;
};

inline void draw(const Draw& op, const Step& step, const Worker& worker) {
  for (int64_t r; (r = worker.take()) < step.tokens;) {
    const DrawnRow& row = op.rows[r];
    Distribution distribution(op.logits + r * op.size, op.size, worker.scratch);
    uint64_t seed = mixed(static_cast<uint64_t>(row.seed) + GOLDEN);
    uint64_t state = mixed(seed + static_cast<uint64_t>(step.positions[r] + 1) * GOLDEN);
    op.tokens[r] = row.temperature == 0.f ? distribution.best()
                   : row.top_k == 0       ? distribution.draw(row, state)
                                          : distribution.draw_top(row, state);
  }
}

}  // namespace penstock
