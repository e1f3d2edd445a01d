// Convolution-like kernels of the ai.nashc operators on the CPU: plain C ABI, free of onnxruntime types.
//
// A kernel is made once for a layer, packs the weights, and is then immutable: any number of threads may run it at the
// same time, for any batch and input size. Tensors are dense NCHW; a 1-D layer is one row high.
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NASHC_API __attribute__((visibility("default")))

// What is summed over the taps of a window, and the types of x and of the weights [M, C/group, kh, kw].
enum nashc_op {
    NASHC_ADDER_F32 = 0,     // -|x - w|, float, float
    NASHC_ADDER_S8 = 1,      // -|x - w|, int8, int8
    NASHC_ADDER_U8 = 2,      // -|x - w|, uint8, int8
    NASHC_MULTIPLY_F32 = 3,  // x * w, float, float
    NASHC_MULTIPLY_S8 = 4,   // (x - x_zero_point) * w, int8, int32; a padded tap adds 0
    NASHC_MULTIPLY_U8 = 5,   // (x - x_zero_point) * w, uint8, int32
};

// What becomes of a sum before it is stored.
enum nashc_output {
    NASHC_SUM = 0,  // as it is: float, or int32
    NASHC_F32 = 1,  // min(max(sum * scale[m] + bias[m], lowest), highest)
    NASHC_S8 = 2,   // that, rounded half to even, plus output_zero_point, saturated to int8
    NASHC_U8 = 3,   // the same for uint8
};

typedef struct nashc_layer {
    int32_t op, output;
    int32_t in_channels, out_channels, groups;
    int32_t kernel[2], strides[2], dilations[2];  // y, x
    int32_t pads[4];                              // top, left, bottom, right
    int32_t output_zero_point;
    float lowest, highest;  // -INFINITY, INFINITY: no limit
    const float* scale;     // [M]; only read while the kernel is made, like the weights
    const float* bias;      // [M]; NULL is 0
} nashc_layer;

typedef struct nashc_kernel nashc_kernel;

// Runs task(context, 0..count-1), in any order and on any threads, and returns when all are done.
typedef void (*nashc_task)(void* context, size_t index);
typedef void (*nashc_parallel_for)(void* pool, nashc_task task, void* context, size_t count);

// NULL and a message when the layer is refused: sizes, zero or negative, or a sum that 32 bits may not hold.
// instruction_set NULL takes the best of this machine.
NASHC_API nashc_kernel* nashc_kernel_create(const nashc_layer* layer, const void* weights, const char* instruction_set,
                                            char* message, size_t message_size);
NASHC_API void nashc_kernel_destroy(nashc_kernel* kernel);
NASHC_API const char* nashc_kernel_instruction_set(const nashc_kernel* kernel);
// 0, or -1 where the window does not fit into the padded input
NASHC_API int nashc_kernel_output_size(const nashc_kernel* kernel, int64_t height, int64_t width, int64_t* out_height,
                                       int64_t* out_width);
// parallel_for NULL: on the calling thread. `threads` says into how many parts it is worth to divide the work.
// 0, or -1 where sizes are not positive, the window does not fit, or memory runs out.
NASHC_API int nashc_kernel_run(const nashc_kernel* kernel, const void* x, int64_t batch, int64_t height, int64_t width,
                               int32_t x_zero_point, void* y, nashc_parallel_for parallel_for, void* pool,
                               int32_t threads);

// The built-in pool: parallel_for = nashc_pool_run, pool = NULL; calls from several threads take turns.
// A forked process has a pool of its own.
NASHC_API void nashc_pool_run(void* pool, nashc_task task, void* context, size_t count);
NASHC_API void nashc_pool_resize(int32_t threads);

// Gradient of the adder layer for x as AdderNet trains it (arXiv 1912.13200, eq. 6):
// dx[n, c, i] = sum over m, taps of dy[n, m, o] * HardTanh(w[m, c, tap] - x[n, c, i]), float, [N, C, H, W].
// Of the layer only channels and geometry are read. Returns as nashc_kernel_run.
NASHC_API int nashc_adder_input_gradient(const nashc_layer* layer, const float* x, const float* weights,
                                         const float* dy, int64_t batch, int64_t height, int64_t width, float* dx,
                                         const char* instruction_set, nashc_parallel_for parallel_for, void* pool,
                                         int32_t threads);

// Codes [terms, count] of shift weights -> [count] sums of signed powers of two, in 2^-pmax for the integer form.
// -1, or the index of the first code beyond +-(pmax + 1), for the float form beyond +-15.
NASHC_API int64_t nashc_decode_shift_f32(const int8_t* codes, int64_t terms, int64_t count, float* weights);
NASHC_API int64_t nashc_decode_shift_s32(const int8_t* codes, int64_t terms, int64_t count, int32_t pmax,
                                         int32_t* weights);

// Names of the instruction sets that this machine runs, best first, with commas: "avx512,avx2,portable".
NASHC_API const char* nashc_instruction_sets(void);

#ifdef __cplusplus
}
#endif
