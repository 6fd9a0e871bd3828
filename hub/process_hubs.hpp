// The hubs of this process, for fork(2): the child gets a copy of each, which it must not use, for ring,
// epoll set and eventfd would be shared with the parent. They are left to it: their descriptors are closed in
// the child, their handles, fibers and selectors find their hub gone, and nothing of them is destroyed.
#pragma once

#include <annulet/runtime/intrusive_list.hpp>

#include <mutex>

namespace annulet::detail {

class hub_core;

// In each hub, while it lives. Any thread makes and destroys its own.
class process_hub : public list_hook<> {
 public:
  // Throws std::system_error where fork cannot be told of.
  explicit process_hub(hub_core& hub);
  ~process_hub();

  // Guards what all hubs of the process share. Nobody else holds it when a child begins.
  [[nodiscard]] static std::mutex& mutex() noexcept;

 private:
  static void before_fork() noexcept;
  static void in_parent() noexcept;
  static void in_child() noexcept;

  static const int refused_;  // why fork cannot be told of: an errno, or 0

  hub_core& hub_;
};

}  // namespace annulet::detail
