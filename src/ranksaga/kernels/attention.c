/* Attention over packed texts in bf16, forward and backward.
 *
 * A text's keys and values are packed once per head into the layout that the matrix instructions read; then
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
#include "products.h"

#ifdef RANKSAGA_KERNELS

/* ---- packing ---------------------------------------------------------------------------------------------------- */

/* A head's rows out of a matrix, (rows, columns) to (padded, wide), the rest zeros. */
VECTOR static void cut(bf16 *to, const bf16 *from, long stride, long rows, long columns, long padded, long wide) {
    for (long r = 0; r < rows; r++)
        for (long c = 0; c < wide; c += 32) {
            __mmask32 real = columns - c >= 32 ? 0xffffffffu : (1u << (columns - c)) - 1;
            _mm512_storeu_si512(to + r * wide + c, _mm512_maskz_loadu_epi16(real, from + r * stride + c));
        }
    memset(to + rows * wide, 0, (padded - rows) * wide * sizeof(bf16));
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
    pack(values, rows, wide, padded, wide);
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
    pack(queries_down, queries, wide, padded, wide);
    pack_transposed(gradient_across, gradient, padded, wide);
    pack(gradient_down, gradient, wide, padded, wide);
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
    job->product = product_of(kind);
#pragma omp parallel
    {
        char *scratch = aligned_alloc(64, (bytes + 63) / 64 * 64);
        if (scratch == NULL) {
#pragma omp atomic write
            failed = 1;
        }
        begin_products(kind);
#pragma omp for schedule(dynamic, 1)
        for (long i = 0; i < texts * job->heads; i++) {
            long text = i / job->heads;
            if (scratch != NULL && offsets[text + 1] > offsets[text])
                step(job, offsets[text], offsets[text + 1] - offsets[text], i % job->heads, scratch);
        }
        end_products(kind);
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

#endif
