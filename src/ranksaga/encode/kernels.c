/* What torch does slowly in a transformer's bf16 pass on a CPU with AVX-512 BF16 or AMX, forward and backward:
 * attention over packed texts, GELU, layer norm.
 *
 * Attention: a text's keys and values are packed once per head into the layout that the matrix instructions read; then
 * a block of 32 queries at a time has its scores, their softmax and the weighted sum of values computed while they lie
 * in the cache. No score goes to memory, no text is padded to another's length. The backward pass computes the scores
 * again from the sums that the forward pass kept (Dao et al., FlashAttention, 2022, without its blocks of keys: a text's
 * keys fit in the cache).
 *
 * Rows are tokens. `threes` (tokens, 3, heads, depth) holds queries, keys and values of all texts, text i in the rows
 * offsets[i] to offsets[i + 1]. Every matrix in scratch has sides that are multiples of 32, filled up with zeros.
 *
 * What is called from outside gives 0, or 1 where there is no memory.
 */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define VECTOR __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))
#define TILES __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16")))
#define BLOCK 32 /* rows and columns of the smallest product, in elements */
#define TILE 512 /* elements of a packed tile: 16 rows of 16 pairs */
#define NONE 0
#define WITH_AVX512 1
#define WITH_AMX 2

typedef uint16_t bf16;
typedef struct {
    uint8_t palette, start, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} TileShape;

/* c (m, n) = a (m, k) times b, added to c where `add`; m, n and k in BLOCKs; b in tiles [n / 16][k / 32]. */
typedef void Product(float *c, long c_row, const bf16 *a, long a_row, const bf16 *b, long m, long n, long k, int add);

/* ---- what the processor can do ---------------------------------------------------------------------------------- */

static int leaf(unsigned number, unsigned sub, unsigned found[4]) {
    unsigned top;
    __asm__("cpuid" : "=a"(top), "=b"(found[1]), "=c"(found[2]), "=d"(found[3]) : "a"(0), "c"(0));
    if (top < number) return 0;
    __asm__("cpuid" : "=a"(found[0]), "=b"(found[1]), "=c"(found[2]), "=d"(found[3]) : "a"(number), "c"(sub));
    return 1;
}

/* 2: AMX, 1: AVX-512 BF16, 0: neither, or the operating system does not keep their registers. */
int kernels_kind(void) {
    unsigned r[4], low, high;
    if (!leaf(1, 0, r) || !(r[2] >> 27 & 1)) return NONE;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low & 0xe6) != 0xe6 || !leaf(7, 0, r)) return NONE;
    unsigned wanted = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; /* F, DQ, BW, VL */
    int tiles = (r[3] >> 24 & 1) && (r[3] >> 22 & 1) && (low & 0x60000) == 0x60000;
    if ((r[1] & wanted) != wanted || !leaf(7, 1, r) || !(r[0] >> 5 & 1)) return NONE;
    if (!tiles) return WITH_AVX512;
    const long ask = 0x1023, tile_data = 18; /* ARCH_REQ_XCOMP_PERM: Linux gives tiles to those that ask */
    return syscall(SYS_arch_prctl, ask, tile_data) == 0 ? WITH_AMX : WITH_AVX512;
}

/* ---- products --------------------------------------------------------------------------------------------------- */

/* Not on the stack: gcc believes that loading it reads its first bytes alone, and would leave the others unwritten. */
static const TileShape FULL = {.palette = 1,
                               .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
                               .rows = {16, 16, 16, 16, 16, 16, 16, 16}};

TILES static void tiles_on(void) { _tile_loadconfig(&FULL); }

TILES static void tiles_off(void) { _tile_release(); }

