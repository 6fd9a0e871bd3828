// A doubly linked list whose links are in its members: linking allocates nothing, and a member leaves the
// list it is on without knowing which one. That is how a woken waiter leaves every list before its fiber
// runs.
#pragma once

namespace annulet::detail {

// The links. A type that is on several lists at once derives from one hook a list, told apart by Tag.
// Leaves its list when destroyed. Neither copied nor moved: others point at it.
template <class Tag = void>
class list_hook {
 public:
  list_hook() noexcept = default;
  list_hook(const list_hook&) = delete;
  list_hook& operator=(const list_hook&) = delete;
  ~list_hook() { unlink(); }

  [[nodiscard]] bool linked() const noexcept { return next_ != nullptr; }

  // Leaves the list, if it is on one.
  void unlink() noexcept {
    if (next_ == nullptr) {
      return;
    }
    next_->prev_ = prev_;
    prev_->next_ = next_;
    next_ = prev_ = nullptr;
  }

 private:
  template <class, class>
  friend class intrusive_list;

  list_hook* next_ = nullptr;
  list_hook* prev_ = nullptr;
};

// The list: a ring through its own hook. Owns nothing. Members are still linked when it is destroyed
// only where its owner says so; they are let go.
template <class T, class Tag = void>
class intrusive_list {
 public:
  using hook = list_hook<Tag>;

  constexpr intrusive_list() noexcept { root_.next_ = root_.prev_ = &root_; }
  intrusive_list(const intrusive_list&) = delete;
  intrusive_list& operator=(const intrusive_list&) = delete;
  ~intrusive_list() {
    while (!empty()) {
      root_.next_->unlink();
    }
  }

  [[nodiscard]] bool empty() const noexcept { return root_.next_ == &root_; }
  [[nodiscard]] T& front() noexcept { return static_cast<T&>(*root_.next_); }

  void push_back(T& member) noexcept {
    hook& h = member;
    h.prev_ = root_.prev_;
    h.next_ = &root_;
    root_.prev_->next_ = &h;
    root_.prev_ = &h;
  }

  T& pop_front() noexcept {
    T& member = front();
    static_cast<hook&>(member).unlink();
    return member;
  }

  // Calls fn with each member, first to last; fn may unlink the one it was given.
  template <class Fn>
  void for_each(Fn&& fn) {
    for (hook* h = root_.next_; h != &root_;) {
      hook* const after = h->next_;
      fn(static_cast<T&>(*h));
      h = after;
    }
  }

 private:
  hook root_;
};

}  // namespace annulet::detail
