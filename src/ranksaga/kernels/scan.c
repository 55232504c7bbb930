/* Exact search, where bf16 products are much faster than those of float32. `scan` scores every document in bf16 and
 * keeps what can be among a query's best by an error bound; `rescore` scores what was kept in float32.
 *
 * Scores of a tile of documents lie in the cache while they are held against what a query's best so far ask for, so
 * none but the kept ones go to memory. A query's room being full, its best so far say what further ones must reach.
 * That is exact whatever the order of the corpus. (In random order about depth * ln(documents / depth) pass in all.)
 */
#include "products.h"

#ifdef RANKSAGA_KERNELS

#include <float.h>

#define STRIP 512 /* documents of a tile: 384 KiB of bf16 at 384 dimensions, which a second-level cache holds */
#define NEAR 256  /* documents that are scored again together, in float32 */

typedef struct {
    int32_t *found; /* (queries, room): the documents kept, ascending */
    float *scores;  /* (queries, room) */
    int32_t *counts; /* (queries): how many; -1 where there is not enough room to tell */
    float *begins;  /* (queries): what a rough score must reach */
    const float *slack; /* (queries): how far a rough score can be from the exact one */
    long depth, room;
} Kept;

/* ---- vectors ---------------------------------------------------------------------------------------------------- */

/* Rows (count, width) in bf16, (padded, wide) with zeros around. */
VECTOR static void to_bf16(bf16 *to, const float *from, long count, long width, long padded, long wide) {
    for (long r = 0; r < count; r++)
        for (long c = 0; c < wide; c += 16) {
            long left = width - c;
            __mmask16 real = left >= 16 ? 0xffff : left <= 0 ? 0 : (__mmask16)((1u << left) - 1);
            __m512 values = _mm512_maskz_loadu_ps(real, from + r * width + c);
            _mm256_storeu_si256((__m256i *)(to + r * wide + c), (__m256i)_mm512_cvtneps_pbh(values));
        }
    memset(to + count * wide, 0, (padded - count) * wide * sizeof(bf16));
}

VECTOR static void measure(const float *row, long width, float of_both[2]) {
    __m512 all = _mm512_setzero_ps(), lost = _mm512_setzero_ps();
    for (long c = 0; c < width; c += 16) {
        __mmask16 real = width - c >= 16 ? 0xffff : (__mmask16)((1u << (width - c)) - 1);
        __m512 exact = _mm512_maskz_loadu_ps(real, row + c);
        __m512i bits = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(exact));
        __m512 left = exact - (__m512)_mm512_slli_epi32(bits, 16);
        all = _mm512_fmadd_ps(exact, exact, all), lost = _mm512_fmadd_ps(left, left, lost);
    }
    of_both[0] = sqrtf(_mm512_reduce_add_ps(all)), of_both[1] = sqrtf(_mm512_reduce_add_ps(lost));
}

/* of_both (count, 2): the length of each row, and of what rounding to bf16 takes from it. 0: done. */
int lengths(const float *rows, int64_t count, int64_t width, float *of_both) {
#pragma omp parallel for schedule(static)
    for (long r = 0; r < count; r++) measure(rows + r * width, width, of_both + 2 * r);
    return 0;
}

/* ---- what is kept ----------------------------------------------------------------------------------------------- */

static inline int32_t ordered(float score) { /* integers in the order of scores */
    int32_t bits;
    memcpy(&bits, &score, 4);
    return bits ^ ((bits >> 31) & 0x7fffffff);
}

static inline float score_of(int32_t order) {
    float score;
    order ^= (order >> 31) & 0x7fffffff;
    memcpy(&score, &order, 4);
    return score;
}

VECTOR static long reaching(const float *scores, long count, float least) {
    long found = 0;
    __m512 bound = _mm512_set1_ps(least);
    for (long i = 0; i < count; i += 16) {
        __mmask16 real = count - i >= 16 ? 0xffff : (__mmask16)((1u << (count - i)) - 1);
        __m512 some = _mm512_maskz_loadu_ps(real, scores + i);
        found += __builtin_popcount(_mm512_mask_cmp_ps_mask(real, some, bound, _CMP_GE_OQ));
    }
    return found;
}