TILES static void tile_product(float *c, long c_row, const bf16 *a, long a_row, const bf16 *b, long m, long n, long k,
                               int add) {
    long steps = k / BLOCK;
    __asm__ volatile("" ::: "memory"); /* gcc does not know that tiles are loaded from memory */
    for (long j = 0; j < n; j += BLOCK) {
        const bf16 *left = b + j / 16 * steps * TILE, *right = left + steps * TILE;
        for (long i = 0; i < m; i += BLOCK) {
            float *upper = c + i * c_row + j, *lower = upper + 16 * c_row;
            const bf16 *over = a + i * a_row, *under = over + 16 * a_row;
            if (add) {
                _tile_loadd(0, upper, c_row * 4);
                _tile_loadd(1, upper + 16, c_row * 4);
                _tile_loadd(2, lower, c_row * 4);
                _tile_loadd(3, lower + 16, c_row * 4);
            } else {
                _tile_zero(0);
                _tile_zero(1);
                _tile_zero(2);
                _tile_zero(3);
            }
            for (long s = 0; s < steps; s++) {
                _tile_loadd(4, over + s * BLOCK, a_row * 2);
                _tile_loadd(6, left + s * TILE, 64);
                _tile_loadd(7, right + s * TILE, 64);
                _tile_loadd(5, under + s * BLOCK, a_row * 2);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
            _tile_stored(0, upper, c_row * 4);
            _tile_stored(1, upper + 16, c_row * 4);
            _tile_stored(2, lower, c_row * 4);
            _tile_stored(3, lower + 16, c_row * 4);
        }
    }
}

#define ROWS 8
VECTOR static void vector_product(float *c, long c_row, const bf16 *a, long a_row, const bf16 *b, long m, long n,
                                  long k, int add) {
    long steps = k / BLOCK;
    for (long j = 0; j < n; j += BLOCK) {
        const bf16 *left = b + j / 16 * steps * TILE, *right = left + steps * TILE;
        for (long i = 0; i < m; i += ROWS) {
            __m512 sums[ROWS][2];
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) {
                sums[r][0] = add ? _mm512_loadu_ps(c + (i + r) * c_row + j) : _mm512_setzero_ps();
                sums[r][1] = add ? _mm512_loadu_ps(c + (i + r) * c_row + j + 16) : _mm512_setzero_ps();
            }
            for (long p = 0; p < k / 2; p++) {
                __m512bh first = (__m512bh)_mm512_loadu_si512(left + p * 32);
                __m512bh second = (__m512bh)_mm512_loadu_si512(right + p * 32);
#pragma GCC unroll 8
                for (int r = 0; r < ROWS; r++) {
                    int pair;
                    memcpy(&pair, a + (i + r) * a_row + p * 2, 4);
                    __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
                    sums[r][0] = _mm512_dpbf16_ps(sums[r][0], both, first);
                    sums[r][1] = _mm512_dpbf16_ps(sums[r][1], both, second);
                }
            }
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) {
                _mm512_storeu_ps(c + (i + r) * c_row + j, sums[r][0]);
                _mm512_storeu_ps(c + (i + r) * c_row + j + 16, sums[r][1]);
            }
        }
    }
}

/* ---- packing ---------------------------------------------------------------------------------------------------- */

