#include "timer_queue.hpp"

#include "check.hpp"

#include <algorithm>

namespace annulet::detail {

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
    if (first >= heap_.size()) {
      break;
    }
    const std::size_t end = std::min(first + children, heap_.size());
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
  check(heap_.size() < heap_.capacity(), "a timer was armed for which no room was made");
  const entry e{when, armed_++, &node};
  heap_.push_back(e);
  sift_up(heap_.size() - 1, e);
}

void timer_queue::disarm(timer_node& node) noexcept {
  if (!node.armed()) {
    return;
  }
  const std::size_t hole = node.at_;
  node.at_ = timer_node::nowhere;
  const entry last = heap_.back();
  heap_.pop_back();
  if (hole == heap_.size()) {
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
  while (!heap_.empty() && heap_.front().when <= now) {
    timer_node& due = *heap_.front().node;
    disarm(due);
    due.fire_(due);
    ++fired;
  }
  return fired;
}

}  // namespace annulet::detail
