// Random layers by every instruction set of this machine next to the portable one: for machines without our Python.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels.h"

namespace {

std::mt19937 random_bits(7);

int from_to(int least, int most) { return least + (int)(random_bits() % (unsigned)(most - least + 1)); }

struct Case {
    nashc_layer layer;
    int batch, height, width;
    std::vector<char> x, weights;
    std::vector<float> scale;
    long x_zero_point;
};

Case draw() {
    Case c{};
    nashc_layer& l = c.layer;
    l.op = from_to(0, 5), l.output = from_to(0, 3);
    l.groups = from_to(0, 3) ? 1 : from_to(2, 20);
    const int channels = l.groups > 2 ? from_to(1, 2) : from_to(1, 40), filters = l.groups > 2 ? from_to(1, 2) : from_to(1, 20);
    l.in_channels = channels * l.groups, l.out_channels = filters * l.groups;
    for (int a = 0; a < 2; a++) l.kernel[a] = from_to(1, 3), l.strides[a] = from_to(1, 2), l.dilations[a] = from_to(1, 2);
    for (int& pad : l.pads) pad = from_to(0, 2);
    c.batch = from_to(1, 2), c.height = from_to(5, 12), c.width = from_to(5, 30);
    l.lowest = -100, l.highest = 100;
    const bool is_float = l.op == NASHC_ADDER_F32 || l.op == NASHC_MULTIPLY_F32;
    const size_t inputs = (size_t)c.batch * l.in_channels * c.height * c.width;
    const size_t taps = (size_t)l.out_channels * channels * l.kernel[0] * l.kernel[1];
    auto put = [](std::vector<char>& to, auto value) {
        const char* bytes = reinterpret_cast<const char*>(&value);
        to.insert(to.end(), bytes, bytes + sizeof value);
    };
    const int32_t limits[] = {20, 127, 1 << 12, 3 << 14}, limit = limits[from_to(0, 3)];
    for (size_t i = 0; i < inputs; i++) is_float ? put(c.x, (float)from_to(-999, 999) / 256) : put(c.x, (int8_t)from_to(-128, 127));
    for (size_t i = 0; i < taps; i++) {
        if (is_float) put(c.weights, (float)from_to(-999, 999) / 256);
        else if (l.op <= NASHC_ADDER_U8) put(c.weights, (int8_t)from_to(-128, 127));
        else put(c.weights, (int32_t)from_to(-limit, limit));
    }
    for (int m = 0; m < l.out_channels; m++) c.scale.push_back((float)from_to(1, 99) / 4096);
    c.x_zero_point = l.op < NASHC_MULTIPLY_S8 || is_float ? 0 : l.op == NASHC_MULTIPLY_S8 ? from_to(-128, 127) : from_to(0, 255);
    return c;
}

std::vector<char> output_of(Case& c, const std::string& name) {
    c.layer.scale = c.layer.bias = c.scale.data();
    char message[256] = "";
    nashc_kernel* kernel = nashc_kernel_create(&c.layer, c.weights.data(), name.c_str(), message, sizeof message);
    int64_t height, width;
    std::vector<char> y;
    if (kernel && !nashc_kernel_output_size(kernel, c.height, c.width, &height, &width)) {
        y.resize((size_t)(c.batch * c.layer.out_channels * height * width * (c.layer.output <= NASHC_F32 ? 4 : 1)));
        nashc_kernel_run(kernel, c.x.data(), c.batch, c.height, c.width, (int32_t)c.x_zero_point, y.data(), nullptr, nullptr, 1);
    }
    nashc_kernel_destroy(kernel);
    return y;
}

bool same(const Case& c, const std::vector<char>& a, const std::vector<char>& b) {
    const bool floats = c.layer.op == NASHC_ADDER_F32 || c.layer.op == NASHC_MULTIPLY_F32;
    if (!floats) return a == b;
    double worst = 0, largest = 0;
    for (size_t i = 0; i < a.size(); i += c.layer.output <= NASHC_F32 ? 4 : 1) {
        float u, v;
        if (c.layer.output <= NASHC_F32) memcpy(&u, &a[i], 4), memcpy(&v, &b[i], 4);
        else u = c.layer.output == NASHC_S8 ? (float)(int8_t)a[i] : (float)(uint8_t)a[i], v = c.layer.output == NASHC_S8 ? (float)(int8_t)b[i] : (float)(uint8_t)b[i];
        worst = std::max(worst, (double)std::fabs(u - v)), largest = std::max(largest, (double)std::fabs(u));
    }
    // the inputs are short binary fractions: sums of differences are exact, products round by a fused or a single step
    return a.size() == b.size() && worst <= (c.layer.output <= NASHC_F32 ? 2e-5 * largest + 1e-4 : 1.0);
}

}  // namespace

int main() {
    const std::string names = nashc_instruction_sets();
    int bad = 0, compared = 0;
    for (int i = 0; i < 1000; i++) {
        Case c = draw();
        const std::vector<char> expected = output_of(c, "portable");
        for (size_t from = 0; from < names.size();) {
            const size_t end = std::min(names.find(',', from), names.size());
            const std::string name = names.substr(from, end - from);
            if (name != "portable") compared++, bad += !same(c, output_of(c, name), expected);
            from = end + 1;
        }
    }
    printf("%s: %d of %d layers differ from the portable kernels\n", names.c_str(), bad, compared);
    return bad || !compared;
}