VECTOR static void transpose(__m512i r[16]) { /* 16 x 16 of 32 bits */
    __m512i t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
        t[4 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xdd);
        t[8 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
        t[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xdd);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
        r[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd);
        r[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
        r[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xdd);
    }
}

/* A head's rows out of a matrix, (rows, columns) to (padded, wide), the rest zeros. */
VECTOR static void cut(bf16 *to, const bf16 *from, long stride, long rows, long columns, long padded, long wide) {
    for (long r = 0; r < rows; r++)
        for (long c = 0; c < wide; c += 32) {
            __mmask32 real = columns - c >= 32 ? 0xffffffffu : (1u << (columns - c)) - 1;
            _mm512_storeu_si512(to + r * wide + c, _mm512_maskz_loadu_epi16(real, from + r * stride + c));
        }
    memset(to + rows * wide, 0, (padded - rows) * wide * sizeof(bf16));
}

/* Rows (n, k) as the right side of a product with their transpose. */
VECTOR static void pack_transposed(bf16 *to, const bf16 *rows, long n, long k) {
    for (long i = 0; i < n; i += 16)
        for (long c = 0; c < k; c += 32, to += TILE) {
            __m512i tile[16];
            for (int r = 0; r < 16; r++) tile[r] = _mm512_loadu_si512(rows + (i + r) * k + c);
            transpose(tile);
            for (int r = 0; r < 16; r++) _mm512_storeu_si512(to + r * 32, tile[r]);
        }
}

VECTOR static __m512i interleaving(int upper) { /* of two rows, columns 0 to 15 or 16 to 31 */
    short places[32];
    for (int i = 0; i < 32; i++) places[i] = (short)((i & 1) * 32 + i / 2 + upper * 16);
    return _mm512_loadu_si512(places);
}

/* Rows (k, n) as the right side of a product. */
VECTOR static void pack(bf16 *to, const bf16 *rows, long k, long n) {
    __m512i lower = interleaving(0), upper = interleaving(1);
    for (long c = 0; c < n; c += 32) {
        bf16 *left = to + c / 16 * (k / 32) * TILE, *right = left + k / 32 * TILE;
        for (long r = 0; r < k; r += 2) {
            __m512i even = _mm512_loadu_si512(rows + r * n + c), odd = _mm512_loadu_si512(rows + (r + 1) * n + c);
            _mm512_storeu_si512(left + r * 16, _mm512_permutex2var_epi16(even, lower, odd));
            _mm512_storeu_si512(right + r * 16, _mm512_permutex2var_epi16(even, upper, odd));
        }
    }
}

/* Rows (n, k), n in BLOCKs, to blocks [n / 32][k][32] of their transpose. */
VECTOR static void turn(bf16 *to, const bf16 *packed, long n, long k) {
    short places[2][32];
    for (int i = 0; i < 32; i++) places[0][i] = (short)(2 * i), places[1][i] = (short)(2 * i + 1);
    __m512i even = _mm512_loadu_si512(places[0]), odd = _mm512_loadu_si512(places[1]);
    for (long i = 0; i < n; i += 32)
        for (long c = 0; c < k; c += 2, to += 64) {
            const bf16 *pair = packed + (i / 16 * (k / 32) + c / 32) * TILE + c % 32 * 16;
            __m512i first = _mm512_loadu_si512(pair), second = _mm512_loadu_si512(pair + k / 32 * TILE);
            _mm512_storeu_si512(to, _mm512_permutex2var_epi16(first, even, second));
            _mm512_storeu_si512(to + 32, _mm512_permutex2var_epi16(first, odd, second));
        }
}

/* ---- arithmetic ------------------------------------------------------------------------------------------------- */

VECTOR static inline __m512 power(__m512 x) { /* 2 to the x, to 4e-5: a tenth of a bf16's last digit */
    __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), part = x - whole;
    __m512 sum = _mm512_fmadd_ps(part, _mm512_set1_ps(0.009618129f), _mm512_set1_ps(0.05550411f));
    sum = _mm512_fmadd_ps(sum, part, _mm512_set1_ps(0.2402265f));
    sum = _mm512_fmadd_ps(sum, part, _mm512_set1_ps(0.6931472f));
    return _mm512_scalef_ps(_mm512_fmadd_ps(sum, part, _mm512_set1_ps(1.0f)), whole);
}

VECTOR static inline __m512i rounded(__m512 first, __m512 second) {
    return (__m512i)_mm512_cvtne2ps_pbh(second, first);
}

VECTOR static inline void store(bf16 *to, const float *row, float factor, long columns) {
    __m512 times = _mm512_set1_ps(factor);
    for (long c = 0; c < columns; c += 32) {
        __mmask32 real = columns - c >= 32 ? 0xffffffffu : (1u << (columns - c)) - 1;
        __m512 first = _mm512_loadu_ps(row + c) * times, second = _mm512_loadu_ps(row + c + 16) * times;
        _mm512_mask_storeu_epi16(to + c, real, rounded(first, second));
    }
}

