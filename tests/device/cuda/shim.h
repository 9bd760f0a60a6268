// Runs CUDA C++ text on the CPU: a fiber per thread, blocks one after another, barriers and shuffles between fibers.
// It checks indices, barriers and lane layouts. Races show only as a difference between the two orders of the fibers.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(n)
#define __align__(n) __attribute__((aligned(n)))

struct shim_dim3 { int x, y, z; };
static shim_dim3 blockIdx, threadIdx, blockDim, gridDim;

#define SHIM_VECTOR(T, V) \
  struct alignas(2 * sizeof(T)) V##2 { T x, y; }; static inline V##2 make_##V##2(T x, T y) { return {x, y}; } \
  struct V##3 { T x, y, z; }; static inline V##3 make_##V##3(T x, T y, T z) { return {x, y, z}; } \
  struct alignas(sizeof(T) < 8 ? 4 * sizeof(T) : 16) V##4 { T x, y, z, w; }; \
  static inline V##4 make_##V##4(T x, T y, T z, T w) { return {x, y, z, w}; }
SHIM_VECTOR(signed char, char) SHIM_VECTOR(unsigned char, uchar) SHIM_VECTOR(short, short) SHIM_VECTOR(unsigned short, ushort)
SHIM_VECTOR(int, int) SHIM_VECTOR(unsigned int, uint) SHIM_VECTOR(long long, longlong) SHIM_VECTOR(unsigned long long, ulonglong)
SHIM_VECTOR(float, float) SHIM_VECTOR(double, double)

typedef _Float16 half;
struct nv_bfloat16 {
  uint16_t bits;
  nv_bfloat16() = default;
  nv_bfloat16(float x) {
    uint32_t u; memcpy(&u, &x, 4);
    bits = x != x ? 0x7fff : (u + 0x7fff + (u >> 16 & 1)) >> 16;
  }
  operator float() const { uint32_t u = (uint32_t)bits << 16; float x; memcpy(&x, &u, 4); return x; }
};
#define SHIM_BF16(op) static inline nv_bfloat16 operator op(nv_bfloat16 x, nv_bfloat16 y) { return nv_bfloat16((float)x op (float)y); }
SHIM_BF16(+) SHIM_BF16(-) SHIM_BF16(*) SHIM_BF16(/)

// ---- fibers
namespace shim {
struct Fiber { ucontext_t context; bool done; };
static std::vector<Fiber> fibers;
static std::vector<char> stacks;
static ucontext_t scheduler;
static int current, threads, alive, failed;
static long progress;                       // counts everything that lets a waiting fiber go on
static int warp_alive[64];
struct Meeting { int arrived; long round; };
static Meeting block_meeting, warp_meeting[64];
static uint64_t slots[2048];
static void (*body)();

static void yield() { swapcontext(&fibers[current].context, &scheduler); }
static void release(Meeting& m, int expected) {
  if (m.arrived && m.arrived >= expected) { m.arrived = 0; m.round++; progress++; }
}
static void meet(Meeting& m, int& expected) {
  long round = m.round;
  m.arrived++; progress++;
  release(m, expected);
  while (m.round == round) yield();
}
static void run_fiber() {
  body();
  int warp = current / 32;
  fibers[current].done = true;
  alive--; warp_alive[warp]--; progress++;
  release(block_meeting, alive);
  release(warp_meeting[warp], warp_alive[warp]);
  yield();
}
// Returns 0, or 1 if some threads wait at a barrier that others never reach.
static int run_block(void (*kernel)(), shim_dim3 local, bool reverse) {
  const size_t stack_bytes = 64 << 10;
  body = kernel; threads = alive = local.x * local.y * local.z;
  fibers.resize(threads); stacks.resize(threads * stack_bytes);
  block_meeting = {0, 0};
  for (int w = 0; w < 64; w++) {
    warp_meeting[w] = {0, 0};
    int left = threads - 32 * w;
    warp_alive[w] = left < 0 ? 0 : left > 32 ? 32 : left;
  }
  for (int i = 0; i < threads; i++) {
    Fiber& f = fibers[i];
    f.done = false;
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = &stacks[i * stack_bytes];
    f.context.uc_stack.ss_size = stack_bytes;
    f.context.uc_link = nullptr;
    makecontext(&f.context, run_fiber, 0);
  }
  while (alive) {
    long before = progress;
    for (int k = 0; k < threads; k++) {
      int i = reverse ? threads - 1 - k : k;
      if (fibers[i].done) continue;
      current = i;
      threadIdx = {i % local.x, i / local.x % local.y, i / (local.x * local.y)};
      swapcontext(&scheduler, &fibers[i].context);
    }
    if (progress == before) return 1;
  }
  return 0;
}
template <class T> static T exchange(T x, int from) {
  int warp = current / 32, lane = current % 32;
  uint64_t bits = 0; memcpy(&bits, &x, sizeof(T));
  slots[current] = bits;
  meet(warp_meeting[warp], warp_alive[warp]);
  if (from >= 0 && from < 32) bits = slots[warp * 32 + from]; else bits = slots[warp * 32 + lane];
  meet(warp_meeting[warp], warp_alive[warp]);
  T y; memcpy(&y, &bits, sizeof(T));
  return y;
}
struct Pointer { void* at; template <class T> operator T*() const { return (T*)at; } };
}  // namespace shim

static inline void __syncthreads() { shim::meet(shim::block_meeting, shim::alive); }
static inline void __syncwarp(unsigned = ~0u) { int w = shim::current / 32; shim::meet(shim::warp_meeting[w], shim::warp_alive[w]); }
template <class T> static T __shfl_sync(unsigned, T x, int lane) { return shim::exchange(x, lane & 31); }
template <class T> static T __shfl_xor_sync(unsigned, T x, int mask) { return shim::exchange(x, shim::current % 32 ^ mask); }
template <class T> static T __shfl_down_sync(unsigned, T x, int by) { return shim::exchange(x, shim::current % 32 + by); }
template <class T> static T __shfl_up_sync(unsigned, T x, int by) { return shim::exchange(x, shim::current % 32 - by); }

static inline float __int_as_float(int x) { float y; memcpy(&y, &x, 4); return y; }
static inline int __float_as_int(float x) { int y; memcpy(&y, &x, 4); return y; }
