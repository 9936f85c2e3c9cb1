// Sixteen 32-bit words, a cache line, and the narrower numbers packed in them; a few more things to do with `Floats`.
#pragma once
#include "simd.h"

namespace penstock {

inline void fetch(const void* p) { __builtin_prefetch(p); }

#if defined(__AVX512F__)

struct Words {
  __m512i v;
  static Words load(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
  Floats floats() const { return {_mm512_castsi512_ps(v)}; }
  Floats low_bfloat16() const { return {_mm512_castsi512_ps(_mm512_slli_epi32(v, 16))}; }
  Floats high_bfloat16() const { return {_mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32(-0x10000)))}; }
  Floats field(int shift, int bits) const {  // as unsigned numbers
    __m512i x = shift ? _mm512_srli_epi32(v, shift) : v;
    return {_mm512_cvtepi32_ps(shift + bits < 32 ? _mm512_and_si512(x, _mm512_set1_epi32((1 << bits) - 1)) : x)};
  }
};

// Lanes begin to end - 1 of `inside`, the others of `outside`.
inline Floats between(Floats inside, int begin, int end, Floats outside) {
  uint32_t below_end = end >= 16 ? 0xffff : (1u << (end > 0 ? end : 0)) - 1;
  uint32_t from_begin = begin >= 16 ? 0 : 0xffffu << (begin > 0 ? begin : 0);
  return {_mm512_mask_blend_ps(static_cast<__mmask16>(below_end & from_begin), outside.v, inside.v)};
}

#elif defined(__AVX2__)

struct Words {
  __m256i a, b;
  static Words load(const uint8_t* p) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
  }
  Floats floats() const { return {_mm256_castsi256_ps(a), _mm256_castsi256_ps(b)}; }
  Floats low_bfloat16() const { return {_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(b, 16))}; }
  Floats high_bfloat16() const {
    __m256i mask = _mm256_set1_epi32(-0x10000);
    return {_mm256_castsi256_ps(_mm256_and_si256(a, mask)), _mm256_castsi256_ps(_mm256_and_si256(b, mask))};
  }
  static __m256 field(__m256i v, int shift, int bits) {
    __m256i x = shift ? _mm256_srli_epi32(v, shift) : v;
    return _mm256_cvtepi32_ps(shift + bits < 32 ? _mm256_and_si256(x, _mm256_set1_epi32((1 << bits) - 1)) : x);
  }
  Floats field(int shift, int bits) const { return {field(a, shift, bits), field(b, shift, bits)}; }
};

inline Floats between(Floats inside, int begin, int end, Floats outside) {
  __m256i low = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), high = _mm256_add_epi32(low, _mm256_set1_epi32(8));
  __m256i before = _mm256_set1_epi32(begin - 1), after = _mm256_set1_epi32(end);
  auto chosen = [&](__m256i lane) { return _mm256_castsi256_ps(_mm256_and_si256(_mm256_cmpgt_epi32(lane, before), _mm256_cmpgt_epi32(after, lane))); };
  return {_mm256_blendv_ps(outside.a, inside.a, chosen(low)), _mm256_blendv_ps(outside.b, inside.b, chosen(high))};
}

#else

typedef uint32_t FourWords __attribute__((vector_size(16)));

struct Words {
  FourWords a, b, c, d;
  static FourWords four(const uint8_t* p) {
    FourWords out;
    std::memcpy(&out, p, sizeof out);
    return out;
  }
  static Floats of(FourWords a, FourWords b, FourWords c, FourWords d) {
    return {reinterpret_cast<Four>(a), reinterpret_cast<Four>(b), reinterpret_cast<Four>(c), reinterpret_cast<Four>(d)};
  }
  static Words load(const uint8_t* p) { return {four(p), four(p + 16), four(p + 32), four(p + 48)}; }
  Floats floats() const { return of(a, b, c, d); }
  Floats low_bfloat16() const { return of(a << 16, b << 16, c << 16, d << 16); }
  Floats high_bfloat16() const { return of(a & 0xffff0000u, b & 0xffff0000u, c & 0xffff0000u, d & 0xffff0000u); }
  Floats field(int shift, int bits) const {
    auto part = [&](FourWords v) { return __builtin_convertvector(reinterpret_cast<FourInts>(v >> shift & ((1u << bits) - 1)), Four); };
    return {part(a), part(b), part(c), part(d)};
  }
};

inline Floats between(Floats inside, int begin, int end, Floats outside) {
  float in[LANES], out[LANES];
  inside.store(in), outside.store(out);
  return Floats::each([&](int i) { return i >= begin && i < end ? in[i] : out[i]; });
}

#endif

// 2^x for x <= 0, to 2 units in the last place; 0 for -infinity. The polynomial of least error on [0, 1], or [-1/2, 1/2].
inline Floats power_of_two(Floats x) {
#if defined(__AVX512DQ__)
  const Floats r = {_mm512_reduce_ps(x.v, 1)};  // x - floor(x); scalef takes floor(x) itself
  const float first = 1.8775766585e-3f, others[] = {8.9893401309e-3f, 5.5826318019e-2f, 2.4015361706e-1f, 6.9315307320e-1f, 0.99999992506f};
#else
  x = max(x, Floats::all(-127.f));  // there, times_power_of_two makes zero
  const Floats n = round(x), r = x - n;
  const float first = 1.3276471782e-3f, others[] = {9.6755413328e-3f, 5.5507132741e-2f, 2.4022119724e-1f, 6.9314696706e-1f, 1.0000000717f};
#endif
  Floats p = Floats::all(first);
  for (float c : others) p = fma(p, r, Floats::all(c));
#if defined(__AVX512DQ__)
  return {_mm512_scalef_ps(p.v, x.v)};
#else
  return times_power_of_two(p, n);
#endif
}

}  // namespace penstock