/* Scores (columns) to weights, not yet divided by their sum; the sum, and the logarithm to base 2 of all. */
VECTOR static float soften(bf16 *weights, const float *scores, long columns, long padded, float factor, float *log) {
    __m512 top = _mm512_set1_ps(-INFINITY), total = _mm512_setzero_ps(), times = _mm512_set1_ps(factor);
    long whole = columns / 32 * 32;
    __mmask16 real[2];
    for (int h = 0; h < 2; h++) {
        long left = columns - whole - h * 16;
        real[h] = left >= 16 ? 0xffff : left <= 0 ? 0 : (__mmask16)((1u << left) - 1);
    }
    for (long c = 0; c < whole; c += 16) top = _mm512_max_ps(top, _mm512_loadu_ps(scores + c));
    if (whole < padded)
        for (int h = 0; h < 2; h++)
            top = _mm512_mask_max_ps(top, real[h], top, _mm512_loadu_ps(scores + whole + h * 16));
    float highest = _mm512_reduce_max_ps(top) * factor;
    __m512 high = _mm512_set1_ps(highest);
    for (long c = 0; c < whole; c += 32) {
        __m512 first = power(_mm512_fmsub_ps(_mm512_loadu_ps(scores + c), times, high));
        __m512 second = power(_mm512_fmsub_ps(_mm512_loadu_ps(scores + c + 16), times, high));
        total += first + second;
        _mm512_storeu_si512(weights + c, rounded(first, second));
    }
    if (whole < padded) {
        __m512 first = power(_mm512_fmsub_ps(_mm512_loadu_ps(scores + whole), times, high));
        __m512 second = power(_mm512_fmsub_ps(_mm512_loadu_ps(scores + whole + 16), times, high));
        first = _mm512_maskz_mov_ps(real[0], first), second = _mm512_maskz_mov_ps(real[1], second);
        total += first + second;
        _mm512_storeu_si512(weights + whole, rounded(first, second));
    }
    float sum = _mm512_reduce_add_ps(total);
    *log = highest + log2f(sum);
    return sum;
}

static long up(long size) { return (size + BLOCK - 1) / BLOCK * BLOCK; }

static void *part(char **rest, long bytes) {
    void *found = *rest;
    *rest += (bytes + 63) / 64 * 64;
    return found;
}

static long longest(const int64_t *offsets, long texts) {
    long most = 0;
    for (long i = 0; i < texts; i++)
        if (offsets[i + 1] - offsets[i] > most) most = offsets[i + 1] - offsets[i];
    return most;
}

/* ---- one head of one text --------------------------------------------------------------------------------------- */

typedef struct {
    const bf16 *threes, *seen, *gradient;
    bf16 *out;
    float *logs;
    long tokens, heads, depth;
    Product *product;
} Job;

VECTOR static void forward(const Job *job, long start, long length, long head, char *scratch) {
    long depth = job->depth, wide = up(depth), padded = up(length), width = job->heads * depth, stride = 3 * width;
    bf16 *queries = part(&scratch, padded * wide * 2), *rows = part(&scratch, padded * wide * 2);
    bf16 *keys = part(&scratch, padded * wide * 2), *values = part(&scratch, padded * wide * 2);
    bf16 *weights = part(&scratch, BLOCK * padded * 2);
    float *scores = part(&scratch, BLOCK * padded * 4), *found = part(&scratch, BLOCK * wide * 4);
    const bf16 *base = job->threes + start * stride + head * depth;
    cut(queries, base, stride, length, depth, padded, wide);
    cut(rows, base + width, stride, length, depth, padded, wide);
    pack_transposed(keys, rows, padded, wide);
    cut(rows, base + 2 * width, stride, length, depth, padded, wide);
    pack(values, rows, padded, wide);
    float factor = 1.44269504f / sqrtf((float)depth), sums[BLOCK], log;
    for (long i = 0; i < length; i += BLOCK) {
        long real = length - i < BLOCK ? length - i : BLOCK;
        job->product(scores, padded, queries + i * wide, wide, keys, BLOCK, padded, wide, 0);
        for (long r = 0; r < real; r++) {
            sums[r] = soften(weights + r * padded, scores + r * padded, length, padded, factor, &log);
            if (job->logs) job->logs[head * job->tokens + start + i + r] = log;
        }
        memset(weights + real * padded, 0, (BLOCK - real) * padded * 2);
        job->product(found, wide, weights, padded, values, BLOCK, wide, padded, 0);
        for (long r = 0; r < real; r++)
            store(job->out + (start + i + r) * width + head * depth, found + r * wide, 1 / sums[r], depth);
    }
}

