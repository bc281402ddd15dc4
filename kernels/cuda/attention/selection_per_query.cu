// Selection where every query of every head has a budget of its own: one thread per query. Its gates lie in shared memory, not-a-number
// where there is no candidate, and the budget is met by halving the interval of keys until one entry is left in it.
#include "kernels/cuda/attention/selection_entries.h"
#include "kernels/cuda/tile/launch.h"

namespace vmoba::cuda {
namespace {

/// Of shared memory, per thread block; with more blocks than fit into it the gates are read where they are.
constexpr int kMostStaged = 96 * 1024;

template <bool Staged>
struct SelectPerQuery {
  static constexpr const char* name = "selection per query";
  static constexpr int threads = 128, blocksPerSM = 6, inFlight = 8;
  static constexpr int sharedBytes(int blocks) { return Staged ? blocks * threads * 4 : 0; }
  using Arguments = SelectionJob;

  static TILE_DEVICE void run(const SelectionJob& x) {
    const int thread = tile::threadIndex(), s = tile::blockIndex().x * threads + thread, head = tile::blockIndex().y;
    const PlanView& plan = x.plan;
    const int blocks = plan.blocks;
    const bool inside = tile::within(s, plan.tokens);
    const int ownBlock = inside ? plan.blockOf[s] : -1;
    const float* gates = x.gate + int64_t{head} * blocks * plan.tokens + (inside ? s : 0);
    const auto staged = tile::sharedWindow<float>(0, Staged ? blocks * threads : 0);
    const int sequence = inside ? plan.sequenceFirst[ownBlock] : -1;  // a sequence is known by where it begins
    const auto isCandidate = [&](int c) { return (c != ownBlock) & (plan.sequenceFirst[c] == sequence); };
    const auto candidateAt = [&](int c) {
      if (Staged) return staged.get(c * threads + thread);
      return isCandidate(c) ? gates[int64_t{c} * plan.tokens] : notANumber();
    };

    // Its candidates, and their least and greatest gates.
    int candidates = 0;
    float least = 3.4e38f, most = -3.4e38f;
    for (int c0 = 0; c0 < blocks; c0 += inFlight) {
      float value[inFlight];
      TILE_UNROLL
      for (int i = 0; i < inFlight; ++i) value[i] = c0 + i < blocks ? gates[int64_t{c0 + i} * plan.tokens] : notANumber();  // in flight together
      TILE_UNROLL
      for (int i = 0; i < inFlight; ++i) {
        if (c0 + i >= blocks) break;
        if (!isCandidate(c0 + i)) value[i] = notANumber();
        candidates += value[i] == value[i];
        least = tile::minimum(least, value[i]);
        most = tile::maximum(most, value[i]);
        if (Staged) staged.set((c0 + i) * threads + thread, value[i]);
      }
    }
    const float ownGate = inside ? gates[int64_t{ownBlock} * plan.tokens] : 0.0f;
    const float leastValid = tile::minimum(least, ownGate);
    const double lowest = static_cast<double>(leastValid);

    bool byCount = x.rule.mode == SelectionMode::TopK, everything = false;
    int budget = (x.rule.k < blocks ? x.rule.k : blocks) - 1, zeros = 0;
    double range = 1, total = 1, need = 0;
    if (!byCount && inside) {
      const double width = static_cast<double>(tile::maximum(most, ownGate)) - lowest;
      range = width <= 1e-6 ? 1 : width;
      double rest = 0;
      for (int c = 0; c < blocks; ++c) {
        const float value = candidateAt(c);
        if (value >= least) rest += static_cast<double>(value) - lowest;
      }
      const double own = (static_cast<double>(ownGate) - lowest) / range;
      total = 1e-6 + own + rest / range;
      need = static_cast<double>(x.rule.tau) - own / total;
      need = need > 0 ? need : 0;
      if (rest / range / total < need) {
        if (x.rule.semantics == Semantics::Upstream) {
          byCount = true;
          budget = 2;
        } else {
          everything = true;
        }
      }
    }

    // Taken are the candidates above `cut`, `ties` of those that equal it, and those among the first `zeros` of weight 0.
    float cut = infinity();
    int ties = 0;
    if (everything || (byCount && budget >= candidates && x.rule.mode == SelectionMode::TopK)) {
      cut = -infinity();
    } else if (candidates > 0 && (!byCount || budget > 0)) {
      // Candidates at or above `met` meet the budget (a budget of two may find a single one), those at or above `missed` do not.
      uint32_t met = orderedKey(least), missed = orderedKey(most) + 1;
      int countMet = candidates, countMissed = 0;
      while (met + 1 < missed && countMet - countMissed > 1) {
        const uint32_t middle = met + (missed - met) / 2;
        const float bound = valueOfKey(middle);
        int count = 0;
        double weight = 0;
        if (byCount) {
          for (int c = 0; c < blocks; ++c) count += candidateAt(c) >= bound;
        } else {
          for (int c = 0; c < blocks; ++c) {
            const float value = candidateAt(c);
            if (!(value >= bound)) continue;
            ++count;
            weight += static_cast<double>(value) - lowest;
          }
        }
        const bool meets = byCount ? count >= budget : count > 0 && weight / range / total >= need;
        (meets ? met : missed) = middle;
        (meets ? countMet : countMissed) = count;
      }
      // The key of the last entry taken is the greatest below `missed`.
      const float beyond = valueOfKey(missed);
      cut = -infinity();
      for (int c = 0; c < blocks; ++c) {
        const float value = candidateAt(c);
        if (value < beyond) cut = tile::maximum(cut, value);
      }
      int above = 0;
      double weightAbove = 0;
      for (int c = 0; c < blocks; ++c) {
        const float value = candidateAt(c);
        if (value > cut) {
          ++above;
          weightAbove += static_cast<double>(value) - lowest;
        }
        ties += value == cut;
      }
      if (byCount) {
        ties = budget - above < ties ? budget - above : ties;
      } else {
        int needed = 1;
        const double one = static_cast<double>(cut) - lowest;
        while (needed < ties && (weightAbove + needed * one) / range / total < need) ++needed;
        ties = needed;
      }
      // Entries of weight 0 stand in one list with the own block and, upstream, those of other sequences.
      if (x.rule.mode == SelectionMode::Threshold && (cut <= leastValid || (byCount && above + ties < budget))) {
        int positive = 0;
        for (int c = 0; c < blocks; ++c) positive += candidateAt(c) > leastValid;
        zeros = (byCount ? budget : 1) - positive;
        cut = leastValid;
        ties = 0;
      }
    }

    uint32_t* words = x.selection + (int64_t{head} * plan.tokens + s) * plan.words();
    for (int word = 0; word < plan.words(); ++word) {
      uint32_t bits = 0, mine = 0;
      for (int j = 0; j < 32 && word * 32 + j < blocks; ++j) {
        const int c = word * 32 + j;
        const float value = candidateAt(c);
        bool taken = inside && (c == ownBlock || value > cut);
        if (inside && value == cut) {
          if (ties > 0) {
            --ties;
            taken = true;
          } else if (zeros > 0) {
            --zeros;
            taken = true;
          }
        }
        if (zeros > 0 && value != value && (c == ownBlock || x.rule.semantics == Semantics::Upstream)) --zeros;  // of weight 0 too
        if (taken) bits = tile::setBit(bits, j);
        const auto votes = static_cast<uint32_t>(tile::populationCount(tile::ballot(taken)));
        if (tile::laneIndex() == j) mine = votes;
      }
      if (inside) words[word] = bits;
      if (mine) tile::atomicAdd(&x.selected[int64_t{head} * blocks + word * 32 + tile::laneIndex()], mine);
    }
  }
};

template <bool Staged>
void launchPerQuery(tile::Stream stream, const SelectionJob& job) {
  using Kernel = SelectPerQuery<Staged>;
  tile::launch<Kernel>(stream, {tile::divideUp(job.plan.tokens, Kernel::threads), job.heads}, Kernel::sharedBytes(job.plan.blocks), job);
}

}  // namespace

void selectPerQuery(tile::Stream stream, const SelectionJob& job) {
  SelectPerQuery<true>::sharedBytes(job.plan.blocks) <= kMostStaged ? launchPerQuery<true>(stream, job) : launchPerQuery<false>(stream, job);
}

}  // namespace vmoba::cuda
