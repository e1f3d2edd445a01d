// What this machine's vector units can do in one thread: instruction mixes on registers alone, as JSON in 10^9
// multiply-accumulate equivalents a second. benchmarks/kernels.py compiles and runs it.
#include <cstdio>
#include <ctime>

static double now() {
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

// Twelve independent sums; V is the register name, so that one text serves both widths.
#define TWELVE(STEP, V) STEP(V, 0, 12) STEP(V, 1, 13) STEP(V, 2, 12) STEP(V, 3, 13) STEP(V, 4, 12) STEP(V, 5, 13) \
    STEP(V, 6, 12) STEP(V, 7, 13) STEP(V, 8, 12) STEP(V, 9, 13) STEP(V, 10, 12) STEP(V, 11, 13)
#define R(V, n) "%%" V "mm" #n
#define FMA(V, a, t) "vfmadd231ps " R(V, 14) "," R(V, 15) "," R(V, a) "\n"
#define ADDER(V, a, t) "vsubps " R(V, 14) "," R(V, 15) "," R(V, t) "\nvandps " R(V, 15) "," R(V, t) "," R(V, t) \
    "\nvfmadd231ps " R(V, 15) "," R(V, t) "," R(V, a) "\n"
#define SAD(V, a, t) "vpsadbw " R(V, 14) "," R(V, 15) "," R(V, t) "\nvpaddd " R(V, t) "," R(V, a) "," R(V, a) "\n"
#define DOT(V, a, t) "vpdpbusd " R(V, 14) "," R(V, 15) "," R(V, a) "\n"
#define PAIRS(V, a, t) "vpmaddubsw " R(V, 14) "," R(V, 15) "," R(V, t) "\nvpmaddwd " R(V, 15) "," R(V, t) "," R(V, t) \
    "\nvpaddd " R(V, t) "," R(V, a) "," R(V, a) "\n"

constexpr long TURNS = 1000000;
#define LOOP(name, V, STEP)                                                                                           \
    static void name() {                                                                                              \
        __asm__ volatile("vxorps %%xmm14,%%xmm14,%%xmm14\nvxorps %%xmm15,%%xmm15,%%xmm15\nmov %0,%%rcx\n.p2align 5\n" \
                         "1:\n" TWELVE(STEP, V) "dec %%rcx\njnz 1b\n" ::"r"(TURNS)                                    \
                         : "rcx", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",     \
                           "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");                                     \
    }
LOOP(fma_y, "y", FMA) LOOP(adder_y, "y", ADDER) LOOP(sad_y, "y", SAD) LOOP(pairs_y, "y", PAIRS)
LOOP(fma_z, "z", FMA) LOOP(adder_z, "z", ADDER) LOOP(sad_z, "z", SAD) LOOP(dot_z, "z", DOT)

static void print(const char* name, void (*loop)(), double per_instruction, const char* end) {
    double best = 1e9;
    for (int round = 0; round < 15; round++) {
        double t = now();
        loop();
        t = now() - t;
        if (t < best) best = t;
    }
    printf("\"%s\": %.1f%s", name, per_instruction * 12 * TURNS / best * 1e-9, end);
}

int main() {
    __builtin_cpu_init();
    printf("{");
    if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw")) {
        print("avx512 multiply f32", fma_z, 16, ", ");
        print("avx512 adder f32", adder_z, 16, ", ");
        print("avx512 adder int8", sad_z, 64, ", ");
        print("avx512 multiply int8", dot_z, 64, ", ");
    }
    print("avx2 multiply f32", fma_y, 8, ", ");
    print("avx2 adder f32", adder_y, 8, ", ");
    print("avx2 adder int8", sad_y, 32, ", ");
    print("avx2 multiply int8", pairs_y, 32, "}\n");
}