VECTOR static void backward(const Job *job, long start, long length, long head, char *scratch) {
    long depth = job->depth, wide = up(depth), padded = up(length), width = job->heads * depth, stride = 3 * width;
    long side = padded * wide * 2;
    bf16 *queries = part(&scratch, side), *keys = part(&scratch, side), *values = part(&scratch, side);
    bf16 *gradient = part(&scratch, side), *packed = part(&scratch, side), *turned = part(&scratch, side);
    bf16 *queries_across = part(&scratch, side), *queries_down = part(&scratch, side);
    bf16 *gradient_across = part(&scratch, side), *gradient_down = part(&scratch, side);
    bf16 *weights = part(&scratch, BLOCK * padded * 2), *moves = part(&scratch, BLOCK * padded * 2);
    bf16 *moves_down = part(&scratch, BLOCK * padded * 2);
    float *scores = part(&scratch, BLOCK * padded * 4), *pulls = part(&scratch, BLOCK * padded * 4);
    float *of_keys = part(&scratch, BLOCK * wide * 4), *of_values = part(&scratch, BLOCK * wide * 4);
    float *of_queries = part(&scratch, padded * wide * 4);
    float *logs = part(&scratch, padded * 4), *means = part(&scratch, padded * 4);
    const bf16 *base = job->threes + start * stride + head * depth;
    const bf16 *given = job->gradient + start * width + head * depth, *seen = job->seen + start * width + head * depth;
    bf16 *out = job->out + start * stride + head * depth;
    cut(queries, base, stride, length, depth, padded, wide);
    cut(keys, base + width, stride, length, depth, padded, wide);
    cut(values, base + 2 * width, stride, length, depth, padded, wide);
    cut(gradient, given, width, length, depth, padded, wide);
    pack_transposed(queries_across, queries, padded, wide);
    pack(queries_down, queries, padded, wide);
    pack_transposed(gradient_across, gradient, padded, wide);
    pack(gradient_down, gradient, padded, wide);
    pack_transposed(packed, keys, padded, wide);
    turn(turned, packed, padded, wide);
    float scale = 1 / sqrtf((float)depth), factor = 1.44269504f * scale;
    memcpy(logs, job->logs + head * job->tokens + start, length * 4);
    for (long r = 0; r < length; r++) { /* what a query's weights pull on average */
        __m512 sum = _mm512_setzero_ps();
        for (long c = 0; c < depth; c += 32) {
            __mmask32 real = depth - c >= 32 ? 0xffffffffu : (1u << (depth - c)) - 1;
            __m512i left = _mm512_maskz_loadu_epi16(real, given + r * width + c);
            __m512i right = _mm512_maskz_loadu_epi16(real, seen + r * width + c);
            sum = _mm512_dpbf16_ps(sum, (__m512bh)left, (__m512bh)right);
        }
        means[r] = _mm512_reduce_add_ps(sum);
    }
    for (long r = length; r < padded; r++) logs[r] = 1e6f, means[r] = 0; /* 2 to the -1e6: no weight */
    __m512 times = _mm512_set1_ps(factor), scales = _mm512_set1_ps(scale);
    __m512i lower = interleaving(0), upper = interleaving(1);
    for (long j = 0; j < padded; j += BLOCK) { /* rows are keys, columns queries */
        job->product(scores, padded, keys + j * wide, wide, queries_across, BLOCK, padded, wide, 0);
        job->product(pulls, padded, values + j * wide, wide, gradient_across, BLOCK, padded, wide, 0);
        for (long r = 0; r < BLOCK; r += 2)
            for (long c = 0; c < padded; c += 32) {
                __m512i pair[2];
                for (int h = 0; h < 2; h++) {
                    long at = (r + h) * padded + c;
                    __m512 weight[2], move[2];
                    for (int v = 0; v < 2; v++) {
                        __m512 score = _mm512_loadu_ps(scores + at + v * 16), pull = _mm512_loadu_ps(pulls + at + v * 16);
                        weight[v] = power(_mm512_fmsub_ps(score, times, _mm512_loadu_ps(logs + c + v * 16)));
                        move[v] = weight[v] * (pull - _mm512_loadu_ps(means + c + v * 16)) * scales;
                    }
                    __mmask32 real = j + r + h < length ? 0xffffffffu : 0;
                    _mm512_storeu_si512(weights + at, _mm512_maskz_mov_epi16(real, rounded(weight[0], weight[1])));
                    pair[h] = _mm512_maskz_mov_epi16(real, rounded(move[0], move[1]));
                    _mm512_storeu_si512(moves + at, pair[h]);
                }
                bf16 *down = moves_down + c / 16 * TILE + r * 16;
                _mm512_storeu_si512(down, _mm512_permutex2var_epi16(pair[0], lower, pair[1]));
                _mm512_storeu_si512(down + TILE, _mm512_permutex2var_epi16(pair[0], upper, pair[1]));
            }
        job->product(of_values, wide, weights, padded, gradient_down, BLOCK, wide, padded, 0);
        job->product(of_keys, wide, moves, padded, queries_down, BLOCK, wide, padded, 0);
        job->product(of_queries, padded, turned + j * wide, BLOCK, moves_down, wide, padded, BLOCK, j > 0);
        for (long r = 0; r < BLOCK && j + r < length; r++) {
            store(out + (j + r) * stride + width, of_keys + r * wide, 1, depth);
            store(out + (j + r) * stride + 2 * width, of_values + r * wide, 1, depth);
        }
    }
    float row[BLOCK * 16];
    for (long i = 0; i < length; i += 16)
        for (long c = 0; c < depth; c += BLOCK) {
            for (int h = 0; h < 2; h++) {
                __m512i tile[16];
                for (int r = 0; r < 16; r++) tile[r] = _mm512_loadu_si512(of_queries + (c + h * 16 + r) * padded + i);
                transpose(tile);
                for (int r = 0; r < 16; r++) _mm512_storeu_si512(row + r * BLOCK + h * 16, tile[r]);
            }
            long columns = depth - c < BLOCK ? depth - c : BLOCK;
            for (long r = 0; r < 16 && i + r < length; r++) store(out + (i + r) * stride + c, row + r * BLOCK, 1, columns);
        }
}

