// The fibers that are ready, first come first: a ring of pointers.
//
// A ring and not a linked list, so that what lies ahead is known: with many fibers each switch goes to a
// stack that no cache holds any more, and fetching it while its predecessors still run hides most of that.
// There is room for every fiber alive, made when it is spawned; pushing never allocates.
#pragma once

#include "control_block.hpp"

#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace annulet::detail {

class ready_queue {
 public:
  [[nodiscard]] bool empty() const noexcept { return first_ == end_; }
  [[nodiscard]] std::size_t size() const noexcept { return end_ - first_; }

  // A fiber is in the queue once at most, so room for all of them is room enough. May throw std::bad_alloc.
  void make_room(std::size_t fibers) {
    if (fibers > mask_) {
      grow(fibers);
    }
  }

  void push(control_block& fiber) noexcept { ring_[end_++ & mask_] = &fiber; }

  // Null where nobody is ready. The fibers a few turns ahead are fetched into the cache.
  [[nodiscard]] control_block* pop() noexcept {
    if (empty()) {
      return nullptr;
    }
    control_block* const fiber = ring_[first_++ & mask_];
    const std::size_t left = end_ - first_;
    if (left > stack_ahead) {
      // Its control block was fetched some turns ago, so this reads where its stack stands without waiting.
      // A number, for one that has run so far has none.
      const auto stack = reinterpret_cast<std::uintptr_t>(ring_[(first_ + stack_ahead) & mask_]->context);
      for (std::size_t line = 0; line < stack_lines; ++line) {
        __builtin_prefetch(reinterpret_cast<const void*>(stack + line * 64));
      }
    }
    if (left > block_ahead) {
      __builtin_prefetch(ring_[(first_ + block_ahead) & mask_]);
    }
    return fiber;
  }

 private:
  // Measured with 100,000 fibers in turn: see the switch benchmark.
  static constexpr std::size_t stack_ahead = 2;
  static constexpr std::size_t block_ahead = 6;
  static constexpr std::size_t stack_lines =
      3;  // saved registers, and the frames of the switch and of its caller

  void grow(std::size_t fibers) {
    const std::size_t size = std::bit_ceil(fibers + 1);
    auto bigger = std::make_unique<control_block*[]>(size);
    std::size_t count = 0;
    for (; first_ != end_; ++first_) {
      bigger[count++] = ring_[first_ & mask_];
    }
    ring_ = std::move(bigger);
    mask_ = size - 1;
    first_ = 0;
    end_ = count;
  }

  std::unique_ptr<control_block*[]> ring_;
  std::size_t mask_ = 0;
  std::size_t first_ = 0;
  std::size_t end_ = 0;
};

}  // namespace annulet::detail
