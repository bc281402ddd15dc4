// One thread block of a CUDA grid on the CPU: every thread is a fiber, shared memory is checked. Found and thrown as
// Violation: reads of shared memory nothing wrote or that a pending asynchronous copy will write, accesses out of a window's
// bounds, two threads touching one place without a barrier between them (a race), threads that wait for others which
// never come, collectives that not all lanes of a warp enter. In kernels with warpgroups, whose threads also meet at phase barriers
// (warpgroup_block.cpp), what happened before what is followed per thread, and products in flight own what they read and write.
#pragma once
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/emulation/fiber.h"
#include "kernels/emulation/products.h"

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
    DropBarrier,     ///< every thread passes its `nth` barrier without waiting
    SwapFragment,    ///< mma takes the second and third register of A in each other's place
    RaggedTail,      ///< within(i, n) is false for i = n - 1
    SelectionBit,    ///< setBit sets the neighbouring bit
    SkipCopyWait,    ///< waitCopies does not wait
    SkipProductWait, ///< waitProducts does not wait
    SkipPhaseWait,   ///< waitPhase does not wait
    SkipProxyFence,  ///< fenceAsyncProxy does nothing
    PlainLayout,     ///< wgmma reads shared memory as if it were not swizzled
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
  bool warpgroups = false;  ///< the kernel may use what only sm_90a has: phase barriers, wgmma
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
  std::vector<uint32_t> known;               ///< [threads, copy engine] time up to which each thread's past happened before this one's future
  struct Range {
    uint32_t offset, bytes;
  };
  std::vector<Range> unfenced;               ///< written since the last fence of the asynchronous proxy
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

  // Of kernels with warpgroups -------------------------------------------------------------------------------------
  void initPhase(uint32_t offset, int arrivals);
  void arrivePhase(uint32_t offset);
  void waitPhase(uint32_t offset, int parity);  ///< until the phase of this parity is complete
  /// Arrives; the phase then also waits for so many bytes of boxes.
  void expectBytes(uint32_t offset, int bytes);
  /// The copy engine's work for one thread: rows of 128 bytes (null: zeros), swizzled, from shared byte `to` on. They arrive when somebody waits.
  void fetchBox(uint32_t phase, uint32_t to, std::vector<const std::byte*> rows);
  void fenceAsyncProxy();
  void fenceProducts();
  /// Starts a product of the calling lane's warp, whose lanes must agree; its accumulators read NaN until it is waited for.
  void startProduct(const Product::Lane& mine, const Product::Shape& shape);
  void commitProducts();
  void waitProducts(int groupsLeft);
  /// Fails while a product that writes these accumulators is in flight.
  void requireSettled(const float* accumulators);
  [[noreturn]] void fail(const std::string& what) const;

 private:
  // What happened last to two bytes of shared memory.
  struct Cell {
    int16_t writer = unwritten;   // thread, or one of the values below
    int16_t reader = nobody;      // thread, or anyOf(warp), or everyone
    uint32_t writeBarrier = 0, writeWarpEpoch = 0, readBarrier = 0, readWarpEpoch = 0;
    bool atomic = false;
  };
  static constexpr int16_t unwritten = -1, beingCopied = -2, nobody = -3, several = -4;

  struct Warp {
    std::byte* slots[warpLanes] = {};
    const char* name = nullptr;
    int arrived = 0;
    int waiting[warpLanes] = {};
    bool fenced = false;                         // wgmma.fence since the last group was committed
    int started = 0;                             // products so far: the four warps of a warpgroup start the same ones
    std::vector<Product> open;                   // not yet committed
    std::deque<std::vector<Product>> committed;  // groups in flight, oldest first
  };

  // When two bytes of shared memory were written, and when that became visible to the asynchronous proxy.
  struct CellTimes {
    uint32_t written = 0, visible = 0;
  };
  struct Box {
    uint32_t to;
    std::vector<const std::byte*> rows;
  };
  // mbarrier: what arrived knows becomes known to whoever waits.
  struct Phase {
    int arrivals = 0, pending = 0, initialiser = 0;
    int64_t bytesMissing = 0;
    uint32_t number = 0, initBarrier = 0;
    std::vector<Box> boxes;  // fetched, not yet arrived
    std::vector<uint32_t> arriving, complete;
    std::vector<int> waiting;
  };
  static constexpr uint32_t lineBytes = 16;  // unit in which reads are remembered per warp

  std::byte** enterCollective(const char* name, std::byte* mine);
  void leaveCollective();
  void suspend();
  void finishThread();
  void checkWrite(const Cell& cell, const ThreadState& thread, uint32_t offset, bool atomic) const;
  void bounds(uint32_t offset, uint32_t bytes) const;
  /// Whether what `thread` did at `time` happened before what the running thread does now, by phase barriers.
  bool knows(int thread, uint32_t time) const;
  void resetWarpgroups();
  void joinWarp();
  void checkReaders(uint32_t offset) const;
  void recordWrite(uint32_t offset, uint32_t bytes);
  void checkAsyncRead(uint32_t offset) const;
  Phase& phaseAt(uint32_t offset);
  void settle(Phase& phase, bool wanted);
  void deliver(Phase& phase);
  int copyEngine() const { return static_cast<int>(threads_.size()); }  // as a writer, and in what threads know
  void requireWarpgroups(const char* what) const;
  const Product* inFlight(const Warp& warp, int lane, const float* accumulators) const;
  void launchProduct(const std::function<const Product::Lane&(int)>& lane, const Product::Shape& shape);
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
  // Kept for kernels with warpgroups only. Time counts accesses and releases.
  uint32_t now_ = 0, barrierTime_ = 0;
  std::vector<CellTimes> times_;
  std::vector<uint32_t> lineReads_;   // [lines, warps] time of the last read
  std::vector<uint16_t> beingRead_;   // [lines] products in flight that read the line
  std::vector<std::vector<Product::Shape>> started_;  // [warpgroups] products in the order in which its foremost warp started them
  std::map<uint32_t, Phase> phases_;
  Fiber scheduler_;
  std::exception_ptr failure_;

  void enqueue(int thread);
};

/// Runs every block of the grid, several at once on the process's threads, in an order set by the seed.
void runGrid(const LaunchShape& shape, const Options& options, const std::function<void()>& body);

}  // namespace vmoba::emulation