/* ---- all heads of all texts ------------------------------------------------------------------------------------- */

static int each(void step(const Job *, long, long, long, char *), Job *job, const int64_t *offsets, long texts, int kind,
                long bytes) {
    int failed = 0;
    job->product = kind == WITH_AMX ? tile_product : vector_product;
#pragma omp parallel
    {
        char *scratch = aligned_alloc(64, (bytes + 63) / 64 * 64);
        if (scratch == NULL) {
#pragma omp atomic write
            failed = 1;
        }
        if (kind == WITH_AMX) tiles_on();
#pragma omp for schedule(dynamic, 1)
        for (long i = 0; i < texts * job->heads; i++) {
            long text = i / job->heads;
            if (scratch != NULL && offsets[text + 1] > offsets[text])
                step(job, offsets[text], offsets[text + 1] - offsets[text], i % job->heads, scratch);
        }
        if (kind == WITH_AMX) tiles_off();
        free(scratch);
    }
    return failed;
}

/* seen (tokens, heads, depth), and logs (heads, tokens) unless NULL: the logarithms that backward needs. 0: done. */
int attention_forward(int kind, const bf16 *threes, const int64_t *offsets, int64_t texts, int64_t heads, int64_t depth,
                      bf16 *seen, float *logs) {
    long padded = up(longest(offsets, texts)), wide = up(depth);
    Job job = {.threes = threes, .out = seen, .logs = logs, .tokens = offsets[texts], .heads = heads, .depth = depth};
    return each(forward, &job, offsets, texts, kind, 8 * padded * wide + 6 * BLOCK * padded + 4 * BLOCK * wide + 1024);
}