/* The depth-th largest of count scores, by halving the range of their bits. */
static float place(const float *scores, long count, long depth) {
    int64_t low = ordered(-FLT_MAX), high = ordered(INFINITY);
    while (low < high) { /* depth of them reach low; fewer reach what is above high */
        int64_t middle = low + (high - low + 1) / 2;
        if (reaching(scores, count, score_of((int32_t)middle)) >= depth)
            low = middle;
        else
            high = middle - 1;
    }
    return score_of((int32_t)low);
}

/* Some of 16 candidates; writes over 16 places, since Zen 4 is slow at writing less. How many. */
VECTOR static inline int append(float *scores, int32_t *found, __mmask16 those, __m512 some, __m512i rows) {
    _mm512_storeu_ps(scores, _mm512_maskz_compress_ps(those, some));
    _mm512_storeu_si512(found, _mm512_maskz_compress_epi32(those, rows));
    return __builtin_popcount(those);
}

/* Let go of what cannot be among a query's best. */
VECTOR static void tighten(const Kept *kept, long query) {
    int32_t *found = kept->found + query * kept->room;
    float *scores = kept->scores + query * kept->room;
    long count = kept->counts[query], left = 0;
    if (count < kept->depth) return;
    /* The depth-th exact score is at least the depth-th rough one less slack; the rough score of what reaches that is
     * at most slack lower again. */
    float least = place(scores, count, kept->depth) - 2 * kept->slack[query];
    if (!(least > kept->begins[query])) least = kept->begins[query];
    __m512 bound = _mm512_set1_ps(least);
    for (long i = 0; i < count; i += 16) {
        __mmask16 real = count - i >= 16 ? 0xffff : (__mmask16)((1u << (count - i)) - 1);
        __m512 some = _mm512_maskz_loadu_ps(real, scores + i);
        __m512i rows = _mm512_maskz_loadu_epi32(real, found + i);
        __mmask16 stays = _mm512_mask_cmp_ps_mask(real, some, bound, _CMP_GE_OQ);
        left += append(scores + left, found + left, stays, some, rows);
    }
    kept->counts[query] = (int32_t)left;
    kept->begins[query] = least;
}

/* Take what reaches, out of the rough scores (count) of the documents from `first` on. */
VECTOR static void take(const Kept *kept, long query, const float *rough, long first, long count) {
    int32_t *found = kept->found + query * kept->room;
    float *scores = kept->scores + query * kept->room;
    const __m512i steps = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    if (kept->counts[query] < 0) return;
    for (long c = 0; c < count; c += 16) {
        __mmask16 real = count - c >= 16 ? 0xffff : (__mmask16)((1u << (count - c)) - 1);
        __m512 some = _mm512_loadu_ps(rough + c);
        __mmask16 passed = _mm512_mask_cmp_ps_mask(real, some, _mm512_set1_ps(kept->begins[query]), _CMP_GE_OQ);
        if (!passed) continue;
        if (kept->counts[query] + 16 > kept->room) {
            tighten(kept, query);
            /* The bound says too little of this query. */
            if (4 * kept->counts[query] > 3 * kept->room || kept->counts[query] + 16 > kept->room) {
                kept->counts[query] = -1;
                return;
            }
            passed = _mm512_mask_cmp_ps_mask(real, some, _mm512_set1_ps(kept->begins[query]), _CMP_GE_OQ);
        }
        __m512i rows = _mm512_add_epi32(_mm512_set1_epi32((int32_t)(first + c)), steps);
        long last = kept->counts[query];
        kept->counts[query] += append(scores + last, found + last, passed, some, rows);
    }
}

/* ---- both passes ------------------------------------------------------------------------------------------------ */

/* found, scores (n, room) and counts (n): what can be among the best `depth` of `documents` (count, width) by the
 * rough scores, without the document own[q]. asked (n, wide): queries in bf16, n and wide in BLOCKs; room in 16s. 0: done. */
