// A request that is carried out by a plain system call on a thread of the pool. One that may wait for a peer
// is first waited for by a watch, where a watch can tell, so that a silent peer takes no thread. Internal.
#pragma once

#include "file_identity.hpp"
#include "request.hpp"
#include "watch.hpp"
#include "worker_pool.hpp"

#include <chrono>
#include <cstdint>
#include <optional>

namespace annulet::detail {

class threaded_call final : public watch, public worker_pool::job {
 public:
  // `callable`: where it goes when its watch has told; null for who does not wait for that.
  threaded_call(request& r, const operation& what, intrusive_list<worker_pool::job>* callable) noexcept
      : callable_(callable), request_(r), what_(what) {}

  // The events to wait for before it is made; 0 where none tell.
  [[nodiscard]] std::uint16_t needs() const noexcept;
  // Why it is refused at once, whatever would come: an errno, or 0. What is waited for first would hide it.
  [[nodiscard]] int refusal() const noexcept;
  // Disks are quick, or at least certain; so few threads will do for them.
  [[nodiscard]] worker_pool::urgency how_urgent() const noexcept;

  [[nodiscard]] request& of() noexcept { return request_; }
  [[nodiscard]] io_result result() const noexcept { return result_; }

  // EBADF where the number was closed behind the hub's back, and has another file by now, as far as that can
  // be told (file_identity.hpp).
  void run() noexcept override;
  void ended() noexcept override;
  // Whatever it was: the call itself will tell.
  void on_event(io_result) noexcept override {
    if (!static_cast<list_hook<>&>(*this).linked()) {
      callable_->push_back(*this);
    }
  }
  void on_close() noexcept override {}  // whoever waits for the request is told, and cancels it
  void on_hub_end() noexcept override {}

  // At each attempt to end it. Says so on stderr, once, where it goes on although the first was seconds ago.
  // `thread`: whose it is; 0 where nobody's.
  void report_if_stuck(pid_t thread) noexcept;

  bool submitted = false;  // the pool has it, or has had it

 private:
  [[nodiscard]] bool finds_its_file() const noexcept {
    return !what_.file || identity_of(what_.fd) == what_.file;
  }
  [[nodiscard]] io_result connect() const noexcept;
  [[nodiscard]] io_result transfer(long single, long plain, long positioned) const noexcept;
  [[nodiscard]] bool opens_for_peer() const noexcept;

  intrusive_list<worker_pool::job>* callable_;
  request& request_;
  const operation what_;
  io_result result_{0};
  std::optional<std::chrono::steady_clock::time_point> called_off_;
  bool reported_ = false;
};

}  // namespace annulet::detail
