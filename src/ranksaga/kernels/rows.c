/* What is done to rows of bf16 between the products of a transformer: GELU and layer norm, forward and backward. */
#include "products.h"

#ifdef RANKSAGA_KERNELS

/* ---- GELU ------------------------------------------------------------------------------------------------------- */

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

#endif
