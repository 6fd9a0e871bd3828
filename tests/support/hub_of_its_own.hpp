// Code on a hub of another thread, for as long as this lives.
#pragma once

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <future>
#include <thread>
#include <utility>

namespace annulet::test {

class hub_of_its_own {
 public:
  // Runs in a fiber there, which is killed in the end, and then all that are left with it. What it throws
  // ends the process: nobody would hear of it.
  explicit hub_of_its_own(std::function<void()> live)
      : thread_([this, live = std::move(live)] {
          hub home;
          event over;
          began_.set_value({home.handle(), &over});
          auto first = spawn([live] {
            try {
              live();
            } catch (const std::exception& e) {
              std::fprintf(stderr, "hub_of_its_own: %s\n", e.what());
              std::abort();
            }
          });
          over.wait();
          first.kill();
          first.join();
        }),
        there_(began_.get_future().get()) {}
  ~hub_of_its_own() {
    there_.first.post([over = there_.second] { over->set(); });
  }
  hub_of_its_own(const hub_of_its_own&) = delete;
  hub_of_its_own& operator=(const hub_of_its_own&) = delete;

 private:
  std::promise<std::pair<hub_handle, event*>> began_;
  std::jthread thread_;
  std::pair<hub_handle, event*> there_;
};

}  // namespace annulet::test
