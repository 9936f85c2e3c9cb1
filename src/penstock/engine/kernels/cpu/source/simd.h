// Sixteen floats at a time: one register with AVX-512, two with AVX2, an array that the compiler vectorizes elsewhere.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace penstock {

constexpr int LANES = 16;

inline float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline uint32_t to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

inline float from_bfloat16(uint16_t half) { return from_bits(uint32_t{half} << 16); }

// Rounds to nearest even; not a number stays one.
inline uint16_t to_bfloat16(float value) {
  uint32_t bits = to_bits(value);
  if (value != value) return static_cast<uint16_t>(bits >> 16 | 64);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float from_float16(uint16_t half) {
#if defined(__F16C__)
  return _cvtsh_ss(half);
#else
  uint32_t sign = uint32_t{half & 0x8000u} << 16, exponent = half >> 10 & 31, mantissa = half & 0x3ffu;
  if (exponent == 0) return (sign ? -1.f : 1.f) * static_cast<float>(mantissa) * 0x1p-24f;
  return from_bits(sign | (exponent == 31 ? 255 : exponent + 112) << 23 | mantissa << 13);
#endif
}

#if defined(__AVX512F__)

struct Floats {
  __m512 v;
  static Floats load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Floats first(const float* p, int n) { return {_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p)}; }
  static Floats all(float value) { return {_mm512_set1_ps(value)}; }
  static Floats zero() { return {_mm512_setzero_ps()}; }
  static Floats bfloat16(const uint16_t* p) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16))};
  }
  static Floats float16(const uint16_t* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))}; }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
  void store_first(float* p, int n) const { _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), v); }
  float sum() const { return _mm512_reduce_add_ps(v); }
  float largest() const { return _mm512_reduce_max_ps(v); }
};
inline Floats operator+(Floats a, Floats b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Floats operator-(Floats a, Floats b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Floats operator*(Floats a, Floats b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Floats operator/(Floats a, Floats b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Floats fma(Floats a, Floats b, Floats c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Floats max(Floats a, Floats b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Floats min(Floats a, Floats b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Floats abs(Floats a) { return {_mm512_abs_ps(a.v)}; }
inline Floats round(Floats a) { return {_mm512_roundscale_ps(a.v, 8)}; }
inline Floats times_power_of_two(Floats a, Floats n) { return {_mm512_scalef_ps(a.v, n.v)}; }

#elif defined(__AVX2__)

struct Floats {
  __m256 a, b;
  static Floats load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static Floats first(const float* p, int n) {
    float whole[LANES] = {};
    std::memcpy(whole, p, sizeof(float) * n);
    return load(whole);
  }
  static Floats all(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
  static Floats zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static __m256 widen(const uint16_t* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16));
  }
  static Floats bfloat16(const uint16_t* p) { return {widen(p), widen(p + 8)}; }
  static Floats float16(const uint16_t* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
            _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
  }
  void store(float* p) const {
    _mm256_storeu_ps(p, a);
    _mm256_storeu_ps(p + 8, b);
  }
  void store_first(float* p, int n) const {
    float whole[LANES];
    store(whole);
    std::memcpy(p, whole, sizeof(float) * n);
  }
  float sum() const {
    __m256 both = _mm256_add_ps(a, b);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(both), _mm256_extractf128_ps(both, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
  }
  float largest() const {
    __m256 both = _mm256_max_ps(a, b);
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(both), _mm256_extractf128_ps(both, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
  }
};
inline Floats operator+(Floats x, Floats y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline Floats operator-(Floats x, Floats y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline Floats operator*(Floats x, Floats y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline Floats operator/(Floats x, Floats y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline Floats fma(Floats x, Floats y, Floats z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
inline Floats max(Floats x, Floats y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline Floats min(Floats x, Floats y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline Floats abs(Floats x) {
  __m256 sign = _mm256_set1_ps(-0.f);
  return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
inline Floats round(Floats x) { return {_mm256_round_ps(x.a, 8), _mm256_round_ps(x.b, 8)}; }
inline __m256 times_power_of_two(__m256 x, __m256 n) {  // n within the exponents of normal floats
  return _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23)));
}
inline Floats times_power_of_two(Floats x, Floats n) { return {times_power_of_two(x.a, n.a), times_power_of_two(x.b, n.b)}; }

#else

typedef float Four __attribute__((vector_size(16)));  // an extension of GCC and Clang: SSE, NEON or whatever there is
typedef int32_t FourInts __attribute__((vector_size(16)));

struct Floats {
  Four a, b, c, d;
  template <class F>
  static Floats each(F f) {
    float whole[LANES];
    for (int i = 0; i < LANES; i++) whole[i] = f(i);
    return load(whole);
  }
  template <class F, class... X>
  static Floats quarters(F f, X... x) {
    return {f(x.a...), f(x.b...), f(x.c...), f(x.d...)};
  }
  static Four four(const float* p) {
    Four out;
    std::memcpy(&out, p, sizeof out);
    return out;
  }
  static Floats load(const float* p) { return {four(p), four(p + 4), four(p + 8), four(p + 12)}; }
  static Floats first(const float* p, int n) {
    float whole[LANES] = {};
    std::memcpy(whole, p, sizeof(float) * n);
    return load(whole);
  }
  static Floats all(float value) {
    Four out = {value, value, value, value};
    return {out, out, out, out};
  }
  static Floats zero() { return all(0.f); }
  static Floats bfloat16(const uint16_t* p) { return each([&](int i) { return from_bfloat16(p[i]); }); }
  static Floats float16(const uint16_t* p) { return each([&](int i) { return from_float16(p[i]); }); }
  void store(float* p) const {
    std::memcpy(p, &a, sizeof a);
    std::memcpy(p + 4, &b, sizeof b);
    std::memcpy(p + 8, &c, sizeof c);
    std::memcpy(p + 12, &d, sizeof d);
  }
  void store_first(float* p, int n) const {
    float whole[LANES];
    store(whole);
    std::memcpy(p, whole, sizeof(float) * n);
  }
  float sum() const {
    Four all = (a + b) + (c + d);
    return (all[0] + all[1]) + (all[2] + all[3]);
  }
  float largest() const {
    float whole[LANES], most = a[0];
    store(whole);
    for (float x : whole) most = x > most ? x : most;
    return most;
  }
};
inline Floats operator+(Floats x, Floats y) { return {x.a + y.a, x.b + y.b, x.c + y.c, x.d + y.d}; }
inline Floats operator-(Floats x, Floats y) { return {x.a - y.a, x.b - y.b, x.c - y.c, x.d - y.d}; }
inline Floats operator*(Floats x, Floats y) { return {x.a * y.a, x.b * y.b, x.c * y.c, x.d * y.d}; }
inline Floats operator/(Floats x, Floats y) { return {x.a / y.a, x.b / y.b, x.c / y.c, x.d / y.d}; }
inline Floats fma(Floats x, Floats y, Floats z) { return {x.a * y.a + z.a, x.b * y.b + z.b, x.c * y.c + z.c, x.d * y.d + z.d}; }
inline Floats max(Floats x, Floats y) {
  return Floats::quarters([](Four p, Four q) { return p > q ? p : q; }, x, y);
}
inline Floats min(Floats x, Floats y) {
  return Floats::quarters([](Four p, Four q) { return p < q ? p : q; }, x, y);
}
inline Floats abs(Floats x) {
  return Floats::quarters([](Four p) { return reinterpret_cast<Four>(reinterpret_cast<FourInts>(p) & 0x7fffffff); }, x);
}
inline Floats round(Floats x) {  // adding 1.5 * 2^23 leaves no room for a fraction; large numbers have none
  return Floats::quarters([](Four p) {
    Four size = reinterpret_cast<Four>(reinterpret_cast<FourInts>(p) & 0x7fffffff), whole = p + 12582912.f - 12582912.f;
    return size < 4194304.f ? whole : p;
  }, x);
}
inline Floats times_power_of_two(Floats x, Floats n) {
  return Floats::quarters([](Four p, Four q) { return p * reinterpret_cast<Four>((__builtin_convertvector(q, FourInts) + 127) << 23); }, x, n);
}

#endif

// e^x to about 2 units in the last place; below -87, the smallest normal float. Cephes' polynomial after Cody and Waite's reduction.
inline Floats exp(Floats x) {
  x = min(max(x, Floats::all(-87.3f)), Floats::all(88.3f));
  Floats n = round(x * Floats::all(1.44269504f));
  Floats r = fma(n, Floats::all(-0.693359375f), x);
  r = fma(n, Floats::all(2.12194440e-4f), r);
  Floats p = Floats::all(1.9875691500e-4f);
  for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f}) p = fma(p, r, Floats::all(c));
  return times_power_of_two(fma(p, r * r, r + Floats::all(1.f)), n);
}

inline Floats tanh(Floats x) {  // 1 - 2 / (e^2x + 1)
  return Floats::all(1.f) - Floats::all(2.f) / (exp(x + x) + Floats::all(1.f));
}

}  // namespace penstock