/* of_threes (tokens, 3, heads, depth): gradients of threes, given those of seen. 0: done. */
int attention_backward(int kind, const bf16 *threes, const int64_t *offsets, int64_t texts, int64_t heads,
                       int64_t depth, const bf16 *seen, const float *logs, const bf16 *gradient, bf16 *of_threes) {
    long padded = up(longest(offsets, texts)), wide = up(depth);
    Job job = {threes, seen, gradient, of_threes, (float *)logs, offsets[texts], heads, depth, NULL};
    long bytes = 24 * padded * wide + 14 * BLOCK * padded + 8 * BLOCK * wide + 8 * padded + 2048;
    return each(backward, &job, offsets, texts, kind, bytes);
}

/* ---- GELU ------------------------------------------------------------------------------------------------------- */

VECTOR static inline __m512 wide(const bf16 *from, __mmask16 real) {
    return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(real, from)), 16);
}

VECTOR static inline void narrow(bf16 *to, __mmask16 real, __m512 values) {
    _mm256_mask_storeu_epi16(to, real, (__m256i)_mm512_cvtneps_pbh(values));
}

VECTOR static inline __mmask16 first(long count) { return count >= 16 ? 0xffff : (__mmask16)((1u << count) - 1); }

/* The normal distribution at x, and its density: Abramowitz and Stegun 7.1.26, to 1e-4 with the two approximations. */
VECTOR static inline __m512 normal(__m512 x, __m512 *density) {
    __m512 bell = power(x * x * _mm512_set1_ps(-0.72134752f));
    __m512 size = _mm512_abs_ps(x);
    __m512 t = _mm512_rcp14_ps(_mm512_fmadd_ps(size, _mm512_set1_ps(0.3275911f * 0.70710678f), _mm512_set1_ps(1.0f)));
    __m512 sum = _mm512_fmadd_ps(t, _mm512_set1_ps(1.061405429f), _mm512_set1_ps(-1.453152027f));
    sum = _mm512_fmadd_ps(sum, t, _mm512_set1_ps(1.421413741f));
    sum = _mm512_fmadd_ps(sum, t, _mm512_set1_ps(-0.284496736f));
    sum = _mm512_fmadd_ps(sum, t, _mm512_set1_ps(0.254829592f));
    __m512 tail = sum * t * bell * _mm512_set1_ps(0.5f);
    *density = bell * _mm512_set1_ps(0.39894228f);
    __mmask16 above = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GT_OQ);
    return _mm512_mask_sub_ps(tail, above, _mm512_set1_ps(1.0f), tail);
}

/* out (count) = GELU of in, with the error function; or, given a gradient, the gradient of in. */
VECTOR static void gelu_part(const bf16 *in, const bf16 *gradient, bf16 *out, long count) {
    for (long i = 0; i < count; i += 16) {
        __mmask16 real = first(count - i);
        __m512 x = wide(in + i, real), density, share = normal(x, &density);
        if (gradient == NULL)
            narrow(out + i, real, x * share);
        else
            narrow(out + i, real, wide(gradient + i, real) * _mm512_fmadd_ps(x, density, share));
    }
}

int gelu(const bf16 *in, const bf16 *gradient, bf16 *out, int64_t count) {
    const long step = 8192;
#pragma omp parallel for schedule(static)
    for (long i = 0; i < count; i += step)
        gelu_part(in + i, gradient == NULL ? NULL : gradient + i, out + i, count - i < step ? count - i : step);
    return 0;
}

/* ---- layer norm ------------------------------------------------------------------------------------------------- */

