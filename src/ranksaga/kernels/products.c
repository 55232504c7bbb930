/* Products of bf16 matrices with sums in float32, by AVX-512 BF16 or AMX, for the kernels that keep what they make in
 * the cache; and which of the two the processor has. */
#include "products.h"

#ifdef RANKSAGA_KERNELS

#include <sys/syscall.h>
#include <unistd.h>

#define TILES __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16")))

typedef struct {
    uint8_t palette, start, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} TileShape;

/* ---- what the processor can do ---------------------------------------------------------------------------------- */

static int leaf(unsigned number, unsigned sub, unsigned found[4]) {
    unsigned top;
    __asm__("cpuid" : "=a"(top), "=b"(found[1]), "=c"(found[2]), "=d"(found[3]) : "a"(0), "c"(0));
    if (top < number) return 0;
    __asm__("cpuid" : "=a"(found[0]), "=b"(found[1]), "=c"(found[2]), "=d"(found[3]) : "a"(number), "c"(sub));
    return 1;
}

/* WITH_AMX, WITH_AVX512, or NONE: neither, or the operating system does not keep their registers. */
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

Product *product_of(int kind) { return kind == WITH_AMX ? tile_product : vector_product; }

void begin_products(int kind) {
    if (kind == WITH_AMX) tiles_on();
}

void end_products(int kind) {
    if (kind == WITH_AMX) tiles_off();
}

/* ---- packing ---------------------------------------------------------------------------------------------------- */

VECTOR void transpose(__m512i r[16]) {
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

VECTOR void pack_transposed(bf16 *to, const bf16 *rows, long n, long k) {
    for (long i = 0; i < n; i += 16)
        for (long c = 0; c < k; c += 32, to += TILE) {
            __m512i tile[16];
            for (int r = 0; r < 16; r++) tile[r] = _mm512_loadu_si512(rows + (i + r) * k + c);
            transpose(tile);
            for (int r = 0; r < 16; r++) _mm512_storeu_si512(to + r * 32, tile[r]);
        }
}

VECTOR __m512i interleaving(int upper) {
    short places[32];
    for (int i = 0; i < 32; i++) places[i] = (short)((i & 1) * 32 + i / 2 + upper * 16);
    return _mm512_loadu_si512(places);
}

VECTOR void pack(bf16 *to, const bf16 *rows, long row, long k, long n) {
    __m512i lower = interleaving(0), upper = interleaving(1);
    for (long c = 0; c < n; c += 32) {
        bf16 *left = to + c / 16 * (k / 32) * TILE, *right = left + k / 32 * TILE;
        for (long r = 0; r < k; r += 2) {
            __m512i even = _mm512_loadu_si512(rows + r * row + c), odd = _mm512_loadu_si512(rows + (r + 1) * row + c);
            _mm512_storeu_si512(left + r * 16, _mm512_permutex2var_epi16(even, lower, odd));
            _mm512_storeu_si512(right + r * 16, _mm512_permutex2var_epi16(even, upper, odd));
        }
    }
}

#else

int kernels_kind(void) { return 0; }

#endif
