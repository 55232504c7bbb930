/* What every kernel shares: types, products of bf16 matrices, the layouts that these read. See products.c. */
#ifndef RANKSAGA_PRODUCTS_H
#define RANKSAGA_PRODUCTS_H
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)
#define RANKSAGA_KERNELS

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define VECTOR __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))
#define HIDDEN __attribute__((visibility("hidden")))
#define BLOCK 32 /* rows and columns of the smallest product, in elements */
#define TILE 512 /* elements of a packed tile: 16 rows of 16 pairs */

enum { NONE, WITH_AVX512, WITH_AMX };

typedef uint16_t bf16;

/* c (m, n) = a (m, k) times b, added to c where `add`; m, n and k in BLOCKs; b in tiles [n / 16][k / 32]. */
typedef void Product(float *c, long c_row, const bf16 *a, long a_row, const bf16 *b, long m, long n, long k, int add);

/* The product of a kind of processor. A thread that uses it says so before and after. */
HIDDEN Product *product_of(int kind);
HIDDEN void begin_products(int kind);
HIDDEN void end_products(int kind);

HIDDEN void transpose(__m512i r[16]); /* 16 x 16 of 32 bits */

HIDDEN __m512i interleaving(int upper); /* of two rows of bf16, columns 0 to 15 or 16 to 31, by permutex2var */

/* Rows (k, n), `row` apart, as the right side of a product; k and n in BLOCKs. */
HIDDEN void pack(bf16 *to, const bf16 *rows, long row, long k, long n);

/* Rows (n, k) as the right side of a product with their transpose; n in 16s, k in BLOCKs. */
HIDDEN void pack_transposed(bf16 *to, const bf16 *rows, long n, long k);

static inline long up(long size) { return (size + BLOCK - 1) / BLOCK * BLOCK; }

/* The next piece of some memory that is handed out piece by piece. */
static inline void *part(char **rest, long bytes) {
    void *found = *rest;
    *rest += (bytes + 63) / 64 * 64;
    return found;
}

VECTOR static inline __m512 power(__m512 x) { /* 2 to the x, to 4e-5: a tenth of a bf16's last digit */
    __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), part = x - whole;
    __m512 sum = _mm512_fmadd_ps(part, _mm512_set1_ps(0.009618129f), _mm512_set1_ps(0.05550411f));
    sum = _mm512_fmadd_ps(sum, part, _mm512_set1_ps(0.2402265f));
    sum = _mm512_fmadd_ps(sum, part, _mm512_set1_ps(0.6931472f));
    return _mm512_scalef_ps(_mm512_fmadd_ps(sum, part, _mm512_set1_ps(1.0f)), whole);
}

/* 16 of bf16, zeros where not `real` */
VECTOR static inline __m512 wide(const bf16 *from, __mmask16 real) {
    return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(real, from)), 16);
}

VECTOR static inline __m512i rounded(__m512 first, __m512 second) {
    return (__m512i)_mm512_cvtne2ps_pbh(second, first);
}

#endif
#endif
