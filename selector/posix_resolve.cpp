// getaddrinfo. It reads files and asks servers as it likes, so another thread makes the call, and the fiber
// parks meanwhile.

#include "drop_in.hpp"
#include "posix.h"

#include <annulet/hub/hub_core.hpp>
#include <annulet/hub/name_threads.hpp>
#include <annulet/runtime/switching.hpp>

#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include <netdb.h>

namespace annulet::detail {

namespace {

// What is asked, and the answer. Holds all of it, for it may go on when nobody waits for it any more.
class address_resolution final : public name_threads::resolution {
 public:
  address_resolution(const char* node, const char* service, const addrinfo* hints)
      : node_(copy_of(node)), service_(copy_of(service)) {
    if (hints != nullptr) {
      hints_ = *hints;
    }
  }
  ~address_resolution() override {
    if (found_ != nullptr) {
      ::freeaddrinfo(found_);
    }
  }

  void run() noexcept override {
    result_ = ::getaddrinfo(text(node_), text(service_), hints_ ? &*hints_ : nullptr, &found_);
    error_ = errno;
  }

  int tell(addrinfo** found) noexcept {
    if (result_ == 0) {
      *found = std::exchange(found_, nullptr);
    } else if (result_ == EAI_SYSTEM) {
      errno = error_;
    }
    return result_;
  }

 private:
  using copied_text = std::optional<std::string>;
  static copied_text copy_of(const char* given) {
    return given == nullptr ? std::nullopt : copied_text(given);
  }
  static const char* text(const copied_text& kept) noexcept { return kept ? kept->c_str() : nullptr; }

  const copied_text node_;
  const copied_text service_;
  std::optional<addrinfo> hints_;
  addrinfo* found_ = nullptr;
  int result_ = 0;
  int error_ = 0;
};

// What needs nobody to be asked: false where it is not that, or would fail.
bool is_a_number(const char* node, const char* service, const addrinfo* hints, addrinfo** found) noexcept {
  addrinfo asked{};
  asked.ai_flags = AI_V4MAPPED | AI_ADDRCONFIG;  // what no hints are
  if (hints != nullptr) {
    asked = *hints;
  }
  asked.ai_flags |= AI_NUMERICHOST | AI_NUMERICSERV;
  const hub_core::away plainly;
  return ::getaddrinfo(node, service, &asked, found) == 0;
}

// Parks. False where something else came first, which stays pending.
bool has_come(hub_core& hub, const std::shared_ptr<address_resolution>& asked) {
  promised& done = *asked->done;
  (void)done.listen("getaddrinfo");  // it has not begun
  hub.names().submit(asked);
  waiter w(hub.fibers().running(), "getaddrinfo");
  const bool has = done.line().park_and_tell(w, deadline::never(), wakers::outside) == wake_reason::ready;
  if (!has) {
    hub.names().abandon(*asked);
    done.stop_listening();
  }
  return has;
}

// On a thread with a hub.
int resolve(hub_core& hub, const char* node, const char* service, const addrinfo* hints, addrinfo** found) {
  const scheduler& fibers = hub.fibers();
  if (is_a_number(node, service, hints, found)) {
    breathe(hub);
    return 0;
  }
  int failure = EAI_SYSTEM;
  if (!fibers.is_shutting_down() && !fibers.is_interrupted()) {
    try {
      const auto asked = std::make_shared<address_resolution>(node, service, hints);
      if (has_come(hub, asked)) {
        return asked->tell(found);
      }
    } catch (const std::bad_alloc&) {
      failure = EAI_MEMORY;
    } catch (const std::system_error&) {
      failure = EAI_AGAIN;  // no thread is to be had
    }
  }
  breathe(hub);  // its caller may try for ever
  if (failure == EAI_SYSTEM) {
    errno = ECANCELED;
  }
  return failure;
}

}  // namespace

}  // namespace annulet::detail

using namespace annulet::detail;

int annulet_getaddrinfo(const char* node, const char* service, const addrinfo* hints, addrinfo** found) {
  hub_core* const hub = hub_core::of_caller();
  if (hub == nullptr || hub->is_in_handler()) {
    const hub_core::away here;  // or libannulet-posix's would come back, of a child that was not told of, too
    return ::getaddrinfo(node, service, hints, found);
  }
  return resolve(*hub, node, service, hints, found);
}
