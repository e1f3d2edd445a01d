// Any machine with GCC or Clang: 16-byte vectors that the compiler maps to what there is.
#include <cmath>
#include <cstring>

#include "isa.h"

namespace nashc {
namespace {

#include "simd_portable.h"

struct Simd : Portable {};

bool supported() { return true; }

#include "isa_code.h"

}  // namespace

NASHC_INSTRUCTION_SET(PORTABLE, "portable", true, {4, 4, 4, 4, 4, 4}, 2);

}  // namespace nashc
