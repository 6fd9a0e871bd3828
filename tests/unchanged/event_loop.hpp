// libevent's loop as its users have it, with functions for callbacks. Nothing here knows of fibers.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <event2/event.h>

namespace annulet::test {

inline const std::vector<std::string>& back_ends() {
  static const std::vector<std::string> all{"select", "poll", "epoll"};
  return all;
}

class event_loop {
 public:
  using callback = std::function<void(short what)>;

  explicit event_loop(const std::string& back_end, int flags = 0) {
    const std::unique_ptr<event_config, decltype(&event_config_free)> config(event_config_new(),
                                                                             event_config_free);
    for (const std::string& other : back_ends()) {
      if (other != back_end) {
        event_config_avoid_method(config.get(), other.c_str());
      }
    }
    event_config_set_flag(config.get(), flags);
    base_.reset(event_base_new_with_config(config.get()));
    if (base_ == nullptr || event_base_get_method(base_.get()) != back_end) {
      throw std::runtime_error("libevent has no back end " + back_end);
    }
  }

  [[nodiscard]] event_base* get() const noexcept { return base_.get(); }
  int run(int flags = 0) { return event_base_loop(base_.get(), flags); }

  // Added already; lives as long as the loop.
  event* on(int fd, short what, callback then) { return add(fd, what, nullptr, std::move(then)); }
  event* on(int fd, short what, std::chrono::milliseconds within, callback then) {
    const timeval time = as_timeval(within);
    return add(fd, what, &time, std::move(then));
  }
  event* after(std::chrono::milliseconds time, callback then) { return on(-1, 0, time, std::move(then)); }
  event* every(std::chrono::milliseconds time, callback then) {
    return on(-1, EV_PERSIST, time, std::move(then));
  }

  static timeval as_timeval(std::chrono::milliseconds time) {
    return {time.count() / 1000, time.count() % 1000 * 1000};
  }

 private:
  event* add(int fd, short what, const timeval* within, callback then) {
    callbacks_.push_back(std::move(then));
    const auto call = [](int, short happened, void* its) { (*static_cast<callback*>(its))(happened); };
    events_.emplace_back(event_new(base_.get(), fd, what, call, &callbacks_.back()), event_free);
    if (event_add(events_.back().get(), within) != 0) {
      throw std::runtime_error("event_add");
    }
    return events_.back().get();
  }

  std::unique_ptr<event_base, decltype(&event_base_free)> base_{nullptr, event_base_free};
  std::deque<callback> callbacks_;
  std::deque<std::unique_ptr<event, decltype(&event_free)>> events_;
};

}  // namespace annulet::test
