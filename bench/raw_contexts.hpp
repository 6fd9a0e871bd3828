// Contexts that do nothing but hand on the processor by jump_fcontext: the floor under every fiber switch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace bench {

class meter;

// A round of `count` bare contexts. Their stacks lie in one mapping as far apart as annulet's pool puts its
// own (256 KiB and the page of a guard), without huge pages as there, so that both pay the same for caches
// and for the page table. The guard itself is left out: nobody touches it, and where the kernel has no
// MADV_GUARD_INSTALL 100,000 of them would be more mappings than a process may have.
class raw_contexts {
 public:
  explicit raw_contexts(std::size_t count);
  ~raw_contexts();
  raw_contexts(const raw_contexts&) = delete;
  raw_contexts& operator=(const raw_contexts&) = delete;

  // Each context jumps to the next, `rounds` times around after a warm-up. Checks the order and the count.
  void turn(meter& clock, std::uint64_t rounds);

  // The same, but each context asks for the stack of the one after the next before it jumps. A ring of so
  // many contexts that their stacks are in no cache spends most of its time on waiting for them; any
  // scheduler that touches the next fiber early, as unlinking it from a doubly linked queue does, is spared
  // that.
  void turn_with_prefetch(meter& clock, std::uint64_t rounds);

 private:
  struct round_state;
  template <bool prefetch>
  void run(meter& clock, std::uint64_t rounds);

  std::size_t count_;
  char* stacks_;
  std::vector<void*> contexts_;
};

}  // namespace bench
