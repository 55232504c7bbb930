/* Gradients of a layer's weights and bias in float32: the product of two matrices that both lie the wrong way. */
#include "products.h"

#ifdef RANKSAGA_KERNELS

#include <omp.h>

#define DEEP 384 /* rows at a time that are summed over: a strip of them, BLOCK wide, stays in the first cache */

/* BLOCK of the columns of `from` (rows, n): their transpose (BLOCK, rows), and their sums added to `totals`, unless
 * NULL. */
VECTOR static void columns_to_rows(bf16 *to, const bf16 *from, long rows, long n, float *totals) {
    __m512i places[2] = {interleaving(0), interleaving(1)};
    __m512 low = _mm512_setzero_ps(), high = low;
    if (totals != NULL) low = _mm512_loadu_ps(totals), high = _mm512_loadu_ps(totals + 16);
    for (long r = 0; r < rows; r += BLOCK, from += BLOCK * n)
        for (int h = 0; h < 2; h++) {
            __m512i tile[16];
            for (int p = 0; p < 16; p++) {
                const bf16 *even = from + 2 * p * n, *odd = even + n;
                tile[p] = _mm512_permutex2var_epi16(_mm512_loadu_si512(even), places[h], _mm512_loadu_si512(odd));
                if (h == 0) {
                    low += wide(even, 0xffff) + wide(odd, 0xffff);
                    high += wide(even + 16, 0xffff) + wide(odd + 16, 0xffff);
                }
            }
            transpose(tile);
            for (int c = 0; c < 16; c++) _mm512_storeu_si512(to + (h * 16 + c) * rows + r, tile[c]);
        }
    if (totals != NULL) _mm512_storeu_ps(totals, low), _mm512_storeu_ps(totals + 16, high);
}

/* Into how many parts `threads` threads cut the n of (n, k), the rest of their number the k: what a thread packs for
 * itself is least where the parts are squares. */
static long cuts(long threads, long n, long k) {
    long best = 1;
    for (long c = 1; c <= threads; c++)
        if (threads % c == 0 && n / c + k / (threads / c) < n / best + k / (threads / best)) best = c;
    return best;
}

/* Where part `i` of `parts` of some BLOCKs begins. */
static long begins(long i, long parts, long size) { return size / BLOCK * i / parts * BLOCK; }

/* of_weights (n, k) = the transpose of gradient (rows, n) times states (rows, k), of_bias (n) = the sum of the
 * gradient's rows, both summed in the order of rows. A thread makes its part of the weights by itself: it waits for no
 * other, and reads nothing that another has just written, which is slow where they share no cache. */
int linear_backward(int64_t kind, const bf16 *gradient, const bf16 *states, float *of_weights, float *of_bias,
                    int64_t rows, int64_t n, int64_t k) {
    int failed = 0;
    memset(of_bias, 0, n * sizeof(float));
    if (rows == 0) memset(of_weights, 0, n * k * sizeof(float));
#pragma omp parallel reduction(| : failed)
    {
        long threads = omp_get_num_threads(), me = omp_get_thread_num();
        long down = cuts(threads, n, k), across = threads / down, y = me / across, x = me % across;
        long top = begins(y, down, n), tall = begins(y + 1, down, n) - top;
        long left = begins(x, across, k), broad = begins(x + 1, across, k) - left;
        /* With more threads than BLOCKs some parts are empty; one BLOCK more, as no memory would look like a failure. */
        bf16 *turned = aligned_alloc(64, DEEP * (tall + broad + BLOCK) * sizeof(bf16)), *packed = turned + DEEP * tall;
        failed = turned == NULL;
        begin_products(kind);
        for (long d = 0; d < rows && !failed; d += DEEP) {
            long deep = rows - d < DEEP ? rows - d : DEEP;
            for (long c = 0; c < tall; c += BLOCK)
                columns_to_rows(turned + c * deep, gradient + d * n + top + c, deep, n,
                                x == 0 ? of_bias + top + c : NULL);
            pack(packed, states + d * k + left, k, deep, broad);
            product_of(kind)(of_weights + top * k + left, k, turned, deep, packed, tall, broad, deep, d > 0);
        }
        end_products(kind);
        free(turned);
    }
    return failed;
}

#endif
