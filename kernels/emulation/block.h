// One thread block of a CUDA grid on the CPU: every thread is a fiber, shared memory is checked. Found and thrown as
// Violation: reads of shared memory nothing wrote or that a pending asynchronous copy will write, accesses out of a window's
// bounds, two threads touching one place without a barrier between them (a race), threads that wait for others which
// never come, collectives that not all lanes of a warp enter.
#pragma once
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/emulation/fiber.h"

namespace vmoba::emulation {

constexpr int warpLanes = 32;

/// A kernel broke a rule of the programming model. The text names kernel, block, thread and what was touched.
class Violation : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Faults a test plants into the layer to prove that the tests of a kernel would notice them in the kernel.
struct PlantedFault {
  enum Kind : uint8_t {
    None,
    DropBarrier,    ///< every thread passes its `nth` barrier without waiting
    SwapFragment,   ///< mma takes the second and third register of A in each other's place
    RaggedTail,     ///< within(i, n) is false for i = n - 1
    SelectionBit,   ///< setBit sets the neighbouring bit
    SkipCopyWait,   ///< waitCopies does not wait
  };
  Kind kind = None;
  int nth = 0;
};

/// How an emulated stream runs its launches.
struct Options {
  PlantedFault fault;
  uint32_t scheduleSeed = 1;  ///< order in which warps and blocks get their turn
  int sharedBytesPerMultiprocessor = 164 * 1024;
};

struct Extent3 {
  int x = 1, y = 1, z = 1;
};

struct LaunchShape {
  Extent3 grid;
  int threads = 0;
  size_t sharedBytes = 0;
  const char* kernel = "";
};

class Block;

/// A CUDA thread: where it is and what it waits for.
struct ThreadState {
  Block* block = nullptr;
  int index = 0, lane = 0, warp = 0;
  int barriers = 0;                ///< barriers entered so far
  uint32_t warpEpoch = 0;          ///< warp barriers passed
  struct Copy {
    uint32_t destination;          ///< byte offset in shared memory
    const std::byte* source;
    uint16_t bytes, valid;         ///< the rest up to `bytes` becomes zero
  };
  std::vector<Copy> pending;                 ///< not yet committed
  std::deque<std::vector<Copy>> committed;   ///< groups in flight, oldest first
  Fiber fiber;
  bool done = false;
};

/// The CUDA thread that the calling fiber is.
ThreadState& current();

class Block {
 public:
  Block(const LaunchShape& shape, const Options& options);
  /// Runs body() on every thread of block `index` to the end. Throws what a thread threw.
  void run(const Extent3& index, const std::function<void()>& body);

  const LaunchShape& shape() const { return shape_; }
  const Options& options() const { return options_; }
  const Extent3& index() const { return index_; }

  // Called on fibers ---------------------------------------------------------------------------------------------
  void barrier();
  void warpBarrier();
  /// All lanes of the warp enter with their `mine`; the last to come runs action(slots), slots[lane] = that lane's `mine`.
  template <class Payload, class Action>
  void collective(const char* name, Payload& mine, const Action& action) {
    if (std::byte** slots = enterCollective(name, reinterpret_cast<std::byte*>(&mine))) {
      action([slots](int lane) -> Payload& { return *reinterpret_cast<Payload*>(slots[lane]); });
      leaveCollective();
    }
  }
  /// Checked bytes of shared memory; `what` names the window in errors.
  const std::byte* read(uint32_t offset, uint32_t bytes);
  std::byte* write(uint32_t offset, uint32_t bytes);
  std::byte* update(uint32_t offset, uint32_t bytes);  ///< atomic read-modify-write: races only with plain accesses
  void startCopy(uint32_t offset, const void* source, int bytes, int validBytes);
  void commitCopies();
  void waitCopies(int groupsLeft);
  [[noreturn]] void fail(const std::string& what) const;

 private:
  // What happened last to two bytes of shared memory.
  struct Cell {
    int16_t writer = unwritten;   // thread, or one of the values below
    int16_t reader = nobody;      // thread, or anyOf(warp), or everyone
    uint32_t writeBarrier = 0, writeWarpEpoch = 0, readBarrier = 0, readWarpEpoch = 0;
    bool atomic = false;
  };
  static constexpr int16_t unwritten = -1, inFlight = -2, nobody = -3, several = -4;

  struct Warp {
    std::byte* slots[warpLanes] = {};
    const char* name = nullptr;
    int arrived = 0;
    int waiting[warpLanes] = {};
  };

  std::byte** enterCollective(const char* name, std::byte* mine);
  void leaveCollective();
  void suspend();
  void finishThread();
  void checkWrite(const Cell& cell, const ThreadState& thread, uint32_t offset, bool atomic) const;
  void bounds(uint32_t offset, uint32_t bytes) const;
  static void threadEntry(void* argument);

  LaunchShape shape_;
  Options options_;
  Extent3 index_;
  const std::function<void()>* body_ = nullptr;
  std::vector<ThreadState> threads_;
  std::vector<Warp> warps_;
  std::vector<int> runnable_;     // ring buffer of thread numbers
  size_t head_ = 0, queued_ = 0;
  std::vector<int> atBarrier_;
  uint32_t barriersPassed_ = 0;
  int alive_ = 0;
  uint32_t random_ = 1;
  std::unique_ptr<std::byte[]> shared_;
  std::vector<Cell> cells_;
  Fiber scheduler_;
  std::exception_ptr failure_;

  void enqueue(int thread);
};

/// Runs every block of the grid, several at once on the process's threads, in an order set by the seed.
void runGrid(const LaunchShape& shape, const Options& options, const std::function<void()>& body);

}  // namespace vmoba::emulation
