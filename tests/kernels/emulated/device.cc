#include "tests/kernels/emulated/device.h"

#include <setjmp.h>
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "common/status_macros.h"

namespace baton::kernels::cuda::emulated {
namespace {

constexpr size_t kStackBytes = 64 << 10;
constexpr int kMostThreads = 1024;

struct Barrier {
  int waiting = 0;
  uint64_t generation = 0;
};

struct Fiber {
  ucontext_t first;  // where it begins; then it goes on at `next`, which costs no system call
  jmp_buf next;
  std::vector<char> stack;
  bool begun = false;
  bool done = false;
  int exchanges = 0;
};

ucontext_t unused;  // nobody returns from Main
jmp_buf scheduler;
std::vector<std::unique_ptr<Fiber>> fibers;
int running = 0;
int threads = 0;
bool progress = false;
const std::function<void()>* body = nullptr;
Barrier block_barrier;
Barrier warp_barriers[kMostThreads / 32];
float exchanged[kMostThreads];
Fragments fragments_of[2][kMostThreads];  // by turns: a lane is one exchange ahead at most

void Main() {
  (*body)();
  fibers[running]->done = true;
  progress = true;
  _longjmp(scheduler, 1);
}

void Yield() {
  if (_setjmp(fibers[running]->next) == 0) _longjmp(scheduler, 1);
}

void Resume(Fiber& fiber) {
  if (_setjmp(scheduler) != 0) return;
  if (fiber.begun) _longjmp(fiber.next, 1);
  fiber.begun = true;
  setcontext(&fiber.first);
}

void Wait(Barrier& barrier, int count) {
  progress = true;
  if (++barrier.waiting == count) {
    barrier.waiting = 0;
    ++barrier.generation;
    return;
  }
  const uint64_t generation = barrier.generation;
  while (barrier.generation == generation) Yield();
}

void RunBlock() {
  block_barrier = {};
  for (Barrier& barrier : warp_barriers) barrier = {};
  for (int i = 0; i < threads; ++i) {
    Fiber& fiber = *fibers[i];
    fiber.begun = fiber.done = false;
    fiber.exchanges = 0;
    getcontext(&fiber.first);
    fiber.first.uc_stack.ss_sp = fiber.stack.data();
    fiber.first.uc_stack.ss_size = fiber.stack.size();
    fiber.first.uc_link = &unused;
    makecontext(&fiber.first, Main, 0);
  }
  for (int left = threads; left > 0;) {
    progress = false;
    for (running = 0; running < threads; ++running) {
      Fiber& fiber = *fibers[running];
      if (fiber.done) continue;
      thread_index.x = static_cast<uint32_t>(running);
      Resume(fiber);
      if (fiber.done) --left;
    }
    BATON_CHECK(progress || left == 0, "every thread of a block or warp reaches its barriers");
  }
}

}  // namespace

void Launch(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& kernel) {
  BATON_CHECK(block.x <= kMostThreads && block.x % 32 == 0 && block.y == 1 && block.z == 1,
              "a block is whole warps");
  BATON_CHECK(grid.x >= 1 && grid.y >= 1 && grid.y <= 65535 && grid.z >= 1 && grid.z <= 65535,
              "the grid is one that a GPU takes");
  Fetch();
  threads = static_cast<int>(block.x);
  while (static_cast<int>(fibers.size()) < threads) {
    fibers.push_back(std::make_unique<Fiber>());
    fibers.back()->stack.resize(kStackBytes);
  }
  std::vector<float> memory(shared_bytes / sizeof(float));
  shared = memory.data();
  body = &kernel;
  for (uint32_t z = 0; z < grid.z; ++z) {
    for (uint32_t y = 0; y < grid.y; ++y) {
      for (uint32_t x = 0; x < grid.x; ++x) {
        std::memset(memory.data(), 0xff, shared_bytes);
        block_index = dim3(x, y, z);
        RunBlock();
      }
    }
  }
}

void BlockBarrier() { Wait(block_barrier, threads); }

void WarpBarrier() { Wait(warp_barriers[running / 32], 32); }

float Exchange(float value, int mask) {
  exchanged[running] = value;
  WarpBarrier();
  const float other = exchanged[running ^ mask];
  WarpBarrier();
  return other;
}

const Fragments* Exchange(const Fragments& fragments) {
  Fragments* const all = fragments_of[fibers[running]->exchanges++ % 2];
  all[running] = fragments;
  WarpBarrier();
  return all + running / 32 * 32;
}

}  // namespace baton::kernels::cuda::emulated
