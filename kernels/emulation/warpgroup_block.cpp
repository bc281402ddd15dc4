// Phase barriers, the asynchronous proxy and products of warpgroups. What a thread knows of another's past travels by arriving
// at a phase and waiting for it, and within a warp by warp barriers; reads are remembered per warp and 16 bytes.
#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <utility>

#include "kernels/emulation/block.h"

namespace vmoba::emulation {
namespace {

void join(std::vector<uint32_t>& into, const std::vector<uint32_t>& from) {
  if (into.empty()) {
    into = from;
    return;
  }
  for (size_t i = 0; i < from.size(); ++i) into[i] = std::max(into[i], from[i]);
}

}  // namespace

void Block::requireWarpgroups(const char* what) const {
  if (!shape_.warpgroups) fail(std::string(what) + " in a kernel that does not declare warpgroups");
}

void Block::resetWarpgroups() {
  now_ = barrierTime_ = 0;
  phases_.clear();
  if (!shape_.warpgroups) return;
  if (warps_.size() % 4 != 0) throw Violation(std::string(shape_.kernel) + ": a block of " + std::to_string(shape_.threads) + " threads is not made of warpgroups");
  const size_t lines = shape_.sharedBytes / lineBytes + 1;
  times_.assign(cells_.size(), {});
  lineReads_.assign(lines * warps_.size(), 0);
  beingRead_.assign(lines, 0);
  started_.assign(warps_.size() / 4, {});
  for (ThreadState& thread : threads_) thread.known.assign(threads_.size() + 1, 0);
}

// Accesses -----------------------------------------------------------------------------------------------------------

bool Block::knows(int thread, uint32_t time) const { return current().known[static_cast<size_t>(thread)] >= time; }

void Block::joinWarp() {
  if (!shape_.warpgroups) return;
  const auto first = threads_.begin() + current().warp * warpLanes;
  std::vector<uint32_t> joined;
  std::for_each(first, first + warpLanes, [&](ThreadState& thread) {
    thread.known[static_cast<size_t>(thread.index)] = ++now_;
    join(joined, thread.known);
  });
  std::for_each(first, first + warpLanes, [&](ThreadState& thread) { thread.known = joined; });
}

void Block::checkReaders(uint32_t offset) const {
  const size_t line = offset / lineBytes;
  if (beingRead_[line] > 0) fail("writes shared byte " + std::to_string(offset) + ", which a product in flight reads");
  const std::vector<uint32_t>& known = current().known;
  for (size_t warp = 0; warp < warps_.size(); ++warp) {
    const uint32_t time = lineReads_[line * warps_.size() + warp];
    if (time <= barrierTime_ || static_cast<int>(warp) == current().warp) continue;
    const auto lanes = known.begin() + static_cast<std::ptrdiff_t>(warp * warpLanes);
    if (std::none_of(lanes, lanes + warpLanes, [time](uint32_t until) { return until >= time; }))
      fail("race: writes shared byte " + std::to_string(offset) + ", which warp " + std::to_string(warp) + " reads with no barrier between");
  }
}

void Block::recordWrite(uint32_t offset, uint32_t bytes) {
  if (!shape_.warpgroups) return;
  const uint32_t time = ++now_;
  for (uint32_t at = offset / 2; at < (offset + bytes + 1) / 2; ++at) times_[at] = {time, 0};
  current().unfenced.push_back({offset, bytes});
}

void Block::fenceAsyncProxy() {
  requireWarpgroups("fence.proxy.async");
  if (options_.fault.kind == PlantedFault::SkipProxyFence) return;
  ThreadState& self = current();
  const uint32_t time = ++now_;
  for (const auto& [offset, bytes] : self.unfenced)
    for (uint32_t at = offset / 2; at < (offset + bytes + 1) / 2; ++at)
      if (cells_[at].writer == self.index) times_[at].visible = time;
  self.unfenced.clear();
}

void Block::checkAsyncRead(uint32_t offset) const {
  bounds(offset, lineBytes);
  const ThreadState& self = current();
  for (uint32_t at = offset / 2; at < (offset + lineBytes) / 2; ++at) {
    const Cell& cell = cells_[at];
    const std::string byte = std::to_string(at * 2);
    if (cell.writer == unwritten) fail("a product reads shared byte " + byte + ", which nothing wrote");
    if (cell.writer == beingCopied) fail("a product reads shared byte " + byte + ", which an asynchronous copy has yet to write");
    const auto ordered = [&](uint32_t time) { return cell.writer == self.index || time <= barrierTime_ || knows(cell.writer, time); };
    if (!ordered(times_[at].written)) fail("race: a product reads shared byte " + byte + ", written by thread " + std::to_string(cell.writer) + " with no barrier between");
    if (times_[at].visible == 0 || !ordered(times_[at].visible))
      fail("a product reads shared byte " + byte + ", written by thread " + std::to_string(cell.writer) + " with no fence of the asynchronous proxy between");
  }
}

// Phase barriers -----------------------------------------------------------------------------------------------------

void Block::initPhase(uint32_t offset, int arrivals) {
  requireWarpgroups("an mbarrier");
  write(offset, 8);
  Phase phase;
  phase.arrivals = phase.pending = arrivals;
  phase.initialiser = current().index;
  phase.initBarrier = barriersPassed_;
  phases_[offset] = std::move(phase);
}

Block::Phase& Block::phaseAt(uint32_t offset) {
  const auto found = phases_.find(offset);
  if (found == phases_.end()) fail("the phase barrier at shared byte " + std::to_string(offset) + " was never initialised");
  Phase& phase = found->second;
  if (phase.initialiser != current().index && phase.initBarrier == barriersPassed_)
    fail("race: uses the phase barrier at shared byte " + std::to_string(offset) + " with no barrier since thread " + std::to_string(phase.initialiser) + " initialised it");
  return phase;
}

void Block::arrivePhase(uint32_t offset) {
  requireWarpgroups("an mbarrier");
  Phase& phase = phaseAt(offset);
  if (phase.pending == 0) fail("arrives once more at the phase barrier at shared byte " + std::to_string(offset) + ", which waits for copies alone");
  ThreadState& self = current();
  self.known[static_cast<size_t>(self.index)] = ++now_;
  join(phase.arriving, self.known);
  --phase.pending;
  settle(phase, false);
}

// The phase completes when all have arrived and all bytes have been asked for; boxes come as late as they may.
void Block::settle(Phase& phase, bool wanted) {
  if (phase.pending > 0 || phase.bytesMissing > 0) return;
  if (!phase.boxes.empty() && !wanted && phase.waiting.empty()) return;
  deliver(phase);
  ++phase.number;
  phase.pending = phase.arrivals;
  phase.complete = std::exchange(phase.arriving, {});
  for (const int thread : std::exchange(phase.waiting, {})) enqueue(thread);
}

void Block::waitPhase(uint32_t offset, int parity) {
  requireWarpgroups("an mbarrier");
  if (options_.fault.kind == PlantedFault::SkipPhaseWait) return;
  for (Phase& phase = phaseAt(offset); static_cast<int>(phase.number % 2) == parity;) {
    settle(phase, true);
    if (static_cast<int>(phase.number % 2) != parity) break;
    phase.waiting.push_back(current().index);
    suspend();
  }
  join(current().known, phaseAt(offset).complete);
}

// The copy engine ------------------------------------------------------------------------------------------------------

void Block::expectBytes(uint32_t offset, int bytes) {
  phaseAt(offset).bytesMissing += bytes;
  arrivePhase(offset);
}

void Block::fetchBox(uint32_t offset, uint32_t to, std::vector<const std::byte*> rows) {
  requireWarpgroups("a bulk copy");
  const auto bytes = static_cast<uint32_t>(rows.size()) * 128;
  bounds(to, bytes);
  if (to % 128 != 0) fail("a bulk copy goes to misaligned shared byte " + std::to_string(to));
  for (uint32_t at = to / 2; at < (to + bytes) / 2; ++at) {
    checkWrite(cells_[at], current(), at * 2, false);
    cells_[at].writer = beingCopied;
  }
  Phase& phase = phaseAt(offset);
  phase.bytesMissing -= bytes;
  if (phase.bytesMissing < 0) fail("a bulk copy brings more bytes than the phase barrier at shared byte " + std::to_string(offset) + " expects");
  phase.boxes.push_back({to, std::move(rows)});
  settle(phase, false);
}

void Block::deliver(Phase& phase) {
  if (phase.boxes.empty()) return;
  const uint32_t time = ++now_;
  phase.arriving[static_cast<size_t>(copyEngine())] = time;
  for (const Box& box : std::exchange(phase.boxes, {}))
    for (size_t row = 0; row < box.rows.size(); ++row)
      for (uint32_t piece = 0; piece < 128; piece += 16) {
        const uint32_t plain = box.to + static_cast<uint32_t>(row) * 128 + piece, at = plain ^ (plain >> 7 & 7) << 4;
        box.rows[row] ? static_cast<void>(std::memcpy(shared_.get() + at, box.rows[row] + piece, 16)) : static_cast<void>(std::memset(shared_.get() + at, 0, 16));
        for (uint32_t i = at / 2; i < at / 2 + 8; ++i) {
          Cell& cell = cells_[i];
          cell.writer = static_cast<int16_t>(copyEngine());
          cell.writeBarrier = barriersPassed_;
          cell.atomic = false;
          times_[i] = {time, time};
        }
      }
}

// Products -----------------------------------------------------------------------------------------------------------

void Block::fenceProducts() {
  requireWarpgroups("wgmma");
  int nothing = 0;
  collective("wgmma.fence", nothing, [this](const auto&) { warps_[static_cast<size_t>(current().warp)].fenced = true; });
}

void Block::startProduct(const Product::Lane& mine, const Product::Shape& shape) {
  requireWarpgroups("wgmma");
  struct Slot {
    Product::Lane lane;
    Product::Shape shape;
  } slot{mine, shape};
  collective("wgmma", slot, [&](const auto& lane) {
    for (int i = 0; i < warpLanes; ++i)
      if (!(lane(i).shape == shape)) fail("lanes of one warp start different products");
    launchProduct([&](int i) -> const Product::Lane& { return lane(i).lane; }, shape);
  });
}

void Block::launchProduct(const std::function<const Product::Lane&(int)>& lane, const Product::Shape& shape) {
  const int index = current().warp;
  Warp& warp = warps_[static_cast<size_t>(index)];
  if (!warp.fenced) fail("wgmma without wgmma.fence since the last group of products");
  std::vector<Product::Shape>& log = started_[static_cast<size_t>(index / 4)];
  const auto number = static_cast<size_t>(warp.started++);
  if (number == log.size()) {
    log.push_back(shape);
  } else if (!(log[number] == shape)) {
    fail("the warps of a warpgroup start different products");
  }
  Product product;
  product.shape = shape;
  product.warp = index;
  try {
    product.locate();
  } catch (const std::invalid_argument& wrong) {
    fail(wrong.what());
  }
  for (const uint32_t piece : product.pieces) {
    checkAsyncRead(piece);
    ++beingRead_[piece / lineBytes];
  }
  const auto registers = static_cast<size_t>(shape.columns / 2);
  const bool chained = inFlight(warp, 0, lane(0).d) != nullptr;
  for (int i = 0; i < warpLanes; ++i) {
    product.lanes[i] = lane(i);
    float* const d = lane(i).d;
    if (chained) continue;
    product.before.insert(product.before.end(), d, d + registers);
    std::fill(d, d + registers, std::numeric_limits<float>::quiet_NaN());
  }
  warp.open.push_back(std::move(product));
}

const Product* Block::inFlight(const Warp& warp, int lane, const float* accumulators) const {
  const auto writes = [&](const Product& product) { return product.lanes[lane].d == accumulators; };
  const auto among = [&](const std::vector<Product>& group) -> const Product* {
    const auto found = std::find_if(group.begin(), group.end(), writes);
    return found == group.end() ? nullptr : &*found;
  };
  for (const std::vector<Product>& group : warp.committed)
    if (const Product* product = among(group)) return product;
  return among(warp.open);
}

void Block::commitProducts() {
  requireWarpgroups("wgmma");
  int nothing = 0;
  collective("wgmma.commit_group", nothing, [this](const auto&) {
    Warp& warp = warps_[static_cast<size_t>(current().warp)];
    warp.committed.push_back(std::exchange(warp.open, {}));
    warp.fenced = false;
  });
}

void Block::waitProducts(int groupsLeft) {
  requireWarpgroups("wgmma");
  if (options_.fault.kind == PlantedFault::SkipProductWait) return;
  int nothing = 0;
  collective("wgmma.wait_group", nothing, [&](const auto&) {
    Warp& warp = warps_[static_cast<size_t>(current().warp)];
    const bool plain = options_.fault.kind == PlantedFault::PlainLayout;
    while (static_cast<int>(warp.committed.size()) > groupsLeft) {
      for (const Product& product : warp.committed.front()) {
        product.finish(plain, [this](uint32_t offset) {
          uint16_t bits;
          std::memcpy(&bits, shared_.get() + offset, sizeof(bits));
          return bits;
        });
        const uint32_t time = ++now_;
        for (const uint32_t piece : product.pieces) {
          --beingRead_[piece / lineBytes];
          lineReads_[piece / lineBytes * warps_.size() + static_cast<size_t>(current().warp)] = time;
        }
      }
      warp.committed.pop_front();
    }
  });
}

void Block::requireSettled(const float* accumulators) {
  const ThreadState& self = current();
  if (inFlight(warps_[static_cast<size_t>(self.warp)], self.lane, accumulators)) fail("reads accumulators of a product in flight");
}

}  // namespace vmoba::emulation