VECTOR static void norm_row(const bf16 *in, const float *weight, const float *bias, float tiny, bf16 *out,
                            float *moments, long width) {
    __m512 sum = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
    for (long c = 0; c < width; c += 16) sum += wide(in + c, first(width - c));
    float mean = _mm512_reduce_add_ps(sum) / width;
    for (long c = 0; c < width; c += 16) {
        __mmask16 real = first(width - c);
        __m512 x = _mm512_maskz_sub_ps(real, wide(in + c, real), _mm512_set1_ps(mean));
        squares = _mm512_fmadd_ps(x, x, squares);
    }
    float scale = 1 / sqrtf(_mm512_reduce_add_ps(squares) / width + tiny);
    for (long c = 0; c < width; c += 16) {
        __mmask16 real = first(width - c);
        __m512 x = (wide(in + c, real) - mean) * scale;
        __m512 times = _mm512_maskz_loadu_ps(real, weight + c), plus = _mm512_maskz_loadu_ps(real, bias + c);
        narrow(out + c, real, _mm512_fmadd_ps(x, times, plus));
    }
    if (moments) moments[0] = mean, moments[1] = scale;
}

/* out (rows, width); moments (rows, 2) unless NULL: mean and one over the deviation, which backward needs. */
int norm_forward(const bf16 *in, const float *weight, const float *bias, double tiny, bf16 *out, float *moments,
                 int64_t rows, int64_t width) {
#pragma omp parallel for schedule(static)
    for (long r = 0; r < rows; r++)
        norm_row(in + r * width, weight, bias, (float)tiny, out + r * width, moments ? moments + 2 * r : NULL, width);
    return 0;
}

VECTOR static void norm_row_backward(const bf16 *in, const float *weight, const float *moments, const bf16 *gradient,
                                     bf16 *out, float *of_weight, float *of_bias, long width) {
    __m512 mean = _mm512_set1_ps(moments[0]), scale = _mm512_set1_ps(moments[1]);
    __m512 sum = _mm512_setzero_ps(), along = _mm512_setzero_ps();
    for (long c = 0; c < width; c += 16) {
        __mmask16 real = first(width - c);
        __m512 x = _mm512_maskz_sub_ps(real, wide(in + c, real), mean) * scale, given = wide(gradient + c, real);
        __m512 pull = given * _mm512_maskz_loadu_ps(real, weight + c);
        sum += pull, along = _mm512_fmadd_ps(pull, x, along);
        _mm512_mask_storeu_ps(of_weight + c, real,
                              _mm512_fmadd_ps(given, x, _mm512_maskz_loadu_ps(real, of_weight + c)));
        _mm512_mask_storeu_ps(of_bias + c, real, given + _mm512_maskz_loadu_ps(real, of_bias + c));
    }
    float shift = _mm512_reduce_add_ps(sum) / width, slope = _mm512_reduce_add_ps(along) / width;
    for (long c = 0; c < width; c += 16) {
        __mmask16 real = first(width - c);
        __m512 x = (wide(in + c, real) - mean) * scale;
        __m512 pull = wide(gradient + c, real) * _mm512_maskz_loadu_ps(real, weight + c);
        narrow(out + c, real, (pull - shift - x * slope) * scale);
    }
}

/* out: gradient of in; of_both (2, width): of weight and bias, summed in the order of rows within `parts` parts of
 * them and then in the order of parts, whatever thread took which. 0: done. */
int norm_backward(const bf16 *in, const float *weight, const float *moments, const bf16 *gradient, bf16 *out,
                  float *of_both, int64_t rows, int64_t width) {
    const long parts = 64;
    float *sums = calloc(parts * 2 * width, sizeof(float));
    if (sums == NULL) return 1;
#pragma omp parallel for schedule(dynamic, 1)
    for (long p = 0; p < parts; p++)
        for (long r = rows * p / parts; r < rows * (p + 1) / parts; r++)
            norm_row_backward(in + r * width, weight, moments + 2 * r, gradient + r * width, out + r * width,
                              sums + 2 * p * width, sums + (2 * p + 1) * width, width);
    memset(of_both, 0, 2 * width * sizeof(float));
    for (long p = 0; p < parts; p++)
        for (long c = 0; c < 2 * width; c++) of_both[c] += sums[2 * p * width + c];
    free(sums);
    return 0;
}

#else

int kernels_kind(void) { return 0; }

#endif
