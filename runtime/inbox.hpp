// What other threads leave for a hub: a list that any thread may push to and one thread takes whole.
#pragma once

#include <atomic>
#include <utility>

namespace annulet::detail {

// Something to run. Owned by the inbox once pushed, by whoever took it after that.
class posted {
 public:
  posted() = default;
  posted(const posted&) = delete;
  posted& operator=(const posted&) = delete;
  virtual ~posted() = default;
  virtual void run() = 0;

 private:
  friend class inbox;
  posted* next_ = nullptr;
};

// head_ is the newest, linked to the older ones; or the closed mark, for ever.
class inbox {
 public:
  inbox() = default;
  inbox(const inbox&) = delete;
  inbox& operator=(const inbox&) = delete;
  ~inbox() { discard(take_reversed(nullptr)); }

  // False where the inbox is closed; the item is the caller's still. Any thread.
  [[nodiscard]] bool push(posted& item) noexcept {
    posted* head = head_.load(std::memory_order_relaxed);
    do {
      if (head == closed_mark()) {
        return false;
      }
      item.next_ = head;
    } while (!head_.compare_exchange_weak(head, &item, std::memory_order_release, std::memory_order_relaxed));
    return true;
  }

  [[nodiscard]] bool empty() const noexcept {
    const posted* const head = head_.load(std::memory_order_acquire);
    return head == nullptr || head == closed_mark();
  }

  // All that was pushed, oldest first, linked by next(). The taking thread only.
  [[nodiscard]] posted* take() noexcept {
    const posted* const head = head_.load(std::memory_order_acquire);
    return head == nullptr || head == closed_mark() ? nullptr : take_reversed(nullptr);
  }

  // From now on push says no. What nobody took is destroyed without being run. The taking thread only.
  void close() noexcept { discard(take_reversed(closed_mark())); }

  // The same in a forked child: what nobody took stays as it is.
  void abandon() noexcept { head_.store(closed_mark(), std::memory_order_relaxed); }
  // The rest of what take() gave.
  [[nodiscard]] static posted* next(const posted& item) noexcept { return item.next_; }

 private:
  // No item has the inbox's own address.
  [[nodiscard]] posted* closed_mark() const noexcept {
    return reinterpret_cast<posted*>(const_cast<inbox*>(this));
  }

  posted* take_reversed(posted* leave) noexcept {
    posted* newest = head_.exchange(leave, std::memory_order_acquire);
    posted* oldest = nullptr;
    while (newest != nullptr && newest != closed_mark()) {
      posted* const older = newest->next_;
      newest->next_ = oldest;
      oldest = newest;
      newest = older;
    }
    return oldest;
  }

  static void discard(posted* first) noexcept {
    while (first != nullptr) {
      delete std::exchange(first, first->next_);
    }
  }

  std::atomic<posted*> head_{nullptr};
};

}  // namespace annulet::detail
