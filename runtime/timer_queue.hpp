// The one structure for time: a heap, four children to a place, of entries that stand in one array. The nodes
// that they are for live in the frames that wait.
//
// Taking the earliest goes through the array alone and touches no frame but the one that it is for; of a
// million timers in a tree of nodes each step is a miss. Arming costs little, since most deadlines are later
// than those before them; disarming is O(log n) at most. Equal deadlines fire in the order they were armed.
// (Four children: LaMarca and Ladner, "The influence of caches on the performance of heaps", 1996.)
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace annulet::detail {

class timer_queue;

// A place in the queue. Pinned while armed; its owner disarms it before it goes.
class timer_node {
 public:
  using fire_function = void (*)(timer_node&) noexcept;

  explicit timer_node(fire_function fire) noexcept : fire_(fire) {}
  timer_node(const timer_node&) = delete;
  timer_node& operator=(const timer_node&) = delete;

  [[nodiscard]] bool armed() const noexcept { return at_ != nowhere; }

 private:
  friend class timer_queue;
  static constexpr std::size_t nowhere = SIZE_MAX;

  std::size_t at_ = nowhere;
  fire_function fire_;
};

class timer_queue {
 public:
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  // The earliest deadline, in steady nanoseconds. The queue must not be empty.
  [[nodiscard]] std::int64_t earliest() const noexcept { return heap_[0].when; }

  // For so many nodes at a time. May throw std::bad_alloc. Nothing else allocates.
  void make_room(std::size_t nodes) {
    if (nodes > room_) {
      grow(nodes);
    }
  }
  // There must be room.
  void arm(timer_node& node, std::int64_t when) noexcept;
  void disarm(timer_node& node) noexcept;
  // Takes out each node whose time has come, earliest first, and calls its fire function, which may arm
  // and disarm others. Returns how many fired.
  unsigned fire_due(std::int64_t now) noexcept;

 private:
  struct entry {
    std::int64_t when;
    std::uint64_t order;  // of arming, for equal deadlines
    timer_node* node;
  };
  static constexpr std::size_t children = 4;

  static bool before(const entry& a, const entry& b) noexcept {
    return a.when != b.when ? a.when < b.when : a.order < b.order;
  }
  void grow(std::size_t nodes);
  void put(std::size_t at, const entry& e) noexcept {
    heap_[at] = e;
    e.node->at_ = at;
  }
  void sift_up(std::size_t hole, const entry& e) noexcept;
  void sift_down(std::size_t hole, const entry& e) noexcept;

  std::unique_ptr<entry[]> heap_;
  std::size_t size_ = 0;
  std::size_t room_ = 0;
  std::uint64_t armed_ = 0;
};

}  // namespace annulet::detail
