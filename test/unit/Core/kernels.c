/*===- kernels.c - Stand-ins for generated kernels, for hand-made artifacts ===*/
#include "helix-c/kernel.h"

/* A group is a row; sizes are part of the name, as generated kernels have static shapes. No library is linked. */

static double exponential(double x) {
  if (x < -700)
    return 0;
  double n = (double)(long)(x * 1.4426950408889634 + (x < 0 ? -0.5 : 0.5)), r = x - n * 0.6931471805599453, sum = 1;
  for (int i = 14; i > 0; --i)
    sum = 1 + sum * r / i;
  union {
    long bits;
    double value;
  } scale = {((long)n + 1023) << 52};
  return sum * scale.value;
}

#define RMS_NORM(H)                                                                                                    \
  void rms_norm_##H(void *const *buffers, const int64_t *scalars, int64_t row) {                                       \
    const float *x = (const float *)buffers[0] + row * H, *scale = buffers[1];                                         \
    float *y = (float *)buffers[2] + row * H;                                                                          \
    double sum = 0;                                                                                                    \
    for (int i = 0; i < H; ++i)                                                                                        \
      sum += (double)x[i] * x[i];                                                                                      \
    double factor = 1 / __builtin_sqrt(sum / H + 1e-5);                                                                \
    for (int i = 0; i < H; ++i)                                                                                        \
      y[i] = (float)(x[i] * factor * scale[i]);                                                                        \
  }

#define ADD(H)                                                                                                         \
  void add_##H(void *const *buffers, const int64_t *scalars, int64_t row) {                                            \
    const float *a = (const float *)buffers[0] + row * H, *b = (const float *)buffers[1] + row * H;                    \
    float *y = (float *)buffers[2] + row * H;                                                                          \
    for (int i = 0; i < H; ++i)                                                                                        \
      y[i] = a[i] + b[i];                                                                                              \
  }

#define SILU_MUL(F)                                                                                                    \
  void silu_mul_##F(void *const *buffers, const int64_t *scalars, int64_t row) {                                       \
    const float *gate = (const float *)buffers[0] + row * F, *up = (const float *)buffers[1] + row * F;                \
    float *y = (float *)buffers[2] + row * F;                                                                          \
    for (int i = 0; i < F; ++i)                                                                                        \
      y[i] = (float)(gate[i] / (1 + exponential(-gate[i])) * up[i]);                                                   \
  }

/* x [batch, T, heads, 4], cos and sin [64, 2], past [batch]; pairs (i, i + 2). */
#define ROPE(HEADS, T)                                                                                                 \
  void rope_##HEADS##_##T(void *const *buffers, const int64_t *scalars, int64_t row) {                                 \
    const float *x = (const float *)buffers[0] + row * HEADS * 4;                                                      \
    const float *cosines = buffers[1], *sines = buffers[2];                                                            \
    float *y = (float *)buffers[4] + row * HEADS * 4;                                                                  \
    int64_t position = ((const int32_t *)buffers[3])[row / T] + row % T;                                               \
    position = position < 0 ? 0 : position > 63 ? 63 : position;                                                       \
    for (int h = 0; h < HEADS; ++h)                                                                                    \
      for (int i = 0; i < 2; ++i) {                                                                                    \
        float c = cosines[position * 2 + i], s = sines[position * 2 + i], a = x[h * 4 + i], b = x[h * 4 + i + 2];      \
        y[h * 4 + i] = a * c - b * s;                                                                                  \
        y[h * 4 + i + 2] = b * c + a * s;                                                                              \
      }                                                                                                                \
  }

RMS_NORM(16)
ADD(16)
SILU_MUL(12)
SILU_MUL(6)
SILU_MUL(4)
SILU_MUL(3)
SILU_MUL(2)
SILU_MUL(1)
ROPE(4, 1)
ROPE(2, 1)
ROPE(1, 1)
ROPE(4, 8)
ROPE(2, 8)
ROPE(1, 8)