int scan(int kind, const float *documents, int64_t count, int64_t width, const bf16 *asked, const float *slack,
         const int64_t *own, int64_t n, int64_t depth, int64_t room, int32_t *found, float *scores, int32_t *counts) {
    long wide = up(width);
    Product *product = product_of(kind);
    bf16 *tile = aligned_alloc(64, STRIP * wide * sizeof(bf16));
    float *begins = malloc(n * sizeof(float));
    int failed = tile == NULL || begins == NULL;
    Kept kept = {found, scores, counts, begins, slack, depth, room};
    for (long q = 0; q < n && !failed; q++) counts[q] = 0, begins[q] = -FLT_MAX;
#pragma omp parallel if (!failed)
    {
        float *rough = aligned_alloc(64, BLOCK * STRIP * sizeof(float));
        bf16 *rows = aligned_alloc(64, 16 * wide * sizeof(bf16));
        if (rough == NULL || rows == NULL) {
#pragma omp atomic write
            failed = 1;
        }
        begin_products(kind);
#pragma omp barrier
        for (long first = 0; first < count && !failed; first += STRIP) {
            long here = count - first < STRIP ? count - first : STRIP, padded = up(here);
#pragma omp for schedule(static)
            for (long i = 0; i < padded; i += 16) {
                long real = here - i < 16 ? (here - i < 0 ? 0 : here - i) : 16;
                to_bf16(rows, documents + (real ? first + i : 0) * width, real, width, 16, wide);
                pack_transposed(tile + i * wide, rows, 16, wide);
            }
#pragma omp for schedule(static)
            for (long q = 0; q < n; q += BLOCK) {
                int open = 0;
                for (long r = 0; r < BLOCK; r++) open |= counts[q + r] >= 0;
                if (!open) continue;
                product(rough, STRIP, asked + q * wide, wide, tile, BLOCK, padded, wide, 0);
                for (long r = 0; r < BLOCK; r++) {
                    long not_this = own[q + r] - first;
                    if (not_this >= 0 && not_this < here) rough[r * STRIP + not_this] = -INFINITY;
                    take(&kept, q + r, rough + r * STRIP, first, here);
                }
            }
        }
        end_products(kind);
        free(rough), free(rows);
        if (!failed) {
#pragma omp for schedule(static)
            for (long q = 0; q < n; q++) {
                if (counts[q] >= 0) tighten(&kept, q);
                if (counts[q] < depth) counts[q] = -1; /* scores that are no numbers */
            }
        }
    }
    free(tile), free(begins);
    return failed;
}

VECTOR static float inner(const float *left, const float *right, long width) {
    __m512 sums[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
    long c = 0;
    for (; c + 64 <= width; c += 64)
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            sums[i] = _mm512_fmadd_ps(_mm512_loadu_ps(left + c + i * 16), _mm512_loadu_ps(right + c + i * 16), sums[i]);
    for (; c < width; c += 16) {
        __mmask16 real = width - c >= 16 ? 0xffff : (__mmask16)((1u << (width - c)) - 1);
        sums[0] = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(real, left + c), _mm512_maskz_loadu_ps(real, right + c), sums[0]);
    }
    return _mm512_reduce_add_ps((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

/* scores (n, room): of the documents found, in float32. queries (n, width). Equal documents have equal scores. */
int rescore(const float *documents, int64_t count, int64_t width, const float *queries, int64_t n, int64_t room,
            const int32_t *found, const int32_t *counts, float *scores) {
    int32_t *places = calloc(n, sizeof(int32_t));
    if (places == NULL) return 1;
#pragma omp parallel
    for (long first = 0; first < count; first += NEAR) { /* a document is read once for all queries */
#pragma omp for schedule(static)
        for (long q = 0; q < n; q++) {
            const int32_t *rows = found + q * room;
            for (int32_t i = places[q]; i < counts[q] && rows[i] < first + NEAR; i = ++places[q])
                scores[q * room + i] = inner(queries + q * width, documents + rows[i] * width, width);
        }
    }
    free(places);
    return 0;
}

#endif
