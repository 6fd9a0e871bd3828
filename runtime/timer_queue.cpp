#include "timer_queue.hpp"

#include "check.hpp"

namespace annulet::detail {

bool timer_queue::before(const timer_node& a, const timer_node& b) noexcept {
  return a.when_ != b.when_ ? a.when_ < b.when_ : a.order_ < b.order_;
}

// Makes the later of two roots the first child of the earlier one. Both are without siblings.
timer_node* timer_queue::merge(timer_node* a, timer_node* b) noexcept {
  if (before(*b, *a)) {
    timer_node* const earlier = b;
    b = a;
    a = earlier;
  }
  b->next_ = a->child_;
  if (b->next_ != nullptr) {
    b->next_->link_ = &b->next_;
  }
  b->link_ = &a->child_;
  a->child_ = b;
  return a;
}

// The two passes: neighbours are merged pairwise from the left, then the pairs into one from the right.
timer_node* timer_queue::merge_siblings(timer_node* first) noexcept {
  timer_node* pairs = nullptr;  // a stack through next_
  while (first != nullptr) {
    timer_node* const a = first;
    timer_node* const b = a->next_;
    first = b != nullptr ? b->next_ : nullptr;
    a->next_ = nullptr;
    timer_node* pair = a;
    if (b != nullptr) {
      b->next_ = nullptr;
      pair = merge(a, b);
    }
    pair->next_ = pairs;
    pairs = pair;
  }
  timer_node* root = nullptr;
  while (pairs != nullptr) {
    timer_node* const pair = pairs;
    pairs = pair->next_;
    pair->next_ = nullptr;
    root = root == nullptr ? pair : merge(root, pair);
  }
  return root;
}

void timer_queue::set_root(timer_node* node) noexcept {
  root_ = node;
  if (node != nullptr) {
    node->link_ = &root_;
  }
}

void timer_queue::arm(timer_node& node, std::int64_t when) noexcept {
  check(!node.armed(), "a timer was armed twice");
  node.when_ = when;
  node.order_ = armed_++;
  node.child_ = nullptr;
  node.next_ = nullptr;
  set_root(root_ == nullptr ? &node : merge(root_, &node));
}

void timer_queue::disarm(timer_node& node) noexcept {
  if (!node.armed()) {
    return;
  }
  *node.link_ = node.next_;
  if (node.next_ != nullptr) {
    node.next_->link_ = node.link_;
  }
  node.next_ = nullptr;
  node.link_ = nullptr;
  timer_node* const orphans = merge_siblings(node.child_);
  node.child_ = nullptr;
  if (orphans != nullptr) {
    set_root(root_ == nullptr ? orphans : merge(root_, orphans));
  }
}

unsigned timer_queue::fire_due(std::int64_t now) noexcept {
  unsigned fired = 0;
  while (root_ != nullptr && root_->when_ <= now) {
    timer_node& due = *root_;
    disarm(due);
    due.fire_(due);
    ++fired;
  }
  return fired;
}

}  // namespace annulet::detail
