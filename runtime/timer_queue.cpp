#include "timer_queue.hpp"

#include "check.hpp"

#include <algorithm>
#include <utility>

namespace annulet::detail {

void timer_queue::grow(std::size_t nodes) {
  const std::size_t room = std::max<std::size_t>(nodes * 2, 64);
  auto bigger = std::make_unique_for_overwrite<entry[]>(room);
  std::copy_n(heap_.get(), size_, bigger.get());
  heap_ = std::move(bigger);
  room_ = room;
}

// Puts the entry into the hole, or into one further up to which its elders have moved the hole.
void timer_queue::sift_up(std::size_t hole, const entry& e) noexcept {
  while (hole != 0) {
    const std::size_t parent = (hole - 1) / children;
    if (!before(e, heap_[parent])) {
      break;
    }
    put(hole, heap_[parent]);
    hole = parent;
  }
  put(hole, e);
}

void timer_queue::sift_down(std::size_t hole, const entry& e) noexcept {
  for (;;) {
    const std::size_t first = hole * children + 1;
    if (first >= size_) {
      break;
    }
    const std::size_t end = std::min(first + children, size_);
    std::size_t least = first;
    for (std::size_t child = first + 1; child < end; ++child) {
      least = before(heap_[child], heap_[least]) ? child : least;
    }
    if (!before(heap_[least], e)) {
      break;
    }
    put(hole, heap_[least]);
    hole = least;
  }
  put(hole, e);
}

void timer_queue::arm(timer_node& node, std::int64_t when) noexcept {
  check(!node.armed(), "a timer was armed twice");
  check(size_ < room_, "a timer was armed for which no room was made");
  const entry e{when, armed_++, &node};
  sift_up(size_++, e);
}

void timer_queue::disarm(timer_node& node) noexcept {
  if (!node.armed()) {
    return;
  }
  const std::size_t hole = node.at_;
  node.at_ = timer_node::nowhere;
  const entry last = heap_[--size_];
  if (hole == size_) {
    return;  // it was the last itself
  }
  if (hole != 0 && before(last, heap_[(hole - 1) / children])) {
    sift_up(hole, last);
  } else {
    sift_down(hole, last);
  }
}

unsigned timer_queue::fire_due(std::int64_t now) noexcept {
  unsigned fired = 0;
  while (size_ != 0 && heap_[0].when <= now) {
    timer_node& due = *heap_[0].node;
    disarm(due);
    due.fire_(due);
    ++fired;
  }
  return fired;
}

}  // namespace annulet::detail
