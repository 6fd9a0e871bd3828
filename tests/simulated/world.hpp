// A simulated life's fibers, what happens around them, and what has to hold meanwhile.
#pragma once

#include "kernel.hpp"
#include "life.hpp"
#include "places.hpp"

#include <annulet/hub/hub.hpp>
#include <annulet/runtime/deadline.hpp>
#include <annulet/runtime/event.hpp>
#include <annulet/runtime/fiber.hpp>

#include <array>
#include <chrono>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <poll.h>

namespace simulated {

class world final : public outside {
 public:
  world(const script& s, std::uint64_t seed);
  ~world() override;

  void run(kernel& k, annulet::hub& home);

  bool act() override;
  void at_rest(std::int64_t now) override;
  [[noreturn]] void goes_round() override;
  // Notes what is wrong, the first time, and has the life end.
  void require(bool holds, std::string_view what);

  outcome result;

 private:
  struct worker {
    std::optional<annulet::fiber<void>> fiber;
    bool killed = false;
    std::int64_t killed_at = 0;
    bool joined = false;  // somebody waits for its end
  };
  // Between the look at the time and the wait, some enters.
  static constexpr std::int64_t at_once = 20'000;
  static constexpr std::int64_t requests_end = 200'000'000;
  // What a fiber waits for: while it is parked, nothing of it may be there once the kernel is quiet.
  class waiting {
   public:
    // `slack` nanoseconds late is in time: a request that is just being carried out is called off again and
    // again.
    waiting(world& w, std::vector<pollfd> for_what, annulet::deadline until, std::int64_t slack = at_once);
    ~waiting();
    waiting(const waiting&) = delete;
    waiting& operator=(const waiting&) = delete;

   private:
    friend class world;
    world& world_;
    std::vector<pollfd> for_what_;
    std::int64_t until_;  // by when it has to have ended
    std::int64_t slack_;
    worker* who_;
  };
  static constexpr std::size_t disk_size = 4096;
  [[nodiscard]] static std::uint8_t byte_at(std::size_t position) noexcept {
    return static_cast<std::uint8_t>(position * 31 + 7);
  }
  [[nodiscard]] static std::uint32_t asked(short events) noexcept {
    return static_cast<unsigned short>(events);
  }

  using operation = void (world::*)(worker& self);
  struct named {
    const char* name;
    operation run;
  };
  static const std::vector<named> operations_;
  friend std::vector<const char*> operation_names();

  void work(worker& self);
  void spawn(worker& one);
  void kill_all();
  [[noreturn]] void give_up(const char* why) const;

  void read(worker&);
  void write(worker&);
  void select(worker&);
  void poll(worker&);
  void wait_for_epoll(worker&);
  void sleep(worker&);
  void close(worker&);
  void transfer(worker&);
  void accept(worker&);
  void kill(worker&);
  void guard(worker&);
  void act_beside(worker&);

  [[nodiscard]] annulet::deadline some_deadline();
  // The result of a call that may end by the deadline or because the number was closed; nothing then.
  template <class Call>
  auto attempt(const place& p, annulet::deadline until, Call&& call) -> std::optional<decltype(call())>;
  [[nodiscard]] std::shared_ptr<place> some_place();
  [[nodiscard]] std::vector<std::shared_ptr<place>> some_places();
  void replace(const std::shared_ptr<place>& gone);

  const script script_;
  oracle::dice dice_;
  kernel* kernel_ = nullptr;
  std::vector<std::shared_ptr<place>> places_;
  std::vector<worker> workers_;
  annulet::event ended_;
  worker* running_ = nullptr;
  std::vector<waiting*> waiting_;
  std::optional<annulet::hub_handle> handle_;
  std::uint64_t posted_ = 0;
  std::uint64_t ran_ = 0;
  unsigned idle_acts_ = 0;
  bool over_ = false;
  int disk_ = -1;
  int listener_ = -1;
};

}  // namespace simulated
