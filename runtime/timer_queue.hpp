// The one structure for time: a pairing heap whose nodes live in the frames that wait.
//
// Arming is O(1) and allocates nothing; so is disarming what never came near the top, which is what most
// timeouts are. Taking the earliest is O(log n) amortised (Fredman, Sedgewick, Sleator, Tarjan: "The
// pairing heap", Algorithmica 1, 1986). Equal deadlines fire in the order they were armed.
#pragma once

#include <cstdint>

namespace annulet::detail {

class timer_queue;

// A place in the queue. Pinned while armed; its owner disarms it before it goes.
class timer_node {
 public:
  using fire_function = void (*)(timer_node&) noexcept;

  explicit timer_node(fire_function fire) noexcept : fire_(fire) {}
  timer_node(const timer_node&) = delete;
  timer_node& operator=(const timer_node&) = delete;

  [[nodiscard]] bool armed() const noexcept { return link_ != nullptr; }

 private:
  friend class timer_queue;

  std::int64_t when_ = 0;    // steady nanoseconds
  std::uint64_t order_ = 0;  // of arming, for equal deadlines
  timer_node* child_ = nullptr;
  timer_node* next_ = nullptr;   // the next child of the same parent
  timer_node** link_ = nullptr;  // the pointer that points here; null when not armed
  fire_function fire_;
};

class timer_queue {
 public:
  [[nodiscard]] bool empty() const noexcept { return root_ == nullptr; }
  // The earliest deadline, in steady nanoseconds. The queue must not be empty.
  [[nodiscard]] std::int64_t earliest() const noexcept { return root_->when_; }

  void arm(timer_node& node, std::int64_t when) noexcept;
  void disarm(timer_node& node) noexcept;
  // Takes out each node whose time has come, earliest first, and calls its fire function, which may arm
  // and disarm others. Returns how many fired.
  unsigned fire_due(std::int64_t now) noexcept;

 private:
  static bool before(const timer_node& a, const timer_node& b) noexcept;
  static timer_node* merge(timer_node* a, timer_node* b) noexcept;
  static timer_node* merge_siblings(timer_node* first) noexcept;
  void set_root(timer_node* node) noexcept;

  timer_node* root_ = nullptr;
  std::uint64_t armed_ = 0;
};

}  // namespace annulet::detail
